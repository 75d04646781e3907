//! What is recorded of requests, who is told, and what travels on (§12).

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use l5d_testkit::{Response, Upstream, free_port, wait_until};
use serde_json::Value;

use crate::proxy::{Proxy, Setup, ok, seen};

fn traced(upstream: &Upstream, telemetry: &str) -> Proxy {
    Setup::to(upstream).top(format!("telemetry:\n{telemetry}")).start()
}

const RECENT: &str = "- kind: io.l5d.recentRequests\n  sampleRate: 1.0\n";

fn recent(proxy: &Proxy) -> Value {
    serde_json::from_str(proxy.page("/requests.json").text()).expect("it is JSON")
}

/// The flags of the span that the upstream was told: the fourth word.
fn flags(upstream: &Upstream) -> u64 {
    let text = seen(upstream, "l5d-ctx-trace").expect("a span travels on");
    let digits = text.bytes().filter(|byte| *byte != b'=').map(|byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    });
    let bits: Vec<bool> = digits.flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1 == 1)).collect();
    bits[24 * 8..32 * 8].iter().fold(0, |word, bit| word << 1 | u64::from(*bit))
}

#[test]
fn the_log_has_linkerds_lines_in_the_order_of_events() {
    let upstream = ok();
    let proxy = traced(&upstream, "- kind: io.l5d.tracelog\n");
    assert_eq!(proxy.get("web", "/a?b=c").status, 200);
    let lines = || -> Vec<String> {
        let output = proxy.l5d.output();
        let lines = output.lines().filter_map(|line| Some(line.rsplit_once("] ")?.1.to_owned()));
        lines.collect()
    };
    // The client's and, last of all, the server's.
    wait_until("the request to be logged", || lines().iter().filter(|line| *line == "WireSend").count() == 2);
    let events: Vec<String> = lines()
        .into_iter()
        .filter(|line| !line.contains('(') || line.starts_with("BinaryAnnotation(l5d.success"))
        .collect();
    assert_eq!(
        events,
        [
            "WireRecv",
            "ServerRecv",
            "ClientSend",
            "WireSend",
            "WireRecv",
            "BinaryAnnotation(l5d.success,1.0)",
            "ClientRecv",
            "ServerSend",
            "WireSend",
        ]
    );
    let port = upstream.port();
    let server = proxy.server;
    for wanted in [
        format!("ServiceName(127.0.0.1/{})", server.port()),
        "Rpc(GET)".to_owned(),
        "Rpc(http /svc/web)".to_owned(),
        format!("LocalAddr(/{server})"),
        "BinaryAnnotation(http.method,GET)".to_owned(),
        "BinaryAnnotation(http.uri,/a)".to_owned(),
        "BinaryAnnotation(http.status_code,200)".to_owned(),
        "BinaryAnnotation(router.label,http)".to_owned(),
        "BinaryAnnotation(service,/svc/web)".to_owned(),
        format!("BinaryAnnotation(dtab.base,/svc/*=>/$/inet/127.1/{port})"),
        "BinaryAnnotation(dtab.local,)".to_owned(),
        format!("BinaryAnnotation(client,/$/inet/127.1/{port})"),
        "BinaryAnnotation(residual,/)".to_owned(),
        "Message(namer.success)".to_owned(),
        format!("ServiceName($/inet/127.1/{port})"),
        format!("ServerAddr(/127.0.0.1:{port})"),
        "BinaryAnnotation(clnt/finagle.protocol,http)".to_owned(),
    ] {
        assert!(lines().contains(&wanted), "{wanted}: {:#?}", lines());
    }
}

