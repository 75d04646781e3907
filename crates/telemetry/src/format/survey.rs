//! Going over the tree to see what is there, before anything is written: for faces whose order is not the tree's.

use std::sync::Arc;

use crate::names::Name;
use crate::tree::{Metric, Place, Shape, Shared};
use crate::walk::{Step, Walk};

/// A walk that shows every metric with its path, a part of the tree at a time.
pub(crate) struct Survey {
    tree: Arc<Shared>,
    walk: Walk,
    path: Vec<Name>,
    done: bool,
}

/// What is shown of a metric: the tree as it is under its lock, where the metric is, what it is, its path.
pub(crate) type Each<'a> = dyn FnMut(&Shape, Place, Metric, &[Name]) + 'a;

/// Nodes to go over under one lock.
const STEPS: usize = 4096;

impl Survey {
    pub(crate) fn new(tree: &Arc<Shared>, root: Place) -> Self {
        Self { tree: tree.clone(), walk: Walk::new(root), path: Vec::new(), done: false }
    }

    /// Shows the next metrics. False when there are no more.
    pub(crate) fn step(&mut self, each: &mut Each<'_>) -> bool {
        if self.done {
            return false;
        }
        let shape = self.tree.shape();
        for _ in 0..STEPS {
            match self.walk.step(&shape) {
                Step::Done => {
                    self.done = true;
                    return false;
                }
                Step::Leave => _ = self.path.pop(),
                Step::Enter(place) => {
                    if self.walk.depth() > 1 {
                        self.path.push(shape.name(place).clone());
                    }
                    let metric = shape.metric(place);
                    if metric != Metric::None {
                        each(&shape, place, metric, &self.path);
                    }
                }
            }
        }
        true
    }
}
