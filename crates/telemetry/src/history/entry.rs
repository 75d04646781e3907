//! One scope under observation: where its numbers are, what they were when they were last looked at, and its rings.

use std::sync::Arc;

use crate::cells::{Cells, Reader, Slot};
use crate::format::prefetch_whole;
use crate::gauge::Read;
use crate::history::latency::{Gained, Latency, merge, summary};
use crate::history::ring::{NONE, Ring, decode, encode};
use crate::history::scope::{
    Column, FAILURES, FROM_SERVERS, MAX, NO_CONNECTION, Origin, P50, P99, PENDING, REQUESTS, RETRIES, SUCCESS,
    ScopeKind,
};
use crate::history::{COARSE, Spans};
use crate::stat::StatCell;
use crate::tree::{Metric, Place, Shape, Shared};

/// More than any kind has columns.
pub(crate) const MOST_COLUMNS: usize = 24;

/// How long a scope is said to have failed since, after it stopped.
const FORGIVEN_AFTER: u64 = 60;

/// A scope.
pub(crate) struct Entry {
    pub(crate) kind: ScopeKind,
    pub(crate) router: Arc<str>,
    /// Of a pair: the client's name.
    pub(crate) client: Option<Arc<str>>,
    pub(crate) name: Arc<str>,
    /// `rt/http/service/svc/web`, as `metrics.json` writes it.
    pub(crate) path: Box<str>,
    place: Place,
    sources: Option<Box<Sources>>,
    kept: Option<Box<Kept>>,
    /// There was no room for rings.
    pub(crate) left_out: bool,
    /// Whether it is at rest since the second that was noted last: its pulse says the same, and is all that is looked at.
    rests: bool,
    /// The last second that `now` knows of.
    noted: u64,
    /// The last second of those that nothing came in and that are not in the rings yet; 0 when there are none. The next row
    /// that is written brings them along: most scopes are at rest in most seconds, and their rings are far apart in memory.
    rested: u64,
    /// Which tick ended the faces' window that `now` tells of, when it does.
    window: Option<u64>,
    pub(crate) now: Now,
}

/// The numbers that move with each request: the columns from [`REQUESTS`] to [`PENDING`].
const VITAL: usize = PENDING + 1;

/// The slot of what isn't there.
const NOWHERE: u32 = u32::MAX;

/// Where the numbers of a scope are that move with each request, and what they were. Those of a family lie side by side, and
/// of a scope at rest nothing else is looked at.
pub(crate) struct Pulse {
    slots: [u32; VITAL],
    /// What the counters among them were.
    seen: [u64; PENDING],
    rests: bool,
}

impl Pulse {
    pub(crate) const NONE: Self = Self { slots: [NOWHERE; VITAL], seen: [0; PENDING], rests: false };

    /// Whether it is known where requests are counted.
    pub(crate) fn is_found(&self) -> bool {
        self.slots[REQUESTS] != NOWHERE
    }

    /// Whether the scope was at rest when it was looked at last.
    pub(crate) fn rests(&self) -> bool {
        self.rests
    }

    /// Whether it is at rest still: nothing came, and nothing is under way.
    #[inline]
    pub(crate) fn is_still(&self, reader: &Reader<'_>) -> bool {
        let now = self.read(reader);
        now[..PENDING] == self.seen && now[PENDING] == 0
    }

    #[inline]
    fn read(&self, reader: &Reader<'_>) -> [u64; VITAL] {
        let mut sums = [0; VITAL];
        for (sum, &slot) in sums.iter_mut().zip(&self.slots) {
            if slot != NOWHERE {
                *sum = reader.sum(slot);
            }
        }
        sums
    }

    /// Has the numbers brought near.
    #[inline]
    pub(crate) fn prefetch(&self, reader: &Reader<'_>) {
        // They were made one after the other, and mostly share a line or two.
        reader.prefetch(self.slots[REQUESTS]);
        reader.prefetch(self.slots[PENDING]);
    }

