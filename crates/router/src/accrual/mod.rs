//! Failure accrual: an endpoint that fails too much is left alone for a while, then tried with one request.
//!
//! [`Accrual`] is the state of one endpoint, shared by all workers: Alive → Dead → ProbeOpen → ProbeClosed → Alive or
//! Dead again (http-behaviour §9, Finagle's `FailureAccrualFactory`). An [`AccrualPolicy`] says when an endpoint that is
//! alive or being probed is to be taken out, and for how long; each policy is a file beside this one. The four counters
//! under `failure_accrual` belong to the client: its endpoints share the handles.
//!
//! What happens per request is an atomic load (and for the success-rate policies their average). Failures and changes
//! of state take a short lock, so that an endpoint is marked dead once however many workers see it fail. No timer runs:
//! the end of the dead time is a comparison with `now`. What changed is returned, so that whoever knows the client's
//! label and the address can log it.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use l5d_telemetry::{Counter, Scope};
use tokio::time::Instant;

pub use crate::balance::Status;
use crate::config::{AccrualPolicyConfig, FailureAccrualConfig};
use crate::retry::Backoff;
use crate::windowed::nanos;

pub mod consecutive_failures;
pub mod none;
pub mod success_rate;
pub mod success_rate_windowed;

/// Which policy, with its settings.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `io.l5d.consecutiveFailures`: so many failures in a row.
    ConsecutiveFailures {
        /// How many; with 0 every failure takes the endpoint out.
        failures: u32,
        /// How long it stays out, time after time.
        backoff: Backoff,
    },
    /// `io.l5d.successRate`: too low a share of successes over a number of requests.
    SuccessRate {
        /// The least share of successes, 0 to 1.
        success_rate: f64,
        /// Over how many requests it is averaged.
        requests: u32,
        /// How long the endpoint stays out, time after time.
        backoff: Backoff,
    },
    /// `io.l5d.successRateWindowed`: too low a share of successes over a window of time.
    SuccessRateWindowed {
        /// The least share of successes, 0 to 1.
        success_rate: f64,
        /// Over how long it is averaged.
        window: Duration,
        /// How long the endpoint stays out, time after time.
        backoff: Backoff,
    },
    /// `none`: endpoints are never taken out.
    None,
}

impl Default for Kind {
    fn default() -> Self {
        Self::ConsecutiveFailures { failures: 5, backoff: Backoff::ACCRUAL }
    }
}

impl Kind {
    /// A policy for one endpoint, with a history that begins at `now`.
    pub fn policy(&self, now: Instant) -> Box<dyn AccrualPolicy> {
        match *self {
            Self::ConsecutiveFailures { failures, backoff } => {
                Box::new(consecutive_failures::ConsecutiveFailures::new(failures, backoff))
            }
            Self::SuccessRate { success_rate, requests, backoff } => {
                Box::new(success_rate::SuccessRate::new(success_rate, requests, backoff))
            }
            Self::SuccessRateWindowed { success_rate, window, backoff } => {
                Box::new(success_rate_windowed::SuccessRateWindowed::new(success_rate, window, backoff, now))
            }
            Self::None => Box::new(none::Never),
        }
    }
}

impl From<&FailureAccrualConfig> for Kind {
    fn from(config: &FailureAccrualConfig) -> Self {
        let backoff = Backoff::from(&config.backoff);
        match config.policy {
            AccrualPolicyConfig::None => Self::None,
            AccrualPolicyConfig::ConsecutiveFailures { failures } => Self::ConsecutiveFailures { failures, backoff },
            AccrualPolicyConfig::SuccessRate { success_rate, requests } => {
                Self::SuccessRate { success_rate, requests, backoff }
            }
            AccrualPolicyConfig::SuccessRateWindowed { success_rate, window } => {
                Self::SuccessRateWindowed { success_rate, window, backoff }
            }
        }
    }
}

/// Decides when an endpoint is to be taken out. One instance per endpoint, called by all workers.
pub trait AccrualPolicy: Send + Sync {
    /// Takes note of an outcome. After a failure: how long the endpoint is to be left alone, if at all.
    ///
    /// Called for every success, and for failures of an endpoint that is alive or being probed; of two failures at a
    /// time one is recorded after the other.
    fn record(&self, ok: bool, now: Instant) -> Option<Duration>;

    /// A probe succeeded: forget the history, begin the backoff anew.
    fn revived(&self, now: Instant);
}

/// The counters `failure_accrual/*` of a client, shared by its endpoints.
#[derive(Clone)]
pub struct AccrualStats {
    /// Alive endpoints taken out.
    pub removals: Counter,
    /// Probes that succeeded.
    pub revivals: Counter,
    /// Probes let through.
    pub probes: Counter,
    /// The times endpoints were to stay out, added when that begins.
    pub removed_for_ms: Counter,
}

