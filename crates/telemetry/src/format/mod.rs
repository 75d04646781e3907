//! The wire formats. Each is an encoder that knows bytes and nothing of sockets: whoever serves a page asks it for the
//! next piece until there is none.
//!
//! This file owns what they share: the walk over the tree that fills a buffer and stops when it is full. A format is a
//! `Face`, which is told what the walk meets and writes it down.
//!
//! A face keeps the text of the path it is on in a buffer that grows when the walk enters and shrinks when it leaves, so
//! a scope's labels are put together once per scrape, not once per series, and nothing is allocated per series. A piece is
//! written under the read locks of the shape and the cells; they are released to ask a gauge, and at the piece's end.

use std::sync::Arc;

use crate::cells::Cells;
use crate::collide::Wire;
use crate::gauge::{Read, ask};
use crate::names::Name;
use crate::stat::StatCell;
use crate::tree::{Metric, Place, Role, Shape, Shared};
use crate::walk::{Run, Step, Walk};

pub mod cardinality;
mod grouped;
pub mod influxdb;
pub mod json;
pub(crate) mod labels;
mod measured;
pub mod modern;
mod number;
pub mod otlp;
#[allow(unsafe_code, reason = "memory that is asked for ahead halves what a page of a million series takes")]
mod prefetch;
pub mod prometheus;
pub mod statsd;
mod survey;
mod text;
mod typed;
pub mod zipkin;

pub use measured::Scrapes;
pub(crate) use prefetch::{prefetch, prefetch_whole};

/// A page being written. No lock is held between two calls, and the tree may change between them.
pub trait Page: Send {
    /// Appends the next piece, about 64 KiB at most, to `out`. False when nothing is left; then this call may still have
    /// appended the end.
    fn fill(&mut self, out: &mut Vec<u8>) -> bool;
}

/// When a piece is large enough.
const PIECE: usize = 60 * 1024;

/// A format, told what a walk meets.
pub(crate) trait Face: Send {
    /// Where names of different paths may be the same, if they may.
    const WIRE: Option<Wire>;
    /// Before everything.
    fn begin(&mut self, _out: &mut Vec<u8>) {}
    /// Into a node beneath the page's root.
    fn enter(&mut self, name: &Name, out: &mut Vec<u8>);
    /// The metric of the node entered last.
    fn counter(&mut self, slot: u32, value: u64, out: &mut Vec<u8>);
    /// The metric of the node entered last.
    fn gauge(&mut self, value: f64, out: &mut Vec<u8>);
    /// The metric of the node entered last.
    fn stat(&mut self, stat: &StatCell, cells: &Cells, out: &mut Vec<u8>);
    /// The next metric, of the node entered last, is the `nth` whose name is the same, counted from 0; `path` is its own.
    fn mark(&mut self, _nth: usize, _path: &str) {}
    /// The metric that was marked is written.
    fn unmark(&mut self) {}
    /// Counters without children, beneath the node entered last: as if each was entered, shown and left.
    fn leaves(&mut self, run: &Run, shape: &Shape, out: &mut Vec<u8>) {
        each_leaf(self, run, shape, out);
    }
    /// The names of what comes may have other numbers than what came.
    fn renumber(&mut self) {}
    /// Out of the node entered last; also out of the page's root.
    fn leave(&mut self, out: &mut Vec<u8>);
    /// After everything.
    fn end(&mut self, _out: &mut Vec<u8>) {}
    /// Whether what was written since the last piece is enough for one.
    fn full(&mut self, out: &[u8], start: usize) -> bool {
        out.len() - start >= PIECE
    }
}

/// Has a face write each counter of a run by itself.
fn each_leaf<F: Face + ?Sized>(face: &mut F, run: &Run, shape: &Shape, out: &mut Vec<u8>) {
    for ((&name, &slot), &value) in run.names().iter().zip(run.slots()).zip(run.values()) {
        face.enter(shape.name_by(name), out);
        face.counter(slot, value, out);
        face.leave(out);
    }
}

