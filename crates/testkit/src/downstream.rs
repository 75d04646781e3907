//! A client: sends bytes as they are given, reads responses back, keeps its connection.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::message::{Reply, read_reply};

/// One connection of a caller.
#[derive(Debug)]
pub struct Downstream {
    stream: BufReader<TcpStream>,
}

impl Downstream {
    /// Connects to `addr`.
    ///
    /// # Errors
    /// What the socket says.
    pub fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&addr, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The socket, for what this type has no word for.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Writes these bytes, nothing else.
    ///
    /// # Errors
    /// What the socket says.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes.as_ref())
    }

    /// Reads the next response; `method` is that of the request (a HEAD's has no body).
    ///
    /// # Errors
    /// What the socket says; `InvalidData` when the bytes are no HTTP; `UnexpectedEof` when the peer closed without a response.
    pub fn reply(&mut self, method: &str) -> io::Result<Reply> {
        read_reply(&mut self.stream, method)
    }

    /// Sends a request with exactly these header lines, a `content-length` where there is a body, and reads the response.
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`reply`](Self::reply).
    pub fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<Reply> {
        let mut wire = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in headers {
            wire.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !body.is_empty() {
            wire.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(body);
        self.send(wire)?;
        self.reply(method)
    }

    /// GETs `target` of the service that `host` names.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub fn get(&mut self, host: &str, target: &str) -> io::Result<Reply> {
        self.request("GET", target, &[("host", host)], b"")
    }
}

/// One GET on a connection of its own.
///
/// # Errors
/// As [`Downstream::request`].
pub fn get(addr: SocketAddr, host: &str, target: &str) -> io::Result<Reply> {
    Downstream::connect(addr)?.request("GET", target, &[("host", host), ("connection", "close")], b"")
}
