//! The buckets behind a stat: counts that only grow, in blocks that appear with the first sample of their range.
//!
//! A stat has one histogram per worker that recorded, written by that worker alone, and one shared by everybody else.
//! Nothing is ever cleared: a window is the difference of two readings, so that no sample can fall between a reading
//! and a clearing, as it could in Linkerd 1. Counts are 32 bits wide and wrap; readers take differences, which are right
//! as long as fewer than 2^32 samples come to one bucket between two readings, and `Seen` widens them.
//!
//! A sample is added to the sum first and counted then; a reader looks at the counts first. So what it finds counted is
//! in the sum. It may find one sample of each thread in the sum that is not counted yet: that one is counted by the
//! next reading, to which it adds nothing. Count and percentiles always agree, being the same numbers.
//!
//! What it costs: 264 bytes, and 256 per block that was hit, per worker; and once per stat, in `Seen`, 6 bytes per
//! bucket that was ever hit.

use std::ptr::null_mut;

use crate::buckets::{BUCKETS, MAX_VALUE, index_of};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

/// Buckets in a block: a little less than an octave.
pub(crate) const BLOCK: usize = if cfg!(loom) { 2 } else { 64 };
/// Blocks that cover every bucket; loom's proofs do with the first two.
pub(crate) const BLOCKS: usize = if cfg!(loom) { 1 } else { BUCKETS.div_ceil(BLOCK) };
/// The next power of two, so that an index needs a mask and no check.
const PLACES: usize = BLOCKS.next_power_of_two();

pub(crate) type Block = [AtomicU32; BLOCK];

pub(crate) struct Histogram {
    sum: AtomicU64,
    /// Null, or a block that this histogram owns until it is dropped.
    blocks: [AtomicPtr<Block>; PLACES],
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { sum: AtomicU64::new(0), blocks: std::array::from_fn(|_| AtomicPtr::new(null_mut())) }
    }

    /// Adds a sample, from the only thread that writes here; false when there is no [room](Self::make_room) for it yet.
    #[inline]
    pub(crate) fn record_alone(&self, value: u64) -> bool {
        // Most samples are milliseconds, retries and the like. Up to 101 each value has a bucket of its own, by its number.
        let (at, bucket, value) = if value < BLOCK as u64 {
            (0, value as usize, value)
        } else {
            let index = index_of(value);
            (index / BLOCK, index % BLOCK, value.min(MAX_VALUE))
        };
        let Some(block) = self.block_if_hit(at) else { return false };
        let bucket = &block[bucket];
        let sum = self.sum.load(Ordering::Relaxed);
        self.sum.store(sum.wrapping_add(value), Ordering::Relaxed);
        // Release: who sees the count sees the sum.
        bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        true
    }

    /// Sees to it that there is room for this value.
    pub(crate) fn make_room(&self, value: u64) {
        self.block(index_of(value) / BLOCK);
    }

    /// Adds a sample, from any thread.
    pub(crate) fn record_shared(&self, value: u64) {
        let index = index_of(value);
        self.sum.fetch_add(value.min(MAX_VALUE), Ordering::Relaxed);
        // Release: as above.
        self.block(index / BLOCK)[index % BLOCK].fetch_add(1, Ordering::Release);
    }

    /// Adds all that another histogram holds, which nobody writes any more.
    pub(crate) fn absorb(&self, other: &Self) {
        for at in 0..BLOCKS {
            let Some(block) = other.block_if_hit(at) else { continue };
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
        let Some(block) = self.block_if_hit(at) else { return false };
        for (into, bucket) in into.iter_mut().zip(block.iter()) {
            // Acquire: the sum, which is read after this, has what is counted here.
            *into = into.wrapping_add(bucket.load(Ordering::Acquire));
        }
        true
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        let hit = (0..BLOCKS).filter(|&at| !self.blocks[at].load(Ordering::Relaxed).is_null()).count();
        size_of::<Self>() + hit * size_of::<Block>()
    }

    pub(crate) fn block_if_hit(&self, at: usize) -> Option<&Block> {
        // Acquire: sees the zeros of a block that another thread made.
        let block = self.blocks[at % PLACES].load(Ordering::Acquire);
        // SAFETY: what is not null came from `Box::into_raw` in `make` and is freed when `self` is dropped, not before.
        // Blocks are written through shared references only.
        unsafe { block.as_ref() }
    }

    fn block(&self, at: usize) -> &Block {
        match self.block_if_hit(at) {
            Some(block) => block,
            None => self.make(at),
        }
    }

    #[cold]
    fn make(&self, at: usize) -> &Block {
        let new = Box::into_raw(Box::new(std::array::from_fn(|_| AtomicU32::new(0))));
        // Release: whoever sees the pointer sees the zeros. Another thread may have been quicker: then its block stays.
        let made = self.blocks[at % PLACES].compare_exchange(null_mut(), new, Ordering::Release, Ordering::Acquire);
        let block = match made {
            Ok(_) => new,
            Err(theirs) => {
                // SAFETY: it came from `Box::into_raw` above and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
                theirs
            }
        };
        // SAFETY: as in `block_if_hit`: it is not null and lives as long as `self`.
        unsafe { &*block }
    }
}

