//! The weight classes of a balancer, and what the algorithms share.
//!
//! Endpoints of one weight form a class with an algorithm of its own (Finagle's `TrafficDistributor`). A request goes to
//! a class by chance, weight times size; if that class has no open endpoint, to the next one round that has. [`Classes`]
//! is never changed in place: updates and rebuilds make a new one that shares what stayed, so a pick works on one state
//! from beginning to end. A [`View`] is the order of one class's endpoints as the algorithm wants it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use l5d_telemetry::{Counter, Scope};
use tokio::time::Instant;

use super::aperture::{Aperture, Band};
use super::ewma::PeakEwma;
use super::heap::{self, Heap};
use super::round_robin::RoundRobin;
use super::{Book, Kind, Member, Node, Status, p2c};

/// An endpoint that is to be balanced over.
pub(crate) struct Target<N> {
    pub(crate) node: Arc<N>,
    pub(crate) weight: f64,
    /// No update names it any more; it stays while it is open.
    pub(crate) leaving: bool,
}

/// What an update changed, in the terms of the counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) adds: u64,
    pub(crate) removes: u64,
    pub(crate) updates: u64,
    pub(crate) rebuilds: u64,
}

/// All weight classes, by ascending weight. None at all before the first update, afterwards at least one.
pub(crate) struct Classes<N: Node> {
    pub(crate) entries: Vec<Entry<N>>,
    /// Upper bounds of the classes' shares, for choosing one by chance.
    bounds: Vec<f64>,
}

/// A class and the present order of its endpoints.
pub(crate) struct Entry<N: Node> {
    pub(crate) class: Arc<Class<N>>,
    pub(crate) view: Arc<View<N>>,
}

impl<N: Node> Clone for Entry<N> {
    fn clone(&self) -> Self {
        Self { class: Arc::clone(&self.class), view: Arc::clone(&self.view) }
    }
}

/// The endpoints of a class in the order the algorithm wants.
pub(crate) struct View<N: Node> {
    weight: f64,
    pub(crate) members: Vec<Arc<Member<N>>>,
    /// How many at the front were open when the order was made, if the algorithm sorts by that.
    pub(crate) open: usize,
    /// A pick met an endpoint that was open then and is not now.
    pub(crate) saw_down: AtomicBool,
}

/// One weight with its algorithm's state.
pub(crate) struct Class<N: Node> {
    weight: f64,
    algorithm: Algorithm<N>,
    origin: Instant,
}

enum Algorithm<N: Node> {
    P2c,
    Ewma(Duration),
    Aperture(Arc<Aperture>),
    Heap(Arc<Heap<N>>),
    RoundRobin(RoundRobin),
}

impl<N: Node> Classes<N> {
    pub(crate) fn none() -> Self {
        Self { entries: Vec::new(), bounds: Vec::new() }
    }

    fn new(entries: Vec<Entry<N>>) -> Self {
        let mut bound = 0.0;
        let bounds = entries
            .iter()
            .map(|entry| {
                bound += entry.view.weight * entry.view.members.len() as f64;
                bound
            })
            .collect();
        Self { entries, bounds }
    }

    /// Which class a request goes to.
    #[inline]
    pub(crate) fn choose(&self, rng: &mut fastrand::Rng, now: Instant, busy: &Counter) -> Option<usize> {
        // With a single class there is no other to turn to, whatever its status.
        if self.entries.len() <= 1 { (!self.entries.is_empty()).then_some(0) } else { Some(self.draw(rng, now, busy)) }
    }

