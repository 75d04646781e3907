//! The admin server over real sockets: on a thread of its own, as in the binary, with blocking clients around it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use flate2::read::GzDecoder;
use l5d_admin::{
    AdminConfig, AdminServer, Base, Handler, Limits, LogLevels, Response, Security, SecurityConfig, ServerInfo,
    base_handlers, with_index,
};
use l5d_net::{ClientTls, ClientTlsConfig, DrainTrigger, ServerTlsConfig, drain};
use l5d_telemetry::{MetricsTree, Page};

/// How long anything may take before a test calls it hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a thread of its own.
struct Running {
    addr: SocketAddr,
    tree: MetricsTree,
    trigger: Option<DrainTrigger>,
    thread: Option<JoinHandle<()>>,
    told: Arc<Mutex<Vec<Option<Duration>>>>,
}

fn config() -> AdminConfig {
    AdminConfig::new((Ipv4Addr::LOCALHOST, 0).into())
}

fn limited(change: impl FnOnce(&mut Limits)) -> AdminConfig {
    let mut config = config();
    change(&mut config.limits);
    config
}

struct NoLevels;

impl LogLevels for NoLevels {
    fn list(&self) -> Vec<(String, String)> {
        vec![("root".to_owned(), "INFO".to_owned())]
    }

    fn set(&self, _logger: &str, _level: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Running {
    fn new(config: AdminConfig, more: Vec<Handler>) -> Self {
        let tree = MetricsTree::new();
        let told: Arc<Mutex<Vec<Option<Duration>>>> = Arc::default();
        let info = ServerInfo {
            name: "l5d".to_owned(),
            version: "0.0.0".to_owned(),
            build: "test".to_owned(),
            build_revision: "unknown".to_owned(),
            started: (SystemTime::now(), Instant::now()),
        };
        let shutdown = Arc::clone(&told);
        let mut handlers = base_handlers(Base {
            tree: tree.clone(),
            info,
            levels: Arc::new(NoLevels),
            shutdown: Arc::new(move |grace| shutdown.lock().unwrap().push(grace)),
        });
        handlers.extend(more);
        let server = AdminServer::bind(config, &tree).unwrap();
        let addr = server.local_addr();
        let (trigger, drain) = drain();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(server.serve(with_index(handlers), drain)).unwrap();
        });
        Self { addr, tree, trigger: Some(trigger), thread: Some(thread), told }
    }

    fn connect(&self) -> Client {
        Client::new(TcpStream::connect(self.addr).unwrap())
    }

    /// One request on a connection of its own.
    fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(&format!("{request}\r\nHost: test\r\nConnection: close\r\n\r\n"));
        client.answer(request.starts_with("HEAD"))
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"))
    }

    fn counter(&self, name: &str) -> u64 {
        let mut keys: Vec<&str> = name.split('/').collect();
        let name = keys.pop().unwrap();
        keys.iter().fold(self.tree.root(), |scope, key| scope.scope(key)).counter(name).value()
    }

    /// Starts the drain; the thread's end is what it waits for.
    fn drain(mut self, patience: Duration) -> bool {
        let trigger = self.trigger.take().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(trigger.drain(tokio::time::Instant::now() + patience))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.trigger.take());
        let joined = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            joined.unwrap();
        }
    }
}

struct Client(BufReader<TcpStream>);

struct Answer {
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Client {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn head(&mut self) -> Answer {
        let line = self.line();
        let mut headers = Vec::new();
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        Answer { line, headers, body: Vec::new() }
    }

    fn answer(&mut self, head_only: bool) -> Answer {
        let mut answer = self.head();
        if head_only {
            return answer;
        }
        if let Some(length) = answer.header("Content-Length") {
            answer.body = vec![0; length.parse().unwrap()];
            self.0.read_exact(&mut answer.body).unwrap();
        } else if answer.header("Transfer-Encoding") == Some("chunked") {
            loop {
                let length = usize::from_str_radix(&self.line(), 16).unwrap();
                let mut chunk = vec![0; length];
                self.0.read_exact(&mut chunk).unwrap();
                assert_eq!(self.line(), "");
                if length == 0 {
                    break;
                }
                answer.body.extend_from_slice(&chunk);
            }
        } else {
            self.0.read_to_end(&mut answer.body).unwrap();
        }
        answer
    }

    /// Reads until the other side closes; a reset is a close, too.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("the connection should have been closed: {error}"),
        }
    }
}

