//! TRACE as a question to the proxies on the way (§13.5).

use l5d_testkit::{Reply, Response, Upstream, wait_until};

use crate::proxy::{Proxy, Setup, last, ok, seen};

/// A router whose names take two steps.
fn started(upstream: &Upstream) -> Proxy {
    Setup::router(format!("dtab: /srv => /$/inet/127.1/{}; /svc => /srv", upstream.port())).start()
}

fn trace(proxy: &Proxy, headers: &[(&str, &str)]) -> Reply {
    let headers: Vec<_> = [("host", "dog")].iter().chain(headers).copied().collect();
    proxy.request("TRACE", "/", &headers, b"")
}

/// The block that is appended, with its one line that depends on time cut out.
fn without_duration(text: &str) -> String {
    let (before, rest) = text.split_once("request duration: ").expect(text);
    let (number, after) = rest.split_once(" ms\n").expect(text);
    assert!(number.bytes().all(|byte| byte.is_ascii_digit()), "{number}");
    format!("{before}{after}")
}

fn block(port: u16) -> String {
    format!(
        "--- Router: http ---\nservice name: /svc/dog\nclient name: /$/inet/127.1/{port}\naddresses: [127.0.0.1:{port}]\n\
         selected address: 127.0.0.1:{port}\ndtab resolution:\n  /svc/dog\n  /srv/dog (/svc=>/srv)\n  \
         /$/inet/127.1/{port}/dog (/srv=>/$/inet/127.1/{port})\n"
    )
}

/// A70.
#[test]
fn no_forwards_left_is_answered_here() {
    let upstream = ok();
    let proxy = started(&upstream);
    for asked in ["true", "1", "TRUE"] {
        let reply = trace(&proxy, &[("max-forwards", "0"), ("l5d-add-context", asked)]);
        assert_eq!(reply.status, 200);
        assert_eq!(without_duration(reply.text()), format!("\n{}", block(upstream.port())), "{asked}");
        assert_eq!(reply.headers.get("content-length"), Some(reply.body.len().to_string().as_str()));
    }
    for headers in [&[("max-forwards", "0")][..], &[("max-forwards", "0"), ("l5d-add-context", "no")]] {
        let reply = trace(&proxy, headers);
        assert_eq!((reply.status, reply.text()), (200, ""));
    }
    assert!(upstream.requests().is_empty());
    wait_until("one connection, which is made all the same, and kept", || upstream.connections() == 1);
}

/// A71.
#[test]
fn a_forward_is_counted_down_and_told_of() {
    let upstream = Upstream::start(|_| Response::ok("from the upstream"));
    let proxy = started(&upstream);
    let reply = trace(&proxy, &[("max-forwards", "5"), ("l5d-add-context", "true")]);
    assert_eq!((reply.status, seen(&upstream, "max-forwards").as_deref()), (200, Some("4")));
    assert_eq!(seen(&upstream, "l5d-add-context").as_deref(), Some("true"));
    let text = without_duration(reply.text());
    assert_eq!(text, format!("from the upstream\n\n{}", block(upstream.port())));
    assert_eq!(reply.headers.get("content-length"), Some(reply.body.len().to_string().as_str()));
    let reply = trace(&proxy, &[("max-forwards", "5")]);
    assert_eq!(reply.text(), "from the upstream");
    // No limit: forwarded as it is.
    let reply = trace(&proxy, &[("l5d-add-context", "1")]);
    assert_eq!(seen(&upstream, "max-forwards"), None);
    assert!(reply.text().contains("--- Router: http ---"), "{}", reply.text());
}

/// §13.5: what is no number is refused.
#[test]
fn a_limit_that_is_no_number_is_refused() {
    let upstream = ok();
    let proxy = started(&upstream);
    for value in ["x", "", "1.5", "99999999999"] {
        let reply = trace(&proxy, &[("max-forwards", value)]);
        assert_eq!((reply.status, reply.text()), (400, "Invalid value for Max-Forwards header"), "{value:?}");
    }
    assert!(upstream.requests().is_empty());
}

/// §13.5: other methods are not questions.
#[test]
fn other_methods_are_forwarded_as_they_are() {
    let upstream = ok();
    let proxy = started(&upstream);
    let headers = [("host", "dog"), ("max-forwards", "0"), ("l5d-add-context", "true")];
    for method in ["GET", "OPTIONS"] {
        assert_eq!(proxy.request(method, "/", &headers, b"").text(), "ok");
        assert_eq!(last(&upstream).headers.get("max-forwards"), Some("0"));
    }
}

/// §13.5: a chunked answer gives way.
#[test]
fn a_chunked_answer_is_replaced() {
    let upstream = Upstream::start(|_| Response::ok("of the upstream").header("X-Theirs", "kept").chunked(3));
    let proxy = started(&upstream);
    let mut downstream = proxy.connect();
    for _ in 0..2 {
        let headers = [("host", "dog"), ("l5d-add-context", "true")];
        let reply = downstream.request("TRACE", "/", &headers, b"").expect("an answer");
        let text = reply.text();
        assert_eq!(reply.headers.get("content-length"), Some(reply.body.len().to_string().as_str()));
        assert!(!text.contains("of the upstream"), "{text}");
        assert!(text.to_ascii_lowercase().contains("x-theirs: kept"), "{text}");
        let marks = "\nHTTP 200 - OK\nDiagnostic trace encountered chunked response. Response content discarded.\n\n--- Router: http ---\n";
        assert!(text.contains(marks), "{text}");
    }
    let reply = downstream.request("TRACE", "/", &[("host", "dog")], b"").expect("an answer");
    assert_eq!(reply.text(), "of the upstream", "nobody asked for the block");
}

/// Two proxies, each with its block, the nearer one last.
#[test]
fn every_proxy_on_the_way_adds_its_block() {
    let upstream = ok();
    let behind = started(&upstream);
    let front = Setup::router(format!("dtab: /svc => /$/inet/127.1/{}\nlabel: front", behind.server.port())).start();
    let reply = trace(&front, &[("max-forwards", "1"), ("l5d-add-context", "true")]);
    let text = reply.text();
    let (inner, outer) = (text.find("--- Router: http ---"), text.find("--- Router: front ---"));
    assert!(inner.is_some() && inner < outer, "{text}");
    assert!(upstream.requests().is_empty());
}
