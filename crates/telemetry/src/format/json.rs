//! `/admin/metrics.json`.
//!
//! Contract: one object without whitespace, keys joined by `/`, depth first; a stat's `.count` and, when it isn't 0, the
//! rest; `pretty` sorted by full name with ` : `; `tree` nested, an empty node `{}`. Different from 1.7.5: gauges that
//! are no number are left out.

use std::fmt;
use std::sync::Arc;

use crate::buckets::Summary;
use crate::cells::Cells;
use crate::collide::{Kind, Wire};
use crate::format::labels::push_json;
use crate::format::number::{push_java, push_u64};
use crate::format::text::push_pieces;
use crate::format::{Face, Page, Writer, each_leaf};
use crate::names::{Name, Plain};
use crate::stat::StatCell;
use crate::tree::{MetricsTree, Place, Shape, Shared};
use crate::walk::Run;

/// What the page is like.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// One entry a line, sorted by name. Without meaning together with `tree`.
    pub pretty: bool,
    /// Nested by keys.
    pub tree: bool,
    /// Only what is beneath this node: its keys joined by `/`. A key that has a `/` itself can't be said.
    pub q: Option<String>,
}

/// There is no node where `q` leads. Displayed as Linkerd says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoSuchSubtree {
    /// `q` as it was given.
    pub q: String,
}

impl NoSuchSubtree {
    /// The body of the answer: an object that says so. Escaped, where 1.7.5 did not.
    pub fn body(&self) -> String {
        let mut body = b"{\"error\": \"No such subtree: ".to_vec();
        push_json(&mut body, &self.q);
        body.extend_from_slice(b"\"}");
        String::from_utf8(body).expect("escaping keeps text text")
    }
}

impl fmt::Display for NoSuchSubtree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "No such subtree: {}", self.q)
    }
}

impl std::error::Error for NoSuchSubtree {}

/// The page of a tree.
pub fn page(tree: &MetricsTree, options: &Options) -> Result<Box<dyn Page>, NoSuchSubtree> {
    let root = match &options.q {
        None => tree.root_place(),
        Some(q) => {
            let place = tree.shared().shape().find(&keys(q));
            place.ok_or_else(|| NoSuchSubtree { q: q.clone() })?
        }
    };
    Ok(match (options.tree, options.pretty) {
        (true, _) => Box::new(Writer::new(tree.shared(), root, Nested::default())),
        (false, false) => Box::new(Writer::new(tree.shared(), root, Flat::default())),
        (false, true) => Box::new(Pretty::new(tree.shared(), root)),
    })
}

/// Java's `split`: empty pieces at the end don't count, and nothing is one empty piece.
fn keys(q: &str) -> Vec<&str> {
    if q.is_empty() {
        return vec![""];
    }
    let mut keys: Vec<&str> = q.split('/').collect();
    while keys.last().is_some_and(|k| k.is_empty()) {
        keys.pop();
    }
    keys
}

/// Every name that a metric is written as.
pub(crate) fn series(path: &[&Name], kind: Kind) -> Vec<Vec<u8>> {
    let path = path.iter().map(|n| n.text()).collect::<Vec<_>>().join("/");
    if kind != Kind::Stat {
        return vec![path.into_bytes()];
    }
    let mut series = Vec::new();
    entries_of(&Summary { count: 1, ..Summary::default() }, |key, _| series.push(format!("{path}.{key}").into_bytes()));
    series
}