    fn draw(&self, rng: &mut fastrand::Rng, now: Instant, busy: &Counter) -> usize {
        let count = self.entries.len();
        let total = self.bounds[count - 1];
        let drawn = if total > 0.0 {
            let at = rng.f64() * total;
            self.bounds.partition_point(|bound| *bound <= at).min(count - 1)
        } else {
            rng.usize(..count)
        };
        if self.entries[drawn].view.status(now) == Status::Open {
            return drawn;
        }
        busy.incr();
        (1..count)
            .map(|step| (drawn + step) % count)
            .find(|index| self.entries[*index].view.status(now) == Status::Open)
            .unwrap_or(drawn)
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Arc<Member<N>>> {
        self.entries.iter().flat_map(|entry| &entry.view.members)
    }

    pub(crate) fn count(&self, status: Status, now: Instant) -> f64 {
        self.members().filter(|member| member.status(now) == status).count() as f64
    }

    pub(crate) fn load(&self) -> f64 {
        self.members().map(|member| member.pending.load(Relaxed)).sum::<u64>() as f64
    }

    pub(crate) fn mean_weight(&self) -> f64 {
        match self.members().count() {
            0 => 0.0,
            count => self.bounds.last().copied().unwrap_or(0.0) / count as f64,
        }
    }

    /// A sum over the apertures of the classes.
    pub(crate) fn over_apertures(&self, read: impl Fn(&Aperture) -> f64) -> f64 {
        self.entries.iter().filter_map(|entry| entry.class.aperture()).map(read).sum()
    }

    /// What took the place of `stale`.
    pub(crate) fn replacing(&self, stale: &View<N>) -> Option<&Entry<N>> {
        self.entries.iter().find(|entry| entry.view.weight == stale.weight).or_else(|| self.entries.first())
    }

    pub(crate) fn targets(&self) -> Vec<Target<N>> {
        self.entries
            .iter()
            .flat_map(|entry| {
                entry.view.members.iter().map(|member| Target {
                    node: Arc::clone(&member.node),
                    weight: entry.view.weight,
                    leaving: member.leaving.load(Relaxed),
                })
            })
            .collect()
    }

    /// Adds to `targets`, as leaving, the endpoints of these classes that are open and not among them.
    pub(crate) fn keep_open(&self, targets: &mut Vec<Target<N>>, now: Instant) {
        let named: Vec<*const N> = targets.iter().map(|target| Arc::as_ptr(&target.node)).collect();
        let open = self
            .targets()
            .into_iter()
            .filter(|target| !named.contains(&Arc::as_ptr(&target.node)) && target.node.status(now) == Status::Open);
        targets.extend(open.map(|target| Target { leaving: true, ..target }));
    }

    /// These classes with the endpoints of `targets`: what stays keeps its state.
    pub(crate) fn replaced_by(
        &self,
        targets: Vec<Target<N>>,
        kind: &Kind,
        scope: &Scope,
        origin: Instant,
        now: Instant,
    ) -> (Self, Changes) {
        let mut changes = Changes::default();
        let groups = group(targets);
        let mut entries = Vec::with_capacity(groups.len());
        for (weight, targets) in groups {
            let old = self.entries.iter().find(|entry| entry.view.weight == weight);
            entries.push(match old {
                Some(old) => old.updated(targets, &mut changes, now),
                None => {
                    let class = Arc::new(Class::new(weight, kind, scope, origin));
                    let view = Arc::new(class.arrange(Vec::new(), now));
                    // A new class counts as updated even if it begins empty.
                    changes.updates += u64::from(targets.is_empty());
                    Entry { class, view }.updated(targets, &mut changes, now)
                }
            });
        }
        for old in &self.entries {
            if !entries.iter().any(|entry| entry.view.weight == old.view.weight) {
                changes.removes += old.view.members.len() as u64;
            }
        }
        (Self::new(entries), changes)
    }

    /// The classes with the view `stale` made anew, if it is in use and its algorithm has an order to put right.
    pub(crate) fn rebuilt(&self, stale: &Arc<View<N>>, now: Instant) -> Option<Self> {
        let index = self.entries.iter().position(|entry| Arc::ptr_eq(&entry.view, stale))?;
        let class = &self.entries[index].class;
        if !matches!(class.algorithm, Algorithm::Aperture(_) | Algorithm::RoundRobin(_)) {
            return None;
        }
        let mut entries = self.entries.clone();
        entries[index].view = Arc::new(class.arrange(stale.members.clone(), now));
        Some(Self::new(entries))
    }
}

impl<N: Node> Entry<N> {
    fn updated(&self, targets: Vec<Target<N>>, changes: &mut Changes, now: Instant) -> Self {
        let mut old: HashMap<*const N, &Arc<Member<N>>, foldhash::fast::RandomState> =
            self.view.members.iter().map(|member| (Arc::as_ptr(&member.node), member)).collect();
        let mut adds = 0;
        let members: Vec<Arc<Member<N>>> = targets
            .into_iter()
            .map(|target| match old.remove(&Arc::as_ptr(&target.node)) {
                Some(member) => {
                    member.leaving.store(target.leaving, Relaxed);
                    Arc::clone(member)
                }
                None => {
                    adds += 1;
                    Arc::new(self.class.member(target))
                }
            })
            .collect();
        let removes = old.len() as u64;
        if adds + removes == 0 {
            return self.clone();
        }
        changes.adds += adds;
        changes.removes += removes;
        changes.updates += 1;
        changes.rebuilds += 1;
        Self { class: Arc::clone(&self.class), view: Arc::new(self.class.arrange(members, now)) }
    }
}

impl<N: Node> View<N> {
    /// The best status of its endpoints.
    pub(crate) fn status(&self, now: Instant) -> Status {
        let mut best = Status::Closed;
        for member in &self.members {
            best = best.max(member.status(now));
            if best == Status::Open {
                break;
            }
        }
        best
    }
}

impl<N: Node> Class<N> {
    fn new(weight: f64, kind: &Kind, scope: &Scope, origin: Instant) -> Self {
        let algorithm = match *kind {
            Kind::P2c { .. } => Algorithm::P2c,
            Kind::Ewma { decay, .. } => Algorithm::Ewma(decay),
            Kind::Aperture { smooth_window, low_load, high_load, min_aperture, .. } => {
                let band = Band { smooth_window, low_load, high_load, min_aperture };
                Algorithm::Aperture(Arc::new(Aperture::new(band, scope, origin)))
            }
            Kind::Heap => Algorithm::Heap(Arc::new(Heap::new())),
            Kind::RoundRobin { .. } => Algorithm::RoundRobin(RoundRobin::default()),
        };
        Self { weight, algorithm, origin }
    }

