//! What callers are told when no response can be had, and what failure accrual makes of it (§7, §9).

use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use l5d_testkit::{Response, Upstream, free_port, wait_until};
use tempfile::TempDir;

use crate::proxy::{Gate, Setup, last, ok, statuses};

/// A38.
#[test]
fn a_refused_connection_is_told_with_its_address() {
    for (accrual, first, second) in [("", 5, 6), ("client: {failureAccrual: {kind: none}}", 26, 52)] {
        let port = free_port();
        let proxy = Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{port}")).and(accrual).start();
        for attempts in [first, second] {
            let reply = proxy.get("foo", "/");
            let text = format!(
                "Unable to establish connection to 127.0.0.1:{port}.\n\nservice name: /svc/foo\n\
                 client name: /$/inet/127.1/{port}\naddresses: [127.0.0.1:{port}]\nselected address: 127.0.0.1:{port}\n"
            );
            assert_eq!((reply.status, reply.text()), (502, text.as_str()));
            let error = reply.headers.get("l5d-err").expect("the reason is a header too");
            assert!(
                error.starts_with(&format!("Unable+to+establish+connection+to+127.0.0.1%3A{port}.%0A%0A")),
                "{error}"
            );
            for absent in ["l5d-retryable", "via", "l5d-success-class"] {
                assert_eq!(reply.headers.get(absent), None, "{absent}");
            }
            proxy.wait_for_count(&format!("client/$/inet/127.1/{port}/service_creation/failures"), attempts);
        }
    }
}

/// §7.1: the caller's connection outlives a generated answer.
#[test]
fn a_connection_outlives_a_failure() {
    let upstream = ok();
    let router =
        format!("dtab: /svc/dead => /$/inet/127.1/{}; /svc/alive => /$/inet/127.1/{}", free_port(), upstream.port());
    let proxy = Setup::router(router).start();
    let mut downstream = proxy.connect();
    for (host, status) in [("dead", 502), ("nobody", 502), ("alive", 200), ("", 400), ("alive", 200)] {
        assert_eq!(downstream.get(host, "/").expect("an answer").status, status, "{host}");
    }
}

/// §7.1: `maxErrResponseKB` and `maxHeadersKB` limit what is said.
#[test]
fn a_long_reason_is_cut() {
    let proxy = Setup::router("maxErrResponseKB: 1\nmaxHeadersKB: 2").start();
    let dtab = "/a=>/b;".repeat(250);
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("l5d-dtab", &dtab)], b"");
    assert_eq!((reply.status, reply.body.len()), (502, 1024));
    assert_eq!(reply.headers.get("l5d-err").map(str::len), Some(2048));
}

