//! Opening connections.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::SocketOptions;

/// Opens a connection within `timeout`; a slower peer is an error of kind `TimedOut`. Dropping the future gives up.
pub async fn connect(addr: SocketAddr, options: &SocketOptions, timeout: Duration) -> io::Result<TcpStream> {
    match tokio::time::timeout(timeout, TcpStream::connect(addr)).await {
        Ok(stream) => {
            let stream = stream?;
            options.apply(&stream)?;
            Ok(stream)
        }
        Err(_) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("connecting to {addr} took longer than {} ms", timeout.as_millis()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn a_connection_has_the_options_asked_for() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), &SocketOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        let options = SocketOptions { no_delay: false, keep_alive: Some(true), ..SocketOptions::default() };
        let stream = connect(addr, &options, Duration::from_secs(5)).await.unwrap();
        assert!(!stream.nodelay().unwrap());
        assert!(socket2::SockRef::from(&stream).keepalive().unwrap());
        let stream = connect(addr, &SocketOptions::default(), Duration::from_secs(5)).await.unwrap();
        assert!(stream.nodelay().unwrap());
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), &SocketOptions::default()).unwrap();
        let addr = listener.local_addr().unwrap();
        drop(listener);
        let error = connect(addr, &SocketOptions::default(), Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_listener_that_accepts_nobody_times_out() {
        // A backlog of 0 holds one connection; the kernel then ignores further SYNs.
        let options = SocketOptions { backlog: Some(0), ..SocketOptions::default() };
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into(), &options).unwrap();
        let addr = listener.local_addr().unwrap();
        let mut held = Vec::new();
        let error = loop {
            match connect(addr, &SocketOptions::default(), Duration::from_millis(50)).await {
                Ok(stream) => held.push(stream),
                Err(error) => break error,
            }
            assert!(held.len() < 100, "a full backlog keeps taking connections");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("took longer than 50 ms"), "{error}");
    }
}