    /// What came since the last look, and how many are under way.
    fn advance(&mut self, reader: &Reader<'_>) -> [u64; VITAL] {
        let mut now = self.read(reader);
        for (now, seen) in now.iter_mut().zip(&mut self.seen) {
            let before = std::mem::replace(seen, *now);
            *now = now.saturating_sub(before);
        }
        now[PENDING] = u64::try_from(now[PENDING] as i64).unwrap_or(0);
        now
    }

    /// After a change of what has rings.
    pub(crate) fn agree(&mut self, entry: &Entry) {
        self.rests = entry.rests;
    }
}

/// Where the numbers of a scope are. Absent while the scope is empty, which it is when it was pruned.
struct Sources {
    /// The counter that tells by its end that the scope was pruned.
    requests: Place,
    /// Keeps the slots of the pulse.
    vital: [Option<Slot>; VITAL],
    /// Of the columns behind the latency's.
    others: Box<[Source]>,
    latency: Option<Arc<StatCell>>,
}

enum Source {
    /// Not there, or not yet.
    Absent,
    Counter {
        slot: Slot,
        seen: u64,
    },
    Level(Slot),
    Gauge {
        place: Place,
        last: u64,
    },
}

impl Sources {
    /// Whether everything is known, and still what it was.
    fn are_complete(&self, shape: &Shape) -> bool {
        let known = |source: &Source| match source {
            Source::Absent => false,
            Source::Gauge { place, .. } => {
                shape.alive(*place).is_some_and(|place| matches!(shape.metric(place), Metric::Gauge(_)))
            }
            Source::Counter { .. } | Source::Level(_) => true,
        };
        self.latency.is_some() && self.vital.iter().all(Option::is_some) && self.others.iter().all(known)
    }

    /// Where the values of a column come from that is none of the pulse's and none of the latency's.
    fn other(&self, column: usize) -> Option<&Source> {
        self.others.get(column.checked_sub(OTHERS)?)
    }
}

/// The first column behind the latency's.
const OTHERS: usize = MAX + 1;

/// The rings of a scope.
pub(crate) struct Kept {
    pub(crate) fine: Ring,
    pub(crate) coarse: Ring,
    latency: Latency,
    /// All that this takes.
    pub(crate) bytes: usize,
}

/// What is known of every scope, with or without rings.
#[derive(Clone, Default)]
pub(crate) struct Now {
    pub(crate) requests: u64,
    pub(crate) success: u64,
    pub(crate) failures: u64,
    pub(crate) retries: u64,
    pub(crate) pending: u64,
    /// The second that it was first looked at; 0 before.
    first: u64,
    /// What came in each of the last ten seconds, by the second's last digit.
    last_requests: [u32; 10],
    last_bad: [u32; 10],
    /// Requests in ten seconds, averaged over about a minute: what decides who has rings.
    pub(crate) busy: f64,
    /// Since when it fails; 0 when it doesn't.
    pub(crate) failing_since: u64,
    failed_last: u64,
    /// Since when requests wait here and none ends; 0 when that is not so.
    pub(crate) stuck_since: u64,
    /// For how many samples no request has ended, 2 standing for any more.
    still: u8,
    /// Median, 99th percentile and maximum of the last ten whole seconds.
    pub(crate) latency: Option<[u64; 3]>,
    /// Of clients: addresses, and those of them that may be picked.
    pub(crate) endpoints: Option<(u64, u64)>,
    pub(crate) connections: Option<u64>,
}

impl Now {
    /// How many of the last ten seconds it has been there for: 10, but for a new one.
    pub(crate) fn seconds(&self, now: u64) -> u64 {
        (now.saturating_sub(self.first) + 1).min(10)
    }

    /// Requests in the last ten seconds.
    pub(crate) fn in_ten_seconds(&self) -> u64 {
        self.last_requests.iter().map(|&n| u64::from(n)).sum()
    }

