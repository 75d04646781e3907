//! A real Zipkin server, with its Scribe collector: it must give back every span that it was sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use l5d_testkit::{Downstream, L5d, Process, Response, Upstream, free_port, get, wait_for, wait_until};
use serde_json::{Value, json};

use crate::l5d::start;
use crate::programs::{cached, installed, run};
use crate::suite::Suite;

/// Java takes its time to start.
const START: Duration = Duration::from_secs(120);

pub(crate) struct Zipkin {
    addr: SocketAddr,
    scribe: u16,
    _process: Process,
}

impl Zipkin {
    pub(crate) fn start() -> Self {
        let folder = cached("zipkin-3.6.1/BOOT-INF/classes/zipkin-server-shared.yml", "zipkin");
        let folder = folder.ancestors().nth(2).expect("it is two folders up");
        let (addr, scribe) = (SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())), free_port());
        let mut command = installed("java", "zipkin");
        let path = |part: &str| folder.join(part).display().to_string();
        command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m", "-cp"]);
        command.arg(format!("{}:{}", path("classes"), path("lib/*"))).arg("zipkin.server.ZipkinServer");
        command.arg(format!("--armeria.ports[0].port={}", addr.port()));
        command.args(["--armeria.ports[0].address=127.0.0.1", "--armeria.ports[0].protocols[0]=http"]);
        command.env("QUERY_PORT", addr.port().to_string()).env("SCRIBE_ENABLED", "true");
        command.env("COLLECTOR_PORT", scribe.to_string()).env("STORAGE_TYPE", "mem");
        let mut process = Process::start("zipkin", &mut command).expect("java starts");
        process.wait_ready(START, || {
            get(addr, "localhost", "/health")
                .is_ok_and(|health| health.status == 200 && health.text().contains("ScribeCollector"))
        });
        Self { addr, scribe, _process: process }
    }

    fn json(&self, target: &str) -> Value {
        let reply = get(self.addr, "localhost", target).unwrap_or_else(|error| panic!("{target}: {error}"));
        serde_json::from_str(reply.text()).unwrap_or(Value::Null)
    }

    /// The spans of a trace, when there are so many.
    fn trace(&self, id: &str, spans: usize) -> Vec<Value> {
        let what = format!("{spans} spans of {id} at {}", self.addr);
        wait_for(&what, Duration::from_secs(30), || {
            let found = self.json(&format!("/api/v2/trace/{id}"));
            found.as_array().filter(|found| found.len() >= spans).cloned()
        })
    }

    /// `counter.zipkin_collector.spans_dropped.scribe` and the like.
    fn counter(&self, name: &str, transport: &str) -> f64 {
        self.json("/metrics")[format!("counter.zipkin_collector.{name}.{transport}")].as_f64().expect("it counts")
    }

    fn by_scribe(&self) -> String {
        format!("- kind: io.l5d.zipkin\n  host: 127.0.0.1\n  port: {}\n  sampleRate: 1.0\n", self.scribe)
    }

    fn by_http(&self) -> String {
        format!("- kind: io.zipkin.http\n  host: {}\n  initialSampleRate: 1.0\n", self.addr)
    }
}

/// One hop: an l5d that sends everything for `web` to a port.
struct Hop {
    l5d: L5d,
    server: SocketAddr,
}

impl Hop {
    fn start(telemetry: &str, to: u16, more: &str) -> Self {
        let (admin, server) = (free_port(), free_port());
        let config = format!(
            "admin: {{port: {admin}}}\ntelemetry:\n{telemetry}routers:\n- protocol: http\n{more}  dtab: /svc/web => /$/inet/127.1/{to}\n  \
             servers:\n  - port: {server}\n"
        );
        let l5d = start(&config, SocketAddr::from((Ipv4Addr::LOCALHOST, admin)));
        Self { l5d, server: SocketAddr::from((Ipv4Addr::LOCALHOST, server)) }
    }
}

/// The trace's id as the upstream was told: hex digits of the part of `l5d-ctx-trace` that names it.
fn reqid(upstream: &Upstream) -> String {
    let requests = upstream.requests();
    requests.last().expect("the upstream was asked").headers.get("l5d-reqid").expect("it has an id").to_owned()
}

