//! The order of things on two connections: answers before the end of a request, both ways at once, what is said between
//! answers, and connections that end while nobody uses them (§2.2, §13.1, §13.4; RFC 9110 §15.2, RFC 9112 §9).

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;

use l5d_testkit::{Downstream, Response, Upstream, wait_until};

use crate::proxy::{Proxy, Setup, assert_closed, last, ok};

/// An upstream whose connections this function serves, one after the other.
fn scripted(mut serve: impl FnMut(usize, TcpStream) + Send + 'static) -> (Proxy, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port of loopback can be bound");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let serving = std::thread::spawn(move || {
        for (at, stream) in listener.incoming().enumerate() {
            let stream = stream.expect("l5d connects");
            let mut begin = [0];
            if stream.peek(&mut begin).is_ok_and(|n| n == 1 && begin == *b"Q") {
                return; // the test's own word that it is over
            }
            serve(at, stream);
        }
    });
    (Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{port}")).start(), serving)
}

/// Reads until this has come.
fn read_to(stream: &mut TcpStream, end: &str) -> String {
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("l5d goes on sending");
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn say(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("l5d reads");
}

/// Reads the caller's side to this.
fn hear(downstream: &Downstream, end: &str) -> String {
    read_to(&mut downstream.socket().try_clone().expect("a socket can be cloned"), end)
}

const HEAD: &str = "\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

/// §13.1: each side goes on as the other does.
#[test]
fn both_ways_at_once() {
    let (proxy, serving) = scripted(|_, mut stream| {
        read_to(&mut stream, HEAD);
        say(&mut stream, &format!("HTTP/1.1 200 OK\r\n{CHUNKED}"));
        for word in ["one", "two", "six"] {
            let chunk = read_to(&mut stream, &format!("{word}\r\n"));
            say(&mut stream, &chunk);
        }
        read_to(&mut stream, "0\r\n\r\n");
        say(&mut stream, "0\r\n\r\n");
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
        drop(stream);
    });
    let mut downstream = proxy.connect();
    downstream.send(format!("POST / HTTP/1.1\r\nHost: foo\r\n{CHUNKED}")).expect("l5d reads");
    assert!(hear(&downstream, HEAD).contains("200 OK"), "before anything of the body");
    for word in ["one", "two", "six"] {
        downstream.send(format!("3\r\n{word}\r\n")).expect("l5d reads");
        assert_eq!(hear(&downstream, "\r\n") + &hear(&downstream, "\r\n"), format!("3\r\n{word}\r\n"));
    }
    downstream.send("0\r\n\r\n").expect("l5d reads");
    assert_eq!(hear(&downstream, HEAD), "0\r\n\r\n");
    assert_eq!(downstream.get("foo", "/").expect("both connections stay").text(), "again");
    finish(&proxy, serving);
}

/// Ends a scripted upstream.
fn finish(proxy: &Proxy, serving: JoinHandle<()>) {
    let client = proxy.page("/client_state.json").text().to_owned();
    let port = client.split("127.0.0.1:").nth(1).and_then(|rest| rest.split('"').next()).expect("an address");
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).expect("the upstream listens");
    stream.write_all(b"Q").expect("the upstream reads");
    serving.join().expect("the upstream is content");
}

/// An answer that does not wait for the end of the request: the rest of it still goes where it belongs.
#[test]
fn a_request_goes_on_after_its_answer() {
    let (proxy, serving) = scripted(|_, mut stream| {
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        read_to(&mut stream, "5\r\nlater\r\n0\r\n\r\n");
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext");
    });
    let mut downstream = proxy.connect();
    downstream.send(format!("POST / HTTP/1.1\r\nHost: foo\r\n{CHUNKED}")).expect("l5d reads");
    assert_eq!(downstream.reply("POST").expect("an answer").text(), "early");
    downstream.send("5\r\nlater\r\n0\r\n\r\n").expect("l5d reads");
    assert_eq!(downstream.get("foo", "/").expect("the connection stays").text(), "next");
    finish(&proxy, serving);
}

/// An upstream that answers and hangs up, of a request that has no end: the caller has the answer.
#[test]
fn an_answer_to_half_a_request_arrives() {
    let (proxy, serving) = scripted(|_, mut stream| {
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig");
    });
    let mut downstream = proxy.connect();
    downstream.send("POST / HTTP/1.1\r\nHost: foo\r\nContent-Length: 1000000\r\n\r\nbegin").expect("l5d reads");
    let reply = downstream.reply("POST").expect("an answer");
    assert_eq!((reply.status, reply.text()), (413, "big"));
    finish(&proxy, serving);
}