impl Answer {
    fn status(&self) -> u16 {
        self.line.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// As spelled: names have the case that Linkerd 1 gave them.
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// A page of so many pieces of 64 KiB, numbered, that tells how often it was asked and when it was dropped.
struct Pieces {
    left: usize,
    filled: Arc<AtomicUsize>,
    dropped: Arc<AtomicBool>,
}

const PIECE: usize = 64 * 1024;

impl Page for Pieces {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let number = self.filled.fetch_add(1, Ordering::SeqCst);
        let line = format!("line {number} {}\n", "x".repeat(number % 50));
        while out.len() < PIECE {
            out.extend_from_slice(line.as_bytes());
        }
        self.left = self.left.saturating_sub(1);
        self.left > 0
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

/// How often a page was asked, and whether it is gone.
type Told = (Arc<AtomicUsize>, Arc<AtomicBool>);

/// `/pieces?n=…`, and the counts of the last page that was made there.
struct PiecesPage {
    last: Arc<Mutex<Vec<Told>>>,
    handler: Handler,
}

impl PiecesPage {
    fn new() -> Self {
        let last: Arc<Mutex<Vec<Told>>> = Arc::default();
        let made = Arc::clone(&last);
        let handler = Handler::metrics("/pieces", "text/plain", move |request| {
            let (filled, dropped) = Told::default();
            made.lock().unwrap().push((Arc::clone(&filled), Arc::clone(&dropped)));
            Box::new(Pieces { left: request.query("n").unwrap().parse().unwrap(), filled, dropped })
        });
        Self { last, handler }
    }

    fn made(&self, index: usize) -> Told {
        until("the page is made", || self.last.lock().unwrap().len() > index);
        self.last.lock().unwrap()[index].clone()
    }
}

#[test]
fn ping_answers_as_twitter_server_does_to_any_method() {
    let server = Running::new(config(), Vec::new());
    for method in ["GET", "POST", "PUT", "OPTIONS"] {
        let answer = server.ask(&format!("{method} /admin/ping HTTP/1.1"));
        assert_eq!(answer.line, "HTTP/1.1 200 OK");
        assert_eq!(answer.header("Content-Type"), Some("text/plain;charset=UTF-8"));
        assert_eq!(answer.header("Content-Language"), Some("en"));
        assert_eq!(answer.header("Content-Length"), Some("4"));
        assert_eq!(answer.text(), "pong");
    }
    assert_eq!(server.get("//admin///ping").text(), "pong");
    assert_eq!(server.get("/admin/ping?x=1").text(), "pong");
}

#[test]
fn head_is_get_without_a_body() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler.clone()]);
    let mut client = server.connect();
    for _ in 0..2 {
        client.send("HEAD /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = client.answer(true);
        assert_eq!((answer.status(), answer.header("Content-Length")), (200, Some("4")));
    }
    client.send("HEAD /pieces?n=1000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let answer = client.answer(true);
    assert_eq!((answer.status(), answer.header("Content-Type")), (200, Some("text/plain")));
    client.send("GET /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer(false).text(), "pong", "nothing of the page is on the wire");
    assert_eq!(pieces.made(0).0.load(Ordering::SeqCst), 1);
}

#[test]
fn what_is_not_there_is_404_with_a_page_only_for_browsers() {
    let server = Running::new(config(), Vec::new());
    for path in ["/nope", "/admin/nope", "/admin/", "/admin/metrics", "/admin/metrics/prometheus", "/metrics.json"] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.header("Content-Length")), (404, Some("0")), "{path}");
        assert_eq!(answer.header("Content-Type"), None);
    }
    let answer = server.ask("GET /no&pe HTTP/1.1\r\nAccept: application/xhtml+xml, text/html;q=0.9");
    assert_eq!((answer.status(), answer.header("Content-Type")), (404, Some("text/html;charset=UTF-8")));
    assert!(answer.text().contains("<code>/no&amp;pe</code>"), "{}", answer.text());
}

