//! How a thread finds its own memory: the way of every increment and every sample.
//!
//! A handle has a *key*: the serial of its tree in the upper bits, and in the lower ones how far into a table its
//! number lies, in bytes. A worker's thread has, for the tree it works for, where its tables begin *less the serial in
//! the upper bits*. The sum of both is the address of the cell; with a handle of another tree the serials don't cancel
//! out and the sum is far above any address, and in a thread that is no worker every sum is above the end, which is 0.
//! So one addition and one comparison find the cell, tell trees apart and see that the table is long enough: five
//! instructions, for what went through a `RefCell`, a `Vec` and an `Arc` in fifty.
//!
//! What this file owns is the arithmetic and the thread-local. Whose memory it is, and when it goes, is up to
//! `cells.rs`.

use std::cell::Cell;
use std::ptr::null;
use std::sync::atomic::AtomicU32;

use crate::sync::{AtomicU64, Ordering};
use crate::table::{CellTable, Entry, StatTable};

const _: () = assert!(usize::BITS == 64, "the keys of handles need 64-bit addresses");

/// What tells the trees of this process apart. Not state: nothing is ever found by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Serial(usize);

/// Where addresses end and serials begin: twice what the largest user space has.
const SERIAL_SHIFT: u32 = 49;
/// More than any key is without its serial: 2^32 items of 16 bytes.
const LONGEST: usize = 1 << 36;
const _: () = assert!(size_of::<Entry>() <= 16 || cfg!(loom));
/// The serial of trees that came when all others were given out. They have no workers: all their threads share cells.
const NONE: usize = (1 << (usize::BITS - SERIAL_SHIFT)) - 1;

impl Serial {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1)).unwrap_or(u32::MAX);
        Self((next as usize).min(NONE))
    }

    /// Whether threads can work for this tree.
    pub(crate) fn has_lanes(self) -> bool {
        self.0 != NONE
    }

    /// The key of the item with this number.
    pub(crate) fn key<T>(self, number: u32) -> usize {
        (self.0 << SERIAL_SHIFT) + number as usize * size_of::<T>()
    }
}

/// The tables of the tree that this thread works for. All null when it works for none.
struct Lane {
    cells: Cell<*const AtomicU64>,
    cells_end: Cell<*const AtomicU64>,
    entries: Cell<*const Entry>,
    entries_end: Cell<*const Entry>,
}

thread_local! {
    static LANE: Lane = const {
        Lane {
            cells: Cell::new(null()),
            cells_end: Cell::new(null()),
            entries: Cell::new(null()),
            entries_end: Cell::new(null()),
        }
    };
}

/// Lets handles of the tree with this serial find these tables on this thread.
///
/// # Safety
/// Until the next call of this or of [`leave`] on this thread, the tables must stay as they are, this thread must be
/// the only one that writes to their cells and histograms, and no histogram that a live handle leads to may be freed.
pub(crate) unsafe fn enter(serial: Serial, cells: &CellTable, stats: &StatTable) {
    let (cells, entries) = (cells.cells().as_ptr_range(), stats.entries().as_ptr_range());
    // No key of whatever number leads from such a table into the bits of the serials.
    let low = |end: usize| end < (1 << SERIAL_SHIFT) - LONGEST;
    if !serial.has_lanes() || !low(cells.end.addr()) || !low(entries.end.addr()) {
        // Where addresses have something in their upper bits, the arithmetic below doesn't hold: all threads share
        // cells.
        return leave();
    }
    LANE.with(|lane| {
        lane.cells.set(cells.start.wrapping_byte_sub(serial.0 << SERIAL_SHIFT));
        lane.cells_end.set(cells.end);
        lane.entries.set(entries.start.wrapping_byte_sub(serial.0 << SERIAL_SHIFT));
        lane.entries_end.set(entries.end);
    });
}

/// This thread has no tables any more.
pub(crate) fn leave() {
    LANE.with(|lane| {
        lane.cells.set(null());
        lane.cells_end.set(null());
        lane.entries.set(null());
        lane.entries_end.set(null());
    });
}

/// Adds to this thread's own cell; false when it has none for this key.
#[inline(always)]
pub(crate) fn count(key: usize, n: u64) -> bool {
    LANE.with(|lane| {
        let cell = lane.cells.get().wrapping_byte_add(key);
        let mine = cell.addr() < lane.cells_end.get().addr();
        if mine {
            // SAFETY: the address is below the table's end. It is not below its beginning either: that would take a
            // serial smaller than the table's, which makes the sum wrap to far above the end, as a larger one does. So
            // it is an item of the table, aligned, since a key is a multiple of its size; and `enter`'s caller keeps
            // the table. An atomic may be shared.
            let cell = unsafe { &*cell };
            cell.store(cell.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
        mine
    })
}

/// Adds to this thread's own histogram; false when it has none for this key.
#[inline(always)]
pub(crate) fn sample(key: usize, value: u64) -> bool {
    LANE.with(|lane| {
        let entry = lane.entries.get().wrapping_byte_add(key);
        if entry.addr() >= lane.entries_end.get().addr() {
            return false;
        }
        // SAFETY: as in `count`.
        sample_in(unsafe { &*entry }, value)
    })
}

/// What [`sample`] does to an entry of this thread; false when it has no histogram yet, or no room in it for the value.
#[inline(always)]
pub(crate) fn sample_in(entry: &Entry, value: u64) -> bool {
    let histogram = entry.histogram.load(Ordering::Relaxed);
    if histogram.is_null() {
        return false;
    }
    // SAFETY: only this thread puts a histogram here, so that the pointer needs no ordering. It is freed when no handle
    // of the stat is left, and the caller has one; or with the table, which `enter`'s caller keeps.
    if !unsafe { &*histogram }.record_alone(value) {
        return false;
    }
    // Release: a tick that sees this sees the sample.
    entry.samples.store(entry.samples.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_another_tree_leads_nowhere() {
        let (cells, stats) = (CellTable::new().with(5), StatTable::new().with(5));
        let serials = [0, 1, 2, 77, NONE / 2, NONE - 1].map(Serial);
        for own in serials {
            // SAFETY: the tables live until the lane is left, and nobody else has them.
            unsafe { enter(own, &cells, &stats) };
            for serial in serials {
                for number in [0, 5, cells.cells().len() as u32 - 1, cells.cells().len() as u32, u32::MAX] {
                    let mine = serial == own && (number as usize) < cells.cells().len();
                    assert_eq!(count(serial.key::<AtomicU64>(number), 1), mine, "{own:?} {serial:?} {number}");
                    assert!(!sample(serial.key::<Entry>(number), 1));
                }
            }
            leave();
        }
        assert!(!count(serials[0].key::<AtomicU64>(0), 1));
        assert_eq!(cells.cells()[5].load(Ordering::Relaxed), serials.len() as u64);
    }
}
