//! Load balancing over the endpoints of a client.
//!
//! A [`Balancer`] owns the set of endpoints, what each of them carries, and the metrics `loadbalancer/*`. It does not
//! know what an endpoint is beyond [`Node::status`], and never connects anywhere: [`Balancer::pick`] hands out a
//! [`Lease`], which counts as load on its endpoint until it is finished or dropped. The algorithms are files beside this
//! one; `distributor` holds what they share: weight classes, and the rebuilt order of each.
//!
//! Contract (http-behaviour §8): an algorithm is asked up to `max_effort` times for an open endpoint; if there was none
//! it is asked once more and that one is taken whatever its status, so that a client whose endpoints are all marked dead
//! fails open. Without endpoints there is nothing to pick. Names, kinds and moments of the metrics are those of
//! metrics-catalog §1.4.
//!
//! Who writes: a pick reads one [`ArcSwap`] and writes only the counts of the endpoint it takes. Updates, and the
//! rebuilds that a pick may find necessary, are made under a lock that picks only ever try. The one exception is the
//! heap, whose order every pick changes: it is behind a mutex (see `heap`).

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;
use l5d_telemetry::{Counter, GaugeGuard, Scope};
use tokio::time::Instant;

use crate::config::{BalancerConfig, LoadBalancerConfig};

use self::aperture::Aperture;
use self::distributor::{Classes, Target, View};
use self::ewma::PeakEwma;
use self::heap::Heap;

pub(crate) mod aperture;
pub(crate) mod distributor;
pub(crate) mod ewma;
pub(crate) mod heap;
pub(crate) mod p2c;
pub(crate) mod round_robin;

/// Whether something can take requests; the better status is the greater one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Not any more.
    Closed,
    /// Not now: marked dead, being probed, or full.
    Busy,
    /// Yes.
    Open,
}

/// An endpoint, as a balancer sees it.
pub trait Node: Send + Sync + 'static {
    /// Whether requests should go there at `now`. Called for every candidate of every pick: an atomic load or two.
    fn status(&self, now: Instant) -> Status;

    /// Close what is idle: the endpoint has been outside of the aperture, unused, for long.
    fn expire(&self) {}
}

/// Which algorithm, with its settings. `max_effort` is how often it is asked for an open endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `p2c`: of two endpoints taken at random, the one with fewer requests.
    P2c {
        /// See above.
        max_effort: u32,
    },
    /// `ewma`: of two endpoints taken at random, the one with the lower peak-sensitive latency times requests.
    Ewma {
        /// See above.
        max_effort: u32,
        /// In what time a latency fades by e.
        decay: Duration,
    },
    /// `aperture`: p2c among no more endpoints than the load needs.
    Aperture {
        /// See above.
        max_effort: u32,
        /// In what time the measured load fades by e.
        smooth_window: Duration,
        /// Load per endpoint at which the aperture narrows.
        low_load: f64,
        /// Load per endpoint at which the aperture widens.
        high_load: f64,
        /// The fewest endpoints in the aperture; at least one.
        min_aperture: usize,
    },
    /// `heap`: the endpoint with the fewest requests of all.
    Heap,
    /// `roundRobin`: one endpoint after the other.
    RoundRobin {
        /// See above.
        max_effort: u32,
    },
}

impl Default for Kind {
    fn default() -> Self {
        Self::P2c { max_effort: 5 }
    }
}

impl Kind {
    /// The name under `loadbalancer/algorithm`.
    pub fn metric_name(&self) -> &'static str {
        match self {
            Self::P2c { .. } => "p2c_least_loaded",
            Self::Ewma { .. } => "p2c_peak_ewma",
            Self::Aperture { .. } => "aperture_least_loaded",
            Self::Heap => "heap_least_loaded",
            Self::RoundRobin { .. } => "round_robin",
        }
    }
}

