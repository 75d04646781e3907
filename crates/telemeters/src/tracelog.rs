//! `io.l5d.tracelog`: logs what is recorded of requests, a line each, on the logger `io.l5d.tracelog`.
//!
//! Contract: the text of a line, and that this telemeter never has an opinion on sampling. Different from 1.7.5: the lines
//! of a request come together, when it has ended. The log has a bounded queue of its own and counts what it drops.

use std::sync::Arc;

use l5d_config::{Cx, Fields, FromNode, Kind, LogLevel, Node};
use l5d_telemetry::trace::{Sampler, Trace, TraceId, Tracer};

use crate::{BuildError, Telemeter, TelemeterConfig, TelemeterContext};

pub(crate) const KIND: Kind<dyn TelemeterConfig> = Kind {
    id: "io.l5d.tracelog",
    experimental: false,
    summary: "logs what happens to requests",
    example: "kind: io.l5d.tracelog\nsampleRate: 0.2\nlevel: INFO\n",
    parse,
};

#[derive(Debug)]
struct Config {
    /// `sampleRate`: the share of the traces without a decision of their own that is logged.
    sample_rate: f64,
    /// `level`: of the lines.
    level: LogLevel,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TelemeterConfig>> {
    let mut fields = Fields::of(node, cx)?;
    fields.skip_kind();
    // What is beyond 0 and 1 is taken for the nearest of the two, as in Linkerd.
    let sample_rate = fields.with("sampleRate", cx, f64::from_node).unwrap_or(1.0);
    let level = fields.or("level", LogLevel::Info, cx);
    fields.finish(cx);
    Some(Box::new(Config { sample_rate, level }))
}

impl TelemeterConfig for Config {
    fn build(self: Box<Self>, _: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError> {
        let tracer = Tracelog { sampler: Sampler::new(self.sample_rate), level: self.level };
        Ok(Arc::new(Logs(Arc::new(tracer))))
    }
}

struct Logs(Arc<Tracelog>);

impl Telemeter for Logs {
    fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        Some(Arc::clone(&self.0) as _)
    }
}

#[derive(Debug)]
struct Tracelog {
    sampler: Sampler,
    level: LogLevel,
}

impl Tracer for Tracelog {
    fn vote(&self, _: &TraceId) -> Option<bool> {
        None
    }

    fn wants(&self, id: &TraceId) -> bool {
        self.level != LogLevel::Off && self.sampler.wants(id)
    }

    fn record(&self, trace: &Arc<Trace>) {
        for record in &trace.records {
            match self.level {
                LogLevel::Off => {}
                LogLevel::All | LogLevel::Trace => tracing::trace!(target: "io.l5d.tracelog", "{record}"),
                LogLevel::Debug => tracing::debug!(target: "io.l5d.tracelog", "{record}"),
                LogLevel::Info => tracing::info!(target: "io.l5d.tracelog", "{record}"),
                LogLevel::Warning => tracing::warn!(target: "io.l5d.tracelog", "{record}"),
                LogLevel::Error | LogLevel::Critical | LogLevel::Fatal => {
                    tracing::error!(target: "io.l5d.tracelog", "{record}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{built, trace};
    use std::fmt::Write;
    use std::sync::Mutex;
    use tracing::field::{Field, Visit};
    use tracing::{Event, Metadata, Subscriber, span};

    /// Keeps the lines of the logger.
    #[derive(Default)]
    struct Lines(Arc<Mutex<Vec<String>>>);

    impl Visit for Lines {
        fn record_debug(&mut self, _: &Field, value: &dyn std::fmt::Debug) {
            let mut line = String::new();
            write!(line, "{value:?}").unwrap();
            self.0.lock().unwrap().push(line);
        }
    }

    impl Subscriber for Lines {
        fn enabled(&self, metadata: &Metadata<'_>) -> bool {
            metadata.target() == "io.l5d.tracelog" && *metadata.level() == tracing::Level::DEBUG
        }
        fn event(&self, event: &Event<'_>) {
            event.record(&mut Self(Arc::clone(&self.0)));
        }
        fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1)
        }
        fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
        fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
        fn enter(&self, _: &span::Id) {}
        fn exit(&self, _: &span::Id) {}
    }

    #[test]
    fn each_record_is_a_line_at_the_level_asked_for() {
        let tracer = built("kind: io.l5d.tracelog\nlevel: DEBUG").tracer().unwrap();
        let lines = Lines::default();
        let kept = Arc::clone(&lines.0);
        let trace = Arc::new(trace(1, 200));
        tracing::subscriber::with_default(lines, || tracer.record(&trace));
        let lines = kept.lock().unwrap();
        assert_eq!(lines.len(), trace.records.len());
        assert_eq!(lines[0], "0101 00:00:01.000 0000000000000001.0000000000000001<:0000000000000001] WireRecv");
    }

    #[test]
    fn it_follows_a_decision_and_makes_none() {
        let none = built("kind: io.l5d.tracelog\nsampleRate: -3").tracer().unwrap();
        let all = built("kind: io.l5d.tracelog").tracer().unwrap();
        let id = TraceId::root();
        assert_eq!((none.vote(&id), all.vote(&id)), (None, None));
        assert_eq!((none.wants(&id), all.wants(&id)), (false, true));
        assert!(none.wants(&id.with_sampled(true)) && !all.wants(&id.with_sampled(false)));
    }
}
