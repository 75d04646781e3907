//! A gauge that is moved up and down where things begin and end, instead of being asked.
//!
//! What one worker raised another may lower: the cells of the workers add up, each alone means nothing.

use std::sync::{Arc, Weak};

use crate::cells::Slot;
use crate::tree::{Place, Shared};

/// A handle to a level. Clones move it together; it is exported while one of them lives.
#[derive(Clone)]
pub struct Level {
    slot: Slot,
    _exported: Arc<LevelExport>,
}

/// What keeps a level in the tree; the last handle's drop takes it out.
pub(crate) struct LevelExport {
    pub(crate) slot: Slot,
    /// Where it is exported; `None` when the name was taken by another kind.
    pub(crate) place: Option<(Weak<Shared>, Place)>,
}

impl Level {
    pub(crate) fn new(export: Arc<LevelExport>) -> Self {
        Self { slot: export.slot.clone(), _exported: export }
    }

    /// Raises the level by one.
    #[inline]
    pub fn incr(&self) {
        if cfg!(l5d_uncounted) {
            return;
        }
        self.slot.add(1);
    }

    /// Lowers the level by one.
    #[inline]
    pub fn decr(&self) {
        if cfg!(l5d_uncounted) {
            return;
        }
        self.slot.add(u64::MAX);
    }

    /// Moves the level by `n`, down when negative.
    #[inline]
    pub fn add(&self, n: i64) {
        if cfg!(l5d_uncounted) {
            return;
        }
        self.slot.add(n as u64);
    }

    /// The level, over all threads. For tests and cold code: it asks every worker's cell.
    pub fn value(&self) -> i64 {
        self.slot.value() as i64
    }
}

impl std::fmt::Debug for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Level").field(&self.value()).finish()
    }
}

impl Drop for LevelExport {
    fn drop(&mut self) {
        if let Some((tree, place)) = &self.place
            && let Some(tree) = tree.upgrade()
        {
            tree.remove_level(*place, self.slot.number());
        }
    }
}