/// How a client balances.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The algorithm.
    pub kind: Kind,
    /// Keeps endpoints that an update no longer names until they are not open any more.
    pub enable_probation: bool,
}

impl From<&LoadBalancerConfig> for Settings {
    fn from(config: &LoadBalancerConfig) -> Self {
        let kind = match config.balancer {
            BalancerConfig::P2c { max_effort } => Kind::P2c { max_effort },
            BalancerConfig::Ewma { max_effort, decay_time } => Kind::Ewma { max_effort, decay: decay_time },
            BalancerConfig::Aperture { max_effort, smooth_window, low_load, high_load, min_aperture } => {
                let min_aperture = min_aperture as usize;
                Kind::Aperture { max_effort, smooth_window, low_load, high_load, min_aperture }
            }
            BalancerConfig::Heap => Kind::Heap,
            BalancerConfig::RoundRobin { max_effort } => Kind::RoundRobin { max_effort },
        };
        Self { kind, enable_probation: config.enable_probation }
    }
}

/// Balances over endpoints of one client. Shared by all workers.
pub struct Balancer<N: Node> {
    settings: Settings,
    scope: Scope,
    busy_weight_classes: Counter,
    /// Counters that exist from the first update on.
    counters: OnceLock<Counters>,
    classes: Arc<ArcSwap<Classes<N>>>,
    /// Held while `classes` changes.
    gauges: Mutex<Vec<GaugeGuard>>,
    /// Whether endpoints on probation are in use, and have to be looked after.
    probation: AtomicBool,
    origin: Instant,
}

struct Counters {
    adds: Counter,
    removes: Counter,
    /// Not counted by the heap, which has no such counters.
    common: Option<CommonCounters>,
}

struct CommonCounters {
    updates: Counter,
    rebuilds: Counter,
    max_effort_exhausted: Counter,
}

impl<N: Node> Balancer<N> {
    /// A balancer without endpoints; `scope` is the client's `loadbalancer`.
    ///
    /// Until the first update there are only the metrics of the distributor, and nothing to pick.
    pub fn new(settings: Settings, scope: &Scope) -> Self {
        let classes = Arc::new(ArcSwap::from_pointee(Classes::none()));
        let read = |read: fn(&Classes<N>) -> f64| {
            let classes = Arc::clone(&classes);
            move || read(&classes.load())
        };
        let gauges = vec![
            scope.gauge("meanweight", read(|classes| float(classes.mean_weight()))),
            scope.gauge("num_weight_classes", read(|classes| classes.entries.len() as f64)),
        ];
        Self {
            settings,
            scope: scope.clone(),
            busy_weight_classes: scope.counter("busy_weight_classes"),
            counters: OnceLock::new(),
            classes,
            gauges: Mutex::new(gauges),
            probation: AtomicBool::new(false),
            origin: Instant::now(),
        }
    }

    /// Balances over `endpoints` (each with its weight) from now on. Endpoints that stay keep their load and history;
    /// they are recognised by their `Arc`.
    pub fn update(&self, endpoints: Vec<(Arc<N>, f64)>, now: Instant) {
        let mut gauges = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let counters = self.counters.get_or_init(|| self.register(&mut gauges));
        let old = self.classes.load_full();
        let mut targets: Vec<Target<N>> =
            endpoints.into_iter().map(|(node, weight)| Target { node, weight, leaving: false }).collect();
        if self.settings.enable_probation {
            old.keep_open(&mut targets, now);
            self.probation.store(targets.iter().any(|target| target.leaving), Relaxed);
        }
        self.replace(&old, targets, counters, now);
    }

    /// Picks an endpoint for a request that starts at `now`. `None`: there are no endpoints.
    #[inline]
    pub fn pick(&self, now: Instant) -> Option<Lease<N>> {
        self.pick_with(&mut fastrand::Rng::new(), now)
    }

