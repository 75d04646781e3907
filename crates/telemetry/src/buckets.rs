//! Finagle's histogram as arithmetic: which bucket a value belongs to, what a bucket stands for, and what a window of
//! counts comes to.
//!
//! Contract, from `BucketedHistogram`: 1797 limits, each about one per cent above the last; bucket `i` holds
//! `[limit(i - 1), limit(i))`; it is reported by its midpoint; values are clamped to 2^31 - 1. So minimum, maximum and
//! percentiles are midpoints too, while count and sum are exact. This file holds no counts: that is `histogram.rs`.

/// How many buckets there are: one below each limit and one above the last.
pub(crate) const BUCKETS: usize = LIMITS + 1;

/// The largest value a stat can tell apart; what is larger counts as this, in the sum too.
pub(crate) const MAX_VALUE: u64 = i32::MAX as u64;

/// What one window of a stat came to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many samples came.
    pub count: u64,
    /// The midpoint of the lowest bucket that was hit; 0 when none was.
    pub min: u64,
    /// The midpoint of the highest bucket that was hit; 0 when none was.
    pub max: u64,
    /// The samples added up, exactly.
    pub sum: u64,
    /// `sum / count`, 0 when nothing came.
    pub avg: f64,
    /// The median.
    pub p50: u64,
    /// The 90th percentile.
    pub p90: u64,
    /// The 95th percentile.
    pub p95: u64,
    /// The 99th percentile.
    pub p99: u64,
    /// The 99.9th percentile.
    pub p9990: u64,
    /// The 99.99th percentile.
    pub p9999: u64,
}

impl Summary {
    /// Sums up a window given as its non-empty buckets in ascending order.
    pub(crate) fn of(buckets: impl Iterator<Item = (usize, u64)> + Clone, sum: u64) -> Self {
        let count: u64 = buckets.clone().map(|(_, n)| n).sum();
        if count == 0 {
            return Self::default();
        }
        // Java's Math.round: half goes up. A target of 0 can't occur here, since count is at least 1 and p at least 0.5.
        let targets = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999].map(|p: f64| (p * count as f64 + 0.5).floor() as u64);
        let mut values = [0; 6];
        let (mut next, mut seen, mut min, mut last) = (0, 0, None, 0);
        for (index, n) in buckets {
            seen += n;
            last = representative(index);
            min.get_or_insert(last);
            while next < targets.len() && seen >= targets[next] {
                values[next] = last;
                next += 1;
            }
        }
        values[next..].fill(last);
        let [p50, p90, p95, p99, p9990, p9999] = values;
        let avg = sum as f64 / count as f64;
        Self { count, min: min.unwrap_or(0), max: last, sum, avg, p50, p90, p95, p99, p9990, p9999 }
    }
}

/// The bucket that holds `value`.
#[inline]
#[expect(unsafe_code, reason = "four checks less of thirty-seven instructions that each sample costs")]
pub(crate) fn index_of(value: u64) -> usize {
    let value = value.min(MAX_VALUE) as u32;
    let step = step_of(value);
    // SAFETY: `step_of` grows with its argument, which is at most `MAX_VALUE`; so the largest step is that of
    // `MAX_VALUE`, and the assertion below has compared it with the length.
    unsafe { std::hint::assert_unchecked(step < FIRST.len()) };
    // One limit at most lies inside a step of the table, so that its first value's bucket is right or one too low.
    let at_least = FIRST[step] as usize;
    // SAFETY: an entry of `FIRST` was counted up to `LIMITS` and no further.
    unsafe { std::hint::assert_unchecked(at_least <= LIMITS) };
    at_least + usize::from(value >= LIMIT[at_least])
}

const _: () = assert!(step_of(MAX_VALUE as u32) < TABLE);

/// What a bucket's samples are reported as.
pub(crate) fn representative(index: usize) -> u64 {
    match index {
        0 => 0,
        i if i >= LIMITS => MAX_VALUE,
        i => (u64::from(LIMIT[i - 1]) + u64::from(LIMIT[i])) / 2,
    }
}

