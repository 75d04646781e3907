//! `WindowedSum`: a sum over a sliding window of time, cut into slices, that any thread may add to without a lock.
//!
//! The retry budget and the windowed accrual policy count with it. It mirrors Finagle's `WindowedAdder`: the slice of
//! `now` and the `N - 1` slices before it make the sum, so what was added counts for between `N - 1` and `N` slices.
//! It does not own a clock: every call brings `now`.
//!
//! Each slice is one word, a lap tag and a value together, so that whoever finds a slice of an earlier lap can take its
//! value out of the sum exactly once (the winner of the compare-and-swap does). The sum itself is a word of its own,
//! which lets [`WindowedSum::take_down_to`] decide and subtract in one step: two threads never spend the same token.
//! All orderings are relaxed: the words are counts and publish nothing else.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// A lock-free sum over the last `N` slices of time.
#[derive(Debug)]
pub(crate) struct WindowedSum<const N: usize> {
    origin: Instant,
    slice_ns: u64,
    /// The latest slice for which outdated slices were taken out of the sum.
    swept: AtomicU64,
    sum: AtomicI64,
    slices: [AtomicU64; N],
}

impl<const N: usize> WindowedSum<N> {
    /// A window as long as `window`, counted from `origin` on.
    pub(crate) fn new(window: Duration, origin: Instant) -> Self {
        let slice_ns = (nanos(window) / N as u64).max(1);
        let slices = std::array::from_fn(|_| AtomicU64::new(pack(0, 0)));
        Self { origin, slice_ns, swept: AtomicU64::new(0), sum: AtomicI64::new(0), slices }
    }

    /// Adds `amount` to the slice of `now`.
    pub(crate) fn add(&self, amount: i64, now: Instant) {
        let slice = self.expire(now);
        self.sum.fetch_add(amount, Relaxed);
        self.credit(amount, slice);
    }

    /// The sum over the window that ends at `now`.
    pub(crate) fn sum(&self, now: Instant) -> i64 {
        self.expire(now);
        self.sum.load(Relaxed)
    }

    /// Subtracts `amount` if the sum does not fall below `floor` by it, and says whether it did.
    pub(crate) fn take_down_to(&self, floor: i64, amount: i64, now: Instant) -> bool {
        let slice = self.expire(now);
        let enough = |sum: i64| Some(sum - amount).filter(|left| *left >= floor);
        let taken = self.sum.fetch_update(Relaxed, Relaxed, enough).is_ok();
        if taken {
            self.credit(-amount, slice);
        }
        taken
    }

    /// Forgets everything.
    pub(crate) fn reset(&self) {
        for slice in &self.slices {
            let word = slice.load(Relaxed);
            if slice.compare_exchange(word, pack(tag_of(word), 0), Relaxed, Relaxed).is_ok() {
                self.sum.fetch_sub(value_of(word), Relaxed);
            }
        }
    }

    /// Takes slices that left the window out of the sum; returns the number of the slice of `now`.
    fn expire(&self, now: Instant) -> u64 {
        // Numbers start at N: the zero tags of a new window are then a lap old, and hold nothing.
        let current = nanos(now.saturating_duration_since(self.origin)) / self.slice_ns + N as u64;
        if current > self.swept.load(Relaxed) {
            for index in 0..N as u64 {
                let newest = current - (current - index) % N as u64;
                self.renew(index as usize, lap(newest, N));
            }
            self.swept.fetch_max(current, Relaxed);
        }
        current
    }

    /// Makes the slice at `index` one of `lap` (or a later one), taking an outdated value out of the sum.
    fn renew(&self, index: usize, lap: u16) {
        let slice = &self.slices[index];
        let mut word = slice.load(Relaxed);
        while outdated(tag_of(word), lap) {
            match slice.compare_exchange(word, pack(lap, 0), Relaxed, Relaxed) {
                Ok(_) => {
                    self.sum.fetch_sub(value_of(word), Relaxed);
                    return;
                }
                Err(found) => word = found,
            }
        }
    }

