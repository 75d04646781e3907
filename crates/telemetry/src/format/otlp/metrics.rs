//! Metrics: `ExportMetricsServiceRequest`s, and what of them a collector has taken.
//!
//! Names, labels and units are the modern face's (`catalogue.rs`): what a store that was told them makes of them is what
//! it scrapes there. Cumulative values are told since the exporter was made, or since a series appeared or began anew. Deltas are told since
//! the collector last took the series: what it did not take is part of the next delta, and its time, too. So a request that
//! failed needs nobody's care; one that was taken must be told to [`Metrics::taken`].
//!
//! A series that is pruned between two deltas leaves the tree with what was not told of it. That comes with the family's
//! `(expired)` series: its deltas are what `expired.rs` has of all that ended, less what was taken of it while it was there
//! and since. So the deltas of a family add up to what was counted in it, whenever its series end. Who prunes a series tells
//! the [`Ledger`] under the lock of the tree's shape; who collects reads a value and notes it under that lock, too.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::wire::{Buffer, bytes, fixed64, message, text, varint, varint_field};
use super::{Resource, push_resource, push_scope, push_text};
use crate::buckets::range;
use crate::catalogue::{Family, Unit, classify, families};
use crate::collide::Kind;
use crate::expired::{EXPIRED, Folded};
use crate::gauge::ask;
use crate::names::Name;
use crate::stat::{Bucket, StatRef};
use crate::sync::{Mutex, lock};
use crate::tree::{Metric, MetricsTree};
use crate::walk::{Step, Walk};

/// What a value is told relative to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Temporality {
    /// Since it began.
    #[default]
    Cumulative,
    /// Since it was last taken.
    Delta,
}

/// What a distribution is told as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Histograms {
    /// Fixed bounds.
    #[default]
    Explicit,
    /// Bounds that are powers of a number near 1.
    Exponential,
}

/// What requests are like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Who tells.
    pub resource: Resource,
    /// Of counters and distributions.
    pub temporality: Temporality,
    /// Of distributions.
    pub histograms: Histograms,
}

/// Tells a tree's metrics again and again.
pub struct Metrics {
    tree: MetricsTree,
    options: Options,
    ledger: Arc<Mutex<Ledger>>,
    /// When the exporter was made.
    began_ns: u64,
    /// The same, then when it last collected: a series that is new at a collection began in between.
    since_ns: u64,
    round: u64,
}

/// What is known of the series, for whoever tells differences of them.
#[derive(Default)]
pub(crate) struct Ledger {
    /// By path.
    series: HashMap<String, Series, RandomState>,
    /// What was taken of series that ended, by family: while they were there, and of what stands for them since.
    expired: HashMap<u16, Ended, RandomState>,
}

/// What was taken of a family's series that ended.
struct Ended {
    value: Value,
    /// When something was taken since they did.
    taken_ns: Option<u64>,
}

impl Ledger {
    /// A metric is being pruned. The tree's shape is locked.
    pub(crate) fn pruned(&mut self, path: &[Name]) {
        let Some(series) = self.series.remove(&key(path.iter().map(Name::text))) else { return };
        if !series.value.is_nothing() {
            self.ended(series.family, &series.value).value.add(&series.value);
        }
    }

    fn ended(&mut self, family: u16, like: &Value) -> &mut Ended {
        self.expired.entry(family).or_insert_with(|| Ended { value: like.nothing(), taken_ns: None })
    }

    fn taken(&mut self, told: &Told, at_ns: u64) {
        // Unless it was pruned meanwhile: then this was told of what ended. Another of its name is not listed before it is
        // collected.
        if let Some(series) = told.series.as_ref().and_then(|key| self.series.get_mut(key)) {
            series.value.add(&told.gained);
            series.start_ns = at_ns;
            return;
        }
        let ended = self.ended(told.family, &told.gained);
        ended.value.add(&told.gained);
        if told.series.is_none() {
            ended.taken_ns = Some(at_ns);
        }
    }
}

/// No key has a NUL in the middle of what another key could be.
fn key<'a>(path: impl Iterator<Item = &'a str>) -> String {
    path.collect::<Vec<_>>().join("\0")
}

/// A request, and what it would mean if it were taken.
pub struct Request {
    /// What is sent.
    pub body: Vec<u8>,
    /// How many values it has.
    pub points: usize,
    told: Vec<Told>,
    at_ns: u64,
}

/// A difference that is told.
struct Told {
    family: u16,
    /// Of which series, by its key; `None` of those that ended.
    series: Option<String>,
    gained: Value,
}

/// What is known of a series.
struct Series {
    family: u16,
    start_ns: u64,
    /// What was last seen, if cumulative; what was last taken, if deltas are told.
    value: Value,
    round: u64,
}

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Counter(u64),
    Stat { sum: u64, buckets: Vec<Bucket> },
}

/// A value, and what it means if it is taken.
type Point = (Buffer, Option<Told>);

