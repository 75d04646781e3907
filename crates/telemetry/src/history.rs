//! The last hour of every router, server, service and client, kept in the process: what the dashboard draws.
//!
//! Whoever owns the clock calls [`History::sample`] once a second, on a thread that serves no request. Each scope has two
//! rings (`history/ring.rs`): one row a second, and one row every ten seconds. Counts are differences; latencies are of
//! the requests that ended in that second, and not of the faces' window of a minute (`history/latency.rs`). Which scopes
//! there are and what is kept of them is said in `history/scope.rs`.
//!
//! # What it costs
//!
//! A scope's rings take `2 × columns × (fine + coarse / 10)` bytes, with the spans in seconds, 1320 bytes a column with
//! the defaults; and 512 bytes for each octave of latencies it has seen. They come with the scope, when the limit leaves
//! room, and go with it. A sixty-fourth of the limit is kept for latencies. When there is no room, a scope has no rings
//! until it has twice the traffic of one that does, which then gives up its own; routers and servers never do. What every
//! scope costs, with or without rings, is some 600 bytes.
//!
//! # Locks
//!
//! One mutex around all of it, taken before the tree's locks. A sample holds the tree's for some hundred scopes at a time.
//! No worker ever waits for the mutex.

mod entry;
mod json;
mod latency;
mod ring;
mod scope;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cells::Cells;
use crate::format::prefetch_whole;
use crate::gauge::{GaugeGuard, Read, ask};
use crate::history::entry::{Entry, Gone, Kept, Pulse, Sampling, Scratch, Sums, Time};
use crate::tree::{MetricsTree, Place, Shape, Shared};

pub use json::{List, Listed, Row, Series, Sort, WrongQuery};
pub use scope::{Column, ScopeKind};

/// Seconds in a step of the coarse ring.
pub(crate) const COARSE: u64 = 10;
/// Seconds from one asking of a gauge to the next.
const ASK_EVERY: u64 = 5;
/// Scopes that are looked at with one taking of the tree's locks.
const BATCH: usize = 128;
/// How many scopes ahead the numbers of one are brought near.
const AHEAD: usize = 12;
/// How many scopes ahead the parts of one that is awake are.
const NEXT: usize = 3;
/// Scopes that change places in one go, for want of room.
const MOST_CHANGES: usize = 64;

/// How far back, and how much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// For how long each second is kept; at least ten seconds.
    pub fine: Duration,
    /// For how long each ten seconds are kept.
    pub coarse: Duration,
    /// How many bytes the rings of all scopes may take. With 0 nothing is kept, and the lists still work.
    pub memory: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { fine: Duration::from_secs(300), coarse: Duration::from_secs(3600), memory: 32 << 20 }
    }
}

impl HistoryLimits {
    /// What the rings may take when they are given out. The rest is left for latencies, which grow while requests come:
    /// were all of it given out, one new octave would cost another scope its rings in every second.
    fn for_rings(&self) -> usize {
        self.memory - self.memory / 64
    }
}

/// The rows of the rings.
pub(crate) struct Spans {
    pub(crate) fine: usize,
    pub(crate) coarse: usize,
}

/// The last hour of a tree.
pub struct History {
    tree: Arc<Shared>,
    limits: HistoryLimits,
    spans: Spans,
    state: Mutex<State>,
    told: Arc<Told>,
    _gauges: Vec<GaugeGuard>,
}

/// What the history says of itself in the tree.
#[derive(Default)]
struct Told {
    kept: AtomicUsize,
    left_out: AtomicUsize,
    bytes: AtomicUsize,
    last_sample_us: AtomicU64,
}

/// How full the history is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryStatus {
    /// Scopes with rings.
    pub kept: usize,
    /// Scopes without, for want of memory.
    pub left_out: usize,
    /// Bytes that the rings take.
    pub bytes: usize,
}

#[derive(Default)]
struct State {
    routers: Vec<Router>,
    /// The last router's node that was looked at.
    last: Option<Place>,
    /// The second of the last sample; 0 before the first.
    now: u64,
    /// What the tree's changes were at the last sample, and the last second that they were others.
    changes: u64,
    changed: u64,
    bytes: usize,
    scratch: Scratch,
}

struct Router {
    entry: Entry,
    servers: Family,
    services: Family,
    clients: Family,
    /// The services beneath each client, in the order of `clients`.
    pairs: Vec<Family>,
    sums: Sums,
}