    /// Failures in the last ten seconds; of clients, connections that did not come about among them.
    pub(crate) fn bad_in_ten_seconds(&self) -> u64 {
        self.last_bad.iter().map(|&n| u64::from(n)).sum()
    }

    /// Whether a hundredth of what ended in the last ten seconds, or more, failed.
    pub(crate) fn is_failing(&self) -> bool {
        let bad = self.bad_in_ten_seconds();
        bad > 0 && bad * 100 >= self.in_ten_seconds()
    }

    /// Whether nothing is under way, nor was at the last two samples: then nothing is beneath it either.
    pub(crate) fn is_asleep(&self) -> bool {
        self.still >= 2 && self.pending == 0
    }

    fn note(&mut self, time: Time, requests: u64, bad: u64) {
        self.still = if requests > 0 { 0 } else { (self.still + 1).min(2) };
        if self.first == 0 {
            self.first = time.now;
        }
        let spread = time.passed.min(10);
        for back in 0..spread {
            let at = ((time.now - back) % 10) as usize;
            self.last_requests[at] = u32::try_from(share(requests, time.passed, back)).unwrap_or(u32::MAX);
            self.last_bad[at] = u32::try_from(share(bad, time.passed, back)).unwrap_or(u32::MAX);
        }
        if self.is_failing() {
            self.failed_last = time.now;
            if self.failing_since == 0 {
                self.failing_since = time.now;
            }
        } else if time.now.saturating_sub(self.failed_last) > FORGIVEN_AFTER {
            self.failing_since = 0;
        }
        if self.pending == 0 || requests > 0 {
            self.stuck_since = 0;
        } else if self.stuck_since == 0 {
            self.stuck_since = time.now;
        }
    }
}

/// The moment of a sample.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// Seconds since the sample before: 1, unless something held the sampler up.
    pub(crate) passed: u64,
}

impl Time {
    pub(crate) fn before(self) -> u64 {
        self.now - self.passed
    }

    /// The ends of tens that passed since the last sample, as numbers of their steps.
    pub(crate) fn coarse_steps(self) -> std::ops::RangeInclusive<u64> {
        self.before() / COARSE + 1..=self.now / COARSE
    }

    pub(crate) fn is_coarse(self) -> bool {
        !self.coarse_steps().is_empty()
    }
}

/// The part of `n` that is told of the second that is `back` seconds ago, when `n` came in `passed` seconds. All of the
/// parts add up to `n`.
fn share(n: u64, passed: u64, back: u64) -> u64 {
    if passed == 1 {
        return n;
    }
    n / passed + u64::from(back < n % passed)
}

/// What a router's history is put together from.
#[derive(Default)]
pub(crate) struct Sums {
    pub(crate) values: [u64; MOST_COLUMNS],
    pub(crate) second: Gained,
    pub(crate) coarse: Gained,
}

/// What the sampler writes into again and again.
#[derive(Default)]
pub(crate) struct Scratch {
    gained: Gained,
    row: [u16; MOST_COLUMNS],
}

/// What a sample needs to know and where it tells what it found.
pub(crate) struct Sampling<'a> {
    pub(crate) time: Time,
    /// How many ticks there were before the sample.
    pub(crate) tick: u64,
    pub(crate) scratch: &'a mut Scratch,
    pub(crate) sums: &'a mut Sums,
    /// How many bytes the rings have grown by.
    pub(crate) grown: usize,
}

impl Entry {
    pub(crate) fn new(
        kind: ScopeKind,
        router: Arc<str>,
        client: Option<Arc<str>>,
        name: Arc<str>,
        place: Place,
    ) -> Self {
        let path = match (kind, &client) {
            (ScopeKind::Router, _) => format!("rt/{name}"),
            (ScopeKind::Pair, Some(client)) => format!("rt/{router}/client/{client}/service/{name}"),
            _ => format!("rt/{router}/{}/{name}", kind.name()),
        };
        Self {
            kind,
            router,
            client,
            name,
            path: path.into(),
            place,
            sources: None,
            kept: None,
            left_out: false,
            rests: false,
            noted: 0,
            rested: 0,
            window: None,
            now: Now::default(),
        }
    }