/// As many values are told in one request.
const POINTS: usize = 2000;
const DELTA: u64 = 1;
const CUMULATIVE: u64 = 2;
/// The finest scale: bounds lie two per cent apart, those of the stats one.
const FINEST: i32 = 5;
/// As many buckets as OpenTelemetry's own SDKs have at most.
const MOST_BUCKETS: i64 = 160;

impl Metrics {
    /// Of this tree, beginning now, in nanoseconds since 1970.
    pub fn new(tree: &MetricsTree, options: Options, now_ns: u64) -> Self {
        let ledger = Arc::default();
        if options.temporality == Temporality::Delta {
            tree.shared().list_ledger(&ledger);
        }
        Self { tree: tree.clone(), options, ledger, began_ns: now_ns, since_ns: now_ns, round: 0 }
    }

    /// The requests that tell everything as it is now.
    pub fn collect(&mut self, now_ns: u64) -> Vec<Request> {
        self.round += 1;
        let delta = self.options.temporality == Temporality::Delta;
        let ended = if delta { self.ended() } else { Vec::new() };
        let mut reading =
            Reading { metrics: self, now_ns, path: Vec::new(), families: BTreeMap::new(), told: HashSet::default() };
        reading.walk();
        ended.into_iter().for_each(|(start_ns, told)| reading.add_ended(start_ns, told));
        let families = reading.families;
        if !delta {
            let round = self.round;
            lock(&self.ledger).series.retain(|_, series| series.round == round);
        }
        self.since_ns = now_ns;
        self.requests(families, now_ns)
    }

    /// What is to be told of series that ended, and since when. Whoever is pruned later is no part of it.
    fn ended(&self) -> Vec<(u64, Told)> {
        let tree = self.tree.shared();
        // Held, so that what has ended is what the ledger was told of.
        let shape = tree.shape();
        let (folded, left) = tree.expired().fold(tree);
        let ledger = lock(&self.ledger);
        let told = folded.into_iter().filter_map(|(family, folded)| {
            let value = Value::of(folded, families()[usize::from(family)].kind);
            let ended = ledger.expired.get(&family);
            let gained = match ended {
                Some(ended) => value.since(&ended.value)?,
                None => value,
            };
            let start_ns = ended.and_then(|ended| ended.taken_ns).unwrap_or(self.began_ns);
            (!gained.is_nothing()).then_some((start_ns, Told { family, series: None, gained }))
        });
        let told = told.collect();
        drop((ledger, shape));
        drop(left);
        told
    }

    /// A request was taken. To be told before the next collection.
    pub fn taken(&mut self, request: &Request) {
        if self.options.temporality == Temporality::Delta {
            let mut ledger = lock(&self.ledger);
            request.told.iter().for_each(|told| ledger.taken(told, request.at_ns));
        }
    }

    fn requests(&self, families: BTreeMap<&'static str, (&'static Family, Vec<Point>)>, at_ns: u64) -> Vec<Request> {
        let mut requests = Vec::new();
        let (mut metrics, mut points, mut told) = (Buffer::new(), 0, Vec::new());
        let mut finish = |metrics: &mut Buffer, points: &mut usize, told: &mut Vec<_>| {
            if *points > 0 {
                let mut body = Buffer::with_capacity(metrics.len() + 1024);
                message(&mut body, 1, |out| {
                    push_resource(out, &self.options.resource);
                    message(out, 2, |out| {
                        push_scope(out);
                        out.append(metrics);
                    });
                });
                requests.push(Request { body, points: std::mem::take(points), told: std::mem::take(told), at_ns });
            }
        };
        for (_, (family, values)) in families {
            let mut left = values.into_iter().peekable();
            while left.peek().is_some() {
                let part: Vec<_> = left.by_ref().take(POINTS - points).collect();
                points += part.len();
                message(&mut metrics, 2, |out| self.push_metric(out, family, &part));
                told.extend(part.into_iter().filter_map(|(_, told)| told));
                if points == POINTS {
                    finish(&mut metrics, &mut points, &mut told);
                }
            }
        }
        finish(&mut metrics, &mut points, &mut told);
        requests
    }

    fn push_metric(&self, out: &mut Buffer, family: &Family, points: &[Point]) {
        text(out, 1, name(family));
        text(out, 2, &family.help);
        text(out, 3, ucum(family.unit));
        let field = match (family.kind, self.options.histograms) {
            (Kind::Gauge, _) => 5,
            (Kind::Counter, _) => 7,
            (Kind::Stat, Histograms::Explicit) => 9,
            (Kind::Stat, Histograms::Exponential) => 10,
        };
        message(out, field, |out| {
            for (point, _) in points {
                bytes(out, 1, point);
            }
            if family.kind != Kind::Gauge {
                let delta = self.options.temporality == Temporality::Delta;
                varint_field(out, 2, if delta { DELTA } else { CUMULATIVE });
            }
            if family.kind == Kind::Counter {
                varint_field(out, 3, 1); // monotonic
            }
        });
    }
}

