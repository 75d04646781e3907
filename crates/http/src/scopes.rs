//! Things that own a scope of the metrics tree by name, shared while anyone uses them.
//!
//! Two cache entries can stand for one name (a logical name with and without a request dtab, a client that was evicted
//! while in use and is wanted again). They share one value, so that they count in one place, and the scope is pruned
//! when the last of them is gone: neither can wipe out what the other counts (Linkerd's W12).

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use l5d_naming::Path;
use l5d_telemetry::Scope;

/// The values of one kind, by name.
pub(crate) struct Scopes<V> {
    parent: Scope,
    values: Mutex<HashMap<Path, Weak<Scoped<V>>>>,
}

impl<V> Scopes<V> {
    /// Values whose scopes lie in `parent`.
    pub(crate) fn new(parent: Scope) -> Arc<Self> {
        Arc::new(Self { parent, values: Mutex::default() })
    }

    /// The value of `name`, made in a scope of its own if there is none.
    pub(crate) fn get(self: &Arc<Self>, name: &Path, make: impl FnOnce(&Scope) -> V) -> Arc<Scoped<V>> {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = values.get(name).and_then(Weak::upgrade) {
            return value;
        }
        let shown = name.show();
        let scope = self.parent.scope(shown.strip_prefix('/').unwrap_or(&shown));
        let value = Arc::new(Scoped { value: make(&scope), scope, name: name.clone(), home: Arc::downgrade(self) });
        values.insert(name.clone(), Arc::downgrade(&value));
        value
    }

    /// Those in use.
    pub(crate) fn all(&self) -> Vec<Arc<Scoped<V>>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner).values().filter_map(Weak::upgrade).collect()
    }
}

impl<V> fmt::Debug for Scopes<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scopes").finish_non_exhaustive()
    }
}

/// A value with its scope; the metrics end with it.
pub(crate) struct Scoped<V> {
    value: V,
    scope: Scope,
    name: Path,
    home: Weak<Scopes<V>>,
}

impl<V> Scoped<V> {
    /// Whether those that it was one of are no more, and their metrics neither.
    pub(crate) fn is_homeless(&self) -> bool {
        self.home.strong_count() == 0
    }
}

impl<V> Deref for Scoped<V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.value
    }
}

impl<V> fmt::Debug for Scoped<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Scoped").field(&self.name).finish()
    }
}

impl<V> Drop for Scoped<V> {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return self.scope.prune() };
        let mut values = home.values.lock().unwrap_or_else(PoisonError::into_inner);
        // If the name has been taken up again, its metrics are in use.
        if values.get(&self.name).is_some_and(|w| std::ptr::eq(w.as_ptr(), self)) {
            values.remove(&self.name);
            self.scope.prune();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use l5d_telemetry::MetricsTree;

    fn exists(tree: &MetricsTree, keys: &[&str]) -> bool {
        struct Any(bool);
        impl l5d_telemetry::Visitor for Any {
            fn enter(&mut self, _: &str) {}
            fn metric(&mut self, _: l5d_telemetry::MetricRef<'_>) {
                self.0 = true;
            }
            fn leave(&mut self) {}
        }
        let mut any = Any(false);
        if let Some(scope) = tree.find(keys) {
            scope.visit(&mut any);
        }
        any.0
    }

    #[test]
    fn the_last_user_takes_the_metrics_along() {
        let tree = MetricsTree::new();
        let scopes = Scopes::new(tree.scope("service"));
        let name = Path::read("/svc/a").unwrap();
        let make = |s: &Scope| {
            let c = s.counter("requests");
            c.incr();
            c
        };
        let one = scopes.get(&name, make);
        let two = scopes.get(&name, make);
        assert!(Arc::ptr_eq(&one, &two));
        assert_eq!(two.value(), 1);
        drop(one);
        assert!(exists(&tree, &["service", "svc/a"]));
        drop(two);
        assert!(!exists(&tree, &["service", "svc/a"]));
        assert_eq!(scopes.get(&name, make).value(), 1);
    }
}