#[test]
fn requests_that_reach_nobody_are_shown_too() {
    let upstream = ok();
    let proxy = Setup::router(format!(
        "dtab: /svc/web => /$/inet/127.1/{}; /svc/gone => /$/inet/127.1/{}",
        upstream.port(),
        free_port()
    ))
    .top(format!("telemetry:\n{RECENT}"))
    .start();
    assert_eq!(proxy.get("web", "/").status, 200);
    assert_eq!(proxy.get("gone", "/").status, 502);
    assert_eq!(proxy.get("<script>alert(1)</script>", "/").status, 502);
    assert_eq!(proxy.raw("GET / HTTP/1.0\r\n\r\n").0.status, 400);
    wait_until("four requests to be shown", || recent(&proxy)["recent"].as_array().map(Vec::len) == Some(4));
    let shown = recent(&proxy);
    let statuses: Vec<u64> =
        shown["recent"].as_array().unwrap().iter().map(|row| row["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [400, 502, 502, 200], "the newest first");
    let web = &shown["recent"][3];
    assert_eq!((&web["router"], &web["logical"]), (&Value::from("http"), &Value::from("/svc/web")));
    assert_eq!(web["destination"], format!("127.0.0.1:{}", upstream.port()));
    assert_eq!(web["dtab"]["path"], serde_json::json!(["/svc/web", format!("/$/inet/127.1/{}", upstream.port())]));
    let failed = shown["failed"].as_array().unwrap();
    assert_eq!(failed.len(), 3, "{failed:?}");
    let failure = |n: usize| failed[n]["failure"].as_str().unwrap().to_owned();
    assert!(failure(0).starts_with("Identification"), "{}", failure(0));
    assert!(
        failure(1).starts_with("ClientAcquisition: com.twitter.finagle.naming.buoyant.RichNoBrokers"),
        "{}",
        failure(1)
    );
    assert!(
        failure(2).starts_with("ClientAcquisition: com.twitter.finagle.naming.buoyant.RichConnectionFailed"),
        "{}",
        failure(2)
    );
    let page = proxy.page("/requests");
    assert!(page.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/html")));
    assert!(page.text().contains(r"\x3c\x73"), "the name is shown as names are: {}", page.text());
    assert!(!page.text().contains("<script"));
}

#[test]
fn a_retry_and_a_streamed_body_are_part_of_the_story() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match asked.fetch_add(1, Relaxed) {
        0 => Response::new(500),
        _ => Response::ok("x".repeat(100_000)).chunked(1000),
    });
    let proxy = Setup::to(&upstream)
        .and("service: {responseClassifier: {kind: io.l5d.http.retryableRead5XX}}")
        .top(format!("telemetry:\n{RECENT}"))
        .start();
    assert_eq!(proxy.get("web", "/").body.len(), 100_000);
    wait_until("the request to be shown", || recent(&proxy)["recent"].as_array().map(Vec::len) == Some(1));
    let row = &recent(&proxy)["recent"][0];
    assert_eq!(
        (&row["attempts"], &row["retries"], &row["status"]),
        (&Value::from(2), &Value::from(1), &Value::from(200))
    );
    let latency = |key: &str| row["latency_us"][key].as_u64().unwrap();
    assert!(latency("total") >= latency("first_byte"), "{row}");
}

#[test]
fn recording_is_switched_off_and_on() {
    let upstream = ok();
    let proxy = traced(&upstream, RECENT);
    let page = |query: &str| proxy.page(&format!("/admin/tracing{query}")).text().to_owned();
    assert!(
        page("").starts_with("Could not figure out what you wanted to do with tracing. Either enable or disable it.")
    );
    assert_eq!(page("?disable=true"), "Disabling Finagle tracing");
    assert_eq!(proxy.get("web", "/off").status, 200);
    assert_eq!(page("?enable=true"), "Enabled Finagle tracing");
    assert_eq!(proxy.get("web", "/on").status, 200);
    wait_until("a request to be shown", || recent(&proxy)["recent"].as_array().map(Vec::len) == Some(1));
    assert!(proxy.page("/admin/index.txt").text().contains("/admin/tracing\n"));
}

#[test]
fn only_zipkin_decides_and_its_decision_travels_on() {
    let zipkin = |rate: &str| format!("- kind: io.l5d.zipkin\n  port: {}\n  sampleRate: {rate}\n", free_port());
    for (telemetry, expected) in [
        (RECENT.to_owned(), 0),
        (zipkin("1.0"), 6),
        (zipkin("0.0"), 2),
        // One without an opinion beside it leaves a no open.
        (format!("{}{RECENT}", zipkin("0.0")), 0),
        (format!("{}{RECENT}", zipkin("1.0")), 6),
    ] {
        let upstream = ok();
        let proxy = traced(&upstream, &telemetry);
        proxy.get("web", "/");
        assert_eq!(flags(&upstream), expected, "{telemetry}");
        proxy.request("GET", "/", &[("host", "web"), ("l5d-sample", "1.0")], b"");
        assert_eq!(flags(&upstream), 6, "{telemetry}");
        proxy.request("GET", "/", &[("host", "web"), ("l5d-sample", "0.0")], b"");
        assert_eq!(flags(&upstream), 2, "{telemetry}");
    }
}

#[test]
fn traceparent_passes_through_unless_l5d_takes_part() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("host", "web"), ("traceparent", parent), ("tracestate", "a=1,b=2")];
    let upstream = ok();
    let proxy = Setup::to(&upstream).start();
    proxy.request("GET", "/", &headers, b"");
    assert_eq!(seen(&upstream, "traceparent").as_deref(), Some(parent));
    let upstream = ok();
    let proxy = Setup::to(&upstream).and("tracePropagator: {kind: io.l5d.w3c}").start();
    proxy.request("GET", "/", &headers, b"");
    let told = seen(&upstream, "traceparent").expect("l5d takes part");
    assert!(
        told.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && told.ends_with("-01") && told != parent,
        "{told}"
    );
    assert_eq!(seen(&upstream, "tracestate").as_deref(), Some("a=1,b=2"));
    assert_eq!(seen(&upstream, "l5d-ctx-trace"), None);
    proxy.get("web", "/");
    let told = seen(&upstream, "traceparent").expect("a new trace");
    assert!(told.len() == 55 && !told.contains("0af7651916cd43dd8448eb211c80319c") && told.ends_with("-00"), "{told}");
    assert_eq!(seen(&upstream, "tracestate"), None);
}

#[test]
fn a_request_that_is_given_up_is_told_of() {
    let upstream = Upstream::start(|_| Response::ok("late").after(Duration::from_secs(30)));
    let proxy = traced(&upstream, RECENT);
    let mut downstream = proxy.connect();
    downstream.send("GET / HTTP/1.1\r\nhost: web\r\n\r\n").expect("l5d takes bytes");
    wait_until("the request to arrive", || upstream.requests().len() == 1);
    drop(downstream);
    wait_until("the request to be shown", || recent(&proxy)["recent"].as_array().map(Vec::len) == Some(1));
    let row = &recent(&proxy)["recent"][0];
    assert_eq!(row["status"], Value::Null);
    assert!(row["failure"].as_str().is_some_and(|why| why.contains("given up")), "{row}");
}