    /// Like [`Self::pick`], with randomness of one's own: equal seeds give equal picks.
    pub fn pick_with(&self, rng: &mut fastrand::Rng, now: Instant) -> Option<Lease<N>> {
        let classes = self.classes.load();
        let entry = &classes.entries[classes.choose(rng, now, &self.busy_weight_classes)?];
        if let Some(heap) = entry.class.heap() {
            return heap.pick(now).map(|member| Lease { member, picked_at: now, held: true });
        }
        let mut picked = None;
        for _ in 0..self.max_effort() {
            let (member, status) = entry.class.pick(&entry.view, rng, now)?;
            if status == Status::Open {
                picked = Some(member);
                break;
            }
            if member.leaving.load(Relaxed) {
                self.release_leavers(now);
            }
        }
        let member = match picked {
            Some(member) => {
                if entry.class.needs_rebuild(&entry.view, now) {
                    self.rebuild(&entry.view, now);
                }
                Arc::clone(member)
            }
            None => self.pick_any(&entry.view, rng, now)?,
        };
        member.acquire(now);
        Some(Lease { member, picked_at: now, held: true })
    }

    /// Nothing open was found: count that, put the order right if that may help, and take what comes.
    #[cold]
    fn pick_any(&self, stale: &Arc<View<N>>, rng: &mut fastrand::Rng, now: Instant) -> Option<Arc<Member<N>>> {
        if let Some(Counters { common: Some(counters), .. }) = self.counters.get() {
            counters.max_effort_exhausted.incr();
        }
        self.rebuild(stale, now);
        let classes = self.classes.load();
        let entry = classes.replacing(stale)?;
        entry.class.pick(&entry.view, rng, now).map(|(member, _)| Arc::clone(member))
    }

    /// The best status of any endpoint: whether it makes sense to try again at once.
    pub fn status(&self, now: Instant) -> Status {
        let classes = self.classes.load();
        classes.entries.iter().map(|entry| entry.view.status(now)).max().unwrap_or(Status::Closed)
    }

    /// How many endpoints there are.
    pub fn size(&self) -> usize {
        self.classes.load().members().count()
    }

    /// The endpoints there are now, for the pages that list them.
    pub fn endpoints(&self) -> Vec<Arc<N>> {
        self.classes.load().members().map(|member| Arc::clone(&member.node)).collect()
    }

    /// The endpoints there are now with what they carry, for the pages that show it.
    pub fn carried(&self, now: Instant) -> Vec<Carried<N>> {
        let classes = self.classes.load();
        let members = classes.members();
        let carried = members.map(|member| Carried {
            node: Arc::clone(&member.node),
            pending: member.pending.load(Relaxed),
            load: member.load(now),
            leaving: member.leaving.load(Relaxed),
        });
        carried.collect()
    }

    /// What is due from time to time: lets go of endpoints on probation that are no longer open, and expires endpoints
    /// that have been idle outside of the aperture. Call it every [`Self::SWEEP_INTERVAL`] or so; it is cheap.
    pub fn sweep(&self, now: Instant) {
        self.release_leavers(now);
        for entry in &self.classes.load().entries {
            if let Some(aperture) = entry.class.aperture() {
                aperture.expire_idle(&entry.view, now);
            }
        }
    }

    /// How often [`Self::sweep`] wants to be called.
    pub const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

    fn max_effort(&self) -> u32 {
        match self.settings.kind {
            Kind::P2c { max_effort }
            | Kind::Ewma { max_effort, .. }
            | Kind::Aperture { max_effort, .. }
            | Kind::RoundRobin { max_effort } => max_effort,
            Kind::Heap => 1,
        }
    }

    fn replace(&self, old: &Classes<N>, targets: Vec<Target<N>>, counters: &Counters, now: Instant) {
        let (classes, changes) = old.replaced_by(targets, &self.settings.kind, &self.scope, self.origin, now);
        self.classes.store(Arc::new(classes));
        counters.adds.add(changes.adds);
        counters.removes.add(changes.removes);
        if let Some(counters) = &counters.common {
            counters.updates.add(changes.updates);
            counters.rebuilds.add(changes.rebuilds);
        }
    }