    /// Has what it consists of brought near, being near itself.
    pub(crate) fn prefetch(&self) {
        if let Some(sources) = &self.sources {
            prefetch_whole(&**sources);
        }
        if let Some(kept) = &self.kept {
            prefetch_whole(&**kept);
        }
    }

    /// Whether it has rings.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// One column's value of a second. `now` is the second of the last sample.
    pub(crate) fn second(&self, second: u64, column: usize, now: u64) -> Option<u64> {
        let fine = &self.kept.as_ref()?.fine;
        let rested = if self.rests { now } else { self.rested };
        if second <= rested && fine.last().is_some_and(|last| second > last) {
            self.at_rest(column)
        } else {
            fine.value(second, column)
        }
    }

    /// One column's value of a step of the coarse ring.
    pub(crate) fn ten_seconds(&self, step: u64, column: usize) -> Option<u64> {
        self.kept.as_ref()?.coarse.value(step, column)
    }

    /// One column's value of a second in which nothing came.
    fn at_rest(&self, column: usize) -> Option<u64> {
        match self.sources.as_ref().and_then(|sources| sources.other(column)) {
            Some(Source::Gauge { last, .. }) => Some(*last),
            _ => (!(P50..=MAX).contains(&column)).then_some(0),
        }
    }

    /// Writes the seconds of rest into the ring.
    fn catch_up(&mut self, row: &mut [u16; MOST_COLUMNS]) {
        let rested = std::mem::take(&mut self.rested);
        if rested == 0 {
            return;
        }
        let columns = self.kind.columns().len();
        for (column, code) in row.iter_mut().enumerate().take(columns) {
            *code = self.at_rest(column).map_or(NONE, encode);
        }
        if let Some(kept) = &mut self.kept
            && let Some(last) = kept.fine.last()
        {
            for second in last + 1..=rested {
                kept.fine.write(second, &row[..columns]);
            }
        }
    }

    /// Notes the seconds of rest up to this one, which are ten at most: no end of ten seconds is passed over.
    pub(crate) fn settle(&mut self, until: u64) {
        if !self.rests || self.noted >= until {
            return;
        }
        for now in self.noted + 1..=until {
            self.now.note(Time { now, passed: 1 }, 0, 0);
        }
        (self.noted, self.rested) = (until, until);
    }

    /// The keys that lead to the scope.
    pub(crate) fn keys(&self) -> Vec<Arc<str>> {
        let fixed = |key: &str| Arc::<str>::from(key);
        match self.kind {
            ScopeKind::Router => vec![fixed("rt"), self.name.clone()],
            ScopeKind::Pair => {
                let client = self.client.clone().unwrap_or_else(|| fixed(""));
                let (rt, kind, beneath) = (fixed("rt"), fixed("client"), fixed("service"));
                vec![rt, self.router.clone(), kind, client, beneath, self.name.clone()]
            }
            kind => vec![fixed("rt"), self.router.clone(), fixed(kind.name()), self.name.clone()],
        }
    }

    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Whether there is anything to tell of it: a scope that was pruned stays in the tree as an empty node.
    pub(crate) fn lives(&self) -> bool {
        self.sources.is_some() || self.kind == ScopeKind::Router
    }

