//! `roundRobin`: one endpoint after the other.
//!
//! It goes round those that were open when the order was last built, or round all if none was. It is built anew when a
//! pick meets one that is not open any more, and when one that was left out is open again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::time::Instant;

use super::distributor::View;
use super::{Member, Node, Status};

/// The hand that goes round; it keeps its place when the order is rebuilt.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    next: AtomicUsize,
}

impl RoundRobin {
    pub(crate) fn pick<'a, N: Node>(&self, view: &'a View<N>, now: Instant) -> Option<(&'a Arc<Member<N>>, Status)> {
        let round = if view.open == 0 { &view.members[..] } else { &view.members[..view.open] };
        if round.is_empty() {
            return None;
        }
        let member = &round[self.next.fetch_add(1, Relaxed) % round.len()];
        let status = member.status(now);
        if status != Status::Open {
            view.saw_down.store(true, Relaxed);
        }
        Some((member, status))
    }
}
