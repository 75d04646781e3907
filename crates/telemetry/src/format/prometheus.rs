//! Prometheus text 0.0.4 with Linkerd 1's names: `io.l5d.prometheus`.
//!
//! Contract: keys joined by `:`, labels `{k="v", k2="v2"}` in the order of the path, a stat's `_count`, `_sum`, `_avg` and
//! eight quantiles, nothing of a stat whose window is empty, no TYPE lines (with `types`: `typed.rs`). Different from 1.7.5: label values are escaped
//! by the format's rules, a name that would start with a digit gets an underscore before it.

use crate::buckets::Summary;
use crate::cells::Cells;
use crate::collide::{Kind, Wire};
use crate::format::grouped::Grouped;
use crate::format::labels::{Does, Spot, push_key, push_label};
use crate::format::number::{push_java, push_u64};
use crate::format::{Face, Page, typed};
use crate::names::{Name, Plain};
use crate::stat::StatCell;
use crate::tree::MetricsTree;

/// The content type to serve the page as, which Prometheus asks for; 1.7.5 said only `text/plain`.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What the page is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Stands before every name; cleaned like one.
    pub prefix: String,
    /// Whether samples are sorted into families, each under HELP and TYPE. Linkerd did not: a reader that goes by types, such
    /// as Telegraf, calls things otherwise then.
    pub types: bool,
}

/// The page of a tree.
pub fn page(tree: &MetricsTree, options: &Options) -> Box<dyn Page> {
    if options.types {
        return typed::page(tree, &options.prefix);
    }
    Box::new(Grouped::new(tree.shared(), Prometheus::new(&options.prefix).name))
}

/// What the family of a metric is called without prefix, and whether it needs an underscore before it then.
pub(crate) fn family(path: &[&Name]) -> (Vec<u8>, bool) {
    // Behind a prefix, so that the name stands as it does behind any.
    let mut face = Prometheus::new("p");
    path.iter().for_each(|name| face.enter(name, &mut Vec::new()));
    let digit = |first: &&Name| first.text().bytes().next().is_none_or(|b| b.is_ascii_digit());
    (face.name.split_off(face.prefix), path.first().is_some_and(digit))
}

/// The labels that a path comes to.
pub(crate) fn labels(path: &[&Name]) -> Vec<u8> {
    let mut face = Prometheus::new("");
    path.iter().for_each(|name| face.enter(name, &mut Vec::new()));
    face.labels
}

/// The text of the path: what stands before the value.
pub(super) struct Prometheus {
    name: Vec<u8>,
    /// The length of what stands before the first key.
    prefix: usize,
    /// `k="v", k2="v2"`
    labels: Vec<u8>,
    spot: Spot,
    /// How it was before each node above.
    above: Vec<Above>,
    /// How long the labels were before a mark.
    unmarked: usize,
}

struct Above {
    name: usize,
    labels: usize,
    spot: Spot,
}

impl Prometheus {
    pub(super) fn new(prefix: &str) -> Self {
        let mut name = Vec::new();
        push_key(&mut name, prefix);
        if name.first().is_some_and(u8::is_ascii_digit) {
            name.insert(0, b'_');
        }
        Self { prefix: name.len(), name, labels: Vec::new(), spot: Spot::Root, above: Vec::new(), unmarked: 0 }
    }

    fn push_name(&mut self, name: &Name) {
        let first = self.name.len() == self.prefix && self.above.len() == 1;
        if !first {
            self.name.push(b':');
        } else if self.name.is_empty() && name.text().bytes().next().is_none_or(|b| b.is_ascii_digit()) {
            self.name.push(b'_');
        }
        if name.is(Plain::Key) {
            self.name.extend_from_slice(name.text().as_bytes());
        } else {
            push_key(&mut self.name, name.text());
        }
    }

    fn push_label(&mut self, key: &str, name: &Name) {
        if !self.labels.is_empty() {
            self.labels.extend_from_slice(b", ");
        }
        self.labels.extend_from_slice(key.as_bytes());
        self.labels.extend_from_slice(b"=\"");
        self.push_value(name);
    }

    /// The value of a label that is begun, and its quote.
    fn push_value(&mut self, name: &Name) {
        if name.is(Plain::Label) {
            self.labels.extend_from_slice(name.text().as_bytes());
        } else {
            push_label(&mut self.labels, name.text());
        }
        self.labels.push(b'"');
    }

