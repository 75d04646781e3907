//! A count that only grows. The numbers are in `cells.rs`.

use crate::cells::Slot;

/// A handle to a counter. Clones count together. It outlives its place in the tree: after a prune it counts for nobody.
#[derive(Clone)]
pub struct Counter {
    slot: Slot,
}

impl Counter {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot }
    }

    /// Counts one.
    #[inline]
    pub fn incr(&self) {
        if cfg!(l5d_uncounted) {
            return;
        }
        self.slot.add(1);
    }

    /// Counts `n`.
    #[inline]
    pub fn add(&self, n: u64) {
        if cfg!(l5d_uncounted) {
            return;
        }
        self.slot.add(n);
    }

    /// What was counted so far, by all threads. For tests and cold code: it asks every worker's cell.
    pub fn value(&self) -> u64 {
        self.slot.value()
    }
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Counter").field(&self.value()).finish()
    }
}
