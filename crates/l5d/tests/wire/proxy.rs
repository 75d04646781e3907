//! A running l5d with one HTTP router, as most tests here need it, and upstreams that can be held.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use l5d_testkit::{Downstream, L5d, Reply, Request, Response, Scrape, Upstream, free_port, get, wait_until};

/// What to start: pieces of a configuration in YAML.
#[derive(Default)]
pub(crate) struct Setup {
    router: String,
    server: String,
    admin: String,
    top: String,
    port: Option<u16>,
}

impl Setup {
    /// One router, labelled `http`, with these keys beside its server.
    pub(crate) fn router(keys: impl Into<String>) -> Self {
        Self { router: keys.into(), ..Self::default() }
    }

    /// One router that sends every name to that upstream.
    pub(crate) fn to(upstream: &Upstream) -> Self {
        Self::router(format!("dtab: /svc/* => /$/inet/127.1/{}", upstream.port()))
    }

    /// More keys of the router.
    pub(crate) fn and(mut self, keys: &str) -> Self {
        self.router = format!("{}\n{keys}", self.router);
        self
    }

    /// Keys of the server beside its port, in YAML's flow style.
    pub(crate) fn server(mut self, keys: impl Into<String>) -> Self {
        self.server = keys.into();
        self
    }

    /// The server's port, where it is not any free one.
    pub(crate) fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Keys of the admin section beside its port, in YAML's flow style.
    pub(crate) fn admin(mut self, keys: &str) -> Self {
        self.admin = keys.to_owned();
        self
    }

    /// Sections beside `admin` and `routers`.
    pub(crate) fn top(mut self, sections: impl Into<String>) -> Self {
        self.top = sections.into();
        self
    }

    /// Starts l5d and waits until it listens.
    pub(crate) fn start(self) -> Proxy {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let server = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port.unwrap_or_else(free_port)));
        let mut config = format!(
            "admin: {{port: {}, {}}}\n{}\nrouters:\n- protocol: http\n",
            admin.port(),
            self.admin,
            self.top.trim_end()
        );
        for line in self.router.lines() {
            writeln!(config, "  {line}").expect("a string can be written to");
        }
        writeln!(config, "  servers:\n  - {{port: {}, {}}}", server.port(), self.server)
            .expect("a string can be written to");
        let l5d = L5d::start(env!("CARGO_BIN_EXE_l5d"), &[], &config, admin);
        Proxy { l5d, server }
    }
}

/// A running l5d; it ends when this is dropped.
pub(crate) struct Proxy {
    pub(crate) l5d: L5d,
    pub(crate) server: SocketAddr,
}

impl Proxy {
    /// A connection to the server.
    pub(crate) fn connect(&self) -> Downstream {
        Downstream::connect(self.server).expect("l5d listens")
    }

    /// GETs `target` of the service that `host` names, on a connection of its own.
    pub(crate) fn get(&self, host: &str, target: &str) -> Reply {
        self.request("GET", target, &[("host", host)], b"")
    }

    /// Sends a request with exactly these header lines on a connection of its own.
    pub(crate) fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let reply = self.connect().request(method, target, headers, body);
        reply.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Sends these bytes on a connection of its own, and reads the response.
    pub(crate) fn raw(&self, bytes: impl AsRef<[u8]>) -> (Reply, Downstream) {
        let mut downstream = self.connect();
        downstream.send(bytes.as_ref()).expect("l5d takes bytes");
        let reply = downstream.reply("GET").unwrap_or_else(|error| {
            panic!("{:.200}: {error}", String::from_utf8_lossy(bytes.as_ref()));
        });
        (reply, downstream)
    }

    /// A connection whose request has arrived at the upstream, as its first, and waits there.
    pub(crate) fn waiting_at(&self, upstream: &Upstream) -> Downstream {
        let mut downstream = self.connect();
        downstream.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
        wait_until("the request to arrive", || upstream.requests().len() == 1);
        downstream
    }

    /// GETs a page of the admin server.
    pub(crate) fn page(&self, target: &str) -> Reply {
        get(self.l5d.admin(), "localhost", target).expect("the admin server answers")
    }

    /// The counter `rt/http/NAME`.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.scrape().count(&format!("rt/http/{name}"))
    }

    /// Waits for the counter `rt/http/NAME` to get there.
    pub(crate) fn wait_for_count(&self, name: &str, wanted: u64) {
        let mut last = 0;
        wait_until(&format!("rt/http/{name} to be {wanted}"), || {
            last = self.count(name);
            last == wanted
        });
    }

    /// The metrics.
    pub(crate) fn scrape(&self) -> Scrape {
        self.l5d.scrape()
    }
}

/// Reads on: the peer has closed the connection, without one more response.
pub(crate) fn assert_closed(downstream: &mut Downstream) {
    match downstream.reply("GET") {
        Err(error) if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {}
        other => panic!("not closed: {other:?}"),
    }
}

/// An upstream that answers 200 and `ok`.
pub(crate) fn ok() -> Upstream {
    Upstream::start(|_| Response::ok("ok"))
}

/// An upstream that answers these statuses in turn, the last one from then on.
pub(crate) fn statuses(statuses: &'static [u16]) -> Upstream {
    let answered = Mutex::new(statuses.iter().copied());
    Upstream::start(move |_| {
        let next = answered.lock().expect("no holder panics").next();
        Response::new(next.or_else(|| statuses.last().copied()).expect("there are statuses")).body("scripted")
    })
}

/// The request that the upstream was sent last.
pub(crate) fn last(upstream: &Upstream) -> Request {
    upstream.requests().pop().expect("the upstream was sent a request")
}

/// The header of the request that the upstream was sent last.
pub(crate) fn seen(upstream: &Upstream, header: &str) -> Option<String> {
    last(upstream).headers.get(header).map(str::to_owned)
}

/// What keeps an upstream waiting until it is opened, or dropped.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<Held>);

#[derive(Default)]
struct Held {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// An upstream that answers `response` as soon as the gate is open.
    pub(crate) fn hold(&self, response: Response) -> Upstream {
        let gate = self.clone();
        Upstream::start(move |_| {
            gate.pass();
            response.clone()
        })
    }

    /// The port of an upstream that streams `first` to one request, and `second` as soon as the gate is open; and its end.
    pub(crate) fn hold_stream(&self) -> (u16, JoinHandle<()>) {
        let held = self.clone();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of loopback can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("l5d connects");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("l5d sends a head");
                head.push(byte[0]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                .expect("l5d reads");
            held.pass();
            stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n").expect("l5d still reads");
        });
        (port, serving)
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self) {
        let open = self.0.open.lock().expect("no holder panics");
        drop(self.0.opened.wait_while(open, |open| !*open).expect("no holder panics"));
    }

    /// Lets everybody through, from now on.
    pub(crate) fn open(&self) {
        *self.0.open.lock().expect("no holder panics") = true;
        self.0.opened.notify_all();
    }
}
