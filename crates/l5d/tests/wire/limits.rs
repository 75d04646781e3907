//! What is refused before it is a request: limits of length, and what can't be read without doubt (§2.1).

use l5d_testkit::{Reply, Upstream};

use crate::proxy::{Proxy, Setup, assert_closed, last, ok};

fn with(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: foo\r\n{headers}\r\n")
}

/// Sends these bytes: l5d answers that status at the level of the wire, and closes.
fn assert_refused(proxy: &Proxy, bytes: impl AsRef<[u8]>, status: u16) {
    let shown = String::from_utf8_lossy(bytes.as_ref()).chars().take(80).collect::<String>();
    let (reply, mut downstream) = proxy.raw(bytes);
    let Reply { version, headers, body, .. } = &reply;
    assert_eq!((reply.status, version.as_str(), body.len()), (status, "HTTP/1.0", 0), "{shown:?}");
    assert_eq!(headers.get("content-length"), Some("0"), "{shown:?}");
    assert_eq!(headers.get("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{shown:?}");
    assert!(headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("l5d-")), "{shown:?}");
    assert_closed(&mut downstream);
}

fn started(keys: &str) -> (Upstream, Proxy) {
    let upstream = ok();
    let proxy = Setup::to(&upstream).and(keys).start();
    (upstream, proxy)
}

/// A56.
#[test]
fn a_long_request_line_is_refused() {
    let (upstream, proxy) = started("");
    assert_refused(&proxy, format!("GET /{} HTTP/1.1\r\nHost: foo\r\n\r\n", "x".repeat(5_000)), 414);
    assert!(upstream.requests().is_empty());
    let (reply, _) = proxy.raw(format!("GET /{} HTTP/1.1\r\nHost: foo\r\n\r\n", "x".repeat(4_000)));
    assert_eq!((reply.status, last(&upstream).target.len()), (200, 4_001));
    let (upstream, proxy) = started("maxInitialLineKB: 8");
    let (reply, _) = proxy.raw(format!("GET /{} HTTP/1.1\r\nHost: foo\r\n\r\n", "x".repeat(5_000)));
    assert_eq!((reply.status, last(&upstream).target.len()), (200, 5_001));
}

/// §2.1: headers beyond `maxHeadersKB`, in one line or in many.
#[test]
fn long_headers_are_refused() {
    let (upstream, proxy) = started("");
    assert_refused(&proxy, with(&format!("X-Long: {}\r\n", "x".repeat(9_000))), 431);
    assert_refused(&proxy, with(&"X-Many: 0123456789012345678901234567890123456789\r\n".repeat(200)), 431);
    assert!(upstream.requests().is_empty());
    assert_eq!(proxy.raw(with(&format!("X-Long: {}\r\n", "x".repeat(7_000)))).0.status, 200);
}

/// Far beyond every limit: the answer comes before the end of the request.
#[test]
fn a_head_without_end_is_refused_in_time() {
    let (_upstream, proxy) = started("");
    assert_refused(&proxy, format!("GET /{}", "x".repeat(300_000)), 414);
    assert_refused(&proxy, format!("GET / HTTP/1.1\r\nHost: foo\r\nX-Long: {}", "x".repeat(300_000)), 431);
}

/// A58.
#[test]
fn the_limit_of_headers_can_be_set() {
    let (upstream, proxy) = started("maxHeadersKB: 16");
    assert_eq!(proxy.raw(with(&format!("X-Long: {}\r\n", "x".repeat(9_000)))).0.status, 200);
    assert_eq!(last(&upstream).headers.get("x-long").map(str::len), Some(9_000));
    assert_refused(&proxy, with(&format!("X-Long: {}\r\n", "x".repeat(17_000))), 431);
}

/// A59, §2.1: lengths that leave a doubt.
#[test]
fn a_doubtful_length_is_refused() {
    let (upstream, proxy) = started("");
    for headers in [
        "Content-Length: 2\r\nContent-Length: 2\r\n",
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 2\r\n",
        "Content-Length: abc\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 0x2\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
    ] {
        assert_refused(&proxy, format!("POST / HTTP/1.1\r\nHost: foo\r\n{headers}\r\nab"), 400);
    }
    assert!(upstream.requests().is_empty());
}

/// §2.1: what is not a request.
#[test]
fn what_can_not_be_read_is_refused() {
    let (upstream, proxy) = started("");
    for bytes in [
        "GET\r\n\r\n",
        "GET /\r\n\r\n",
        "GET / HTTP/9.9\r\nHost: foo\r\n\r\n",
        "GET / http/1.1\r\nHost: foo\r\n\r\n",
        "GET / FOO/1.1\r\nHost: foo\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: foo\r\n\r\n",
        "GET /é HTTP/1.1\r\nHost: foo\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: foo\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nBad Name: x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nSpaced : x\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nX: a\u{0}b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nX: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nHost: foo\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: foo\r\nNoColon\r\n\r\n",
        "\u{1}\u{2}\u{3}\r\n\r\n",
    ] {
        assert_refused(&proxy, bytes, 400);
    }
    assert!(upstream.requests().is_empty());
}

/// §2.1: a chunk without a size.
#[test]
fn a_bad_chunk_is_refused() {
    let (upstream, proxy) = started("streamingEnabled: false");
    let (reply, mut downstream) =
        proxy.raw("POST / HTTP/1.1\r\nHost: foo\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nbody\r\n0\r\n\r\n");
    assert_eq!(reply.status, 400);
    assert_closed(&mut downstream);
    assert!(upstream.requests().is_empty());
}

/// §1: what is refused on the wire is no request, in the metrics too.
#[test]
fn what_is_refused_is_not_counted_as_a_request() {
    let (_upstream, proxy) = started("");
    assert_refused(&proxy, "GET / HTTP/1.1\r\nHost: foo\r\nBad Name: x\r\n\r\n", 400);
    assert_refused(&proxy, format!("GET /{} HTTP/1.1\r\nHost: foo\r\n\r\n", "x".repeat(5_000)), 414);
    assert_eq!(proxy.get("foo", "/").status, 200);
    let server = format!("server/127.0.0.1/{}", proxy.server.port());
    proxy.wait_for_count(&format!("{server}/requests"), 1);
    proxy.wait_for_count(&format!("{server}/status/4XX"), 0);
    proxy.wait_for_count(&format!("{server}/connects"), 3);
}

/// §2.3: a target is forwarded byte for byte, but for what no URI may have, and the fragment.
#[test]
fn targets_with_bytes_that_no_uri_has_are_refused() {
    let (upstream, proxy) = started("");
    for target in [&b"/<"[..], b"/>", b"/`", b"/?\"", b"/?<", b"/?>", b"/?\xe9"] {
        assert_refused(&proxy, [b"GET ", target, b" HTTP/1.1\r\nHost: foo\r\n\r\n"].concat(), 400);
    }
    assert!(upstream.requests().is_empty());
    for (target, forwarded) in [
        ("/a|b\\c{d}\"%zz?a|b\\c{d}^`%zz", "/a|b\\c{d}\"%zz?a|b\\c{d}^`%zz"),
        ("/?\u{e9}", "/?\u{e9}"),
        ("/a?b#c", "/a?b"),
    ] {
        let (reply, _) = proxy.raw(format!("GET {target} HTTP/1.1\r\nHost: foo\r\n\r\n"));
        assert_eq!((reply.status, last(&upstream).target.as_str()), (200, forwarded));
    }
}
