//! OTLP judged by OpenTelemetry's official protos (`otlp_sink.py`) and by rotel, a collector that nobody here wrote.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Process, Response, Upstream, free_port, get, wait_for, wait_until};
use serde_json::Value;

use crate::l5d::start;
use crate::programs::cached;
use crate::suite::Suite;

/// A collector that decodes with the official protos.
struct Sink {
    process: Process,
    port: u16,
}

impl Sink {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/consumers/otlp_sink.py");
        let folder = tempfile::TempDir::new().expect("a temporary folder can be made");
        let file = folder.path().join("port");
        let mut command = Command::new(cached("otlp-1.45.2/bin/python3", "otlp"));
        command.arg(script).arg(&file);
        let mut process = Process::start("the OTLP sink", &mut command).expect("python starts");
        process.wait_ready(Duration::from_secs(30), || file.exists());
        let port = std::fs::read_to_string(&file).expect("it was written").parse().expect("it is a port");
        Self { process, port }
    }

    /// What has come so far, a value per request.
    fn said(&self) -> Vec<Value> {
        let output = self.process.output();
        let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let wrong = lines.iter().find(|line| line.get("error").is_some());
        assert!(wrong.is_none() && !output.contains("Traceback"), "{wrong:?}\n{output}");
        lines
    }

    fn spans(&self) -> Vec<Value> {
        let said = self.said();
        let scopes = said
            .iter()
            .flat_map(|request| items(&request["traces"]["resourceSpans"]))
            .flat_map(|r| items(&r["scopeSpans"]));
        scopes.flat_map(|scope| items(&scope["spans"])).cloned().collect()
    }

    /// The metrics of that name, a value per request that had it.
    fn metrics(&self, name: &str) -> Vec<Value> {
        let said = self.said();
        let scopes = said
            .iter()
            .flat_map(|request| items(&request["metrics"]["resourceMetrics"]))
            .flat_map(|r| items(&r["scopeMetrics"]));
        scopes.flat_map(|scope| items(&scope["metrics"])).filter(|metric| metric["name"] == name).cloned().collect()
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A 64-bit number, which JSON's protobuf writes as text.
fn number(value: &Value) -> u64 {
    value
        .as_str()
        .map_or_else(|| value.as_u64(), |text| text.parse().ok())
        .unwrap_or_else(|| panic!("{value} is no number"))
}

/// A fact of a span or a label of a point.
fn fact<'a>(of: &'a Value, key: &str) -> &'a Value {
    let found = items(&of["attributes"]).find(|attribute| attribute["key"] == key);
    found.map_or(&Value::Null, |attribute| {
        attribute["value"].as_object().and_then(|v| v.values().next()).unwrap_or(&Value::Null)
    })
}

/// An l5d that tells a collector everything each half second, and its HTTP server.
fn l5d(collector: u16, upstream: &Upstream, more: &str) -> (l5d_testkit::L5d, SocketAddr) {
    let (admin, server) = (free_port(), free_port());
    let config = format!(
        "admin: {{port: {admin}}}\n\
         telemetry:\n- kind: io.l5d.otlp\n  endpoint: http://127.0.0.1:{collector}\n  interval: 500\n  \
         headers: {{x-team: mesh}}\n{more}\
         routers:\n- protocol: http\n  dtab: |\n    /svc/web => /$/inet/127.1/{};\n    /svc/gone => /$/inet/127.1/{}\n  \
         servers:\n  - port: {server}\n",
        upstream.port(),
        free_port(),
    );
    let l5d = start(&config, SocketAddr::from((Ipv4Addr::LOCALHOST, admin)));
    (l5d, SocketAddr::from((Ipv4Addr::LOCALHOST, server)))
}

pub(crate) fn spans_decode_with_the_official_protos(_: &Suite) {
    let sink = Sink::start();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (_l5d, server) = l5d(sink.port, &upstream, "");
    assert_eq!(get(server, "web", "/a/b?c=d").expect("l5d answers").status, 200);
    assert_eq!(get(server, "gone", "/").expect("l5d answers").status, 502);
    let spans =
        wait_for("three spans", Duration::from_secs(30), || Some(sink.spans()).filter(|spans| spans.len() >= 3));
    let named = |kind: &str, service: &str| {
        let found = spans
            .iter()
            .find(|span| span["kind"] == kind && span["name"].as_str().is_some_and(|n| n.ends_with(service)));
        found.unwrap_or_else(|| panic!("{kind} {service}: {spans:?}"))
    };
    let (web, gone, attempt) = (
        named("SPAN_KIND_SERVER", "/svc/web"),
        named("SPAN_KIND_SERVER", "/svc/gone"),
        named("SPAN_KIND_CLIENT", "GET"),
    );
    assert_eq!(attempt["parentSpanId"], web["spanId"]);
    assert_eq!(attempt["traceId"], web["traceId"]);
    assert!(web.get("parentSpanId").is_none() && web.get("status").is_none(), "{web}");
    assert_eq!(gone["status"]["code"], "STATUS_CODE_ERROR");
    assert_eq!(fact(web, "http.response.status_code"), "200");
    assert_eq!((fact(web, "url.path"), fact(web, "http.request.method")), (&Value::from("/a/b"), &Value::from("GET")));
    assert_eq!(fact(attempt, "server.port"), &Value::from(upstream.port().to_string()));
    let (start, end) = (number(&attempt["startTimeUnixNano"]), number(&attempt["endTimeUnixNano"]));
    assert!(start < end && number(&web["startTimeUnixNano"]) <= start && end <= number(&web["endTimeUnixNano"]));
    let request = sink.said().into_iter().find(|request| request.get("traces").is_some()).expect("there was one");
    let resource = &request["traces"]["resourceSpans"][0]["resource"];
    assert_eq!(fact(resource, "service.name"), "l5d");
    assert_eq!(request["headers"]["x-team"], "mesh");
}

