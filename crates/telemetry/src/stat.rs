//! A distribution, and its two readings.
//!
//! The *window* is what came between the last two ticks: its [`Summary`] is computed when the window rolls, not when
//! somebody looks, and is what the faces of Linkerd 1 show. The *total* is everything since the stat was made, and never
//! decreases. Both come from the same buckets (`histogram.rs`), so neither loses or doubles a sample.

use std::sync::{Arc, OnceLock, Weak};

use crate::buckets::{Summary, range};
use crate::cells::{self, Cells};
use crate::histogram::{Histogram, Seen};
use crate::lane;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Mutex, MutexGuard, Ordering, lock};
use crate::table::Entry;
use crate::tree::Shared;

/// A handle to a distribution. Clones write to the same one.
#[derive(Clone)]
pub struct Stat {
    cell: Arc<StatCell>,
    /// Its number, as `lane.rs` wants it.
    key: usize,
}

/// A stat as a visitor sees it.
pub struct StatRef<'a> {
    cell: &'a StatCell,
}

/// One of a stat's buckets: how many samples from `from` to below `below` came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// The smallest value counted here.
    pub from: u64,
    /// The smallest value too large to be counted here.
    pub below: u64,
    /// The samples.
    pub count: u64,
}

pub(crate) struct StatCell {
    tree: Weak<Shared>,
    number: u32,
    key: usize,
    serial: u64,
    /// How many ticks the tree has had. The window of a stat that a tick passed over, because nothing came, is empty.
    clock: Arc<AtomicU64>,
    /// What it stood at when the stat was made.
    born: u64,
    /// What threads that are no workers recorded, and what finished workers left.
    base: OnceLock<Box<Histogram>>,
    /// Whether the base gained samples that no tick has looked at.
    base_touched: AtomicBool,
    /// How many samples came to the base, going round: counted after each, as workers do.
    base_samples: AtomicU32,
    roll: Mutex<Roll>,
}

/// Written by a tick, read by faces.
#[derive(Default)]
struct Roll {
    /// All samples up to the last tick. Absent as long as there was none: an idle stat has no bucket memory.
    seen: Option<Box<Seen>>,
    window: Summary,
    /// What the buckets took at the last tick that looked.
    bytes: u64,
    /// Which tick ended the window; 0 before the first.
    tick: u64,
}

impl Stat {
    pub(crate) fn new(cell: Arc<StatCell>) -> Self {
        let key = cell.key;
        Self { cell, key }
    }

    /// Adds a sample, in the stat's own unit. What is above 2^31 - 1 counts as that.
    #[inline]
    pub fn add(&self, value: u64) {
        if cfg!(l5d_uncounted) {
            return;
        }
        if !lane::sample(self.key, value) {
            self.add_slowly(value);
        }
    }

    /// This thread hasn't met the stat with such a value, or is no worker of its tree.
    #[cold]
    #[inline(never)]
    fn add_slowly(&self, value: u64) {
        // As in `Slot::add_slowly`.
        std::hint::black_box(self);
        if !cells::meet(&self.cell, self.key, value) {
            self.cell.add_shared(value);
        }
    }
}

impl Stat {
    /// Adds a sample of a request that is sampled for tracing, and remembers its trace as an exemplar.
    pub fn add_traced(&self, value: u64, trace: u128) {
        self.add(value);
        if let Some(tree) = self.cell.tree.upgrade() {
            tree.add_exemplar(self.cell.serial, value, trace);
        }
    }
}

impl std::fmt::Debug for Stat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stat").field("window", &self.cell.window()).finish_non_exhaustive()
    }
}

impl<'a> StatRef<'a> {
    pub(crate) fn new(cell: &'a StatCell) -> Self {
        Self { cell }
    }

    /// The last window; `None` before the first tick after the stat was made.
    pub fn summary(&self) -> Option<Summary> {
        self.cell.window()
    }

    /// How many samples came since the stat was made, up to the last tick.
    pub fn count(&self) -> u64 {
        self.cell.roll().seen.as_ref().map_or(0, |s| s.buckets().map(|(_, n)| n).sum())
    }

    /// What the samples since the stat was made add up to, up to the last tick.
    pub fn sum(&self) -> u64 {
        self.cell.roll().seen.as_ref().map_or(0, |s| s.sum())
    }