impl Drop for Histogram {
    fn drop(&mut self) {
        for block in &self.blocks {
            let block = block.load(Ordering::Acquire);
            if !block.is_null() {
                // SAFETY: it came from `Box::into_raw` in `make`, and nobody else has `self` any more.
                drop(unsafe { Box::from_raw(block) });
            }
        }
    }
}

/// What a reader saw of a histogram last, widened: to tell what came since.
#[derive(Default)]
pub(crate) struct Seen {
    sum: u64,
    /// The buckets that ever had a sample, in ascending order.
    buckets: Vec<u16>,
    /// What was read of each, as wide as it is read.
    low: Vec<u32>,
    /// How often each went round; empty as long as none did.
    high: Vec<u32>,
}

impl Seen {
    /// Reads the histograms of one stat, added up, and calls `each` with every bucket that gained samples, in ascending
    /// order. Returns how much the sum grew.
    ///
    /// A sum is not taken ahead of all its samples' counts: when no count came, the sum stays for the next reading.
    pub(crate) fn advance<'a>(
        &mut self,
        histograms: impl Iterator<Item = &'a Histogram> + Clone,
        mut each: impl FnMut(usize, u64),
    ) -> u64 {
        let (mut came, mut next) = (false, 0);
        let mut fresh: Vec<(u16, u32)> = Vec::new();
        for at in 0..BLOCKS {
            let mut now = [0; BLOCK];
            if histograms.clone().filter(|h| h.read_block(at, &mut now)).count() == 0 {
                continue;
            }
            for (i, &n) in now.iter().enumerate() {
                let bucket = at * BLOCK + i;
                let known = self.buckets.get(next) == Some(&(bucket as u16));
                let gained = n.wrapping_sub(if known { self.low[next] } else { 0 });
                if gained != 0 {
                    came = true;
                    each(bucket, u64::from(gained));
                    if !known {
                        fresh.push((bucket as u16, n));
                    } else if n < std::mem::replace(&mut self.low[next], n) {
                        self.high.resize(self.low.len(), 0);
                        self.high[next] += 1;
                    }
                }
                next += usize::from(known);
            }
        }
        self.meet(&fresh);
        if !came {
            return 0;
        }
        let sum = histograms.fold(0, |sum: u64, h| sum.wrapping_add(h.sum()));
        let gained = sum.wrapping_sub(self.sum);
        self.sum = sum;
        gained
    }

    /// Takes in buckets that were not known.
    fn meet(&mut self, fresh: &[(u16, u32)]) {
        if fresh.is_empty() {
            return;
        }
        let all = self.buckets.len() + fresh.len();
        let (mut buckets, mut low, mut high) = (Vec::with_capacity(all), Vec::with_capacity(all), Vec::new());
        let mut put = |bucket, n, rounds| {
            buckets.push(bucket);
            low.push(n);
            high.push(rounds);
        };
        let mut fresh = fresh.iter().copied().peekable();
        for (at, &bucket) in self.buckets.iter().enumerate() {
            while let Some((new, n)) = fresh.next_if(|f| f.0 < bucket) {
                put(new, n, 0);
            }
            put(bucket, self.low[at], self.high.get(at).copied().unwrap_or(0));
        }
        fresh.for_each(|(new, n)| put(new, n, 0));
        if self.high.is_empty() {
            high = Vec::new();
        }
        (self.buckets, self.low, self.high) = (buckets, low, high);
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// What it takes.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.buckets.capacity() * size_of::<u16>()
            + (self.low.capacity() + self.high.capacity()) * size_of::<u32>()
    }

    /// The histograms of one stat as they are now, added up and widened by what was seen: every bucket with samples in
    /// ascending order, and the sum. Neither ever decreases.
    pub(crate) fn total<'a>(
        &self,
        histograms: impl Iterator<Item = &'a Histogram> + Clone,
    ) -> (Vec<(usize, u64)>, u64) {
        let (mut total, mut next) = (Vec::new(), 0);
        for at in 0..BLOCKS {
            let mut now = [0; BLOCK];
            if histograms.clone().filter(|h| h.read_block(at, &mut now)).count() == 0 {
                continue;
            }
            for (i, &n) in now.iter().enumerate() {
                let bucket = at * BLOCK + i;
                let known = self.buckets.get(next) == Some(&(bucket as u16));
                let seen = if known { self.count(next) } else { 0 };
                next += usize::from(known);
                let n = seen + u64::from(n.wrapping_sub(seen as u32));
                if n != 0 {
                    total.push((bucket, n));
                }
            }
        }
        let sum = histograms.fold(0, |sum: u64, h| sum.wrapping_add(h.sum()));
        (total, sum)
    }

    /// Every bucket that ever had a sample, in ascending order.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (usize, u64)> + Clone {
        self.buckets.iter().enumerate().map(|(at, &bucket)| (usize::from(bucket), self.count(at)))
    }

    /// The count of the bucket at this place.
    fn count(&self, at: usize) -> u64 {
        u64::from(self.high.get(at).copied().unwrap_or(0)) << 32 | u64::from(self.low[at])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn record(histogram: &Histogram, value: u64) {
        if !histogram.record_alone(value) {
            histogram.make_room(value);
            assert!(histogram.record_alone(value));
        }
    }

    proptest! {
        #[test]
        fn readings_add_up_to_what_was_recorded(
            rounds in prop::collection::vec(prop::collection::vec((any::<bool>(), prop_oneof![0..300_u64, 0..=MAX_VALUE]), 0..60), 1..8),
        ) {
            let histograms = [Histogram::new(), Histogram::new()];
            let mut seen = Seen::default();
            let (mut all, mut sum) = (BTreeMap::new(), 0);
            for round in rounds {
                let (mut window, mut window_sum) = (BTreeMap::new(), 0);
                for (second, value) in round {
                    record(&histograms[usize::from(second)], value);
                    *window.entry(index_of(value)).or_insert(0) += 1;
                    *all.entry(index_of(value)).or_insert(0) += 1;
                    window_sum += value;
                }
                sum += window_sum;
                let mut gained = Vec::new();
                let gained_sum = seen.advance(histograms.iter(), |bucket, n| gained.push((bucket, n)));
                prop_assert_eq!(gained, window.into_iter().collect::<Vec<_>>());
                prop_assert_eq!(gained_sum, window_sum);
                prop_assert_eq!(seen.buckets().collect::<Vec<_>>(), all.clone().into_iter().collect::<Vec<_>>());
                prop_assert_eq!(seen.sum(), sum);
            }
        }
    }

    #[test]
    fn counts_that_went_round_are_widened() {
        let histogram = Histogram::new();
        let (mut seen, mut total) = (Seen::default(), 0_u64);
        record(&histogram, 7);
        for step in [1 << 31, 1 << 31, u64::from(u32::MAX), 5] {
            let bucket = &histogram.block(0)[index_of(7)];
            bucket.store(bucket.load(Ordering::Relaxed).wrapping_add(step as u32), Ordering::Relaxed);
            total += step;
            seen.advance([&histogram].into_iter(), |_, _| {});
            assert_eq!(seen.buckets().collect::<Vec<_>>(), [(index_of(7), total + 1)]);
        }
        record(&histogram, 3);
        seen.advance([&histogram].into_iter(), |_, _| {});
        assert_eq!(seen.buckets().collect::<Vec<_>>(), [(index_of(3), 1), (index_of(7), total + 1)]);
    }
}
