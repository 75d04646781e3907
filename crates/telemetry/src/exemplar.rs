//! Samples that a trace tells more about.
//!
//! A stat keeps the newest exemplar of each power of two, so that slow requests are kept beside the many quick ones. Only
//! requests that are sampled for tracing leave one, which is rare: a lock guards them all.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use foldhash::fast::RandomState;

/// A sample and its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub(crate) value: u64,
    pub(crate) trace: u128,
    /// Since 1970.
    pub(crate) at: Duration,
}

impl Exemplar {
    /// The trace's id as tracing systems write it.
    pub(crate) fn trace_id(&self) -> String {
        if self.trace > u64::MAX.into() { format!("{:032x}", self.trace) } else { format!("{:016x}", self.trace) }
    }
}

/// The exemplars of a tree's stats, by the stats' serials.
#[derive(Default)]
pub(crate) struct Exemplars {
    by_stat: Mutex<HashMap<u64, Vec<Exemplar>, RandomState>>,
}

impl Exemplars {
    pub(crate) fn add(&self, stat: u64, value: u64, trace: u128) {
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let new = Exemplar { value, trace, at };
        let mut by_stat = self.lock();
        let kept = by_stat.entry(stat).or_default();
        match kept.iter_mut().find(|e| magnitude(e.value) == magnitude(value)) {
            Some(old) => *old = new,
            None => kept.push(new),
        }
    }

    pub(crate) fn of(&self, stat: u64) -> Vec<Exemplar> {
        let by_stat = self.lock();
        if by_stat.is_empty() { Vec::new() } else { by_stat.get(&stat).cloned().unwrap_or_default() }
    }

    pub(crate) fn forget(&self, stat: u64) {
        self.lock().remove(&stat);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Vec<Exemplar>, RandomState>> {
        self.by_stat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn magnitude(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}
