//! Servers that have enough to do (§7.3).

use l5d_testkit::{Response, wait_until};

use crate::proxy::{Gate, Setup, ok};

/// A43.
#[test]
fn more_requests_than_a_server_takes_are_nacked() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("ok"));
    let proxy = Setup::to(&upstream).server("maxConcurrentRequests: 1").start();
    let mut first = proxy.waiting_at(&upstream);
    let mut other = proxy.connect();
    let second = other.get("foo", "/").expect("an answer");
    assert_eq!(second.status, 503);
    let headers = ["finagle-http-nack", "retry-after", "l5d-err"].map(|name| second.headers.get(name));
    assert_eq!(headers, [Some("true"), Some("0"), None]);
    assert_eq!(second.text(), "Request was not processed by the server due to an error and is safe to retry");
    let head = other.request("HEAD", "/", &[("host", "foo")], b"").expect("an answer");
    assert_eq!((head.status, head.headers.get("finagle-http-nack")), (503, Some("true")));
    gate.open();
    assert_eq!(first.reply("GET").expect("an answer").status, 200);
    wait_until("the place to be free", || other.get("foo", "/").expect("the connection stays").status == 200);
    proxy.wait_for_count(&format!("server/127.0.0.1/{}/nacks", proxy.server.port()), 2);
}

/// §7.3: another proxy in front sends the request elsewhere, or again.
#[test]
fn a_proxy_in_front_takes_it_for_a_nack() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("ok"));
    let behind = Setup::to(&upstream).server("maxConcurrentRequests: 1").start();
    let front = Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{}", behind.server.port()))
        .and("client: {failureAccrual: {kind: none}}")
        .start();
    let mut first = front.waiting_at(&upstream);
    let reply = front.get("foo", "/");
    assert_eq!(reply.status, 502);
    assert!(reply.text().starts_with("The request was Nacked by the server"), "{}", reply.text());
    gate.open();
    assert_eq!(first.reply("GET").expect("an answer").status, 200);
}

/// `maxConcurrentRequests: 0` refuses everything.
#[test]
fn a_server_may_take_nothing() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("maxConcurrentRequests: 0").start();
    assert_eq!(proxy.get("foo", "/").status, 503);
    assert!(upstream.requests().is_empty());
}
