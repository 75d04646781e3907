//! Which requests are sent again, and how often (§10.1, §10.2).

use std::sync::Mutex;
use std::time::{Duration, Instant};

use l5d_testkit::{Response, Upstream};

use crate::proxy::{Proxy, Setup, statuses};

fn classified(upstream: &Upstream, kind: &str) -> Proxy {
    // Accrual is out of the way: it would take the only endpoint out after five failures.
    Setup::to(upstream)
        .and("client: {failureAccrual: {kind: none}}")
        .and(&format!("service: {{responseClassifier: {{kind: io.l5d.http.{kind}}}}}"))
        .start()
}

/// An upstream that fails the first request of each method, with that many requests of each remembered.
fn fails_each_once() -> Upstream {
    let failed = Mutex::new(Vec::new());
    Upstream::start(move |request| {
        let mut failed = failed.lock().expect("no holder panics");
        if failed.contains(&request.method) {
            return Response::ok("ok");
        }
        failed.push(request.method.clone());
        Response::new(500).body("first")
    })
}

/// Sends each of these methods once; `(method, status, attempts)`.
fn outcomes(proxy: &Proxy, upstream: &Upstream, methods: &[&'static str]) -> Vec<(&'static str, u16, usize)> {
    let ask = |method: &'static str| {
        let body: &[u8] = if matches!(method, "POST" | "PUT" | "PATCH") { b"body" } else { b"" };
        let status = proxy.request(method, "/", &[("host", "foo")], body).status;
        let attempts = upstream.requests().iter().filter(|request| request.method == method).count();
        (method, status, attempts)
    };
    methods.iter().map(|method| ask(method)).collect()
}

