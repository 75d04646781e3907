//! `io.l5d.otlp`: sends spans and metrics to an OpenTelemetry collector, OTLP over HTTP in protobuf.
//!
//! What is configured and what the environment says comes together in `settings.rs`; spans go the way that Zipkin's go
//! (`collector`); metrics are told once an interval (`push.rs`). What the bytes are is the telemetry crate's
//! (`format::otlp`).
//!
//! Counted under `otlp`: the traces that were taken and those that were dropped, and why; the same of metrics under
//! `otlp/metrics`; the client under `otlp/client`.

mod push;
mod settings;

use std::sync::Arc;
use std::time::Duration;

use l5d_admin::BoxFuture;
use l5d_config::{Cx, Fields, FromNode, Kind, Node, Value};
use l5d_net::Drain;
use l5d_telemetry::format::otlp::{Histograms, Resource, Temporality, left_out, push_traces};
use l5d_telemetry::trace::{Trace, Tracer};

use self::push::Push;
use self::settings::{Settings, Signal, interval};
use crate::collector::{Carrier, Counts, Endpoint, Link, LinkStats, Post, Sent, Teller, answer, deliver};
use crate::zipkin::{Spans, rate};
use crate::zipkin_http::gzipped;
use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: ID,
    experimental: false,
    summary: "sends spans and metrics to an OpenTelemetry collector",
    example: "kind: io.l5d.otlp\nendpoint: http://localhost:4318\nheaders:\n  x-team: mesh\ninterval: 10.seconds\n\
              temporality: cumulative\nhistograms: exponential\nsampleRate: 0.01\n",
    parse,
};

const ID: &str = "io.l5d.otlp";

/// What the section says; what it doesn't say, the environment may.
#[derive(Debug, Default)]
struct Config {
    /// `endpoint`: where the collector is; `/v1/traces` and `/v1/metrics` are appended.
    endpoint: Option<Endpoint>,
    /// `headers`: sent along with each request.
    headers: Option<Vec<(String, String)>>,
    /// `interval`: how often metrics are told: milliseconds, or `10.seconds`.
    interval: Option<Duration>,
    /// `temporality`: `cumulative` or `delta`.
    temporality: Option<Temporality>,
    /// `histograms`: `explicit` or `exponential`.
    histograms: Option<Histograms>,
    /// `sampleRate`: the share of the traces without a decision of their own that is sampled.
    sample_rate: f64,
    /// `traces`: whether spans are sent.
    traces: bool,
    /// `metrics`: whether metrics are.
    metrics: bool,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let config = read(&mut fields, cx);
    fields.finish(cx);
    Some(Box::new(config))
}

fn read(fields: &mut Fields<'_>, cx: &mut Cx) -> Config {
    Config {
        endpoint: fields.parsed("endpoint", cx, |url| Endpoint::parse(url, 4318)),
        headers: fields.with("headers", cx, headers),
        interval: fields.parsed("interval", cx, interval),
        temporality: fields.parsed("temporality", cx, settings::temporality),
        histograms: fields.parsed("histograms", cx, settings::histograms),
        // As OpenTelemetry's SDKs do: every trace, unless the caller decided.
        sample_rate: fields.with("sampleRate", cx, rate).unwrap_or(1.0),
        traces: fields.or("traces", true, cx),
        metrics: fields.or("metrics", true, cx),
    }
}

fn headers(node: &Node, cx: &mut Cx) -> Option<Vec<(String, String)>> {
    let Value::Map(entries) = &node.value else {
        cx.error(node, format!("expected a mapping of header names to values, got {}", node.describe()));
        return None;
    };
    let mut headers = Vec::new();
    for (key, value) in entries {
        let Some(text) = cx.at_key(&key.text, |cx| String::from_node(value, cx)) else { continue };
        match settings::header(&key.text, &text) {
            Ok(header) => headers.push(header),
            Err(why) => cx.at_key(&key.text, |cx| cx.error(value, why)),
        }
    }
    Some(headers)
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let settings = Settings::new(&self, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        build(*self, settings, cx).map_err(|why| BuildError { kind: ID, why })
    }
}

