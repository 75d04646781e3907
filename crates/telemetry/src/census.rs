//! How many series a tree holds, and what they take.
//!
//! The bytes are those of the tree, its names, its cells and its stats: what grows with series. They are added up when
//! somebody looks, from what the tree knows of its tables without going through them; what a stat's buckets take is as
//! of the last tick that found samples in it. Memory that the system has only promised, the untouched ends of the
//! workers' tables, is not counted, nor what an allocator needs for itself.

use crate::gauge::GaugeGuard;
use crate::tree::{MetricsTree, Shared};

/// Keeps the gauges under `telemetry/series` registered: `counters`, `gauges`, `stats` and `bytes`.
#[derive(Debug)]
pub struct Census {
    _gauges: Vec<GaugeGuard>,
}

/// How many metrics of each kind there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    pub(crate) counters: u32,
    pub(crate) gauges: u32,
    pub(crate) stats: u32,
}

impl Census {
    /// Of this tree, in its own `telemetry/series`.
    pub fn new(tree: &MetricsTree) -> Self {
        let scope = tree.scope("telemetry").scope("series");
        let gauge = |name: &str, read: fn(&Shared) -> u64| {
            // The tree has the function, which must not have the tree.
            let tree = std::sync::Arc::downgrade(tree.shared());
            scope.gauge(name, move || tree.upgrade().map_or(0.0, |tree| read(&tree) as f64))
        };
        let gauges = vec![
            gauge("counters", |tree| tree.shape().kinds().counters.into()),
            gauge("gauges", |tree| tree.shape().kinds().gauges.into()),
            gauge("stats", |tree| tree.shape().kinds().stats.into()),
            gauge("bytes", Shared::bytes),
        ];
        Self { _gauges: gauges }
    }
}
