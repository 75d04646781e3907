//! `Ema`: a value that fades with time, kept in one word so that any thread may fold a sample into it without a lock.
//!
//! The peak-EWMA load metric, the load band of the aperture and the windowed accrual policy differ only in the rule they
//! fold by, which they bring themselves. Value and time stamp share a word: a 32-bit float beside a count of ticks. A
//! tick is chosen so small against the window that the float's 24 bits can just follow a step of one tick. After the
//! tick count wrapped (hours of silence) a stamp may look younger than it is; the first fold puts that right.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::windowed::nanos;

/// A fading value with the time of its last change.
#[derive(Debug)]
pub(crate) struct Ema {
    origin: Instant,
    tick_ns: u64,
    /// The window, in ticks.
    window: f64,
    word: AtomicU64,
}

impl Ema {
    /// Fades by the factor e in every `window`, as finely as the word allows.
    pub(crate) fn new(window: Duration, origin: Instant) -> Self {
        Self::with_tick(window, Duration::from_nanos(nanos(window) >> 22), origin)
    }

    /// Like `new`, but time moves in steps of `tick`; samples of one step share its stamp.
    pub(crate) fn with_tick(window: Duration, tick: Duration, origin: Instant) -> Self {
        let tick_ns = nanos(tick).max(1);
        let window = nanos(window) as f64 / tick_ns as f64;
        Self { origin, tick_ns, window, word: AtomicU64::new(EMPTY) }
    }

    /// Replaces the value by `rule(previous)`, where previous is the old value and the weight (1 = no time went by) that
    /// is left of it; `None` when there was none. Returns the new value.
    pub(crate) fn fold(&self, now: Instant, rule: impl Fn(Option<(f64, f64)>) -> f64) -> f64 {
        let tick = (nanos(now.saturating_duration_since(self.origin)) / self.tick_ns) as u32;
        let mut word = self.word.load(Relaxed);
        loop {
            let (value, stamp) = if word == EMPTY {
                (rule(None), tick)
            } else {
                let last = (word >> 32) as u32;
                let ticks = tick.wrapping_sub(last);
                // The topmost sixteenth stands for a `now` that is a little behind another thread's.
                let (ticks, stamp) = if ticks > u32::MAX - (u32::MAX >> 4) { (0, last) } else { (ticks, tick) };
                let left = if ticks == 0 { 1.0 } else { libm::exp(-f64::from(ticks) / self.window) };
                (rule(Some((f64::from(f32::from_bits(word as u32)), left))), stamp)
            };
            let new = (u64::from(stamp) << 32) | u64::from((value as f32).to_bits());
            if new == word {
                return value;
            }
            match self.word.compare_exchange_weak(word, new, Relaxed, Relaxed) {
                Ok(_) => return value,
                Err(found) => word = found,
            }
        }
    }

    /// The value as last folded, or `None` before that.
    pub(crate) fn last(&self) -> Option<f64> {
        let word = self.word.load(Relaxed);
        (word != EMPTY).then(|| f64::from(f32::from_bits(word as u32)))
    }

    /// Forgets the value.
    pub(crate) fn reset(&self) {
        self.word.store(EMPTY, Relaxed);
    }
}

/// No value yet; as a float it would be a NaN, which no rule yields.
const EMPTY: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(sample: f64) -> impl Fn(Option<(f64, f64)>) -> f64 {
        move |previous| match previous {
            None => sample,
            Some((value, left)) => value * left + sample * (1.0 - left),
        }
    }

    #[test]
    fn fades_by_e_in_a_window_however_often_it_is_read() {
        for reads in [1_u32, 10, 1_000, 100_000] {
            let origin = Instant::now();
            let ema = Ema::new(Duration::from_secs(10), origin);
            ema.fold(origin, mean(1.0));
            let mut value = 1.0;
            for i in 1..=reads {
                value = ema.fold(origin + Duration::from_secs(10) * i / reads, mean(0.0));
            }
            let expected = libm::exp(-1.0);
            assert!((value - expected).abs() < expected * 0.01, "{reads} reads left {value}, expected {expected}");
        }
    }

    #[test]
    fn a_clock_behind_anothers_changes_nothing() {
        let origin = Instant::now();
        let ema = Ema::new(Duration::from_secs(10), origin);
        ema.fold(origin + Duration::from_secs(5), mean(8.0));
        assert_eq!(ema.fold(origin, mean(0.0)), 8.0);
        assert_eq!(ema.last(), Some(8.0));
    }

    #[test]
    fn starts_again_after_a_reset() {
        let origin = Instant::now();
        let ema = Ema::new(Duration::from_secs(10), origin);
        ema.fold(origin, mean(3.0));
        ema.reset();
        assert_eq!(ema.last(), None);
        assert_eq!(ema.fold(origin, mean(5.0)), 5.0);
    }
}