/// The values a bucket holds: from the first, to below the second.
pub(crate) fn range(index: usize) -> (u64, u64) {
    let from = if index == 0 { 0 } else { u64::from(LIMIT[index - 1]) };
    let below = if index >= LIMITS { MAX_VALUE + 1 } else { u64::from(LIMIT[index]) };
    (from, below)
}

/// The log-linear step of a value: itself below 256, then 128 steps an octave. A step is at most 1/128 of its values,
/// less than the one per cent between two limits.
#[inline]
const fn step_of(value: u32) -> usize {
    let shift = (value | STEPS).ilog2() - STEPS.ilog2();
    (shift * STEPS + (value >> shift)) as usize
}

const LIMITS: usize = 1797;
const STEPS: u32 = 128;
const TABLE: usize = (STEPS * 25) as usize;

/// Finagle's `makeLimitsFor(0.005)`: multiply by 1.01 in double precision, keep the integer above, drop repeats.
/// Behind them, what no value reaches.
static LIMIT: [u32; LIMITS + 1] = {
    let mut limits = [u32::MAX; LIMITS + 1];
    limits[0] = 1;
    let mut len = 1;
    let mut n = 1.0_f64;
    loop {
        n *= 1.01;
        if n >= i32::MAX as f64 {
            break;
        }
        let limit = n as u32 + 1;
        if limit != limits[len - 1] {
            limits[len] = limit;
            len += 1;
        }
    }
    assert!(len == LIMITS);
    limits
};