fn build(
    config: Config,
    settings: Result<Settings, String>,
    cx: &TelemeterContext,
) -> Result<Arc<dyn Telemeter>, String> {
    let settings = settings?;
    let scope = cx.tree.scope("otlp");
    let stats = Arc::new(LinkStats::new(&scope.scope("client")));
    let spans = config.traces.then(|| Spans::new(config.sample_rate, &cx.tree, "otlp"));
    let carrier = match &spans {
        None => None,
        Some(spans) => {
            let sender = Sender::new(&settings.traces, "otlp: traces", &stats)?;
            let resource = settings.resource.clone();
            Some(tokio::sync::Mutex::new(Traces { sender, resource, counts: spans.counts.clone() }))
        }
    };
    let push = match config.metrics {
        false => None,
        true => {
            let sender = Sender::new(&settings.metrics, "otlp: metrics", &stats)?;
            Some(tokio::sync::Mutex::new(Push::new(&cx.tree, &settings, sender)))
        }
    };
    Ok(Arc::new(Otlp { spans, carrier, push, limit: settings.traces.timeout }))
}

struct Otlp {
    spans: Option<Arc<Spans>>,
    /// Each is held by the one run that there is.
    carrier: Option<tokio::sync::Mutex<Traces>>,
    push: Option<tokio::sync::Mutex<Push>>,
    limit: Duration,
}

impl Telemeter for Otlp {
    fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        self.spans.as_ref().map(|spans| Arc::clone(spans) as _)
    }

    fn run(self: Arc<Self>, drain: Drain) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let spans = async {
                if let (Some(spans), Some(carrier)) = (&self.spans, &self.carrier) {
                    deliver(&spans.outbox, &mut *carrier.lock().await, &spans.counts, self.limit, &drain).await;
                }
            };
            let metrics = async {
                if let Some(push) = &self.push {
                    push.lock().await.run(&drain).await;
                }
            };
            tokio::join!(spans, metrics);
        })
    }
}

/// Posts requests of one signal.
struct Sender {
    link: Link,
    post: Post,
    gzip: bool,
    teller: Teller,
}

impl Sender {
    fn new(signal: &Signal, who: &'static str, stats: &Arc<LinkStats>) -> Result<Self, String> {
        let endpoint = &signal.endpoint;
        let mut headers = signal.headers.clone();
        if signal.gzip {
            headers.push(("Content-Encoding".to_owned(), "gzip".to_owned()));
        }
        let post = Post::new(&endpoint.path, &endpoint.authority(), "application/x-protobuf", &headers);
        let link = Link::new(endpoint.host.clone(), endpoint.port, endpoint.client_tls()?, Arc::clone(stats));
        let teller = Teller::new(who, link.shown());
        Ok(Self { link, post, gzip: signal.gzip, teller })
    }

    /// What became of a request, and how much of it was left out if it was taken. OTLP asks for another try after 429, 502,
    /// 503 and 504 only.
    async fn send(&mut self, body: &[u8], limit: Duration) -> (Sent, u64) {
        let request = if self.gzip { self.post.with(&gzipped(body)) } else { self.post.with(body) };
        let answer = self.link.exchange(&request, limit, answer).await;
        let left_out = answer.as_ref().map_or(0, |answer| left_out(&answer.body));
        let (sent, mut why) = Sent::of(answer);
        if left_out > 0 && why.is_none() {
            why = Some(format!("it left out {left_out}"));
        }
        self.teller.tell(why);
        (if matches!(sent, Sent::Refused) { Sent::Lost } else { sent }, left_out)
    }
}

/// Sends spans.
struct Traces {
    sender: Sender,
    resource: Resource,
    counts: Counts,
}

