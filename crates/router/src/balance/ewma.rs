//! `ewma`: the peak EWMA of an endpoint's round-trip times, weighted by its outstanding requests.
//!
//! The average rises at once to a slower answer and fades towards faster ones (http-behaviour §8, Finagle's `PeakEwma`).
//! It fades whenever it is read, too, so that an endpoint nobody picks because it was slow gets another chance. An
//! endpoint that never answered but has a request out is the last choice.

use std::time::Duration;

use tokio::time::Instant;

use crate::ema::Ema;
use crate::windowed::nanos;

/// The load metric of one endpoint. One word, written by whoever reads or observes; see [`Ema`].
#[derive(Debug)]
pub(crate) struct PeakEwma {
    cost: Ema,
}

impl PeakEwma {
    pub(crate) fn new(decay: Duration, origin: Instant) -> Self {
        Self { cost: Ema::new(decay, origin) }
    }

    /// A request took `rtt`, up to `now`.
    pub(crate) fn observe(&self, rtt: Duration, now: Instant) {
        self.fold(nanos(rtt) as f64, now);
    }

    /// The cost of one more request beside the `pending` ones.
    pub(crate) fn load(&self, pending: u64, now: Instant) -> f64 {
        // Before the first answer there is nothing to fade.
        let cost = if self.cost.last().is_some() { self.fold(0.0, now) } else { 0.0 };
        if cost == 0.0 && pending != 0 { PENALTY + pending as f64 } else { cost * (pending + 1) as f64 }
    }

    fn fold(&self, rtt: f64, now: Instant) -> f64 {
        self.cost.fold(now, |previous| match previous {
            None => rtt,
            Some((cost, _)) if rtt > cost => rtt,
            // Never quite nothing: zero is the mark of an endpoint that has not answered yet.
            Some((cost, left)) if cost > 0.0 => (cost * left + rtt * (1.0 - left)).max(f64::from(f32::MIN_POSITIVE)),
            Some(_) => 0.0,
        })
    }
}

/// More than any round-trip time: Finagle's `Long.MaxValue >> 16`, in nanoseconds 39 hours.
const PENALTY: f64 = (i64::MAX >> 16) as f64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn an_endpoint_that_never_answered_is_the_last_choice() {
        let now = Instant::now();
        let ewma = PeakEwma::new(10 * SECOND, now);
        assert_eq!(ewma.load(0, now), 0.0);
        assert_eq!(ewma.load(2, now), PENALTY + 2.0);
    }

    #[test]
    fn a_peak_shows_at_once_and_fades() {
        let now = Instant::now();
        let ewma = PeakEwma::new(10 * SECOND, now);
        ewma.observe(10 * MS, now);
        ewma.observe(100 * MS, now);
        assert_eq!(ewma.load(0, now), 1e8);
        assert_eq!(ewma.load(3, now), 4e8);
        let later = ewma.load(0, now + 10 * SECOND);
        assert!((later - 1e8 / std::f64::consts::E).abs() < 1e5, "{later}");
        assert!(ewma.load(0, now + 10_000 * SECOND) > 0.0);
    }

    proptest! {
        /// Against the formula of the reference, in 64-bit floats and whole nanoseconds.
        #[test]
        fn follows_the_formula(steps in proptest::collection::vec((0_u64..3_000, proptest::option::of(1_u64..1_000)), 1..100)) {
            let origin = Instant::now();
            let ewma = PeakEwma::new(10 * SECOND, origin);
            let (mut cost, mut stamp, mut at) = (0.0_f64, 0.0_f64, 0);
            for (gap_ms, rtt_ms) in steps {
                at += gap_ms;
                let (now, now_ns) = (origin + Duration::from_millis(at), at as f64 * 1e6);
                let left = libm::exp(-(now_ns - stamp) / 10e9);
                let rtt = rtt_ms.unwrap_or(0) as f64 * 1e6;
                cost = if rtt > cost { rtt } else { cost * left + rtt * (1.0 - left) };
                stamp = now_ns;
                match rtt_ms {
                    Some(rtt_ms) => ewma.observe(Duration::from_millis(rtt_ms), now),
                    None => {
                        let load = ewma.load(4, now);
                        let expected = if cost == 0.0 { PENALTY + 4.0 } else { cost * 5.0 };
                        prop_assert!((load - expected).abs() <= expected * 1e-3, "{} instead of {}", load, expected);
                    }
                }
            }
        }
    }
}