    /// Looks where the scope's metrics are, as far as that isn't known. What is not needed any more goes to `gone`, to be
    /// dropped when no lock is held.
    pub(crate) fn resolve(&mut self, pulse: &mut Pulse, tree: &Shared, shape: &Shape, gone: &mut Gone) {
        if self.kind == ScopeKind::Router {
            return;
        }
        if self.sources.as_ref().is_some_and(|s| shape.alive(s.requests).is_none()) {
            gone.sources.extend(self.sources.take().map(|sources| *sources));
            gone.bytes += self.drop_rings();
            self.left_out = false;
            (self.rests, self.noted, self.window, self.now) = (false, 0, None, Now::default());
            *pulse = Pulse::NONE;
        }
        if self.sources.as_ref().is_some_and(|sources| sources.are_complete(shape)) {
            return;
        }
        let Some(requests) = shape.child_of(self.place, "requests") else { return };
        let sources = self.sources.get_or_insert_with(|| {
            let others = self.kind.columns().iter().skip(OTHERS).map(|_| Source::Absent).collect();
            Box::new(Sources { requests, vital: Default::default(), others, latency: None })
        });
        for (at, column) in self.kind.columns().iter().enumerate().take(VITAL) {
            let (Origin::Counter(keys) | Origin::Gauge(keys)) = column.source else { continue };
            let vital = &mut sources.vital[at];
            if vital.is_some() {
                continue;
            }
            let found = keys.iter().try_fold(self.place, |place, key| shape.child_of(place, key));
            let slot = match found.map(|place| shape.metric(place)) {
                Some(Metric::Counter(number)) if column.is_count() => Some(number),
                Some(Metric::Gauge(number)) if !column.is_count() => shape.gauge(number).level.as_ref().map(|l| l.0),
                _ => None,
            };
            if let Some(slot) = slot {
                *vital = Some(Slot::again(tree, slot));
                pulse.slots[at] = slot;
            }
        }
        for (source, column) in sources.others.iter_mut().zip(self.kind.columns().iter().skip(OTHERS)) {
            let keys = match column.source {
                Origin::Counter(keys) | Origin::Gauge(keys) if matches!(source, Source::Absent) => keys,
                // The gauge may be another than it was.
                Origin::Gauge(keys) if matches!(source, Source::Gauge { .. }) => keys,
                _ => continue,
            };
            let found = keys.iter().try_fold(self.place, |place, key| shape.child_of(place, key));
            let Some(place) = found else { continue };
            match shape.metric(place) {
                Metric::Counter(number) => *source = Source::Counter { slot: Slot::again(tree, number), seen: 0 },
                Metric::Gauge(number) => {
                    let gauge = shape.gauge(number);
                    match &gauge.level {
                        Some((slot, _)) if gauge.reads.is_empty() => {
                            *source = Source::Level(Slot::again(tree, *slot));
                        }
                        _ => {
                            let last = if let Source::Gauge { last, .. } = source { *last } else { 0 };
                            *source = Source::Gauge { place, last };
                        }
                    }
                }
                Metric::Stat(_) | Metric::None => {}
            }
        }
        if sources.latency.is_none()
            && let Some(place) = shape.child_of(self.place, "request_latency_ms")
            && let Metric::Stat(number) = shape.metric(place)
        {
            sources.latency = Some(Arc::clone(shape.stat(number)));
        }
    }

    /// Whether it is of a kind that has gauges which have to be asked.
    pub(crate) fn asks(&self) -> bool {
        matches!(self.kind, ScopeKind::Service | ScopeKind::Client)
    }

    /// The gauges that have to be asked, by their places among the columns behind the latency's.
    pub(crate) fn asked(&self, shape: &Shape, each: &mut impl FnMut(usize, Read)) {
        let Some(sources) = &self.sources else { return };
        let wanted = match self.kind {
            // At rest it says nothing new; before its rings are there it hasn't said anything.
            ScopeKind::Service => !self.left_out && (!self.is_kept() || self.now.in_ten_seconds() > 0),
            _ => self.asks(),
        };
        if !wanted {
            return;
        }
        for (column, source) in sources.others.iter().enumerate() {
            let Source::Gauge { place, .. } = source else { continue };
            if let Some(place) = shape.alive(*place)
                && let Metric::Gauge(number) = shape.metric(place)
            {
                for (_, read) in &shape.gauge(number).reads {
                    each(column, Arc::clone(read));
                }
            }
        }
    }

