//! How evenly something falls on several, as Finagle's `ThreadUsage` tells of requests and threads.

use std::sync::Arc;

use crate::gauge::GaugeGuard;
use crate::scope::Scope;

/// Moments of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spread {
    /// Their mean; 0 of none.
    pub mean: f64,
    /// Their standard deviation, of all of them.
    pub stddev: f64,
    /// The deviation as a part of the mean; 0 where that is 0.
    pub relative_stddev: f64,
}

impl Spread {
    /// Of these, none of which is negative.
    pub fn of(numbers: &[f64]) -> Self {
        let n = numbers.len().max(1) as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let stddev = (numbers.iter().map(|number| (number - mean).powi(2)).sum::<f64>() / n).sqrt();
        Self { mean, stddev, relative_stddev: if mean > 0.0 { stddev / mean } else { 0.0 } }
    }

    /// Registers the gauges `mean`, `stddev` and `relative_stddev` of what `told` says when they are asked.
    pub fn gauges(scope: &Scope, told: impl Fn() -> Self + Send + Sync + 'static) -> [GaugeGuard; 3] {
        let told = Arc::new(told);
        let gauge = |name, part: fn(Self) -> f64| {
            let told = Arc::clone(&told);
            scope.gauge(name, move || part(told()))
        };
        [
            gauge("mean", |spread| spread.mean),
            gauge("stddev", |spread| spread.stddev),
            gauge("relative_stddev", |spread| spread.relative_stddev),
        ]
    }
}