/// A stat's entries, in the order they are shown.
fn entries(stat: &StatCell, each: impl FnMut(&'static str, Result<u64, f64>)) {
    if let Some(summary) = stat.window() {
        entries_of(&summary, each);
    }
}

fn entries_of(s: &Summary, mut each: impl FnMut(&'static str, Result<u64, f64>)) {
    each("count", Ok(s.count));
    if s.count > 0 {
        let values = [
            ("max", s.max),
            ("min", s.min),
            ("p50", s.p50),
            ("p90", s.p90),
            ("p95", s.p95),
            ("p99", s.p99),
            ("p9990", s.p9990),
            ("p9999", s.p9999),
            ("sum", s.sum),
        ];
        for (key, value) in values {
            each(key, Ok(value));
        }
        each("avg", Err(s.avg));
    }
}

fn push_number(out: &mut Vec<u8>, value: Result<u64, f64>) {
    match value {
        Ok(n) => push_u64(out, n),
        Err(x) => push_java(out, x),
    }
}

fn push_name(out: &mut Vec<u8>, name: &Name) {
    if name.is(Plain::Json) {
        out.extend_from_slice(name.text().as_bytes());
    } else {
        push_json(out, name.text());
    }
}

/// Full names and values, in one object.
struct Flat {
    /// A comma, a quote, and the keys so far, escaped, each with a slash behind it.
    path: Vec<u8>,
    above: Vec<usize>,
    /// What a name that is another's gets at its end.
    mark: String,
    some: bool,
    /// Of runs of counters that came, where one like them is looked for.
    keys: [Keys; 16],
}

/// The last keys of a run of counters, each with a quote and a colon behind it.
#[derive(Default)]
struct Keys {
    names: Vec<u32>,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Keys {
    /// Those of a run, in place of the last one's.
    fn set(&mut self, names: &[u32], shape: &Shape) {
        self.names.clear();
        self.names.extend_from_slice(names);
        self.text.clear();
        self.ends.clear();
        for &name in names {
            push_name(&mut self.text, shape.name_by(name));
            self.text.extend_from_slice(b"\":");
            self.ends.push(self.text.len());
        }
    }
}

impl Default for Flat {
    fn default() -> Self {
        Self { path: b",\"".to_vec(), above: Vec::new(), mark: String::new(), some: false, keys: Default::default() }
    }
}

impl Flat {
    fn entry(&mut self, suffix: &str, value: Result<u64, f64>, out: &mut Vec<u8>) {
        let first = !std::mem::replace(&mut self.some, true);
        // Without the last slash, unless this is the root's own metric.
        let end = self.path.len() - usize::from(!self.above.is_empty());
        out.extend_from_slice(&self.path[usize::from(first)..end]);
        out.extend_from_slice(self.mark.as_bytes());
        if !suffix.is_empty() {
            out.push(b'.');
            out.extend_from_slice(suffix.as_bytes());
        }
        out.extend_from_slice(b"\":");
        push_number(out, value);
    }
}

impl Face for Flat {
    const WIRE: Option<Wire> = Some(Wire::Json);

    fn mark(&mut self, nth: usize, _path: &str) {
        self.mark = format!("#{}", nth + 1);
    }

    fn unmark(&mut self) {
        self.mark.clear();
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.push(b'{');
    }

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        self.above.push(self.path.len());
        push_name(&mut self.path, name);
        self.path.push(b'/');
    }

    fn counter(&mut self, _slot: u32, value: u64, out: &mut Vec<u8>) {
        self.entry("", Ok(value), out);
    }

    fn leaves(&mut self, run: &Run, shape: &Shape, out: &mut Vec<u8>) {
        if !self.some {
            return each_leaf(self, run, shape, out);
        }
        let (first, last) = (run.names()[0], run.names()[run.names().len() - 1]);
        let at = (first ^ last) as usize % self.keys.len();
        let keys = &mut self.keys[at];
        if keys.names != run.names() {
            keys.set(run.names(), shape);
        }
        let mut start = 0;
        for (&end, &value) in keys.ends.iter().zip(run.values()) {
            push_pieces(out, &self.path, &keys.text[start..end], [], value, []);
            start = end;
        }
    }

    fn renumber(&mut self) {
        self.keys.iter_mut().for_each(|keys| keys.names.clear());
    }

    fn gauge(&mut self, value: f64, out: &mut Vec<u8>) {
        if value.is_finite() {
            self.entry("", Err(value), out);
        }
    }

    fn stat(&mut self, stat: &StatCell, _cells: &Cells, out: &mut Vec<u8>) {
        entries(stat, |key, value| self.entry(key, value, out));
    }

    fn leave(&mut self, _out: &mut Vec<u8>) {
        if let Some(above) = self.above.pop() {
            self.path.truncate(above);
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        out.push(b'}');
    }
}

/// Objects in objects.
#[derive(Default)]
struct Nested {
    /// Whether the object that is open has an entry, for it and those around it.
    some: Vec<bool>,
}

impl Nested {
    fn comma(&mut self, out: &mut Vec<u8>) {
        if let Some(some) = self.some.last_mut()
            && std::mem::replace(some, true)
        {
            out.push(b',');
        }
    }

    fn entry(&mut self, key: &[&str], value: Result<u64, f64>, out: &mut Vec<u8>) {
        self.comma(out);
        out.push(b'"');
        out.extend(key.iter().flat_map(|k| k.bytes()));
        out.extend_from_slice(b"\":");
        push_number(out, value);
    }
}

impl Face for Nested {
    /// A node's children have different keys, and their keys are all they are called.
    const WIRE: Option<Wire> = None;

    fn begin(&mut self, out: &mut Vec<u8>) {
        out.push(b'{');
        self.some.push(false);
    }

    fn enter(&mut self, name: &Name, out: &mut Vec<u8>) {
        self.comma(out);
        out.push(b'"');
        push_name(out, name);
        out.extend_from_slice(b"\":{");
        self.some.push(false);
    }

    fn counter(&mut self, _slot: u32, value: u64, out: &mut Vec<u8>) {
        self.entry(&["counter"], Ok(value), out);
    }

    fn gauge(&mut self, value: f64, out: &mut Vec<u8>) {
        if value.is_finite() {
            self.entry(&["gauge"], Err(value), out);
        }
    }

    fn stat(&mut self, stat: &StatCell, _cells: &Cells, out: &mut Vec<u8>) {
        entries(stat, |key, value| self.entry(&["stat.", key], value, out));
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.push(b'}');
        self.some.pop();
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        // The root's object, when the root went before the walk could leave it.
        if self.some.pop().is_some() {
            out.push(b'}');
        }
    }
}

/// Full names and values, a line each, sorted. For people: it holds the whole page, as it was when it was asked first.
struct Pretty {
    source: Option<Writer<Collect>>,
    lines: std::vec::IntoIter<(String, String)>,
    some: bool,
    done: bool,
}

/// Collects the entries instead of writing them.
#[derive(Default)]
struct Collect {
    path: String,
    above: Vec<usize>,
    unmarked: usize,
    entries: Vec<(String, String)>,
    /// How many there were when the locks were last released.
    before: usize,
}

impl Collect {
    fn entry(&mut self, suffix: &str, value: Result<u64, f64>) {
        let mut text = Vec::new();
        push_number(&mut text, value);
        let dot = if suffix.is_empty() { "" } else { "." };
        self.entries.push((format!("{}{dot}{suffix}", self.path), String::from_utf8(text).expect("digits")));
    }
}

impl Face for Collect {
    const WIRE: Option<Wire> = Some(Wire::Json);

    fn mark(&mut self, nth: usize, _path: &str) {
        self.unmarked = self.path.len();
        self.path.push_str(&format!("#{}", nth + 1));
    }

    fn unmark(&mut self) {
        self.path.truncate(self.unmarked);
    }

    fn enter(&mut self, name: &Name, _out: &mut Vec<u8>) {
        self.above.push(self.path.len());
        if self.above.len() > 1 {
            self.path.push('/');
        }
        self.path.push_str(name.text());
    }

    fn counter(&mut self, _slot: u32, value: u64, _out: &mut Vec<u8>) {
        self.entry("", Ok(value));
    }

    fn gauge(&mut self, value: f64, _out: &mut Vec<u8>) {
        if value.is_finite() {
            self.entry("", Err(value));
        }
    }

    fn stat(&mut self, stat: &StatCell, _cells: &Cells, _out: &mut Vec<u8>) {
        entries(stat, |key, value| self.entry(key, value));
    }

    fn leave(&mut self, _out: &mut Vec<u8>) {
        self.path.truncate(self.above.pop().unwrap_or(0));
    }

    fn full(&mut self, _out: &[u8], _start: usize) -> bool {
        let full = self.entries.len() - self.before >= 1000;
        if full {
            self.before = self.entries.len();
        }
        full
    }
}

impl Pretty {
    fn new(tree: &Arc<Shared>, root: Place) -> Self {
        let source = Some(Writer::new(tree, root, Collect::default()));
        Self { source, lines: Vec::new().into_iter(), some: false, done: false }
    }
}

impl Page for Pretty {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        if let Some(mut source) = self.source.take() {
            while source.fill(&mut Vec::new()) {}
            let mut entries = source.face.entries;
            // Java's order of strings.
            entries.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            self.lines = entries.into_iter();
            out.push(b'{');
        }
        while out.len() - start < super::PIECE {
            let Some((name, value)) = self.lines.next() else {
                if std::mem::replace(&mut self.done, true) {
                    return false;
                }
                out.extend_from_slice(if self.some { b"\n}" } else { b" }" });
                return false;
            };
            out.extend_from_slice(if std::mem::replace(&mut self.some, true) { b",\n  \"" } else { b"\n  \"" });
            push_json(out, &name);
            out.extend_from_slice(b"\" : ");
            out.extend_from_slice(value.as_bytes());
        }
        true
    }
}