/// RFC 9110 §15.2: what an upstream says on its way to an answer is not the answer.
#[test]
fn interim_answers_are_passed_over() {
    let (proxy, serving) = scripted(|_, mut stream| {
        for length in ["2\r\n\r\nok", "2\r\n\r\nOK"] {
            read_to(&mut stream, HEAD);
            say(&mut stream, "HTTP/1.1 102 Processing\r\n\r\n");
            say(&mut stream, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n");
            say(&mut stream, &format!("Content-Length: {length}"));
        }
    });
    let mut downstream = proxy.connect();
    for text in ["ok", "OK"] {
        let reply = downstream.get("foo", "/").expect("an answer");
        assert_eq!((reply.status, reply.text(), reply.headers.get("link")), (200, text, None));
    }
    finish(&proxy, serving);
}

/// Nobody has asked for another protocol.
#[test]
fn another_protocol_is_no_answer() {
    let (proxy, serving) = scripted(|_, mut stream| {
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n");
    });
    let reply = proxy.get("foo", "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().contains("another protocol"), "{}", reply.text());
    finish(&proxy, serving);
}

/// What comes behind an answer is nobody's answer: the connection is not used again.
#[test]
fn an_upstream_that_goes_on_talking_is_not_asked_again() {
    let (proxy, serving) = scripted(|at, mut stream| {
        read_to(&mut stream, HEAD);
        let more = if at == 0 { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong" } else { "" };
        say(&mut stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright{more}"));
    });
    for _ in 0..2 {
        assert_eq!(proxy.get("foo", "/").text(), "right");
    }
    finish(&proxy, serving);
}

/// A connection that its endpoint closes while it is idle leaves the pool by itself.
#[test]
fn a_connection_that_ends_while_it_is_idle_is_forgotten() {
    let (proxy, serving) = scripted(|_, mut stream| {
        read_to(&mut stream, HEAD);
        say(&mut stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    assert_eq!(proxy.get("foo", "/").text(), "ok");
    let gauge = |name: &str| {
        let metrics = proxy.scrape().json();
        let found = metrics.iter().find(|(key, _)| key.contains("/client/") && key.ends_with(name));
        found.and_then(|(_, value)| value.as_f64()).expect("the client's metrics")
    };
    wait_until("the connection to be forgotten", || gauge("/connections") == 0.0 && gauge("/pool_cached") == 0.0);
    assert_eq!(gauge("/closes"), 0.0, "it was the endpoint that closed");
    assert_eq!(proxy.get("foo", "/").text(), "ok");
    finish(&proxy, serving);
}

/// A head may come in pieces, and the next one with the end of a body.
#[test]
fn heads_come_as_they_like() {
    let upstream = Upstream::start(|request| Response::ok([request.target.as_bytes(), &request.body].concat()));
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for byte in b"\r\nPOST /a HTTP/1.1\r\nHost: foo\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: foo\r\n\r\n"
    {
        downstream.send([*byte]).expect("l5d reads");
    }
    assert_eq!(downstream.reply("POST").expect("an answer").text(), "/aabc");
    assert_eq!(downstream.reply("GET").expect("an answer").text(), "/b");
    let chunked = format!("POST /c HTTP/1.1\r\nHost: foo\r\n{CHUNKED}3;x=y\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n");
    downstream.send(format!("{chunked}{chunked}GET /d HTTP/1.1\r\nHost: foo\r\n\r\n")).expect("l5d reads");
    for (method, text) in [("POST", "/cabc"), ("POST", "/cabc"), ("GET", "/d")] {
        assert_eq!(downstream.reply(method).expect("an answer").text(), text);
    }
    assert_eq!(last(&upstream).headers.get("x-sum"), None);
}

/// Many lines are as good as few, both ways, in their order and case.
#[test]
fn heads_have_as_many_lines_as_fit() {
    let lines: String = (0..500).map(|at| format!("X-Line-{at}: {at}\r\n")).collect();
    let answer = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
    let upstream = Upstream::start(move |_| Response::raw(answer.clone()));
    let proxy = Setup::to(&upstream).and("maxHeadersKB: 16").start();
    let (reply, _) = proxy.raw(format!("GET / HTTP/1.1\r\nHost: foo\r\n{lines}\r\n"));
    let is_line = |(name, value): &(&str, &str)| name.strip_prefix("X-Line-") == Some(value);
    let request = last(&upstream);
    for headers in [&reply.headers, &request.headers] {
        let values: Vec<_> =
            headers.iter().filter(is_line).map(|(_, value)| value.parse::<u32>().expect("a number")).collect();
        assert_eq!(values, (0..500).collect::<Vec<_>>());
    }
}

/// §13.4: the version of an upstream's answer is the version of the answer.
#[test]
fn the_version_of_an_answer_is_relayed() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let (reply, mut downstream) = proxy.raw("GET / HTTP/1.0\r\nHost: foo\r\n\r\n");
    assert_eq!((reply.status, reply.version.as_str()), (200, "HTTP/1.1"));
    assert_closed(&mut downstream);
    let upstream = Upstream::start(|_| Response::raw("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").then_close());
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for _ in 0..2 {
        let reply = downstream.get("foo", "/").expect("an answer");
        assert_eq!((reply.version.as_str(), reply.headers.get("connection")), ("HTTP/1.0", Some("keep-alive")));
        assert_eq!(reply.headers.get("via"), Some("1.0 linkerd"));
    }
}
