//! How a process ends (§15).

use std::net::TcpStream;
use std::time::{Duration, Instant};

use l5d_testkit::{Downstream, Response, wait_until};

use crate::proxy::{Gate, Setup, assert_closed, last, ok};

/// A85.
#[test]
fn requests_in_flight_are_answered_to_the_end() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("at last"));
    let mut proxy = Setup::to(&upstream).admin("shutdownGraceMs: 20000").start();
    let mut idle = proxy.connect();
    let mut busy = proxy.waiting_at(&upstream);
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
    let mut busy = proxy.waiting_at(&upstream);
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

/// §15: bodies that are under way, of a request and of a response, come to their end before the process does.
#[test]
fn bodies_under_way_come_to_their_end() {
    let (gate, whole) = (Gate::default(), ok());
    let (port, serving) = gate.hold_stream();
    let dtab = format!("dtab: /svc/stream => /$/inet/127.1/{port}; /svc/whole => /$/inet/127.1/{}", whole.port());
    let mut proxy = Setup::router(dtab).admin("shutdownGraceMs: 60000").start();
    let (mut reading, mut sending) = (proxy.connect(), proxy.connect());
    let get = "GET / HTTP/1.1\r\nHost: stream\r\n\r\n";
    let half = "POST / HTTP/1.1\r\nHost: whole\r\nContent-Length: 10\r\n\r\nfirst";
    reading.send(get).expect("l5d reads");
    reading.socket().peek(&mut [0]).expect("the head comes");
    sending.send(half).expect("l5d reads");
    let received = format!("server/127.0.0.1/{}/received_bytes", proxy.server.port());
    wait_until("the half of a body", || proxy.count(&received) == (get.len() + half.len()) as u64);
    proxy.l5d.process().signal("TERM");
    wait_until("new connections to be refused", || TcpStream::connect(proxy.server).is_err());
    sending.send("later").expect("l5d still reads");
    let reply = sending.reply("POST").expect("an answer");
    assert_eq!((reply.status, reply.headers.get("connection")), (200, Some("close")));
    assert_eq!(last(&whole).body, b"firstlater");
    gate.open();
    assert_eq!(reading.reply("GET").expect("the whole body").text(), "firstsecond");
    serving.join().expect("the upstream is content");
    assert_eq!(proxy.l5d.process().wait().code(), Some(0));
}

/// §15: what may be asked for on the admin port ends like a signal, after the grace that was asked for.
#[test]
fn a_posted_shutdown_has_its_grace() {
    let gate = Gate::default();
    let upstream = gate.hold(Response::ok("never"));
    let mut proxy = Setup::to(&upstream).admin("shutdownGraceMs: 60000").start();
    let mut busy = proxy.waiting_at(&upstream);
    let mut admin = Downstream::connect(proxy.l5d.admin()).expect("the admin server listens");
    let began = Instant::now();
    let reply = admin.request("POST", "/admin/shutdown?grace=1.milliseconds", &[("host", "localhost")], b"");
    assert_eq!(reply.expect("an answer").text(), "quitting\n");
    assert_closed(&mut busy);
    assert!(began.elapsed() >= Duration::from_millis(900), "a second at least");
    assert_eq!(proxy.l5d.process().wait().code(), Some(1));
    gate.open();
}
