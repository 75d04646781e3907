//! `io.l5d.successRate`: an endpoint is taken out when its share of successes, averaged over a number of requests, is
//! too low.
//!
//! The average weighs the latest `requests` outcomes most: each outcome leaves e^(−1/requests) of what was before. It
//! counts from the `requests`th outcome on. Two atomic words hold it; a failure and a success at the same time are
//! averaged in either order.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AccrualPolicy;
use crate::retry::{Backoff, Delays};

/// Fires at a failure that leaves the average below the required share.
#[derive(Debug)]
pub struct SuccessRate {
    required: f64,
    requests: u64,
    /// What a step leaves of the average before it.
    left: f64,
    count: AtomicU64,
    /// The average as bits; a NaN when there is none.
    average: AtomicU64,
    delays: Mutex<Delays>,
}

impl SuccessRate {
    /// Requires `success_rate` (0 to 1) over `requests` (at least one).
    pub fn new(success_rate: f64, requests: u32, backoff: Backoff) -> Self {
        let requests = u64::from(requests.max(1));
        Self {
            required: success_rate,
            requests,
            left: libm::exp(-1.0 / requests as f64),
            count: AtomicU64::new(0),
            average: AtomicU64::new(f64::NAN.to_bits()),
            delays: Mutex::new(backoff.delays()),
        }
    }
}

impl AccrualPolicy for SuccessRate {
    fn record(&self, ok: bool, _now: Instant) -> Option<Duration> {
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let outcome = f64::from(u8::from(ok));
        let fold = |average: f64| {
            if average.is_nan() { outcome } else { average * self.left + outcome * (1.0 - self.left) }
        };
        let mut bits = self.average.load(Relaxed);
        let average = loop {
            let average = fold(f64::from_bits(bits));
            match self.average.compare_exchange_weak(bits, average.to_bits(), Relaxed, Relaxed) {
                Ok(_) => break average,
                Err(found) => bits = found,
            }
        };
        (!ok && count >= self.requests && average < self.required).then(|| {
            let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
            delays.next(&mut fastrand::Rng::new())
        })
    }

    fn revived(&self, _now: Instant) {
        self.count.store(0, Relaxed);
        self.average.store(f64::NAN.to_bits(), Relaxed);
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(success_rate: f64, requests: u32) -> SuccessRate {
        SuccessRate::new(success_rate, requests, Backoff::NONE)
    }

    #[test]
    fn waits_for_so_many_requests() {
        let now = Instant::now();
        let policy = policy(0.9, 5);
        assert_eq!([(); 6].map(|()| policy.record(false, now).is_some()), [false, false, false, false, true, true]);
    }

    #[test]
    fn fires_at_the_failure_that_crosses_the_line() {
        let now = Instant::now();
        let policy = policy(0.5, 10);
        for _ in 0..100 {
            policy.record(true, now);
        }
        // The average after k failures is e^(-k/10): below a half from the seventh on.
        let fired: Vec<bool> = (0..8).map(|_| policy.record(false, now).is_some()).collect();
        assert_eq!(fired, [false, false, false, false, false, false, true, true]);
    }

    #[test]
    fn a_tolerable_share_of_failures_never_fires() {
        let now = Instant::now();
        let policy = policy(0.7, 100);
        for i in 0..10_000 {
            assert_eq!(policy.record(i % 10 != 9, now), None, "at request {i}");
        }
    }

    #[test]
    fn a_revival_forgets() {
        let now = Instant::now();
        let policy = policy(0.9, 3);
        for _ in 0..3 {
            policy.record(false, now);
        }
        policy.revived(now);
        assert_eq!([(); 3].map(|()| policy.record(false, now).is_some()), [false, false, true]);
    }
}