/// §7.2: an upstream that does not keep to HTTP, with what is needed to find it.
#[test]
fn a_broken_response_is_told_with_upstream_client_and_trace() {
    const BROKEN: &[(&str, &[u8])] = &[
        ("nothing", b""),
        ("half a head", b"HTTP/1.1 200 OK\r\nContent-Le"),
        ("half a body", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx"),
        ("nonsense", b"EHLO nonsense\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nxxx"),
    ];
    let upstream = Upstream::start(|request| {
        let at: usize = request.target[1..].parse().expect("a number");
        Response::raw(BROKEN[at].1).then_close()
    });
    let proxy = Setup::to(&upstream).and("client: {failureAccrual: {kind: none}}").start();
    for (at, (what, _)) in BROKEN.iter().enumerate() {
        let reply = proxy.get("foo", &format!("/{at}"));
        assert_eq!(reply.status, 502, "{what}");
        let text = reply.text();
        let port = upstream.port();
        for part in [format!("127.0.0.1:{port}"), format!("$/inet/127.1/{port}"), "Trace Id: ".to_owned()] {
            assert!(text.contains(&part), "{what}: {text}");
        }
        assert!(reply.headers.get("l5d-err").is_some(), "{what}");
        assert_eq!(reply.headers.get("l5d-retryable"), None, "{what}");
    }
    assert_eq!(upstream.requests().len(), BROKEN.len(), "nothing was sent twice");
}

/// §2.1: the same limit for the headers of responses.
#[test]
fn a_response_with_headers_beyond_the_limit_is_a_failure() {
    let upstream = Upstream::start(|request| {
        let length = if request.target == "/long" { 9_000 } else { 5_000 };
        Response::ok("ok").header("X-Long", &"x".repeat(length))
    });
    let proxy = Setup::to(&upstream).start();
    assert_eq!(proxy.get("foo", "/short").status, 200);
    let reply = proxy.get("foo", "/long");
    assert_eq!(reply.status, 502);
    assert!(reply.headers.get("l5d-err").is_some());
}

/// §2.1: the same limit for a response's first line.
#[test]
fn a_status_line_beyond_the_limit_is_a_failure() {
    let upstream = Upstream::start(|request| {
        let reason = "x".repeat(request.target[1..].parse().expect("a length"));
        Response::raw(format!("HTTP/1.1 200 {reason}\r\nContent-Length: 2\r\n\r\nok"))
    });
    for (keys, limit) in [("", 4_096), ("maxInitialLineKB: 2", 2_048)] {
        let proxy = Setup::to(&upstream).and(keys).start();
        let longest = limit - "HTTP/1.1 200 ".len();
        assert_eq!(proxy.get("foo", &format!("/{longest}")).status, 200);
        let reply = proxy.get("foo", &format!("/{}", longest + 1));
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert!(reply.headers.get("l5d-err").is_some());
    }
}

/// §13.1: what breaks off after its head ends the caller's connection.
#[test]
fn a_stream_that_breaks_off_ends_the_connection() {
    let upstream = Upstream::start(|_| {
        Response::raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").then_close()
    });
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let error = downstream.get("foo", "/").expect_err("the body is not whole");
    assert!(error.to_string().contains("ended within"), "{error}");
}

/// A44.
#[test]
fn a_failed_response_is_relayed() {
    let upstream = statuses(&[500]);
    let proxy = Setup::to(&upstream).start();
    let reply = proxy.get("foo", "/");
    assert_eq!((reply.status, reply.text()), (500, "scripted"));
    assert_eq!((reply.headers.get("l5d-success-class"), reply.headers.get("l5d-err")), (Some("0.0"), None));
    assert_eq!(upstream.requests().len(), 1);
}

/// §7.2: every status of an upstream is relayed, 504 too.
#[test]
fn any_status_is_relayed() {
    let upstream = Upstream::start(|request| Response::new(request.target[1..].parse().expect("a status")).body("b"));
    let proxy = Setup::to(&upstream).and("client: {failureAccrual: {kind: none}}").start();
    for status in [201, 301, 404, 418, 429, 502, 503, 504, 599] {
        let reply = proxy.get("foo", &format!("/{status}"));
        assert_eq!((reply.status, reply.text(), reply.headers.get("l5d-err")), (status, "b", None));
        let class = if status < 500 { "1.0" } else { "0.0" };
        assert_eq!(reply.headers.get("l5d-success-class"), Some(class), "{status}");
    }
    assert_eq!(last(&upstream).target, "/599");
}

/// A55.
#[test]
fn accrual_takes_a_failing_endpoint_out() {
    let (good, bad) = (ok(), statuses(&[500]));
    let files = TempDir::new().expect("a temporary folder can be made");
    let addresses = format!("127.0.0.1 {}\n127.0.0.1 {}\n", good.port(), bad.port());
    fs::write(files.path().join("foo"), addresses).expect("a file can be written");
    let proxy = Setup::router("dtab: /svc => /#/io.l5d.fs")
        .and("client: {failureAccrual: {kind: io.l5d.consecutiveFailures, failures: 3}}")
        .top(format!("namers: [{{kind: io.l5d.fs, rootDir: {}}}]", files.path().display()))
        .start();
    let mut downstream = proxy.connect();
    for _ in 0..100 {
        downstream.get("foo", "/").expect("an answer");
    }
    assert_eq!((bad.requests().len(), good.requests().len()), (3, 97));
    assert_eq!(proxy.count("client/#/io.l5d.fs/foo/failure_accrual/removals"), 1);
    let said = format!(
        "FailureAccrualFactory marking connection to \"#/io.l5d.fs/foo\" as dead. Remote Address: 127.0.0.1:{}",
        bad.port()
    );
    wait_until("the log to tell", || proxy.l5d.output().contains(&said));
}

/// §7.5: a caller that goes away takes its request along.
#[test]
fn a_caller_that_goes_away_ends_the_exchange() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("late"));
    let router = "service: {responseClassifier: {kind: io.l5d.http.retryableAll5XX}}";
    let proxy = Setup::to(&upstream).and(router).start();
    drop(proxy.waiting_at(&upstream));
    proxy.wait_for_count(&format!("client/$/inet/127.1/{}/connections", upstream.port()), 0);
    gate.open();
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert_eq!(upstream.requests().len(), 2, "it was not sent again");
}