    /// What a gauge said, by the number that [`asked`](Self::asked) gave it. `before` is the second of the sample before.
    pub(crate) fn answered(&mut self, other: usize, value: f64, before: u64) {
        let value = if value.is_finite() && value > 0.0 { value.round() as u64 } else { 0 };
        let Some(Source::Gauge { last, .. }) = self.sources.as_deref().and_then(|s| s.others.get(other)) else {
            return;
        };
        if *last == value {
            return;
        }
        // What it said before is true of the seconds before.
        self.settle(before);
        self.catch_up(&mut [0; MOST_COLUMNS]);
        if let Some(Source::Gauge { last, .. }) = self.sources.as_deref_mut().and_then(|s| s.others.get_mut(other)) {
            *last = value;
        }
    }

    /// Takes the numbers of this second.
    ///
    /// `asleep` when nothing can have moved here, because nothing moves above.
    pub(crate) fn sample(
        &mut self,
        pulse: &mut Pulse,
        asleep: bool,
        (cells, reader): (&Cells, &Reader<'_>),
        sampling: &mut Sampling<'_>,
    ) {
        let time = sampling.time;
        self.settle(time.before());
        (self.rests, pulse.rests, self.noted) = (false, false, time.now);
        self.catch_up(&mut sampling.scratch.row);
        let Some(sources) = &mut self.sources else { return };
        let mut values = [0; MOST_COLUMNS];
        let kept = self.kept.is_some();
        if !asleep {
            values[..VITAL].copy_from_slice(&pulse.advance(reader));
        }
        for (other, source) in sources.others.iter_mut().enumerate() {
            let column = OTHERS + other;
            values[column] = match source {
                Source::Absent => 0,
                Source::Counter { .. } | Source::Level(_) if asleep => 0,
                Source::Counter { .. } if !kept && !matters_always(self.kind, column) => 0,
                Source::Counter { slot, seen } => {
                    let value = reader.sum(slot.number());
                    let came = value.saturating_sub(*seen);
                    *seen = value;
                    came
                }
                Source::Level(slot) => u64::try_from(reader.sum(slot.number()) as i64).unwrap_or(0),
                Source::Gauge { last, .. } => *last,
            };
        }
        let now = &mut self.now;
        now.requests += values[REQUESTS];
        now.success += values[SUCCESS];
        now.failures += values[FAILURES];
        now.pending = values[PENDING];
        let mut bad = values[FAILURES];
        if matches!(self.kind, ScopeKind::Service | ScopeKind::Client) {
            now.retries += values[RETRIES];
            sampling.sums.values[RETRIES] += values[RETRIES];
        }
        if self.kind == ScopeKind::Client {
            bad += values[NO_CONNECTION];
            now.endpoints = Some((values[CLIENT_ENDPOINTS], values[CLIENT_ENDPOINTS + 1]));
            now.connections = Some(values[CLIENT_CONNECTIONS]);
        }
        if self.kind == ScopeKind::Server {
            now.connections = Some(values[SERVER_CONNECTIONS]);
            for &(router, server) in FROM_SERVERS {
                sampling.sums.values[router] += values[server];
            }
        }
        now.note(time, values[REQUESTS], bad);
        if time.is_coarse() {
            now.busy = now.busy * 0.8 + now.in_ten_seconds() as f64 * 0.2;
        }
        // Others have more to tell than what their requests do.
        let may_rest = matches!(self.kind, ScopeKind::Service | ScopeKind::Pair)
            && now.pending == 0
            && sources.vital[REQUESTS].is_some()
            && sources.vital[PENDING].is_some();
        let Some(kept) = &mut self.kept else {
            (self.rests, pulse.rests) = (may_rest, may_rest);
            if time.is_coarse() && self.window != Some(sampling.tick) {
                // The faces' window is a minute old, but costs nothing.
                self.window = Some(sampling.tick);
                let window = sources.latency.as_ref().and_then(|stat| stat.window());
                now.latency = window.filter(|w| w.count > 0).map(|w| [w.p50, w.p99, w.max]);
            }
            return;
        };
        self.window = None;
        let scratch = &mut *sampling.scratch;
        scratch.gained.clear();
        if let Some(stat) = &sources.latency {
            let grown = kept.latency.second(stat, cells, &mut scratch.gained);
            kept.bytes += grown;
            sampling.grown += grown;
        }
        let second = summary(&scratch.gained);
        // A request's latency is told last: when it is missing there has to be another look.
        let told = scratch.gained.iter().map(|&(_, n)| n).sum::<u64>();
        let rests = may_rest && (values[REQUESTS] == 0 || told == values[REQUESTS]);
        (self.rests, pulse.rests) = (rests, rests);
        if self.kind == ScopeKind::Server {
            sampling.sums.second.extend_from_slice(&scratch.gained);
        }
        kept.write_fine(self.kind.columns(), &values, second, time, &mut scratch.row);
        if time.is_coarse() {
            scratch.gained.clear();
            kept.latency.coarse(&mut scratch.gained);
            let coarse = summary(&scratch.gained);
            if self.kind == ScopeKind::Server {
                sampling.sums.coarse.extend_from_slice(&scratch.gained);
            }
            now.latency = coarse;
            kept.write_coarse(self.kind.columns(), coarse, time, &mut scratch.row);
        }
    }

    /// Takes a router's numbers, from what its servers, services and clients had.
    pub(crate) fn sample_router(&mut self, time: Time, sums: &mut Sums, scratch: &mut Scratch) {
        let values = std::mem::take(&mut sums.values);
        let now = &mut self.now;
        now.requests += values[REQUESTS];
        now.success += values[SUCCESS];
        now.failures += values[FAILURES];
        now.retries += values[RETRIES];
        now.pending = values[PENDING];
        now.connections = Some(values[8]);
        now.note(time, values[REQUESTS], values[FAILURES]);
        merge(&mut sums.second);
        let second = summary(&sums.second);
        sums.second.clear();
        merge(&mut sums.coarse);
        let coarse = summary(&sums.coarse);
        sums.coarse.clear();
        if time.is_coarse() {
            now.latency = coarse;
            now.busy = now.busy * 0.8 + now.in_ten_seconds() as f64 * 0.2;
        }
        let Some(kept) = &mut self.kept else { return };
        kept.write_fine(self.kind.columns(), &values, second, time, &mut scratch.row);
        if time.is_coarse() {
            kept.write_coarse(self.kind.columns(), coarse, time, &mut scratch.row);
        }
    }

    /// Gives the scope rings. What came before is not in them.
    pub(crate) fn keep(&mut self, spans: &Spans, cells: &Cells) -> usize {
        let mut latency = Latency::default();
        let mut bytes = Kept::bytes(self.kind, spans);
        if let Some(sources) = &mut self.sources
            && self.now.requests > 0
        {
            for (other, source) in sources.others.iter_mut().enumerate() {
                if let Source::Counter { slot, seen } = source
                    && !matters_always(self.kind, OTHERS + other)
                {
                    *seen = cells.sum(slot.number());
                }
            }
            if let Some(stat) = &sources.latency {
                bytes += latency.second(stat, cells, &mut Vec::new());
                latency.coarse(&mut Vec::new());
            }
        }
        let columns = self.kind.columns().len();
        let (fine, coarse) = (Ring::new(spans.fine, columns), Ring::new(spans.coarse, columns));
        self.kept = Some(Box::new(Kept { fine, coarse, latency, bytes }));
        // What came before is not in them, so nothing is known of it; and a first row has to be written.
        (self.rested, self.rests) = (0, false);
        bytes
    }

    /// Takes its rings away, and says how many bytes that frees.
    fn drop_rings(&mut self) -> usize {
        self.rested = 0;
        self.kept.take().map_or(0, |kept| kept.bytes)
    }

    /// Takes its rings away for want of room, and says how many bytes that frees.
    pub(crate) fn leave_out(&mut self) -> usize {
        self.left_out = true;
        self.drop_rings()
    }

    /// For whoever drops the whole entry.
    pub(crate) fn end(mut self, gone: &mut Gone) {
        gone.bytes += self.drop_rings();
        gone.sources.extend(self.sources.take().map(|sources| *sources));
    }
}

/// What is to be dropped when no lock is held: a slot or a stat takes locks when it ends.
#[derive(Default)]
pub(crate) struct Gone {
    sources: Vec<Sources>,
    /// How many bytes of rings are gone already.
    pub(crate) bytes: usize,
}

/// Columns of clients and servers by their places; the test of `scope.rs` holds them to it.
pub(crate) const CLIENT_CONNECTIONS: usize = 10;
pub(crate) const CLIENT_ENDPOINTS: usize = 18;
pub(crate) const SERVER_CONNECTIONS: usize = 7;

/// Which of the counters behind the latency's columns are read of a scope without rings, too.
fn matters_always(kind: ScopeKind, column: usize) -> bool {
    match column {
        RETRIES => matches!(kind, ScopeKind::Service | ScopeKind::Client),
        NO_CONNECTION => kind == ScopeKind::Client,
        _ => false,
    }
}

impl Kept {
    /// What the rings of a scope take, before any request.
    pub(crate) fn bytes(kind: ScopeKind, spans: &Spans) -> usize {
        let columns = kind.columns().len();
        size_of::<Self>() + Ring::bytes(spans.fine, columns) + Ring::bytes(spans.coarse, columns)
    }