/// Scopes beneath one node, in the order of their making. Nodes only ever come at the end, and leave all at once.
#[derive(Default)]
struct Family {
    parent: Option<Place>,
    last: Option<Place>,
    entries: Vec<Entry>,
    /// Theirs, in the same order.
    pulses: Vec<Pulse>,
}

impl History {
    /// A history of `tree`, empty until it is sampled.
    pub fn new(tree: &MetricsTree, limits: HistoryLimits) -> Self {
        let told = Arc::new(Told::default());
        let scope = tree.scope("telemetry").scope("history");
        let gauge = |name: &str, read: fn(&Told) -> f64| {
            let told = Arc::clone(&told);
            scope.gauge(name, move || read(&told))
        };
        let gauges = vec![
            gauge("scopes", |t| t.kept.load(Ordering::Relaxed) as f64),
            gauge("left_out", |t| t.left_out.load(Ordering::Relaxed) as f64),
            gauge("bytes", |t| t.bytes.load(Ordering::Relaxed) as f64),
            gauge("sample_us", |t| t.last_sample_us.load(Ordering::Relaxed) as f64),
        ];
        let rows = |span: Duration, step: u64| usize::try_from(span.as_secs() / step).unwrap_or(usize::MAX).max(1);
        let spans = Spans { fine: rows(limits.fine, 1).max(COARSE as usize), coarse: rows(limits.coarse, COARSE) };
        Self { tree: tree.shared().clone(), limits, spans, state: Mutex::default(), told, _gauges: gauges }
    }

    /// What it was told to keep.
    pub fn limits(&self) -> HistoryLimits {
        self.limits
    }

    /// How full it is.
    pub fn status(&self) -> HistoryStatus {
        HistoryStatus {
            kept: self.told.kept.load(Ordering::Relaxed),
            left_out: self.told.left_out.load(Ordering::Relaxed),
            bytes: self.told.bytes.load(Ordering::Relaxed),
        }
    }

