//! Native histograms: the buckets of a stat sorted into buckets that grow by a power of two's root.
//!
//! With schema `s` bucket `i` holds what is above `base^(i-1)` and at most `base^i`, where `base = 2^(2^-s)`. What is 0 has
//! a bucket of its own. A stat's buckets are one per cent wide and stand for their middle; schema 4, 4.4 per cent, is as fine
//! as is worth sending. When there are too many buckets the schema is halved, which merges them two by two and loses none.

/// The finest resolution.
const SCHEMA: i32 = 4;
/// Above as many buckets it is halved.
const MOST: usize = 160;

/// A histogram as protobuf has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Native {
    pub(super) schema: i32,
    pub(super) zero: u64,
    /// Index and count, ascending, none empty.
    pub(super) buckets: Vec<(i32, u64)>,
}

impl Native {
    /// Sorts values, ascending, that came so often.
    pub(super) fn new(values: impl Iterator<Item = (f64, u64)>) -> Self {
        let mut this = Self { schema: SCHEMA, ..Self::default() };
        for (value, n) in values {
            if value <= 0.0 {
                this.zero += n;
                continue;
            }
            let index = index(value, SCHEMA);
            match this.buckets.last_mut() {
                Some((last, count)) if *last == index => *count += n,
                _ => this.buckets.push((index, n)),
            }
        }
        while this.buckets.len() > MOST {
            this.halve();
        }
        this
    }

    fn halve(&mut self) {
        self.schema -= 1;
        let mut merged: Vec<(i32, u64)> = Vec::new();
        for &(index, n) in &self.buckets {
            // Upper bounds that both have are those of even indices.
            let index = (index + 1).div_euclid(2);
            match merged.last_mut() {
                Some((last, count)) if *last == index => *count += n,
                _ => merged.push((index, n)),
            }
        }
        self.buckets = merged;
    }

    /// Runs of buckets, each told by how far it is behind the last one's end and how long it is.
    pub(super) fn spans(&self) -> Vec<(i32, u32)> {
        let mut spans: Vec<(i32, u32)> = Vec::new();
        let mut next = 0;
        for &(index, _) in &self.buckets {
            match spans.last_mut() {
                Some((_, length)) if index == next => *length += 1,
                _ => spans.push((index - next, 1)),
            }
            next = index + 1;
        }
        spans
    }

    /// The first count, then how each differs from the last.
    pub(super) fn deltas(&self) -> impl Iterator<Item = i64> {
        let mut last = 0;
        self.buckets.iter().map(move |&(_, n)| {
            let n = i64::try_from(n).unwrap_or(i64::MAX);
            let delta = n - last;
            last = n;
            delta
        })
    }
}

/// The bucket of a value above 0.
fn index(value: f64, schema: i32) -> i32 {
    (libm::log2(value) * libm::exp2(f64::from(schema))).ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_lie_where_the_schema_says() {
        for (value, expected) in [(1.0, 0), (1.000_000_1, 1), (2.0, 1), (3.0, 2), (4.0, 2), (0.5, -1), (0.6, 0)] {
            assert_eq!(index(value, 0), expected, "{value}");
        }
        assert_eq!(index(1.09, 3), 1);
        assert_eq!(index(1.1, 3), 2);
        let native = Native::new([(0.0, 3), (1.0, 1), (1.0, 1), (4.0, 5)].into_iter());
        assert_eq!(native, Native { schema: 4, zero: 3, buckets: vec![(0, 2), (32, 5)] });
        assert_eq!(native.spans(), [(0, 1), (31, 1)]);
        assert_eq!(native.deltas().collect::<Vec<_>>(), [2, 3]);
        let native = Native::new([(0.25, 1), (0.26, 2)].into_iter());
        assert_eq!(native.spans(), [(-32, 2)]);
    }

    proptest! {
        #[test]
        fn halving_loses_nothing_and_is_what_the_coarser_schema_says(mut values in prop::collection::vec(1e-3..1e6_f64, 0..2000)) {
            values.sort_by(f64::total_cmp);
            let native = Native::new(values.iter().map(|&v| (v, 1)));
            prop_assert!(native.buckets.len() <= MOST);
            prop_assert_eq!(native.buckets.iter().map(|b| b.1).sum::<u64>(), values.len() as u64);
            prop_assert!(native.buckets.windows(2).all(|w| w[0].0 < w[1].0));
            for &(i, n) in &native.buckets {
                let n_here = values.iter().filter(|&&v| index(v, native.schema) == i).count();
                prop_assert_eq!(n_here as u64, n);
            }
            prop_assert_eq!(native.spans().iter().map(|s| s.1 as usize).sum::<usize>(), native.buckets.len());
        }
    }
}