    /// Name and labels, up to the blank before the value.
    fn head(&self, suffix: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.extend_from_slice(suffix.as_bytes());
        if !self.labels.is_empty() {
            out.push(b'{');
            out.extend_from_slice(&self.labels);
            out.push(b'}');
        }
        out.push(b' ');
    }

    /// The name, without labels.
    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn quantiles(&self, s: &Summary, out: &mut Vec<u8>) {
        let quantiles = [
            ("0", s.min),
            ("0.5", s.p50),
            ("0.9", s.p90),
            ("0.95", s.p95),
            ("0.99", s.p99),
            ("0.999", s.p9990),
            ("0.9999", s.p9999),
            ("1", s.max),
        ];
        for (quantile, value) in quantiles {
            out.extend_from_slice(&self.name);
            out.push(b'{');
            if !self.labels.is_empty() {
                out.extend_from_slice(&self.labels);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(b"quantile=\"");
            out.extend_from_slice(quantile.as_bytes());
            out.extend_from_slice(b"\"} ");
            push_u64(out, value);
            out.push(b'\n');
        }
    }

    pub(super) fn avg(&self, s: &Summary, out: &mut Vec<u8>) {
        self.head("_avg", out);
        push_java(out, s.avg);
        out.push(b'\n');
    }

    pub(super) fn integer(&self, suffix: &str, value: u64, out: &mut Vec<u8>) {
        self.head(suffix, out);
        push_u64(out, value);
        out.push(b'\n');
    }
}

/// Every series that a metric is written as, without its value.
pub(crate) fn series(path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
    let mut face = Prometheus::new("");
    for name in path {
        face.enter(name, &mut Vec::new());
    }
    // A stat's quantiles clash if their names do, as the quantile is a label that only they have.
    let suffixes: &[&str] = if kind == Kind::Stat { &["_count", "_sum", "_avg", "\0"] } else { &[""] };
    let series = suffixes.iter().map(|suffix| {
        let mut head = Vec::new();
        face.head(suffix, &mut head);
        head
    });
    series.collect()
}

impl Face for Prometheus {
    const WIRE: Option<Wire> = Some(Wire::Prometheus);

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        let (does, spot) = self.spot.next(name.text());
        self.above.push(Above { name: self.name.len(), labels: self.labels.len(), spot: self.spot });
        self.spot = spot;
        match does {
            Does::Name => self.push_name(name),
            Does::Label(key) => self.push_label(key, name),
            Does::Cause => {
                self.labels.pop();
                self.labels.push(b':');
                self.push_value(name);
            }
            Does::Exn => {
                self.name.truncate(self.name.len() - "exn".len());
                self.name.extend_from_slice(b"exceptions");
                self.push_label("exception", name);
            }
        }
    }

    fn counter(&mut self, _slot: u32, value: u64, out: &mut Vec<u8>) {
        self.integer("", value, out);
    }

    fn gauge(&mut self, value: f64, out: &mut Vec<u8>) {
        self.head("", out);
        if value.is_infinite() {
            out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
        } else {
            push_java(out, value);
        }
        out.push(b'\n');
    }

    fn stat(&mut self, stat: &StatCell, _cells: &Cells, out: &mut Vec<u8>) {
        let Some(s) = stat.window().filter(|s| s.count > 0) else { return };
        self.integer("_count", s.count, out);
        self.integer("_sum", s.sum, out);
        self.avg(&s, out);
        self.quantiles(&s, out);
    }

    fn mark(&mut self, _nth: usize, path: &str) {
        self.unmarked = self.labels.len();
        self.push_label("path", &Name::new(path));
    }

    fn unmark(&mut self) {
        self.labels.truncate(self.unmarked);
    }

    fn leave(&mut self, _out: &mut Vec<u8>) {
        let Some(above) = self.above.pop() else { return };
        if self.spot == Spot::Failure && above.spot == Spot::Failure {
            // The quote that the cause took away.
            self.labels.truncate(above.labels - 1);
            self.labels.push(b'"');
        }
        if above.spot == Spot::Exn {
            self.name.truncate(above.name - "exn".len());
            self.name.extend_from_slice(b"exn");
        }
        self.name.truncate(above.name);
        self.labels.truncate(above.labels);
        self.spot = above.spot;
    }
}