fn one<'a>(spans: &'a [Value], kind: &str) -> &'a Value {
    let mut found = spans.iter().filter(|span| span["kind"] == kind);
    let span = found.next().unwrap_or_else(|| panic!("no {kind}: {spans:?}"));
    assert!(found.next().is_none(), "more than one {kind}: {spans:?}");
    span
}

/// What must be true of the two spans of a request, however they travelled.
fn check(spans: &[Value], server_port: u16, upstream: u16) {
    let (server, client) = (one(spans, "SERVER"), one(spans, "CLIENT"));
    assert_eq!(client["parentId"], server["id"]);
    assert_eq!(server.get("parentId"), None, "{server}");
    assert_eq!((&server["name"], &client["name"]), (&json!("http /svc/web"), &json!("get")));
    assert_eq!(server["localEndpoint"]["serviceName"], format!("127.0.0.1/{server_port}"));
    assert_eq!(server["localEndpoint"]["port"], server_port);
    assert_eq!(server["remoteEndpoint"]["ipv4"], "127.0.0.1");
    assert_eq!(client["localEndpoint"]["serviceName"], format!("$/inet/127.1/{upstream}"));
    assert_eq!(client["remoteEndpoint"], json!({"ipv4": "127.0.0.1", "port": upstream}));
    for span in [server, client] {
        assert_eq!(span["tags"]["http.status_code"], "200", "{span}");
        assert_eq!(span["tags"]["http.uri"], "/there", "{span}");
        assert!(span["duration"].as_u64().is_some_and(|duration| duration >= 1), "{span}");
        assert_eq!(span.get("shared"), None, "{span}");
        let events: Vec<&str> = span["annotations"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|a| a["value"].as_str().expect("text"))
            .collect();
        assert!(events.contains(&"ws") && events.contains(&"wr"), "{span}");
    }
    let us = |span: &Value, key: &str| span[key].as_u64().expect("a number");
    assert!(us(server, "duration") >= 40_000 && us(client, "duration") >= 40_000, "{spans:?}");
    assert!(us(server, "timestamp") <= us(client, "timestamp") && us(client, "duration") <= us(server, "duration"));
    let tags = &server["tags"];
    assert_eq!(tags["service"], "/svc/web");
    assert_eq!(tags["client"], format!("/$/inet/127.1/{upstream}"));
    assert_eq!(
        (&tags["router.label"], &tags["residual"], &tags["http.method"]),
        (&json!("http"), &json!("/"), &json!("GET"))
    );
    assert_eq!(tags["dtab.base"], format!("/svc/web=>/$/inet/127.1/{upstream}"));
    assert_eq!(client["tags"]["l5d.success"], "1.0");
}

pub(crate) fn spans_come_back_by_scribe_and_by_http(suite: &Suite) {
    let zipkin = suite.zipkin();
    for (transport, telemetry) in [("scribe", zipkin.by_scribe()), ("http", zipkin.by_http())] {
        let upstream = Upstream::start(|_| Response::ok("hello").after(Duration::from_millis(40)));
        let hop = Hop::start(&telemetry, upstream.port(), "");
        let dropped = zipkin.counter("spans_dropped", transport) + zipkin.counter("messages_dropped", transport);
        assert_eq!(get(hop.server, "web", "/there?not=this").expect("l5d answers").status, 200);
        let spans = zipkin.trace(&reqid(&upstream), 2);
        check(&spans, hop.server.port(), upstream.port());
        let after = zipkin.counter("spans_dropped", transport) + zipkin.counter("messages_dropped", transport);
        assert_eq!(after, dropped, "{transport}: Zipkin drops without a word");
        wait_until("the trace to be counted", || hop.l5d.scrape().count("zipkin/traces") == 1);
    }
}

