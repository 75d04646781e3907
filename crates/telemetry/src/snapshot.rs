//! The tick that ends every stat's window.

use std::sync::Arc;

use crate::tree::{MetricsTree, Shared};

/// Rolls the windows of a tree's stats. There should be one per tree: each tick takes what came since the last one.
///
/// It has no clock: the caller ticks it, first one interval after the start, as Linkerd does.
pub struct Snapshotter {
    tree: Arc<Shared>,
}

impl Snapshotter {
    /// A snapshotter for `tree`.
    pub fn new(tree: &MetricsTree) -> Self {
        Self { tree: tree.shared().clone() }
    }

    /// Ends the window of every stat and computes its summary. A sample that is added meanwhile is in this window or in
    /// the next. No lock is held from one stat to the next, so a long tick holds nobody up.
    pub fn tick(&self) {
        let stats = self.tree.cells().stats();
        for stat in stats {
            // The stat is dropped after the lock: when it was the last to hold it, that takes the lock for writing.
            let cells = self.tree.cells();
            stat.tick(&cells);
            drop(cells);
        }
    }
}