#[test]
fn the_index_lists_every_path_and_the_front_page_the_navigation() {
    let more = vec![
        Handler::of("/files/", |_| Response::text("file")),
        Handler::of("/extra", |_| Response::text("")).in_nav("more"),
    ];
    let server = Running::new(config(), more);
    let expected = "/\n/admin/metrics.json\n/admin/metrics/cardinality\n/admin/ping\n/admin/server_info\n/admin/shutdown\n/extra\n/files/\n/logging.json\n/metrics\n";
    for path in ["/admin", "/admin/index.txt"] {
        let answer = server.get(path);
        assert_eq!(answer.header("Content-Type"), Some("text/plain"));
        assert_eq!(answer.text(), expected);
    }
    let answer = server.get("/");
    assert_eq!(answer.header("Content-Type"), Some("text/html;charset=UTF-8"));
    assert!(answer.text().contains("<a href=\"/extra\">more</a>") && !answer.text().contains("/logging.json"));
    assert_eq!(server.get("/files/css/x").text(), "file");
    assert_eq!(server.get("/files").status(), 404);
}

#[test]
fn switched_off_categories_are_404_without_a_body_whatever_the_spelling() {
    let security = SecurityConfig {
        control_enabled: false,
        ui_enabled: false,
        path_blacklist: vec!["/admin/server.*".to_owned()],
        ..SecurityConfig::default()
    };
    let config = AdminConfig { security: Some(Security::new(security).unwrap()), ..config() };
    let server = Running::new(config, Vec::new());
    for request in [
        "POST /admin/shutdown HTTP/1.1",
        "POST //admin//shutdown HTTP/1.1",
        "POST http://x//admin/shutdown HTTP/1.1",
        "GET /logging.json HTTP/1.1\r\nAccept: text/html",
        "GET /admin/metrics.json HTTP/1.1",
        "GET //admin/server_info HTTP/1.1",
        "GET / HTTP/1.1\r\nAccept: text/html",
    ] {
        let answer = server.ask(request);
        assert_eq!((answer.status(), answer.header("Content-Length")), (404, Some("0")), "{request}");
    }
    assert!(server.told.lock().unwrap().is_empty());
    assert_eq!(server.get("/admin/ping").text(), "pong");
}

#[test]
fn shutdown_tells_the_binary_and_logging_reads_forms() {
    let server = Running::new(config(), Vec::new());
    let answer = server.get("/admin/shutdown");
    assert_eq!((answer.line.as_str(), answer.header("Allow")), ("HTTP/1.1 405 Method Not Allowed", Some("POST")));
    assert_eq!(answer.header("Content-Type"), Some("text/plain;charset=UTF-8"));
    let answer = server.ask("POST /admin/shutdown?grace=x HTTP/1.1");
    assert_eq!((answer.status(), answer.text()), (400, "could not parse 'grace' parameter: x is not a valid duration"));
    assert_eq!(server.ask("POST /admin/shutdown?grace=5.seconds HTTP/1.1").text(), "quitting\n");
    assert_eq!(*server.told.lock().unwrap(), [Some(Duration::from_secs(5))]);
    assert_eq!(server.get("/logging.json").text(), r#"[{"logger":"root","level":"INFO"}]"#);
    let form = "logger=root&level=DEBUG";
    for (kind, status) in [("application/x-www-form-urlencoded", 200), ("text/plain", 400)] {
        let mut client = server.connect();
        let length = form.len();
        client.send(&format!(
            "POST /logging.json HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{form}"
        ));
        assert_eq!(client.answer(false).status(), status);
    }
}

#[test]
fn pages_of_metrics_are_for_get_and_never_cached() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler]);
    for path in ["/pieces?n=1", "/admin/metrics.json"] {
        let answer = server.get(path);
        assert_eq!((answer.status(), answer.header("Cache-Control")), (200, Some("no-store")), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            let answer = server.ask(&format!("{method} {path} HTTP/1.1"));
            assert_eq!((answer.status(), answer.header("Allow")), (405, Some("GET, HEAD")), "{method} {path}");
            assert!(answer.header("Content-Type").is_some(), "{method} {path}");
            assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{method} {path}");
        }
        let get = server.get(path);
        let head = server.ask(&format!("HEAD {path} HTTP/1.1"));
        assert_eq!((head.status(), head.body.len()), (200, 0), "{path}");
        for name in ["Content-Type", "Cache-Control", "Vary"] {
            assert_eq!(head.header(name), get.header(name), "{path}: {name}");
        }
        let long = server.ask(&format!("GET {path} HTTP/1.1\r\nContent-Length: 9999999"));
        assert_eq!((long.status(), long.header("Cache-Control")), (413, Some("no-store")), "{path}");
        assert_eq!(long.header("Content-Type"), get.header("Content-Type"), "{path}");
    }
    let missing = server.ask("GET /admin/metrics.json?q=x HTTP/1.1\r\nAccept-Encoding: gzip");
    assert_eq!((missing.status(), missing.header("Content-Encoding")), (404, Some("gzip")));
    let mut unpacked = String::new();
    GzDecoder::new(&missing.body[..]).read_to_string(&mut unpacked).unwrap();
    assert_eq!(unpacked, r#"{"error": "No such subtree: x"}"#);
    assert_eq!(server.get("/admin/metrics.json").header("Content-Type"), Some("application/json"));
    let answer = server.get("/admin/metrics.json?q=a%22b");
    assert_eq!((answer.status(), answer.header("Content-Type")), (404, Some("application/json")));
    assert_eq!(answer.text(), r#"{"error": "No such subtree: a\"b"}"#);
}

#[test]
fn a_page_of_one_piece_has_a_length_and_a_longer_one_comes_in_chunks() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler]);
    let one = server.get("/pieces?n=1");
    assert_eq!(one.header("Content-Length").unwrap(), one.body.len().to_string());
    let many = server.get("/pieces?n=7");
    assert_eq!(many.header("Transfer-Encoding"), Some("chunked"));
    assert!(many.body.len() >= 7 * PIECE && many.body.starts_with(&one.body));
    // HTTP/1.0 knows no chunks: the end of the connection is the end of the page.
    let mut client = server.connect();
    client.send("GET /pieces?n=7 HTTP/1.0\r\n\r\n");
    let old = client.answer(false);
    assert_eq!((old.header("Transfer-Encoding"), old.header("Content-Length")), (None, None));
    assert!(old.body == many.body);
}

