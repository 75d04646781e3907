//! The retry budget: how many retries are affordable now.
//!
//! One budget serves all requests of a logical service (retries) or of a client (requeues), on all workers. Requests
//! deposit, retries withdraw, and both fade after `ttl`. The arithmetic is contract (http-behaviour §10.2, Finagle's
//! `RetryBudget`): tokens are thousandths of a request, a slice is a tenth of `ttl`, and a reserve allows retries at low
//! traffic. Deposits and withdrawals are a few atomic additions; the request path takes no lock here.

use std::time::Duration;

use tokio::time::Instant;

use crate::config::RetryBudgetConfig;
use crate::windowed::WindowedSum;

/// Permits a share of requests to be retried, and a few per second on top.
#[derive(Debug)]
pub struct RetryBudget {
    deposit: i64,
    withdrawal: i64,
    reserve: i64,
    tokens: WindowedSum<10>,
}

impl RetryBudget {
    /// A budget whose deposits last for `ttl` (whole seconds), with `min_retries_per_sec` retries per second for free
    /// and `percent_can_retry` (0.2 = a fifth) retries per request.
    pub fn new(ttl: Duration, min_retries_per_sec: u32, percent_can_retry: f64) -> Self {
        Self::starting_at(Instant::now(), ttl, min_retries_per_sec, percent_can_retry)
    }

    /// Like [`Self::new`], with the slices counted from `origin`.
    pub fn starting_at(origin: Instant, ttl: Duration, min_retries_per_sec: u32, percent_can_retry: f64) -> Self {
        let (deposit, withdrawal) = if percent_can_retry > 0.0 {
            // Finagle keeps the withdrawal in a 32-bit integer; above 1000 (more than one retry per token) it is one.
            (SCALE as i64, ((SCALE / percent_can_retry) as i64).clamp(1, i64::from(i32::MAX)))
        } else {
            (0, 1)
        };
        let reserve = (i64::from(min_retries_per_sec) * ttl.as_secs() as i64).saturating_mul(withdrawal);
        // Half the range is left to the tokens themselves.
        let reserve = reserve.min(i64::MAX / 2);
        Self { deposit, withdrawal, reserve, tokens: WindowedSum::new(ttl, origin) }
    }

    /// Credits a request.
    pub fn deposit(&self, now: Instant) {
        if self.deposit != 0 {
            self.tokens.add(self.deposit, now);
        }
    }

    /// Takes a retry out of the budget, if there is one.
    pub fn try_withdraw(&self, now: Instant) -> bool {
        self.tokens.take_down_to(-self.reserve, self.withdrawal, now)
    }

    /// How many retries are affordable now.
    pub fn balance(&self, now: Instant) -> u64 {
        let left = (self.tokens.sum(now) + self.reserve) / self.withdrawal;
        u64::try_from(left).unwrap_or(0)
    }
}

impl Default for RetryBudget {
    /// Ten seconds, ten per second, a fifth: the default of retries and of requeues.
    fn default() -> Self {
        Self::new(Duration::from_secs(10), 10, 0.2)
    }
}

impl From<&RetryBudgetConfig> for RetryBudget {
    fn from(config: &RetryBudgetConfig) -> Self {
        Self::new(config.ttl, config.min_retries_per_sec, config.percent_can_retry)
    }
}

/// Tokens per request.
const SCALE: f64 = 1_000.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn default(origin: Instant) -> RetryBudget {
        RetryBudget::starting_at(origin, Duration::from_secs(10), 10, 0.2)
    }

    #[test]
    fn an_idle_budget_affords_a_hundred() {
        let now = Instant::now();
        let budget = default(now);
        assert_eq!(budget.balance(now), 100);
        assert_eq!((0..1_000).filter(|_| budget.try_withdraw(now)).count(), 100);
        assert_eq!(budget.balance(now), 0);
    }

    /// As recorded: 220 after 600 quick requests, 100 again 12 seconds later.
    #[test]
    fn traffic_raises_the_balance_and_silence_lowers_it() {
        let now = Instant::now();
        let budget = default(now);
        for _ in 0..600 {
            budget.deposit(now);
        }
        assert_eq!(budget.balance(now), 220);
        assert_eq!(budget.balance(now + Duration::from_secs(12)), 100);
    }

    /// As recorded: of a request that always fails, 100 retries follow the first attempt.
    #[test]
    fn a_request_that_always_fails_is_sent_a_hundred_and_one_times() {
        let now = Instant::now();
        let budget = default(now);
        budget.deposit(now);
        let mut sent = 1;
        while budget.try_withdraw(now) {
            sent += 1;
        }
        assert_eq!(sent, 101);
    }

    /// As recorded in `budget`: one per second for ten seconds, and nothing from traffic.
    #[test]
    fn a_reserve_alone_is_spent_and_comes_back() {
        let now = Instant::now();
        let budget = RetryBudget::starting_at(now, Duration::from_secs(10), 1, 0.0);
        for _ in 0..3 {
            budget.deposit(now);
        }
        assert_eq!((0..20).filter(|_| budget.try_withdraw(now)).count(), 10);
        assert!(!budget.try_withdraw(now + Duration::from_secs(9)));
        assert!(budget.try_withdraw(now + Duration::from_secs(10)));
    }

    #[test]
    fn without_reserve_and_share_nothing_is_retried() {
        let now = Instant::now();
        let budget = RetryBudget::starting_at(now, Duration::from_secs(10), 0, 0.0);
        for _ in 0..100 {
            budget.deposit(now);
        }
        assert!(!budget.try_withdraw(now));
        assert_eq!(budget.balance(now), 0);
    }

    #[test]
    fn extreme_settings_neither_panic_nor_overflow() {
        let now = Instant::now();
        for percent in [0.0, f64::MIN_POSITIVE, 1e-9, 0.5, 999.0, 1_000.0] {
            for min in [0, 1, u32::MAX] {
                let budget = RetryBudget::starting_at(now, Duration::from_secs(60), min, percent);
                budget.deposit(now);
                let before = budget.balance(now);
                assert_eq!(budget.try_withdraw(now), before > 0, "{percent} {min}");
            }
        }
    }

    proptest! {
        /// The formula of the reference, written down a second time with exact tokens of a single moment.
        #[test]
        fn follows_the_formula(
            ttl in 1_u64..=60, min in 0_u32..50, percent in 0.0_f64..3.0, steps in proptest::collection::vec(any::<bool>(), 0..400),
        ) {
            let now = Instant::now();
            let budget = RetryBudget::starting_at(now, Duration::from_secs(ttl), min, percent);
            let (d, w) = if percent > 0.0 { (1_000, (1_000.0 / percent).floor() as i64) } else { (0, 1) };
            prop_assume!(w <= i64::from(i32::MAX));
            let r = i64::from(min) * ttl as i64 * w;
            let mut s = 0_i64;
            for deposit in steps {
                if deposit {
                    budget.deposit(now);
                    s += d;
                } else {
                    let allowed = s + r >= w;
                    if allowed {
                        s -= w;
                    }
                    prop_assert_eq!(budget.try_withdraw(now), allowed);
                }
                prop_assert_eq!(budget.balance(now) as i64, (s + r) / w);
            }
        }
    }
}
