//! `p2c`: the power of two choices.
//!
//! Of two endpoints taken at random the healthier one wins, then the one with less load. With the count of requests as
//! load this is `p2c`, the default; with the peak EWMA it is `ewma`; the aperture uses it within its bounds. Two random
//! choices suffice to keep the longest queue short (Mitzenmacher 2001), and no state is shared but the counts.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Member, Node, Status};

/// Picks among `members`; `None` when there are none.
pub(crate) fn pick<'a, N: Node>(
    members: &'a [Arc<Member<N>>],
    rng: &mut fastrand::Rng,
    now: Instant,
) -> Option<(&'a Arc<Member<N>>, Status)> {
    let (a, b) = match members {
        [] => return None,
        [only] => return Some((only, only.status(now))),
        _ => {
            let a = rng.usize(..members.len());
            // The second choice is among the others: those from `a` on move up by one.
            let b = rng.usize(..members.len() - 1);
            (&members[a], &members[b + usize::from(b >= a)])
        }
    };
    let (a_status, b_status) = (a.status(now), b.status(now));
    let second = b_status > a_status || (b_status == a_status && b.load(now) < a.load(now));
    Some(if second { (b, b_status) } else { (a, a_status) })
}
