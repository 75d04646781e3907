//! The tick that ends every stat's window.

use std::sync::Arc;

use crate::sync::Ordering;
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
    /// the next. It looks at those stats only that something came to, and holds no lock from one to the next, so a long
    /// tick holds nobody up.
    pub fn tick(&self) {
        let _one_at_a_time = self.tree.ticking();
        let tick = self.tree.clock().load(Ordering::Acquire) + 1;
        let mut touched = std::mem::take(&mut *self.tree.touched_stats());
        self.tree.cells().take_touched(&mut touched);
        touched.sort_unstable();
        touched.dedup();
        for number in touched {
            let cells = self.tree.cells();
            let stat = cells.stat(number);
            if let Some(stat) = &stat {
                stat.tick(&cells, tick, self.tree.stat_bytes());
            }
            // The stat is dropped after the lock: when it was the last to hold it, that takes the lock for writing.
            drop(cells);
            drop(stat);
        }
        self.tree.clock().store(tick, Ordering::Release);
    }
}
