//! The page of Prometheus text: family after family, each in one piece, as `families.rs` has them.
//!
//! A line is a copy of the family's name, a copy of the scope's labels and a number. A stat is four families, as its
//! `_count`, `_sum` and `_avg` are names of their own: the page goes over its scopes once for each.

use std::sync::Arc;

use crate::buckets::Summary;
use crate::cells::{Cells, Reader};
use crate::collide::Wire;
use crate::families::{Cursor, Form, GONE, Member, Own};
use crate::format::number::{push_java, push_u64};
use crate::format::prometheus::{push_cause, push_gauge, push_pair, quantiles};
use crate::format::text::push_line;
use crate::format::{PIECE, Page};
use crate::gauge::{Read, ask};
use crate::names::Name;
use crate::sync::{Mutex, lock};
use crate::texts::Texts;
use crate::tree::{Metric, Place, Role, Shape, Shared};

pub(super) struct Grouped {
    tree: Arc<Shared>,
    cursor: Arc<Mutex<Cursor>>,
    prefix: Vec<u8>,
    /// The functions of the gauge that was met, called when the locks are released; its line is begun.
    reads: Vec<Read>,
    done: bool,
}

/// The names of a stat, in the order of the page.
const PASSES: [&str; 4] = ["_count", "_sum", "_avg", ""];
/// The pass in which the family itself is written, and all that are no stats.
const ITSELF: u8 = 3;

/// How many scopes it takes until memory that was asked for is there.
const AHEAD: usize = 20;
/// How many scopes' nodes, cells and labels fit into a near cache.
const MANY: usize = 1000;

/// Why lines stop.
enum Pause {
    Full,
    /// The gauge's functions must be asked; its level, if it has one, adds this.
    Gauge(f64),
    Done,
}

/// What the lines of a family have in common.
struct Lines<'a> {
    shape: &'a Shape,
    cells: &'a Cells,
    texts: &'a Texts,
    reader: Reader<'a>,
    pass: u8,
    /// The name with its prefix and ending, and the bracket that opens the labels.
    name: Vec<u8>,
    /// Labels that a scope's are not enough for.
    labels: Vec<u8>,
    /// How many metrics of the scope are still to be passed over.
    skip: u32,
    /// How many of them are done.
    done: u32,
    /// How far the last scope's metric was from its first. Scopes of one form have their metrics in the same order,
    /// mostly.
    apart: u32,
    start: usize,
    reads: &'a mut Vec<Read>,
}

impl Grouped {
    /// A page whose names begin with `prefix`, which is spelled as it should be.
    pub(super) fn new(tree: &Arc<Shared>, prefix: Vec<u8>) -> Self {
        let cursor = tree.shape().families().begin();
        Self { tree: tree.clone(), cursor, prefix, reads: Vec::new(), done: false }
    }

    fn write(&mut self, out: &mut Vec<u8>, start: usize) -> Pause {
        let shape = self.tree.shape();
        let cells = self.tree.cells();
        let mut cursor = lock(&self.cursor);
        let families = shape.families();
        let order = families.order();
        // The family that the page stands at stays in the order as long as there is the page.
        let mut at = order.iter().position(|&f| f == cursor.form).unwrap_or(0);
        let mut lines = Lines {
            shape: &shape,
            cells: &cells,
            texts: families.texts(),
            reader: cells.reader(),
            pass: cursor.pass,
            name: Vec::new(),
            labels: Vec::new(),
            skip: cursor.done,
            done: 0,
            apart: 0,
            start,
            reads: &mut self.reads,
        };
        while let Some(&number) = order.get(at) {
            let form = families.form(number);
            if cursor.form != number {
                let pass = if form.has_stats() { 0 } else { ITSELF };
                (cursor.form, cursor.pass, cursor.scope, lines.skip) = (number, pass, 0, 0);
            }
            let (scopes, end) = (families.scopes(number), families.end(&cursor) as u32);
            while cursor.pass <= ITSELF {
                lines.begin(form, cursor.pass, &self.prefix);
                while cursor.scope < end {
                    if lines.skip == 0 {
                        cursor.scope += lines.counters(form, &scopes[cursor.scope as usize..end as usize], out);
                    }
                    let Some(scope) = scopes[..end as usize].get(cursor.scope as usize) else { break };
                    if let Some(pause) = lines.scope(form, scope, out) {
                        cursor.done = lines.done;
                        return pause;
                    }
                    cursor.scope += 1;
                    lines.skip = 0;
                }
                cursor.pass += 1;
                cursor.scope = 0;
            }
            at += 1;
        }
        Pause::Done
    }
}

