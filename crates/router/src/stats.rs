//! What every level of the stack counts of its requests: `requests`, `success`, `failures` with their breakdown,
//! `request_latency_ms` and `pending`, as Finagle's `StatsFilter` does (metrics-catalog §1.2–§1.4).
//!
//! A request is counted when it completes, not when it arrives; what is in flight is `pending`. A request whose
//! future is dropped has completed too: its [`InFlight`] then counts a failure, so that at rest
//! `requests == success + failures` and `pending == 0` whatever happened.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use l5d_telemetry::{Counter, Level, Scope, Stat};

use crate::error::{Error, Kind};

/// Under this class Finagle counts a response that a classifier calls a failure.
const SYNTHETIC: &[&str] = &["com.twitter.finagle.service.ResponseClassificationSyntheticException"];

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    /// A response that the classifier calls a success.
    Success,
    /// A response that the classifier calls a failure.
    FailedResponse,
    /// No response.
    Error(&'a Error),
}

/// The request metrics of one scope. Made once, when the stack that owns it is built.
#[derive(Debug)]
pub struct RequestStats {
    requests: Counter,
    success: Counter,
    failures: Counter,
    latency_ms: Stat,
    pending: Level,
    breakdown: Breakdown,
}

impl RequestStats {
    /// The metrics at `scope`; all of them exist at once, but for the breakdown of failures.
    pub fn new(scope: &Scope) -> Self {
        Self {
            requests: scope.counter("requests"),
            success: scope.counter("success"),
            failures: scope.counter("failures"),
            latency_ms: scope.stat("request_latency_ms"),
            pending: scope.level("pending"),
            breakdown: Breakdown::new(scope),
        }
    }

    /// A request begins. If the returned value is dropped before [`InFlight::finish`], the request counts as a failure
    /// that was cancelled.
    pub fn begin(&self) -> InFlight<'_> {
        self.pending.incr();
        InFlight { stats: self, trace: None, finished: false }
    }

    fn count(&self, outcome: Outcome<'_>) {
        self.requests.incr();
        match outcome {
            Outcome::Success => self.success.incr(),
            Outcome::FailedResponse => {
                self.failures.incr();
                self.breakdown.count("failures", SYNTHETIC, &[], None);
            }
            Outcome::Error(e) => {
                self.failures.incr();
                self.breakdown.count("failures", e.kind.chain(), e.kind.flags(), None);
                if let Some(source) = &e.source {
                    self.breakdown.count("sourcedfailures", e.kind.chain(), e.kind.flags(), Some(source));
                }
            }
        }
        self.pending.decr();
    }
}

/// A request that has begun and not yet ended.
#[derive(Debug)]
pub struct InFlight<'a> {
    stats: &'a RequestStats,
    trace: Option<u128>,
    finished: bool,
}

impl InFlight<'_> {
    /// The request is recorded under this trace: its latency is kept as an exemplar.
    #[must_use]
    pub fn traced(mut self, trace: u128) -> Self {
        self.trace = Some(trace);
        self
    }

    /// The request ended after `elapsed`.
    pub fn finish(mut self, outcome: Outcome<'_>, elapsed: Duration) {
        self.finished = true;
        self.stats.count(outcome);
        match self.trace {
            None => self.stats.latency_ms.add(millis(elapsed)),
            Some(trace) => self.stats.latency_ms.add_traced(millis(elapsed), trace),
        }
    }

    /// The request ended without a result of its own: it was given up for `kind`, in the client labelled `source`.
    pub fn abandon(mut self, kind: Kind, source: Option<&Arc<str>>, elapsed: Duration) {
        self.finished = true;
        let error = Error { kind, message: String::new(), source: source.cloned(), safe_to_retry: false };
        self.stats.count(Outcome::Error(&error));
        self.stats.latency_ms.add(millis(elapsed));
    }

    /// The request ended with a response that counts as failed, though nobody reads it (the server's view of a
    /// requester that went away).
    pub fn abandon_response(mut self, elapsed: Duration) {
        self.finished = true;
        self.stats.count(Outcome::FailedResponse);
        self.stats.latency_ms.add(millis(elapsed));
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.stats.count(Outcome::Error(&Error::new(Kind::Cancelled, "")));
        }
    }
}

/// Whole milliseconds, cut off as Finagle does.
#[inline]
pub fn millis(d: Duration) -> u64 {
    match d.as_secs() {
        0 => d.subsec_millis().into(),
        secs => secs.saturating_mul(1000).saturating_add(d.subsec_millis().into()),
    }
}

/// Counters by exception: `<name>/<Class>[/<Cause>…]`, or `<name>/<flag>` and `<name>/<flag>/<Class>…` where flags are
/// given. Made at their first use; failures are cold, so a mutex guards the table.
#[derive(Debug)]
pub struct Breakdown {
    scope: Scope,
    made: Mutex<HashMap<Key, Vec<Counter>>>,
}

/// (name, class chain, flags, source): what a set of counters is found by.
type Key = (&'static str, &'static [&'static str], &'static [&'static str], Option<Arc<str>>);

impl Breakdown {
    /// A table that makes its counters under `scope`.
    pub fn new(scope: &Scope) -> Self {
        Self { scope: scope.clone(), made: Mutex::default() }
    }

    /// Counts one failure under every name it has: with a `source` below `<name>/<source>`, whose own total is counted
    /// too; without one below `<name>`, whose total the caller counts.
    pub fn count(
        &self,
        name: &'static str,
        chain: &'static [&'static str],
        flags: &'static [&'static str],
        source: Option<&Arc<str>>,
    ) {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = made.entry((name, chain, flags, source.cloned())).or_insert_with(|| {
            let mut counters = Vec::new();
            let mut base = self.scope.scope(name);
            if let Some(source) = source {
                counters.push(base.counter(source));
                base = base.scope(source);
            }
            if flags.is_empty() {
                chain_counters(&base, chain, &mut counters);
            }
            for flag in flags {
                counters.push(base.counter(flag));
                chain_counters(&base.scope(flag), chain, &mut counters);
            }
            counters
        });
        for counter in counters {
            counter.incr();
        }
    }

    /// As [`Breakdown::count`] for a table whose name is also its total (`service_creation/failures`,
    /// `dispatcher/stream/failures`): `<name>` and every prefix of the chain.
    pub fn count_with_total(&self, name: &'static str, chain: &'static [&'static str]) {
        self.scope.counter(name).incr();
        self.count(name, chain, &[], None);
    }
}

/// A counter for every prefix of the cause chain.
fn chain_counters(base: &Scope, chain: &[&str], into: &mut Vec<Counter>) {
    let mut scope = base.clone();
    for class in chain {
        into.push(scope.counter(class));
        scope = scope.scope(class);
    }
}
