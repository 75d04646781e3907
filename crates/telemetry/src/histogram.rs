//! The buckets behind a stat: counts that only grow, in blocks that appear with the first sample of their range.
//!
//! A stat has one histogram per worker that recorded, written by that worker alone, and one shared by everybody else.
//! Nothing is ever cleared: a window is the difference of two readings, so that no sample can fall between a reading
//! and a clearing, as it could in Linkerd 1. Counts are 32 bits wide and wrap; readers take differences, which are right
//! as long as fewer than 2^32 samples come to one bucket between two readings, and the roll in `stat.rs` widens them.
//!
//! The count of a bucket is written before the sum, so a reading may see a sample's count and not yet its value; the next
//! reading sees the rest. Nothing is lost, and count and percentiles always agree, being the same numbers.
//!
//! What it costs: 16 bytes per block in a histogram, as a `OnceLock` has its own state, 256 bytes per block that was hit,
//! per worker; and once per stat 512 bytes per block in `Seen`, whose counts are wide.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::buckets::{BUCKETS, MAX_VALUE, index_of};

/// Buckets in a block: a little less than an octave.
pub(crate) const BLOCK: usize = 64;
/// Blocks that cover every bucket.
pub(crate) const BLOCKS: usize = BUCKETS.div_ceil(BLOCK);

type Block = Box<[AtomicU32; BLOCK]>;

pub(crate) struct Histogram {
    /// Which stat this belongs to: unlike its number, never used twice.
    serial: u64,
    sum: AtomicU64,
    blocks: [OnceLock<Block>; BLOCKS],
}

impl Histogram {
    pub(crate) fn new(serial: u64) -> Self {
        Self { serial, sum: AtomicU64::new(0), blocks: [const { OnceLock::new() }; BLOCKS] }
    }

    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Adds a sample, from the only thread that writes here.
    #[inline]
    pub(crate) fn record_alone(&self, value: u64) {
        let index = index_of(value);
        let bucket = &self.block(index / BLOCK)[index % BLOCK];
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        let sum = self.sum.load(Ordering::Relaxed);
        self.sum.store(sum.wrapping_add(value.min(MAX_VALUE)), Ordering::Relaxed);
    }

    /// Adds a sample, from any thread.
    pub(crate) fn record_shared(&self, value: u64) {
        let index = index_of(value);
        self.block(index / BLOCK)[index % BLOCK].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value.min(MAX_VALUE), Ordering::Relaxed);
    }

    /// Adds all that another histogram holds, which nobody writes any more.
    pub(crate) fn absorb(&self, other: &Self) {
        for (at, block) in other.blocks.iter().enumerate() {
            let Some(block) = block.get() else { continue };
            for (mine, theirs) in self.block(at).iter().zip(block.iter()) {
                let n = theirs.load(Ordering::Relaxed);
                if n != 0 {
                    mine.fetch_add(n, Ordering::Relaxed);
                }
            }
        }
        self.sum.fetch_add(other.sum.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }

    /// Adds one block's counts to `into`; false when no sample ever came there.
    pub(crate) fn read_block(&self, at: usize, into: &mut [u32; BLOCK]) -> bool {
        let Some(block) = self.blocks[at].get() else { return false };
        for (into, bucket) in into.iter_mut().zip(block.iter()) {
            *into = into.wrapping_add(bucket.load(Ordering::Relaxed));
        }
        true
    }

    #[inline]
    fn block(&self, at: usize) -> &[AtomicU32; BLOCK] {
        self.blocks[at].get_or_init(|| Box::new([const { AtomicU32::new(0) }; BLOCK]))
    }
}

/// What a reader saw of a histogram last, widened: to tell what came since.
#[derive(Default)]
pub(crate) struct Seen {
    sum: u64,
    blocks: [Option<Box<[u64; BLOCK]>>; BLOCKS],
}

impl Seen {
    /// Reads the histograms of one stat, added up, and calls `each` with every bucket that gained samples, in ascending
    /// order. Returns how much the sum grew.
    ///
    /// A sum is not taken ahead of its samples' counts: when no count came, the sum stays for the next reading.
    pub(crate) fn advance<'a>(
        &mut self,
        histograms: impl Iterator<Item = &'a Histogram> + Clone,
        mut each: impl FnMut(usize, u64),
    ) -> u64 {
        let mut came = false;
        for at in 0..BLOCKS {
            let mut now = [0; BLOCK];
            let read = histograms.clone().filter(|h| h.read_block(at, &mut now)).count();
            if read > 0 {
                let seen = self.blocks[at].get_or_insert_with(|| Box::new([0; BLOCK]));
                for (i, (seen, now)) in seen.iter_mut().zip(now).enumerate() {
                    let gained = now.wrapping_sub(*seen as u32);
                    if gained != 0 {
                        *seen += u64::from(gained);
                        came = true;
                        each(at * BLOCK + i, u64::from(gained));
                    }
                }
            }
        }
        if !came {
            return 0;
        }
        let sum = histograms.fold(0, |sum: u64, h| sum.wrapping_add(h.sum()));
        let gained = sum.wrapping_sub(self.sum);
        self.sum = sum;
        gained
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// The histograms of one stat as they are now, added up and widened by what was seen: every bucket with samples in
    /// ascending order, and the sum. Neither ever decreases.
    pub(crate) fn total<'a>(
        &self,
        histograms: impl Iterator<Item = &'a Histogram> + Clone,
    ) -> (Vec<(usize, u64)>, u64) {
        let mut total = Vec::new();
        for at in 0..BLOCKS {
            let mut now = [0; BLOCK];
            let read = histograms.clone().filter(|h| h.read_block(at, &mut now)).count();
            let seen = self.blocks[at].as_deref();
            if read == 0 && seen.is_none() {
                continue;
            }
            for (i, now) in now.into_iter().enumerate() {
                let seen = seen.map_or(0, |block| block[i]);
                let n = seen + u64::from(now.wrapping_sub(seen as u32));
                if n != 0 {
                    total.push((at * BLOCK + i, n));
                }
            }
        }
        let sum = histograms.fold(0, |sum: u64, h| sum.wrapping_add(h.sum()));
        (total, sum)
    }

    /// Every bucket that ever had a sample, in ascending order.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + Clone {
        self.blocks
            .iter()
            .enumerate()
            .filter_map(|(at, block)| Some((at, block.as_ref()?)))
            .flat_map(|(at, block)| block.iter().enumerate().map(move |(i, &n)| (at * BLOCK + i, n)))
            .filter(|&(_, n)| n != 0)
    }
}
