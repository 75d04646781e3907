//! The memory of one worker: a cell for each counter, a histogram for each stat it has met. Its thread writes it
//! through pointers that it keeps, without a lock; all others read it under the lock of `cells.rs`.
//!
//! A table is fixed in size. A larger one takes its place under that lock for writing, made by the thread that owns it:
//! so neither reader nor writer can be in it then. Fresh memory comes as zeros from the system, so what is not used yet
//! takes no room.

use crate::histogram::Histogram;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// The cells of one worker, by the counters' numbers.
pub(crate) struct CellTable {
    items: Box<[AtomicU64]>,
}

/// The histograms of one worker, by the stats' numbers. It owns them.
pub(crate) struct StatTable {
    items: Box<[Entry]>,
}

/// A worker's part of one stat.
#[derive(Default)]
#[repr(C)]
pub(crate) struct Entry {
    /// Null until the first sample. Freed by whoever knows that the stat has no handle left, or the table.
    pub(crate) histogram: AtomicPtr<Histogram>,
    /// How many samples came, going round: counted by the worker after each.
    pub(crate) samples: AtomicU32,
    /// What that was when a tick looked here last: written by ticks, one at a time. So each of the two has one writer,
    /// and a sample that comes while a tick looks makes a difference for the next one.
    pub(crate) looked: AtomicU32,
}

/// Items on either side that are not used, so that no other thread's memory shares a line with what is written here.
const MARGIN: usize = 128 / size_of::<u64>();

/// Bytes of the first table: room for more counters than a proxy has by default. Of zeros that are not touched the
/// system gives an address and no memory; a table that has to grow leaves the old one behind to the thread's allocator.
const LEAST: usize = if cfg!(miri) { 16 << 10 } else { 2 << 20 };

impl CellTable {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { items: zeroed(0) }
    }

    /// A larger one with the same numbers, in which `slot` has its cell.
    pub(crate) fn with(&self, slot: usize) -> Self {
        let larger = Self { items: zeroed(room_for::<AtomicU64>(slot)) };
        for (new, old) in larger.cells().iter().zip(self.cells()) {
            new.store(old.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        larger
    }

    #[inline]
    pub(crate) fn cells(&self) -> &[AtomicU64] {
        self.items.get(MARGIN..self.items.len().saturating_sub(MARGIN)).unwrap_or_default()
    }
}

impl StatTable {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { items: zeroed(0) }
    }

    /// A larger one in which stat `number` has its entry. It takes the histograms over.
    pub(crate) fn with(&self, number: usize) -> Self {
        let larger = Self { items: zeroed(room_for::<Entry>(number)) };
        for (new, old) in larger.entries().iter().zip(self.entries()) {
            new.histogram.store(old.histogram.swap(std::ptr::null_mut(), Ordering::Relaxed), Ordering::Relaxed);
            new.samples.store(old.samples.load(Ordering::Relaxed), Ordering::Relaxed);
            new.looked.store(old.looked.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        larger
    }

    #[inline]
    pub(crate) fn entries(&self) -> &[Entry] {
        self.items.get(MARGIN..self.items.len().saturating_sub(MARGIN)).unwrap_or_default()
    }
}

impl Entry {
    /// The worker's buckets, when it has any, for a reader that holds the lock.
    pub(crate) fn histogram(&self) -> Option<&Histogram> {
        // Acquire: sees what the worker wrote when it made the histogram.
        let histogram = self.histogram.load(Ordering::Acquire);
        // SAFETY: the pointer is null or came from `Box::into_raw` in `set`. It is freed by `clear`, whose caller holds
        // the lock for writing or has the table alone, while the caller of this holds it for reading; or when the table
        // is dropped, which `&self` rules out. Histograms are written through shared references only.
        unsafe { histogram.as_ref() }
    }

    /// Whether samples came since a tick looked here. What came can be read then.
    pub(crate) fn is_touched(&self) -> bool {
        // Acquire: sees the samples that were counted.
        self.samples.load(Ordering::Acquire) != self.looked.load(Ordering::Relaxed)
    }

    /// The same, for a tick: the next one is told of what comes from now on.
    pub(crate) fn take_touched(&self) -> bool {
        let samples = self.samples.load(Ordering::Acquire);
        let touched = samples != self.looked.load(Ordering::Relaxed);
        if touched {
            self.looked.store(samples, Ordering::Relaxed);
        }
        touched
    }

    /// Puts a first histogram there. Only by the worker, only when there is none.
    pub(crate) fn set(&self, histogram: Histogram) {
        debug_assert!(self.histogram.load(Ordering::Relaxed).is_null());
        self.histogram.store(Box::into_raw(Box::new(histogram)), Ordering::Release);
    }

    /// Takes the histogram out. Nobody may be using it: neither its worker, as no handle of the stat is left or its
    /// thread is the caller's, nor a reader.
    pub(crate) fn clear(&self) -> Option<Box<Histogram>> {
        let histogram = self.histogram.swap(std::ptr::null_mut(), Ordering::Acquire);
        // SAFETY: what is not null came from `Box::into_raw` in `set`, and nobody can reach it any more: it was swapped
        // out, and who might have had it before is ruled out by this method's contract.
        (!histogram.is_null()).then(|| unsafe { Box::from_raw(histogram) })
    }
}

impl Drop for StatTable {
    fn drop(&mut self) {
        for entry in &self.items {
            drop(entry.clear());
        }
    }
}

fn room_for<T>(number: usize) -> usize {
    let least = LEAST / size_of::<T>();
    if number < least { least } else { 2 * (number + 1).next_power_of_two() }
}

/// `n` items of zeros between two margins, or none.
#[cfg(not(loom))]
fn zeroed<T: Zero>(n: usize) -> Box<[T]> {
    if n == 0 {
        return Box::default();
    }
    let n = n + 2 * MARGIN;
    let layout = std::alloc::Layout::array::<T>(n).expect("a table fits into memory");
    // SAFETY: the layout is not of size 0, as `n` isn't 0 and `T` is an atomic or some. The memory is owned by the box
    // from here on, which frees it by the same layout; its bytes are zeros, and `Zero` says that these are a `T`.
    unsafe {
        let items = std::alloc::alloc_zeroed(layout).cast::<T>();
        if items.is_null() {
            std::alloc::handle_alloc_error(layout);
        }
        Box::from_raw(std::ptr::slice_from_raw_parts_mut(items, n))
    }
}

/// What zeros are a value of.
///
/// # Safety
/// A `T` whose bytes are all 0 is a valid one.
#[cfg(not(loom))]
unsafe trait Zero {}

// SAFETY: an atomic has the representation of its integer.
#[cfg(not(loom))]
unsafe impl Zero for AtomicU64 {}
// SAFETY: an atomic pointer of zeros is null, an atomic integer 0.
#[cfg(not(loom))]
unsafe impl Zero for Entry {}

/// Loom's atomics are no plain memory, and a few will do.
#[cfg(loom)]
fn zeroed<T: Default>(n: usize) -> Box<[T]> {
    let n = if n == 0 { 0 } else { 2 * MARGIN + 2 };
    std::iter::repeat_with(T::default).take(n).collect()
}