impl Carrier for Traces {
    async fn send(&mut self, batch: &[Arc<Trace>], limit: Duration) -> Sent {
        let spans: Vec<_> = batch.iter().flat_map(|trace| trace.spans()).collect();
        let mut body = Vec::with_capacity(spans.len() * 1024);
        push_traces(&mut body, &self.resource, spans.iter().filter(|span| span.id.is_valid()));
        let (sent, _) = self.sender.send(&body, limit).await;
        if !matches!(sent, Sent::Later(_)) {
            self.counts.invalid.add(spans.iter().filter(|span| !span.id.is_valid()).count() as u64);
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collector, Reaction, errors, trace, wait_until};
    use l5d_net::drain;
    use l5d_telemetry::MetricsTree;
    use tokio::time::Instant;

    /// The telemeter of a section, without the process's environment.
    pub(super) fn built(yaml: &str, tree: &MetricsTree, env: &[(&str, &str)]) -> Result<Arc<dyn Telemeter>, String> {
        let config = settings::tests::config(yaml);
        let settings = settings::tests::settings(&config, env);
        build(config, settings, &TelemeterContext { tree: tree.clone() })
    }

    fn said(status: &str) -> Reaction {
        Reaction::Say(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
    }

    fn count(tree: &MetricsTree, name: &str) -> u64 {
        let (scopes, last) = name.rsplit_once('/').unwrap();
        scopes.split('/').fold(tree.root(), |scope, name| scope.scope(name)).counter(last).value()
    }

    fn path(request: &[u8]) -> &str {
        std::str::from_utf8(request)
            .unwrap_or_else(|e| std::str::from_utf8(&request[..e.valid_up_to()]).unwrap())
            .split(' ')
            .nth(1)
            .unwrap()
    }

    fn body(request: &[u8]) -> &[u8] {
        &request[request.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4..]
    }

    #[tokio::test]
    async fn spans_and_metrics_go_where_the_collector_wants_them() {
        let traces = Collector::start_http(|_| said("200 OK")).await;
        let metrics = Collector::start_http(|_| said("200 OK")).await;
        let tree = MetricsTree::new();
        tree.scope("rt").scope("http").counter("x").add(7);
        let at = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");
        let (to_traces, to_metrics) = (at(traces.port(), "/t"), at(metrics.port(), "/m"));
        let otlp = built(
            "interval: 20\nheaders: {X-Mine: yes please}",
            &tree,
            &[
                ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &to_traces),
                ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", &to_metrics),
                ("OTEL_SERVICE_NAME", "edge"),
            ],
        )
        .unwrap();
        let tracer = otlp.tracer().unwrap();
        let (trigger, end) = drain();
        let task = tokio::spawn(otlp.run(end));
        for n in 1..=5 {
            tracer.record(&Arc::new(trace(n, 200)));
        }
        wait_until(|| count(&tree, "otlp/traces") == 5 && count(&tree, "otlp/metrics/requests") >= 2).await;
        trigger.drain(Instant::now() + Duration::from_secs(5)).await;
        task.await.unwrap();
        let (traces, metrics) = (traces.frames(), metrics.frames());
        assert_eq!((path(&traces[0]), path(&metrics[0])), ("/t", "/m"));
        for request in traces.iter().chain(&metrics) {
            let head = String::from_utf8_lossy(&request[..request.len() - body(request).len()]).into_owned();
            assert!(head.contains("\r\nContent-Type: application/x-protobuf\r\nX-Mine: yes please\r\n"), "{head}");
            let holds = |part: &[u8]| body(request).windows(part.len()).any(|window| window == part);
            assert!(holds(b"service.name") && holds(b"edge"));
        }
    }

    #[tokio::test]
    async fn only_what_otlp_names_is_tried_again() {
        for (status, again) in [
            ("429 x", true),
            ("502 x", true),
            ("503 x", true),
            ("504 x", true),
            ("400 x", false),
            ("500 x", false),
            ("404 x", false),
        ] {
            let mut calls = 0;
            let collector = Collector::start_http(move |_| {
                calls += 1;
                said(if calls == 1 { status } else { "200 OK" })
            })
            .await;
            let tree = MetricsTree::new();
            let yaml = format!("endpoint: http://127.0.0.1:{}\nmetrics: false", collector.port());
            let otlp = built(&yaml, &tree, &[]).unwrap();
            let tracer = otlp.tracer().unwrap();
            let (trigger, end) = drain();
            let task = tokio::spawn(otlp.run(end));
            (1..=8).for_each(|n| tracer.record(&Arc::new(trace(n, 200))));
            wait_until(|| count(&tree, "otlp/traces") + count(&tree, "otlp/dropped/lost") == 8).await;
            trigger.drain(Instant::now() + Duration::from_secs(5)).await;
            task.await.unwrap();
            assert_eq!(
                (collector.frames().len(), count(&tree, "otlp/traces")),
                if again { (2, 8) } else { (1, 0) },
                "{status}"
            );
            assert_eq!(path(&collector.frames()[0]), "/v1/traces");
        }
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert_eq!(
            errors(
                "kind: io.l5d.otlp\nendpoint: localhost\nheaders: {'a b': c, d: \"e\\nf\", Host: x}\ninterval: 0\n\
                 temporality: sometimes\nhistograms: none\nsampleRate: 2"
            ),
            [
                "2:11: endpoint: \"localhost\" is no URL of a collector: it must start with http:// or https://",
                "3:18: headers.a b: \"a b\" is no name of a header",
                "3:24: headers.d: the value of a header can't hold control characters",
                "3:38: headers.Host: l5d sets this header itself",
                "4:11: interval: the interval must be at least 1 ms",
                "5:14: temporality: unknown temporality \"sometimes\"; known: cumulative, delta",
                "6:13: histograms: unknown kind of histograms \"none\"; known: explicit, exponential",
                "7:13: sampleRate: a sample rate must be between 0.0 and 1.0",
            ]
        );
    }
}
