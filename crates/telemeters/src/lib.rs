//! Telemeters: each wires an encoder of the telemetry crate to an admin path or a socket.
//!
//! A telemeter is one file here and its name in [`TELEMETERS`]. It sees the metrics tree and what is recorded of requests,
//! and nothing else of the process: a new router feature never touches one. `/admin/metrics.json` is no telemeter: it is
//! always there, see `l5d_admin`.

mod collector;
mod telemeter;
#[cfg(test)]
mod testing;

use l5d_config::{Cx, FromNode, Node, asks_for_experimental, parse_kind};

pub use metrics::{MAX_SERIES, MAX_SERIES_PER_SCOPE};
pub use telemeter::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

l5d_config::kinds! {
    /// Every telemeter that `telemetry:` may name, in the order of the reference.
    pub TELEMETERS: dyn TelemeterConfig =>
        prometheus, influxdb, statsd, tracelog, recent_requests, zipkin, zipkin_http, otlp, metrics,
}

/// Reads one entry of `telemetry:`; gives the kind's id with what it read.
pub fn parse(node: &Node, cx: &mut Cx) -> Option<(&'static str, Box<dyn TelemeterConfig>)> {
    let kind = node.get("kind").and_then(|kind| String::from_node(kind, &mut Cx::new()));
    let kind = kind.as_deref();
    if let Some(kind) = TELEMETERS.iter().find(|k| Some(k.id) == kind)
        && kind.experimental
        && !asks_for_experimental(node)
    {
        let what = format!(
            "the {} telemeter is experimental and must be explicitly enabled by setting the `experimental' parameter to \
             `true'",
            kind.id
        );
        cx.error(node, what);
        // Go on: all mistakes are told in one run.
    }
    parse_kind("telemeter", TELEMETERS, &[], node, cx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_telemetry::MetricsTree;
    use std::collections::BTreeSet;

    fn parsed(yaml: &str) -> Result<(&'static str, Box<dyn TelemeterConfig>), Vec<String>> {
        let node = l5d_config::read(yaml).unwrap();
        let mut cx = Cx::new();
        let parsed = parse(&node, &mut cx);
        let errors: Vec<String> = cx.finish().iter().map(ToString::to_string).collect();
        match parsed {
            Some(parsed) if errors.is_empty() => Ok(parsed),
            _ => Err(errors),
        }
    }

    fn errors(yaml: &str) -> Vec<String> {
        match parsed(yaml) {
            Ok((id, _)) => panic!("{id} was read"),
            Err(errors) => errors,
        }
    }

    #[test]
    fn every_kind_has_an_id_of_its_own_and_an_example_that_builds() {
        let ids: BTreeSet<&str> = TELEMETERS.iter().map(|kind| kind.id).collect();
        assert_eq!(ids.len(), TELEMETERS.len());
        for kind in TELEMETERS {
            let (id, config) = parsed(kind.example).unwrap_or_else(|errors| panic!("{}: {errors:?}", kind.id));
            assert_eq!(id, kind.id);
            config.build(&TelemeterContext { tree: MetricsTree::new() }).unwrap();
            assert!(!kind.summary.is_empty() && !kind.summary.ends_with('.'));
        }
    }

    #[test]
    fn an_unknown_key_is_refused_where_it_stands() {
        for kind in TELEMETERS {
            let errors = errors(&format!("{}\nprefixx: x\n", kind.example.trim_end()));
            let line = kind.example.trim_end().lines().count() + 1;
            assert_eq!(errors.len(), 1, "{}: {errors:?}", kind.id);
            assert!(errors[0].starts_with(&format!("{line}:1: unknown key `prefixx`; known: ")), "{errors:?}");
        }
    }

    #[test]
    fn an_unknown_kind_is_told_which_there_are() {
        let errors = errors("kind: io.l5d.adminMetricsExport");
        assert!(
            errors[0].starts_with("1:7: kind: unknown telemeter \"io.l5d.adminMetricsExport\"; known: "),
            "{errors:?}"
        );
    }

    #[test]
    fn recent_requests_needs_a_sample_rate_between_0_and_1() {
        for (yaml, at) in [
            ("kind: io.l5d.recentRequests", "1:1"),
            ("kind: io.l5d.recentRequests\nsampleRate: 1.1", "2:13"),
            ("kind: io.l5d.recentRequests\nsampleRate: -0.1", "2:13"),
            ("kind: io.l5d.recentRequests\nsampleRate: x", "2:13"),
        ] {
            assert_eq!(errors(yaml), [format!("{at}: sampleRate must be between 0.0 and 1.0")], "{yaml}");
        }
    }

    #[test]
    fn an_experimental_kind_asks_to_be_enabled_and_any_kind_may_say_so() {
        let text = "1:1: the io.l5d.statsd telemeter is experimental and must be explicitly enabled by setting the \
                    `experimental' parameter to `true'";
        assert_eq!(errors("kind: io.l5d.statsd"), [text]);
        assert_eq!(errors("kind: io.l5d.statsd\nexperimental: false"), [text]);
        assert_eq!(errors("kind: io.l5d.statsd\nport: x").len(), 2, "all mistakes are told in one run");
        assert!(parsed("kind: io.l5d.statsd\nexperimental: true").is_ok());
        assert!(parsed("kind: io.l5d.prometheus\nexperimental: true").is_ok());
        assert!(parsed("kind: io.l5d.prometheus\nexperimental: false").is_ok());
    }
}