pub(crate) fn deltas_lose_nothing_when_the_collector_fails(_: &Suite) {
    let sink = Sink::start();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (l5d, server) =
        l5d(sink.port, &upstream, "  temporality: delta\n  histograms: exponential\n  sampleRate: 0.0\n");
    let failing = |status: u16, times: u32| {
        let reply = get(([127, 0, 0, 1], sink.port).into(), "sink", &format!("/fail?status={status}&times={times}"));
        assert_eq!(reply.expect("the sink answers").status, 200);
    };
    let told = || -> u64 {
        let metrics = sink.metrics("l5d_server_requests");
        let points = metrics.iter().flat_map(|metric| items(&metric["sum"]["dataPoints"]));
        points.map(|point| number(&point["asInt"])).sum()
    };
    for round in 1..=3_u64 {
        failing(500, 2); // not one of those that are tried again: its delta comes with the next
        for _ in 0..5 {
            assert_eq!(get(server, "web", "/").expect("l5d answers").status, 200);
        }
        wait_until(&format!("{} requests to be told", 5 * round), || told() == 5 * round);
    }
    let failures = l5d.scrape().count("otlp/metrics/failures");
    assert!(failures >= 3, "the collector did fail: {failures}");
    let sums = sink.metrics("l5d_server_requests");
    let mut end = 0;
    for point in sums.iter().flat_map(|metric| items(&metric["sum"]["dataPoints"])) {
        let (start, time) = (number(&point["startTimeUnixNano"]), number(&point["timeUnixNano"]));
        assert!(start < time && (end == 0 || start == end), "a delta begins where the last one ended");
        end = time;
    }
    assert!(
        sums.iter().all(|m| m["sum"]["aggregationTemporality"] == "AGGREGATION_TEMPORALITY_DELTA"
            && m["sum"]["isMonotonic"] == true)
    );
    wait_until("a latency, exponential", || {
        let metrics = sink.metrics("l5d_server_request_duration");
        let points = metrics.iter().flat_map(|metric| items(&metric["exponentialHistogram"]["dataPoints"]));
        points.map(|point| number(&point["count"])).sum::<u64>() == 15
    });
}

pub(crate) fn cumulative_values_have_one_start(_: &Suite) {
    let sink = Sink::start();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (_l5d, server) = l5d(sink.port, &upstream, "  traces: false\n");
    for n in 1..=3_u64 {
        assert_eq!(get(server, "web", "/").expect("l5d answers").status, 200);
        wait_until("the request to be told", || {
            let last = sink.metrics("l5d_server_requests").pop();
            last.is_some_and(|metric| number(&metric["sum"]["dataPoints"][0]["asInt"]) == n)
        });
    }
    let metrics = sink.metrics("l5d_server_requests");
    let starts: Vec<u64> = metrics.iter().map(|m| number(&m["sum"]["dataPoints"][0]["startTimeUnixNano"])).collect();
    assert!(starts.windows(2).all(|pair| pair[0] == pair[1]), "{starts:?}");
    let last = metrics.last().expect("there are some");
    assert_eq!(last["sum"]["aggregationTemporality"], "AGGREGATION_TEMPORALITY_CUMULATIVE");
    assert_eq!(fact(&last["sum"]["dataPoints"][0], "router"), "http");
    let latency = wait_for("three latencies", Duration::from_secs(30), || {
        let point = sink.metrics("l5d_server_request_duration").pop()?["histogram"]["dataPoints"][0].clone();
        (number(&point["count"]) == 3).then_some(point)
    });
    let counts: Vec<u64> = items(&latency["bucketCounts"]).map(number).collect();
    assert_eq!(counts.len(), items(&latency["explicitBounds"]).count() + 1);
    assert_eq!(counts.iter().sum::<u64>(), 3);
    assert!(!sink.metrics("l5d_process_uptime").is_empty() && sink.spans().is_empty());
}

pub(crate) fn rotel_takes_spans_and_metrics(_: &Suite) {
    let (http, grpc) = (free_port(), free_port());
    let mut command = Command::new(cached("rotel-0.0.1a15/rotel-agent", "rotel"));
    command.args(["start", "--otlp-http-endpoint"]).arg(format!("127.0.0.1:{http}"));
    command.arg("--otlp-grpc-endpoint").arg(format!("127.0.0.1:{grpc}"));
    command.args(["--exporter", "blackhole", "--debug-log", "traces", "--debug-log", "metrics"]);
    command.args(["--debug-log-verbosity", "detailed"]);
    let mut rotel = Process::start("rotel", &mut command).expect("rotel starts");
    rotel.wait_ready(Duration::from_secs(30), || std::net::TcpStream::connect(("127.0.0.1", http)).is_ok());
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let (l5d, server) = l5d(http, &upstream, "");
    assert_eq!(get(server, "web", "/only/rotel").expect("l5d answers").status, 200);
    for wanted in ["http /svc/web", "/only/rotel", "l5d_server_requests"] {
        wait_until(&format!("rotel to show {wanted}"), || rotel.output().contains(wanted));
    }
    let scrape = l5d.scrape();
    assert_eq!((scrape.count("otlp/dropped/lost"), scrape.count("otlp/metrics/failures")), (0, 0));
}
