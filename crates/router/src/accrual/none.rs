//! `none`: the policy that never fires. Its client has the four counters all the same, at 0.

use std::time::Duration;

use tokio::time::Instant;

use super::AccrualPolicy;

/// Takes no endpoint out.
#[derive(Clone, Copy, Debug)]
pub struct Never;

impl AccrualPolicy for Never {
    fn record(&self, _ok: bool, _now: Instant) -> Option<Duration> {
        None
    }

    fn revived(&self, _now: Instant) {}
}
