//! The modern face: `/metrics`, as a Prometheus or an OpenTelemetry collector of today expects it.
//!
//! Clean names, labels, HELP, TYPE and UNIT from the catalogue; base units; histograms whose counts and sums never go down.
//! One order, three formats: text 0.0.4, OpenMetrics 1.0, protobuf with native histograms. Which is negotiated by whoever
//! serves the page.
//!
//! A family must be written in one go, and the tree isn't in that order. So the page begins with a survey, which notes the
//! place of each metric under its family (eight bytes each, given back when the page ends); then families are written one by
//! one, and what ended meanwhile is passed over. Families that nobody asked for cost a look at their name.
//!
//! Classic buckets are worked out from the stat's own buckets for each page, so that each reader may choose its own bounds. They
//! are exact up to 112 counted units, and to half a per cent above.
//!
//! With a time to keep, the families that say whether requests succeed come first, and a family that would not be done in
//! four fifths of the time is left out whole; the page ends validly and says so.

mod native;
mod protobuf;
mod text;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buckets::representative;
use crate::catalogue::{Family, Unit, classify, families};
use crate::collide::Kind;
use crate::exemplar::Exemplar;
use crate::expired::{EXPIRED, Folded};
use crate::format::Page;
use crate::format::survey::Survey;
use crate::gauge::{Read, ask};
use crate::tree::{Metric, MetricsTree, Place, Shared};

pub use self::bounds::Buckets;
pub use self::filter::Filter;

mod bounds;
mod filter;

/// How to write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Delimited `io.prometheus.client.MetricFamily`.
    Protobuf,
}

/// What the page is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How to write.
    pub format: Format,
    /// The bounds of classic buckets.
    pub buckets: Arc<Buckets>,
    /// Which families.
    pub filter: Filter,
    /// How long the reader waits, from now on.
    pub timeout: Option<Duration>,
}

/// The page of a tree.
pub fn page(tree: &MetricsTree, options: Options) -> Box<dyn Page> {
    let encode: Box<dyn Encode> = match options.format {
        Format::Text => Box::new(text::Text::new(false)),
        Format::OpenMetrics => Box::new(text::Text::new(true)),
        Format::Protobuf => Box::new(protobuf::Protobuf::default()),
    };
    let root = tree.root_place();
    let tree = tree.shared();
    let wanted = families().iter().map(|f| options.filter.wants(&f.name, f.kind)).collect();
    Box::new(Modern {
        survey: Some(Survey::new(tree, root)),
        tree: tree.clone(),
        encode,
        wanted,
        plan: Vec::new(),
        family: 0,
        place: 0,
        begun: false,
        state: State::Surveying,
        clock: options.timeout.map(|timeout| Clock::new(timeout.mul_f64(PART_OF_TIME))),
        left_out: 0,
        options,
        reads: Vec::new(),
    })
}

/// The part of the reader's time in which the page is to be done: the rest is for the way.
const PART_OF_TIME: f64 = 0.8;

/// When a piece is large enough.
const PIECE: usize = 60 * 1024;

/// What stands above a family.
pub(crate) struct Head<'a> {
    name: &'a str,
    kind: Kind,
    unit: Unit,
    help: &'a str,
}

/// How a page is written down.
trait Encode: Send {
    /// A family begins.
    fn begin(&mut self, head: &Head<'_>, out: &mut Vec<u8>);
    /// The labels of the next metric.
    fn labels(&mut self, labels: &mut dyn Iterator<Item = (&str, &str)>);
    fn counter(&mut self, unit: Unit, value: u64, out: &mut Vec<u8>);
    fn gauge(&mut self, unit: Unit, value: f64, out: &mut Vec<u8>);
    fn histogram(&mut self, unit: Unit, samples: &Samples<'_>, out: &mut Vec<u8>);
    /// The family that was begun ends.
    fn end(&mut self, _out: &mut Vec<u8>) {}
    /// The page ends.
    fn finish(&mut self, _out: &mut Vec<u8>) {}
}

/// All samples of a stat.
struct Samples<'a> {
    /// By the stat's own buckets, ascending.
    buckets: &'a [(usize, u64)],
    sum: u64,
    /// In the unit in which is counted.
    bounds: &'a [f64],
    exemplars: &'a [Exemplar],
}

/// The upper bound of a classic bucket.
enum Bound {
    At(f64),
    Infinite,
}

impl Samples<'_> {
    fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, n)| n).sum()
    }

    /// What samples stand for, ascending, and how many there are.
    fn values(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().map(|&(bucket, n)| (representative(bucket) as f64, n))
    }

    /// How many samples there are up to each bound.
    fn cumulative(&self, mut each: impl FnMut(Bound, u64)) {
        let (mut values, mut sum) = (self.values().peekable(), 0);
        for &bound in self.bounds {
            while let Some((_, n)) = values.next_if(|(value, _)| *value <= bound) {
                sum += n;
            }
            each(Bound::At(bound), sum);
        }
        each(Bound::Infinite, sum + values.map(|(_, n)| n).sum::<u64>());
    }

    /// The newest exemplar above the one bound and not above the other.
    fn exemplar(&self, lower: f64, upper: f64) -> Option<&Exemplar> {
        let inside = |e: &&Exemplar| lower < e.value as f64 && e.value as f64 <= upper;
        self.exemplars.iter().filter(inside).max_by_key(|e| e.at)
    }
}

