//! Reading the tree in steps, with no lock held between them.
//!
//! A walk is depth first, a node's own metric before its children, siblings in the order of their making. Between two
//! steps anything may change. What was there from the beginning to the end is met once; what comes is met when it comes
//! behind the walk's place; what goes is not met any more. When the node the walk stands at went, all its siblings went
//! with it, and what took their place since is left to the next walk: no name can be met twice.

use crate::cells::Reader;
use crate::tree::{Place, Shape};

/// Where a walk stands.
pub(crate) struct Walk {
    above: Vec<Place>,
    next: Next,
}

/// Counters without children, in the order of their making.
pub(crate) struct Run {
    len: usize,
    /// What they are called, by number.
    names: [u32; LONGEST],
    slots: [u32; LONGEST],
    values: [u64; LONGEST],
}

/// A run is as long as this at most, so that a piece of a page doesn't become much longer than it should.
const LONGEST: usize = 32;

enum Next {
    Enter(Place),
    /// To the first child of the node entered last, or out of it.
    Down,
    /// To what comes after this node, which was entered and left.
    Past(Place),
    /// Out of the node that is on top.
    Up,
}

/// What a step came to.
pub(crate) enum Step {
    /// Into this node.
    Enter(Place),
    /// Out of the node entered last.
    Leave,
    /// The walk is over.
    Done,
}

impl Walk {
    /// A walk over `root` and what is beneath it. `root` itself is entered, too.
    pub(crate) fn new(root: Place) -> Self {
        Self { above: Vec::new(), next: Next::Enter(root) }
    }

    /// How many nodes were entered and not left.
    pub(crate) fn depth(&self) -> usize {
        self.above.len()
    }

    #[inline]
    pub(crate) fn step(&mut self, shape: &Shape) -> Step {
        let next = self.next(shape);
        self.go(next)
    }

    /// A step, or none, and the walk is behind counters without children, which most of a tree's nodes are: they are in the run
    /// then, without their values.
    #[inline(always)]
    pub(crate) fn stride(&mut self, shape: &Shape, run: &mut Run) -> Option<Step> {
        let next = self.next(shape);
        if let Some(first) = next.filter(|_| !self.above.is_empty()) {
            let last;
            (run.len, last) = shape.lone_counters(first, &mut run.names, &mut run.slots);
            if run.len > 0 {
                self.next = Next::Past(last);
                return None;
            }
        }
        Some(self.go(next))
    }

    /// The node that comes next, unless that is one that was entered already.
    #[inline(always)]
    fn next(&self, shape: &Shape) -> Option<Place> {
        // A node that is gone has no children and no siblings.
        match self.next {
            Next::Enter(place) => shape.alive(place),
            Next::Down => self.above.last().and_then(|&top| shape.first_child(top)),
            Next::Past(place) => shape.next_sibling(place),
            Next::Up => None,
        }
    }

    #[inline(always)]
    fn go(&mut self, next: Option<Place>) -> Step {
        if let Some(place) = next {
            self.above.push(place);
            self.next = Next::Down;
            return Step::Enter(place);
        }
        let Some(left) = self.above.pop() else { return Step::Done };
        self.next = if self.above.is_empty() { Next::Up } else { Next::Past(left) };
        Step::Leave
    }
}

impl Run {
    pub(crate) fn new() -> Self {
        Self { len: 0, names: [0; LONGEST], slots: [0; LONGEST], values: [0; LONGEST] }
    }

    /// Takes in what they stand at.
    pub(crate) fn read(&mut self, cells: &Reader<'_>) {
        cells.sums(&self.slots[..self.len], &mut self.values[..self.len]);
    }

    pub(crate) fn names(&self) -> &[u32] {
        &self.names[..self.len]
    }

    pub(crate) fn slots(&self) -> &[u32] {
        &self.slots[..self.len]
    }

    pub(crate) fn values(&self) -> &[u64] {
        &self.values[..self.len]
    }
}
