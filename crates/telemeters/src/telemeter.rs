//! What a telemeter is to the rest of the process.

use std::sync::Arc;

use l5d_admin::{BoxFuture, Handler};
use l5d_net::Drain;
use l5d_telemetry::{MetricsTree, trace::Tracer};

/// A section of `telemetry:` that was read. Nothing has been opened yet.
pub trait TelemeterConfig: Send + std::fmt::Debug {
    /// Makes the telemeter. It opens nothing that another process could have closed: a collector that is away never stops
    /// the start.
    fn build(self: Box<Self>, cx: &TelemeterContext) -> Result<Arc<dyn Telemeter>, BuildError>;
}

/// What a telemeter is built with.
#[derive(Clone)]
pub struct TelemeterContext {
    /// What there is to tell.
    pub tree: MetricsTree,
}

/// Tells the metrics or the traces to somebody.
pub trait Telemeter: Send + Sync {
    /// Its admin pages.
    fn handlers(&self) -> Vec<Handler> {
        Vec::new()
    }

    /// Who takes what happens to requests, if it tells of that.
    fn tracer(&self) -> Option<Arc<dyn Tracer>> {
        None
    }

    /// Its work, if it does any of its own accord: runs until the drain starts and ends with the last of it done. The
    /// default has none.
    fn run(self: Arc<Self>, drain: Drain) -> BoxFuture<'static, ()> {
        drop(drain);
        Box::pin(std::future::ready(()))
    }
}

/// Why a telemeter can't be built.
#[derive(Debug, thiserror::Error)]
#[error("telemeter {kind}: {why}")]
pub struct BuildError {
    /// Its kind.
    pub kind: &'static str,
    /// What is wrong.
    pub why: String,
}
