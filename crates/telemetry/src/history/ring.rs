//! The rings of one scope: a fixed number of rows, one value of each column in a row, sixteen bits a value.
//!
//! Sixteen bits hold whole numbers up to 4095 as they are, and larger ones rounded to twelve significant bits, up to
//! about 2 × 10^12: what is drawn is never off by more than one part in 8000, and a row is a cache line or less.

/// No value: nothing was kept yet, or there was nothing to tell (the median of no requests).
pub(crate) const NONE: u16 = u16::MAX;

/// Numbers below this are kept exactly.
const EXACT: u64 = 1 << 12;
const STEPS: u64 = EXACT / 2;
/// The largest exponent whose every code is below [`NONE`].
const MAX_SHIFT: u32 = 29;

/// The code of a number, rounded to the nearest that has one.
pub(crate) fn encode(value: u64) -> u16 {
    if value < EXACT {
        return value as u16;
    }
    let mut shift = 64 - 12 - value.leading_zeros();
    let mut digits = (value >> shift) + ((value >> (shift - 1)) & 1);
    if digits == EXACT {
        digits = STEPS;
        shift += 1;
    }
    if shift > MAX_SHIFT {
        return encode((EXACT - 1) << MAX_SHIFT);
    }
    (EXACT + u64::from(shift - 1) * STEPS + (digits - STEPS)) as u16
}

/// The number that a code stands for; `None` for [`NONE`].
pub(crate) fn decode(code: u16) -> Option<u64> {
    if code == NONE {
        return None;
    }
    let code = u64::from(code);
    if code < EXACT {
        return Some(code);
    }
    let (shift, step) = ((code - EXACT) / STEPS + 1, (code - EXACT) % STEPS);
    Some((STEPS + step) << shift)
}

/// Rows by time: row `n` stands for the step `n` since 1970, and is overwritten by step `n + rows`.
pub(crate) struct Ring {
    columns: usize,
    /// How many rows there are.
    len: u64,
    rows: Box<[u16]>,
    /// The first step that was written, and the last; `None` before that.
    written: Option<(u64, u64)>,
}

impl Ring {
    pub(crate) fn new(rows: usize, columns: usize) -> Self {
        Self { columns, len: rows as u64, rows: vec![NONE; rows * columns].into_boxed_slice(), written: None }
    }

    /// Bytes that the rows of a ring take.
    pub(crate) fn bytes(rows: usize, columns: usize) -> usize {
        rows * columns * size_of::<u16>()
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The step that was written last.
    pub(crate) fn last(&self) -> Option<u64> {
        self.written.map(|(_, last)| last)
    }

    /// Writes the row of `step`. Steps that were passed over hold nothing.
    pub(crate) fn write(&mut self, step: u64, row: &[u16]) {
        let next = self.written.map_or(step, |(_, last)| last + 1);
        for missed in next.max(step.saturating_sub(self.len())).min(step)..step {
            self.row_mut(missed).fill(NONE);
        }
        let first = self.written.map_or(step, |(first, _)| first);
        self.row_mut(step).copy_from_slice(row);
        self.written = Some((first, step));
    }

    fn row_mut(&mut self, step: u64) -> &mut [u16] {
        let at = (step % self.len()) as usize * self.columns;
        &mut self.rows[at..at + self.columns]
    }

    /// The row of `step`, when it was written and not overwritten since.
    pub(crate) fn row(&self, step: u64) -> Option<&[u16]> {
        let (first, last) = self.written?;
        if step < first || step > last || step + self.len() <= last {
            return None;
        }
        let at = (step % self.len()) as usize * self.columns;
        Some(&self.rows[at..at + self.columns])
    }

    /// One column's value of `step`.
    pub(crate) fn value(&self, step: u64, column: usize) -> Option<u64> {
        decode(self.row(step)?[column])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_numbers_are_exact_and_large_ones_nearly() {
        for n in 0..EXACT {
            assert_eq!(decode(encode(n)), Some(n));
        }
        let mut n = EXACT;
        while n < (EXACT - 1) << MAX_SHIFT {
            let back = decode(encode(n)).unwrap();
            assert!(back.abs_diff(n) as f64 <= n as f64 / 4096.0, "{n} became {back}");
            n = n * 1001 / 1000 + 1;
        }
        assert_eq!(decode(encode(u64::MAX)), Some((EXACT - 1) << MAX_SHIFT));
        assert_eq!(decode(NONE), None);
    }

    #[test]
    fn every_code_is_its_own_number_and_they_ascend() {
        let top = encode(u64::MAX);
        for code in 0..top {
            assert_eq!(encode(decode(code).unwrap()), code);
            assert!(decode(code) < decode(code + 1));
        }
    }

    #[test]
    fn a_ring_forgets_what_is_too_old_and_what_was_passed_over() {
        let mut ring = Ring::new(4, 2);
        assert_eq!(ring.row(0), None);
        ring.write(10, &[1, 2]);
        ring.write(12, &[3, 4]);
        assert_eq!((ring.value(9, 0), ring.value(10, 0), ring.value(11, 0)), (None, Some(1), None));
        assert_eq!((ring.value(12, 1), ring.value(13, 1)), (Some(4), None));
        ring.write(14, &[5, 6]);
        assert_eq!((ring.value(10, 0), ring.value(12, 0), ring.value(14, 0)), (None, Some(3), Some(5)));
        ring.write(1000, &[7, 8]);
        for step in 990..1000 {
            assert_eq!(ring.value(step, 0), None, "{step}");
        }
        assert_eq!(ring.value(1000, 1), Some(8));
    }
}
