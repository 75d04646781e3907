//! The context that travels with a request: dtab, deadline, trace; and its removal (§6.1, §6.4, §6.8, §12).

use l5d_testkit::{Request, free_port};

use crate::proxy::{Setup, last, ok, seen};

/// The bytes of base64 with padding.
fn base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits: Vec<u32> = text
        .bytes()
        .filter(|byte| *byte != b'=')
        .map(|byte| ALPHABET.iter().position(|letter| *letter == byte).expect("base64") as u32)
        .collect();
    let mut bytes = Vec::new();
    for group in digits.chunks(4) {
        let word = group.iter().enumerate().fold(0, |word, (at, digit)| word | digit << (18 - 6 * at));
        bytes.extend_from_slice(&word.to_be_bytes()[1..group.len()]);
    }
    bytes
}

/// Span, parent, trace, flags and perhaps the upper half of the trace id, of `l5d-ctx-trace`.
fn trace(request: &Request) -> Vec<u64> {
    let value = request.headers.get("l5d-ctx-trace").expect("every request carries a trace");
    base64(value).chunks(8).map(|word| u64::from_be_bytes(word.try_into().expect("whole words"))).collect()
}

/// A25.
#[test]
fn the_requests_own_dtab_travels_on() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let headers = [("host", "foo"), ("l5d-ctx-dtab", "/a=>/b"), ("l5d-dtab", "/c=>/d | /e"), ("l5d-dtab", "/f => /g")];
    assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
    let request = last(&upstream);
    assert_eq!(request.headers.all("l5d-ctx-dtab").collect::<Vec<_>>(), ["/a=>/b;/c=>/d | /e;/f=>/g"]);
    assert_eq!(request.headers.get("l5d-dtab"), None);
}

/// A26.
#[test]
fn a_dtab_that_is_none_is_refused() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for header in ["l5d-dtab", "l5d-ctx-dtab"] {
        let reply = proxy.request("GET", "/", &[("host", "foo"), (header, "bogus")], b"");
        assert_eq!((reply.status, reply.text()), (400, "'/' expected but 'b' found at '[b]ogus'"));
        let error = "%27%2F%27+expected+but+%27b%27+found+at+%27%5Bb%5Dogus%27";
        assert_eq!(reply.headers.get("l5d-err"), Some(error));
    }
    assert!(upstream.requests().is_empty());
}

/// A28.
#[test]
fn a_cleared_context_is_not_trusted() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("clearContext: true").start();
    let headers = [
        ("host", "test"),
        ("l5d-dtab", "/svc/test=>/bad"),
        ("l5d-ctx-thing", "x"),
        ("l5d-ctx-trace", "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY="),
        ("l5d-sample", "1.0"),
    ];
    let reply = proxy.request("GET", "/", &headers, b"");
    assert_eq!(reply.status, 200);
    assert!(
        reply.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("l5d-")),
        "{:?}",
        reply.headers
    );
    let request = last(&upstream);
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    names.retain(|name| name.starts_with("l5d-"));
    names.sort();
    assert_eq!(names, ["l5d-ctx-trace", "l5d-dst-client", "l5d-dst-service", "l5d-reqid"]);
    assert_ne!(trace(&request)[2], 1, "a trace of its own");
}

/// A29.
#[test]
fn a_cleared_context_tells_nothing_of_the_inside() {
    let proxy =
        Setup::router(format!("dtab: /svc/* => /$/inet/127.1/{}", free_port())).server("clearContext: true").start();
    let reply = proxy.get("test", "/");
    assert_eq!((reply.status, reply.body.as_slice()), (502, b"".as_slice()));
    assert!(
        reply.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("l5d-")),
        "{:?}",
        reply.headers
    );
}

/// A31, §6.8: a trace that can't be read begins anew.
#[test]
fn a_trace_of_garbage_is_a_new_one() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    for garbage in ["garbage", "", "AAAA", "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY=AAAA"] {
        assert_eq!(proxy.request("GET", "/", &[("host", "foo"), ("l5d-ctx-trace", garbage)], b"").status, 200);
        let ids = trace(&last(&upstream));
        // The client's span, beneath the server's, which is the root.
        assert!(ids.len() == 4 && ids[1] == ids[2] && ids[0] != ids[1] && ids[2] != 0, "{ids:x?}");
        assert_eq!(seen(&upstream, "l5d-reqid"), Some(format!("{:016x}", ids[2])));
        assert_eq!(ids[3] & 6, 0, "nobody has decided whether it is sampled");
    }
}

/// §6.8, §12: a caller's trace goes on, each hop with spans of its own.
#[test]
fn a_callers_trace_goes_on() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let mine = "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY=";
    assert_eq!(proxy.request("GET", "/", &[("host", "foo"), ("l5d-ctx-trace", mine)], b"").status, 200);
    let ids = trace(&last(&upstream));
    assert_eq!((ids[2], ids[3]), (1, 6));
    assert!(ids[0] > 3 && ids[1] > 3 && ids[0] != ids[1], "new ids for the server's and the client's span: {ids:x?}");
    assert_eq!(seen(&upstream, "l5d-reqid").as_deref(), Some("0000000000000001"));
    // 128 bits: the upper half is kept.
    let long = "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAYAAAAAAAAABQ==";
    assert_eq!(proxy.request("GET", "/", &[("host", "foo"), ("l5d-ctx-trace", long)], b"").status, 200);
    let ids = trace(&last(&upstream));
    assert_eq!(ids[2..], [1, 6, 5]);
}

