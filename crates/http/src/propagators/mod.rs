//! Trace propagators: how a trace's ids travel between hops (http-behaviour §12, config §18). One file a kind.

use l5d_telemetry::trace::{Sampler, TraceId};

use crate::{
    codec::{Headers, headers::text},
    ctx::Ctx,
};

l5d_config::kinds! {
    /// Every propagator that `routers[].tracePropagator` may name.
    pub PROPAGATORS: dyn PropagatorConfig => linkerd, zipkin, w3c,
}

/// Reads the caller's span and writes the next hop's.
pub trait Propagator: Send + Sync + std::fmt::Debug {
    /// Sets the context's trace to a new span: a child of the caller's if there is one and it is trusted, else a root.
    /// Removes what it read.
    fn read(&self, headers: &mut Headers, ctx: &mut Ctx, trusted: bool);
    /// Writes the span of an attempt.
    fn write(&self, trace: &TraceId, headers: &mut Headers);
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

/// The decision for a caller who asks for a share of all traces to be sampled, in the header of that value.
fn asked_for(rate: &[u8], id: &TraceId, salt: u64) -> Option<bool> {
    let rate = text(rate)?.trim().parse::<f64>().ok()?;
    Some(Sampler::with_salt(rate, salt).picks(id))
}

/// A hex number of 1 to 16 digits.
fn hex(text: &str) -> Option<u64> {
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// A trace id of 1 to 32 hex digits: its lower half, and the upper one if there is one.
fn trace_hex(text: &str) -> Option<(u64, Option<u64>)> {
    if text.len() <= 16 {
        return Some((hex(text)?, None));
    }
    let (high, low) = text.is_ascii().then(|| text.split_at(text.len() - 16))?;
    Some((hex(low)?, Some(hex(high)?)))
}