#[test]
fn gzip_is_what_the_page_was_when_it_is_asked_for_and_only_then() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler]);
    for n in [1, 2, 40] {
        let plain = server.get(&format!("/pieces?n={n}"));
        assert_eq!(plain.header("Content-Encoding"), None);
        assert_eq!(plain.header("Vary"), Some("Accept-Encoding"));
        for accept in ["gzip", "gzip, deflate, br", "*", "gzip;q=0.1, *;q=0"] {
            let answer = server.ask(&format!("GET /pieces?n={n} HTTP/1.1\r\nAccept-Encoding: {accept}"));
            assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{accept}");
            assert_eq!(answer.header("Content-Type"), plain.header("Content-Type"));
            let mut unpacked = Vec::new();
            GzDecoder::new(&answer.body[..]).read_to_end(&mut unpacked).unwrap();
            assert!(unpacked == plain.body, "{n} pieces, {accept}");
            assert!(answer.body.len() < plain.body.len() / 10);
        }
        for refuse in ["gzip;q=0", "x-gzip-foo", "identity", "gzip;q=0, *"] {
            let answer = server.ask(&format!("GET /pieces?n={n} HTTP/1.1\r\nAccept-Encoding: {refuse}"));
            assert_eq!(answer.header("Content-Encoding"), None, "{refuse}");
            assert!(answer.body == plain.body);
        }
    }
    let answer = server.ask("GET /admin/ping HTTP/1.1\r\nAccept-Encoding: gzip");
    assert_eq!(answer.text(), "pong", "four bytes are not worth it");
}

#[test]
fn a_reader_that_never_reads_holds_little_and_is_closed() {
    let pieces = PiecesPage::new();
    let config = limited(|limits| limits.write = Duration::from_millis(200));
    let server = Running::new(config, vec![pieces.handler.clone()]);
    let mut stuck = server.connect();
    stuck.send("GET /pieces?n=1000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let (filled, dropped) = pieces.made(0);
    assert!(server.get("/pieces?n=3").body.len() >= 3 * PIECE, "others are served meanwhile");
    until("the stuck connection is given up", || dropped.load(Ordering::SeqCst));
    // What it took was for the socket buffers of the two sides; an unheld page would have run on and on.
    let filled = filled.load(Ordering::SeqCst);
    assert!(filled < 400, "{filled} pieces were asked for");
    until("it is counted", || server.counter("srv/adminhttp/write_timeout") == 1);
}

#[test]
fn a_reader_of_single_bytes_delays_nobody() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler.clone()]);
    let mut slow = server.connect();
    slow.send("GET /pieces?n=1000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let (_, dropped) = pieces.made(0);
    for _ in 0..20 {
        let mut byte = [0];
        slow.0.get_mut().read_exact(&mut byte).unwrap();
        assert_eq!(server.get("/admin/ping").text(), "pong");
        assert!(server.get("/pieces?n=3").body.len() >= 3 * PIECE);
    }
    assert!(!dropped.load(Ordering::SeqCst), "slow is no crime");
}

