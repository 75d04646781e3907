//! `io.l5d.influxdb`: the metrics in InfluxDB's line protocol on an admin page.
//!
//! Each line is tagged with the host that the scraper asked: its `Host` header as it is, or `none`. The format, escaping among
//! it, is the telemetry crate's.

use std::sync::Arc;

use http::header::HOST;
use l5d_admin::Handler;
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::influxdb;

use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.influxdb",
    experimental: false,
    summary: "serves the metrics in InfluxDB's line protocol on the admin port",
    example: "kind: io.l5d.influxdb\n",
    parse,
};

#[derive(Debug)]
struct Config;

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    fields.finish(cx);
    Some(Box::new(Config))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        Ok(Arc::new(InfluxDb { tree: cx.tree.clone() }))
    }
}

struct InfluxDb {
    tree: MetricsTree,
}

impl Telemeter for InfluxDb {
    fn handlers(&self) -> Vec<Handler> {
        let tree = self.tree.clone();
        let page = Handler::metrics("/admin/metrics/influxdb", "text/plain", move |request| {
            let host = request.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
            influxdb::page(&tree, &influxdb::Options { host: host.unwrap_or_else(|| "none".to_owned()) })
        });
        vec![page.in_nav("influxdb")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{get, telemeter};

    #[tokio::test]
    async fn lines_are_tagged_with_the_host_that_was_asked() {
        let tree = MetricsTree::new();
        tree.scope("rt").scope("http").counter("requests").add(7);
        let built = telemeter("kind: io.l5d.influxdb", &tree);
        for (sent, tag) in [(Some("localhost:9990"), "localhost:9990"), (None, "none")] {
            let (content_type, text) = get(&*built, "/admin/metrics/influxdb", sent).await;
            assert_eq!(content_type, "text/plain");
            assert_eq!(text, format!("rt,host={tag},rt=http requests=7\n"));
        }
    }
}
