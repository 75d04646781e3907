//! Reading the tree in steps, with no lock held between them.
//!
//! A walk is depth first, a node's own metric before its children, siblings in the order of their making. Between two
//! steps anything may change. What was there from the beginning to the end is met once; what comes is met when it comes
//! behind the walk's place; what goes is not met any more. When the node the walk stands at went, all its siblings went
//! with it, and what took their place since is left to the next walk: no name can be met twice.

use crate::tree::{Place, Shape};

/// Where a walk stands.
pub(crate) struct Walk {
    above: Vec<Place>,
    next: Next,
}

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

    /// Goes on over counters without children, which most of a tree's nodes are, as long as one is next and `each`,
    /// which is given their names' numbers and their slots, says so.
    #[inline]
    pub(crate) fn counters(&mut self, shape: &Shape, mut each: impl FnMut(u32, u32) -> bool) {
        let first = match self.next {
            Next::Down => self.above.last().and_then(|&top| shape.first_child(top)),
            Next::Enter(place) if !self.above.is_empty() => shape.alive(place),
            Next::Past(place) => shape.next_sibling(place),
            Next::Enter(_) | Next::Up => None,
        };
        let Some(first) = first else { return };
        let mut last = None;
        for (node, name, slot) in shape.lone_counters(first) {
            last = Some(node);
            if !each(name, slot) {
                break;
            }
        }
        if let Some(last) = last {
            self.next = Next::Past(shape.place_of(last));
        }
    }

    #[inline]
    pub(crate) fn step(&mut self, shape: &Shape) -> Step {
        // A node that is gone has no children and no siblings.
        let next = match self.next {
            Next::Down => Some(self.above.last().and_then(|&top| shape.first_child(top))),
            Next::Past(place) => Some(shape.next_sibling(place)),
            Next::Enter(_) | Next::Up => None,
        };
        if let Some(next) = next {
            self.next = next.map_or(Next::Up, Next::Enter);
        }
        match self.next {
            Next::Enter(place) if shape.alive(place).is_some() => {
                self.above.push(place);
                self.next = Next::Down;
                Step::Enter(place)
            }
            _ => {
                let Some(left) = self.above.pop() else { return Step::Done };
                let sibling = if self.above.is_empty() { None } else { shape.next_sibling(left) };
                self.next = sibling.map_or(Next::Up, Next::Enter);
                Step::Leave
            }
        }
    }
}
