//! Headers that a hop takes away, adds to, or sets when it is told to (§6.2, §6.3, §6.5, §6.7).

use l5d_testkit::{Request, Response, Upstream};

use crate::proxy::{Setup, assert_closed, last, ok, seen};

/// A34.
#[test]
fn what_concerns_one_hop_ends_there() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let headers = [
        ("host", "foo"),
        ("connection", "close, Foo"),
        ("foo", "a"),
        ("te", "x"),
        ("proxy-authorization", "y"),
        ("keep-alive", "timeout=5"),
        ("upgrade", "websocket"),
        ("trailer", "t"),
    ];
    let reply = downstream.request("GET", "/", &headers, b"").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("connection")), (200, Some("close")));
    assert_closed(&mut downstream);
    let request = last(&upstream);
    for gone in ["connection", "foo", "te", "proxy-authorization", "upgrade", "trailer"] {
        assert_eq!(request.headers.get(gone), None, "{gone}");
    }
    assert_eq!(request.headers.get("keep-alive"), Some("timeout=5"), "it goes only when Connection names it");
}

/// §6.7: the same for responses, which keep everything else.
#[test]
fn responses_lose_what_concerns_one_hop() {
    let upstream = Upstream::start(|_| {
        Response::ok("ok")
            .header("Connection", "x-mine")
            .header("X-Mine", "1")
            .header("Proxy-Authenticate", "Basic")
            .header("Server", "theirs")
            .header("Date", "Mon, 01 Jan 2024 00:00:00 GMT")
            .header("l5d-other", "kept")
            .header("l5d-success-class", "0.5")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
    });
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let reply = downstream.get("foo", "/").expect("an answer");
    for gone in ["connection", "x-mine", "proxy-authenticate"] {
        assert_eq!(reply.headers.get(gone), None, "{gone}");
    }
    for (name, value) in [
        ("server", "theirs"),
        ("date", "Mon, 01 Jan 2024 00:00:00 GMT"),
        ("l5d-other", "kept"),
        ("l5d-success-class", "1.0"),
    ] {
        assert_eq!(reply.headers.all(name).collect::<Vec<_>>(), [value], "{name}");
    }
    assert_eq!(reply.headers.all("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"]);
    assert_eq!(downstream.get("foo", "/").expect("the connection stays").status, 200);
}

/// A35.
#[test]
fn via_grows_at_its_end() {
    let upstream = Upstream::start(|_| Response::ok("ok").header("Via", "1.1 backend"));
    let proxy = Setup::to(&upstream).start();
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("via", "1.0 bob, 1.1 mary")], b"");
    assert_eq!(seen(&upstream, "via").as_deref(), Some("1.0 bob, 1.1 mary, 1.1 linkerd"));
    assert_eq!(reply.headers.get("via"), Some("1.1 backend, 1.1 linkerd"));
    assert_eq!(proxy.raw("GET / HTTP/1.0\r\nHost: foo\r\n\r\n").0.status, 200);
    assert_eq!(seen(&upstream, "via").as_deref(), Some("1.0 linkerd"));
}

/// A37, §7.2: calls are refused where they go around in circles.
#[test]
fn calls_have_a_greatest_depth() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("maxCallDepth: 2").start();
    assert_eq!(proxy.request("GET", "/", &[("host", "foo"), ("via", "hop1, hop2")], b"").status, 200);
    let reply = proxy.request("GET", "/", &[("host", "foo"), ("via", "hop1, hop2, hop3")], b"");
    let text = "Maximum number of calls (2) has been exceeded. Please check for proxy loops.";
    assert_eq!((reply.status, reply.text()), (400, text));
    assert!(reply.headers.get("l5d-err").is_some_and(|error| error.starts_with("Maximum+number+of+calls+%282%29+has")));
    assert_eq!(upstream.requests().len(), 1);
}