/// A walk that a face writes down.
pub(crate) struct Writer<F> {
    tree: Arc<Shared>,
    walk: Walk,
    run: Run,
    /// Which shape the tree had when the last piece was written.
    changes: u64,
    pub(crate) face: F,
    /// The functions of the gauge that was met, called when the locks are released.
    reads: Vec<Read>,
    marked: bool,
    state: State,
}

enum State {
    Begin,
    Walking,
    Done,
}

impl<F: Face> Writer<F> {
    pub(crate) fn new(tree: &Arc<Shared>, root: Place, face: F) -> Self {
        Self {
            tree: tree.clone(),
            walk: Walk::new(root),
            run: Run::new(),
            changes: 0,
            face,
            reads: Vec::new(),
            marked: false,
            state: State::Begin,
        }
    }

    /// Walks until the piece is full, the walk over, or a gauge must be asked. Says whether to go on, and what the
    /// gauge's level, if it has one, adds.
    fn walk(&mut self, out: &mut Vec<u8>, start: usize) -> Pause {
        let shape = self.tree.shape();
        let cells = self.tree.cells();
        let reader = cells.reader();
        let changes = self.tree.changes();
        if std::mem::replace(&mut self.changes, changes) != changes {
            self.face.renumber();
        }
        let clear = F::WIRE.is_none_or(|wire| shape.is_clear(wire));
        while !self.face.full(out, start) {
            let step = if clear { self.walk.stride(&shape, &mut self.run) } else { Some(self.walk.step(&shape)) };
            let Some(step) = step else {
                self.run.read(&reader);
                self.face.leaves(&self.run, &shape, out);
                continue;
            };
            match step {
                Step::Done => return Pause::Done,
                Step::Leave => self.face.leave(out),
                Step::Enter(place) => {
                    if self.walk.depth() > 1 {
                        shape.prefetch_name_after(place);
                        self.face.enter(shape.name(place), out);
                    }
                    let metric = shape.metric(place);
                    let mut group: &[u32] = &[];
                    match F::WIRE.map_or(Role::Alone, |wire| shape.role(wire, place)) {
                        Role::Alone => {}
                        Role::Silent => continue,
                        Role::Clashing { group: all, nth } => {
                            group = all;
                            if nth > 0 {
                                self.face.mark(nth, &shape.full_name(place));
                                self.marked = true;
                            }
                        }
                    }
                    match metric {
                        Metric::None => {}
                        Metric::Counter(slot) if group.is_empty() => self.face.counter(slot, cells.sum(slot), out),
                        Metric::Counter(slot) => self.face.counter(slot, shape.sum(group, &cells), out),
                        Metric::Stat(number) => self.face.stat(shape.stat(number), &cells, out),
                        Metric::Gauge(number) => {
                            let gauge = shape.gauge(number);
                            let level = gauge.level_value(&cells);
                            if gauge.reads.is_empty() {
                                self.face.gauge(level, out);
                            } else {
                                self.reads.extend(gauge.reads.iter().map(|(_, read)| read.clone()));
                                return Pause::Gauge(level);
                            }
                        }
                    }
                    unmark(&mut self.face, &mut self.marked);
                }
            }
        }
        Pause::Full
    }
}

fn unmark(face: &mut impl Face, marked: &mut bool) {
    if std::mem::take(marked) {
        face.unmark();
    }
}

enum Pause {
    Full,
    Gauge(f64),
    Done,
}

impl<F: Face> Page for Writer<F> {
    fn fill(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        match self.state {
            State::Begin => self.face.begin(out),
            State::Walking => {}
            State::Done => return false,
        }
        self.state = State::Walking;
        loop {
            match self.walk(out, start) {
                Pause::Full => return true,
                Pause::Gauge(level) => {
                    if let Some(value) = ask(&self.tree, &self.reads, level) {
                        self.face.gauge(value, out);
                    }
                    self.reads.clear();
                    unmark(&mut self.face, &mut self.marked);
                }
                Pause::Done => {
                    self.face.end(out);
                    self.state = State::Done;
                    return false;
                }
            }
        }
    }
}
