//! How long connections live, on both sides (§13.4; `serverSession`, `clientSession`, `hostConnectionPool`).

use std::net::TcpListener;
use std::time::{Duration, Instant};

use l5d_testkit::{Response, Upstream, wait_until};

use crate::proxy::{Gate, Setup, assert_closed, last, ok};

/// A86.
#[test]
fn an_idle_connection_is_closed() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("serverSession: {idleTimeMs: 1500}").start();
    let mut downstream = proxy.connect();
    assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    let idle = Instant::now();
    assert_closed(&mut downstream);
    let lasted = idle.elapsed();
    assert!(lasted > Duration::from_millis(1_400) && lasted < Duration::from_secs(10), "{lasted:?}");
    proxy.wait_for_count(&format!("server/127.0.0.1/{}/idle", proxy.server.port()), 1);
}

/// A request in flight is not idle; its connection ends of its life time when it is answered.
#[test]
fn a_life_time_ends_between_requests() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("ok"));
    let proxy = Setup::to(&upstream).server("serverSession: {idleTimeMs: 300, lifeTimeMs: 400}").start();
    let mut downstream = proxy.connect();
    let began = Instant::now();
    downstream.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    wait_until("the times to be over", || began.elapsed() > Duration::from_millis(700));
    gate.open();
    assert_eq!(downstream.reply("GET").expect("an answer").text(), "ok");
    assert_closed(&mut downstream);
}

/// §13.4: who closes, and who stays.
#[test]
fn versions_and_headers_say_whether_a_connection_stays() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for (request, stays, told) in [
        ("GET / HTTP/1.1\r\nHost: foo\r\n\r\n", true, None),
        ("GET / HTTP/1.1\r\nHost: foo\r\nConnection: close\r\n\r\n", false, Some("close")),
        ("GET / HTTP/1.1\r\nHost: foo\r\nConnection: foo, close\r\n\r\n", false, Some("close")),
        ("GET / HTTP/1.0\r\nHost: foo\r\n\r\n", false, None),
        ("GET / HTTP/1.0\r\nHost: foo\r\nConnection: keep-alive\r\n\r\n", true, None),
    ] {
        let (reply, mut downstream) = proxy.raw(request);
        assert_eq!((reply.status, reply.text()), (200, "ok"), "{request:?}");
        if told.is_some() {
            assert_eq!(reply.headers.get("connection").map(str::to_ascii_lowercase).as_deref(), told, "{request:?}");
        }
        assert_eq!(last(&upstream).headers.get("connection"), None, "{request:?}");
        if stays {
            assert_eq!(downstream.get("foo", "/").expect("the connection stays").status, 200, "{request:?}");
        } else {
            assert_closed(&mut downstream);
        }
    }
}

/// §6.7: what an upstream says of its connection concerns that one only.
#[test]
fn an_upstream_that_closes_does_not_close_the_caller() {
    let upstream = Upstream::start(|_| Response::ok("ok").header("Connection", "close").then_close());
    let proxy = Setup::to(&upstream).start();
    let mut downstream = proxy.connect();
    for _ in 0..3 {
        let reply = downstream.get("foo", "/").expect("an answer");
        assert_eq!((reply.status, reply.headers.get("connection")), (200, None));
    }
    assert_eq!(upstream.connections(), 3);
}

/// `clientSession`: idle connections to endpoints end.
#[test]
fn an_idle_connection_to_an_endpoint_is_closed() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).and("client: {clientSession: {idleTimeMs: 200}}").start();
    assert_eq!(proxy.get("foo", "/").status, 200);
    proxy.wait_for_count(&format!("client/$/inet/127.1/{}/connections", upstream.port()), 0);
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert_eq!(upstream.connections(), 2);
}

