//! Binding: from a logical name to the clients that serve it, live (http-behaviour §5).
//!
//! A [`Binding`] follows the interpreter's answer for one name. Turning a bound tree into clients, through the tree,
//! bound and client caches, is left to the first request that needs it, as in Finagle's `DynBoundFactory`: a name that
//! changes a hundred times between two requests costs one look-up.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use l5d_naming::{Activity, Bound as BoundName, NameTree, State};
use l5d_net::Follower;
use tokio::sync::watch;

use crate::stack::bound::{Choice, ServiceCounts};

/// What a name is bound to at the moment.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Not known yet.
    Pending,
    /// Naming failed, and nothing good is known from before.
    Failed(Arc<str>),
    /// A tree, and the ways to its clients once a request has asked for them.
    Tree(NameTree<BoundName>, OnceLock<Choice>),
}

/// What a name comes to, and what it came to before.
#[derive(Debug)]
pub(crate) struct Current {
    resolved: ArcSwap<Resolved>,
    /// The counts of this name beneath the clients of its ways that are no more. They end with the name, or their client.
    counts: Mutex<Vec<ServiceCounts>>,
}

impl Current {
    fn new() -> Arc<Self> {
        Arc::new(Self { resolved: ArcSwap::from_pointee(Resolved::Pending), counts: Mutex::default() })
    }

    /// Forgets the ways that requests have asked for: a cache has let go of what is at the end of one.
    pub(crate) fn ask_anew(&self) {
        let now = self.resolved.load();
        if let Resolved::Tree(tree, choice) = &**now
            && choice.get().is_some()
        {
            let anew = Arc::new(Resolved::Tree(tree.clone(), OnceLock::new()));
            // If the name has been bound anew meanwhile, that has no old ways.
            self.resolved.compare_and_swap(&*now, anew);
        }
    }

    /// Keeps the counts of a way that is no more.
    pub(crate) fn keep(&self, of_way: ServiceCounts) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.retain(|kept| !kept.is_homeless() && !Arc::ptr_eq(kept, &of_way));
        counts.push(of_way);
    }
}

/// A name's binding, followed until this is dropped.
#[derive(Debug)]
pub(crate) struct Binding {
    current: Arc<Current>,
    settled: watch::Receiver<bool>,
    _follower: Option<Follower>,
}

impl Binding {
    /// Follows `activity`.
    pub(crate) fn follow(mut activity: Activity<NameTree<BoundName>>, runtime: &tokio::runtime::Handle) -> Self {
        let current = Current::new();
        let (settle, settled) = watch::channel(false);
        let store = {
            let current = Arc::clone(&current);
            move |state: State<NameTree<BoundName>>| {
                let next = match state {
                    State::Pending => return, // what was known before still serves
                    State::Failed(_) if matches!(**current.resolved.load(), Resolved::Tree(..)) => return,
                    State::Failed(why) => Resolved::Failed(why),
                    State::Ok(tree) => Resolved::Tree(tree, OnceLock::new()),
                };
                current.resolved.store(Arc::new(next));
                settle.send_replace(true);
            }
        };
        store(activity.read());
        if activity.is_constant() {
            return Self { current, settled, _follower: None };
        }
        let follower = Follower::start(runtime, async move {
            while activity.changed().await {
                store(activity.read());
            }
        });
        Self { current, settled, _follower: Some(follower) }
    }

    /// What the name is bound to at the moment. Not to be held for long.
    pub(crate) fn now(&self) -> Guard<Arc<Resolved>> {
        self.current.resolved.load()
    }

    /// Where that is kept.
    pub(crate) fn current(&self) -> &Arc<Current> {
        &self.current
    }

    /// Waits while that is not known, at most for `limit`; `false` when the wait was in vain.
    pub(crate) async fn settled(&self, limit: Duration) -> bool {
        let mut settled = self.settled.clone();
        matches!(tokio::time::timeout(limit, settled.wait_for(|s| *s)).await, Ok(Ok(_)))
    }
}
