//! How a request gets its logical name (§3).

use l5d_testkit::Upstream;

use crate::proxy::{Proxy, Setup, last, ok, seen};

/// A proxy with that identifier in front of `upstream`, whatever the name is.
fn identified_by(upstream: &Upstream, identifier: &str) -> Proxy {
    Setup::router(format!("dtab: /svc => /$/inet/127.1/{}\nidentifier: {identifier}", upstream.port())).start()
}

fn name(upstream: &Upstream) -> String {
    seen(upstream, "l5d-dst-service").expect("every request carries its logical name")
}

/// A4, A5.
#[test]
fn without_a_host_there_is_no_name() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for headers in [&[][..], &[("Host", "")]] {
        let reply = proxy.request("GET", "/x", headers, b"");
        assert_eq!(reply.status, 400);
        let text = reply.text();
        assert!(text.starts_with("Unknown destination: Request(\"GET /x\", from /127.0.0.1:"), "{text}");
        assert!(text.ends_with(" / Host header is absent"), "{text}");
        let error = reply.headers.get("l5d-err").expect("the reason is a header too");
        assert!(
            error.starts_with("Unknown+destination%3A+Request%28%22GET+%2Fx%22%2C+from+%2F127.0.0.1%3A"),
            "{error}"
        );
        assert!(error.ends_with("+%2F+Host+header+is+absent"), "{error}");
        assert_eq!(reply.headers.get("via"), None);
    }
    assert!(upstream.requests().is_empty());
}

/// §3: the default takes the Host as it is.
#[test]
fn the_host_is_taken_verbatim() {
    let upstream = ok();
    let proxy = Setup::router(format!("dtab: /svc => /$/inet/127.1/{}", upstream.port())).start();
    for (host, expected) in [
        ("foo", "/svc/foo"),
        ("FOO:8080", "/svc/FOO:8080"),
        ("a~b", r"/svc/\x61\x7e\x62"),
        ("a/b", r"/svc/\x61\x2f\x62"),
        ("[::1]:80", r"/svc/\x5b\x3a\x3a\x31\x5d\x3a\x38\x30"),
    ] {
        assert_eq!(proxy.get(host, "/").status, 200, "{host}");
        assert_eq!(name(&upstream), expected);
        assert_eq!(seen(&upstream, "host").as_deref(), Some(host));
    }
}

/// §3: a token may come from another header, of which the first line counts.
#[test]
fn another_header_may_name_the_service() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.header.token, header: my-header}");
    let reply = proxy.request("GET", "/", &[("host", "h"), ("My-Header", "one"), ("My-Header", "two")], b"");
    assert_eq!((reply.status, name(&upstream).as_str()), (200, "/svc/one"));
    let reply = proxy.get("h", "/");
    assert_eq!(reply.status, 400);
    assert!(reply.text().ends_with("/ my-header header is absent"), "{}", reply.text());
    // A name that needs no Host: the upstream is sent an empty one.
    let (reply, _) = proxy.raw("GET / HTTP/1.1\r\nmy-header: x\r\n\r\n");
    assert_eq!((reply.status, seen(&upstream, "host").as_deref()), (200, Some("")));
}

/// A7, A8.
#[test]
fn method_and_host() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.methodAndHost}");
    assert_eq!(proxy.get("FOO:8080", "/x/y?z").status, 200);
    assert_eq!(name(&upstream), "/svc/1.1/GET/foo:8080");
    assert_eq!(proxy.request("POST", "/", &[("host", "foo")], b"body").status, 200);
    assert_eq!(name(&upstream), "/svc/1.1/POST/foo");
    assert_eq!(proxy.raw("GET / HTTP/1.0\r\nHost: foo\r\n\r\n").0.status, 200);
    assert_eq!(name(&upstream), "/svc/1.0/GET");
    let reply = proxy.request("GET", "/", &[], b"");
    assert_eq!(reply.status, 400);
    assert!(reply.text().ends_with("HTTP/1.1 request missing hostname"), "{}", reply.text());
}