const METHODS: &[&str] = &["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "POST", "PATCH"];

/// A46.
#[test]
fn reads_are_sent_again() {
    let upstream = fails_each_once();
    let proxy = classified(&upstream, "retryableRead5XX");
    let expected = METHODS.iter().map(|method| match *method {
        "GET" | "HEAD" | "OPTIONS" | "TRACE" => (*method, 200, 2),
        _ => (*method, 500, 1),
    });
    assert_eq!(outcomes(&proxy, &upstream, METHODS), expected.collect::<Vec<_>>());
}

/// A47.
#[test]
fn idempotent_requests_are_sent_again() {
    let upstream = fails_each_once();
    let proxy = classified(&upstream, "retryableIdempotent5XX");
    let expected = METHODS.iter().map(|method| match *method {
        "POST" | "PATCH" => (*method, 500, 1),
        _ => (*method, 200, 2),
    });
    assert_eq!(outcomes(&proxy, &upstream, METHODS), expected.collect::<Vec<_>>());
}

/// Config §11.1: the pause before a retry.
#[test]
fn a_jittered_backoff_waits_between_its_bounds() {
    let upstream = fails_each_once();
    let service = "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}, \
                   retries: {backoff: {kind: jittered, minMs: 50, maxMs: 60}}}";
    let proxy = Setup::to(&upstream).and(service).start();
    let began = Instant::now();
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert!(began.elapsed() >= Duration::from_millis(50));
    assert_eq!(upstream.requests().len(), 2);
}

/// §10.1: the other kinds.
#[test]
fn all_requests_or_none_are_sent_again() {
    let upstream = fails_each_once();
    let proxy = classified(&upstream, "retryableAll5XX");
    let all: Vec<_> = METHODS.iter().map(|method| (*method, 200, 2)).collect();
    assert_eq!(outcomes(&proxy, &upstream, METHODS), all);

    let upstream = fails_each_once();
    let proxy = classified(&upstream, "nonRetryable5XX");
    let none: Vec<_> = METHODS.iter().map(|method| (*method, 500, 1)).collect();
    assert_eq!(outcomes(&proxy, &upstream, METHODS), none);

    let upstream = fails_each_once();
    let proxy = classified(&upstream, "allSuccessful");
    let reply = proxy.get("foo", "/");
    assert_eq!((reply.status, reply.headers.get("l5d-success-class")), (500, Some("1.0")));
    assert_eq!(upstream.requests().len(), 1);
}

/// A49.
#[test]
fn a_response_may_ask_for_another_try() {
    let turn = Mutex::new(0);
    let upstream = Upstream::start(move |_| {
        let mut turn = turn.lock().expect("no holder panics");
        *turn += 1;
        if *turn == 1 { Response::new(500).header("l5d-retryable", "true").body("no") } else { Response::ok("ok") }
    });
    let proxy = Setup::to(&upstream).start();
    assert_eq!(proxy.request("POST", "/", &[("host", "foo")], b"body").status, 200);
    let bodies: Vec<_> = upstream.requests().into_iter().map(|request| request.body).collect();
    assert_eq!(bodies, [b"body", b"body"]);
}

/// A50.
#[test]
fn a_streamed_body_can_not_be_sent_again() {
    let upstream = statuses(&[500]);
    let proxy = classified(&upstream, "retryableAll5XX");
    let (reply, _) =
        proxy.raw("POST / HTTP/1.1\r\nHost: foo\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n");
    assert_eq!((reply.status, upstream.requests().len()), (500, 1));
    assert_eq!(proxy.request("POST", "/", &[("host", "foo")], &[b'x'; 6_000]).status, 500);
    assert_eq!(upstream.requests().len(), 2);
}

/// A52.
#[test]
fn the_budget_ends_a_row_of_retries() {
    let upstream = statuses(&[500]);
    let proxy = classified(&upstream, "retryableRead5XX");
    assert_eq!(proxy.get("foo", "/").status, 500);
    assert_eq!(upstream.requests().len(), 101);
    proxy.wait_for_count("service/svc/foo/retries/total", 100);
    proxy.wait_for_count("service/svc/foo/retries/budget_exhausted", 1);
    proxy.wait_for_count("service/svc/foo/requests", 1);
}

/// A53.
#[test]
fn a_budget_of_a_share_is_kept_exactly() {
    let upstream = statuses(&[200, 500, 200, 500]);
    let proxy = Setup::to(&upstream)
        .and(
            "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}, \
             retries: {budget: {minRetriesPerSec: 0, percentCanRetry: 0.5, ttlSecs: 10}}}",
        )
        .start();
    let mut downstream = proxy.connect();
    let statuses: Vec<_> = (0..3).map(|_| downstream.get("foo", "/").expect("an answer").status).collect();
    assert_eq!((statuses, upstream.requests().len()), (vec![200, 200, 500], 4));
}

/// §10.2: each retry waits for its backoff, and binds and picks anew.
#[test]
fn retries_wait_for_their_backoff() {
    let upstream = statuses(&[500, 500, 200]);
    let proxy = Setup::to(&upstream)
        .and(
            "service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}, \
             retries: {backoff: {kind: constant, ms: 100}}}",
        )
        .start();
    let began = Instant::now();
    assert_eq!(proxy.get("foo", "/").status, 200);
    assert!(began.elapsed().as_millis() >= 200, "{:?}", began.elapsed());
    assert_eq!(upstream.requests().len(), 3);
}

/// §10.1, §12: every attempt has a span of its own in the trace of the request.
#[test]
fn every_attempt_is_a_span_of_its_own() {
    let upstream = statuses(&[500, 200]);
    let proxy = classified(&upstream, "retryableRead5XX");
    assert_eq!(proxy.get("foo", "/").status, 200);
    let requests = upstream.requests();
    let header = |at: usize, name: &str| requests[at].headers.get(name).expect("a header").to_owned();
    assert_eq!(header(0, "l5d-reqid"), header(1, "l5d-reqid"));
    assert_ne!(header(0, "l5d-ctx-trace"), header(1, "l5d-ctx-trace"));
    assert_eq!((header(1, "via").as_str(), requests.len()), ("1.1 linkerd", 2));
}

/// §10.1: exceptions that a kind retries: a connection that closes without an answer.
#[test]
fn a_request_without_an_answer_is_sent_again() {
    for (method, status, attempts) in [("GET", 200, 2), ("POST", 502, 1)] {
        let turn = Mutex::new(0);
        let upstream = Upstream::start(move |_| {
            let mut turn = turn.lock().expect("no holder panics");
            *turn += 1;
            if *turn == 1 { Response::hang_up() } else { Response::ok("ok") }
        });
        let proxy = classified(&upstream, "retryableRead5XX");
        assert_eq!(proxy.request(method, "/", &[("host", "foo")], b"").status, status, "{method}");
        assert_eq!(upstream.requests().len(), attempts, "{method}");
    }
}

/// Config §11: of two entries for a name the later one's budget takes the place of the whole earlier one.
#[test]
fn budgets_are_set_by_prefix() {
    let upstream = statuses(&[500]);
    let proxy = Setup::to(&upstream)
        .and("client: {failureAccrual: {kind: none}}")
        .and(
            "service:\n  kind: io.l5d.static\n  configs:\n  - prefix: /\n    \
             responseClassifier: {kind: io.l5d.http.retryableRead5XX}\n    \
             retries: {budget: {minRetriesPerSec: 1, percentCanRetry: 0, ttlSecs: 5}}\n  - prefix: /svc/two\n    \
             retries: {budget: {ttlSecs: 2}}\n  - prefix: /svc/none\n    \
             retries: {budget: {minRetriesPerSec: 0, percentCanRetry: 0}}\n  - prefix: '/svc/{any}-good'\n    \
             responseClassifier: {kind: io.l5d.http.allSuccessful}",
        )
        .start();
    let mut before = 0;
    for (host, attempts, class) in [("one", 6, "0.0"), ("two", 21, "0.0"), ("none", 1, "0.0"), ("very-good", 1, "1.0")]
    {
        let reply = proxy.get(host, "/");
        assert_eq!((reply.status, reply.headers.get("l5d-success-class")), (500, Some(class)), "{host}");
        let after = upstream.requests().len();
        assert_eq!(after - before, attempts, "{host}");
        before = after;
    }
}