#[test]
fn a_greedy_reader_of_an_endless_page_delays_nobody() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler.clone()]);
    for encoding in ["identity", "gzip"] {
        let mut greedy = server.connect();
        greedy.send(&format!("GET /pieces?n=1000000000 HTTP/1.1\r\nHost: x\r\nAccept-Encoding: {encoding}\r\n\r\n"));
        let mut stream = greedy.0.get_ref().try_clone().unwrap();
        let reader = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 20];
            while matches!(stream.read(&mut buffer), Ok(n) if n > 0) {}
        });
        for _ in 0..20 {
            assert_eq!(server.get("/admin/ping").text(), "pong");
        }
        greedy.0.get_ref().shutdown(std::net::Shutdown::Both).unwrap();
        reader.join().unwrap();
    }
    let (filled, dropped) = pieces.made(1);
    until("the page of a reader that left is dropped", || dropped.load(Ordering::SeqCst));
    assert!(filled.load(Ordering::SeqCst) > 0);
}

#[test]
fn requests_that_are_too_large_are_refused() {
    let server = Running::new(limited(|limits| limits.body = 1000), Vec::new());
    let status = |request: &str| {
        let mut client = server.connect();
        client.send(request);
        client.answer(false).status()
    };
    let long = "x".repeat(1001);
    let post = "POST /admin/ping HTTP/1.1\r\nHost: x";
    assert_eq!(status(&format!("{post}\r\nContent-Length: 1000\r\n\r\n{}", &long[1..])), 200);
    assert_eq!(status(&format!("{post}\r\nContent-Length: 1001\r\n\r\n")), 413);
    assert_eq!(status(&format!("{post}\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{long}\r\n")), 413);
    let many = format!("A: {}\r\n", "x".repeat(1000)).repeat(20);
    assert_eq!(status(&format!("GET /admin/ping HTTP/1.1\r\nHost: x\r\n{many}\r\n")), 431);
    assert_eq!(status("GET\r\n\r\n"), 400);
}

#[test]
fn requests_that_take_too_long_are_given_up() {
    let server = Running::new(limited(|limits| limits.body_time = Duration::from_millis(100)), Vec::new());
    let mut client = server.connect();
    client.send("POST /admin/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    assert_eq!(client.answer(false).status(), 408);

    let server = Running::new(limited(|limits| limits.headers = Duration::from_millis(100)), Vec::new());
    let mut unfinished = server.connect();
    unfinished.send("GET /admin/ping HTTP/1.1\r\nHo");
    unfinished.rest();
    assert!(server.connect().rest().is_empty(), "a connection that says nothing is closed as well");
}

#[test]
fn a_new_connection_takes_the_place_of_the_one_silent_for_longest() {
    let server = Running::new(limited(|limits| limits.connections = 3), Vec::new());
    let ping = |client: &mut Client| {
        client.send("GET /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n");
        client.answer(false).text().to_owned()
    };
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    for client in &mut clients {
        assert_eq!(ping(client), "pong");
    }
    assert_eq!(ping(&mut clients[0]), "pong");
    let mut late = server.connect();
    assert_eq!(ping(&mut late), "pong");
    assert!(clients[1].rest().is_empty());
    assert_eq!(ping(&mut clients[0]), "pong");
    assert_eq!(ping(&mut clients[2]), "pong");
    // Many that never say anything don't keep anybody out.
    let silent: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    let mut late = server.connect();
    assert_eq!(ping(&mut late), "pong");
    drop(silent);
}

#[test]
fn a_client_that_closes_its_side_first_still_gets_its_answer() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler]);
    let mut client = server.connect();
    client.send("GET /pieces?n=20 HTTP/1.1\r\nHost: x\r\n\r\n");
    client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.answer(false).body.len() >= 20 * PIECE);
}