    fn credit(&self, amount: i64, slice: u64) {
        let index = (slice % N as u64) as usize;
        self.renew(index, lap(slice, N));
        // Should the slice be renewed between the two lines, the amount counts for the newer one: a lap longer, not lost.
        self.slices[index].fetch_add(amount as u64, Relaxed);
    }
}

/// Nanoseconds of a duration, as far as 64 bits go (584 years).
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const VALUE_BITS: u32 = 48;
const VALUE_MASK: u64 = (1 << VALUE_BITS) - 1;
/// Values are stored with this offset so that a negative one does not borrow from the tag.
const OFFSET: i64 = 1 << (VALUE_BITS - 1);

fn pack(tag: u16, value: i64) -> u64 {
    (u64::from(tag) << VALUE_BITS) | ((value + OFFSET) as u64 & VALUE_MASK)
}

fn tag_of(word: u64) -> u16 {
    (word >> VALUE_BITS) as u16
}

fn value_of(word: u64) -> i64 {
    (word & VALUE_MASK) as i64 - OFFSET
}

fn lap(slice: u64, slices: usize) -> u16 {
    (slice / slices as u64) as u16
}

/// A tag a few laps ahead belongs to a thread whose `now` is later; any other that differs is old, however old.
fn outdated(tag: u16, lap: u16) -> bool {
    tag.wrapping_sub(lap) > 8
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_amount_counts_for_nine_to_ten_slices() {
        let origin = Instant::now();
        let window = WindowedSum::<10>::new(Duration::from_secs(10), origin);
        window.add(7, origin + Duration::from_millis(500));
        assert_eq!(window.sum(origin + Duration::from_millis(9_999)), 7);
        assert_eq!(window.sum(origin + Duration::from_millis(10_000)), 0);
    }

    #[test]
    fn a_long_silence_forgets_everything() {
        let origin = Instant::now();
        let window = WindowedSum::<10>::new(Duration::from_secs(1), origin);
        window.add(5, origin);
        for hours in [1, 9, 18, 40] {
            let later = origin + Duration::from_secs(3_600 * hours);
            window.add(1, later);
            assert_eq!(window.sum(later), 1, "after {hours} hours");
        }
    }

    #[test]
    fn two_threads_never_take_the_same_token() {
        let origin = Instant::now();
        let window = WindowedSum::<10>::new(Duration::from_secs(10), origin);
        let taken = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..2_000_u64 {
                        let now = origin + Duration::from_micros(i);
                        window.add(1, now);
                        for _ in 0..2 {
                            if window.take_down_to(0, 1, now) {
                                taken.fetch_add(1, Relaxed);
                            }
                        }
                    }
                });
            }
        });
        let left = window.sum(origin + Duration::from_millis(2));
        assert!(left >= 0);
        assert_eq!(taken.load(Relaxed) as i64 + left, 8_000);
    }

    #[test]
    fn nothing_is_lost_while_slices_turn_over_under_contention() {
        let origin = Instant::now();
        let window = WindowedSum::<5>::new(Duration::from_micros(50), origin);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for i in 0..20_000_u64 {
                        window.add(3, origin + Duration::from_micros(i / 10));
                    }
                });
            }
        });
        // After two windows of silence whatever was added has left again, exactly once.
        assert_eq!(window.sum(origin + Duration::from_millis(20)), 0);
    }

    proptest! {
        #[test]
        fn agrees_with_a_list_of_slices(steps in proptest::collection::vec((0_u64..40, -50_i64..50), 1..200)) {
            let origin = Instant::now();
            let window = WindowedSum::<10>::new(Duration::from_millis(100), origin);
            let mut model: VecDeque<(u64, i64)> = VecDeque::new();
            let mut at = 0;
            for (gap, amount) in steps {
                at += gap;
                let slice = at / 10;
                model.push_back((slice, amount));
                while model.front().is_some_and(|(old, _)| old + 10 <= slice) {
                    model.pop_front();
                }
                let now = origin + Duration::from_millis(at);
                window.add(amount, now);
                prop_assert_eq!(window.sum(now), model.iter().map(|(_, amount)| amount).sum::<i64>());
            }
        }
    }
}
