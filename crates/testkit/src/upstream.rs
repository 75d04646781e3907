//! A scripted HTTP/1.1 server that remembers what it was sent. A thread per connection.

use std::io::{self, BufReader, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::message::{Request, read_request};

/// What an [`Upstream`] answers.
#[derive(Clone, Debug)]
pub struct Response {
    head: Vec<u8>,
    framing: Framing,
    body: Vec<u8>,
    delay: Duration,
    close: bool,
}

#[derive(Clone, Debug)]
enum Framing {
    Length,
    Chunks(usize),
    AsGiven,
}

impl Response {
    /// A response with that status and no body yet.
    pub fn new(status: u16) -> Self {
        let head = format!("HTTP/1.1 {status} Scripted\r\n").into_bytes();
        Self { head, framing: Framing::Length, body: Vec::new(), delay: Duration::ZERO, close: false }
    }

    /// 200 with that body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::new(200).body(body)
    }

    /// These bytes and nothing else, however wrong.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { head: bytes.into(), framing: Framing::AsGiven, body: Vec::new(), delay: Duration::ZERO, close: false }
    }

    /// No byte at all: the connection is closed instead.
    pub fn hang_up() -> Self {
        Self::raw(Vec::new()).then_close()
    }

    /// One more header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.head.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        self
    }

    /// The body, told with a `content-length`.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// The body goes out in chunks of at most that many bytes.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Self {
        self.framing = Framing::Chunks(size.max(1));
        self
    }

    /// Waits that long before the first byte.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Closes the connection behind the response.
    #[must_use]
    pub fn then_close(mut self) -> Self {
        self.close = true;
        self
    }

    fn write(&self, method: &str, to: &mut impl Write) -> io::Result<()> {
        let mut wire = self.head.clone();
        match self.framing {
            Framing::AsGiven => {}
            Framing::Length => {
                wire.extend_from_slice(format!("content-length: {}\r\n\r\n", self.body.len()).as_bytes());
                if method != "HEAD" {
                    wire.extend_from_slice(&self.body);
                }
            }
            Framing::Chunks(size) => {
                wire.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
                if method != "HEAD" {
                    for chunk in self.body.chunks(size) {
                        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                        wire.extend_from_slice(chunk);
                        wire.extend_from_slice(b"\r\n");
                    }
                    wire.extend_from_slice(b"0\r\n\r\n");
                }
            }
        }
        to.write_all(&wire)?;
        to.flush()
    }
}

/// An upstream; it stops listening and closes its connections when dropped.
#[derive(Debug)]
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    requests: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Upstream {
    /// An upstream on a free port of 127.0.0.1 that asks `script` for each response.
    ///
    /// # Panics
    /// When it can't listen.
    pub fn start(script: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), script)
            .expect("a free port of loopback can be bound")
    }

    /// An upstream at that address.
    ///
    /// # Errors
    /// When the address can't be bound.
    pub fn start_at(
        addr: SocketAddr,
        script: impl Fn(&Request) -> Response + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(addr)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let script: Arc<dyn Fn(&Request) -> Response + Send + Sync> = Arc::new(script);
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.stopped.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                if let Ok(copy) = stream.try_clone() {
                    ours.connections.lock().expect("no holder panics").push(copy);
                }
                let (shared, script) = (Arc::clone(&ours), Arc::clone(&script));
                std::thread::spawn(move || {
                    // A peer that breaks off is part of many tests: nothing to do but to close.
                    let _ = serve(&stream, &shared, script.as_ref());
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self { addr, shared })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The port where it listens.
    pub fn port(&self) -> u16 {
        self.addr.port()
    }

    /// Every request so far, oldest first.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("no holder panics").clone()
    }

    /// How many connections it has accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.lock().expect("no holder panics").len()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        let _ = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1)); // wakes the accepting thread
        for stream in self.shared.connections.lock().expect("no holder panics").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn serve(stream: &TcpStream, shared: &Shared, script: &dyn Fn(&Request) -> Response) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let go_on = || (&*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        let Some(request) = read_request(&mut reader, go_on)? else { return Ok(()) };
        shared.requests.lock().expect("no holder panics").push(request.clone());
        let response = script(&request);
        if !response.delay.is_zero() {
            std::thread::sleep(response.delay);
        }
        response.write(&request.method, &mut writer)?;
        if response.close || request.headers.get("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Downstream;

    #[test]
    fn a_downstream_and_an_upstream_understand_each_other() {
        let upstream = Upstream::start(|request| match request.target.as_str() {
            "/chunks" => Response::ok("abcdef").chunked(4),
            "/gone" => Response::hang_up(),
            _ => Response::new(201)
                .header("X-Seen", request.headers.get("host").unwrap_or("-"))
                .body(request.body.clone()),
        });
        let mut downstream = Downstream::connect(upstream.addr()).unwrap();
        let echoed = downstream.request("POST", "/", &[("Host", "web")], b"body").unwrap();
        assert_eq!((echoed.status, echoed.headers.get("x-seen"), echoed.text()), (201, Some("web"), "body"));
        assert_eq!(downstream.get("web", "/chunks").unwrap().chunks, [4, 2]);
        assert_eq!(downstream.get("web", "/gone").unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
        assert_eq!(targets, ["/", "/chunks", "/gone"]);
        assert_eq!(upstream.connections(), 1);
    }

    #[test]
    fn a_dropped_upstream_refuses() {
        let upstream = Upstream::start(|_| Response::ok(""));
        let addr = upstream.addr();
        drop(upstream);
        crate::wait_until("the port to be closed", || TcpStream::connect(addr).is_err());
    }
}