    /// The non-empty buckets of all samples since the stat was made, up to the last tick, in ascending order. Their
    /// counts add up to what [`count`](Self::count) gives for the same tick.
    pub fn buckets(&self) -> Vec<Bucket> {
        let roll = self.cell.roll();
        let buckets = roll.seen.iter().flat_map(|s| s.buckets());
        let shown = buckets.map(|(index, count)| {
            let (from, below) = range(index);
            Bucket { from, below, count }
        });
        shown.collect()
    }
}

impl StatCell {
    pub(crate) fn new(tree: &Arc<Shared>, number: u32, serial: u64) -> Self {
        let clock = tree.clock().clone();
        Self {
            tree: Arc::downgrade(tree),
            number,
            key: tree.serial().key::<Entry>(number),
            serial,
            born: clock.load(Ordering::Acquire),
            clock,
            base: OnceLock::new(),
            base_touched: AtomicBool::new(false),
            base_samples: AtomicU32::new(0),
            roll: Mutex::default(),
        }
    }

    pub(crate) fn tree(&self) -> &Weak<Shared> {
        &self.tree
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    pub(crate) fn base(&self) -> Option<&Histogram> {
        self.base.get().map(|b| &**b)
    }

    pub(crate) fn base_or_new(&self) -> &Histogram {
        self.base.get_or_init(|| Box::new(Histogram::new()))
    }

    pub(crate) fn add_shared(&self, value: u64) {
        self.base_or_new().record_shared(value);
        self.add_base_samples(1);
        self.touch_base();
    }

    /// How many samples came to the base, going round.
    pub(crate) fn base_samples(&self) -> u32 {
        // Acquire: sees the samples that were counted.
        self.base_samples.load(Ordering::Acquire)
    }

    /// Tells that so many samples more are in the base. After they are.
    pub(crate) fn add_base_samples(&self, n: u32) {
        self.base_samples.fetch_add(n, Ordering::Release);
    }

    /// Has the next tick look at the base. After the samples: the tick takes the mark back before it reads.
    pub(crate) fn touch_base(&self) {
        if !self.base_touched.swap(true, Ordering::AcqRel)
            && let Some(tree) = self.tree.upgrade()
        {
            tree.touched_stats().push(self.number);
        }
    }

    /// What the last window came to; `None` before the first tick.
    pub(crate) fn window(&self) -> Option<Summary> {
        let roll = self.roll();
        let clock = self.clock.load(Ordering::Acquire);
        if roll.tick > 0 && roll.tick >= clock {
            return Some(roll.window);
        }
        (self.born < clock).then(Summary::default)
    }

    /// All samples up to now: every bucket that has any in ascending order, and their sum. Neither ever decreases.
    pub(crate) fn total(&self, cells: &Cells) -> (Vec<(usize, u64)>, u64) {
        let roll = self.roll();
        let histograms = cells.histograms(self);
        match &roll.seen {
            Some(seen) => seen.total(histograms),
            None => Seen::default().total(histograms),
        }
    }

    /// Ends the window and begins the next. Changes `bytes` by what its buckets take more than before.
    pub(crate) fn tick(&self, cells: &Cells, tick: u64, bytes: &AtomicU64) {
        let mut roll = self.roll();
        // Before anything is read: who marks it from now on is in the next tick's list.
        self.base_touched.swap(false, Ordering::AcqRel);
        let histograms = cells.histograms(self);
        let mut gained = Vec::new();
        let seen = roll.seen.get_or_insert_default();
        let sum = seen.advance(histograms.clone(), |index, n| gained.push((index, n)));
        let takes = (seen.bytes() + histograms.map(Histogram::bytes).sum::<usize>()) as u64;
        bytes.fetch_add(takes.wrapping_sub(std::mem::replace(&mut roll.bytes, takes)), Ordering::Relaxed);
        roll.window = Summary::of(gained.iter().copied(), sum);
        roll.tick = tick;
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        lock(&self.roll)
    }
}

impl Drop for StatCell {
    fn drop(&mut self) {
        if let Some(tree) = self.tree.upgrade() {
            tree.return_stat(self.number);
            tree.stat_bytes().fetch_sub(self.roll().bytes, Ordering::Relaxed);
            tree.forget_exemplars(self.serial);
        }
    }
}
