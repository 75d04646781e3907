//! What an interpreter is: the way from a path to bound names. The interpreters themselves live in the `namers` crate,
//! their common algorithm in `delegate.rs`.

use std::pin::Pin;
use std::sync::Arc;

use crate::activity::Activity;
use crate::delegate_tree::DelegateTree;
use crate::dtab::Dtab;
use crate::name_tree::NameTree;
use crate::namer::Bound;
use crate::path::Path;

/// A boxed future.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Binds names.
pub trait Interpreter: Send + Sync {
    /// What a path stands for, now and later, under this table: the router's entries, then the request's.
    ///
    /// The tree is simplified and holds no alternatives. Once it has had a bound name, it keeps it while what it was
    /// made from is pending or failing; an answer without a name replaces it. Nothing is watched any more when the last
    /// clone of the activity is dropped.
    fn bind(&self, dtab: &Dtab, path: &Path) -> Activity<NameTree<Bound>>;

    /// If it can explain how a path is bound: the one to ask.
    fn delegator(&self) -> Option<&dyn Delegator> {
        None
    }
}

/// Explains bindings, for `/delegator.json`.
pub trait Delegator: Send + Sync {
    /// How a path is delegated, with every alternative. Waits for what is pending, so the caller sets a limit. Fails if
    /// the interpreter's own table does.
    fn delegate(&self, dtab: &Dtab, path: &Path) -> BoxFuture<'static, Result<DelegateTree, Arc<str>>>;

    /// The interpreter's own table, which precedes the router's.
    fn dtab(&self) -> Activity<Dtab>;
}
