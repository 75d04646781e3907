//! The access log (§11).

use std::path::PathBuf;

use l5d_testkit::{Upstream, free_port, wait_until};
use tempfile::TempDir;

use crate::proxy::{Proxy, Setup, ok, statuses};

struct Logged {
    proxy: Proxy,
    file: PathBuf,
    _folder: TempDir,
}

impl Logged {
    fn start(upstream: &Upstream, keys: &str) -> Self {
        Self::with(Setup::to(upstream).and(keys), "")
    }

    /// With a file that holds `before` already.
    fn with(setup: Setup, before: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("access.log");
        std::fs::write(&file, before).expect("a file can be written");
        let proxy = setup.and(&format!("httpAccessLog: {}", file.display())).start();
        Self { proxy, file, _folder: folder }
    }

    fn text(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// The lines, as soon as there are so many.
    fn lines(&self, count: usize) -> Vec<String> {
        wait_until(&format!("{count} lines in the access log"), || self.text().lines().count() >= count);
        let lines: Vec<_> = self.text().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
        lines
    }
}

/// The line in pieces: before the time, the time, behind it.
fn pieces(line: &str) -> (&str, &str, &str) {
    let (before, rest) = line.split_once(" [").expect(line);
    let (time, after) = rest.split_once("] ").expect(line);
    (before, time, after)
}

/// `06/01/2016:21:21:26 GMT`
fn is_time(text: &str) -> bool {
    let Some((stamp, zone)) = text.split_once(' ') else { return false };
    let shape: String = stamp.chars().map(|char| if char.is_ascii_digit() { '0' } else { char }).collect();
    shape == "00/00/0000:00:00:00" && !zone.is_empty() && !zone.contains(' ')
}

/// A64.
#[test]
fn a_request_is_a_line() {
    let upstream = Upstream::start(|_| l5d_testkit::Response::ok("12345"));
    let logged = Logged::start(&upstream, "");
    assert_eq!(logged.proxy.get("monkeys", "/foo?bar=bah").status, 200);
    let headers = [("host", "apes"), ("referer", "http://from/"), ("user-agent", "curl/8 (x)")];
    assert_eq!(logged.proxy.request("HEAD", "/", &headers, b"").status, 200);
    let lines = logged.lines(2);
    let (before, time, after) = pieces(&lines[0]);
    assert!(is_time(time), "{time}");
    assert_eq!((before, after), ("monkeys 127.0.0.1 - -", "\"GET /foo?bar=bah HTTP/1.1\" 200 5 \"-\" \"-\""));
    let (before, _, after) = pieces(&lines[1]);
    assert_eq!((before, after), ("apes 127.0.0.1 - -", "\"HEAD / HTTP/1.1\" 200 5 \"http://from/\" \"curl/8 (x)\""));
}

/// A65, §11: what got no response from an upstream is no line.
#[test]
fn a_request_without_a_response_is_no_line() {
    let upstream = ok();
    let dtab =
        format!("dtab: /svc/alive => /$/inet/127.1/{}; /svc/dead => /$/inet/127.1/{}", upstream.port(), free_port());
    let logged = Logged::with(Setup::router(dtab), "");
    for (host, status) in [("nobody", 502), ("dead", 502), ("", 400), ("alive", 200)] {
        assert_eq!(logged.proxy.get(host, "/").status, status, "{host}");
    }
    let lines = logged.lines(1);
    assert!(lines[0].starts_with("alive 127.0.0.1 "), "{lines:?}");
}

/// §11: a line for each attempt; the target is the forwarded one.
#[test]
fn every_attempt_with_a_response_is_a_line() {
    let upstream = statuses(&[500, 200]);
    let keys = "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}\nidentifier: {kind: io.l5d.path, consume: true}";
    let logged = Logged::start(&upstream, keys);
    assert_eq!(logged.proxy.get("foo", "/one/two").status, 200);
    let lines = logged.lines(2);
    let ends: Vec<_> = lines.iter().map(|line| pieces(line).2).collect();
    assert_eq!(ends, ["\"GET /two HTTP/1.1\" 500 8 \"-\" \"-\"", "\"GET /two HTTP/1.1\" 200 8 \"-\" \"-\""]);
}

/// A caller can't make up a line.
#[test]
fn a_line_stays_one_line() {
    let upstream = ok();
    let logged = Logged::start(&upstream, "");
    let headers = [("host", "foo"), ("user-agent", "a\" \"b"), ("referer", "c\td")];
    assert_eq!(logged.proxy.request("GET", "/", &headers, b"").status, 200);
    assert_eq!(logged.lines(1).len(), 1);
}

/// `httpAccessLogAppend`: what is there stays, or goes once at the start.
#[test]
fn the_file_is_continued_or_begun_anew() {
    let upstream = ok();
    for (append, expected) in [("true", 2), ("false", 1)] {
        let setup = Setup::to(&upstream).and(&format!("httpAccessLogAppend: {append}"));
        let logged = Logged::with(setup, "a line of the last run\n");
        assert_eq!(logged.proxy.get("foo", "/").status, 200);
        wait_until("the line", || logged.text().contains("\"GET / HTTP/1.1\""));
        assert_eq!(logged.lines(expected).len(), expected);
    }
}

/// `httpAccessLogRollPolicy: sighup`, and by size.
#[test]
fn the_file_is_opened_anew() {
    let upstream = ok();
    let mut logged = Logged::start(&upstream, "httpAccessLogRollPolicy: sighup");
    assert_eq!(logged.proxy.get("first", "/").status, 200);
    logged.lines(1);
    let moved = logged.file.with_extension("moved");
    std::fs::rename(&logged.file, &moved).expect("a file can be renamed");
    logged.proxy.l5d.process().signal("HUP");
    wait_until("the new file", || logged.file.exists());
    assert_eq!(logged.proxy.get("second", "/").status, 200);
    assert!(logged.lines(1)[0].starts_with("second "));
    assert!(std::fs::read_to_string(moved).expect("it is there").starts_with("first "));
}