/// A page under way.
struct Modern {
    tree: Arc<Shared>,
    options: Options,
    encode: Box<dyn Encode>,
    wanted: Vec<bool>,
    survey: Option<Survey>,
    /// By family: what of it is in the tree, and what was.
    plan: Vec<Planned>,
    /// Where the page is.
    family: usize,
    place: usize,
    /// Whether that family is begun.
    begun: bool,
    state: State,
    clock: Option<Clock>,
    left_out: u64,
    reads: Vec<Read>,
}

#[derive(Default)]
struct Planned {
    places: Vec<Place>,
    expired: Option<Folded>,
}

enum State {
    Surveying,
    Writing,
    Done,
}

/// The time a page has left, and how fast it is written.
struct Clock {
    begun: Instant,
    until: Instant,
    written: u64,
}

impl Clock {
    /// Metrics a second that any machine does: believed until as many are written as tell better.
    const SLOW: f64 = 200_000.0;
    const TELLING: u64 = 2000;

    fn new(left: Duration) -> Self {
        let begun = Instant::now();
        Self { begun, until: begun + left, written: 0 }
    }

    /// Whether as many metrics can be written in time.
    fn allows(&self, metrics: usize) -> bool {
        let now = Instant::now();
        let speed = if self.written < Self::TELLING {
            Self::SLOW
        } else {
            self.written as f64 / (now - self.begun).as_secs_f64().max(1e-9)
        };
        let needed = Duration::try_from_secs_f64(metrics as f64 / speed).unwrap_or(Duration::MAX);
        now.checked_add(needed).is_some_and(|end| end < self.until)
    }
}

impl Modern {
    /// Notes some of the tree's metrics under their families. False when all are noted.
    fn survey(&mut self) -> bool {
        /// Steps of a survey before others have their turn.
        const STEPS: usize = 16;
        let Self { survey: Some(survey), plan, wanted, .. } = self else { return false };
        plan.resize_with(wanted.len(), Planned::default);
        for _ in 0..STEPS {
            let mut path: Vec<&str> = Vec::new();
            let more = survey.step(&mut |_, place, metric, names| {
                let Some(kind) = metric.kind() else { return };
                path.clear();
                let mut path: Vec<&str> = Vec::with_capacity(names.len());
                path.extend(names.iter().map(|name| name.text()));
                if let Some(classified) = classify(&path, kind)
                    && wanted[usize::from(classified.family)]
                {
                    plan[usize::from(classified.family)].places.push(place);
                }
            });
            if !more {
                self.survey = None;
                for (family, folded) in self.tree.expired().folded(&self.tree) {
                    if self.wanted[usize::from(family)] {
                        self.plan[usize::from(family)].expired = Some(folded);
                    }
                }
                return false;
            }
        }
        true
    }

    /// Writes families until the piece is full. False when all are written.
    fn write(&mut self, out: &mut Vec<u8>, start: usize) -> bool {
        while self.family < self.plan.len() {
            let family = &families()[self.family];
            let planned = &self.plan[self.family];
            if !self.begun {
                if planned.places.is_empty() && planned.expired.is_none() {
                    self.family += 1;
                    continue;
                }
                if self.clock.as_ref().is_some_and(|clock| !clock.allows(planned.places.len() + 1)) {
                    self.left_out += 1;
                    self.family += 1;
                    continue;
                }
                let Family { name, kind, unit, help, .. } = family;
                self.encode.begin(&Head { name, kind: *kind, unit: *unit, help }, out);
                self.begun = true;
            }
            if !self.metrics(family, out, start) {
                return true;
            }
            if let Some(folded) = self.plan[self.family].expired.take() {
                let bounds = self.options.buckets.of(family.unit);
                let gone: &[&str] = if family.labels.is_empty() { &["state"] } else { &family.labels };
                self.encode.labels(&mut gone.iter().map(|label| (*label, EXPIRED)));
                match family.kind {
                    Kind::Counter => self.encode.counter(family.unit, folded.count, out),
                    Kind::Stat => {
                        let buckets: Vec<(usize, u64)> = folded.buckets.into_iter().collect();
                        let samples = Samples { buckets: &buckets, sum: folded.sum, bounds, exemplars: &[] };
                        self.encode.histogram(family.unit, &samples, out);
                    }
                    Kind::Gauge => {}
                }
            }
            self.encode.end(out);
            // What is written needs no place any more.
            self.plan[self.family].places = Vec::new();
            (self.begun, self.place) = (false, 0);
            self.family += 1;
            if out.len() - start >= PIECE {
                return true;
            }
        }
        false
    }

