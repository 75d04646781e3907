//! Limits of time: of an attempt, of a request, of a server (§7.2, §10.4).

use std::sync::atomic::{AtomicUsize, Ordering};

use l5d_testkit::{Response, Upstream};

use crate::proxy::{Gate, Setup};

/// A40.
#[test]
fn an_attempt_has_its_time() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("late"));
    let proxy = Setup::to(&upstream).and("client: {requestAttemptTimeoutMs: 100}").start();
    let reply = proxy.request("POST", "/", &[("host", "foo")], b"body");
    assert_eq!(reply.status, 503);
    let start = format!(
        "exceeded 100.milliseconds to $/inet/127.1/{} while waiting for a response for an individual request, excluding retries.",
        upstream.port()
    );
    assert!(reply.text().starts_with(&start), "{}", reply.text());
    assert!(reply.headers.get("l5d-err").is_some_and(|error| error.contains("excluding+retries")));
    assert_eq!((reply.headers.get("l5d-retryable"), upstream.requests().len()), (None, 1));
    gate.open();
}

/// A41.
#[test]
fn an_attempt_that_took_too_long_is_followed_by_another() {
    let gate = Gate::default();
    let (held, turn) = (gate.clone(), AtomicUsize::new(0));
    let upstream = Upstream::start(move |_| {
        if turn.fetch_add(1, Ordering::Relaxed) == 0 {
            held.pass();
        }
        Response::ok("ok")
    });
    // Long enough for the second attempt, also on a busy machine.
    let proxy = Setup::to(&upstream)
        .and("client: {requestAttemptTimeoutMs: 1000}\nservice: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}")
        .start();
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert_eq!(upstream.requests().len(), 2);
    proxy.wait_for_count("service/svc/foo/retries/total", 1);
    gate.open();
}

/// §7.2, §10.4: the total time covers all attempts.
#[test]
fn a_request_has_its_time() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("late"));
    let proxy = Setup::to(&upstream).and("service: {totalTimeoutMs: 150}").start();
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 503);
    let start = "exceeded 150.milliseconds to unspecified while waiting for a response for the request, \
                 including retries (if applicable). Remote Info: ";
    assert!(reply.text().starts_with(start), "{}", reply.text());
    gate.open();
}

/// §10.4: retries are within the total time.
#[test]
fn retries_end_with_the_requests_time() {
    let upstream = crate::proxy::statuses(&[500]);
    let proxy = Setup::to(&upstream)
        .and(
            "service: {totalTimeoutMs: 400, responseClassifier: {kind: io.l5d.http.retryableRead5XX}, \
             retries: {backoff: {kind: constant, ms: 60000}}}",
        )
        .start();
    let reply = proxy.get("foo", "/");
    assert_eq!((reply.status, upstream.requests().len()), (503, 1));
    assert!(reply.text().starts_with("exceeded 400.milliseconds"), "{}", reply.text());
}

/// §7.2: a server's own limit.
#[test]
fn a_server_has_its_time() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("late"));
    let proxy = Setup::to(&upstream).server("timeoutMs: 120").start();
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 503);
    assert!(reply.text().starts_with("exceeded 120.milliseconds to "), "{}", reply.text());
    assert!(reply.text().contains("for an individual request, excluding retries"), "{}", reply.text());
    gate.open();
}

/// §10.4: a limit is for the response's head; its body may take longer.
#[test]
fn a_body_is_not_limited() {
    let gate = Gate::default();
    let held = gate.clone();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port of loopback can be bound");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let serving = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().expect("l5d connects");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("l5d sends a head");
            head.push(byte[0]);
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").expect("l5d reads");
        held.pass();
        stream.write_all(b"5\r\n late\r\n0\r\n\r\n").expect("l5d still reads");
    });
    let proxy = Setup::router(format!(
        "dtab: /svc/* => /$/inet/127.1/{port}\nclient: {{requestAttemptTimeoutMs: 5000}}\nservice: {{totalTimeoutMs: 5000}}"
    ))
    .start();
    let mut downstream = proxy.connect();
    downstream.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d takes bytes");
    // The head is with the caller: from here on nothing limits.
    let mut first = [0];
    downstream.socket().peek(&mut first).expect("the head comes");
    let began = std::time::Instant::now();
    l5d_testkit::wait_until("the limits to be over", || began.elapsed().as_millis() > 1_600);
    gate.open();
    assert_eq!(downstream.reply("GET").expect("the whole response").text(), "ok late");
    serving.join().expect("the upstream is content");
}
