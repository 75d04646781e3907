//! Binding: from a logical name to the clients that serve it, live (http-behaviour §5).
//!
//! A [`Binding`] follows the interpreter's answer for one name. Turning a bound tree into clients, through the tree,
//! bound and client caches, is left to the first request that needs it, as in Finagle's `DynBoundFactory`: a name that
//! changes a hundred times between two requests costs one look-up.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use arc_swap::ArcSwap;
use l5d_naming::{Activity, Bound as BoundName, NameTree, State};
use l5d_router::cache::CacheLease;
use tokio::{sync::watch, task::JoinHandle};

use crate::stack::bound::Choice;

/// What a name is bound to at the moment.
#[derive(Debug)]
pub(crate) enum Resolved {
    /// Not known yet.
    Pending,
    /// Naming failed, and nothing good is known from before.
    Failed(Arc<str>),
    /// A tree, and the clients in its place once a request has asked for them.
    Tree(NameTree<BoundName>, OnceLock<CacheLease<Choice>>),
}

/// A name's binding, followed until this is dropped.
#[derive(Debug)]
pub(crate) struct Binding {
    current: Arc<ArcSwap<Resolved>>,
    settled: watch::Receiver<bool>,
    task: Option<JoinHandle<()>>,
}

impl Binding {
    /// Follows `activity`.
    pub(crate) fn follow(mut activity: Activity<NameTree<BoundName>>, runtime: &tokio::runtime::Handle) -> Self {
        let current = Arc::new(ArcSwap::from_pointee(Resolved::Pending));
        let (settle, settled) = watch::channel(false);
        let store = {
            let current = Arc::clone(&current);
            move |state: State<NameTree<BoundName>>| {
                let next = match state {
                    State::Pending => return, // what was known before still serves
                    State::Failed(_) if matches!(**current.load(), Resolved::Tree(..)) => return,
                    State::Failed(why) => Resolved::Failed(why),
                    State::Ok(tree) => Resolved::Tree(tree, OnceLock::new()),
                };
                current.store(Arc::new(next));
                settle.send_replace(true);
            }
        };
        store(activity.read());
        if activity.is_constant() {
            return Self { current, settled, task: None };
        }
        let task = runtime.spawn(async move {
            while activity.changed().await {
                store(activity.read());
            }
        });
        Self { current, settled, task: Some(task) }
    }

    /// What the name is bound to; waits while that is not known, at most for `limit`. `None` when the wait was in vain.
    pub(crate) async fn get(&self, limit: Duration) -> Option<Arc<Resolved>> {
        let now = self.current.load();
        if !matches!(**now, Resolved::Pending) {
            return Some(Arc::clone(&now));
        }
        drop(now);
        let mut settled = self.settled.clone();
        match tokio::time::timeout(limit, settled.wait_for(|s| *s)).await {
            Ok(Ok(_)) => Some(self.current.load_full()),
            Ok(Err(_)) | Err(_) => None,
        }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}