    /// Writes the family's metrics. False when the piece is full before they are all written.
    fn metrics(&mut self, family: &Family, out: &mut Vec<u8>, start: usize) -> bool {
        let bounds = self.options.buckets.of(family.unit);
        loop {
            let shape = self.tree.shape();
            let cells = self.tree.cells();
            let mut level = None;
            while level.is_none() {
                // A family in protobuf is written at its end; its size is watched by how many metrics there were.
                if out.len() - start >= PIECE {
                    return false;
                }
                let Some(&place) = self.plan[self.family].places.get(self.place) else { return true };
                self.place += 1;
                if let Some(clock) = &mut self.clock {
                    clock.written += 1;
                }
                let Some(place) = shape.alive(place) else { continue };
                let path: Vec<&str> = shape.path(place.node).iter().map(|name| name.text()).collect();
                let metric = shape.metric(place);
                // It may be another one by now.
                let Some(kind) = metric.kind().filter(|kind| *kind == family.kind) else { continue };
                let Some(classified) = classify(&path, kind) else { continue };
                if usize::from(classified.family) != self.family {
                    continue;
                }
                let values = classified.values.iter().map(|value| &**value);
                self.encode.labels(&mut family.labels.iter().copied().zip(values));
                match metric {
                    Metric::None => {}
                    Metric::Counter(slot) => self.encode.counter(family.unit, cells.sum(slot), out),
                    Metric::Stat(number) => {
                        let stat = shape.stat(number);
                        let (buckets, sum) = stat.total(&cells);
                        let exemplars = self.tree.exemplars(stat.serial());
                        let samples = Samples { buckets: &buckets, sum, bounds, exemplars: &exemplars };
                        self.encode.histogram(family.unit, &samples, out);
                    }
                    Metric::Gauge(number) => {
                        let gauge = shape.gauge(number);
                        level = Some(gauge.level_value(&cells));
                        self.reads.extend(gauge.reads.iter().map(|(_, read)| read.clone()));
                    }
                }
            }
            drop((cells, shape));
            if let Some(level) = level {
                if let Some(value) = ask(&self.tree, &self.reads, level) {
                    self.encode.gauge(family.unit, value, out);
                }
                self.reads.clear();
            }
        }
    }

    /// What the telemetry tells of itself, and whether the page is whole.
    fn own(&mut self, out: &mut Vec<u8>) {
        let ceiling = self.tree.ceiling();
        let (collisions, series, limit) = (self.tree.collided(), self.tree.series(), ceiling.limit());
        let overflowed = ceiling.overflowed();
        let ended = self.tree.expired().ended();
        let truncated = u64::from(self.left_out > 0);
        let one = |value: u64| vec![("", "", value)];
        let all = overflowed.iter().map(|(router, label, n)| (router.as_str(), *label, *n)).collect();
        #[rustfmt::skip]
        let own = [
            ("l5d_telemetry_collisions", Kind::Counter, "Times two metrics came to one name in some format, or one name was asked for as two kinds.", one(collisions)),
            ("l5d_telemetry_panics", Kind::Counter, "Times a gauge panicked when it was asked; it is left out of the page.", one(self.tree.panics())),
            ("l5d_telemetry_series", Kind::Gauge, "Metrics in the tree.", one(series)),
            ("l5d_telemetry_series_limit", Kind::Gauge, "Metrics that may be in the tree: maxSeries.", one(limit)),
            ("l5d_telemetry_overflows", Kind::Counter, "Names that were counted as (overflow) because a limit of series was reached, by router and the label that grew.", all),
            ("l5d_telemetry_expired", Kind::Counter, "Series that ended and whose counts are kept as (expired).", one(ended)),
            ("l5d_scrape_truncated", Kind::Gauge, "1 when families were left out of this page for the reader's time to be kept.", one(truncated)),
            ("l5d_scrape_families_left_out", Kind::Gauge, "Families that were left out of this page for the reader's time to be kept.", one(self.left_out)),
        ];
        for (name, kind, help, metrics) in own {
            let told_anyway = truncated == 1 && name.starts_with("l5d_scrape_");
            if metrics.is_empty() || !(told_anyway || self.options.filter.wants(name, kind)) {
                continue;
            }
            self.encode.begin(&Head { name, kind, unit: Unit::None, help }, out);
            for (router, label, value) in metrics {
                let named = [("router", router), ("label", label)].into_iter();
                self.encode.labels(&mut named.filter(|(_, value)| !value.is_empty()));
                match kind {
                    Kind::Counter => self.encode.counter(Unit::None, value, out),
                    _ => self.encode.gauge(Unit::None, value as f64, out),
                }
            }
            self.encode.end(out);
        }
    }
}

impl Page for Modern {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        loop {
            match self.state {
                State::Surveying => {
                    if self.survey() {
                        return true;
                    }
                    self.state = State::Writing;
                }
                State::Writing => {
                    if self.write(out, start) {
                        return true;
                    }
                    self.own(out);
                    self.encode.finish(out);
                    self.plan = Vec::new();
                    self.state = State::Done;
                    return false;
                }
                State::Done => return false,
            }
        }
    }
}