/// §3: `httpUriInDst`; a path that can't be one is the caller's mistake.
#[test]
fn method_host_and_path() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.methodAndHost, httpUriInDst: true}");
    assert_eq!(proxy.get("foo", "/a/b?c=d").status, 200);
    assert_eq!(name(&upstream), "/svc/1.1/GET/foo/a/b");
    assert_eq!(last(&upstream).target, "/a/b?c=d");
    for target in ["/a/", "/~x"] {
        assert_eq!(proxy.get("foo", target).status, 400, "{target}");
    }
}

/// A10, A11.
#[test]
fn segments_of_the_path_name_the_service_and_are_consumed() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.path, segments: 2, consume: true}");
    for (target, expected, left) in [
        ("/a/b", "/svc/a/b", "/"),
        ("/a/b/c/?x=1", "/svc/a/b", "/c/?x=1"),
        ("/a/b?x=1", "/svc/a/b", "/?x=1"),
        ("/a/b/", "/svc/a/b", "/"),
        ("/a/b%20/c", "/svc/a/b%20", "/c"),
    ] {
        assert_eq!(proxy.get("ignored", target).status, 200, "{target}");
        assert_eq!((name(&upstream).as_str(), last(&upstream).target.as_str()), (expected, left), "{target}");
    }
    for target in ["/a?o=s", "/", "/a/", "/?a/b"] {
        let reply = proxy.get("ignored", target);
        assert_eq!(reply.status, 400, "{target}");
        assert!(reply.text().ends_with("not enough segments in path"), "{}", reply.text());
    }
    assert_eq!(proxy.get("ignored", "//a/b").status, 400, "an empty segment is no name");
}

/// §3: without `consume` the target stays.
#[test]
fn segments_of_the_path_stay_where_they_are() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.path}");
    assert_eq!(proxy.get("ignored", "/one/two?x").status, 200);
    assert_eq!((name(&upstream).as_str(), last(&upstream).target.as_str()), ("/svc/one", "/one/two?x"));
}

/// A13.
#[test]
fn a_header_may_hold_the_whole_name() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.header}");
    let named = |value: &str| proxy.request("GET", "/", &[("host", "h"), ("l5d-name", value)], b"");
    assert_eq!(named("/a/b").status, 200);
    assert_eq!(name(&upstream), "/svc/a/b");
    let reply = named("x");
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("'/' expected but 'x' found at '[x]'"), "{}", reply.text());
    let reply = proxy.get("h", "/");
    assert_eq!(reply.status, 400);
    assert!(reply.text().ends_with("l5d-name header is absent"), "{}", reply.text());
}

/// A14.
#[test]
fn a_static_name_is_always_there() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "{kind: io.l5d.static, path: /foo/bar}");
    for host in ["one", "two"] {
        assert_eq!(proxy.get(host, "/").status, 200);
        assert_eq!(name(&upstream), "/svc/foo/bar");
    }
    assert_eq!(proxy.request("GET", "/", &[], b"").status, 200, "no Host is needed");
}

/// C27, §3: the first of a list that knows a name gives it; the last tells why there is none.
#[test]
fn identifiers_are_asked_in_order() {
    let upstream = ok();
    let proxy = identified_by(&upstream, "[{kind: io.l5d.methodAndHost}, {kind: io.l5d.path}]");
    assert_eq!(proxy.get("foo", "/one/two").status, 200);
    assert_eq!(name(&upstream), "/svc/1.1/GET/foo");
    assert_eq!(proxy.request("GET", "/one/two", &[], b"").status, 200);
    assert_eq!(name(&upstream), "/svc/one");
    let reply = proxy.request("GET", "/", &[], b"");
    assert_eq!(reply.status, 400);
    assert!(reply.text().ends_with("not enough segments in path"), "{}", reply.text());
}

/// §3: `dstPrefix` stands before every name.
#[test]
fn names_begin_with_the_prefix() {
    let upstream = ok();
    let proxy =
        Setup::router(format!("dtab: /my/own => /$/inet/127.1/{}\ndstPrefix: /my/own", upstream.port())).start();
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert_eq!(name(&upstream), "/my/own/foo");
}