pub(crate) fn spans_come_back_whatever_a_request_brings(suite: &Suite) {
    let zipkin = suite.zipkin();
    for telemetry in [zipkin.by_scribe(), zipkin.by_http()] {
        let upstream = Upstream::start(|_| Response::ok("hello"));
        let hop = Hop::start(&telemetry, upstream.port(), "  tracePropagator: {kind: io.l5d.zipkin}\n");
        let ask = |headers: &[(&str, &str)]| {
            let mut all = vec![("host", "web")];
            all.extend_from_slice(headers);
            let reply = Downstream::connect(hop.server).and_then(|mut l5d| l5d.request("GET", "/\"%22{}", &all, b""));
            assert_eq!(reply.expect("l5d answers").status, 200, "{headers:?}");
            upstream
                .requests()
                .last()
                .expect("it was asked")
                .headers
                .get("x-b3-traceid")
                .expect("B3 is spoken")
                .to_owned()
        };
        // Ids of zero and a parent of zero, which Zipkin refuses or drops; the largest ids; a debug flag; a dtab.
        let zero =
            ask(&[("x-b3-traceid", "0000000000000000"), ("x-b3-spanid", "0000000000000000"), ("x-b3-sampled", "1")]);
        let parent = ask(&[("b3", "00000000000000ab-00000000000000cd-1-0000000000000000")]);
        let large = ask(&[("b3", "ffffffffffffffffffffffffffffffff-ffffffffffffffff-1")]);
        let debug = ask(&[("x-b3-flags", "1"), ("l5d-dtab", "/other=>/x")]);
        assert_eq!((parent.as_str(), large.as_str()), ("00000000000000ab", "ffffffffffffffffffffffffffffffff"));
        for (id, spans) in [(&zero, 2), (&parent, 2), (&large, 2), (&debug, 2)] {
            assert_eq!(zipkin.trace(id, spans).len() % 2, 0, "{id}");
        }
        assert_eq!(hop.l5d.scrape().count("zipkin/dropped/refused"), 0);
    }
}

pub(crate) fn three_hops_are_one_trace(suite: &Suite) {
    let zipkin = suite.zipkin();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let last = Hop::start(&zipkin.by_http(), upstream.port(), "");
    let middle = Hop::start(&zipkin.by_scribe(), last.server.port(), "");
    let first = Hop::start(&zipkin.by_scribe(), middle.server.port(), "");
    assert_eq!(get(first.server, "web", "/").expect("l5d answers").status, 200);
    let spans = zipkin.trace(&reqid(&upstream), 6);
    // Each is its parent's child: server and client of the first, of the middle, of the last.
    let expected = [&first, &middle, &last].map(|hop| format!("127.0.0.1/{}", hop.server.port()));
    let mut parent = Value::Null;
    for service in expected {
        let child = |parent: &Value, kind: &str| {
            let found = spans
                .iter()
                .find(|span| span.get("parentId").unwrap_or(&Value::Null) == parent && span["kind"] == kind);
            found.unwrap_or_else(|| panic!("no {kind} below {parent}: {spans:#?}")).clone()
        };
        let server = child(&parent, "SERVER");
        assert_eq!(server["localEndpoint"]["serviceName"], service);
        parent = child(&server["id"], "CLIENT")["id"].clone();
    }
    assert_eq!(spans.len(), 6);
}

