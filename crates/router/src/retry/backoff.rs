//! Backoffs: how long to wait before the next try, or how long an endpoint stays out.
//!
//! [`Backoff`] is the setting, [`Delays`] the series that one request or one endpoint walks along. The three series are
//! contract: http-behaviour §9 (equal jittered, the default of failure accrual) and §10.2 (constant and jittered).

use std::time::Duration;

use crate::config::BackoffConfig;

/// A series of waiting times, as configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backoff {
    /// The same time, always.
    Constant(Duration),
    /// Starts at `min`; each further time lies between the last one and three times as much, and `max` ends the climb.
    Jittered {
        /// The first time.
        min: Duration,
        /// The longest time.
        max: Duration,
    },
    /// Starts at `start`; then half fixed and half random, the fixed half doubling from `start`, until `max` is reached.
    EqualJittered {
        /// The first time, and the first fixed half.
        start: Duration,
        /// The longest time.
        max: Duration,
    },
}

impl Backoff {
    /// No waiting at all: the default of retries.
    pub const NONE: Self = Self::Constant(Duration::ZERO);

    /// Between 5 and 300 seconds: the default of failure accrual.
    pub const ACCRUAL: Self = Self::EqualJittered { start: Duration::from_secs(5), max: Duration::from_secs(300) };

    /// The series from its beginning.
    pub fn delays(self) -> Delays {
        Delays { backoff: self, step: 0, last: Duration::ZERO }
    }
}

impl From<&BackoffConfig> for Backoff {
    fn from(config: &BackoffConfig) -> Self {
        match *config {
            BackoffConfig::Constant(time) => Self::Constant(time),
            BackoffConfig::Jittered { min, max } => Self::Jittered { min, max },
            BackoffConfig::EqualJittered { min, max } => Self::EqualJittered { start: min, max },
        }
    }
}

/// A place in the series of a [`Backoff`]; it never ends.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    backoff: Backoff,
    step: u32,
    last: Duration,
}

impl Delays {
    /// The next waiting time.
    pub fn next(&mut self, rng: &mut fastrand::Rng) -> Duration {
        let first = self.step == 0;
        self.last = match self.backoff {
            Backoff::Constant(time) => time,
            Backoff::Jittered { min, max } if first => min.min(max),
            Backoff::Jittered { max, .. } => between(self.last, max.min(self.last.saturating_mul(3)), rng),
            Backoff::EqualJittered { start, max } if first => start.min(max),
            // At the end of the climb the series stays there.
            Backoff::EqualJittered { max, .. } if self.last >= max => max,
            Backoff::EqualJittered { start, max } => {
                let half = start.saturating_mul(1_u32.checked_shl(self.step - 1).unwrap_or(u32::MAX));
                if half >= max { max } else { (half + between(Duration::ZERO, half, rng)).min(max) }
            }
        };
        self.step = self.step.saturating_add(1);
        self.last
    }

    /// Back to the beginning.
    pub fn restart(&mut self) {
        *self = self.backoff.delays();
    }
}

/// A time in `[low, high)`, or `low` when that is empty.
fn between(low: Duration, high: Duration, rng: &mut fastrand::Rng) -> Duration {
    let span = crate::windowed::nanos(high.saturating_sub(low));
    if span == 0 { low } else { low + Duration::from_nanos(rng.u64(0..span)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(backoff: Backoff, seed: u64, count: usize) -> Vec<Duration> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut delays = backoff.delays();
        (0..count).map(|_| delays.next(&mut rng)).collect()
    }

    #[test]
    fn constant_is_constant() {
        assert_eq!(take(Backoff::Constant(SECOND), 1, 3), [SECOND; 3]);
    }

    #[test]
    fn jittered_between_equal_bounds_is_constant() {
        assert_eq!(take(Backoff::Jittered { min: SECOND, max: SECOND }, 1, 4), [SECOND; 4]);
    }

    #[test]
    fn a_restart_begins_again() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut delays = Backoff::ACCRUAL.delays();
        for _ in 0..20 {
            delays.next(&mut rng);
        }
        delays.restart();
        assert_eq!(delays.next(&mut rng), 5 * SECOND);
    }

    proptest! {
        #[test]
        fn equal_jittered_doubles_its_fixed_half_and_stays_at_the_top(seed: u64) {
            let delays = take(Backoff::ACCRUAL, seed, 40);
            prop_assert_eq!(delays[0], 5 * SECOND);
            let mut half = 5 * SECOND;
            let mut topped = false;
            for delay in &delays[1..] {
                topped |= half >= 300 * SECOND || *delay == 300 * SECOND;
                if topped {
                    prop_assert_eq!(*delay, 300 * SECOND);
                } else {
                    prop_assert!(*delay >= half && *delay < 2 * half, "{:?} outside of {:?} and its double", delay, half);
                }
                half *= 2;
            }
            prop_assert!(topped);
        }

        #[test]
        fn jittered_never_falls_and_at_most_triples(seed: u64, min_ms in 1_u64..1_000, times in 1_u64..100) {
            let (min, max) = (Duration::from_millis(min_ms), Duration::from_millis(min_ms * times));
            let delays = take(Backoff::Jittered { min, max }, seed, 60);
            prop_assert_eq!(delays[0], min);
            for pair in delays.windows(2) {
                prop_assert!(pair[1] >= pair[0] && pair[1] <= 3 * pair[0] && pair[1] <= max);
            }
        }
    }
}
