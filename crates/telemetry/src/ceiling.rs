//! How many series there may be, and what becomes of those above.
//!
//! Names of services and clients come from requests, so anybody can make up as many as he likes. When a limit is reached, a
//! scope for a new name is the scope `(overflow)` beside the others: what is counted there is counted, and costs no more
//! memory. That holds for every face. Scopes that were there before go on as they are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// The name of a scope that stands for all that there was no room for.
pub(crate) const OVERFLOW: &str = "(overflow)";

/// A label that grew above a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overflow {
    /// The router's label.
    pub router: String,
    /// What there are too many of: `service`, `client`.
    pub label: &'static str,
    /// How many names were counted as `(overflow)` so far; a name counts each time it is asked for.
    pub names: u64,
}

pub(crate) struct Ceiling {
    series: AtomicUsize,
    per_scope: AtomicUsize,
    overflowed: Mutex<BTreeMap<(String, &'static str), Told>>,
}

#[derive(Default)]
struct Told {
    names: u64,
    heard: bool,
}

impl Ceiling {
    pub(crate) fn none() -> Self {
        Self {
            series: AtomicUsize::new(usize::MAX),
            per_scope: AtomicUsize::new(usize::MAX),
            overflowed: Mutex::default(),
        }
    }

    pub(crate) fn set(&self, series: usize, per_scope: usize) {
        self.series.store(series, Ordering::Relaxed);
        self.per_scope.store(per_scope, Ordering::Relaxed);
    }

    /// Whether a scope that has `siblings` is one too many in a tree that has `series`.
    pub(crate) fn is_reached(&self, series: usize, siblings: usize) -> bool {
        /// What a new scope may come to have: a client has some hundred and fifty metrics.
        const ROOM: usize = 200;
        let limit = self.series.load(Ordering::Relaxed);
        series.saturating_add(ROOM.min(limit / 4)) > limit || siblings >= self.per_scope.load(Ordering::Relaxed)
    }

    pub(crate) fn overflow(&self, router: &str, label: &'static str) {
        let mut overflowed = self.overflowed.lock().unwrap_or_else(PoisonError::into_inner);
        overflowed.entry((router.to_owned(), label)).or_default().names += 1;
    }

    /// The limit of all series; the largest number when there is none.
    pub(crate) fn limit(&self) -> u64 {
        self.series.load(Ordering::Relaxed) as u64
    }

    /// Router, label and number of names.
    pub(crate) fn overflowed(&self) -> Vec<(String, &'static str, u64)> {
        let overflowed = self.overflowed.lock().unwrap_or_else(PoisonError::into_inner);
        overflowed.iter().map(|((router, label), told)| (router.clone(), *label, told.names)).collect()
    }

    /// Those that were not told of before.
    pub(crate) fn unheard(&self) -> Vec<Overflow> {
        let mut overflowed = self.overflowed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut unheard = Vec::new();
        for ((router, label), told) in overflowed.iter_mut() {
            if !std::mem::replace(&mut told.heard, true) {
                unheard.push(Overflow { router: router.clone(), label, names: told.names });
            }
        }
        unheard
    }
}
