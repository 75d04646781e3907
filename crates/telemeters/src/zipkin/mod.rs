//! `io.l5d.zipkin`: sends spans to Zipkin by Scribe, as Linkerd 1 does.
//!
//! What becomes of spans is the collector folder's; what they look like the telemetry crate's (`format::zipkin`). Here is
//! what this kind is configured with, its say on sampling, and the talk over Thrift.
//!
//! Its client is counted like any other, under `clnt/zipkin-tracer`: the first names that the telemetry page shows. What
//! became of the traces is under `zipkin`. Differences from 1.7.5, whose client reported nothing: docs/compatibility.md.

mod scribe;

use std::sync::Arc;
use std::time::Duration;

use l5d_admin::BoxFuture;
use l5d_config::{Cx, Fields, FromNode, Kind, Node, Port};
use l5d_net::Drain;
use l5d_telemetry::MetricsTree;
use l5d_telemetry::trace::{Sampler, Trace, TraceId, Tracer};

use self::scribe::Scribe;
use crate::collector::{Carrier, Counts, Link, LinkStats, Outbox, deliver};
use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.zipkin",
    experimental: false,
    summary: "sends spans to Zipkin by Scribe",
    example: "kind: io.l5d.zipkin\nhost: localhost\nport: 9410\nsampleRate: 0.001\n",
    parse,
};

/// How long a collector may take over a batch. Finagle gives it 100 ms, which a Zipkin at work needs for a hundred spans.
pub(crate) const LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
struct Config {
    /// `host`: where Zipkin is. An address, or a name that is looked up with each connection.
    host: String,
    /// `port`: where its Scribe collector listens.
    port: u16,
    /// `sampleRate`: the share of the traces without a decision of their own that is sampled.
    sample_rate: f64,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let host = fields.parsed("host", cx, |host| match host.is_empty() {
        false => Ok(host.to_owned()),
        true => Err("the collector's host name or address is needed"),
    });
    let port = fields.with("port", cx, |node, cx| {
        let Port(port) = Port::from_node(node, cx)?;
        if port == 0 {
            cx.error(node, "0 is no port to send to");
        }
        Some(port)
    });
    let sample_rate = fields.with("sampleRate", cx, rate);
    fields.finish(cx);
    Some(Box::new(Config {
        host: host.unwrap_or_else(|| "localhost".to_owned()),
        port: port.unwrap_or(9410),
        sample_rate: sample_rate.unwrap_or(0.001),
    }))
}

/// A share of all traces.
pub(crate) fn rate(node: &Node, cx: &mut Cx) -> Option<f64> {
    let rate = f64::from_node(node, cx)?;
    if !(0.0..=1.0).contains(&rate) {
        cx.error(node, "a sample rate must be between 0.0 and 1.0");
    }
    Some(rate)
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let spans = Spans::new(self.sample_rate, &cx.tree, "zipkin");
        let scribe = Scribe::new(Link::new(self.host, self.port, None, client(&cx.tree)), &spans.counts);
        Ok(Arc::new(Zipkin { spans, carrier: tokio::sync::Mutex::new(scribe) }))
    }
}

/// The metrics of the client, whichever protocol it speaks.
pub(crate) fn client(tree: &MetricsTree) -> Arc<LinkStats> {
    Arc::new(LinkStats::new(&tree.scope("clnt").scope("zipkin-tracer")))
}

/// A telemeter that votes on sampling, and sends what is sampled.
pub(crate) struct Zipkin<C> {
    pub(crate) spans: Arc<Spans>,
    /// Held by the one run that there is.
    pub(crate) carrier: tokio::sync::Mutex<C>,
}

impl<C: Carrier + Send + 'static> Telemeter for Zipkin<C> {
    fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        Some(Arc::clone(&self.spans) as _)
    }

    fn run(self: Arc<Self>, drain: Drain) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut carrier = self.carrier.lock().await;
            deliver(&self.spans.outbox, &mut *carrier, &self.spans.counts, LIMIT, &drain).await;
        })
    }
}

/// Spans on their way to a collector.
pub(crate) struct Spans {
    sampler: Sampler,
    pub(crate) outbox: Outbox,
    pub(crate) counts: Counts,
}

impl Spans {
    /// What becomes of them is counted under `scope`.
    pub(crate) fn new(sample_rate: f64, tree: &MetricsTree, scope: &str) -> Arc<Self> {
        let counts = Counts::new(&tree.scope(scope));
        let outbox = Outbox::new(crate::collector::ROOM, counts.overflow.clone());
        Arc::new(Self { sampler: Sampler::new(sample_rate), outbox, counts })
    }
}

impl Tracer for Spans {
    fn vote(&self, id: &TraceId) -> Option<bool> {
        Some(self.sampler.picks(id))
    }

    fn wants(&self, id: &TraceId) -> bool {
        self.sampler.wants(id)
    }

    fn record(&self, trace: &Arc<Trace>) {
        self.outbox.put(trace);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{built, errors};

    #[test]
    fn it_has_a_say_on_sampling() {
        let (all, none) = ("kind: io.l5d.zipkin\nsampleRate: 1.0", "kind: io.l5d.zipkin\nsampleRate: 0.0");
        let (all, none) = (built(all).tracer().unwrap(), built(none).tracer().unwrap());
        let id = TraceId::root();
        assert_eq!((all.vote(&id), none.vote(&id)), (Some(true), Some(false)));
        assert!(all.wants(&id) && !none.wants(&id) && none.wants(&id.with_sampled(true)));
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert_eq!(
            errors("kind: io.l5d.zipkin\nhost: ''\nport: 0\nsampleRate: 1.5"),
            [
                "2:7: host: the collector's host name or address is needed",
                "3:7: port: 0 is no port to send to",
                "4:13: sampleRate: a sample rate must be between 0.0 and 1.0",
            ]
        );
    }

    #[test]
    fn the_metrics_that_the_page_shows_are_there_from_the_start() {
        let tree = MetricsTree::new();
        let _zipkin = crate::testing::telemeter("kind: io.l5d.zipkin", &tree);
        let names = crate::testing::names(&tree, "clnt/zipkin-tracer/");
        let expected = [
            "available",
            "cancelled_connects",
            "closes",
            "codec_connection_preparation_latency_ms",
            "connect_latency_ms",
            "connection_duration",
            "connection_received_bytes",
            "connection_requests",
            "connection_sent_bytes",
            "connections",
            "connects",
            "dtab/size",
            "failed_connect_latency_ms",
            "failures",
            "pending",
            "pool_cached",
            "pool_num_too_many_waiters",
            "pool_num_waited",
            "pool_size",
            "pool_waiters",
            "received_bytes",
            "request_latency_ms",
            "requests",
            "sent_bytes",
            "service_creation/service_acquisition_latency_ms",
            "socket_unwritable_ms",
            "socket_writable_ms",
            "success",
        ];
        assert_eq!(names, expected);
    }
}