/// The bucket of the first value of each step.
static FIRST: [u16; TABLE] = {
    let mut first = [0; TABLE];
    let (mut step, mut bucket) = (0, 0);
    while step < TABLE as u32 {
        let value = if step < 2 * STEPS { step } else { (step % STEPS + STEPS) << (step / STEPS - 1) };
        while bucket < LIMITS && value >= LIMIT[bucket] {
            bucket += 1;
        }
        first[step as usize] = bucket as u16;
        step += 1;
    }
    first
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Finagle's own way: a search over the limits.
    fn naive_index(value: u64) -> usize {
        if value >= MAX_VALUE { LIMITS } else { LIMIT[..LIMITS].partition_point(|&l| u64::from(l) <= value) }
    }

    /// Finagle's formula, as written there.
    fn finagle_index(value: u64) -> usize {
        match value {
            0..=101 => value as usize,
            v if v >= MAX_VALUE => LIMITS,
            v => ((v as f64).log10() / 1.01_f64.log10()) as usize - 362,
        }
    }

    /// The percentile rule as the reference states it, over a full array of counts.
    fn naive_percentile(counts: &[u64], p: f64) -> u64 {
        let total: u64 = counts.iter().sum();
        let target = (p * total as f64 + 0.5).floor() as u64;
        let (mut sum, mut i) = (0, 0);
        while i < counts.len() && sum < target {
            sum += counts[i];
            i += 1;
        }
        if i == 0 { 0 } else { representative(i - 1) }
    }

    fn summary_of(samples: &[u64]) -> Summary {
        let mut counts = vec![0; BUCKETS];
        for &s in samples {
            counts[index_of(s)] += 1;
        }
        let buckets = counts.iter().copied().enumerate().filter(|&(_, n)| n > 0);
        Summary::of(buckets, samples.iter().map(|&s| s.min(MAX_VALUE)).sum())
    }

    #[test]
    fn limits_are_finagles() {
        assert_eq!(LIMIT[..114], std::array::from_fn::<u32, 114, _>(|i| if i < 113 { i as u32 + 1 } else { 115 }));
        assert_eq!(LIMIT[113..121], [115, 116, 117, 118, 119, 120, 122, 123]);
        assert_eq!(LIMIT[LIMITS - 4..LIMITS], [2_074_349_235, 2_095_092_727, 2_116_043_654, 2_137_204_091]);
    }

    #[test]
    fn the_index_equals_a_search_over_the_limits() {
        for value in 0..300_000 {
            assert_eq!(index_of(value), naive_index(value), "value {value}");
            assert_eq!(index_of(value), finagle_index(value), "value {value}");
        }
        for limit in LIMIT[..LIMITS].iter().copied() {
            for value in u64::from(limit).saturating_sub(2)..=u64::from(limit) + 2 {
                assert_eq!(index_of(value), naive_index(value), "value {value}");
            }
        }
        for value in [MAX_VALUE - 1, MAX_VALUE, MAX_VALUE + 1, u64::MAX] {
            assert_eq!(representative(index_of(value)), MAX_VALUE);
        }
    }

    #[test]
    fn one_sample_is_reported_by_its_midpoint() {
        #[rustfmt::skip]
        let vectors = [
            (0, 0), (1, 1), (101, 101), (112, 112), (113, 114), (120, 121), (200, 201), (250, 249), (333, 332),
            (500, 500), (750, 752), (999, 1003), (1000, 1003), (1234, 1236), (1500, 1493), (2000, 1993),
            (5000, 4977), (10_000, 9987), (12_345, 12_308), (60_000, 59_881), (100_000, 100_461),
            (1_000_000, 1_000_537), (10_000_000, 9_964_838), (2_147_483_646, 2_147_483_647),
        ];
        for (sample, shown) in vectors {
            let s = summary_of(&[sample]);
            assert_eq!([s.min, s.max, s.p50, s.p90, s.p95, s.p99, s.p9990, s.p9999], [shown; 8], "sample {sample}");
            assert_eq!((s.count, s.sum), (1, sample));
        }
    }

    #[test]
    fn percentiles_of_known_sets() {
        let s = summary_of(&(1..=100).collect::<Vec<_>>());
        assert_eq!((s.count, s.sum, s.avg, s.min, s.max), (100, 5050, 50.5, 1, 100));
        assert_eq!([s.p50, s.p90, s.p95, s.p99, s.p9990, s.p9999], [50, 90, 95, 99, 100, 100]);
        let s = summary_of(&[1, 2]);
        assert_eq!([s.p50, s.p90, s.p95, s.p99, s.p9990, s.p9999], [1, 2, 2, 2, 2, 2]);
        assert_eq!(summary_of(&[]), Summary::default());
    }

    proptest! {
        #[test]
        fn any_value_lands_between_its_limits(value in 0..=MAX_VALUE) {
            let (from, below) = range(index_of(value));
            prop_assert!(from <= value && value < below);
            prop_assert_eq!(index_of(value), naive_index(value));
            prop_assert_eq!(index_of(representative(index_of(value))), index_of(value));
        }

        #[test]
        fn a_summary_equals_the_naive_one(samples in prop::collection::vec(prop_oneof![0..300_u64, 0..100_000_u64, 0..=MAX_VALUE], 1..400)) {
            let s = summary_of(&samples);
            let mut counts = vec![0; BUCKETS];
            for &v in &samples {
                counts[naive_index(v)] += 1;
            }
            let ps = [0.5, 0.9, 0.95, 0.99, 0.999, 0.9999].map(|p| naive_percentile(&counts, p));
            prop_assert_eq!([s.p50, s.p90, s.p95, s.p99, s.p9990, s.p9999], ps);
            let hit: Vec<usize> = (0..BUCKETS).filter(|&i| counts[i] > 0).collect();
            prop_assert_eq!(s.min, representative(hit[0]));
            prop_assert_eq!(s.max, representative(hit[hit.len() - 1]));
            prop_assert_eq!(s.count, samples.len() as u64);
            prop_assert_eq!(s.sum, samples.iter().sum::<u64>());
            prop_assert_eq!(s.avg, s.sum as f64 / s.count as f64);
        }
    }
}