impl Lines<'_> {
    fn begin(&mut self, form: &Form, pass: u8, prefix: &[u8]) {
        self.pass = pass;
        self.name.clear();
        self.name.extend_from_slice(prefix);
        if prefix.is_empty() && form.has_underscore() {
            self.name.push(b'_');
        }
        self.name.extend_from_slice(form.name());
        self.name.extend_from_slice(PASSES[usize::from(pass)].as_bytes());
        self.name.push(b'{');
    }

    /// The lines of scopes that have one metric of the family, a counter, where it is expected: which is nearly always
    /// so. Stops at the first scope that is different, or when the piece is full; returns how many scopes are done.
    ///
    /// Of a million series nothing is in a cache, so the memory of the scopes to come is asked for before it is needed:
    /// the cells. Labels are read as they lie.
    fn counters(&self, form: &Form, scopes: &[Member], out: &mut Vec<u8>) -> u32 {
        let &[(key, _)] = form.keys() else { return 0 };
        if self.pass != ITSELF || form.own() != Own::None || !self.shape.is_clear(Wire::Prometheus) {
            return 0;
        }
        let (shape, apart, name) = (self.shape, self.apart, &*self.name);
        let mut column = shape.families().layouts().column(key);
        let mut slot_of = |scope: &Member| {
            let near = || shape.counter_near(scope.node, key, scope.first.wrapping_add(apart));
            column.slot(scope.laid).or_else(near)
        };
        let many = scopes.len() > MANY;
        for (at, scope) in scopes.iter().enumerate() {
            if many && let Some(slot) = scopes.get(at + AHEAD).and_then(&mut slot_of) {
                self.reader.prefetch(slot);
            }
            let labels = self.texts.get(scope.labels);
            let slot = slot_of(scope).filter(|_| !labels.is_empty() && out.len() - self.start < PIECE);
            let Some(slot) = slot else { return at as u32 };
            push_line(out, name, labels, self.reader.sum(slot));
        }
        scopes.len() as u32
    }

    /// The lines of one scope's metrics.
    #[inline]
    fn scope(&mut self, form: &Form, scope: &Member, out: &mut Vec<u8>) -> Option<Pause> {
        self.done = 0;
        if scope.node == GONE {
            return None;
        }
        let texts = self.texts;
        let own = form.own();
        if own == Own::None {
            for &(key, _) in form.keys() {
                let near = scope.first.wrapping_add(self.apart);
                let Some(node) = self.shape.child_near(scope.node, key, near) else { continue };
                self.apart = node.wrapping_sub(scope.first);
                if let Some(pause) = self.metric(node, texts.get(scope.labels), out) {
                    return Some(pause);
                }
            }
            return None;
        }
        let mut labels = std::mem::take(&mut self.labels);
        labels.clear();
        labels.extend_from_slice(texts.get(scope.labels));
        let pause = self.beneath(scope.node, own, &mut labels, out);
        self.labels = labels;
        pause
    }

    /// The lines of the metrics whose keys are labels' values.
    fn beneath(&mut self, above: u32, own: Own, labels: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<Pause> {
        for node in self.shape.children(above) {
            let before = labels.len();
            let label = match own {
                Own::Label(label) => label,
                Own::None | Own::Exceptions => "exception",
            };
            push_pair(labels, label, self.shape.name_of(node));
            let mut pause = self.metric(node, labels, out);
            if own == Own::Exceptions && pause.is_none() {
                pause = self.causes(node, labels, out);
            }
            labels.truncate(before);
            if pause.is_some() {
                return pause;
            }
        }
        None
    }

    /// The lines of an exception's causes.
    fn causes(&mut self, above: u32, labels: &mut Vec<u8>, out: &mut Vec<u8>) -> Option<Pause> {
        for node in self.shape.children(above) {
            let before = labels.len();
            push_cause(labels, self.shape.name_of(node));
            let pause = self.metric(node, labels, out).or_else(|| self.causes(node, labels, out));
            // With the quote that the cause took away.
            labels.truncate(before - 1);
            labels.push(b'"');
            if pause.is_some() {
                return pause;
            }
        }
        None
    }

    /// A node's line or lines, if it has any in this pass.
    #[inline]
    fn metric(&mut self, node: u32, labels: &[u8], out: &mut Vec<u8>) -> Option<Pause> {
        self.done += 1;
        if self.skip >= self.done {
            return None;
        }
        if out.len() - self.start >= PIECE {
            self.done -= 1;
            return Some(Pause::Full);
        }
        let place = self.shape.place_of(node);
        match (self.shape.metric(place), self.shape.role(Wire::Prometheus, place)) {
            (Metric::None, _) | (_, Role::Silent) => None,
            (Metric::Counter(slot), Role::Alone) => {
                if self.pass == ITSELF {
                    self.integer(labels, self.reader.sum(slot), out);
                }
                None
            }
            (Metric::Counter(_), Role::Clashing { group, nth }) => {
                if self.pass == ITSELF {
                    let labels = &*self.marked(labels, nth, place);
                    self.integer(labels, self.shape.sum(group, self.cells), out);
                }
                None
            }
            (metric, Role::Clashing { nth, .. }) => {
                let labels = &*self.marked(labels, nth, place);
                self.other(metric, labels, out)
            }
            (metric, Role::Alone) => self.other(metric, labels, out),
        }
    }

    /// The lines of what is no counter.
    fn other(&mut self, metric: Metric, labels: &[u8], out: &mut Vec<u8>) -> Option<Pause> {
        match metric {
            Metric::Stat(number) => {
                let summary = self.shape.stat(number).window().filter(|s| s.count > 0)?;
                match self.pass {
                    0 => self.integer(labels, summary.count, out),
                    1 => self.integer(labels, summary.sum, out),
                    2 => {
                        self.head(labels, out);
                        push_java(out, summary.avg);
                        out.push(b'\n');
                    }
                    _ => self.quantiles(labels, &summary, out),
                }
                None
            }
            Metric::Gauge(number) if self.pass == ITSELF => {
                let gauge = self.shape.gauge(number);
                let level = gauge.level_value(self.cells);
                self.head(labels, out);
                if gauge.reads.is_empty() {
                    push_gauge(out, level);
                    return None;
                }
                self.reads.extend(gauge.reads.iter().map(|(_, read)| read.clone()));
                Some(Pause::Gauge(level))
            }
            Metric::None | Metric::Counter(_) | Metric::Gauge(_) => None,
        }
    }

    /// The labels with what tells the `nth` of several apart that have the same name and labels.
    #[cold]
    fn marked(&self, labels: &[u8], nth: usize, place: Place) -> Vec<u8> {
        let mut labels = labels.to_vec();
        if nth > 0 {
            push_pair(&mut labels, "path", &Name::new(&self.shape.full_name(place)));
        }
        labels
    }

    /// Name and labels, up to the blank before the value.
    fn head(&self, labels: &[u8], out: &mut Vec<u8>) {
        if labels.is_empty() {
            out.extend_from_slice(&self.name[..self.name.len() - 1]);
        } else {
            out.extend_from_slice(&self.name);
            out.extend_from_slice(labels);
            out.push(b'}');
        }
        out.push(b' ');
    }

    #[inline]
    fn integer(&self, labels: &[u8], value: u64, out: &mut Vec<u8>) {
        if !labels.is_empty() {
            return push_line(out, &self.name, labels, value);
        }
        self.head(labels, out);
        push_u64(out, value);
        out.push(b'\n');
    }

    fn quantiles(&self, labels: &[u8], s: &Summary, out: &mut Vec<u8>) {
        for (quantile, value) in quantiles(s) {
            out.extend_from_slice(&self.name);
            if !labels.is_empty() {
                out.extend_from_slice(labels);
                out.extend_from_slice(b", ");
            }
            push_line(out, quantile, b"", value);
        }
    }
}

impl Page for Grouped {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        while !self.done {
            match self.write(out, start) {
                Pause::Full => return true,
                Pause::Done => self.done = true,
                Pause::Gauge(level) => {
                    match ask(&self.tree, &self.reads, level) {
                        Some(value) => push_gauge(out, value),
                        // The line that is begun.
                        None => out.truncate(out.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1).max(start)),
                    }
                    self.reads.clear();
                }
            }
        }
        false
    }
}