    /// Picks by the algorithm. The heap takes by itself: see [`Heap::pick`].
    #[inline]
    pub(crate) fn pick<'a>(
        &self,
        view: &'a View<N>,
        rng: &mut fastrand::Rng,
        now: Instant,
    ) -> Option<(&'a Arc<Member<N>>, Status)> {
        match &self.algorithm {
            Algorithm::P2c | Algorithm::Ewma(_) => p2c::pick(&view.members, rng, now),
            Algorithm::Aperture(aperture) => aperture.pick(view, rng, now),
            Algorithm::RoundRobin(round_robin) => round_robin.pick(view, now),
            Algorithm::Heap(_) => None,
        }
    }

    /// Whether the order of `view` is outdated in a way that matters.
    #[inline]
    pub(crate) fn needs_rebuild(&self, view: &View<N>, now: Instant) -> bool {
        match &self.algorithm {
            Algorithm::P2c | Algorithm::Ewma(_) | Algorithm::Heap(_) => false,
            Algorithm::Aperture(_) | Algorithm::RoundRobin(_) => {
                view.saw_down.load(Relaxed)
                    || view.members[view.open..].iter().any(|member| member.status(now) == Status::Open)
            }
        }
    }

    pub(crate) fn heap(&self) -> Option<&Heap<N>> {
        match &self.algorithm {
            Algorithm::Heap(heap) => Some(heap),
            _ => None,
        }
    }

    pub(crate) fn aperture(&self) -> Option<&Aperture> {
        match &self.algorithm {
            Algorithm::Aperture(aperture) => Some(aperture),
            _ => None,
        }
    }

    fn member(&self, target: Target<N>) -> Member<N> {
        let book = match &self.algorithm {
            Algorithm::P2c | Algorithm::RoundRobin(_) => Book::Count,
            Algorithm::Ewma(decay) => Book::Ewma(PeakEwma::new(*decay, self.origin)),
            Algorithm::Aperture(aperture) => Book::Aperture { aperture: Arc::clone(aperture), place: aperture.place() },
            Algorithm::Heap(heap) => Book::Heap { heap: Arc::clone(heap), place: heap::Place::new() },
        };
        Member { node: target.node, pending: AtomicU64::new(0), leaving: AtomicBool::new(target.leaving), book }
    }

    fn arrange(&self, members: Vec<Arc<Member<N>>>, now: Instant) -> View<N> {
        let (members, open) = match &self.algorithm {
            Algorithm::P2c | Algorithm::Ewma(_) => (members, 0),
            Algorithm::Heap(heap) => {
                heap.update(&members);
                (members, 0)
            }
            Algorithm::Aperture(aperture) => open_first(aperture.arrange(members), now),
            Algorithm::RoundRobin(_) => open_first(members, now),
        };
        View { weight: self.weight, members, open, saw_down: AtomicBool::new(false) }
    }
}

/// The heap and its members hold each other; here they let go.
impl<N: Node> Drop for Class<N> {
    fn drop(&mut self) {
        if let Algorithm::Heap(heap) = &self.algorithm {
            heap.update(&[]);
        }
    }
}

/// Sorts by status, the open ones first, otherwise keeping the order; tells how many are open. Each status is read once,
/// since it may change while this sorts.
fn open_first<N: Node>(members: Vec<Arc<Member<N>>>, now: Instant) -> (Vec<Arc<Member<N>>>, usize) {
    let mut ranked: Vec<(Status, Arc<Member<N>>)> =
        members.into_iter().map(|member| (member.status(now), member)).collect();
    ranked.sort_by_key(|(status, _)| std::cmp::Reverse(*status));
    let open = ranked.partition_point(|(status, _)| *status == Status::Open);
    (ranked.into_iter().map(|(_, member)| member).collect(), open)
}

/// Targets by weight, ascending; of an endpoint named twice the last one counts. Without any, one empty class of weight
/// 1, as in Finagle.
fn group<N>(targets: Vec<Target<N>>) -> Vec<(f64, Vec<Target<N>>)> {
    let last: HashMap<*const N, usize, foldhash::fast::RandomState> =
        targets.iter().enumerate().map(|(index, target)| (Arc::as_ptr(&target.node), index)).collect();
    let mut groups: Vec<(f64, Vec<Target<N>>)> = Vec::new();
    for (index, target) in targets.into_iter().enumerate() {
        if last[&Arc::as_ptr(&target.node)] != index {
            continue;
        }
        // A weight that makes no sense draws nothing, like 0; -0.0 becomes 0.0 here.
        let weight = if target.weight.is_finite() && target.weight > 0.0 { target.weight } else { 0.0 };
        match groups.iter_mut().find(|(other, _)| *other == weight) {
            Some((_, group)) => group.push(target),
            None => groups.push((weight, vec![target])),
        }
    }
    groups.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    if groups.is_empty() {
        groups.push((1.0, Vec::new()));
    }
    groups
}
