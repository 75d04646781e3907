//! Listening sockets.
//!
//! The listener is a plain `std` one, non-blocking, so that it can be bound on one thread and registered with (or cloned
//! for) the runtimes of others. Accepting, and what happens to a connection, belongs to whoever serves the protocol.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::SocketOptions;

/// Binds and listens. Without `reuse_port` a second listener on the same address fails, also from another process.
pub fn bind(addr: SocketAddr, options: &SocketOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // SO_REUSEADDR on Linux lets an address in TIME_WAIT be bound again; two live listeners still conflict.
    socket.set_reuse_address(options.reuse_addr)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    // The kernel cuts the number down to its own limit (net.core.somaxconn), which is what Netty asks for by default too.
    let backlog = options.backlog.map_or(i32::MAX, |n| i32::try_from(n).unwrap_or(i32::MAX));
    socket.listen(backlog)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn loopback() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    #[test]
    fn an_address_in_use_is_refused_without_reuse_port() {
        let first = bind(loopback(), &SocketOptions::default()).unwrap();
        let error = bind(first.local_addr().unwrap(), &SocketOptions::default()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn reuse_port_shares_an_address() {
        let options = SocketOptions { reuse_port: true, ..SocketOptions::default() };
        let first = bind(loopback(), &options).unwrap();
        let second = bind(first.local_addr().unwrap(), &options).unwrap();
        assert_eq!(first.local_addr().unwrap(), second.local_addr().unwrap());
    }

    #[test]
    fn an_address_can_be_bound_again_after_its_listener_is_gone() {
        let first = bind(loopback(), &SocketOptions::default()).unwrap();
        let addr = first.local_addr().unwrap();
        drop(first);
        bind(addr, &SocketOptions::default()).unwrap();
    }
}
