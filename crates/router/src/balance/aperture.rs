//! `aperture`: p2c among no more endpoints than the load needs.
//!
//! The endpoints stand in an order that is random per process but does not change (tokens drawn when they are added),
//! the open ones in front. Picks are made among the first `A`. Each acquisition and each release folds the number of
//! outstanding requests into an average; when that average per endpoint of the aperture leaves the load band, the
//! aperture widens or narrows by one (http-behaviour §8, Finagle's `RandomAperture` with `LoadBand`). An endpoint
//! outside that has been idle for ten windows is told to close its connections.
//!
//! Finagle's deterministic mode is never active in Linkerd 1.x; its gauges are here because dashboards list them. Unlike
//! Finagle a rebuild keeps the width reached so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use l5d_telemetry::{Counter, Scope};
use tokio::time::Instant;

use super::distributor::View;
use super::{Book, Member, Node, Status, p2c};
use crate::ema::Ema;
use crate::windowed::nanos;

/// The settings of [`super::Kind::Aperture`] that matter here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Band {
    pub(crate) smooth_window: Duration,
    pub(crate) low_load: f64,
    pub(crate) high_load: f64,
    pub(crate) min_aperture: usize,
}

/// The width of one weight class's aperture and the load that steers it.
pub(crate) struct Aperture {
    band: Band,
    origin: Instant,
    width: AtomicUsize,
    endpoints: AtomicUsize,
    total: AtomicI64,
    offered: Ema,
    /// A fingerprint of the endpoints' order; -1 before the first.
    vector_hash: AtomicI64,
    widen: Counter,
    narrow: Counter,
    expired: Counter,
}

impl Aperture {
    /// An aperture of one, with its counters in the client's `loadbalancer` scope.
    pub(crate) fn new(band: Band, scope: &Scope, origin: Instant) -> Self {
        let load_band = scope.scope("loadband");
        // There is no coordinate that could change; the counter is part of the set.
        scope.counter("coordinate_updates");
        Self {
            band,
            origin,
            width: AtomicUsize::new(1),
            endpoints: AtomicUsize::new(0),
            total: AtomicI64::new(0),
            offered: Ema::new(band.smooth_window, origin),
            vector_hash: AtomicI64::new(-1),
            widen: load_band.counter("widen"),
            narrow: load_band.counter("narrow"),
            expired: scope.counter("expired"),
        }
    }

    /// The number of endpoints in the aperture.
    pub(crate) fn width(&self) -> usize {
        self.width.load(Relaxed)
    }

    /// The averaged number of outstanding requests.
    pub(crate) fn offered_load(&self) -> f64 {
        self.offered.last().unwrap_or(0.0)
    }

    /// A fingerprint of the order.
    pub(crate) fn vector_hash(&self) -> i64 {
        self.vector_hash.load(Relaxed)
    }

    /// Picks among the first endpoints of the order.
    pub(crate) fn pick<'a, N: Node>(
        &self,
        view: &'a View<N>,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Option<(&'a Arc<Member<N>>, Status)> {
        p2c::pick(&view.members[..self.width().min(view.members.len())], rng, now)
    }

    /// Puts the members in the order of their tokens, and keeps the width within their number.
    pub(crate) fn arrange<N: Node>(&self, mut members: Vec<Arc<Member<N>>>) -> Vec<Arc<Member<N>>> {
        members.sort_by_key(|member| token(member));
        let hash = members.iter().fold(0_u32, |hash, member| hash.rotate_left(5) ^ token(member) as u32);
        self.vector_hash.store(i64::from(hash as i32), Relaxed);
        self.endpoints.store(members.len(), Relaxed);
        self.width.store(self.width().clamp(self.least(), members.len().max(1)), Relaxed);
        members
    }

    /// One request more (or less) is outstanding.
    pub(crate) fn adjust(&self, delta: i64, now: Instant) {
        let total = (self.total.fetch_add(delta, Relaxed) + delta) as f64;
        let offered = self.offered.fold(now, |previous| match previous {
            None => total,
            Some((average, left)) => total * (1.0 - left) + average * left,
        });
        let width = self.width();
        let load = offered / width as f64;
        // Two workers may both find the width wrong; the exchange lets one of them move it, by one.
        let set = |new| self.width.compare_exchange(width, new, Relaxed, Relaxed).is_ok();
        if load >= self.band.high_load && width < self.endpoints.load(Relaxed) {
            if set(width + 1) {
                self.widen.incr();
            }
        } else if load <= self.band.low_load && width > self.least() && set(width - 1) {
            self.narrow.incr();
        }
    }

    /// Tells endpoints outside of the aperture that were idle for ten windows.
    pub(crate) fn expire_idle<N: Node>(&self, view: &View<N>, now: Instant) {
        let limit = self.band.smooth_window.saturating_mul(10);
        for member in view.members.iter().skip(self.width()) {
            let Book::Aperture { place, .. } = &member.book else { continue };
            let since = place.idle_since.load(Relaxed);
            let idle = since != NEVER && member.pending.load(Relaxed) == 0;
            if idle && now.saturating_duration_since(place.origin + Duration::from_nanos(since)) >= limit {
                place.idle_since.store(NEVER, Relaxed);
                self.expired.incr();
                member.node.expire();
            }
        }
    }

    fn least(&self) -> usize {
        self.band.min_aperture.min(self.endpoints.load(Relaxed)).max(1)
    }

    /// Where a new endpoint stands.
    pub(crate) fn place(&self) -> Place {
        Place { token: fastrand::u64(..), origin: self.origin, idle_since: AtomicU64::new(NEVER) }
    }
}

/// Where an endpoint stands in the order, and since when it is idle.
pub(crate) struct Place {
    token: u64,
    origin: Instant,
    /// Nanoseconds since `origin`; `NEVER` when there is nothing to expire.
    idle_since: AtomicU64,
}

impl Place {
    pub(crate) fn idle_since(&self, now: Instant) {
        self.idle_since.store(nanos(now.saturating_duration_since(self.origin)), Relaxed);
    }
}

const NEVER: u64 = u64::MAX;

fn token<N: Node>(member: &Member<N>) -> u64 {
    match &member.book {
        Book::Aperture { place, .. } => place.token,
        _ => 0,
    }
}
