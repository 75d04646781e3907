//! The page of `io.l5d.prometheus` with `types: true`: the same samples, sorted into families, each under its HELP and TYPE.
//!
//! A family must be written in one go, so the page begins with a survey, as the modern face does. A stat is a summary; its
//! `_avg`, which no summary has, is a family of its own behind it. What comes to one name and is of different kinds is
//! untyped, and so is a stat of which another metric has the name of a part.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::buckets::Summary;
use crate::catalogue::{classify, families};
use crate::collide::{Kind, Wire};
use crate::format::Page;
use crate::format::prometheus::Prometheus;
use crate::format::survey::Survey;
use crate::gauge::{Read, ask};
use crate::tree::{Metric, MetricsTree, Place, Role, Shared};

/// The page of a tree.
pub(super) fn page(tree: &MetricsTree, prefix: &str) -> Box<dyn Page> {
    let root = tree.root_place();
    Box::new(Typed {
        tree: tree.shared().clone(),
        prefix: prefix.to_owned(),
        survey: Some(Survey::new(tree.shared(), root)),
        named: Vec::new(),
        by_name: HashMap::default(),
        groups: Vec::new(),
        at: (0, 0),
        headed: false,
        reads: Vec::new(),
    })
}

/// When a piece is large enough.
const PIECE: usize = 60 * 1024;

struct Typed {
    tree: Arc<Shared>,
    prefix: String,
    survey: Option<Survey>,
    /// What there is under each of Linkerd's names, in the order they were met.
    named: Vec<Named>,
    by_name: HashMap<Vec<u8>, usize, RandomState>,
    /// What is written, when all is known.
    groups: Vec<Group>,
    at: (usize, usize),
    /// Whether the group has its HELP and TYPE: it gets them with its first sample.
    headed: bool,
    reads: Vec<Read>,
}

struct Named {
    name: Vec<u8>,
    help: &'static str,
    metrics: Vec<(Place, Kind)>,
}

/// Samples of one name; of a summary also those of its parts.
struct Group {
    name: Vec<u8>,
    help: &'static str,
    kind: &'static str,
    entries: Vec<(Place, Part)>,
}

/// Which samples of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A counter's or gauge's only one.
    Counter,
    Gauge,
    /// A stat's quantiles, sum and count, in one family.
    Summary,
    Quantiles,
    Count,
    Sum,
    Avg,
}

/// For names that are in no catalogue.
const UNKNOWN: &str = "A metric of Linkerd's name.";

impl Typed {
    /// Notes some of the tree's metrics under their names. False when all are noted.
    fn survey(&mut self) -> bool {
        /// Steps of a survey before others have their turn.
        const STEPS: usize = 16;
        let Self { survey: Some(survey), named, by_name, prefix, .. } = self else { return false };
        for _ in 0..STEPS {
            let more = survey.step(&mut |_, place, metric, path| {
                let Some(kind) = metric.kind() else { return };
                let text = Prometheus::of(prefix, path);
                let at = match by_name.get(text.name()) {
                    Some(&at) => at,
                    None => {
                        let path: Vec<&str> = path.iter().map(|name| name.text()).collect();
                        let listed = classify(&path, kind).map(|c| &families()[usize::from(c.family)]);
                        let help = listed.filter(|f| !f.name.starts_with("l5d_unlisted")).map(|f| f.help.as_str());
                        by_name.insert(text.name().to_vec(), named.len());
                        named.push(Named {
                            name: text.name().to_vec(),
                            help: help.unwrap_or(UNKNOWN),
                            metrics: Vec::new(),
                        });
                        named.len() - 1
                    }
                };
                named[at].metrics.push((place, kind));
            });
            if !more {
                self.survey = None;
                self.group();
                return false;
            }
        }
        true
    }

