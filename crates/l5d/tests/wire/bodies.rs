//! Bodies and their framing: whole, streamed, absent (§2.2, §13).

use std::io::Read;

use l5d_testkit::{Response, Upstream, wait_until};

use crate::proxy::{Gate, Setup, assert_closed, last, seen};

/// An upstream that sends the request's body back, in chunks if it is asked for `/chunks`.
fn echo() -> Upstream {
    Upstream::start(|request| {
        let response = Response::ok(request.body.clone());
        if request.target == "/chunks" { response.chunked(1_000) } else { response }
    })
}

/// §13.1: any size, either framing, both ways.
#[test]
fn bodies_come_through_whole() {
    let upstream = echo();
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for length in [1, 5_119, 5_120, 5_121, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|at: usize| (at * 31 % 251) as u8).collect();
        for target in ["/length", "/chunks"] {
            let reply = downstream.request("POST", target, &[("host", "foo")], &body).expect("an answer");
            assert!(reply.status == 200 && reply.body == body, "{target} {length}");
            assert_eq!(seen(&upstream, "content-length"), Some(length.to_string()));
            assert_eq!(reply.headers.get("content-length").is_some(), target == "/length", "{length}");
        }
        downstream.send("POST / HTTP/1.1\r\nHost: foo\r\nTransfer-Encoding: chunked\r\n\r\n").expect("l5d reads");
        for chunk in body.chunks(70_000) {
            downstream.send(format!("{:x}\r\n", chunk.len())).expect("l5d reads");
            downstream.send(chunk).expect("l5d reads");
            downstream.send("\r\n").expect("l5d reads");
        }
        downstream.send("0\r\n\r\n").expect("l5d reads");
        assert!(downstream.reply("POST").expect("an answer").body == body, "{length}");
        assert_eq!(seen(&upstream, "transfer-encoding").as_deref(), Some("chunked"));
    }
    assert_eq!(upstream.connections(), 1, "the connection is kept through all of it");
}

/// §13.1: chunks are relayed as they come.
#[test]
fn a_stream_is_relayed_as_it_comes() {
    let gate = Gate::default();
    let (port, serving) = gate.hold_stream();
    let proxy = Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{port}")).start();
    let mut downstream = proxy.connect();
    downstream.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    let mut so_far = vec![0; 4_096];
    wait_until("the first chunk, while the second is held", || {
        let length = downstream.socket().peek(&mut so_far).expect("bytes come");
        so_far[..length].ends_with(b"5\r\nfirst\r\n")
    });
    gate.open();
    let reply = downstream.reply("GET").expect("an answer");
    assert_eq!((reply.text(), reply.chunks.as_slice()), ("firstsecond", [5, 6].as_slice()));
    serving.join().expect("the upstream is content");
}

/// A61.
#[test]
fn who_asks_to_continue_is_told_to() {
    let upstream = echo();
    let proxy = Setup::to(&upstream).start();
    for length in [4, 20_000] {
        let mut downstream = proxy.connect();
        downstream
            .send(format!("POST / HTTP/1.1\r\nHost: foo\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"))
            .expect("l5d reads");
        let mut line = [0; 25];
        downstream
            .socket()
            .try_clone()
            .expect("a socket can be cloned")
            .read_exact(&mut line)
            .expect("an interim answer");
        assert_eq!(&line, b"HTTP/1.1 100 Continue\r\n\r\n");
        downstream.send(vec![b'x'; length]).expect("l5d reads");
        let reply = downstream.reply("POST").expect("the final answer");
        assert_eq!((reply.status, reply.body.len()), (200, length));
        assert_eq!(seen(&upstream, "expect"), None);
    }
    let reply = proxy.request("POST", "/", &[("host", "foo"), ("expect", "something")], b"body");
    assert_eq!((reply.status, seen(&upstream, "expect").as_deref()), (200, Some("something")));
}

/// A62, §13.3.
#[test]
fn a_head_has_no_body_but_its_length() {
    let upstream = Upstream::start(|request| {
        let response = Response::ok("12345");
        if request.target == "/chunks" { response.chunked(2) } else { response }
    });
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let reply = downstream.request("HEAD", "/", &[("host", "foo")], b"").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("content-length")), (200, Some("5")));
    let reply = downstream.request("HEAD", "/chunks", &[("host", "foo")], b"").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("transfer-encoding")), (200, None));
    assert_eq!(downstream.get("foo", "/").expect("nothing was left on the wire").text(), "12345");
}

/// §13.3: statuses without a body.
#[test]
fn some_statuses_have_no_body() {
    let upstream = Upstream::start(|request| {
        let head: &[u8] = match request.target.as_str() {
            "/204" => b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n",
            "/304" => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\nETag: \"x\"\r\n\r\n",
            _ => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        };
        Response::raw(head)
    });
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let reply = downstream.get("foo", "/204").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("content-length"), reply.headers.get("x-a")), (204, None, Some("b")));
    assert_eq!(reply.headers.get("transfer-encoding"), None);
    let reply = downstream.get("foo", "/304").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("content-length")), (304, Some("7")));
    let reply = downstream.get("foo", "/200").expect("nothing was left on the wire");
    assert_eq!((reply.status, reply.headers.get("content-length")), (200, Some("0")));
}

