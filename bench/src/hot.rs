//! What a write costs: a counter, a stat, a whole request's worth, with the handle held, from one thread and from two.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use l5d_telemetry::MetricsTree;
use metrics::{Key, Recorder};

use crate::peers::{LIMITS, METADATA};
use crate::series;

/// A case: what it is called, and what makes its work. The work is called in each thread with how often to do it.
pub struct Case {
    pub name: &'static str,
    pub make: fn() -> Box<dyn Fn(u64) + Sync>,
}

macro_rules! case {
    ($name:literal, $make:expr) => {
        Case { name: $name, make: $make }
    };
}

thread_local! {
    static PLAIN: Cell<u64> = const { Cell::new(0) };
}

/// Has the compiler forget what it knows of memory, so that it loads a handle anew each time, as code between two
/// increments makes it do. It costs no instruction.
#[inline(always)]
fn forget() {
    // SAFETY: there is no instruction in it.
    unsafe { std::arch::asm!("", options(nostack, preserves_flags)) };
}

fn counting<C: Sync + 'static>(counter: C, incr: impl Fn(&C) + Sync + 'static) -> Box<dyn Fn(u64) + Sync> {
    Box::new(move |n| {
        for _ in 0..n {
            forget();
            incr(&counter);
        }
    })
}

fn sampling<S: Sync + 'static>(stat: S, add: impl Fn(&S, u64) + Sync + 'static) -> Box<dyn Fn(u64) + Sync> {
    let values = series::latencies();
    Box::new(move |n| samples(n, &values, |v| add(&stat, v)))
}

/// `n` values in thousands or so.
fn samples(n: u64, values: &[u64], mut each: impl FnMut(u64)) {
    for _ in 0..n / values.len() as u64 {
        for &value in values {
            forget();
            each(value);
        }
    }
}

fn recorder() -> metrics_exporter_prometheus::PrometheusRecorder {
    metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder()
}

fn prometheus_histogram() -> prometheus::Histogram {
    let options = prometheus::HistogramOpts::new("h", "h").buckets(LIMITS.to_vec());
    prometheus::Histogram::with_opts(options).unwrap()
}

fn measured_histogram() -> measured::Histogram<11> {
    measured::Histogram::with_metadata(measured::metric::histogram::Thresholds::with_buckets(LIMITS))
}

pub fn counters() -> Vec<Case> {
    vec![
        case!("empty loop", || counting(0_u64, |_| {})),
        case!("plain u64 of the thread", || counting((), |()| PLAIN.set(PLAIN.get().wrapping_add(1)))),
        case!("l5d", || {
            let tree = MetricsTree::new();
            let counter = tree.root().counter("c");
            Box::new(move |n| {
                let _worker = tree.enter_worker();
                for _ in 0..n {
                    forget();
                    counter.incr();
                }
            })
        }),
        case!("prometheus", || counting(prometheus::IntCounter::new("c", "c").unwrap(), |c| c.inc())),
        case!("prometheus-client", || {
            counting(prometheus_client::metrics::counter::Counter::<u64>::default(), |c| {
                c.inc();
            })
        }),
        case!("metrics", || counting(recorder().register_counter(&Key::from_name("c"), &METADATA), |c| c.increment(1))),
        case!("measured", || counting(measured::Counter::new(), |c| c.get_metric().inc())),
    ]
}

pub fn stats() -> Vec<Case> {
    vec![
        case!("empty loop", || sampling(0_u64, |_, v| _ = black_box(v))),
        case!("l5d", || {
            let tree = MetricsTree::new();
            let stat = tree.root().stat("s");
            let values = series::latencies();
            Box::new(move |n| {
                let _worker = tree.enter_worker();
                samples(n, &values, |v| stat.add(v));
            })
        }),
        case!("prometheus", || sampling(prometheus_histogram(), |h, v| h.observe(v as f64))),
        case!("prometheus-client", || {
            sampling(prometheus_client::metrics::histogram::Histogram::new(LIMITS), |h, v| h.observe(v as f64))
        }),
        case!("metrics", || {
            sampling(recorder().register_histogram(&Key::from_name("h"), &METADATA), |h, v| h.record(v as f64))
        }),
        case!("measured", || sampling(measured_histogram(), |h, v| h.get_metric().observe(v as f64))),
    ]
}

/// 25 counters, 6 stats, the clock twice.
fn request<C: Sync + 'static, S: Sync + 'static>(
    counters: Vec<C>,
    stats: Vec<S>,
    incr: impl Fn(&C) + Sync + 'static,
    add: impl Fn(&S, u64) + Sync + 'static,
) -> Box<dyn Fn(u64) + Sync> {
    Box::new(move |n| {
        for _ in 0..n {
            let start = Instant::now();
            black_box(&counters).iter().for_each(&incr);
            let micros = start.elapsed().as_micros() as u64 + 900;
            black_box(&stats).iter().for_each(|s| add(s, micros));
        }
    })
}

fn many<T>(n: usize, make: impl Fn(String) -> T) -> Vec<T> {
    (0..n).map(|i| make(format!("m{i}"))).collect()
}

pub fn requests() -> Vec<Case> {
    vec![
        case!("clock only", || request(vec![(); 25], vec![(); 6], |()| {}, |(), _| {})),
        case!("l5d", || {
            let tree = MetricsTree::new();
            let counters = many(25, |name| tree.root().counter(&name));
            let stats = many(6, |name| tree.root().scope("stats").stat(&name));
            let work = request(counters, stats, |c| c.incr(), |s, v| s.add(v));
            Box::new(move |n| {
                let _worker = tree.enter_worker();
                work(n);
            })
        }),
        case!("prometheus", || {
            let counters = many(25, |name| prometheus::IntCounter::new(name, "c").unwrap());
            request(counters, many(6, |_| prometheus_histogram()), |c| c.inc(), |h, v| h.observe(v as f64))
        }),
        case!("prometheus-client", || {
            let counters = many(25, |_| prometheus_client::metrics::counter::Counter::<u64>::default());
            let stats = many(6, |_| prometheus_client::metrics::histogram::Histogram::new(LIMITS));
            request(counters, stats, |c| _ = c.inc(), |h, v| h.observe(v as f64))
        }),
        case!("metrics", || {
            let recorder = recorder();
            let counters = many(25, |name| recorder.register_counter(&Key::from_name(name), &METADATA));
            let stats = many(6, |name| recorder.register_histogram(&Key::from_name(format!("h{name}")), &METADATA));
            request(counters, stats, |c| c.increment(1), |h, v| h.record(v as f64))
        }),
        case!("measured", || {
            let counters = many(25, |_| measured::Counter::new());
            request(
                counters,
                many(6, |_| measured_histogram()),
                |c| c.get_metric().inc(),
                |h, v| {
                    h.get_metric().observe(v as f64);
                },
            )
        }),
    ]
}

/// Nanoseconds an operation takes, as each of `threads` threads sees it.
pub fn time(work: &(dyn Fn(u64) + Sync), threads: usize, ops: u64) -> f64 {
    let start = Barrier::new(threads);
    let seen: Vec<f64> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let start = &start;
                scope.spawn(move || {
                    crate::machine::pin(thread);
                    work(ops / 20);
                    start.wait();
                    let began = crate::machine::cpu_seconds();
                    work(ops);
                    (crate::machine::cpu_seconds() - began) * 1e9 / ops as f64
                })
            })
            .collect();
        running.into_iter().map(|t| t.join().unwrap()).collect()
    });
    seen.iter().sum::<f64>() / threads as f64
}
