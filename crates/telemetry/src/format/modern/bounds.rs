//! The bounds of classic buckets.

use crate::catalogue::Unit;

/// The bounds of classic buckets, by what is counted. Ascending, none twice.
#[derive(Clone, Debug, PartialEq)]
pub struct Buckets {
    millis: Vec<f64>,
    micros: Vec<f64>,
    bytes: Vec<f64>,
    counts: Vec<f64>,
}

impl Buckets {
    /// As many bounds as a list may have.
    pub const MOST: usize = 200;

    /// These bounds for times, in milliseconds.
    ///
    /// # Errors
    /// When a bound is no number from 0 on, or there are none or too many.
    pub fn with_millis(mut self, millis: &[f64]) -> Result<Self, String> {
        self.millis = checked(millis)?;
        self.micros = self.millis.iter().map(|bound| bound * 1e3).collect();
        Ok(self)
    }

    /// These bounds for sizes, in bytes.
    ///
    /// # Errors
    /// When a bound is no number from 0 on, or there are none or too many.
    pub fn with_bytes(mut self, bytes: &[f64]) -> Result<Self, String> {
        self.bytes = checked(bytes)?;
        Ok(self)
    }

    /// In the unit in which is counted.
    pub(super) fn of(&self, unit: Unit) -> &[f64] {
        match unit {
            Unit::Millis => &self.millis,
            Unit::Micros => &self.micros,
            Unit::Bytes => &self.bytes,
            Unit::None | Unit::Percent => &self.counts,
        }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        let this = Self { millis: vec![], micros: vec![], bytes: vec![], counts: vec![] };
        let millis = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1e3, 2.5e3, 5e3, 1e4, 3e4];
        let bytes = [256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0];
        let counts = vec![0.0, 1.0, 2.0, 3.0, 5.0, 10.0, 25.0, 100.0, 1000.0];
        let with = this.with_millis(&millis).and_then(|this| this.with_bytes(&bytes));
        Self { counts, ..with.expect("these are fine") }
    }
}

fn checked(bounds: &[f64]) -> Result<Vec<f64>, String> {
    if bounds.is_empty() {
        return Err("at least one bound is needed".to_owned());
    }
    if bounds.len() > Buckets::MOST {
        return Err(format!("{} bounds are more than {}", bounds.len(), Buckets::MOST));
    }
    if let Some(bad) = bounds.iter().find(|bound| !(0.0..=1e9).contains(*bound)) {
        return Err(format!("{bad} is no bound: a bound is a number from 0 to 1000000000"));
    }
    let mut bounds = bounds.to_vec();
    bounds.sort_by(f64::total_cmp);
    // -0.0 is 0.0, and reads so.
    bounds.iter_mut().for_each(|bound| *bound += 0.0);
    bounds.dedup();
    Ok(bounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_sorted_and_checked() {
        let buckets = Buckets::default().with_millis(&[250.0, 5.0, 10.0, 5.0, -0.0]).unwrap();
        assert_eq!(buckets.of(Unit::Millis), [0.0, 5.0, 10.0, 250.0]);
        assert_eq!(buckets.of(Unit::Micros), [0.0, 5e3, 10e3, 250e3]);
        assert_eq!(buckets.with_bytes(&[7.0]).unwrap().of(Unit::Bytes), [7.0]);
        for bad in [&[][..], &[-1.0], &[f64::NAN], &[f64::INFINITY], &[1e10], &[1.0; 201]] {
            assert!(Buckets::default().with_millis(bad).is_err(), "{bad:?}");
        }
    }
}
