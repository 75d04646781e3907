//! A number that is asked for when somebody looks.
//!
//! Several registrations of one name are summed, as Finagle's cumulative gauges are: each endpoint registers `available`
//! in its client's scope, and the page shows their sum. Unlike there, a registration ends when its guard is dropped and
//! not at some garbage collection.

use std::sync::{Arc, Weak};

use crate::tree::{Place, Shared};

/// What a gauge asks.
pub(crate) type Read = Arc<dyn Fn() -> f64 + Send + Sync>;

/// Asks a gauge's functions, with no lock held, and adds them up with its level. `None` when one of them panicked: then
/// nothing is known of the gauge, and it is left out and counted in
/// [`MetricsTree::panics`](crate::MetricsTree::panics).
pub(crate) fn ask<'a>(tree: &Shared, reads: impl IntoIterator<Item = &'a Read>, level: f64) -> Option<f64> {
    // Whatever a function has left half done is its owner's, who will see it again by calling it himself.
    let asked = std::panic::AssertUnwindSafe(|| reads.into_iter().fold(level, |sum, read| sum + read()));
    let value = std::panic::catch_unwind(asked);
    if value.is_err() {
        tree.panicked();
    }
    value.ok()
}

/// Keeps a gauge registered.
#[must_use = "the gauge is gone when its guard is dropped"]
pub struct GaugeGuard {
    /// `None` when the name was taken by another kind, or the scope pruned: there is nothing to take back.
    pub(crate) registered: Option<(Weak<Shared>, Place, u64)>,
}

impl std::fmt::Debug for GaugeGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GaugeGuard").field("registered", &self.registered.is_some()).finish()
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        if let Some((tree, place, id)) = &self.registered
            && let Some(tree) = tree.upgrade()
        {
            tree.remove_gauge(*place, *id);
        }
    }
}

/// The gauge of one node.
#[derive(Default)]
pub(crate) struct Gauge {
    pub(crate) reads: Vec<(u64, Read)>,
    /// The slot of a level of the same name, and who can hand it out again.
    pub(crate) level: Option<(u32, Weak<crate::level::LevelExport>)>,
}

impl Gauge {
    /// What the level of this name stands at; 0 without one.
    pub(crate) fn level_value(&self, cells: &crate::cells::Cells) -> f64 {
        self.level.as_ref().map_or(0.0, |(slot, _)| cells.sum(*slot) as i64 as f64)
    }
}
