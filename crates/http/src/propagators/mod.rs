//! Trace propagators: how a trace's ids travel between hops (http-behaviour §12, config §18). One file a kind.

use http::HeaderMap;

use crate::ctx::{Ctx, TraceId};

l5d_config::kinds! {
    /// Every propagator that `routers[].tracePropagator` may name.
    pub PROPAGATORS: dyn PropagatorConfig => linkerd, zipkin,
}

/// Reads the caller's span and writes the next hop's.
pub trait Propagator: Send + Sync + std::fmt::Debug {
    /// Sets the context's trace to a new span: a child of the caller's if there is one and it is trusted, else a root.
    /// Removes what it read.
    fn read(&self, headers: &mut HeaderMap, ctx: &mut Ctx, trusted: bool);
    /// Writes the span of an attempt.
    fn write(&self, trace: &TraceId, headers: &mut HeaderMap);
}

/// A section that has been read.
pub trait PropagatorConfig: Send + Sync + std::fmt::Debug {
    /// The propagator that it asks for.
    fn build(&self) -> std::sync::Arc<dyn Propagator>;
}

/// The propagator of a router without a `tracePropagator` section.
pub(crate) fn default() -> std::sync::Arc<dyn Propagator> {
    std::sync::Arc::new(linkerd::Linkerd::new())
}

/// Linkerd's sampler: `|traceId XOR salt| mod 10000 < rate × 10000`, so that all proxies with the same salt agree
/// (`Sampler.scala`).
pub(crate) fn sampled(trace: u64, salt: u64, rate: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "at most 10 000")]
    let limit = (rate.clamp(0.0, 1.0) * 10_000.0) as u64;
    (trace ^ salt).cast_signed().unsigned_abs() % 10_000 < limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_met() {
        assert!((0..1000).all(|t| !sampled(t, 7, 0.0) && sampled(t, 7, 1.0)));
        let hits = (0..100_000_u64).filter(|t| sampled(t.wrapping_mul(0x9e37_79b9_7f4a_7c15), 7, 0.25)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
    }
}
