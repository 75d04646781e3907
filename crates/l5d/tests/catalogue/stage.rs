//! A running l5d whose metrics are written down, and upstreams that do as they are told.

use std::any::Any;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use l5d_telemetry::listing::listing;
use l5d_testkit::{Downstream, L5d, Process, Reply, Response, Scrape, Upstream, free_port, wait_for, wait_until};

use crate::seen::Seen;

/// Long enough for what takes seconds in an unoptimized program on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A running l5d.
pub(crate) struct Stage<'a> {
    seen: &'a Seen,
    admin: SocketAddr,
    page: Box<dyn Fn(&str) -> String>,
    _process: Box<dyn Any>,
}

impl<'a> Stage<'a> {
    /// Starts l5d; the admin section has these keys beside its port, in flow style.
    pub(crate) fn start(seen: &'a Seen, admin: &str, config: &str) -> Self {
        let port = free_port();
        let config = format!("admin: {{port: {port}, {admin}}}\n{config}");
        let l5d = L5d::start(env!("CARGO_BIN_EXE_l5d"), &[], &config, local(port));
        let scrape = Scrape::of(local(port));
        Self::of(seen, local(port), move |target| scrape.text(target), Box::new(l5d))
    }

    /// Starts l5d with an admin server that speaks TLS; curl reads its pages.
    pub(crate) fn start_with_tls(seen: &'a Seen, port: u16, admin: &str, config: &str) -> Self {
        let config = format!("admin: {{port: {port}, {admin}}}\n{config}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_l5d"));
        let mut l5d = Process::start_with_input("l5d", command.arg("-"), Some(config.as_bytes())).expect("l5d starts");
        wait_until("l5d to be initialized", || {
            assert!(l5d.ended().is_none(), "{}", l5d.output());
            l5d.output().contains("initialized")
        });
        let page = move |target: &str| {
            let output = Command::new("curl")
                .args(["--silent", "--show-error", "--insecure", &format!("https://127.0.0.1:{port}{target}")])
                .output()
                .expect("curl runs");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).expect("pages are UTF-8")
        };
        Self::of(seen, local(port), page, Box::new(l5d))
    }

    fn of(seen: &'a Seen, admin: SocketAddr, page: impl Fn(&str) -> String + 'static, process: Box<dyn Any>) -> Self {
        let stage = Self { seen, admin, page: Box::new(page), _process: process };
        // What everything is before anything happens: gauges move from there.
        stage.look();
        stage
    }

    /// Writes down how everything is.
    pub(crate) fn look(&self) {
        self.seen.look(&(self.page)("/admin/metrics.json?tree=1"), &(self.page)("/metrics"));
    }

    /// Where the admin server listens.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Looks, and says whether a metric has moved: here, or in another scenario.
    pub(crate) fn has_moved(&self, level: &str, name: &str) -> bool {
        self.look();
        let mut all = listing().into_iter();
        let entry = all.find(|entry| entry.level == level && entry.name == name);
        self.seen.moved(&entry.unwrap_or_else(|| panic!("the catalogue has no {name} at the level {level}")))
    }

    /// Waits until these metrics of a level have moved.
    pub(crate) fn until(&self, level: &str, names: &[&str]) {
        for name in names {
            wait_for(&format!("{name} of a {level} to move"), PATIENCE, || self.has_moved(level, name).then_some(()));
        }
    }

    /// A number of `metrics.json`, 0 when it is not there.
    fn number(&self, name: &str) -> f64 {
        let page: serde_json::Value =
            serde_json::from_str(&(self.page)("/admin/metrics.json")).expect("the page is JSON");
        page.get(name).map_or(0.0, |value| value.as_f64().unwrap_or_else(|| panic!("{name} is {value}")))
    }

    /// Waits until a number stands still that grows while bytes can be written.
    pub(crate) fn wait_to_stall(&self, name: &str) {
        let mut last = -1.0;
        let mut stood = 0;
        wait_for(&format!("{name} to stand still"), PATIENCE, || {
            let now = self.number(name);
            stood = if now > 0.0 && now == last { stood + 1 } else { 0 };
            last = now;
            (stood == 5).then_some(())
        });
    }
}

/// What keeps upstreams waiting until it is opened.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// An upstream that answers as soon as the gate is open.
    pub(crate) fn hold(&self, response: Response) -> Upstream {
        let gate = self.clone();
        Upstream::start(move |_| gate.pass(response.clone()))
    }

    /// Waits until it is open.
    pub(crate) fn pass(&self, response: Response) -> Response {
        let (open, opened) = &*self.0;
        let open = open.lock().expect("no holder panics");
        drop(opened.wait_while(open, |open| !*open).expect("no holder panics"));
        response
    }

    pub(crate) fn open(&self) {
        *self.0.0.lock().expect("no holder panics") = true;
        self.0.1.notify_all();
    }
}

/// A connection to a server of l5d.
pub(crate) fn connect(port: u16) -> Downstream {
    Downstream::connect(local(port)).expect("l5d listens")
}

/// GETs on a connection of its own; what comes of it is in the metrics.
pub(crate) fn get(port: u16, host: &str) -> Option<Reply> {
    connect(port).get(host, "/").ok()
}

/// A body that is sent chunk by chunk.
pub(crate) fn chunked(host: &str, target: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n")
}

/// An upstream that hands each connection, with the first bytes that came on it, to the test.
pub(crate) struct Raw {
    pub(crate) port: u16,
    connections: Receiver<TcpStream>,
}

impl Raw {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind(local(0)).expect("a free port of loopback can be bound");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let (sender, connections): (Sender<TcpStream>, _) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { port, connections }
    }

    /// The next connection.
    pub(crate) fn accept(&self) -> TcpStream {
        self.connections.recv_timeout(PATIENCE).expect("l5d connects")
    }

    /// The next connection, however long it takes; none when nobody listens any more.
    pub(crate) fn next(&self) -> Option<TcpStream> {
        self.connections.recv().ok()
    }
}

/// Reads a head from a connection, byte by byte: what follows it stays where it is.
pub(crate) fn read_head(stream: &mut TcpStream) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("bytes come"), 1, "{}", String::from_utf8_lossy(&head));
        head.push(byte[0]);
    }
}

pub(crate) fn write(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).expect("bytes can be sent");
}

/// A refusal that may be sent again.
pub(crate) fn nack() -> Response {
    Response::new(503).header("Retry-After", "0")
}
