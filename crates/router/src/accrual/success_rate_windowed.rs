//! `io.l5d.successRateWindowed`: an endpoint is taken out when its share of successes, averaged over a window of time,
//! is too low.
//!
//! The average fades by e^(−Δms/window); it counts once a window has gone by since the start or the last revival, and
//! only while at least five requests came in the last window. As in Finagle time has steps of a millisecond: of the
//! outcomes within one, the first decides.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AccrualPolicy;
use crate::ema::Ema;
use crate::retry::{Backoff, Delays};
use crate::windowed::{WindowedSum, nanos};

/// Fires at a failure that leaves the average below the required share.
#[derive(Debug)]
pub struct SuccessRateWindowed {
    required: f64,
    window: Duration,
    origin: Instant,
    /// When the present history began, in nanoseconds since `origin`.
    since: AtomicU64,
    /// The share of failures: near the good end, 0, a float resolves best.
    failures: Ema,
    requests: WindowedSum<5>,
    delays: Mutex<Delays>,
}

impl SuccessRateWindowed {
    /// Requires `success_rate` (0 to 1) over `window`, with a history that begins at `now`.
    pub fn new(success_rate: f64, window: Duration, backoff: Backoff, now: Instant) -> Self {
        Self {
            required: success_rate,
            window,
            origin: now,
            since: AtomicU64::new(0),
            failures: Ema::with_tick(window, Duration::from_millis(1), now),
            requests: WindowedSum::new(window, now),
            delays: Mutex::new(backoff.delays()),
        }
    }
}

impl AccrualPolicy for SuccessRateWindowed {
    fn record(&self, ok: bool, now: Instant) -> Option<Duration> {
        self.requests.add(1, now);
        let outcome = f64::from(u8::from(!ok));
        let failures = self.failures.fold(now, |previous| match previous {
            None => outcome,
            Some((average, left)) => average * left + outcome * (1.0 - left),
        });
        if ok {
            return None;
        }
        let began = self.origin + Duration::from_nanos(self.since.load(Relaxed));
        let fires = now.saturating_duration_since(began) >= self.window
            && 1.0 - failures < self.required
            && self.requests.sum(now) >= LEAST_REQUESTS;
        fires.then(|| {
            let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
            delays.next(&mut fastrand::Rng::new())
        })
    }

    fn revived(&self, now: Instant) {
        self.since.store(nanos(now.saturating_duration_since(self.origin)), Relaxed);
        self.failures.reset();
        self.requests.reset();
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).restart();
    }
}

/// Finagle's `DefaultMinimumRequestThreshold`.
const LEAST_REQUESTS: i64 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn policy(now: Instant) -> SuccessRateWindowed {
        SuccessRateWindowed::new(0.8, 1_000 * MS, Backoff::NONE, now)
    }

    #[test]
    fn waits_for_a_window_to_go_by() {
        let start = Instant::now();
        let policy = policy(start);
        let fired = (0..1_200).step_by(10).find(|ms| policy.record(false, start + *ms * MS).is_some());
        assert_eq!(fired, Some(1_000));
    }

    #[test]
    fn a_few_failures_in_a_quiet_window_do_not_fire() {
        let start = Instant::now();
        let policy = policy(start);
        for i in 0..20 {
            assert_eq!(policy.record(false, start + i * 400 * MS), None, "at failure {i}");
        }
    }

    #[test]
    fn fires_when_failures_last_for_a_fifth_of_the_window() {
        let start = Instant::now();
        let policy = policy(start);
        for ms in 0..2_000 {
            assert_eq!(policy.record(true, start + ms * MS), None);
        }
        // The share of failures after t ms is 1 - e^(-t/1000): above a fifth from 224 ms on.
        let fired = (2_000..3_000).find(|ms| policy.record(false, start + *ms * MS).is_some());
        assert_eq!(fired, Some(2_223));
    }

    #[test]
    fn a_revival_begins_a_new_window() {
        let start = Instant::now();
        let policy = policy(start);
        for ms in 0..1_500 {
            policy.record(false, start + ms * MS);
        }
        policy.revived(start + 1_500 * MS);
        let fired = (1_500..3_000).find(|ms| policy.record(false, start + *ms * MS).is_some());
        assert_eq!(fired, Some(2_500));
    }
}