impl AccrualStats {
    /// The counters in `scope`, the client's `failure_accrual`.
    pub fn new(scope: &Scope) -> Self {
        Self {
            removals: scope.counter("removals"),
            revivals: scope.counter("revivals"),
            probes: scope.counter("probes"),
            removed_for_ms: scope.counter("removed_for_ms"),
        }
    }
}

impl fmt::Debug for AccrualStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccrualStats").finish_non_exhaustive()
    }
}

/// The four states of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// In use.
    Alive,
    /// Left alone; requests come only when there is nothing better.
    Dead,
    /// The time is over: one request may come as a probe.
    ProbeOpen,
    /// The probe is under way.
    ProbeClosed,
}

/// What an outcome or a dispatch changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Taken out for a time. `first` when it was alive, not when a probe failed.
    Died {
        /// How long it will be left alone.
        dead_for: Duration,
        /// Whether it was alive before.
        first: bool,
    },
    /// A probe goes out.
    Probing,
    /// The probe told nothing (or the policy spared the endpoint): the next request is a probe again.
    ProbeAgain,
    /// The probe succeeded.
    Revived,
}

/// The accrual state of one endpoint.
pub struct Accrual {
    policy: Box<dyn AccrualPolicy>,
    stats: AccrualStats,
    origin: Instant,
    /// The state in the lowest two bits; above them, when dead, until when (nanoseconds since `origin`).
    word: AtomicU64,
    /// When it last went from alive to dead (nanoseconds since `origin`), for those who look.
    died: AtomicU64,
    /// Held while the state changes.
    change: Mutex<()>,
}

impl Accrual {
    /// An endpoint that is alive at `now`.
    pub fn new(kind: &Kind, stats: AccrualStats, now: Instant) -> Self {
        Self::with_policy(kind.policy(now), stats, now)
    }

    /// The same with a policy of one's own.
    pub fn with_policy(policy: Box<dyn AccrualPolicy>, stats: AccrualStats, now: Instant) -> Self {
        Self {
            policy,
            stats,
            origin: now,
            word: AtomicU64::new(ALIVE),
            died: AtomicU64::new(0),
            change: Mutex::new(()),
        }
    }

    /// Whether the balancer should send requests here: `Busy` while dead or while a probe is under way.
    pub fn status(&self, now: Instant) -> Status {
        match self.state(now) {
            State::Alive | State::ProbeOpen => Status::Open,
            State::Dead | State::ProbeClosed => Status::Busy,
        }
    }

    /// The state at `now`.
    pub fn state(&self, now: Instant) -> State {
        let word = self.word.load(Relaxed);
        match word & STATE {
            ALIVE => State::Alive,
            PROBE_OPEN => State::ProbeOpen,
            PROBE_CLOSED => State::ProbeClosed,
            _ if nanos(now.saturating_duration_since(self.origin)) >= word >> STATE_BITS => State::ProbeOpen,
            _ => State::Dead,
        }
    }

    /// Since when it has not been alive; `None` when it is.
    pub fn dead_since(&self) -> Option<Instant> {
        let down = self.word.load(Relaxed) != ALIVE;
        down.then(|| self.origin + Duration::from_nanos(self.died.load(Relaxed)))
    }

    /// When the first probe may come; `None` when it may now, or when none is needed.
    pub fn dead_until(&self, now: Instant) -> Option<Instant> {
        let word = self.word.load(Relaxed);
        let until = || self.origin.checked_add(Duration::from_nanos(word >> STATE_BITS));
        (self.state(now) == State::Dead).then(until).flatten()
    }

    /// A request goes out on an acquired session. To be called before it is sent.
    pub fn on_dispatch(&self, now: Instant) -> Option<Transition> {
        if self.word.load(Relaxed) == ALIVE {
            return None;
        }
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state(now) != State::ProbeOpen {
            return None;
        }
        self.stats.probes.incr();
        self.word.store(PROBE_CLOSED, Relaxed);
        Some(Transition::Probing)
    }

    /// A request ended: well, or with what the classifier calls a failure.
    pub fn record(&self, ok: bool, now: Instant) -> Option<Transition> {
        if ok { self.succeeded(now) } else { self.failed(now) }
    }

    /// No session could be had: a probe (if one was due) that failed, or just a failure.
    pub fn record_acquisition_failure(&self, now: Instant) -> Option<Transition> {
        self.on_dispatch(now);
        self.failed(now)
    }

