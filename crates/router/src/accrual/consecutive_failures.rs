//! `io.l5d.consecutiveFailures`: an endpoint is taken out after so many failures in a row. The default, with five.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::AccrualPolicy;
use crate::retry::{Backoff, Delays};

/// Fires when the run of failures reaches its limit, and at every failure after that until a success.
#[derive(Debug)]
pub struct ConsecutiveFailures {
    limit: u32,
    run: AtomicU32,
    delays: Mutex<Delays>,
}

impl ConsecutiveFailures {
    /// Fires after `failures` in a row; 0 is as 1.
    pub fn new(failures: u32, backoff: Backoff) -> Self {
        Self { limit: failures, run: AtomicU32::new(0), delays: Mutex::new(backoff.delays()) }
    }
}

impl AccrualPolicy for ConsecutiveFailures {
    fn record(&self, ok: bool, _now: Instant) -> Option<Duration> {
        if ok {
            // Written only after a failure: the line stays shared between workers while all is well.
            if self.run.load(Relaxed) != 0 {
                self.run.store(0, Relaxed);
            }
            return None;
        }
        let run = self.run.load(Relaxed).saturating_add(1);
        self.run.store(run, Relaxed);
        (run >= self.limit).then(|| {
            let mut delays = self.delays.lock().unwrap_or_else(PoisonError::into_inner);
            delays.next(&mut fastrand::Rng::new())
        })
    }

    fn revived(&self, _now: Instant) {
        self.run.store(0, Relaxed);
        self.delays.lock().unwrap_or_else(PoisonError::into_inner).restart();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_success_ends_the_run() {
        let now = Instant::now();
        let policy = ConsecutiveFailures::new(3, Backoff::NONE);
        for _ in 0..10 {
            assert_eq!(policy.record(false, now), None);
            assert_eq!(policy.record(false, now), None);
            assert_eq!(policy.record(true, now), None);
        }
        assert_eq!([(); 4].map(|()| policy.record(false, now).is_some()), [false, false, true, true]);
    }

    #[test]
    fn with_zero_the_first_failure_fires() {
        let policy = ConsecutiveFailures::new(0, Backoff::NONE);
        assert_eq!(policy.record(false, Instant::now()), Some(Duration::ZERO));
    }
}
