//! Deadlines that callers send along (`l5d-ctx-deadline`) are counted, and never refuse a request: Finagle's
//! `DeadlineFilter` in the dark mode that Linkerd leaves it in.
//!
//! Contract: a request after its deadline is `exceeded`. It is `rejected` as well, and passes all the same, when no more
//! than a fifth of its connection's requests of the last ten seconds were: five requests buy one rejection, by the
//! arithmetic of retry budgets, which Finagle uses here too.

use std::{sync::Arc, time::Duration};

use l5d_router::retry::RetryBudget;
use l5d_telemetry::{Counter, Scope, Stat};
use tokio::time::Instant;

use crate::ctx::{Deadline, wall_ns};

/// For so long a request counts towards a rejection.
const PERIOD: Duration = Duration::from_secs(10);
/// The share of requests that could be rejected.
const MAX_REJECTED: f64 = 0.2;

/// A server's counts, `admission_control/deadline/*`.
#[derive(Debug)]
pub(crate) struct DeadlineStats {
    exceeded: Counter,
    rejected: Counter,
    expired_ms: Stat,
    remaining_ms: Stat,
}

impl DeadlineStats {
    pub(crate) fn new(scope: &Scope) -> Arc<Self> {
        let scope = scope.scope("admission_control").scope("deadline");
        Arc::new(Self {
            exceeded: scope.counter("exceeded"),
            rejected: scope.counter("rejected"),
            expired_ms: scope.stat("expired_ms"),
            remaining_ms: scope.stat("remaining_ms"),
        })
    }
}

/// The deadlines of one connection's requests.
#[derive(Debug)]
pub(crate) struct Deadlines {
    stats: Arc<DeadlineStats>,
    tokens: RetryBudget,
}

impl Deadlines {
    pub(crate) fn new(stats: &Arc<DeadlineStats>) -> Arc<Self> {
        Arc::new(Self { stats: Arc::clone(stats), tokens: RetryBudget::new(PERIOD, 0, MAX_REJECTED) })
    }

    /// A request passes at `now`.
    pub(crate) fn pass(&self, deadline: Option<Deadline>, now: Instant) {
        let Some(deadline) = deadline else { return self.tokens.deposit(now) };
        let wall_ns = wall_ns();
        if deadline.until < wall_ns {
            self.stats.exceeded.incr();
            self.stats.expired_ms.add(ms(wall_ns - deadline.until));
            if self.tokens.try_withdraw(now) {
                return self.stats.rejected.incr();
            }
        } else {
            self.stats.remaining_ms.add(ms(deadline.until - wall_ns));
        }
        self.tokens.deposit(now);
    }
}

/// How long a request was on its way, by the stamp of its deadline; 0 when the clocks disagree.
pub(crate) fn transit_ms(deadline: Deadline) -> u64 {
    ms(wall_ns().saturating_sub(deadline.at))
}

fn ms(ns: u64) -> u64 {
    ns / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_telemetry::MetricsTree;

    const LATE: Option<Deadline> = Some(Deadline { at: 1, until: 2 });

    fn deadlines() -> (MetricsTree, Arc<Deadlines>) {
        let tree = MetricsTree::new();
        let deadlines = Deadlines::new(&DeadlineStats::new(&tree.root()));
        (tree, deadlines)
    }

    fn counts(deadlines: &Deadlines) -> (u64, u64) {
        (deadlines.stats.exceeded.value(), deadlines.stats.rejected.value())
    }

    #[test]
    fn five_requests_buy_one_rejection() {
        let (_tree, deadlines) = deadlines();
        let now = Instant::now();
        for _ in 0..5 {
            deadlines.pass(LATE, now);
        }
        assert_eq!(counts(&deadlines), (5, 0));
        deadlines.pass(LATE, now);
        assert_eq!(counts(&deadlines), (6, 1));
        // What was spent is spent; requests in time, and those without a deadline, earn as late ones do.
        for deadline in [LATE, None, Some(Deadline { at: 1, until: u64::MAX }), None, None] {
            deadlines.pass(deadline, now);
        }
        assert_eq!(counts(&deadlines), (7, 1));
        deadlines.pass(LATE, now);
        assert_eq!(counts(&deadlines), (8, 2));
    }

    #[test]
    fn what_was_earned_fades() {
        let (_tree, deadlines) = deadlines();
        let now = Instant::now();
        for _ in 0..20 {
            deadlines.pass(None, now);
        }
        deadlines.pass(LATE, now + 2 * PERIOD);
        assert_eq!(counts(&deadlines), (1, 0));
    }
}