    /// Orders the endpoints of the class anew that is seen as `stale`, unless someone is at it, or it was done already.
    #[cold]
    fn rebuild(&self, stale: &Arc<View<N>>, now: Instant) {
        let _gauges = match self.gauges.try_lock() {
            Ok(gauges) => gauges,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if let Some(classes) = self.classes.load().rebuilt(stale, now) {
            self.classes.store(Arc::new(classes));
            if let Some(Counters { common: Some(counters), .. }) = self.counters.get() {
                counters.rebuilds.incr();
            }
        }
    }

    #[cold]
    fn release_leavers(&self, now: Instant) {
        if !self.probation.load(Relaxed) {
            return;
        }
        let (Ok(_gauges), Some(counters)) = (self.gauges.try_lock(), self.counters.get()) else { return };
        let old = self.classes.load_full();
        let mut targets = old.targets();
        let before = targets.len();
        targets.retain(|target| !target.leaving || target.node.status(now) == Status::Open);
        if targets.len() < before {
            self.probation.store(targets.iter().any(|target| target.leaving), Relaxed);
            self.replace(&old, targets, counters, now);
        }
    }

    /// The metrics that exist from the first update on.
    fn register(&self, gauges: &mut Vec<GaugeGuard>) -> Counters {
        let scope = &self.scope;
        let over_classes = |read: fn(&Classes<N>) -> f64| {
            let classes = Arc::clone(&self.classes);
            move || read(&classes.load())
        };
        let with_status = |status: Status| {
            let classes = Arc::clone(&self.classes);
            move || classes.load().count(status, Instant::now())
        };
        gauges.push(scope.gauge("size", over_classes(|classes| classes.members().count() as f64)));
        gauges.push(scope.gauge("load", over_classes(Classes::load)));
        gauges.push(scope.gauge("available", with_status(Status::Open)));
        let algorithm = scope.scope("algorithm");
        gauges.push(
            algorithm.gauge(self.settings.kind.metric_name(), over_classes(|classes| classes.entries.len() as f64)),
        );
        if matches!(self.settings.kind, Kind::Aperture { .. }) {
            let over_apertures = |read: fn(&Aperture) -> f64| {
                let classes = Arc::clone(&self.classes);
                move || classes.load().over_apertures(read)
            };
            let width: fn(&Aperture) -> f64 = |aperture| aperture.width() as f64;
            gauges.push(scope.gauge("logical_aperture", over_apertures(width)));
            gauges.push(scope.gauge("physical_aperture", over_apertures(width)));
            gauges.push(scope.gauge("use_deterministic_ordering", || 0.0));
            gauges.push(scope.gauge("eager_connections", || 0.0));
            gauges.push(scope.gauge("vector_hash", over_apertures(|aperture| aperture.vector_hash() as f64)));
            let load_band = scope.scope("loadband");
            gauges.push(load_band.gauge("offered_load_ema", over_apertures(|aperture| float(aperture.offered_load()))));
        }
        let common = (self.settings.kind != Kind::Heap).then(|| {
            gauges.push(scope.gauge("busy", with_status(Status::Busy)));
            gauges.push(scope.gauge("closed", with_status(Status::Closed)));
            CommonCounters {
                updates: scope.counter("updates"),
                rebuilds: scope.counter("rebuilds"),
                max_effort_exhausted: scope.counter("max_effort_exhausted"),
            }
        });
        Counters { adds: scope.counter("adds"), removes: scope.counter("removes"), common }
    }
}

/// A balancer that goes removes its endpoints.
impl<N: Node> Drop for Balancer<N> {
    fn drop(&mut self) {
        if let Some(counters) = self.counters.get() {
            counters.removes.add(self.size() as u64);
        }
        // The gauges hold the classes as well. Endpoints are to end here, not while the tree lets go of a gauge.
        self.classes.store(Arc::new(Classes::none()));
    }
}

impl<N: Node> fmt::Debug for Balancer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balancer").field("settings", &self.settings).field("size", &self.size()).finish_non_exhaustive()
    }
}

