//! What series that ended had counted, so that the sum of a family never goes down.
//!
//! When a scope is pruned its counters and stats leave the tree, and with them every face of Linkerd's names. For the modern
//! face what they had counted is added to one `(expired)` series of their family. A handle that somebody still holds goes on
//! counting; such a counter is kept, and its value told with the series, until the last handle is gone. So nothing that was
//! ever counted is lost, and all of it costs as much as there are families, and handles that linger.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

use crate::catalogue::classify;
use crate::cells::{Cells, Slot};
use crate::collide::Kind;
use crate::names::Name;
use crate::stat::StatCell;
use crate::tree::Shared;

/// The value of every label of a series that stands for those that ended.
pub(crate) const EXPIRED: &str = "(expired)";

/// What ended, by family.
#[derive(Default)]
pub(crate) struct Expired {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    folded: HashMap<u16, Folded, RandomState>,
    lingering: Vec<(u16, Lingering)>,
    /// How many have to linger for the next look whether they still do.
    sweep_at: usize,
    ended: u64,
}

/// What a family's ended series come to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folded {
    pub(crate) count: u64,
    pub(crate) buckets: BTreeMap<usize, u64>,
    pub(crate) sum: u64,
}

/// What was taken out of the tree.
pub(crate) enum Lingering {
    Counter(Slot),
    Stat(Arc<StatCell>),
}

impl Lingering {
    fn kind(&self) -> Kind {
        match self {
            Self::Counter(_) => Kind::Counter,
            Self::Stat(_) => Kind::Stat,
        }
    }

    /// Whether nobody else can write to it any more.
    fn is_left(&self) -> bool {
        match self {
            Self::Counter(slot) => slot.is_last(),
            Self::Stat(stat) => Arc::strong_count(stat) == 1,
        }
    }
}

/// Below as many it isn't worth a look.
const FEW: usize = 64;

impl Expired {
    /// Takes what was at `path`. Returns what is to be dropped, when no lock is held.
    pub(crate) fn take(&self, path: &[Name], ended: Lingering, cells: &Cells) -> Vec<Lingering> {
        let path: Vec<&str> = path.iter().map(Name::text).collect();
        let Some(classified) = classify(&path, ended.kind()) else { return vec![ended] };
        let mut state = self.state();
        state.ended += 1;
        state.lingering.push((classified.family, ended));
        if state.lingering.len() < state.sweep_at.max(FEW) { Vec::new() } else { state.sweep(cells) }
    }

    /// What each family's ended series come to now. To be called with no lock held.
    pub(crate) fn folded(&self, tree: &Shared) -> Vec<(u16, Folded)> {
        let (folded, left) = self.fold(tree);
        drop(left);
        folded
    }

    /// The same, for who holds the tree's shape; and what is to be dropped when no lock is held.
    pub(crate) fn fold(&self, tree: &Shared) -> (Vec<(u16, Folded)>, Vec<Lingering>) {
        let mut state = self.state();
        let cells = tree.cells();
        let left = state.sweep(&cells);
        let mut folded = state.folded.clone();
        for (family, lingering) in &state.lingering {
            folded.entry(*family).or_default().add(lingering, &cells);
        }
        drop((cells, state));
        let mut folded: Vec<_> = folded.into_iter().filter(|(_, f)| f.count > 0 || !f.buckets.is_empty()).collect();
        folded.sort_unstable_by_key(|(family, _)| *family);
        (folded, left)
    }

    /// How many series ended.
    pub(crate) fn ended(&self) -> u64 {
        self.state().ended
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds up those that nobody holds any more, and returns them.
    fn sweep(&mut self, cells: &Cells) -> Vec<Lingering> {
        let (left, lingering) = std::mem::take(&mut self.lingering).into_iter().partition(|(_, l)| l.is_left());
        self.lingering = lingering;
        self.sweep_at = self.lingering.len() * 2;
        let add = |(family, left): (u16, Lingering)| {
            self.folded.entry(family).or_default().add(&left, cells);
            left
        };
        Vec::into_iter(left).map(add).collect()
    }
}

impl Folded {
    fn add(&mut self, lingering: &Lingering, cells: &Cells) {
        match lingering {
            Lingering::Counter(slot) => self.count = self.count.wrapping_add(cells.sum(slot.number())),
            Lingering::Stat(stat) => {
                let (buckets, sum) = stat.total(cells);
                for (bucket, n) in buckets {
                    *self.buckets.entry(bucket).or_default() += n;
                }
                self.sum = self.sum.wrapping_add(sum);
            }
        }
    }
}
