//! Which traces a share of all is.

use super::TraceId;

/// Picks a share of all traces: `|traceId XOR salt| mod 10000 < rate × 10000`, as Linkerd's `Sampler` does. The same trace
/// is always picked or never, and rates finer than 0.0001 are lost.
#[derive(Clone, Copy, Debug)]
pub struct Sampler {
    salt: u64,
    limit: u64,
}

impl Sampler {
    /// Picks `rate` of all traces, 0.0 to 1.0; what is beyond is taken for the nearest of the two. The salt is random, so
    /// that two samplers pick different traces.
    pub fn new(rate: f64) -> Self {
        Self::with_salt(rate, fastrand::u64(..))
    }

    /// The same with this salt.
    pub fn with_salt(rate: f64, salt: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 10 000, and a NaN is 0")]
        let limit = (rate.clamp(0.0, 1.0) * 10_000.0) as u64;
        Self { salt, limit }
    }

    /// Whether this trace is picked.
    pub fn picks(&self, id: &TraceId) -> bool {
        self.limit > 0 && (id.trace ^ self.salt).cast_signed().unsigned_abs() % 10_000 < self.limit
    }

    /// The decision that the trace brings along, or else whether it is picked.
    pub fn wants(&self, id: &TraceId) -> bool {
        id.sampled().unwrap_or_else(|| self.picks(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(trace: u64) -> TraceId {
        TraceId { span: 1, parent: 1, trace, trace_high: None, flags: 0 }
    }

    #[test]
    fn rates_are_met() {
        let (none, all) = (Sampler::with_salt(0.0, 7), Sampler::with_salt(1.0, 7));
        assert!((0..1000).all(|t| !none.picks(&trace(t)) && all.picks(&trace(t))));
        assert!(!Sampler::with_salt(f64::NAN, 7).picks(&trace(7)));
        assert!(Sampler::with_salt(9.0, 7).picks(&trace(3)));
        let quarter = Sampler::with_salt(0.25, 7);
        let hits = (0..100_000_u64).filter(|t| quarter.picks(&trace(t.wrapping_mul(0x9e37_79b9_7f4a_7c15)))).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
    }

    #[test]
    fn a_decision_that_was_made_stands() {
        let none = Sampler::new(0.0);
        assert!(none.wants(&trace(1).with_sampled(true)));
        assert!(!Sampler::new(1.0).wants(&trace(1).with_sampled(false)));
        assert!(Sampler::new(1.0).wants(&trace(1)));
    }
}