pub(crate) fn an_application_in_the_middle_joins_by_b3(suite: &Suite) {
    let zipkin = suite.zipkin();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let b3 = "  tracePropagator: {kind: io.l5d.zipkin}\n";
    let last = Hop::start(&zipkin.by_http(), upstream.port(), b3);
    let (to_last, zipkin_addr) = (last.server, zipkin.addr);
    // The application: it tells Zipkin of a span of its own, beneath that of its caller, and calls on in it.
    let application = Upstream::start(move |request| {
        let header = |name: &str| request.headers.get(name).expect("its caller speaks B3").to_owned();
        let (trace, parent) = (header("x-b3-traceid"), header("x-b3-spanid"));
        let headers =
            [("host", "web"), ("b3", &format!("{trace}-00000000000a9917-{}-{parent}", header("x-b3-sampled")))];
        let reply = Downstream::connect(to_last).and_then(|mut l5d| l5d.request("GET", "/", &headers, b""));
        let span = json!([{"traceId": trace, "id": "00000000000a9917", "parentId": parent, "name": "work",
            "timestamp": 1, "duration": 1, "localEndpoint": {"serviceName": "application"}}]);
        let told = Downstream::connect(zipkin_addr).and_then(|mut zipkin| {
            zipkin.request(
                "POST",
                "/api/v2/spans",
                &[("host", "z"), ("content-type", "application/json")],
                span.to_string().as_bytes(),
            )
        });
        match (reply, told) {
            (Ok(_), Ok(_)) => Response::ok("worked"),
            failed => Response::new(500).body(format!("{failed:?}")),
        }
    });
    let first = Hop::start(&zipkin.by_scribe(), application.port(), b3);
    let reply = get(first.server, "web", "/").expect("l5d answers");
    assert_eq!(reply.status, 200, "{}", reply.text());
    let requests = application.requests();
    let id = requests[0].headers.get("x-b3-traceid").expect("B3 is spoken");
    let spans = zipkin.trace(id, 5);
    let below = |parent: &Value| {
        let found: Vec<&Value> =
            spans.iter().filter(|span| span.get("parentId").unwrap_or(&Value::Null) == parent).collect();
        assert_eq!(found.len(), 1, "below {parent}: {spans:#?}");
        found[0]
    };
    let mut names = Vec::new();
    let mut parent = Value::Null;
    for _ in 0..5 {
        let span = below(&parent);
        names.push(span["localEndpoint"]["serviceName"].as_str().expect("a name").to_owned());
        parent = span["id"].clone();
    }
    let [first, last] = [first.server, last.server].map(|server| format!("127.0.0.1/{}", server.port()));
    let [to_application, to_upstream] =
        [application.port(), upstream.port()].map(|port| format!("$/inet/127.1/{port}"));
    assert_eq!(names, [&first, &to_application, "application", &last, &to_upstream]);
}

/// The telemetry page's command prints the first lines that the page shows.
pub(crate) fn the_pages_curl_prints_the_zipkin_client(suite: &Suite) {
    let zipkin = suite.zipkin();
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let hop = Hop::start(&zipkin.by_scribe(), upstream.port(), "");
    assert_eq!(get(hop.server, "web", "/").expect("l5d answers").status, 200);
    wait_until("the trace to be taken", || hop.l5d.scrape().count("zipkin/traces") == 1);
    let command = format!("curl -s http://localhost:{}/admin/metrics.json?pretty=1 | head -n4", hop.l5d.admin().port());
    let text = run(Command::new("sh").args(["-c", &command]), b"").text();
    let page = "{\n  \"clnt/zipkin-tracer/available\" : 1.0,\n  \"clnt/zipkin-tracer/cancelled_connects\" : 0,\n  \
                \"clnt/zipkin-tracer/closes\" : 0,\n";
    assert_eq!(text, page);
}

/// A collector that is not there costs counted drops and no request.
pub(crate) fn requests_do_not_notice_a_collector_that_is_down(_: &Suite) {
    let nobody = free_port();
    let telemetry = format!("- kind: io.l5d.zipkin\n  host: 127.0.0.1\n  port: {nobody}\n  sampleRate: 1.0\n");
    let upstream = Upstream::start(|_| Response::ok("hello"));
    let mut hop = Hop::start(&telemetry, upstream.port(), "");
    let mut downstream = Downstream::connect(hop.server).expect("l5d listens");
    for _ in 0..500 {
        assert_eq!(downstream.get("web", "/").expect("l5d answers").status, 200);
    }
    wait_until("the client to have tried", || {
        hop.l5d.scrape().count("clnt/zipkin-tracer/service_creation/failures") >= 2
    });
    let scrape = hop.l5d.scrape();
    assert_eq!((scrape.count("zipkin/traces"), scrape.count("clnt/zipkin-tracer/requests")), (0, 0));
    drop(downstream);
    hop.l5d.process().signal("TERM");
    assert!(hop.l5d.process().wait().success(), "the end does not wait for it");
}