#[test]
fn a_drain_finishes_answers_and_closes_what_is_idle() {
    let (begun, begins) = mpsc::channel();
    let (finish, finished) = tokio::sync::watch::channel(false);
    let begun = Mutex::new(begun);
    let slow = Handler::new("/slow", move |_| {
        begun.lock().unwrap().send(()).unwrap();
        let mut finished = finished.clone();
        async move {
            finished.wait_for(|&finished| finished).await.unwrap();
            Response::text("done")
        }
    });
    let server = Running::new(config(), vec![slow]);
    let (mut idle, mut fresh, mut busy) = (server.connect(), server.connect(), server.connect());
    idle.send("GET /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.answer(false).text(), "pong");
    busy.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    begins.recv_timeout(PATIENCE).unwrap();
    let addr = server.addr;
    let drained = std::thread::spawn(move || server.drain(PATIENCE));
    assert!(idle.rest().is_empty());
    assert!(fresh.rest().is_empty());
    until("new connections are refused", || TcpStream::connect(addr).is_err());
    finish.send(true).unwrap();
    let answer = busy.answer(false);
    assert_eq!((answer.text(), answer.header("Connection")), ("done", Some("close")));
    assert!(busy.rest().is_empty());
    assert!(drained.join().unwrap(), "well before its deadline");
}

#[test]
fn a_drain_past_its_deadline_drops_what_is_left() {
    let pieces = PiecesPage::new();
    let server = Running::new(config(), vec![pieces.handler.clone()]);
    let mut stuck = server.connect();
    stuck.send("GET /pieces?n=1000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    let (_, dropped) = pieces.made(0);
    server.drain(Duration::from_millis(100));
    assert!(dropped.load(Ordering::SeqCst));
}

#[test]
fn the_server_counts_what_it_does() {
    let fails = Handler::of("/fails", |_| Response::empty(http::StatusCode::INTERNAL_SERVER_ERROR));
    let server = Running::new(config(), vec![fails]);
    let mut client = server.connect();
    for path in ["/admin/ping", "/nope", "/fails"] {
        client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.answer(false);
    }
    assert_eq!(server.counter("srv/adminhttp/requests"), 3);
    assert_eq!(server.counter("srv/adminhttp/success"), 2);
    assert_eq!(server.counter("srv/adminhttp/failures"), 1);
    let synthetic = "com.twitter.finagle.service.ResponseClassificationSyntheticException";
    assert_eq!(server.counter(&format!("srv/adminhttp/failures/{synthetic}")), 1);
    assert_eq!(server.counter("srv/adminhttp/connects"), 1);
    let sent =
        "GET /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n".len() + "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n".len() * 2 + 1;
    assert_eq!(server.counter("srv/adminhttp/received_bytes"), sent as u64);
    assert!(server.counter("srv/adminhttp/sent_bytes") > 100);
    let connections = server.tree.scope("srv").scope("adminhttp").level("connections");
    assert_eq!(connections.value(), 1);
    drop(client);
    until("the closed connection is counted", || connections.value() == 0);
    assert_eq!(server.counter("srv/adminhttp/closes"), 0, "the client closed it");
}

#[test]
fn an_address_in_use_is_a_clear_error() {
    let server = Running::new(config(), Vec::new());
    let Err(error) = AdminServer::bind(AdminConfig::new(server.addr), &MetricsTree::new()) else {
        panic!("two servers on one address")
    };
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("admin server cannot listen on {}: Address already in use", server.addr)),
        "{text}"
    );
}

#[test]
fn over_tls_the_pages_are_the_same_and_plain_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(vec!["admin.test".to_owned()]).unwrap();
    let (cert_path, key_path) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_path, made.cert.pem()).unwrap();
    std::fs::write(&key_path, made.signing_key.serialize_pem()).unwrap();
    let tls = ServerTlsConfig { cert_path: cert_path.clone(), key_path, ..ServerTlsConfig::default() };
    let server = Running::new(AdminConfig { tls: Some(tls), ..config() }, Vec::new());

    let mut plain = server.connect();
    plain.send("GET /admin/ping HTTP/1.1\r\nHost: x\r\n\r\n");
    let rest = plain.rest();
    assert!(!String::from_utf8_lossy(&rest).contains("pong"));
    until("it is counted", || server.counter("srv/adminhttp/exn/io.netty.handler.codec.DecoderException") == 1);

    let config = ClientTlsConfig {
        common_name: Some("admin.test".to_owned()),
        trust_certs: vec![cert_path],
        ..ClientTlsConfig::default()
    };
    let client = ClientTls::new(config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let tcp = tokio::net::TcpStream::connect(server.addr).await.unwrap();
        let mut stream = client.connect(tcp).await.unwrap();
        stream.write_all(b"GET /admin/ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\npong"), "{answer}");
}