/// `hostConnectionPool`: no more connections than that; who waits too long in line is told.
#[test]
fn a_pool_has_its_size_and_its_line() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("ok"));
    let proxy = Setup::to(&upstream).and("client: {hostConnectionPool: {maxSize: 1, maxWaiters: 1}}").start();
    let mut first = proxy.waiting_at(&upstream);
    let mut second = proxy.connect();
    second.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    let client = format!("client/$/inet/127.1/{}", upstream.port());
    proxy.wait_for_count(&format!("{client}/pool_waiters"), 1);
    let third = proxy.get("foo", "/");
    assert_eq!(third.status, 502);
    assert!(third.headers.get("l5d-err").is_some());
    proxy.wait_for_count(&format!("{client}/pool_num_too_many_waiters"), 1);
    gate.open();
    for downstream in [&mut first, &mut second] {
        assert_eq!(downstream.reply("GET").expect("an answer").text(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

/// §13.4: a request is forwarded in the version that it came in.
#[test]
fn the_version_of_a_request_is_forwarded() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let (reply, _) = proxy.raw(format!("GET / {version}\r\nHost: foo\r\n\r\n"));
        assert_eq!((reply.status, last(&upstream).version.as_str()), (200, version));
    }
}

/// Metrics-catalog §1.2, `exn`: a peer that resets its connection is an exception of it, on both sides.
#[test]
fn a_reset_is_an_exception_of_the_connection() {
    const RESET: &str = "exn/io.netty.channel.unix.Errors$NativeIoException";
    let upstream = TcpListener::bind("127.0.0.1:0").expect("a free port of loopback can be bound");
    let port = upstream.local_addr().expect("a bound socket has an address").port();
    let proxy = Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{port}")).start();
    let server = format!("server/127.0.0.1/{}", proxy.server.port());
    // What has been received and not read makes of a close a reset.
    let mut downstream = proxy.connect();
    downstream.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    let (stream, _) = upstream.accept().expect("l5d connects");
    stream.peek(&mut [0]).expect("l5d asks");
    drop(stream);
    proxy.wait_for_count(&format!("client/$/inet/127.1/{port}/{RESET}"), 1);
    downstream.socket().peek(&mut [0]).expect("an answer comes");
    assert_eq!(proxy.count(&format!("{server}/{RESET}")), 0);
    drop(downstream);
    proxy.wait_for_count(&format!("{server}/{RESET}"), 1);
    assert_eq!(proxy.count(&format!("{server}/closes")), 0, "it was the peer that closed");
}

/// `hostConnectionPool.minSize`: so many connections stay, however idle; `clientSession.lifeTimeMs` ends them at an age.
#[test]
fn a_pool_keeps_its_least() {
    for (keys, left) in
        [("hostConnectionPool: {minSize: 1, idleTimeMs: 300}", 1), ("clientSession: {lifeTimeMs: 300}", 0)]
    {
        let gate = Gate::default();
        let upstream = gate.hold(Response::ok("ok"));
        let proxy = Setup::to(&upstream).and(&format!("client: {{{keys}}}")).start();
        let mut callers = [proxy.connect(), proxy.connect(), proxy.connect()];
        for caller in &mut callers {
            caller.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
        }
        wait_until("the requests to arrive", || upstream.requests().len() == 3);
        gate.open();
        for caller in &mut callers {
            assert_eq!(caller.reply("GET").expect("an answer").status, 200);
        }
        assert_eq!(upstream.connections(), 3);
        let client = format!("client/$/inet/127.1/{}", upstream.port());
        proxy.wait_for_count(&format!("{client}/connections"), left);
        proxy.wait_for_count(&format!("{client}/pool_cached"), left);
        assert_eq!(proxy.get("foo", "/").status, 200);
        assert_eq!(upstream.connections() as u64, 4 - left, "{keys}");
    }
}

/// `socketOptions.reusePort`: two processes share a port.
#[test]
fn two_processes_may_share_a_port() {
    let upstream = ok();
    let setup = || Setup::to(&upstream).server("socketOptions: {reusePort: true}");
    let port = l5d_testkit::free_port();
    let (first, second) = (setup().port(port).start(), setup().port(port).start());
    wait_until("both to get connections", || {
        assert_eq!(first.get("foo", "/").status, 200);
        [&first, &second].iter().all(|proxy| proxy.count(&format!("server/127.0.0.1/{port}/connects")) > 0)
    });
}
