//! Prometheus text 0.0.4 with Linkerd 1's names: `io.l5d.prometheus`.
//!
//! Contract: keys joined by `:`, labels `{k="v", k2="v2"}` in the order of the path, a stat's `_count`, `_sum`, `_avg` and
//! eight quantiles, nothing of a stat whose window is empty, no TYPE lines (with `types`: `typed.rs`). Different from 1.7.5: label values are escaped
//! by the format's rules, a name that would start with a digit gets an underscore before it.

use crate::buckets::Summary;
use crate::collide::Kind;
use crate::format::grouped::Grouped;
use crate::format::labels::{Does, Spot, push_key, push_label};
use crate::format::number::{push_java, push_u64};
use crate::format::text::push_line;
use crate::format::{Page, typed};
use crate::names::{Name, Plain};
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
    let mut text = Prometheus::of("p", path.iter().copied());
    let digit = |first: &&Name| first.text().bytes().next().is_none_or(|b| b.is_ascii_digit());
    (text.name.split_off(text.prefix), path.first().is_some_and(digit))
}

/// The labels that a path comes to.
pub(crate) fn labels(path: &[&Name]) -> Vec<u8> {
    Prometheus::of("", path.iter().copied()).labels
}

/// The text of a path: what stands before the value.
pub(super) struct Prometheus {
    name: Vec<u8>,
    /// The length of what stands before the first key.
    prefix: usize,
    /// How many keys have come.
    depth: usize,
    /// `k="v", k2="v2"`
    labels: Vec<u8>,
    spot: Spot,
}

impl Prometheus {
    pub(super) fn new(prefix: &str) -> Self {
        let mut name = Vec::new();
        push_key(&mut name, prefix);
        if name.first().is_some_and(u8::is_ascii_digit) {
            name.insert(0, b'_');
        }
        Self { prefix: name.len(), name, depth: 0, labels: Vec::new(), spot: Spot::Root }
    }

    /// The text of these keys, behind a prefix.
    pub(super) fn of<'a>(prefix: &str, path: impl IntoIterator<Item = &'a Name>) -> Self {
        let mut text = Self::new(prefix);
        path.into_iter().for_each(|name| text.enter(name));
        text
    }

    /// Adds a key.
    fn enter(&mut self, name: &Name) {
        let (does, spot) = self.spot.next(name.text());
        self.depth += 1;
        self.spot = spot;
        match does {
            Does::Name => self.push_name(name),
            Does::Label(key) => push_pair(&mut self.labels, key, name),
            Does::Cause => push_cause(&mut self.labels, name),
            Does::Exn => {
                self.name.truncate(self.name.len() - "exn".len());
                self.name.extend_from_slice(b"exceptions");
                push_pair(&mut self.labels, "exception", name);
            }
        }
    }

    fn push_name(&mut self, name: &Name) {
        let first = self.name.len() == self.prefix && self.depth == 1;
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

    /// Tells it from another of the same name and labels, by its whole path.
    pub(super) fn mark(&mut self, path: &str) {
        push_pair(&mut self.labels, "path", &Name::new(path));
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
        for (quantile, value) in quantiles(s) {
            out.extend_from_slice(&self.name);
            out.push(b'{');
            if !self.labels.is_empty() {
                out.extend_from_slice(&self.labels);
                out.extend_from_slice(b", ");
            }
            push_line(out, quantile, b"", value);
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

    pub(super) fn gauge(&self, value: f64, out: &mut Vec<u8>) {
        self.head("", out);
        push_gauge(out, value);
    }
}

/// The labels of a stat's quantiles, and their values.
pub(super) fn quantiles(s: &Summary) -> [(&'static [u8], u64); 8] {
    [
        (b"quantile=\"0\"", s.min),
        (b"quantile=\"0.5\"", s.p50),
        (b"quantile=\"0.9\"", s.p90),
        (b"quantile=\"0.95\"", s.p95),
        (b"quantile=\"0.99\"", s.p99),
        (b"quantile=\"0.999\"", s.p9990),
        (b"quantile=\"0.9999\"", s.p9999),
        (b"quantile=\"1\"", s.max),
    ]
}

/// Adds a label.
pub(super) fn push_pair(labels: &mut Vec<u8>, label: &str, value: &Name) {
    if !labels.is_empty() {
        labels.extend_from_slice(b", ");
    }
    labels.extend_from_slice(label.as_bytes());
    labels.extend_from_slice(b"=\"");
    push_value(labels, value);
}

/// Adds the cause of an exception, which is the last label, to it.
pub(super) fn push_cause(labels: &mut Vec<u8>, cause: &Name) {
    // The quote comes behind the cause again.
    labels.pop();
    labels.push(b':');
    push_value(labels, cause);
}

/// The value of a label that is begun, and its quote.
fn push_value(labels: &mut Vec<u8>, value: &Name) {
    if value.is(Plain::Label) {
        labels.extend_from_slice(value.text().as_bytes());
    } else {
        push_label(labels, value.text());
    }
    labels.push(b'"');
}

/// The value of a gauge, and the end of its line.
pub(super) fn push_gauge(out: &mut Vec<u8>, value: f64) {
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"+Inf" } else { b"-Inf" });
    } else {
        push_java(out, value);
    }
    out.push(b'\n');
}

/// Every series that a metric is written as, without its value.
pub(crate) fn series(path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
    let text = Prometheus::of("", path.iter().copied());
    // A stat's quantiles clash if their names do, as the quantile is a label that only they have.
    let suffixes: &[&str] = if kind == Kind::Stat { &["_count", "_sum", "_avg", "\0"] } else { &[""] };
    let series = suffixes.iter().map(|suffix| {
        let mut head = Vec::new();
        text.head(suffix, &mut head);
        head
    });
    series.collect()
}
