//! `io.zipkin.http`: sends spans to Zipkin over HTTP, JSON v2. The kind of the linkerd-zipkin plug-in, with its keys.
//!
//! What it shares with `io.l5d.zipkin` is there: the say on sampling, the client's metrics. The plug-in sends Thrift to
//! `/api/v1/spans` and compresses it if asked to; here it is JSON to `/api/v2/spans`, compressed unless told not to.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::{Compression, write::GzEncoder};
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::format::zipkin::{is_acceptable, push_spans};
use l5d_telemetry::trace::Trace;

use crate::collector::{Carrier, Counts, Endpoint, Link, Post, Sent, Teller, answer};
use crate::zipkin::{Spans, Zipkin, client, rate};
use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.zipkin.http",
    experimental: false,
    summary: "sends spans to Zipkin over HTTP",
    example: "kind: io.zipkin.http\nhost: localhost:9411\ninitialSampleRate: 0.02\n",
    parse,
};

#[derive(Debug)]
struct Config {
    /// `host`: where Zipkin is, with its port.
    endpoint: Endpoint,
    /// `hostHeader`: how it is called in the request.
    host_header: String,
    /// `compressionEnabled`: whether spans are compressed.
    compression: bool,
    /// `initialSampleRate`: the share of the traces without a decision of their own that is sampled.
    sample_rate: f64,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let endpoint = |host: &str| Endpoint::parse(&format!("http://{host}/api/v2/spans"), 9411);
    let given = fields.parsed("host", cx, |host| match host.contains('/') {
        false => endpoint(host).map_err(|_| format!("\"{host}\" is no host with a port, like localhost:9411")),
        true => Err(format!("\"{host}\" is no host with a port, like localhost:9411")),
    });
    let host_header = fields.parsed("hostHeader", cx, |host| match host.bytes().all(|byte| byte.is_ascii_graphic()) {
        true if !host.is_empty() => Ok(host.to_owned()),
        _ => Err(format!("\"{host}\" is no host")),
    });
    let compression = fields.or("compressionEnabled", true, cx);
    let sample_rate = fields.with("initialSampleRate", cx, rate);
    fields.finish(cx);
    Some(Box::new(Config {
        endpoint: given.or_else(|| endpoint("localhost").ok())?,
        host_header: host_header.unwrap_or_else(|| "zipkin".to_owned()),
        compression,
        sample_rate: sample_rate.unwrap_or(0.001),
    }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let spans = Spans::new(self.sample_rate, &cx.tree, "zipkin");
        let Endpoint { host, port, path, .. } = self.endpoint;
        let gzip = [("Content-Encoding".to_owned(), "gzip".to_owned())];
        let headers = if self.compression { &gzip[..] } else { &[] };
        let post = Post::new(&path, &self.host_header, "application/json", headers);
        let link = Link::new(host, port, None, client(&cx.tree));
        let teller = Teller::new("zipkin", link.shown());
        let carrier = Http { link, post, compression: self.compression, counts: spans.counts.clone(), teller };
        Ok(Arc::new(Zipkin { spans, carrier: tokio::sync::Mutex::new(carrier) }))
    }
}

/// Sends spans over HTTP.
struct Http {
    link: Link,
    post: Post,
    compression: bool,
    counts: Counts,
    teller: Teller,
}

impl Carrier for Http {
    async fn send(&mut self, batch: &[Arc<Trace>], limit: Duration) -> Sent {
        let spans: Vec<_> = batch.iter().flat_map(|trace| trace.spans()).collect();
        let mut json = Vec::with_capacity(spans.len() * 1024);
        push_spans(&mut json, spans.iter().filter(|span| is_acceptable(span)));
        let request = self.post.with(&if self.compression { gzipped(&json) } else { json });
        let answer = self.link.exchange(&request, limit, answer).await;
        let (sent, why) = Sent::of(answer);
        if !matches!(sent, Sent::Later(_) | Sent::Refused) {
            self.counts.invalid.add(spans.iter().filter(|span| !is_acceptable(span)).count() as u64);
        }
        self.teller.tell(why);
        sent
    }
}

/// The fast level: spans are repetitive.
pub(crate) fn gzipped(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Collector, Reaction, errors, telemeter, trace, wait_until};
    use flate2::read::GzDecoder;
    use l5d_net::drain;
    use l5d_telemetry::MetricsTree;
    use std::io::Read;
    use tokio::time::Instant;