/// An endpoint and what it carries.
#[derive(Debug)]
pub struct Carried<N> {
    /// The endpoint.
    pub node: Arc<N>,
    /// Requests picked for it and not finished.
    pub pending: u64,
    /// What the algorithm compares: the same number, or the latency it expects.
    pub load: f64,
    /// No update names it any more.
    pub leaving: bool,
}

/// An endpoint taken for a request: load on it, until this is finished or dropped.
#[must_use = "dropping the lease at once ends the load"]
pub struct Lease<N: Node> {
    member: Arc<Member<N>>,
    picked_at: Instant,
    held: bool,
}

impl<N: Node> Lease<N> {
    /// The endpoint.
    pub fn node(&self) -> &Arc<N> {
        &self.member.node
    }

    /// Ends the load at `now`: the body was streamed, or the attempt failed. A mere drop does the same, but may have to
    /// read the clock.
    pub fn finish(mut self, now: Instant) {
        self.held = false;
        self.member.release(self.picked_at, || now);
    }
}

impl<N: Node> Deref for Lease<N> {
    type Target = N;

    fn deref(&self) -> &N {
        &self.member.node
    }
}

impl<N: Node> Drop for Lease<N> {
    fn drop(&mut self) {
        if self.held {
            self.member.release(self.picked_at, Instant::now);
        }
    }
}

impl<N: Node> fmt::Debug for Lease<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("picked_at", &self.picked_at).finish_non_exhaustive()
    }
}

/// An endpoint within a weight class, with what it carries.
pub(crate) struct Member<N: Node> {
    node: Arc<N>,
    /// Requests picked and not finished.
    pending: AtomicU64,
    /// Named by no update any more, but still in use.
    leaving: AtomicBool,
    book: Book<N>,
}

/// What an algorithm keeps of an endpoint beside the count of its requests.
pub(crate) enum Book<N: Node> {
    Count,
    Ewma(PeakEwma),
    Aperture { aperture: Arc<Aperture>, place: aperture::Place },
    Heap { heap: Arc<Heap<N>>, place: heap::Place },
}

impl<N: Node> Member<N> {
    fn status(&self, now: Instant) -> Status {
        self.node.status(now)
    }

    /// What the algorithm compares.
    fn load(&self, now: Instant) -> f64 {
        let pending = self.pending.load(Relaxed);
        match &self.book {
            Book::Ewma(ewma) => ewma.load(pending, now),
            _ => pending as f64,
        }
    }

    fn acquire(&self, now: Instant) {
        self.pending.fetch_add(1, Relaxed);
        if let Book::Aperture { aperture, .. } = &self.book {
            aperture.adjust(1, now);
        }
    }

    fn release(self: &Arc<Self>, picked_at: Instant, now: impl FnOnce() -> Instant) {
        let left = self.pending.fetch_sub(1, Relaxed) - 1;
        match &self.book {
            Book::Count => {}
            Book::Ewma(ewma) => {
                let now = now();
                ewma.observe(now.saturating_duration_since(picked_at), now);
            }
            Book::Aperture { aperture, place } => {
                let now = now();
                if left == 0 {
                    place.idle_since(now);
                }
                aperture.adjust(-1, now);
            }
            Book::Heap { heap, .. } => heap.put(self, &mut fastrand::Rng::new()),
        }
    }
}

/// A value that Finagle keeps as a 32-bit float, as the 64-bit number that prints like it.
fn float(value: f64) -> f64 {
    (value as f32).to_string().parse().unwrap_or(value)
}

#[cfg(test)]
mod tests;