/// A32, §12: a rate in the request decides, whatever the caller's trace says.
#[test]
fn a_request_may_ask_to_be_sampled() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let unsampled = "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAI=";
    for (rate, parent, flags) in [
        ("1.0", None, 6),
        ("0.0", None, 2),
        ("7", None, 6),
        ("-1", None, 2),
        ("1.0", Some(unsampled), 6),
        ("garbage", Some(unsampled), 2),
    ] {
        let mut headers = vec![("host", "foo"), ("l5d-sample", rate)];
        headers.extend(parent.map(|parent| ("l5d-ctx-trace", parent)));
        assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
        assert_eq!(trace(&last(&upstream))[3] & 6, flags, "{rate} {parent:?}");
        assert_eq!(seen(&upstream, "l5d-sample"), None);
    }
}

/// §6.8: deadlines only get stricter, and never refuse.
#[test]
fn deadlines_are_combined() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    let headers =
        [("host", "foo"), ("l5d-ctx-deadline", "5 100"), ("l5d-ctx-deadline", "9 200"), ("l5d-ctx-deadline", "x")];
    assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
    assert_eq!(last(&upstream).headers.all("l5d-ctx-deadline").collect::<Vec<_>>(), ["9 100"]);
}

/// §1, step 14: what comes too late is counted, and forwarded all the same.
#[test]
fn deadlines_are_counted() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).server("timeoutMs: 60000").start();
    let mut downstream = proxy.connect();
    for _ in 0..6 {
        let late = [("host", "foo"), ("l5d-ctx-deadline", "5 100")];
        assert_eq!(downstream.request("GET", "/", &late, b"").expect("an answer").status, 200);
    }
    let in_time = [("host", "foo"), ("l5d-ctx-deadline", "5 9000000000000000000")];
    assert_eq!(downstream.request("GET", "/", &in_time, b"").expect("an answer").status, 200);
    assert_eq!(downstream.get("foo", "/").expect("an answer").status, 200);
    let deadline = format!("server/127.0.0.1/{}/admission_control/deadline", proxy.server.port());
    assert_eq!((proxy.count(&format!("{deadline}/exceeded")), proxy.count(&format!("{deadline}/rejected"))), (6, 1));
    let page = proxy.page("/metrics").text().to_owned();
    for (family, count) in [("deadline_expired", 6), ("deadline_remaining", 1), ("transit_duration", 7)] {
        let line = page.lines().find(|line| line.starts_with(&format!("l5d_server_{family}_seconds_count")));
        assert!(line.is_some_and(|line| line.ends_with(&format!(" {count}"))), "{family}: {line:?}");
    }
}

/// §6.8: the proxy's own limits are part of the deadline.
#[test]
fn a_configured_timeout_is_a_deadline() {
    let upstream = ok();
    let proxy =
        Setup::to(&upstream).and("service: {totalTimeoutMs: 30000}\nclient: {requestAttemptTimeoutMs: 20000}").start();
    assert_eq!(proxy.get("foo", "/").status, 200);
    let deadline = seen(&upstream, "l5d-ctx-deadline").expect("a deadline");
    let nanos: Vec<u64> = deadline.split(' ').map(|word| word.parse().expect("nanoseconds")).collect();
    let length = nanos[1] - nanos[0];
    assert!(length <= 20_000_000_000 && length > 15_000_000_000, "{deadline}");
}

/// A73; the trace's id stays whole (docs/compatibility.md).
#[test]
fn zipkins_headers_carry_the_trace() {
    let upstream = ok();
    let proxy = Setup::to(&upstream).and("tracePropagator: {kind: io.l5d.zipkin}").start();
    let headers = [
        ("host", "foo"),
        ("X-B3-TraceId", "463ac35c9f6413ad48485a3953bb6124"),
        ("X-B3-SpanId", "a2fb4a1d1a96d312"),
        ("X-B3-Sampled", "1"),
        ("l5d-ctx-trace", "AAAAAAAAAAMAAAAAAAAAAgAAAAAAAAABAAAAAAAAAAY="),
        ("l5d-sample", "0.0"),
    ];
    assert_eq!(proxy.request("GET", "/", &headers, b"").status, 200);
    let request = last(&upstream);
    let header = |name: &str| request.headers.get(name).unwrap_or_else(|| panic!("{name}"));
    assert_eq!((header("x-b3-traceid"), header("x-b3-sampled")), ("463ac35c9f6413ad48485a3953bb6124", "1"));
    let is_new = |id: &str| id.len() == 16 && id != "a2fb4a1d1a96d312" && id.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_new(header("x-b3-spanid")) && is_new(header("x-b3-parentspanid")));
    assert_ne!(header("x-b3-spanid"), header("x-b3-parentspanid"));
    assert!(header("x-b3-flags").bytes().all(|byte| byte.is_ascii_digit()));
    for absent in ["l5d-ctx-trace", "l5d-reqid", "l5d-sample"] {
        assert_eq!(request.headers.get(absent), None, "{absent}");
    }
    // Undecided reads as no.
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert_eq!(seen(&upstream, "x-b3-sampled").as_deref(), Some("0"));
}
