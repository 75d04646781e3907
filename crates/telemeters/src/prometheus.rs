//! `io.l5d.prometheus`: the metrics in Prometheus' text format on an admin page.
//!
//! The format is the telemetry crate's, the names are Linkerd 1's. The content type names the version of the format, which
//! Prometheus 3 asks for and older ones ignore; 1.7.5 said `text/plain` alone.

use std::sync::Arc;

use l5d_admin::Handler;
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::prometheus;

use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.prometheus",
    experimental: false,
    summary: "serves the metrics in Prometheus' text format on the admin port",
    example: "kind: io.l5d.prometheus\npath: /admin/metrics/prometheus\nprefix: linkerd_\ntypes: false\n",
    parse,
};

#[derive(Debug)]
struct Config {
    /// `path`: where the page is.
    path: String,
    /// `prefix`: put before each name as it is.
    prefix: String,
    /// `types`: whether samples are sorted into families with HELP and TYPE.
    types: bool,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let path = fields.parsed("path", cx, |path| match path.starts_with('/') {
        true => Ok(path.to_owned()),
        false => Err(format!("\"{path}\" is no path on the admin server: it must start with `/`")),
    });
    let prefix = fields.or("prefix", String::new(), cx);
    let types = fields.or("types", false, cx);
    fields.finish(cx);
    Some(Box::new(Config { path: path.unwrap_or_else(|| "/admin/metrics/prometheus".to_owned()), prefix, types }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        Ok(Arc::new(Prometheus { config: *self, tree: cx.tree.clone() }))
    }
}

struct Prometheus {
    config: Config,
    tree: MetricsTree,
}

impl Telemeter for Prometheus {
    fn handlers(&self) -> Vec<Handler> {
        let (tree, prefix, types) = (self.tree.clone(), self.config.prefix.clone(), self.config.types);
        let page = Handler::metrics(&self.config.path, prometheus::CONTENT_TYPE, move |_| {
            prometheus::page(&tree, &prometheus::Options { prefix: prefix.clone(), types })
        });
        vec![page.in_nav("prometheus").as_face("prometheus")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{get, telemeter};

    #[tokio::test]
    async fn the_page_is_where_it_was_asked_for_with_the_prefix_in_front() {
        let tree = MetricsTree::new();
        tree.scope("rt").scope("http").counter("requests").add(7);
        let built = telemeter("kind: io.l5d.prometheus", &tree);
        let (content_type, text) = get(&*built, "/admin/metrics/prometheus", None).await;
        assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(text, "rt:requests{rt=\"http\"} 7\n");
        let built = telemeter("kind: io.l5d.prometheus\npath: /metrics\nprefix: 'l5d_'", &tree);
        assert_eq!(get(&*built, "/metrics", None).await.1, "l5d_rt:requests{rt=\"http\"} 7\n");
        let built = telemeter("kind: io.l5d.prometheus\ntypes: true", &tree);
        let page = get(&*built, "/admin/metrics/prometheus", None).await.1;
        assert!(page.ends_with("# TYPE rt:requests counter\nrt:requests{rt=\"http\"} 7\n"), "{page}");
    }

    #[test]
    fn a_path_starts_with_a_slash() {
        let node = l5d_config::read("path: metrics").unwrap();
        let mut cx = Cx::new();
        parse(&node, &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        assert_eq!(errors, ["1:7: path: \"metrics\" is no path on the admin server: it must start with `/`"]);
    }
}