type Labels = Vec<(&'static str, String)>;

/// One visit of the tree.
struct Reading<'a> {
    metrics: &'a mut Metrics,
    now_ns: u64,
    path: Vec<String>,
    families: BTreeMap<&'static str, (&'static Family, Vec<Point>)>,
    /// Family and labels of everything so far: no two may be the same.
    told: HashSet<(u16, Labels), RandomState>,
}

impl Reading<'_> {
    /// Goes over the tree, node by node. The shape is held while a counter or stat is read and noted: it can't be pruned in
    /// between.
    fn walk(&mut self) {
        let tree = self.metrics.tree.clone();
        let tree = tree.shared();
        let mut walk = Walk::new(self.metrics.tree.root_place());
        loop {
            let shape = tree.shape();
            let place = match walk.step(&shape) {
                Step::Done => return,
                Step::Leave => {
                    if walk.depth() > 0 {
                        self.path.pop();
                    }
                    continue;
                }
                Step::Enter(place) => place,
            };
            if walk.depth() > 1 {
                self.path.push(shape.name(place).text().to_owned());
            }
            match shape.metric(place) {
                Metric::None => {}
                Metric::Counter(slot) => self.told(Value::Counter(tree.cells().sum(slot))),
                Metric::Stat(number) => {
                    let stat = StatRef::new(shape.stat(number));
                    self.told(Value::Stat { sum: stat.sum(), buckets: stat.buckets() });
                }
                Metric::Gauge(number) => {
                    let gauge = shape.gauge(number);
                    let reads: Vec<_> = gauge.reads.iter().map(|(_, read)| read.clone()).collect();
                    let level = gauge.level_value(&tree.cells());
                    drop(shape);
                    if let Some(value) = ask(tree, &reads, level) {
                        self.gauge(value);
                    }
                }
            }
        }
    }

    fn gauge(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        let Some((family, _, labels)) = self.named(Kind::Gauge) else { return };
        let mut point = Buffer::new();
        fixed64(&mut point, 3, self.now_ns);
        fixed64(&mut point, 4, family.unit.of(value).to_bits());
        push_labels(&mut point, 7, &labels);
        self.add(family, point, None);
    }

    /// A counter or a stat: what of its value is told, and from when on.
    fn told(&mut self, value: Value) {
        let key = key(self.path.iter().map(String::as_str));
        let kind = if matches!(value, Value::Counter(_)) { Kind::Counter } else { Kind::Stat };
        let Some((family, number, labels)) = self.named(kind) else { return };
        let (since_ns, round) = (self.metrics.since_ns, self.metrics.round);
        let delta = self.metrics.options.temporality == Temporality::Delta;
        let mut ledger = lock(&self.metrics.ledger);
        let series = ledger.series.entry(key.clone()).or_insert_with(|| Series {
            family: number,
            start_ns: since_ns,
            value: value.nothing(),
            round,
        });
        series.round = round;
        let gained = match value.since(&series.value) {
            Some(gained) => gained,
            None => {
                // It began anew since the last collection.
                (series.start_ns, series.value) = (since_ns, value.nothing());
                value.clone()
            }
        };
        let start_ns = series.start_ns;
        if !delta {
            series.value = value.clone();
        }
        drop(ledger);
        if delta && gained.is_nothing() {
            return;
        }
        let point = self.point(family, &labels, start_ns, if delta { &gained } else { &value });
        self.add(family, point, delta.then_some(Told { family: number, series: Some(key), gained }));
    }

    /// What was not told of the series of a family that ended.
    fn add_ended(&mut self, start_ns: u64, told: Told) {
        let family = &families()[usize::from(told.family)];
        // As the modern face does.
        let labels: &[&str] = if family.labels.is_empty() { &["state"] } else { &family.labels };
        let labels: Labels = labels.iter().map(|label| (*label, EXPIRED.to_owned())).collect();
        let point = self.point(family, &labels, start_ns, &told.gained);
        self.add(family, point, Some(told));
    }

    fn point(&self, family: &Family, labels: &Labels, start_ns: u64, shown: &Value) -> Buffer {
        let mut point = Buffer::new();
        fixed64(&mut point, 2, start_ns);
        fixed64(&mut point, 3, self.now_ns);
        match shown {
            Value::Counter(n) => {
                fixed64(&mut point, 6, *n);
                push_labels(&mut point, 7, labels);
            }
            Value::Stat { sum, buckets } => {
                let count: u64 = buckets.iter().map(|bucket| bucket.count).sum();
                fixed64(&mut point, 4, count);
                #[expect(clippy::cast_precision_loss, reason = "the format has nothing wider")]
                fixed64(&mut point, 5, family.unit.of(*sum as f64).to_bits());
                match self.metrics.options.histograms {
                    Histograms::Explicit => {
                        push_explicit(&mut point, buckets, family.unit);
                        push_labels(&mut point, 9, labels);
                    }
                    Histograms::Exponential => {
                        push_exponential(&mut point, buckets, family.unit);
                        push_labels(&mut point, 1, labels);
                    }
                }
            }
        }
        point
    }

    fn add(&mut self, family: &'static Family, point: Buffer, told: Option<Told>) {
        let (_, points) = self.families.entry(&family.name).or_insert_with(|| (family, Vec::new()));
        points.push((point, told));
    }

    /// The family of the path, its number, and its labels. `None` for what is told as a part of another.
    fn named(&mut self, kind: Kind) -> Option<(&'static Family, u16, Labels)> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let found = classify(&path, kind)?;
        let family = &families()[usize::from(found.family)];
        let values = found.values.into_iter().map(Cow::into_owned);
        let mut labels: Labels = family.labels.iter().copied().zip(values).collect();
        if !self.told.insert((found.family, labels.clone())) {
            // Two paths for one thing: each says which it is.
            labels.push(("l5d.path", self.path.join("/")));
            self.told.insert((found.family, labels.clone()));
        }
        Some((family, found.family, labels))
    }
}