    /// Sorts what is noted into what is written.
    fn group(&mut self) {
        let mut places: HashMap<Vec<u8>, usize, RandomState> = HashMap::default();
        let by_name = std::mem::take(&mut self.by_name);
        let groups = &mut self.groups;
        let mut put = |name: Vec<u8>, help, place, part| {
            let at = *places.entry(name).or_insert_with_key(|name| {
                groups.push(Group { name: name.clone(), help, kind: "", entries: Vec::new() });
                groups.len() - 1
            });
            groups[at].entries.push((place, part));
        };
        for Named { name, help, metrics } in std::mem::take(&mut self.named) {
            let with = |suffix: &str| [&name, suffix.as_bytes()].concat();
            let apart = metrics.iter().any(|(_, kind)| *kind != Kind::Stat)
                || by_name.contains_key(&with("_count"))
                || by_name.contains_key(&with("_sum"));
            for (place, kind) in metrics {
                match kind {
                    Kind::Counter => put(name.clone(), help, place, Part::Counter),
                    Kind::Gauge => put(name.clone(), help, place, Part::Gauge),
                    Kind::Stat if apart => {
                        put(name.clone(), help, place, Part::Quantiles);
                        put(with("_sum"), help, place, Part::Sum);
                        put(with("_count"), help, place, Part::Count);
                    }
                    Kind::Stat => put(name.clone(), help, place, Part::Summary),
                }
                if kind == Kind::Stat {
                    put(with("_avg"), help, place, Part::Avg);
                }
            }
        }
        for group in groups {
            let all = |part: Part| group.entries.iter().all(|(_, p)| *p == part);
            group.kind = match group.entries.first() {
                Some((_, Part::Counter)) if all(Part::Counter) => "counter",
                Some((_, Part::Gauge)) if all(Part::Gauge) => "gauge",
                Some((_, Part::Avg)) if all(Part::Avg) => "gauge",
                Some((_, Part::Summary)) if all(Part::Summary) => "summary",
                _ => "untyped",
            };
        }
    }

    /// Writes until the piece is full. False when all is written.
    fn write(&mut self, out: &mut Vec<u8>, start: usize) -> bool {
        while self.at.0 < self.groups.len() {
            if out.len() - start >= PIECE {
                return true;
            }
            let Some(&(place, part)) = self.groups[self.at.0].entries.get(self.at.1) else {
                self.groups[self.at.0].entries = Vec::new();
                self.at = (self.at.0 + 1, 0);
                self.headed = false;
                continue;
            };
            self.at.1 += 1;
            let before = out.len();
            self.sample(place, part, out);
            if out.len() > before && !self.headed {
                self.headed = true;
                let Group { name, help, kind, .. } = &self.groups[self.at.0];
                let name = String::from_utf8_lossy(name);
                let head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
                out.splice(before..before, head.into_bytes());
            }
        }
        false
    }

    fn sample(&mut self, place: Place, part: Part, out: &mut Vec<u8>) {
        let shape = self.tree.shape();
        let cells = self.tree.cells();
        let Some(place) = shape.alive(place) else { return };
        let mut text = Prometheus::of(&self.prefix, shape.path(place.node));
        // It may have got another name meanwhile.
        let own = &self.groups[self.at.0].name;
        if !own.starts_with(text.name()) {
            return;
        }
        let mut group: &[u32] = &[];
        match shape.role(Wire::Prometheus, place) {
            Role::Alone => {}
            Role::Silent => return,
            Role::Clashing { group: all, nth } => {
                group = all;
                if nth > 0 {
                    text.mark(&shape.full_name(place));
                }
            }
        }
        match (shape.metric(place), part) {
            (Metric::Counter(slot), Part::Counter) if group.is_empty() => text.integer("", cells.sum(slot), out),
            (Metric::Counter(_), Part::Counter) => text.integer("", shape.sum(group, &cells), out),
            (Metric::Stat(number), part) => {
                let window = shape.stat(number).window();
                if let Some(summary) = window.filter(|s| s.count > 0) {
                    parts(&text, &summary, part, out);
                }
            }
            (Metric::Gauge(number), Part::Gauge) => {
                let gauge = shape.gauge(number);
                let level = gauge.level_value(&cells);
                self.reads.extend(gauge.reads.iter().map(|(_, read)| read.clone()));
                drop((cells, shape));
                if let Some(value) = ask(&self.tree, &self.reads, level) {
                    text.gauge(value, out);
                }
                self.reads.clear();
            }
            _ => {}
        }
    }
}

fn parts(text: &Prometheus, summary: &Summary, part: Part, out: &mut Vec<u8>) {
    match part {
        Part::Summary => {
            text.quantiles(summary, out);
            text.integer("_sum", summary.sum, out);
            text.integer("_count", summary.count, out);
        }
        Part::Quantiles => text.quantiles(summary, out),
        Part::Sum => text.integer("_sum", summary.sum, out),
        Part::Count => text.integer("_count", summary.count, out),
        Part::Avg => text.avg(summary, out),
        Part::Counter | Part::Gauge => {}
    }
}

impl Page for Typed {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if self.survey() {
            return true;
        }
        self.write(out, start)
    }
}
