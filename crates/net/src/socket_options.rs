//! The options of a socket that a configuration can set (`socketOptions`), and what is applied where.
//!
//! Listening options go onto the listener in [`crate::bind`]; stream options onto every accepted or opened connection
//! through [`SocketOptions::apply`]. The time-outs are no socket options to the kernel: [`crate::TimedStream`] keeps them.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;

/// `socketOptions` of a server, a client or the admin server. The default is what an absent block means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// `noDelay`: small writes leave at once (no Nagle).
    pub no_delay: bool,
    /// `reuseAddr`: an address in `TIME_WAIT` can be bound again.
    pub reuse_addr: bool,
    /// `reusePort`: several sockets may listen on the same address, the kernel spreads connections over them.
    pub reuse_port: bool,
    /// `readTimeoutMs`: a connection that brings nothing for so long while it is read from is closed; `None` is for ever.
    pub read_timeout: Option<Duration>,
    /// `writeTimeoutMs`: a connection that takes nothing for so long while it is written to is closed; `None` is for ever.
    pub write_timeout: Option<Duration>,
    /// `keepAlive`: TCP keep-alive probes on or off; `None` leaves what the system does.
    pub keep_alive: Option<bool>,
    /// `backlog`: connections that may wait to be accepted; `None` is the system's limit.
    pub backlog: Option<u32>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            no_delay: true,
            reuse_addr: true,
            reuse_port: false,
            read_timeout: None,
            write_timeout: None,
            keep_alive: None,
            backlog: None,
        }
    }
}

impl SocketOptions {
    /// Sets the stream options on an accepted or opened connection.
    pub fn apply(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(self.no_delay)?;
        if let Some(keep_alive) = self.keep_alive {
            socket2::SockRef::from(stream).set_keepalive(keep_alive)?;
        }
        Ok(())
    }
}