/// The name without its unit, which is told beside it: whoever stores it puts it back.
fn name(family: &Family) -> &str {
    let unit = family.unit.name();
    family.name.strip_suffix(unit).filter(|_| !unit.is_empty()).map_or(&*family.name, |name| name.trim_end_matches('_'))
}

/// As UCUM writes it.
fn ucum(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Millis | Unit::Micros => "s",
        Unit::Bytes => "By",
        Unit::Percent => "1",
    }
}

fn push_labels(point: &mut Buffer, field: u32, labels: &[(&'static str, String)]) {
    for (key, value) in labels {
        message(point, field, |out| push_text(out, key, value));
    }
}

impl Value {
    /// What ended series of a family come to.
    fn of(folded: Folded, kind: Kind) -> Self {
        if kind == Kind::Counter {
            return Self::Counter(folded.count);
        }
        let buckets = folded.buckets.into_iter().map(|(index, count)| {
            let (from, below) = range(index);
            Bucket { from, below, count }
        });
        Self::Stat { sum: folded.sum, buckets: buckets.collect() }
    }

    /// Of the same kind.
    fn nothing(&self) -> Self {
        match self {
            Self::Counter(_) => Self::Counter(0),
            Self::Stat { .. } => Self::Stat { sum: 0, buckets: Vec::new() },
        }
    }

    fn add(&mut self, more: &Self) {
        match (self, more) {
            (Self::Counter(n), Self::Counter(more)) => *n += more,
            (Self::Stat { sum, buckets }, Self::Stat { sum: more, buckets: gained }) => {
                *sum += more;
                for bucket in gained {
                    match buckets.binary_search_by_key(&bucket.from, |known| known.from) {
                        Ok(at) => buckets[at].count += bucket.count,
                        Err(at) => buckets.insert(at, *bucket),
                    }
                }
            }
            // A family is of one kind.
            _ => {}
        }
    }

    /// What came since that value was seen; `None` when it can't have been seen of this.
    fn since(&self, seen: &Self) -> Option<Self> {
        match (self, seen) {
            (Self::Counter(now), Self::Counter(then)) => Some(Self::Counter(now.checked_sub(*then)?)),
            (Self::Stat { sum, buckets }, Self::Stat { sum: then, buckets: before }) => {
                let mut before = before.iter().peekable();
                let mut gained = Vec::new();
                for bucket in buckets {
                    let mut count = bucket.count;
                    if let Some(was) = before.next_if(|was| was.from == bucket.from) {
                        count = count.checked_sub(was.count)?;
                    }
                    if count > 0 {
                        gained.push(Bucket { count, ..*bucket });
                    }
                }
                // A bucket that was there and is not: another stat.
                before.peek().is_none().then_some(())?;
                Some(Self::Stat { sum: sum.checked_sub(*then)?, buckets: gained })
            }
            _ => None,
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::Counter(n) => *n == 0,
            Self::Stat { buckets, .. } => buckets.is_empty(),
        }
    }
}

/// In the unit in which is counted: times in milliseconds much as OpenTelemetry's SDKs have them by default, and the same
/// in microseconds; sizes by fours; small numbers.
fn bounds(unit: Unit) -> &'static [f64] {
    match unit {
        Unit::Millis => &[
            0.0, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 75.0, 100.0, 250.0, 500.0, 750.0, 1e3, 2.5e3, 5e3, 7.5e3, 1e4, 3e4,
            6e4,
        ],
        Unit::Micros => &[
            0.0, 100.0, 1e3, 2e3, 5e3, 1e4, 2.5e4, 5e4, 7.5e4, 1e5, 2.5e5, 5e5, 7.5e5, 1e6, 2.5e6, 5e6, 7.5e6, 1e7, 3e7,
        ],
        Unit::Bytes => &[
            0.0,
            64.0,
            256.0,
            1024.0,
            4096.0,
            16_384.0,
            65_536.0,
            262_144.0,
            1_048_576.0,
            4_194_304.0,
            16_777_216.0,
            67_108_864.0,
            268_435_456.0,
        ],
        Unit::None | Unit::Percent => &[0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0],
    }
}

/// `bucket_counts` and `explicit_bounds`. A bucket of the stat that a bound divides is counted above it.
fn push_explicit(point: &mut Buffer, buckets: &[Bucket], unit: Unit) {
    let bounds = bounds(unit);
    let mut counts = vec![0_u64; bounds.len() + 1];
    for bucket in buckets {
        #[expect(clippy::cast_precision_loss, reason = "below 2^32")]
        let last = (bucket.below - 1) as f64;
        counts[bounds.partition_point(|bound| *bound < last)] += bucket.count;
    }
    let packed: Buffer = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
    bytes(point, 6, &packed);
    let packed: Buffer = bounds.iter().flat_map(|bound| unit.of(*bound).to_le_bytes()).collect();
    bytes(point, 7, &packed);
}

/// `scale`, `zero_count` and `positive`.
fn push_exponential(point: &mut Buffer, buckets: &[Bucket], unit: Unit) {
    let index = |bucket: &Bucket, scale: i32| {
        let middle = (bucket.from + bucket.below - 1) / 2;
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a logarithm of at most 2^32")]
        let at = (libm::log2(unit.of(middle as f64)) * libm::exp2(f64::from(scale))).ceil() as i64;
        // The bucket above `base^index` and up to `base^(index + 1)`, where base is 2^(2^-scale).
        at - 1
    };
    let zero: u64 = buckets.iter().filter(|bucket| bucket.below <= 1).map(|bucket| bucket.count).sum();
    let positive = || buckets.iter().filter(|bucket| bucket.below > 1);
    let (first, last) = (positive().next(), positive().next_back());
    let mut scale = FINEST;
    if let (Some(first), Some(last)) = (first, last) {
        while index(last, scale) - index(first, scale) >= MOST_BUCKETS {
            scale -= 1;
        }
    }
    varint_field(point, 6, zigzag(scale.into()));
    fixed64(point, 7, zero);
    let Some(first) = first else { return };
    let offset = index(first, scale);
    let mut counts: Vec<u64> = Vec::new();
    for bucket in positive() {
        let at = usize::try_from(index(bucket, scale) - offset).expect("buckets ascend");
        counts.resize(counts.len().max(at + 1), 0);
        counts[at] += bucket.count;
    }
    message(point, 8, |out| {
        varint_field(out, 1, zigzag(offset));
        let mut packed = Buffer::new();
        for count in counts {
            varint(&mut packed, count);
        }
        bytes(out, 2, &packed);
    });
}

fn zigzag(n: i64) -> u64 {
    ((n << 1) ^ (n >> 63)).cast_unsigned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::otlp::wire::tests::{Found, fields, messages};
    use crate::snapshot::Snapshotter;

    const SECOND: u64 = 1_000_000_000;

    /// A value as it was told.
    #[derive(Clone, Debug, PartialEq)]
    struct Point {
        name: String,
        unit: String,
        labels: Vec<(String, String)>,
        /// Field of `Metric`: 5 gauge, 7 sum, 9 histogram, 10 exponential.
        field: u32,
        temporality: Option<u64>,
        start_s: Option<u64>,
        time_s: u64,
        all: Vec<(u32, Found)>,
    }

    impl Point {
        fn number(&self, field: u32) -> Option<u64> {
            self.all.iter().find_map(|(n, found)| match found {
                Found::Number(value) if *n == field => Some(*value),
                _ => None,
            })
        }

        fn packed64(&self, field: u32) -> Vec<u64> {
            let found = self.all.iter().find(|(n, _)| *n == field);
            let Some((_, Found::Bytes(bytes))) = found else { panic!("{field}: {self:?}") };
            bytes.chunks(8).map(|chunk| u64::from_le_bytes(chunk.try_into().unwrap())).collect()
        }
    }

    fn string(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn points(requests: &[Request]) -> Vec<Point> {
        let mut points = Vec::new();
        for request in requests {
            let of_scope = messages(&messages(&request.body, 1)[0], 2);
            for metric in messages(&of_scope[0], 2) {
                let (name, unit) = (
                    string(&messages(&metric, 1)[0]),
                    messages(&metric, 3).first().map_or(String::new(), |unit| string(unit)),
                );
                let (field, data) = fields(&metric).into_iter().find(|(field, _)| *field >= 5).unwrap();
                let Found::Bytes(data) = data else { panic!("a message") };
                let temporality = fields(&data).into_iter().find_map(|(n, found)| match found {
                    Found::Number(value) if n == 2 => Some(value),
                    _ => None,
                });
                for point in messages(&data, 1) {
                    let labels = messages(&point, [0, 0, 7, 7, 9, 1][(field as usize) / 2]);
                    let labels = labels
                        .iter()
                        .map(|kv| (string(&messages(kv, 1)[0]), string(&messages(&messages(kv, 2)[0], 1)[0])));
                    let mut point = Point {
                        name: name.clone(),
                        unit: unit.clone(),
                        labels: labels.collect(),
                        field,
                        temporality,
                        start_s: None,
                        time_s: 0,
                        all: fields(&point),
                    };
                    point.start_s = point.number(2).map(|ns| ns / SECOND);
                    point.time_s = point.number(3).unwrap() / SECOND;
                    points.push(point);
                }
            }
        }
        points
    }

    fn metrics(tree: &MetricsTree, temporality: Temporality, histograms: Histograms) -> Metrics {
        let resource = Resource { attributes: vec![("service.name".to_owned(), "l5d".to_owned())] };
        Metrics::new(tree, Options { resource, temporality, histograms }, 100 * SECOND)
    }

    #[test]
    fn counters_accumulate_or_come_as_deltas() {
        let tree = MetricsTree::new();
        let requests = tree.scope("rt").scope("http").scope("server").scope("127.0.0.1/4140").counter("requests");
        let mut cumulative = metrics(&tree, Temporality::Cumulative, Histograms::Explicit);
        let mut delta = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let collect = |metrics: &mut Metrics, at: u64, taken: bool| {
            let requests = metrics.collect(at * SECOND);
            for request in requests.iter().filter(|_| taken) {
                metrics.taken(request);
            }
            points(&requests).iter().map(|p| (p.temporality, p.start_s, p.time_s, p.number(6))).collect::<Vec<_>>()
        };
        requests.add(5);
        assert_eq!(collect(&mut cumulative, 110, true), [(Some(2), Some(100), 110, Some(5))]);
        assert_eq!(collect(&mut delta, 110, true), [(Some(1), Some(100), 110, Some(5))]);
        requests.add(3);
        assert_eq!(collect(&mut cumulative, 120, false), [(Some(2), Some(100), 120, Some(8))]);
        assert_eq!(collect(&mut delta, 120, false), [(Some(1), Some(110), 120, Some(3))]);
        requests.add(1);
        assert_eq!(collect(&mut delta, 130, false), [(Some(1), Some(110), 130, Some(4))]);
        assert_eq!(collect(&mut delta, 140, true), [(Some(1), Some(110), 140, Some(4))], "what failed comes along");
        assert_eq!(collect(&mut delta, 150, true), [], "nothing came");
        requests.add(2);
        assert_eq!(collect(&mut delta, 160, true), [(Some(1), Some(140), 160, Some(2))]);
        assert_eq!(collect(&mut cumulative, 160, true), [(Some(2), Some(100), 160, Some(11))]);
    }

    #[test]
    fn a_series_that_begins_anew_has_a_new_start() {
        let tree = MetricsTree::new();
        let mut cumulative = metrics(&tree, Temporality::Cumulative, Histograms::Explicit);
        let scope = tree.scope("rt").scope("http").scope("client").scope("a");
        scope.counter("requests").add(7);
        let starts = |metrics: &mut Metrics, at: u64| {
            let points = points(&metrics.collect(at * SECOND));
            points.iter().map(|p| (p.start_s, p.number(6))).collect::<Vec<_>>()
        };
        assert_eq!(starts(&mut cumulative, 110), [(Some(100), Some(7))]);
        assert_eq!(starts(&mut cumulative, 120), [(Some(100), Some(7))]);
        scope.prune();
        assert_eq!(starts(&mut cumulative, 130), []);
        tree.scope("rt").scope("http").scope("client").scope("a").counter("requests").add(2);
        assert_eq!(starts(&mut cumulative, 140), [(Some(130), Some(2))], "new since the last collection");
        let value = Value::Counter(1).since(&Value::Counter(2));
        assert_eq!(value, None);
    }

    /// A collector that adds deltas up: the counts of a family, in all of its series.
    #[derive(Default)]
    struct Sums(BTreeMap<String, u64>);

    impl Sums {
        fn take(&mut self, requests: &[Request]) {
            for point in points(requests).iter().filter(|point| point.field != 5) {
                let count = point.number(if point.field == 7 { 6 } else { 4 }).unwrap();
                *self.0.entry(point.name.clone()).or_default() += count;
            }
        }

        fn of(&self, name: &str) -> u64 {
            self.0.get(name).copied().unwrap_or(0)
        }
    }

    const REQUESTS: &str = "l5d_client_requests";
    const LATENCY: &str = "l5d_client_request_duration";

    #[test]
    fn what_a_pruned_series_had_still_to_tell_comes_once() {
        let tree = MetricsTree::new();
        let snapshots = Snapshotter::new(&tree);
        let mut delta = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let mut sums = Sums::default();
        let mut collect = |at: u64, taken: bool| {
            let requests = delta.collect(at * SECOND);
            if taken {
                requests.iter().for_each(|request| delta.taken(request));
                sums.take(&requests);
            }
            let told = points(&requests).into_iter().map(|point| {
                let client = point.labels.iter().find(|(key, _)| key == "client").unwrap().1.clone();
                let count = point.number(if point.field == 7 { 6 } else { 4 }).unwrap();
                (point.name.replace("l5d_client_", ""), client, point.start_s.unwrap(), count)
            });
            let told: Vec<_> = told.collect();
            (told, sums.of(REQUESTS), sums.of(LATENCY))
        };
        let told = |name: &str, client: &str, start_s: u64, n: u64| (name.to_owned(), client.to_owned(), start_s, n);
        let scope = tree.scope("rt").scope("http").scope("client").scope("a");
        let (requests, latency) = (scope.counter("requests"), scope.stat("request_latency_ms"));
        requests.add(5);
        latency.add(3);
        snapshots.tick();
        let both = vec![told("request_duration", "a", 100, 1), told("requests", "a", 100, 5)];
        assert_eq!(collect(110, true), (both, 5, 1));
        requests.add(3);
        latency.add(3);
        latency.add(70);
        scope.prune();
        let both = vec![told("request_duration", "(expired)", 100, 2), told("requests", "(expired)", 100, 3)];
        assert_eq!(collect(120, false), (both.clone(), 5, 1));
        assert_eq!(collect(130, true), (both, 8, 3));
        assert_eq!(collect(140, true), (vec![], 8, 3), "once");
        // A handle that is still held, and one of the same name that is new.
        requests.add(2);
        tree.scope("rt").scope("http").scope("client").scope("a").counter("requests").add(4);
        let both = vec![told("requests", "a", 140, 4), told("requests", "(expired)", 130, 2)];
        assert_eq!(collect(150, true), (both, 14, 3));
    }

    #[test]
    fn what_was_taken_of_a_series_that_was_pruned_meanwhile_is_not_told_again() {
        let tree = MetricsTree::new();
        let mut delta = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let mut sums = Sums::default();
        let clients = tree.scope("rt").scope("http").scope("client");
        for (taken, more) in [(true, 0), (false, 0), (true, 6), (false, 6)] {
            let requests = clients.scope("a").counter("requests");
            requests.add(5);
            let under_way = delta.collect(110 * SECOND);
            clients.scope("a").prune();
            // The next of that name begins before the first is taken.
            clients.scope("a").counter("requests").add(more);
            if taken {
                under_way.iter().for_each(|request| delta.taken(request));
                sums.take(&under_way);
            }
            let rest = delta.collect(120 * SECOND);
            rest.iter().for_each(|request| delta.taken(request));
            sums.take(&rest);
            clients.scope("a").prune();
        }
        assert_eq!(sums.of(REQUESTS), 4 * 5 + 2 * 6);
    }

    /// Two workers that make, count and prune without end, and requests of which some are not taken.
    #[test]
    fn deltas_add_up_to_what_was_counted_while_series_come_and_go() {
        const ROUNDS: u64 = 3000;
        let tree = MetricsTree::new();
        let snapshots = Snapshotter::new(&tree);
        let mut delta = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let mut sums = Sums::default();
        let done = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|threads| {
            for worker in 0..2 {
                let (tree, done) = (&tree, &done);
                threads.spawn(move || {
                    let _worker = tree.enter_worker();
                    let clients = tree.scope("rt").scope("http").scope("client");
                    let mut late = Vec::new();
                    for round in 0..ROUNDS {
                        let scope = clients.scope(&format!("{worker}-{}", round % 7));
                        let (requests, latency) = (scope.counter("requests"), scope.stat("request_latency_ms"));
                        requests.add(2);
                        latency.add(round % 300);
                        if round % 3 == 0 {
                            scope.prune();
                        }
                        requests.incr();
                        late.push(requests);
                        late.drain(..late.len().saturating_sub(5)).for_each(|requests| requests.add(1));
                    }
                    late.drain(..).for_each(|requests| requests.add(1));
                    done.fetch_add(1, std::sync::atomic::Ordering::Release);
                });
            }
            let mut round = 0_u64;
            while done.load(std::sync::atomic::Ordering::Acquire) < 2 {
                round += 1;
                snapshots.tick();
                let requests = delta.collect((100 + round) * SECOND);
                for request in requests.iter().filter(|_| !round.is_multiple_of(3)) {
                    delta.taken(request);
                    sums.take(std::slice::from_ref(request));
                }
                assert!(sums.of(REQUESTS) <= 2 * 4 * ROUNDS);
            }
        });
        snapshots.tick();
        let last = delta.collect(1_000_000 * SECOND);
        last.iter().for_each(|request| delta.taken(request));
        sums.take(&last);
        assert_eq!((sums.of(REQUESTS), sums.of(LATENCY)), (2 * 4 * ROUNDS, 2 * ROUNDS));
        assert!(delta.collect(1_000_001 * SECOND).is_empty(), "there is nothing left");
    }

    #[test]
    fn names_labels_and_units_are_those_of_the_modern_face() {
        let tree = MetricsTree::new();
        let client = tree.scope("rt").scope("http").scope("client").scope("/#/io.l5d.fs/web");
        client.scope("failures").counter("a.B").incr();
        client.counter("sent_bytes").incr();
        let _gauge = (tree.scope("jvm").gauge("uptime", || 7500.0), tree.scope("jvm").gauge("nan", || f64::NAN));
        tree.scope("a").counter("b/c").incr();
        let mut metrics = metrics(&tree, Temporality::Cumulative, Histograms::Explicit);
        let points = points(&metrics.collect(110 * SECOND));
        let shown: Vec<String> = points
            .iter()
            .map(|p| {
                let labels: Vec<String> = p.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("{} {} {} {}", p.field, p.name, p.unit, labels.join(","))
            })
            .collect();
        assert_eq!(
            shown,
            [
                "7 l5d_client_failures_by_cause  router=http,client=/#/io.l5d.fs/web,flag=,cause=a.B",
                "7 l5d_client_sent By router=http,client=/#/io.l5d.fs/web",
                "5 l5d_process_uptime s ",
                "7 l5d_unlisted  path=a/b\\/c",
            ]
        );
        assert_eq!(points[2].number(4), Some(7.5_f64.to_bits()), "seconds");
    }

    #[test]
    fn explicit_histograms_add_up() {
        let tree = MetricsTree::new();
        let stat = tree.scope("rt").scope("http").scope("service").scope("svc/web").stat("request_latency_ms");
        let snapshots = Snapshotter::new(&tree);
        for (value, times) in [(0, 2), (1, 3), (7, 4), (5000, 5), (9_999_999, 1)] {
            (0..times).for_each(|_| stat.add(value));
        }
        snapshots.tick();
        let mut metrics = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let requests = metrics.collect(110 * SECOND);
        let points = points(&requests);
        let point = &points[0];
        assert_eq!((point.field, &*point.name, &*point.unit), (9, "l5d_service_request_duration", "s"));
        assert_eq!(point.number(4), Some(15));
        assert_eq!(f64::from_bits(point.number(5).unwrap()), (3.0 + 28.0 + 25_000.0 + 9_999_999.0) / 1e3);
        let (counts, bounds) = (point.packed64(6), point.packed64(7));
        assert_eq!(counts.len(), bounds.len() + 1);
        assert_eq!(counts.iter().sum::<u64>(), 15);
        assert_eq!((counts[0], counts[1], counts[4]), (2, 3, 4), "0, 1 and up to 10");
        assert_eq!(*counts.last().unwrap(), 1);
        metrics.taken(&requests[0]);
        stat.add(7);
        snapshots.tick();
        let next = points_of(&mut metrics, 120);
        assert_eq!((next[0].number(4), f64::from_bits(next[0].number(5).unwrap())), (Some(1), 0.007));
        assert_eq!(next[0].start_s, Some(110));
    }

    fn points_of(metrics: &mut Metrics, at: u64) -> Vec<Point> {
        points(&metrics.collect(at * SECOND))
    }

    #[test]
    fn exponential_histograms_keep_values_in_their_place() {
        let tree = MetricsTree::new();
        let stat = tree.scope("rt").scope("http").scope("service").scope("x").stat("request_latency_ms");
        let snapshots = Snapshotter::new(&tree);
        for value in [0, 1, 2, 4, 900, 900] {
            stat.add(value);
        }
        snapshots.tick();
        let mut metrics = metrics(&tree, Temporality::Cumulative, Histograms::Exponential);
        let points = points_of(&mut metrics, 110);
        let point = &points[0];
        assert_eq!((point.field, point.number(4), point.number(7)), (10, Some(6), Some(1)));
        let scale = point.number(6).unwrap();
        let scale = (scale >> 1) as i32 ^ -((scale & 1) as i32);
        assert!((3..=FINEST).contains(&scale), "{scale}");
        let Some((_, Found::Bytes(positive))) = point.all.iter().find(|(n, _)| *n == 8) else { panic!("{point:?}") };
        let found = fields(positive);
        let (Found::Number(offset), Found::Bytes(counts)) = (&found[0].1, &found[1].1) else { panic!("{found:?}") };
        let offset = (*offset >> 1) as i64 ^ -((*offset & 1) as i64);
        assert!(counts.len() <= MOST_BUCKETS as usize);
        let base = f64::from(-scale).exp2().exp2();
        let held = |value: f64| {
            let at =
                (0..counts.len()).find(|&i| value <= base.powf((offset + i as i64 + 1) as f64) * 1.000_001).unwrap();
            counts[at]
        };
        assert_eq!([0.001, 0.002, 0.004, 0.9].map(held), [1, 1, 1, 2]);
        assert_eq!(counts.iter().map(|&n| u64::from(n)).sum::<u64>(), 5);
    }

    #[test]
    fn many_series_are_told_in_many_requests() {
        let tree = MetricsTree::new();
        for n in 0..5000 {
            tree.scope("rt").scope("http").scope("service").scope(&format!("svc/{n}")).counter("requests").incr();
        }
        let mut metrics = metrics(&tree, Temporality::Delta, Histograms::Explicit);
        let requests = metrics.collect(110 * SECOND);
        assert_eq!(requests.iter().map(|request| request.points).collect::<Vec<_>>(), [2000, 2000, 1000]);
        metrics.taken(&requests[1]);
        assert_eq!(metrics.collect(120 * SECOND).iter().map(|request| request.points).sum::<usize>(), 3000);
    }
}