    fn write_fine(
        &mut self,
        columns: &[Column],
        values: &[u64; MOST_COLUMNS],
        latency: Option<[u64; 3]>,
        time: Time,
        row: &mut [u16; MOST_COLUMNS],
    ) {
        let latency = latency.map_or([NONE; 3], |l| l.map(encode));
        let passed = time.passed.min(self.fine.len());
        for back in (0..passed).rev() {
            for (at, column) in columns.iter().enumerate() {
                row[at] = match at {
                    P50 | P99 | MAX => latency[at - P50],
                    _ if column.is_count() => encode(share(values[at], time.passed, back)),
                    _ => encode(values[at]),
                };
            }
            self.fine.write(time.now - back, &row[..columns.len()]);
        }
    }

    /// Writes the tens that have ended, from their seconds: counts are added up, of the others the last one stands.
    fn write_coarse(
        &mut self,
        columns: &[Column],
        latency: Option<[u64; 3]>,
        time: Time,
        row: &mut [u16; MOST_COLUMNS],
    ) {
        let latency = latency.map_or([NONE; 3], |l| l.map(encode));
        let steps = time.coarse_steps();
        let oldest = steps.end().saturating_sub(self.fine.len() / COARSE);
        for step in (*steps.start()).max(oldest)..=*steps.end() {
            let seconds = (step - 1) * COARSE + 1..=step * COARSE;
            let mut values = [None; MOST_COLUMNS];
            for kept in seconds.filter_map(|second| self.fine.row(second)) {
                for ((value, column), &code) in values.iter_mut().zip(columns).zip(kept) {
                    if let Some(second) = decode(code) {
                        let before = value.filter(|_| column.is_count()).unwrap_or(0);
                        *value = Some(before + second);
                    }
                }
            }
            for (at, value) in values.iter().enumerate().take(columns.len()) {
                row[at] = match at {
                    P50 | P99 | MAX => latency[at - P50],
                    _ => value.map_or(NONE, encode),
                };
            }
            if values.iter().any(Option::is_some) {
                self.coarse.write(step, &row[..columns.len()]);
            }
        }
    }
}
