//! The bound stack: what a logical name has been bound to. It adds the residual, keeps the counts of the logical name
//! beneath the client, and chooses where a union leaves a choice (http-behaviour §4.3, §4.4).
//!
//! A way is built from the caches of trees, bounds and clients when the first request takes it, and is their link
//! ([`LeafLink`]): a request that holds its [`Leaf`] is what makes their entries busy. No cache but that of paths is
//! asked by a request whose way is known.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use l5d_naming::{Bound as BoundName, NameTree};
use l5d_router::{clock, linked_cache::Link, stats::RequestStats};
use tokio::time::Instant;

use crate::{binding::Current, scopes::Scoped, stack::client::Client};

/// A client, shared by every name that is bound to its id.
pub(crate) type SharedClient = Arc<Scoped<Arc<Client>>>;

/// The counts of a logical name beneath a client.
pub(crate) type ServiceCounts = Arc<Scoped<RequestStats>>;

/// A bound id with a residual.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) client: SharedClient,
    pub(crate) residual: Option<Arc<str>>,
}

/// A logical name's way to a bound, with the counts of the name beneath its client.
#[derive(Debug)]
pub(crate) struct Leaf {
    /// `None` on a way that leads nowhere: negative, failed or empty.
    pub(crate) bound: Option<Bound>,
    pub(crate) service_stats: OnceLock<ServiceCounts>,
    /// How the name came here, for traces: worked out when the first one wants to know.
    pub(crate) way: OnceLock<Option<Arc<str>>>,
    link: Arc<LeafLink>,
}

impl Leaf {
    /// The leaf at the end of `link`.
    pub(crate) fn new(bound: Option<Bound>, link: Arc<LeafLink>) -> Arc<Self> {
        let leaf = Arc::new(Self { bound, service_stats: OnceLock::new(), way: OnceLock::new(), link });
        let _ = leaf.link.leaf.set(Arc::downgrade(&leaf));
        leaf
    }
}

impl Drop for Leaf {
    fn drop(&mut self) {
        if let Some(counts) = self.service_stats.take()
            && let Some(home) = self.link.home.upgrade()
        {
            home.keep(counts);
        }
    }
}

/// What the caches know of a leaf.
#[derive(Debug)]
pub(crate) struct LeafLink {
    /// Its references tell whether it is in use: the choice has one, each request another. Not set while it is built.
    leaf: OnceLock<Weak<Leaf>>,
    made_at: Instant,
    /// When a request last ended, in nanoseconds since it was made.
    used_at: AtomicU64,
    /// Where its choice is kept.
    home: Weak<Current>,
}

impl LeafLink {
    /// Of a leaf in the choice that is kept there.
    pub(crate) fn new(now: Instant, home: Weak<Current>) -> Arc<Self> {
        Arc::new(Self { leaf: OnceLock::new(), made_at: now, used_at: AtomicU64::new(0), home })
    }

    fn used(&self, now: Instant) {
        let since = now.saturating_duration_since(self.made_at).as_nanos();
        self.used_at.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
    }
}

impl Link for LeafLink {
    fn idle_since(&self) -> Option<Instant> {
        let used_at = std::time::Duration::from_nanos(self.used_at.load(Relaxed));
        (self.leaf.get()?.strong_count() <= 1).then(|| self.made_at + used_at)
    }

    fn is_gone(&self) -> bool {
        self.leaf.get().is_some_and(|leaf| leaf.strong_count() == 0)
    }

    fn cut(&self) {
        if let Some(home) = self.home.upgrade() {
            home.ask_anew();
        }
    }
}

/// What a name's tree comes to: one way, or ways by weight.
#[derive(Debug)]
pub(crate) enum Choice {
    One(Way),
    Union(Box<[(f64, Self)]>),
}

/// One way of a choice, and what is at its end once a request took it.
#[derive(Debug)]
pub(crate) struct Way {
    name: Option<BoundName>,
    leaf: OnceLock<Arc<Leaf>>,
}

/// A leaf as it comes from the caches.
pub(crate) struct Made {
    pub(crate) leaf: Arc<Leaf>,
    /// Whether all of them keep what it was made of; otherwise it is for one use.
    pub(crate) kept: bool,
}

/// A leaf in use by a request.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) leaf: Arc<Leaf>,
    /// Of a leaf that no choice keeps: in its place, so that its references tell the same.
    _once: Option<Arc<Leaf>>,
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.leaf.link.used(clock::now());
    }
}

impl Choice {
    pub(crate) fn of(tree: &NameTree<BoundName>) -> Self {
        let way = |name: Option<&BoundName>| Self::One(Way { name: name.cloned(), leaf: OnceLock::new() });
        match tree {
            NameTree::Leaf(name) => way(Some(name)),
            NameTree::Alt(trees) => trees.first().map_or_else(|| way(None), Self::of),
            NameTree::Union(trees) if !trees.is_empty() => {
                Self::Union(trees.iter().map(|(weight, tree)| (*weight, Self::of(tree))).collect())
            }
            NameTree::Union(_) | NameTree::Neg | NameTree::Fail | NameTree::Empty => way(None),
        }
    }

    /// Takes one of the ways, at random by weight; `make` asks the caches what is at its end.
    pub(crate) fn pick(&self, make: impl FnOnce(Option<&BoundName>) -> Made) -> Picked {
        let way = self.way();
        if let Some(leaf) = way.leaf.get() {
            return Picked { leaf: Arc::clone(leaf), _once: None };
        }
        let Made { leaf, kept } = make(way.name.as_ref());
        if kept {
            // Of two requests that come at once one is first; the other's leaf is as good.
            return Picked { leaf: Arc::clone(way.leaf.get_or_init(|| leaf)), _once: None };
        }
        Picked { _once: Some(Arc::clone(&leaf)), leaf }
    }

    fn way(&self) -> &Way {
        match self {
            Self::One(way) => way,
            Self::Union(ways) => {
                let total: f64 = ways.iter().map(|(weight, _)| weight).sum();
                let mut at = fastrand::f64() * total;
                let chosen = ways.iter().find(|(weight, _)| {
                    at -= weight;
                    at < 0.0
                });
                chosen.unwrap_or(&ways[ways.len() - 1]).1.way()
            }
        }
    }
}