/// §2.2: both framings at once: the chunks win, and the connection closes.
#[test]
fn chunks_win_over_a_length() {
    let upstream = echo();
    let proxy = Setup::to(&upstream).start();
    let (reply, mut downstream) = proxy.raw(
        "POST / HTTP/1.1\r\nHost: foo\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n",
    );
    assert_eq!((reply.status, reply.text()), (200, "body"));
    let request = last(&upstream);
    assert_eq!((request.headers.get("content-length"), request.body.as_slice()), (None, b"body".as_slice()));
    assert_closed(&mut downstream);
}

/// §2.2: one request after the other, in order, whatever comes ahead.
#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|request| Response::ok(request.target.clone()));
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    let requests: String = (0..5).map(|at| format!("GET /{at} HTTP/1.1\r\nHost: foo\r\n\r\n")).collect();
    downstream.send(requests).expect("l5d reads");
    for at in 0..5 {
        assert_eq!(downstream.reply("GET").expect("an answer").text(), format!("/{at}"));
    }
    assert_eq!(upstream.connections(), 1);
}

/// §2.2: the reason phrase is the code's own; where Netty knows none, one of class and code.
#[test]
fn reason_phrases_are_standard() {
    let upstream = Upstream::start(|request| Response::new(request.target[1..].parse().expect("a status")));
    let proxy = Setup::to(&upstream).start();
    for (status, reason) in [
        (200, "OK"),
        (208, "Success (208)"),
        (404, "Not Found"),
        (413, "Request Entity Too Large"),
        (416, "Requested Range Not Satisfiable"),
        (418, "Client Error (418)"),
        (499, "Client Error (499)"),
        (508, "Server Error (508)"),
        (511, "Network Authentication Required"),
        (599, "Server Error (599)"),
        (600, "Unknown Status (600)"),
    ] {
        assert_eq!(proxy.get("foo", &format!("/{status}")).reason, reason);
    }
}

/// §13.2: an old upstream that ends its body by closing.
#[test]
fn a_body_that_ends_with_the_connection_gets_a_length() {
    let upstream =
        Upstream::start(|_| Response::raw("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhi").then_close());
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for _ in 0..2 {
        let reply = downstream.get("foo", "/").expect("an answer");
        assert_eq!((reply.status, reply.text(), reply.headers.get("content-length")), (200, "hi", Some("2")));
        assert_eq!((reply.version.as_str(), reply.headers.get("via")), ("HTTP/1.0", Some("1.0 linkerd")));
    }
}

/// §13.3: the same of an upstream that speaks 1.1 becomes chunks.
#[test]
fn a_stream_without_a_length_becomes_chunks() {
    let upstream = Upstream::start(|_| Response::raw("HTTP/1.1 200 OK\r\n\r\nuntil the end").then_close());
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for _ in 0..2 {
        let reply = downstream.get("foo", "/").expect("an answer");
        assert_eq!((reply.text(), reply.headers.get("transfer-encoding")), ("until the end", Some("chunked")));
    }
}

/// §13.3: a caller that speaks 1.0 has no chunks: its body ends with the connection.
#[test]
fn an_old_caller_gets_no_chunks() {
    let upstream = Upstream::start(|_| Response::ok("in chunks").chunked(3));
    let proxy = Setup::to(&upstream).start();
    for asks in ["", "Connection: keep-alive\r\n"] {
        let (reply, mut downstream) = proxy.raw(format!("GET / HTTP/1.0\r\nHost: foo\r\n{asks}\r\n"));
        assert_eq!((reply.text(), reply.headers.get("transfer-encoding")), ("in chunks", None));
        assert_eq!(reply.headers.get("connection"), Some("close"));
        assert_closed(&mut downstream);
    }
}

/// `streamingEnabled: false`: chunks are gathered, and get a length.
#[test]
fn without_streaming_bodies_are_whole() {
    let upstream = echo();
    let proxy = Setup::to(&upstream).and("streamingEnabled: false").start();
    let (reply, _) =
        proxy.raw("POST /chunks HTTP/1.1\r\nHost: foo\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    assert_eq!((reply.text(), reply.headers.get("content-length")), ("body", Some("4")));
    assert_eq!(seen(&upstream, "content-length").as_deref(), Some("4"));
}

/// §13.1: the endpoint's connection comes back when the body has been read, and only then.
#[test]
fn a_connection_is_reused_after_its_body() {
    let upstream = Upstream::start(|_| Response::ok(vec![b'x'; 200_000]));
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for _ in 0..3 {
        assert_eq!(downstream.get("foo", "/").expect("an answer").body.len(), 200_000);
    }
    assert_eq!(upstream.connections(), 1);
}
