//! Reading the tree node by node, for exporters and pages that are no wire format.

use std::sync::Arc;

use crate::gauge::ask;
use crate::stat::StatRef;
use crate::tree::{Metric, Place, Shared};
use crate::walk::{Step, Walk};

/// What a reader does at each node. All of it runs with no lock held.
pub trait Visitor {
    /// Into the node called `key`.
    fn enter(&mut self, key: &str);
    /// The metric of the node entered last, before any of its children.
    fn metric(&mut self, metric: MetricRef<'_>);
    /// Out of the node entered last.
    fn leave(&mut self);
}

/// A metric as a reader sees it.
pub enum MetricRef<'a> {
    /// A counter's value.
    Counter(u64),
    /// A gauge's value, levels included; it may be any number, also none.
    Gauge(f64),
    /// A stat.
    Stat(StatRef<'a>),
}

/// Visits a node and what is beneath it. The node itself is not entered, only its metric is shown: what it is called
/// says the one who asked.
pub(crate) fn visit(tree: &Arc<Shared>, root: Place, visitor: &mut dyn Visitor) {
    let mut walk = Walk::new(root);
    loop {
        let shape = tree.shape();
        match walk.step(&shape) {
            Step::Done => return,
            Step::Leave => {
                drop(shape);
                if walk.depth() > 0 {
                    visitor.leave();
                }
            }
            Step::Enter(place) => {
                let key = (walk.depth() > 1).then(|| shape.name(place).clone());
                let mut reads = Vec::new();
                let (mut stat, mut value) = (None, None);
                match shape.metric(place) {
                    Metric::None => {}
                    Metric::Counter(slot) => value = Some(MetricRef::Counter(tree.cells().sum(slot))),
                    Metric::Gauge(number) => {
                        let gauge = shape.gauge(number);
                        reads.extend(gauge.reads.iter().map(|(_, read)| read.clone()));
                        value = Some(MetricRef::Gauge(gauge.level_value(&tree.cells())));
                    }
                    Metric::Stat(number) => stat = Some(shape.stat(number).clone()),
                }
                drop(shape);
                if let Some(key) = key {
                    visitor.enter(key.text());
                }
                match (value, &stat) {
                    (Some(MetricRef::Gauge(level)), _) => {
                        if let Some(value) = ask(tree, &reads, level) {
                            visitor.metric(MetricRef::Gauge(value));
                        }
                    }
                    (Some(value), _) => visitor.metric(value),
                    (None, Some(stat)) => visitor.metric(MetricRef::Stat(StatRef::new(stat))),
                    (None, None) => {}
                }
            }
        }
    }
}