    /// A request ended without telling anything about the endpoint: the requester went away. A probe is to be repeated.
    pub fn record_ignorable(&self) -> Option<Transition> {
        if self.word.load(Relaxed) != PROBE_CLOSED {
            return None;
        }
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.word.compare_exchange(PROBE_CLOSED, PROBE_OPEN, Relaxed, Relaxed).is_ok().then_some(Transition::ProbeAgain)
    }

    fn succeeded(&self, now: Instant) -> Option<Transition> {
        let mut revived = None;
        if self.word.load(Relaxed) == PROBE_CLOSED {
            let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
            if self.word.load(Relaxed) == PROBE_CLOSED {
                self.stats.revivals.incr();
                self.policy.revived(now);
                self.word.store(ALIVE, Relaxed);
                revived = Some(Transition::Revived);
            }
        }
        self.policy.record(true, now);
        revived
    }

    fn failed(&self, now: Instant) -> Option<Transition> {
        let _change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        let first = match self.word.load(Relaxed) {
            ALIVE => true,
            PROBE_CLOSED => false,
            // What fails late, or was sent for want of anything better, changes nothing.
            _ => return None,
        };
        match self.policy.record(false, now) {
            Some(dead_for) => {
                if first {
                    self.stats.removals.incr();
                    self.died.store(nanos(now.saturating_duration_since(self.origin)), Relaxed);
                }
                self.stats.removed_for_ms.add(u64::try_from(dead_for.as_millis()).unwrap_or(u64::MAX));
                let until = now.saturating_duration_since(self.origin).saturating_add(dead_for);
                self.word.store((nanos(until).min(u64::MAX >> STATE_BITS) << STATE_BITS) | DEAD, Relaxed);
                Some(Transition::Died { dead_for, first })
            }
            None if first => None,
            None => {
                self.word.store(PROBE_OPEN, Relaxed);
                Some(Transition::ProbeAgain)
            }
        }
    }
}

impl fmt::Debug for Accrual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accrual").field("state", &self.state(Instant::now())).finish_non_exhaustive()
    }
}

const STATE_BITS: u32 = 2;
const STATE: u64 = 0b11;
const ALIVE: u64 = 0;
const DEAD: u64 = 1;
const PROBE_OPEN: u64 = 2;
const PROBE_CLOSED: u64 = 3;

#[cfg(test)]
mod tests {
    use l5d_telemetry::MetricsTree;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn endpoint(kind: &Kind, now: Instant) -> Accrual {
        Accrual::new(kind, AccrualStats::new(&MetricsTree::new().root()), now)
    }

    fn three_in_a_row() -> Kind {
        Kind::ConsecutiveFailures { failures: 3, backoff: Backoff::Constant(60 * SECOND) }
    }

    fn counts(accrual: &Accrual) -> [u64; 4] {
        let stats = &accrual.stats;
        [&stats.removals, &stats.revivals, &stats.probes, &stats.removed_for_ms].map(Counter::value)
    }

    /// The recording `accrual`: three failures take it out; the two requests that still come change nothing.
    #[test]
    fn dies_once_and_ignores_what_comes_while_dead() {
        let now = Instant::now();
        let accrual = endpoint(&three_in_a_row(), now);
        for _ in 0..2 {
            assert_eq!(accrual.on_dispatch(now), None);
            assert_eq!(accrual.record(false, now), None);
            assert_eq!(accrual.status(now), Status::Open);
        }
        assert_eq!(accrual.record(false, now), Some(Transition::Died { dead_for: 60 * SECOND, first: true }));
        assert_eq!(accrual.status(now), Status::Busy);
        for ok in [false, true, false] {
            assert_eq!(accrual.on_dispatch(now), None);
            assert_eq!(accrual.record(ok, now), None);
        }
        assert_eq!(accrual.state(now), State::Dead);
        assert_eq!(counts(&accrual), [1, 0, 0, 60_000]);
    }

    #[test]
    fn a_probe_that_succeeds_revives() {
        let now = Instant::now();
        let accrual = endpoint(&three_in_a_row(), now);
        for _ in 0..3 {
            accrual.record(false, now);
        }
        let later = now + 60 * SECOND;
        assert_eq!(accrual.state(later), State::ProbeOpen);
        assert_eq!(accrual.status(later), Status::Open);
        assert_eq!(accrual.on_dispatch(later), Some(Transition::Probing));
        assert_eq!(accrual.status(later), Status::Busy);
        assert_eq!(accrual.on_dispatch(later), None);
        assert_eq!(accrual.record(true, later), Some(Transition::Revived));
        assert_eq!(accrual.state(later), State::Alive);
        assert_eq!(counts(&accrual), [1, 1, 1, 60_000]);
        // The history is gone: it takes three failures again.
        assert_eq!(accrual.record(false, later), None);
        assert_eq!(accrual.record(false, later), None);
        assert!(accrual.record(false, later).is_some());
    }

