//! `io.l5d.metrics`: how the modern face at `/metrics`, which is always there, is to be; and how many series there may be.
//!
//! Not a kind of Linkerd's. Without it the page has the default buckets and the limits are the defaults.

use std::sync::Arc;

use l5d_admin::{Handler, metrics_handler};
use l5d_config::{Cx, Fields, FromNode, Kind, Node};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::modern::Buckets;

use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.metrics",
    experimental: false,
    summary: "buckets of the page /metrics, and how many series there may be",
    example: "kind: io.l5d.metrics\nbuckets: [5, 10, 250]\nsizeBuckets: [1024, 1048576]\nmaxSeries: 100000\n\
              maxSeriesPerScope: 10000\n",
    parse,
};

/// How many metrics there may be unless the configuration says otherwise.
pub const MAX_SERIES: usize = 100_000;
/// How many services, or clients, a router may have in the metrics unless the configuration says otherwise.
pub const MAX_SERIES_PER_SCOPE: usize = 10_000;

#[derive(Debug)]
struct Config {
    /// `buckets`, `sizeBuckets`: bounds of classic buckets, in milliseconds and in bytes.
    buckets: Buckets,
    /// `maxSeries`: how many metrics there may be.
    max_series: usize,
    /// `maxSeriesPerScope`: how many services, or clients, one scope may have.
    per_scope: usize,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let mut buckets = Buckets::default();
    /// Takes over the bounds of one of the two keys.
    type With = fn(Buckets, &[f64]) -> Result<Buckets, String>;
    let with: [(&str, With); 2] = [("buckets", Buckets::with_millis), ("sizeBuckets", Buckets::with_bytes)];
    for (key, with) in with {
        let read = fields.with(key, cx, |node, cx| {
            let bounds = Vec::<f64>::from_node(node, cx)?;
            match with(buckets.clone(), &bounds) {
                Ok(buckets) => Some(buckets),
                Err(why) => {
                    cx.error(node, why);
                    None
                }
            }
        });
        buckets = read.unwrap_or(buckets);
    }
    let mut limit = |key, least: u64, or: usize, cx: &mut Cx| {
        let read = fields.with(key, cx, |node, cx| {
            let limit = u64::from_node(node, cx)?;
            if limit < least {
                cx.error(node, format!("the limit must be at least {least}"));
            }
            Some(usize::try_from(limit).unwrap_or(usize::MAX))
        });
        read.unwrap_or(or)
    };
    // Less has no room for what is there without any request.
    let max_series = limit("maxSeries", 1000, MAX_SERIES, cx);
    let per_scope = limit("maxSeriesPerScope", 1, MAX_SERIES_PER_SCOPE, cx);
    fields.finish(cx);
    Some(Box::new(Config { buckets, max_series, per_scope }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        cx.tree.limit_series(self.max_series, self.per_scope);
        Ok(Arc::new(Metrics { tree: cx.tree.clone(), buckets: Arc::new(self.buckets) }))
    }
}

struct Metrics {
    tree: MetricsTree,
    buckets: Arc<Buckets>,
}

impl Telemeter for Metrics {
    fn handlers(&self) -> Vec<Handler> {
        vec![metrics_handler(self.tree.clone(), Arc::clone(&self.buckets))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{get, telemeter};

    #[tokio::test]
    async fn buckets_and_limits_are_as_configured() {
        let tree = MetricsTree::new();
        let built = telemeter("kind: io.l5d.metrics\nbuckets: [250, 5]\nmaxSeries: 1000\nmaxSeriesPerScope: 2", &tree);
        let services = tree.scope("rt").scope("http").scope("service");
        for i in 0..5 {
            services.scope(&format!("svc/{i}")).stat("request_latency_ms").add(6);
        }
        let (content_type, page) = get(&*built, "/metrics", None).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        let line = "l5d_service_request_duration_seconds_bucket{router=\"http\",service=\"(overflow)\",le=\"0.25\"} 3";
        assert!(page.lines().any(|l| l == line), "{page}");
        assert!(!page.contains("le=\"0.01\""), "{page}");
        assert!(page.contains("l5d_telemetry_series_limit 1000\n"), "{page}");
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let yaml = "buckets: [5, -1]\nsizeBuckets: []\nmaxSeries: 10\nmaxSeriesPerScope: 0";
        let mut cx = Cx::new();
        parse(&l5d_config::read(yaml).unwrap(), &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        assert_eq!(
            errors,
            [
                "1:10: buckets: -1 is no bound: a bound is a number from 0 to 1000000000",
                "2:14: sizeBuckets: at least one bound is needed",
                "3:12: maxSeries: the limit must be at least 1000",
                "4:20: maxSeriesPerScope: the limit must be at least 1",
            ]
        );
    }
}
