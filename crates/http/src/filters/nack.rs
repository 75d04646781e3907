//! The nack throttle of a client (Finagle's `NackAdmissionFilter`): when most answers of late were nacks, some requests
//! are not even sent (http-behaviour §7.4).

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering::Relaxed},
};
use std::time::Duration;

use l5d_telemetry::{Counter, GaugeGuard, Scope};
use tokio::time::Instant;

/// Over what time answers are weighed.
const WINDOW: Duration = Duration::from_secs(120);
/// Below this share of answers that are no nacks, requests are dropped.
const THRESHOLD: f64 = 0.5;
/// At most this share is dropped.
const MAX_DROP: f64 = 0.75;
/// Below this rate nothing is dropped.
const MIN_RPS: f64 = 5.0;

/// One client's throttle.
#[derive(Debug)]
pub(crate) struct NackAdmission {
    /// Whether there has been a nack: until then an answer changes nothing and takes no lock.
    nacked: AtomicBool,
    state: Arc<Mutex<State>>,
    dropped: Counter,
    _ema: GaugeGuard,
}

#[derive(Debug)]
struct State {
    /// The moving share of answers that were no nacks; stays exactly 1 until the first nack.
    share: f64,
    at: Option<Instant>,
    /// Requests in the current second and the last whole one.
    second: Option<Instant>,
    count: u32,
    rate: f64,
}

impl NackAdmission {
    pub(crate) fn new(scope: &Scope) -> Self {
        let scope = scope.scope("nack_admission_control");
        let state = Arc::new(Mutex::new(State { share: 1.0, at: None, second: None, count: 0, rate: 0.0 }));
        let shown = Arc::clone(&state);
        Self {
            nacked: AtomicBool::new(false),
            state,
            dropped: scope.counter("dropped_requests"),
            _ema: scope.gauge("ema_value", move || shown.lock().unwrap_or_else(PoisonError::into_inner).share * 100.0),
        }
    }

    /// Whether this request is not to be sent. Counts it if so.
    pub(crate) fn should_drop(&self, now: Instant) -> bool {
        if !self.nacked.load(Relaxed) {
            return false;
        }
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match s.second {
            Some(since) if now - since < Duration::from_secs(1) => s.count += 1,
            Some(since) => {
                s.rate = f64::from(s.count) / (now - since).as_secs_f64();
                s.second = Some(now);
                s.count = 1;
            }
            None => {
                s.second = Some(now);
                s.count = 1;
            }
        }
        if s.rate.max(f64::from(s.count)) < MIN_RPS || s.share >= THRESHOLD {
            return false;
        }
        let drop = fastrand::f64() < MAX_DROP.min(1.0 - 2.0 * s.share);
        if drop {
            self.dropped.incr();
        }
        drop
    }

    /// An answer that is no nack.
    pub(crate) fn answered(&self, now: Instant) {
        self.observe(1.0, now);
    }

    /// A nack.
    pub(crate) fn nacked(&self, now: Instant) {
        self.observe(0.0, now);
    }

    fn observe(&self, value: f64, now: Instant) {
        if value < 1.0 {
            self.nacked.store(true, Relaxed);
        } else if !self.nacked.load(Relaxed) {
            return;
        }
        let mut s = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = s.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let weight = libm::exp(-elapsed.as_secs_f64() / WINDOW.as_secs_f64());
        s.share = s.share * weight + value * (1.0 - weight);
        s.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_telemetry::MetricsTree;

    #[test]
    fn throttles_only_after_many_nacks() {
        let admission = NackAdmission::new(&MetricsTree::new().scope("client"));
        let mut now = Instant::now();
        for _ in 0..100 {
            assert!(!admission.should_drop(now));
            admission.answered(now);
        }
        for _ in 0..2000 {
            now += Duration::from_millis(150);
            admission.nacked(now);
        }
        let dropped = (0..1000)
            .filter(|_| {
                now += Duration::from_millis(10);
                admission.should_drop(now)
            })
            .count();
        assert!((600..900).contains(&dropped), "{dropped}");
    }
}