    fn said(status: &str, more: &str) -> Reaction {
        Reaction::Say(format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\n\r\n").into_bytes())
    }

    /// Sends so many traces to a collector that reacts like this, waits until the count is reached, ends.
    async fn run(
        traces: u64,
        more: &str,
        react: impl FnMut(&[u8]) -> Reaction + Send + 'static,
        done: (&str, u64),
    ) -> (Collector, MetricsTree) {
        let collector = Collector::start_http(react).await;
        let tree = MetricsTree::new();
        let yaml =
            format!("kind: io.zipkin.http\nhost: 127.0.0.1:{}\ninitialSampleRate: 1.0\n{more}", collector.port());
        let zipkin = telemeter(&yaml, &tree);
        let tracer = zipkin.tracer().unwrap();
        let (trigger, end) = drain();
        let task = tokio::spawn(zipkin.run(end));
        for n in 1..=traces {
            tracer.record(&Arc::new(trace(n, 200)));
        }
        wait_until(|| count(&tree, done.0) >= done.1).await;
        trigger.drain(Instant::now() + Duration::from_secs(5)).await;
        task.await.unwrap();
        (collector, tree)
    }

    fn count(tree: &MetricsTree, name: &str) -> u64 {
        let names: Vec<&str> = name.split('/').collect();
        let (last, scopes) = names.split_last().unwrap();
        scopes.iter().fold(tree.scope("zipkin"), |scope, name| scope.scope(name)).counter(last).value()
    }

    #[tokio::test]
    async fn spans_are_posted_as_compressed_json() {
        let (collector, tree) = run(3, "", |_| said("202 Accepted", ""), ("traces", 3)).await;
        let frames = collector.frames();
        let request = &frames[0];
        let at = request.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&request[..at]).unwrap();
        assert!(head.starts_with("POST /api/v2/spans HTTP/1.1\r\nHost: zipkin\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\n"), "{head}");
        let mut json = String::new();
        GzDecoder::new(&request[at + 4..]).read_to_string(&mut json).unwrap();
        let spans: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(spans.as_array().unwrap().len(), 6);
        assert_eq!(tree.scope("clnt").scope("zipkin-tracer").counter("success").value(), 1);
    }

    #[tokio::test]
    async fn without_compression_it_is_plain() {
        let more = "compressionEnabled: false\nhostHeader: z.test:1";
        let (collector, _) = run(1, more, |_| said("202 Accepted", ""), ("traces", 1)).await;
        let text = String::from_utf8(collector.frames()[0].clone()).unwrap();
        assert!(text.contains("\r\nHost: z.test:1\r\n") && !text.contains("gzip"), "{text}");
        assert!(text.contains("\r\n\r\n[{\"traceId\":\"0000000000000001\""), "{text}");
    }

    #[tokio::test]
    async fn a_busy_collector_is_asked_again_and_a_bad_batch_is_searched() {
        let mut calls = 0;
        let busy = move |_: &[u8]| {
            calls += 1;
            if calls == 1 { said("503 Busy", "Retry-After: 0\r\n") } else { said("202 Accepted", "") }
        };
        let (_, tree) = run(4, "", busy, ("traces", 4)).await;
        assert_eq!(count(&tree, "retries"), 1);
        let picky = |request: &[u8]| match request.windows(16).any(|window| window == b"0000000000000002") {
            true => said("400 Bad", ""),
            false => said("202 Accepted", ""),
        };
        let (_, tree) = run(4, "compressionEnabled: false", picky, ("dropped/refused", 1)).await;
        assert_eq!((count(&tree, "traces"), count(&tree, "dropped/refused")), (3, 1));
        let (_, tree) = run(4, "", |_| said("500 Oops", ""), ("dropped/lost", 4)).await;
        assert_eq!(count(&tree, "traces"), 0);
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        for host in ["''", "a:b", "http://a", "a/b", "a b"] {
            let errors = errors(&format!("kind: io.zipkin.http\nhost: {host}"));
            assert!(errors[0].ends_with(" is no host with a port, like localhost:9411"), "{errors:?}");
        }
        assert_eq!(errors("kind: io.zipkin.http\nhostHeader: 'a b'"), ["2:13: hostHeader: \"a b\" is no host"]);
        assert_eq!(errors("kind: io.zipkin.http\ninitialSampleRate: 2").len(), 1);
    }
}