/// §7.4: nacks are sent again where that is safe, and never relayed.
#[test]
fn nacks_are_sent_again() {
    let turn = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match turn.fetch_add(1, Ordering::Relaxed) {
        0 => Response::new(503).header("finagle-http-nack", "true").body("no"),
        1 => Response::new(503).header("Retry-After", "0").body("no"),
        _ => Response::ok("ok"),
    });
    let proxy = Setup::to(&upstream).start();
    let reply = proxy.get("foo", "/");
    assert_eq!((reply.status, upstream.requests().len()), (200, 3));
    proxy.wait_for_count(&format!("client/$/inet/127.1/{}/retries/requeues", upstream.port()), 2);
}

/// §10.3: a nacked request stays with the endpoint that it was sent to, and does not ask the balancer again.
#[test]
fn a_nack_is_sent_again_over_its_session() {
    let busy = Upstream::start(|_| Response::new(503).header("finagle-http-nack", "true").body("no"));
    let idle = ok();
    let files = TempDir::new().expect("a temporary folder can be made");
    let addresses = format!("127.0.0.1 {}\n127.0.0.1 {}\n", busy.port(), idle.port());
    fs::write(files.path().join("foo"), addresses).expect("a file can be written");
    let proxy = Setup::router("dtab: /svc => /#/io.l5d.fs")
        .top(format!("namers: [{{kind: io.l5d.fs, rootDir: {}}}]", files.path().display()))
        .start();
    let mut downstream = proxy.connect();
    let mut answered = 0;
    while downstream.get("foo", "/").expect("an answer").status == 200 {
        answered += 1;
        assert!(answered < 60, "each of the two is picked");
    }
    assert_eq!((idle.requests().len(), busy.requests().len(), busy.connections()), (answered, 21, 1));
    let client = "client/#/io.l5d.fs/foo";
    proxy.wait_for_count(&format!("{client}/retries/requeues"), 20);
    proxy.wait_for_count(&format!("{client}/retries/request_limit"), 1);
    assert_eq!(proxy.count(&format!("{client}/loadbalancer/max_effort_exhausted")), 0);
    assert_eq!(proxy.count(&format!("{client}/failure_accrual/removals")), 1);
    // From now on it is passed over.
    for _ in 0..20 {
        assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    }
    assert_eq!(busy.requests().len(), 21);
}

/// §7.4: nacks that never end.
#[test]
fn a_nack_that_is_given_up_is_a_bad_gateway() {
    let upstream = Upstream::start(|request| {
        let name = if request.target == "/never" { "finagle-http-nonretryable-nack" } else { "finagle-http-nack" };
        Response::new(503).header(name, "true").body("no")
    });
    let proxy = Setup::to(&upstream).and("client: {failureAccrual: {kind: none}}").start();
    let reply = proxy.get("foo", "/never");
    assert_eq!((reply.status, upstream.requests().len()), (502, 1));
    assert!(
        reply.text().starts_with("The request was Nacked by the server and should not be retried"),
        "{}",
        reply.text()
    );
    let reply = proxy.get("foo", "/again");
    assert_eq!((reply.status, upstream.requests().len()), (502, 22), "20 requeues, a fifth of the budget");
    assert!(reply.text().starts_with("The request was Nacked by the server"), "{}", reply.text());
    assert_eq!(reply.headers.get("l5d-retryable"), None);
}
