//! What came to a stat since it was last looked at: once a second, and once in ten seconds, whatever the windows of the
//! faces do. Two readings of the buckets are kept, in blocks that appear with the first sample of their range.

use crate::buckets::Summary;
use crate::cells::Cells;
use crate::histogram::{BLOCK, BLOCKS};
use crate::stat::StatCell;

/// The counts as they were at the last second, and at the last ten seconds.
type Seen = Box<[[u32; BLOCK]; 2]>;

/// Buckets that gained samples, in ascending order, and how many.
pub(crate) type Gained = Vec<(usize, u64)>;

/// A reader's two marks in a stat.
#[derive(Default)]
pub(crate) struct Latency {
    seen: [Option<Seen>; BLOCKS],
}

/// Which of the two marks.
#[derive(Clone, Copy)]
pub(crate) enum Mark {
    Second = 0,
    Coarse = 1,
}

impl Latency {
    /// Moves a mark to now, and adds to `gained` what came since it was moved last. The other mark stays.
    ///
    /// Returns how many bytes this has grown by.
    pub(crate) fn advance(&mut self, stat: &StatCell, cells: &Cells, mark: Mark, gained: &mut Gained) -> usize {
        // Found once, and not once a block.
        let histograms: Vec<_> = cells.histograms(stat).collect();
        let mut grown = 0;
        for (at, seen) in self.seen.iter_mut().enumerate() {
            let mut now = [0; BLOCK];
            if histograms.iter().filter(|h| h.read_block(at, &mut now)).count() == 0 {
                continue;
            }
            let seen = seen.get_or_insert_with(|| {
                grown += size_of::<[[u32; BLOCK]; 2]>();
                Box::new([[0; BLOCK]; 2])
            });
            for (i, (seen, now)) in seen[mark as usize].iter_mut().zip(now).enumerate() {
                let n = now.wrapping_sub(*seen);
                if n != 0 {
                    *seen = now;
                    gained.push((at * BLOCK + i, u64::from(n)));
                }
            }
        }
        grown
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