/// §6.2, §7.2: of several `Via` lines only the first one counts and survives, on requests and on responses.
#[test]
fn of_several_via_lines_the_first_one_counts() {
    let upstream = Upstream::start(|_| Response::ok("ok").header("Via", "1.1 near").header("Via", "1.1 far"));
    let proxy = Setup::to(&upstream).server("maxCallDepth: 2").start();
    let send = |lines: &[&str]| {
        let lines: Vec<_> = [("host", "foo")].into_iter().chain(lines.iter().map(|line| ("via", *line))).collect();
        proxy.request("GET", "/", &lines, b"")
    };
    let reply = send(&["hop1", "hop2, hop3, hop4"]);
    assert_eq!(reply.status, 200);
    assert_eq!(last(&upstream).headers.all("via").collect::<Vec<_>>(), ["hop1, 1.1 linkerd"]);
    assert_eq!(reply.headers.all("via").collect::<Vec<_>>(), ["1.1 near, 1.1 linkerd"]);
    assert_eq!(send(&["hop1, hop2, hop3", "hop4"]).status, 400);
    assert_eq!(send(&["hop1, hop2,,"]).status, 200, "what ends with commas ends before them");
    assert_eq!(upstream.requests().len(), 2);
}

/// §6.1: headers of Linkerd's that have no meaning on the way in pass.
#[test]
fn other_l5d_headers_pass() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let headers = [
        ("host", "foo"),
        ("l5d-ctx-foo", "1"),
        ("l5d-dst-residual", "/mine"),
        ("l5d-err", "theirs"),
        ("dtab-local", "/a=>/b"),
        ("x-b3-traceid", "1"),
        ("l5d-dst-service", "/wrong"),
        ("l5d-dst-client", "/wrong"),
        ("l5d-reqid", "wrong"),
        ("finagle-http-retryable-request", ""),
        ("x-forwarded-client-cert", "Hash=forged"),
    ];
    assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
    let request = last(&upstream);
    let all = |name: &'static str| request.headers.all(name).map(str::to_owned).collect::<Vec<_>>();
    for (name, value) in &headers[1..6] {
        assert_eq!(request.headers.get(name), Some(*value), "{name}");
    }
    assert_eq!(all("l5d-dst-service"), ["/svc/foo"]);
    assert_eq!(all("l5d-dst-client"), [format!("/$/inet/127.1/{}", upstream.port())]);
    assert_ne!(all("l5d-reqid"), ["wrong"]);
    assert!(all("finagle-http-retryable-request").is_empty());
    assert!(all("x-forwarded-client-cert").is_empty(), "nobody but this proxy tells who its caller is");
}

/// What a server with these settings puts into `Forwarded`.
fn forwarded(settings: &str, requests: usize) -> Vec<String> {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server(format!("addForwardedHeader: {settings}")).start();
    let mut downstream = proxy.connect();
    for _ in 0..requests {
        assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    }
    let line = |request: &Request| {
        let line = request.headers.get("forwarded").expect("a Forwarded header");
        line.replace(&proxy.server.to_string(), "SERVER")
    };
    upstream.requests().iter().map(line).collect()
}

fn is_label(text: &str) -> bool {
    text.len() == 7 && text.starts_with('_') && text[1..].bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A67.
#[test]
fn forwarded_is_obfuscated_anew_for_each_request() {
    let lines = forwarded("{}", 3);
    for line in &lines {
        let by = line.strip_prefix("by=").expect(line);
        let (by, rest) = by.split_once(";for=").expect(line);
        let (r#for, host) = rest.split_once(";host=").expect(line);
        assert!(is_label(by) && is_label(r#for) && host == "foo", "{line}");
    }
    assert!(lines[0] != lines[1] && lines[1] != lines[2], "{lines:?}");
}

/// §6.5: the other ways to name oneself and the caller.
#[test]
fn forwarded_names_by_other_labels() {
    assert_eq!(forwarded("{by: {kind: 'ip:port'}, for: {kind: ip}}", 1), ["by=\"SERVER\";for=127.0.0.1;host=foo"]);
    assert_eq!(forwarded("{by: {kind: router}, for: {kind: static, label: me}}", 1), ["by=_http;for=_me;host=foo"]);
    let lines = forwarded("{by: {kind: connectionRandom}, for: {kind: connectionRandom}}", 2);
    assert_eq!(lines[0], lines[1]);
}

/// A68.
#[test]
fn a_timestamp_is_added_where_it_is_asked_for() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("timestampHeader: X-Request-Start").start();
    assert_eq!(proxy.get("foo", "/").status, 200);
    let stamp = seen(&upstream, "x-request-start").expect("a timestamp");
    assert!(stamp.len() == 13 && stamp.bytes().all(|byte| byte.is_ascii_digit()), "{stamp}");
}
