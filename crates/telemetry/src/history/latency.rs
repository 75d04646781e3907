//! What came to a stat since it was last looked at: once a second, and once in ten seconds, whatever the windows of the
//! faces do. Two readings of the buckets are kept, in blocks that appear with the first sample of their range.
//!
//! Workers count their samples, so that a reader knows how many it has to find. Where none came it reads no bucket, and
//! else it stops at the last of them, which mostly is in one of the first blocks. Buckets are read in memory that nobody
//! else has used for a second, so that each line costs more than what is done with it.

use crate::buckets::Summary;
use crate::cells::Cells;
use crate::histogram::{BLOCK, BLOCKS, Block};
use crate::stat::StatCell;
use crate::sync::Ordering;

/// The counts as they were at the last second, and at the last ten seconds.
struct Seen {
    second: [u32; BLOCK],
    coarse: [u32; BLOCK],
}

/// Buckets that gained samples, in ascending order, and how many.
pub(crate) type Gained = Vec<(usize, u64)>;

/// A reader's two marks in a stat.
#[derive(Default)]
pub(crate) struct Latency {
    seen: [Option<Box<Seen>>; BLOCKS],
    /// How many of the samples that the stat has counted were found. `None` before the first look.
    found: Option<u32>,
    /// How many were found since the coarse mark was moved.
    since_coarse: u32,
}

impl Latency {
    /// Moves the mark of seconds to now, and adds to `gained` what came since it was moved last.
    ///
    /// Returns how many bytes this has grown by.
    pub(crate) fn second(&mut self, stat: &StatCell, cells: &Cells, gained: &mut Gained) -> usize {
        let counted = cells.samples(stat);
        // What a stat has counted before the first look says nothing: it may have another's number.
        let missing = self.found.map(|found| counted.wrapping_sub(found));
        if missing == Some(0) {
            return 0;
        }
        let (mut grown, mut came) = (0, 0_u32);
        let histograms: Vec<_> = cells.histograms(stat).collect();
        let mut blocks: Vec<&Block> = Vec::with_capacity(histograms.len());
        'all: for (at, seen) in self.seen.iter_mut().enumerate() {
            blocks.clear();
            blocks.extend(histograms.iter().filter_map(|histogram| histogram.block_if_hit(at)));
            if blocks.is_empty() {
                continue;
            }
            let seen = seen.get_or_insert_with(|| {
                grown += size_of::<Seen>();
                Box::new(Seen { second: [0; BLOCK], coarse: [0; BLOCK] })
            });
            for (i, seen) in seen.second.iter_mut().enumerate() {
                let now = blocks.iter().fold(0, |sum: u32, block| sum.wrapping_add(block[i].load(Ordering::Relaxed)));
                let n = now.wrapping_sub(*seen);
                if n != 0 {
                    *seen = now;
                    gained.push((at * BLOCK + i, u64::from(n)));
                    came = came.wrapping_add(n);
                    if missing.is_some_and(|missing| came >= missing) {
                        break 'all;
                    }
                }
            }
        }
        // When all buckets were read, all that was counted was found. A sample that was found before it was counted
        // leaves one to be found that was counted: its turn is the next.
        self.found = Some(match (self.found, missing) {
            (Some(found), Some(missing)) if came >= missing => found.wrapping_add(came),
            _ => counted,
        });
        self.since_coarse = self.since_coarse.wrapping_add(came);
        grown
    }

    /// Moves the mark of ten seconds to where that of seconds is, and adds to `gained` what lies between the two.
    pub(crate) fn coarse(&mut self, gained: &mut Gained) {
        if std::mem::take(&mut self.since_coarse) == 0 {
            return;
        }
        for (at, seen) in self.seen.iter_mut().enumerate() {
            let Some(seen) = seen else { continue };
            for (i, (second, coarse)) in seen.second.iter().zip(&mut seen.coarse).enumerate() {
                let n = second.wrapping_sub(*coarse);
                if n != 0 {
                    *coarse = *second;
                    gained.push((at * BLOCK + i, u64::from(n)));
                }
            }
        }
    }
}

/// Median, 99th percentile and maximum; `None` of nothing.
pub(crate) fn summary(gained: &Gained) -> Option<[u64; 3]> {
    let summary = Summary::of(gained.iter().copied(), 0);
    (summary.count > 0).then_some([summary.p50, summary.p99, summary.max])
}

/// Adds up gains of several stats: ascending, each bucket once.
pub(crate) fn merge(gained: &mut Gained) {
    gained.sort_unstable_by_key(|&(index, _)| index);
    gained.dedup_by(|next, kept| {
        let same = next.0 == kept.0;
        if same {
            kept.1 += next.1;
        }
        same
    });
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::tree::{MetricsTree, Shared};

    fn count(gained: &Gained) -> u64 {
        gained.iter().map(|&(_, n)| n).sum()
    }

    /// While two workers and a thread that is none add samples, and workers come and go.
    #[test]
    fn every_sample_is_in_one_second_and_in_one_ten() {
        const EACH: u64 = 20_000;
        let tree = MetricsTree::new();
        let root = tree.root_place();
        let cell = Shared::stat(tree.shared(), Some(root), "s").unwrap();
        let stat = tree.root().stat("s");
        let mut latency = Latency::default();
        let (mut seconds, mut tens) = (Gained::new(), Gained::new());
        let running = AtomicUsize::new(3);
        let mut look = |tens: Option<&mut Gained>| {
            latency.second(&cell, &tree.shared().cells(), &mut seconds);
            if let Some(tens) = tens {
                latency.coarse(tens);
            }
        };
        std::thread::scope(|threads| {
            for works in [true, true, false] {
                let (tree, stat, running) = (&tree, &stat, &running);
                threads.spawn(move || {
                    for from in (0..EACH).step_by(1000) {
                        let _worker = works.then(|| tree.enter_worker());
                        (from..from + 1000).for_each(|n| stat.add(n * n % 5000));
                    }
                    running.fetch_sub(1, Ordering::Release);
                });
            }
            for nth in 0_u32.. {
                let over = running.load(Ordering::Acquire) == 0;
                look(nth.is_multiple_of(3).then_some(&mut tens));
                if over {
                    break;
                }
            }
        });
        look(Some(&mut tens));
        assert_eq!((count(&seconds), count(&tens)), (3 * EACH, 3 * EACH));
        let (total, _) = cell.total(&tree.shared().cells());
        merge(&mut seconds);
        merge(&mut tens);
        assert_eq!((&seconds, &tens), (&total, &total));
    }

    #[test]
    fn what_a_number_counted_for_another_stat_is_not_waited_for() {
        let tree = MetricsTree::new();
        let root = tree.root_place();
        let _worker = tree.enter_worker();
        let first = tree.scope("a").stat("s");
        first.add(1);
        tree.scope("a").prune();
        drop(first);
        // What ended is kept until somebody looks at it.
        tree.shared().expired().folded(tree.shared());
        let stat = tree.root().stat("t");
        let cell = Shared::stat(tree.shared(), Some(root), "t").unwrap();
        let cells = tree.shared().cells();
        assert!(cells.samples(&cell) > 0, "it has the number of the first");
        let mut latency = Latency::default();
        for seconds in [0, 2, 0, 1] {
            (0..seconds).for_each(|_| stat.add(7));
            let mut gained = Gained::new();
            latency.second(&cell, &cells, &mut gained);
            assert_eq!(count(&gained), seconds);
        }
    }
}
