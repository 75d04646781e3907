//! Where a component writes.

use std::sync::Arc;

use crate::counter::Counter;
use crate::format::labels::{Does, Spot};
use crate::gauge::GaugeGuard;
use crate::level::Level;
use crate::stat::Stat;
use crate::taken::Taken;
use crate::tree::{Place, Shared};
use crate::visit::{Visitor, visit};

/// A node of the tree, as the component that owns what is beneath it sees it.
///
/// A key is any text and is never split: `svc/web` is one key. Asking for a metric again gives the same one. Asking for
/// another kind of metric where one is already is an error to those who want to know
/// ([`try_counter`](Self::try_counter) and so on); to others it gives a handle that works and is not exported, and is
/// counted in [`MetricsTree::collisions`](crate::MetricsTree::collisions).
///
/// A scope whose parent was pruned is no place any more: what it hands out works and is not exported. Ask the parent
/// again for a scope that is.
#[derive(Clone)]
pub struct Scope {
    tree: Arc<Shared>,
    place: Option<Place>,
    spot: Spot,
}

impl Scope {
    pub(crate) fn new(tree: Arc<Shared>, place: Option<Place>, spot: Spot) -> Self {
        Self { tree, place, spot }
    }

    /// The label of this scope's name, when a request may have brought the name along.
    fn label_of(spot: Spot, key: &str) -> Option<&'static str> {
        match spot.next(key).0 {
            Does::Label(label @ ("service" | "client")) => Some(label),
            _ => None,
        }
    }

    /// The scope named `key` in this one. Its node exists at once.
    ///
    /// For a service's or a client's name that would be one too many it is a scope that all of those share: see
    /// [`MetricsTree::limit_series`](crate::MetricsTree::limit_series).
    pub fn scope(&self, key: &str) -> Self {
        let place = self.tree.child(self.place, key, Self::label_of(self.spot, key));
        Self { tree: self.tree.clone(), place, spot: self.spot.next(key).1 }
    }

    /// The counter called `name`.
    pub fn counter(&self, name: &str) -> Counter {
        self.try_counter(name).unwrap_or_else(|_| Counter::new(self.collided(Shared::lone_counter)))
    }

    /// The counter called `name`, or an error when that is another kind of metric.
    pub fn try_counter(&self, name: &str) -> Result<Counter, Taken> {
        Shared::counter(&self.tree, self.place, name).map(Counter::new)
    }

    /// The stat called `name`. It is in no face until the first tick.
    pub fn stat(&self, name: &str) -> Stat {
        self.try_stat(name).unwrap_or_else(|_| Stat::new(self.collided(Shared::lone_stat)))
    }

    /// The stat called `name`, or an error when that is another kind of metric.
    pub fn try_stat(&self, name: &str) -> Result<Stat, Taken> {
        Shared::stat(&self.tree, self.place, name).map(Stat::new)
    }

    /// Registers a gauge called `name`. Its value is what all registrations of the name and its level, if it has one,
    /// add up to. `read` is called by whoever looks, with no lock held, and should be quick. When it panics the gauge
    /// is left out, and counted in [`MetricsTree::panics`](crate::MetricsTree::panics).
    pub fn gauge(&self, name: &str, read: impl Fn() -> f64 + Send + Sync + 'static) -> GaugeGuard {
        self.try_gauge(name, read).unwrap_or_else(|_| self.collided(|_| GaugeGuard { registered: None }))
    }

    /// The same, or an error when `name` is another kind of metric.
    pub fn try_gauge(&self, name: &str, read: impl Fn() -> f64 + Send + Sync + 'static) -> Result<GaugeGuard, Taken> {
        Shared::gauge(&self.tree, self.place, name, Arc::new(read))
    }

    /// The level called `name`.
    pub fn level(&self, name: &str) -> Level {
        self.try_level(name).unwrap_or_else(|_| Level::new(self.collided(Shared::lone_level)))
    }

    /// The level called `name`, or an error when that is a counter or a stat.
    pub fn try_level(&self, name: &str) -> Result<Level, Taken> {
        Shared::level(&self.tree, self.place, name).map(Level::new)
    }

    /// Counts a name that was taken, and makes what is handed out instead.
    fn collided<T>(&self, make: impl FnOnce(&Arc<Shared>) -> T) -> T {
        self.tree.collide();
        make(&self.tree)
    }

    /// Takes everything beneath this node, and its own metric, out of every face of Linkerd's names. The node stays, and may
    /// be filled anew; that of a service or a client is given another name later, and then this is no place any more. The
    /// modern face keeps the counts, and those of handles that are still held, in the family's `(expired)` series.
    pub fn prune(&self) {
        self.tree.prune(self.place, self.spot.is_named());
    }

    /// Shows a visitor this node's own metric and all that is beneath it. See [`MetricsTree::visit`](crate::MetricsTree::visit).
    pub fn visit(&self, visitor: &mut dyn Visitor) {
        if let Some(place) = self.place {
            visit(&self.tree, place, visitor);
        }
    }
}

impl std::fmt::Debug for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("place", &self.place).finish_non_exhaustive()
    }
}
