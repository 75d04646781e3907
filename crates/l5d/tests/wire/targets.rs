//! Forms of the request's target, and methods that a proxy treats in a way of its own (§2.3).

use crate::proxy::{Setup, assert_closed, last, ok, seen};

/// A88: the target's authority is the Host, whatever the header says.
#[test]
fn an_absolute_target_names_the_host() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for (target, name, host, left) in [
        ("http://foo/p", "/svc/foo", "foo", "/p"),
        ("http://foo:8080/p?q=%20&r", "/svc/foo:8080", "foo:8080", "/p?q=%20&r"),
        ("http://foo", "/svc/foo", "foo", "/"),
        ("http://foo?q", "/svc/foo", "foo", "/?q"),
    ] {
        let reply = proxy.request("GET", target, &[("host", "bar"), ("proxy-connection", "keep-alive")], b"");
        assert_eq!(reply.status, 200, "{target}");
        let request = last(&upstream);
        assert_eq!((request.target.as_str(), request.headers.get("host")), (left, Some(host)), "{target}");
        assert_eq!(request.headers.get("l5d-dst-service"), Some(name), "{target}");
        assert_eq!(request.headers.get("proxy-connection"), Some("keep-alive"), "{target}");
    }
    // As the only place of the name.
    assert_eq!(proxy.request("GET", "http://foo/p", &[], b"").status, 200);
    assert_eq!(seen(&upstream, "host").as_deref(), Some("foo"));
}

/// §6.5: the scheme is known of an absolute target only.
#[test]
fn forwarded_tells_the_scheme_of_an_absolute_target() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("addForwardedHeader: {by: {kind: router}, for: {kind: router}}").start();
    assert_eq!(proxy.request("GET", "http://foo/p", &[("host", "bar")], b"").status, 200);
    let forwarded = seen(&upstream, "forwarded").expect("a Forwarded header");
    assert!(forwarded.starts_with("by=_http;for=_http;host=") && forwarded.ends_with(";proto=http"), "{forwarded}");
}

/// §2.3: the bytes of an ordinary target are forwarded as they are.
#[test]
fn a_target_keeps_its_bytes() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for target in ["/", "/a//b/../c/", "/a%2fb%2F?x=%7e~&y", "/a;b=c,d/!$&'()*+=@:", "/?", "/a?b?c/d"] {
        assert_eq!(proxy.get("foo", target).status, 200, "{target}");
        assert_eq!(last(&upstream).target, target);
    }
    let (reply, _) = proxy.raw("OPTIONS * HTTP/1.1\r\nHost: foo\r\n\r\n");
    assert_eq!((reply.status, last(&upstream).target.as_str()), (200, "*"));
    let (reply, _) = proxy.raw("GET /?q=é HTTP/1.1\r\nHost: foo\r\n\r\n");
    assert_eq!((reply.status, last(&upstream).target.as_str()), (200, "/?q=é"));
}

/// §2.3: no tunnels.
#[test]
fn a_connect_is_refused() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for target in ["foo:443", "/"] {
        let (reply, mut downstream) = proxy.raw(format!("CONNECT {target} HTTP/1.1\r\nHost: foo\r\n\r\n"));
        assert_eq!((reply.status, reply.body.len()), (405, 0), "{target}");
        assert_closed(&mut downstream);
    }
    assert!(upstream.requests().is_empty());
}

/// §2.3: an upgrade is an ordinary request.
#[test]
fn an_upgrade_is_an_ordinary_request() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let headers = [
        ("host", "foo"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
    let request = last(&upstream);
    let all = ["connection", "upgrade", "sec-websocket-key"].map(|name| request.headers.get(name));
    assert_eq!(all, [None, None, Some("dGhlIHNhbXBsZSBub25jZQ==")]);
}

/// Methods that nobody knows pass as they are.
#[test]
fn any_method_passes() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for method in ["GET", "DELETE", "PATCH", "PROPFIND", "X-OWN"] {
        assert_eq!(proxy.request(method, "/", &[("host", "foo")], b"").status, 200, "{method}");
        assert_eq!(last(&upstream).method, method);
    }
}
