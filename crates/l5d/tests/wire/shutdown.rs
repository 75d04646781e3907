//! How a process ends (§15).

use std::net::TcpStream;

use l5d_testkit::{Response, wait_until};

use crate::proxy::{Gate, Setup, assert_closed, ok};

/// A85.
#[test]
fn requests_in_flight_are_answered_to_the_end() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("at last"));
    let mut proxy = Setup::to(&upstream).admin("shutdownGraceMs: 20000").start();
    let mut idle = proxy.connect();
    let mut busy = proxy.connect();
    busy.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    wait_until("the request to arrive", || upstream.requests().len() == 1);
    proxy.l5d.process().signal("TERM");
    wait_until("new connections to be refused", || TcpStream::connect(proxy.server).is_err());
    assert_closed(&mut idle);
    wait_until("the log to tell", || proxy.l5d.output().contains("Received SIGTERM. Shutting down ..."));
    assert_eq!(proxy.page("/admin/ping").text(), "pong");
    let pending = format!("server/127.0.0.1/{}/pending", proxy.server.port());
    assert_eq!(proxy.count(&pending), 1, "metrics can be read while it drains");
    gate.open();
    let reply = busy.reply("GET").expect("an answer");
    assert_eq!((reply.status, reply.text()), (200, "at last"));
    assert_eq!(reply.headers.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"));
    assert_closed(&mut busy);
    assert_eq!(proxy.l5d.process().wait().code(), Some(0));
}

/// §15: grace has an end.
#[test]
fn what_takes_longer_than_the_grace_is_cut_off() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("never"));
    let mut proxy = Setup::to(&upstream).admin("shutdownGraceMs: 1").start();
    let mut busy = proxy.connect();
    busy.send("GET / HTTP/1.1\r\nHost: foo\r\n\r\n").expect("l5d reads");
    wait_until("the request to arrive", || upstream.requests().len() == 1);
    proxy.l5d.process().signal("INT");
    assert_closed(&mut busy);
    assert_eq!(proxy.l5d.process().wait().code(), Some(1));
    wait_until("the log to tell", || proxy.l5d.output().contains("Received SIGINT"));
    gate.open();
}

/// §15: without anything in flight it is over at once.
#[test]
fn an_idle_process_ends_at_once() {
    let upstream = ok();
    let mut proxy = Setup::to(&upstream).admin("shutdownGraceMs: 60000").start();
    let mut idle = proxy.connect();
    assert_eq!(idle.get("foo", "/").expect("an answer").status, 200);
    proxy.l5d.process().signal("TERM");
    assert_eq!(proxy.l5d.process().wait().code(), Some(0));
    assert_closed(&mut idle);
}