    /// Takes the numbers of this second, `now` being seconds since 1970. To be called once a second; a call that is late
    /// spreads what came over the seconds that passed, one that is early does nothing.
    pub fn sample(&self, now: u64) {
        let began = std::time::Instant::now();
        let mut state = self.state();
        let state = &mut *state;
        let passed = if state.now == 0 { 1 } else { now.saturating_sub(state.now) };
        if passed == 0 {
            return;
        }
        let time = Time { now, passed };
        state.now = now;
        let mut gone = Gone::default();
        let changes = self.tree.changes();
        if state.changed == 0 || changes != state.changes {
            (state.changes, state.changed) = (changes, now);
            state.discover(&self.tree, &mut gone);
        }
        // Each scope is looked up once in ten seconds, as long as there may be something new.
        let look_up = time.before() <= state.changed + COARSE;
        if look_up && passed > 1 {
            // Some have missed their turn.
            state.changed = now;
        }
        let tick = self.tree.clock().load(Ordering::Acquire);
        let State { routers, scratch, bytes, .. } = state;
        for router in routers.iter_mut() {
            let Router { entry, servers, services, clients, pairs, sums } = router;
            let mut sampling = Sampling { time, tick, scratch, sums, grown: 0 };
            let mut sample = |family: &mut Family, asleep| {
                self.sample_family(family, (asleep, look_up), &mut sampling, bytes, &mut gone);
            };
            sample(servers, false);
            // Nothing comes to a service but through a server, nor to a pair but through its client.
            let asleep = !servers.entries.is_empty() && servers.entries.iter().all(|server| server.now.is_asleep());
            sample(services, asleep);
            sample(clients, false);
            for (client, pairs) in clients.entries.iter().zip(pairs) {
                sample(pairs, client.now.is_asleep());
            }
            *bytes += sampling.grown;
            self.keep_if_there_is_room(entry, bytes, &self.tree.cells());
            entry.sample_router(time, sums, scratch);
        }
        *bytes -= gone.bytes.min(*bytes);
        // With no lock held but this one's own.
        drop(gone);
        if time.is_coarse() || state.bytes > self.limits.memory {
            self.share_room(state);
        }
        self.told.bytes.store(state.bytes, Ordering::Relaxed);
        self.told.last_sample_us.store(began.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn sample_family(
        &self,
        family: &mut Family,
        (asleep, look_up): (bool, bool),
        sampling: &mut Sampling<'_>,
        bytes: &mut usize,
        gone: &mut Gone,
    ) {
        let time = sampling.time;
        let mut asked: Vec<(usize, usize, Read)> = Vec::new();
        let mut awake = Vec::new();
        let asks = family.entries.first().is_some_and(Entry::asks);
        let batches = family.entries.chunks_mut(BATCH).zip(family.pulses.chunks_mut(BATCH));
        for (batch, (entries, pulses)) in batches.enumerate() {
            let shape = self.tree.shape();
            for (at, pulse) in pulses.iter_mut().enumerate() {
                // What is known is looked up again every ten seconds, and gauges that are functions, such as budgets and
                // endpoints, are asked every five; not all of them in the same one.
                let (new, turn) = (!pulse.is_found(), (batch * BATCH + at) as u64 + time.now);
                if look_up && (new || turn % COARSE == 0) {
                    entries[at].resolve(pulse, &self.tree, &shape, gone);
                }
                if asks && (new || turn % ASK_EVERY == 0) {
                    entries[at].asked(&shape, &mut |other, read| asked.push((at, other, read)));
                }
            }
            drop(shape);
            // Registrations of one name add up.
            for one in asked.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
                if let Some(value) = ask(&self.tree, one.iter().map(|(.., read)| read), 0.0) {
                    entries[one[0].0].answered(one[0].1, value, time.before());
                }
            }
            asked.clear();
            let cells = self.tree.cells();
            let reader = cells.reader();
            awake.clear();
            for (at, pulse) in pulses.iter().enumerate() {
                if let Some(ahead) = pulses.get(at + AHEAD).filter(|_| !asleep) {
                    ahead.prefetch(&reader);
                }
                // The tens that end are written from what the rings have, and what has no rings is told the faces'
                // windows then.
                if time.is_coarse() || !pulse.rests() || !(asleep || pulse.is_still(&reader)) {
                    prefetch_whole(&entries[at]);
                    awake.push(at);
                }
            }
            for (nth, &at) in awake.iter().enumerate() {
                if let Some(&ahead) = awake.get(nth + NEXT) {
                    entries[ahead].prefetch();
                }
                let (entry, pulse) = (&mut entries[at], &mut pulses[at]);
                self.keep_if_there_is_room(entry, bytes, &cells);
                entry.sample(pulse, asleep, (&cells, &reader), sampling);
            }
        }
    }

    /// Gives rings to a scope that was just found, when there is room.
    fn keep_if_there_is_room(&self, entry: &mut Entry, bytes: &mut usize, cells: &Cells) {
        if entry.is_kept() || entry.left_out || !entry.lives() {
            return;
        }
        if *bytes + Kept::bytes(entry.kind, &self.spans) <= self.limits.for_rings() {
            *bytes += entry.keep(&self.spans, cells);
            self.told.kept.fetch_add(1, Ordering::Relaxed);
        } else {
            entry.left_out = true;
            self.told.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Gives rings to those that were left out, as far as there is room: first to routers and servers, then by traffic;
    /// and counts who has and who hasn't.
    fn share_room(&self, state: &mut State) {
        let (mut with, mut without): (Vec<&mut Entry>, Vec<&mut Entry>) = (Vec::new(), Vec::new());
        let (mut kept, mut left_out) = (0, 0);
        for entry in state.routers.iter_mut().flat_map(Router::entries_mut).filter(|entry| entry.lives()) {
            if !entry.is_kept() {
                without.push(entry);
                continue;
            }
            kept += 1;
            if !always(entry) {
                with.push(entry);
            }
        }
        without.sort_by(|a, b| always(b).cmp(&always(a)).then(b.now.busy.total_cmp(&a.now.busy)));
        // The quietest last: they are the first to give up theirs.
        with.sort_by(|a, b| b.now.busy.total_cmp(&a.now.busy));
        let room = self.limits.for_rings();
        // Latencies may have taken more than there was: the quietest pay for it.
        if state.bytes > self.limits.memory {
            while state.bytes > room
                && let Some(quiet) = with.pop()
            {
                state.bytes -= quiet.leave_out();
                (kept, left_out) = (kept - 1, left_out + 1);
            }
        }
        let mut changes = 0;
        for entry in without {
            let needed = Kept::bytes(entry.kind, &self.spans);
            while state.bytes + needed > room
                && changes < MOST_CHANGES
                && let Some(quiet) = with.pop_if(|q| always(entry) || entry.now.busy > 2.0 * q.now.busy + 1.0)
            {
                state.bytes -= quiet.leave_out();
                (kept, left_out, changes) = (kept - 1, left_out + 1, changes + 1);
            }
            entry.left_out = state.bytes + needed > room;
            if entry.left_out {
                left_out += 1;
            } else {
                state.bytes += entry.keep(&self.spans, &self.tree.cells());
                kept += 1;
            }
        }
        for family in state.routers.iter_mut().flat_map(Router::families_mut) {
            family.entries.iter().zip(&mut family.pulses).for_each(|(entry, pulse)| pulse.agree(entry));
        }
        self.told.kept.store(kept, Ordering::Relaxed);
        self.told.left_out.store(left_out, Ordering::Relaxed);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History").field("limits", &self.limits).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Whether a scope never gives its rings up.
fn always(entry: &Entry) -> bool {
    matches!(entry.kind, ScopeKind::Router | ScopeKind::Server)
}

impl State {
    /// Notes what is not yet noted: the seconds of scopes at rest.
    fn settle(&mut self) {
        let now = self.now;
        self.routers.iter_mut().flat_map(Router::entries_mut).for_each(|entry| entry.settle(now));
    }

    /// Finds the scopes that are new.
    fn discover(&mut self, tree: &Shared, gone: &mut Gone) {
        let shape = tree.shape();
        let Some(rt) = shape.find(&["rt"]) else { return };
        // Routers come at the start, and never go.
        let mut next = match self.last {
            None => shape.first_child(rt),
            Some(last) => shape.next_sibling(last),
        };
        while let Some(place) = next {
            let label: Arc<str> = shape.name(place).text().into();
            let entry = Entry::new(ScopeKind::Router, label.clone(), None, label, place);
            self.routers.push(Router {
                entry,
                servers: Family::default(),
                services: Family::default(),
                clients: Family::default(),
                pairs: Vec::new(),
                sums: Sums::default(),
            });
            self.last = Some(place);
            next = shape.next_sibling(place);
        }
        drop(shape);
        for router in &mut self.routers {
            let place = router.entry.place();
            let label = router.entry.name.clone();
            let families = [
                (&mut router.servers, "server", ScopeKind::Server),
                (&mut router.services, "service", ScopeKind::Service),
                (&mut router.clients, "client", ScopeKind::Client),
            ];
            for (family, key, kind) in families {
                family.discover(tree, place, key, (kind, &label, None), gone);
            }
            for client in router.pairs.drain(router.pairs.len().min(router.clients.entries.len())..) {
                client.end(gone);
            }
            router.pairs.resize_with(router.clients.entries.len(), Family::default);
            for (client, pairs) in router.clients.entries.iter().zip(&mut router.pairs) {
                pairs.discover(tree, client.place(), "service", (ScopeKind::Pair, &label, Some(&client.name)), gone);
            }
        }
    }
}

impl Router {
    fn families_mut(&mut self) -> impl Iterator<Item = &mut Family> {
        [&mut self.servers, &mut self.services, &mut self.clients].into_iter().chain(&mut self.pairs)
    }

    fn entries_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        let families = [&mut self.servers, &mut self.services, &mut self.clients].into_iter().chain(&mut self.pairs);
        std::iter::once(&mut self.entry).chain(families.flat_map(|family| &mut family.entries))
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        let families = [&self.servers, &self.services, &self.clients].into_iter().chain(&self.pairs);
        std::iter::once(&self.entry).chain(families.flat_map(|family| &family.entries))
    }
}

impl Family {
    /// Finds the nodes that are new beneath `key` of `above`, and lets go of all of them when they have gone.
    fn discover(
        &mut self,
        tree: &Shared,
        above: Place,
        key: &str,
        (kind, router, client): (ScopeKind, &Arc<str>, Option<&Arc<str>>),
        gone: &mut Gone,
    ) {
        loop {
            let shape: &Shape = &tree.shape();
            let is = |place: &Place| shape.alive(*place).is_some();
            if self.parent.as_ref().is_some_and(|p| !is(p)) || self.last.as_ref().is_some_and(|p| !is(p)) {
                std::mem::take(self).end(gone);
            }
            let Some(parent) = self.parent.or_else(|| shape.child_of(above, key)) else { return };
            self.parent = Some(parent);
            for _ in 0..BATCH {
                let next = match self.last {
                    None => shape.first_child(parent),
                    Some(last) => shape.next_sibling(last),
                };
                let Some(place) = next else { return };
                let name = shape.name(place).text().into();
                self.entries.push(Entry::new(kind, router.clone(), client.cloned(), name, place));
                self.pulses.push(Pulse::NONE);
                self.last = Some(place);
            }
        }
    }

    fn end(self, gone: &mut Gone) {
        for entry in self.entries {
            entry.end(gone);
        }
    }
}
