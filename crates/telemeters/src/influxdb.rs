//! `io.l5d.influxdb`: the metrics in InfluxDB's line protocol on an admin page.
//!
//! Each line is tagged with the host that the scraper asked: its `Host` header as it is, or `none`. With `hostTag` it is this
//! machine's name instead, or a fixed text: a collector on the same machine asks for `localhost` everywhere. The format,
//! escaping among it, is the telemetry crate's.

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
    example: "kind: io.l5d.influxdb\nhostTag: request\nintegers: false\n",
    parse,
};

#[derive(Debug)]
struct Config {
    /// `hostTag`: what the tag `host` is.
    host: HostTag,
    /// `integers`: whether counts are integers.
    integers: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum HostTag {
    /// `request`: the request's Host header.
    Request,
    /// `machine`: the name of this machine.
    Machine,
    /// Anything else.
    Fixed(String),
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    let host = fields.parsed("hostTag", cx, |text| match text {
        "" => Err("the tag needs a value: request, machine or a text of your own"),
        "request" => Ok(HostTag::Request),
        "machine" => Ok(HostTag::Machine),
        text => Ok(HostTag::Fixed(text.to_owned())),
    });
    let integers = fields.or("integers", false, cx);
    fields.finish(cx);
    Some(Box::new(Config { host: host.unwrap_or(HostTag::Request), integers }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let host = match self.host {
            HostTag::Request => None,
            HostTag::Fixed(text) => Some(text),
            HostTag::Machine => {
                let name = machine().map_err(|why| BuildError { kind: KIND.id, why: format!("hostTag: {why}") })?;
                Some(name)
            }
        };
        Ok(Arc::new(InfluxDb { tree: cx.tree.clone(), host, integers: self.integers }))
    }
}

/// What the kernel calls this machine.
fn machine() -> Result<String, String> {
    const FILE: &str = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    Ok(name.trim().to_owned()).and_then(|name| if name.is_empty() { Err(format!("{FILE} is empty")) } else { Ok(name) })
}

struct InfluxDb {
    tree: MetricsTree,
    /// The tag, unless each request brings its own.
    host: Option<String>,
    integers: bool,
}

impl Telemeter for InfluxDb {
    fn handlers(&self) -> Vec<Handler> {
        let (tree, fixed, integers) = (self.tree.clone(), self.host.clone(), self.integers);
        let page = Handler::metrics("/admin/metrics/influxdb", "text/plain", move |request| {
            let host = fixed.clone().or_else(|| {
                request.headers.get(HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned())
            });
            influxdb::page(&tree, &influxdb::Options { host: host.unwrap_or_else(|| "none".to_owned()), integers })
        });
        vec![page.in_nav("influxdb").as_face("influxdb")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{get, telemeter};

    #[tokio::test]
    async fn the_host_may_be_the_machines_or_a_text_and_counts_integers() {
        let tree = MetricsTree::new();
        tree.root().counter("requests").add(7);
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        for (yaml, line) in [
            ("hostTag: request", "root,host=localhost:9990 requests=7\n".to_owned()),
            ("hostTag: machine", format!("root,host={} requests=7\n", machine.trim())),
            ("hostTag: 'rack 7'\nintegers: true", "root,host=rack\\ 7 requests=7i\n".to_owned()),
        ] {
            let built = telemeter(&format!("kind: io.l5d.influxdb\n{yaml}"), &tree);
            assert_eq!(get(&*built, "/admin/metrics/influxdb", Some("localhost:9990")).await.1, line);
        }
        let mut cx = Cx::new();
        parse(&l5d_config::read("hostTag: ''\nintegers: 5").unwrap(), &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert_eq!(errors[0], "1:10: hostTag: the tag needs a value: request, machine or a text of your own");
    }

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
