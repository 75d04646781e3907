//! The `metrics` facade's recorder: what a crate counts with `metrics::counter!` and its like shows up in every face.
//!
//! The facade's metrics have labels where the tree has keys: `counter!("requests", "method" => "GET")` is the counter
//! `GET` in the scope `requests`, `method`. Labels are sorted, so that their order doesn't matter. The names of a face
//! follow from that as they do for any other metric: `requests/method/GET` in JSON, `requests:method:GET` in Prometheus
//! text.
//!
//! A stat holds whole numbers up to 2^31 - 1. A histogram that is described in seconds, or whose name ends in
//! `_seconds`, as a `Duration` is recorded, becomes one in microseconds with `_us` at its end; other samples are
//! rounded. What is negative counts as 0, and no number as nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{CounterFn, GaugeFn, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

use crate::sync::{Mutex, lock};
use crate::{Counter, GaugeGuard, Scope, Stat};

/// A recorder that writes beneath a scope.
///
/// A name that is a metric of another kind already gives a handle that works and is in no face, and is counted in
/// [`MetricsTree::collisions`](crate::MetricsTree::collisions). Gauges are gone when the recorder is; counters and
/// histograms stay in the tree.
///
/// ```
/// use l5d_telemetry::{MetricsTree, Recorder, format::prometheus};
///
/// let tree = MetricsTree::new();
/// let recorder = Recorder::new(tree.scope("app"));
/// metrics::with_local_recorder(&recorder, || metrics::counter!("jobs", "queue" => "mail").increment(2));
/// let (mut page, mut text) = (prometheus::page(&tree, &prometheus::Options::default()), Vec::new());
/// while page.fill(&mut text) {}
/// assert_eq!(text, b"app:jobs:queue:mail 2\n");
/// ```
pub struct Recorder {
    scope: Scope,
    /// Histograms that are described in seconds.
    seconds: Mutex<Vec<KeyName>>,
    gauges: Mutex<HashMap<Vec<String>, Set>>,
    /// Held to raise a counter to a value, since that looks at it first.
    raising: Arc<Mutex<()>>,
}

/// A gauge that is set.
struct Set {
    value: Arc<Value>,
    _guard: GaugeGuard,
}

/// The bits of what it was set to.
struct Value(AtomicU64);

struct Counting {
    counter: Counter,
    raising: Arc<Mutex<()>>,
}

struct Sampling {
    stat: Stat,
    /// What a sample is multiplied by.
    scale: f64,
}

impl Recorder {
    /// A recorder that writes beneath this scope. `metrics::set_global_recorder` takes it.
    pub fn new(scope: Scope) -> Self {
        Self { scope, seconds: Mutex::default(), gauges: Mutex::default(), raising: Arc::default() }
    }

    /// The scope that a metric is in, and its name there.
    fn place<'a>(&self, path: &'a [String]) -> (Scope, &'a str) {
        match path {
            [above @ .., name] => (above.iter().fold(self.scope.clone(), |scope, key| scope.scope(key)), name),
            [] => (self.scope.clone(), ""),
        }
    }
}

/// The keys of a metric: its name, and each label with its value.
fn path(name: &str, key: &Key) -> Vec<String> {
    let mut labels: Vec<_> = key.labels().map(|label| (label.key(), label.value())).collect();
    labels.sort_unstable();
    let labels = labels.into_iter().flat_map(|(key, value)| [key.to_owned(), value.to_owned()]);
    std::iter::once(name.to_owned()).chain(labels).collect()
}

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, key: KeyName, unit: Option<Unit>, _: SharedString) {
        let mut seconds = lock(&self.seconds);
        if unit == Some(Unit::Seconds) && !seconds.contains(&key) {
            seconds.push(key);
        }
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> metrics::Counter {
        let path = path(key.name(), key);
        let (scope, name) = self.place(&path);
        metrics::Counter::from_arc(Arc::new(Counting { counter: scope.counter(name), raising: self.raising.clone() }))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> metrics::Gauge {
        let path = path(key.name(), key);
        let mut gauges = lock(&self.gauges);
        if let Some(set) = gauges.get(&path) {
            return metrics::Gauge::from_arc(set.value.clone());
        }
        let (scope, name) = self.place(&path);
        let value = Arc::new(Value(AtomicU64::new(0)));
        let shown = value.clone();
        let guard = scope.gauge(name, move || shown.now());
        gauges.insert(path, Set { value: value.clone(), _guard: guard });
        metrics::Gauge::from_arc(value)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> metrics::Histogram {
        let stem = key.name().strip_suffix("_seconds");
        let described = lock(&self.seconds).iter().any(|name| name.as_str() == key.name());
        let (path, scale) = match stem.or_else(|| described.then(|| key.name())) {
            Some(stem) => (path(&format!("{stem}_us"), key), 1e6),
            None => (path(key.name(), key), 1.0),
        };
        let (scope, name) = self.place(&path);
        metrics::Histogram::from_arc(Arc::new(Sampling { stat: scope.stat(name), scale }))
    }
}

impl CounterFn for Counting {
    fn increment(&self, value: u64) {
        self.counter.add(value);
    }

    /// Raises the counter to `value`. What others add meanwhile is added.
    fn absolute(&self, value: u64) {
        let _one_at_a_time = lock(&self.raising);
        self.counter.add(value.saturating_sub(self.counter.value()));
    }
}

impl Value {
    fn now(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn change(&self, by: f64) {
        let changed = |bits| Some((f64::from_bits(bits) + by).to_bits());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, changed);
    }
}

impl GaugeFn for Value {
    fn increment(&self, value: f64) {
        self.change(value);
    }

    fn decrement(&self, value: f64) {
        self.change(-value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl HistogramFn for Sampling {
    fn record(&self, value: f64) {
        if !value.is_nan() {
            // A float that is too small or too large becomes the integer that is nearest.
            self.stat.add((value * self.scale).round() as u64);
        }
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("scope", &self.scope).finish_non_exhaustive()
    }
}