    /// http-behaviour §3.6a of the metrics: a failed probe adds the next backoff, and no removal.
    #[test]
    fn a_probe_that_fails_walks_the_backoff_on() {
        let mut now = Instant::now();
        let accrual = endpoint(&Kind::default(), now);
        for _ in 0..4 {
            accrual.record_acquisition_failure(now);
        }
        let mut dead_for = match accrual.record_acquisition_failure(now) {
            Some(Transition::Died { dead_for, first: true }) => dead_for,
            other => panic!("{other:?}"),
        };
        assert_eq!(dead_for, 5 * SECOND);
        let mut total = dead_for;
        for (round, half) in [5, 10, 20].into_iter().enumerate() {
            now += dead_for;
            dead_for = match accrual.record_acquisition_failure(now) {
                Some(Transition::Died { dead_for, first: false }) => dead_for,
                other => panic!("{other:?}"),
            };
            assert!(dead_for >= half * SECOND && dead_for < 2 * half * SECOND, "{dead_for:?} in round {round}");
            total += dead_for;
        }
        let [removals, revivals, probes, removed_for_ms] = counts(&accrual);
        assert_eq!([removals, revivals, probes], [1, 0, 3]);
        assert!(total.as_millis() as u64 - removed_for_ms <= 3, "{total:?} against {removed_for_ms} ms");
        // After a revival the backoff starts at its beginning.
        now += dead_for;
        accrual.on_dispatch(now);
        accrual.record(true, now);
        for _ in 0..4 {
            accrual.record(false, now);
        }
        assert_eq!(accrual.record(false, now), Some(Transition::Died { dead_for: 5 * SECOND, first: true }));
    }

    #[test]
    fn a_probe_whose_requester_left_is_repeated() {
        let now = Instant::now();
        let accrual = endpoint(&three_in_a_row(), now);
        for _ in 0..3 {
            accrual.record(false, now);
        }
        assert_eq!(accrual.record_ignorable(), None);
        let later = now + 60 * SECOND;
        accrual.on_dispatch(later);
        assert_eq!(accrual.record_ignorable(), Some(Transition::ProbeAgain));
        assert_eq!(accrual.status(later), Status::Open);
        assert_eq!(accrual.on_dispatch(later), Some(Transition::Probing));
    }

    /// A policy may spare an endpoint whose probe failed: it is probed again at once.
    #[test]
    fn a_policy_that_declines_leaves_the_probe_open() {
        let now = Instant::now();
        let kind = Kind::SuccessRate { success_rate: 0.5, requests: 2, backoff: Backoff::Constant(SECOND) };
        let accrual = endpoint(&kind, now);
        accrual.record(false, now);
        assert!(accrual.record(false, now).is_some());
        // While dead, successes of requests that had been under way repair the average.
        for _ in 0..20 {
            accrual.record(true, now);
        }
        let later = now + SECOND;
        accrual.on_dispatch(later);
        assert_eq!(accrual.record(false, later), Some(Transition::ProbeAgain));
        assert_eq!(accrual.state(later), State::ProbeOpen);
    }

    #[test]
    fn the_default_is_that_of_the_config() {
        assert_eq!(Kind::from(&FailureAccrualConfig::default()), Kind::default());
    }

    #[test]
    fn none_never_takes_an_endpoint_out() {
        let now = Instant::now();
        let accrual = endpoint(&Kind::None, now);
        for _ in 0..1_000 {
            assert_eq!(accrual.record_acquisition_failure(now), None);
        }
        assert_eq!(accrual.status(now), Status::Open);
        assert_eq!(counts(&accrual), [0; 4]);
    }

    #[test]
    fn many_workers_see_one_death_and_one_probe() {
        let now = Instant::now();
        let accrual = endpoint(&three_in_a_row(), now);
        let count = |events: &(dyn Fn() -> Option<Transition> + Sync)| {
            let seen = AtomicU64::new(0);
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..500 {
                            seen.fetch_add(u64::from(events().is_some()), Relaxed);
                        }
                    });
                }
            });
            seen.into_inner()
        };
        assert_eq!(count(&|| accrual.record(false, now)), 1);
        let later = now + 60 * SECOND;
        assert_eq!(count(&|| accrual.on_dispatch(later)), 1);
        assert_eq!(count(&|| accrual.record(true, later)), 1);
        assert_eq!(counts(&accrual), [1, 1, 1, 60_000]);
    }
}
