//! Every library with the same series in it, and how each writes them as Prometheus text.

use std::fmt::Write as _;

use l5d_telemetry::format::{influxdb, json, prometheus as l5d_prometheus};
use l5d_telemetry::{Counter, MetricsTree, Page, Snapshotter, Stat};
use measured::LabelGroup;
use measured::metric::MetricFamilyEncoding;
use measured::metric::name::MetricName;
use measured::text::BufferedTextEncoder;
use metrics::{Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use paracord::ParaCord;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::series::{self, NAMES};

/// A library with series in it.
pub trait Peer {
    /// Writes all of them; returns how many bytes that were.
    fn scrape(&mut self) -> usize;
}

pub const LIBRARIES: [&str; 5] = ["l5d", "prometheus", "prometheus-client", "metrics", "measured"];

/// `scopes` sets of labels with 20 counters each.
pub fn counters(library: &str, scopes: usize) -> Box<dyn Peer> {
    match library {
        "l5d" => Box::new(L5d::counters(scopes)),
        "prometheus" => Box::new(Prometheus::counters(scopes)),
        "prometheus-client" => Box::new(Client::counters(scopes)),
        "metrics" => Box::new(Exporter::counters(scopes)),
        "measured" => Box::new(Measured::counters(scopes)),
        _ => panic!("no library {library}"),
    }
}

/// `n` distributions with 64 samples each.
pub fn stats(library: &str, n: usize) -> Box<dyn Peer> {
    match library {
        "l5d" => Box::new(L5d::stats(n)),
        "prometheus" => Box::new(Prometheus::stats(n)),
        "prometheus-client" => Box::new(Client::stats(n)),
        "metrics" => Box::new(Exporter::stats(n)),
        "measured" => Box::new(Measured::stats(n)),
        _ => panic!("no library {library}"),
    }
}

/// The limits of a histogram's 11 buckets, in the unit of the samples.
pub const LIMITS: [f64; 11] = [100.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1500.0, 2000.0, 3000.0, 5000.0, 10_000.0];

pub struct L5d {
    pub tree: MetricsTree,
    pub counters: Vec<Counter>,
    pub stats: Vec<Stat>,
    buffer: Vec<u8>,
}

impl L5d {
    fn scope(tree: &MetricsTree, at: usize) -> l5d_telemetry::Scope {
        let client = tree.scope("rt").scope(series::rt()).scope("client").scope(&series::client(at));
        client.scope("service").scope(&series::service(at))
    }

    pub fn counters(scopes: usize) -> Self {
        let tree = MetricsTree::new();
        let mut counters = Vec::with_capacity(scopes * NAMES.len());
        for at in 0..scopes {
            let scope = Self::scope(&tree, at);
            counters.extend(NAMES.map(|name| scope.counter(name)));
        }
        // Two workers have counted each: the second half of the number each.
        let done = std::sync::Barrier::new(2);
        std::thread::scope(|threads| {
            for half in 0..2 {
                let (tree, counters, done) = (&tree, &counters, &done);
                threads.spawn(move || {
                    let guard = tree.enter_worker();
                    for (i, counter) in counters.iter().enumerate() {
                        let value = series::value(i / NAMES.len(), i % NAMES.len());
                        counter.add(if half == 0 { value / 2 } else { value - value / 2 });
                    }
                    done.wait();
                    // The cells stay as they are while workers live.
                    std::mem::forget(guard);
                });
            }
        });
        Self { tree, counters, stats: Vec::new(), buffer: Vec::with_capacity(80 << 10) }
    }

    pub fn stats(n: usize) -> Self {
        Self::stats_in(n, &["request_latency_ms"])
    }

    /// Stats of these names in each scope.
    pub fn stats_in(n: usize, names: &[&str]) -> Self {
        let tree = MetricsTree::new();
        let latencies = series::latencies();
        let stat = |at: usize| Self::scope(&tree, at / names.len()).stat(names[at % names.len()]);
        let stats: Vec<Stat> = (0..n).map(stat).collect();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let guard = tree.enter_worker();
                for (at, stat) in stats.iter().enumerate() {
                    (0..64).for_each(|i| stat.add(latencies[(at * 64 + i) % latencies.len()]));
                }
                std::mem::forget(guard);
            });
        });
        Snapshotter::new(&tree).tick();
        Self { tree, counters: Vec::new(), stats, buffer: Vec::with_capacity(80 << 10) }
    }

    /// Writes a page piece by piece into one buffer, as the admin server does.
    pub fn write(&mut self, mut page: Box<dyn Page>) -> usize {
        let mut bytes = 0;
        loop {
            self.buffer.clear();
            let more = page.fill(&mut self.buffer);
            bytes += std::hint::black_box(&self.buffer).len();
            if !more {
                return bytes;
            }
        }
    }

    pub fn json(&mut self) -> usize {
        let page = json::page(&self.tree, &json::Options::default()).expect("the root is there");
        self.write(page)
    }

    pub fn influxdb(&mut self) -> usize {
        let page = influxdb::page(&self.tree, &influxdb::Options { host: "localhost:9990".into(), integers: false });
        self.write(page)
    }

    pub fn text(&self, face: &str) -> Vec<u8> {
        let mut page = match face {
            "prometheus" => l5d_prometheus::page(&self.tree, &l5d_prometheus::Options::default()),
            "json" => json::page(&self.tree, &json::Options::default()).expect("the root is there"),
            "influxdb" => {
                influxdb::page(&self.tree, &influxdb::Options { host: "localhost:9990".into(), integers: false })
            }
            _ => panic!("no face {face}"),
        };
        let mut out = Vec::new();
        while page.fill(&mut out) {}
        out
    }
}

impl Peer for L5d {
    fn scrape(&mut self) -> usize {
        let page = l5d_prometheus::page(&self.tree, &l5d_prometheus::Options::default());
        self.write(page)
    }
}

struct Prometheus {
    registry: prometheus::Registry,
    buffer: Vec<u8>,
}

impl Prometheus {
    fn counters(scopes: usize) -> Self {
        let registry = prometheus::Registry::new();
        for (n, name) in NAMES.iter().enumerate() {
            let options = prometheus::Opts::new(format!("rt_client_service_{name}"), *name);
            let vec = prometheus::IntCounterVec::new(options, &["rt", "client", "service"]).unwrap();
            registry.register(Box::new(vec.clone())).unwrap();
            for at in 0..scopes {
                let labels = [series::rt(), &series::client(at), &series::service(at)];
                vec.with_label_values(&labels).inc_by(series::value(at, n));
            }
        }
        Self { registry, buffer: Vec::new() }
    }

    fn stats(n: usize) -> Self {
        let registry = prometheus::Registry::new();
        let options = prometheus::HistogramOpts::new("rt_client_service_request_latency_ms", "latency");
        let options = options.buckets(LIMITS.to_vec());
        let vec = prometheus::HistogramVec::new(options, &["rt", "client", "service"]).unwrap();
        registry.register(Box::new(vec.clone())).unwrap();
        let latencies = series::latencies();
        for at in 0..n {
            let stat = vec.with_label_values(&[series::rt(), &series::client(at), &series::service(at)]);
            (0..64).for_each(|i| stat.observe(latencies[(at * 64 + i) % latencies.len()] as f64));
        }
        Self { registry, buffer: Vec::new() }
    }
}

impl Peer for Prometheus {
    fn scrape(&mut self) -> usize {
        self.buffer.clear();
        let families = self.registry.gather();
        prometheus::Encoder::encode(&prometheus::TextEncoder::new(), &families, &mut self.buffer).unwrap();
        self.buffer.len()
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClientLabels {
    rt: String,
    client: String,
    service: String,
}

impl ClientLabels {
    fn of(at: usize) -> Self {
        Self { rt: series::rt().into(), client: series::client(at), service: series::service(at) }
    }
}

struct Client {
    registry: Registry,
    buffer: String,
}

impl Client {
    fn counters(scopes: usize) -> Self {
        let mut registry = Registry::default();
        for (n, name) in NAMES.iter().enumerate() {
            let family = Family::<ClientLabels, prometheus_client::metrics::counter::Counter>::default();
            registry.register(format!("rt_client_service_{name}"), *name, family.clone());
            for at in 0..scopes {
                family.get_or_create(&ClientLabels::of(at)).inc_by(series::value(at, n));
            }
        }
        Self { registry, buffer: String::new() }
    }

    fn stats(n: usize) -> Self {
        use prometheus_client::metrics::histogram::Histogram;
        let mut registry = Registry::default();
        let family =
            Family::<ClientLabels, Histogram, fn() -> Histogram>::new_with_constructor(|| Histogram::new(LIMITS));
        registry.register("rt_client_service_request_latency_ms", "latency", family.clone());
        let latencies = series::latencies();
        for at in 0..n {
            let stat = family.get_or_create(&ClientLabels::of(at));
            (0..64).for_each(|i| stat.observe(latencies[(at * 64 + i) % latencies.len()] as f64));
        }
        Self { registry, buffer: String::new() }
    }
}

impl Peer for Client {
    fn scrape(&mut self) -> usize {
        self.buffer.clear();
        prometheus_client::encoding::text::encode(&mut self.buffer, &self.registry).unwrap();
        self.buffer.len()
    }
}

pub struct Exporter {
    pub recorder: PrometheusRecorder,
}

pub const METADATA: Metadata<'static> = Metadata::new("bench", Level::INFO, None);

impl Exporter {
    fn key(name: &str, at: usize) -> Key {
        let labels = vec![
            Label::new("rt", series::rt()),
            Label::new("client", series::client(at)),
            Label::new("service", series::service(at)),
        ];
        Key::from_parts(format!("rt_client_service_{name}"), labels)
    }

    fn counters(scopes: usize) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for (n, name) in NAMES.iter().enumerate() {
            for at in 0..scopes {
                recorder.register_counter(&Self::key(name, at), &METADATA).increment(series::value(at, n));
            }
        }
        Self { recorder }
    }

    fn stats(n: usize) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let latencies = series::latencies();
        for at in 0..n {
            let stat = recorder.register_histogram(&Self::key("request_latency_ms", at), &METADATA);
            (0..64).for_each(|i| stat.record(latencies[(at * 64 + i) % latencies.len()] as f64));
        }
        Self { recorder }
    }
}

impl Peer for Exporter {
    fn scrape(&mut self) -> usize {
        let mut out = String::new();
        write!(out, "{}", self.recorder.handle().render()).unwrap();
        out.len()
    }
}

#[derive(Clone, Copy, PartialEq, Debug, LabelGroup)]
#[label(set = MeasuredLabels)]
struct MeasuredGroup<'a> {
    #[label(dynamic_with = ParaCord)]
    rt: &'a str,
    #[label(dynamic_with = ParaCord)]
    client: &'a str,
    #[label(dynamic_with = ParaCord)]
    service: &'a str,
}

struct Measured {
    counters: Vec<(&'static str, measured::CounterVec<MeasuredLabels>)>,
    stats: Option<measured::HistogramVec<MeasuredLabels, 11>>,
    encoder: BufferedTextEncoder,
}

impl Measured {
    fn counters(scopes: usize) -> Self {
        let mut counters = Vec::new();
        for (n, name) in NAMES.iter().enumerate() {
            let vec = measured::CounterVec::with_label_set(measured_labels());
            for at in 0..scopes {
                let (client, service) = (series::client(at), series::service(at));
                let group = MeasuredGroup { rt: series::rt(), client: &client, service: &service };
                vec.inc_by(group, series::value(at, n));
            }
            counters.push((&*format!("rt_client_service_{name}").leak(), vec));
        }
        Self { counters, stats: None, encoder: BufferedTextEncoder::new() }
    }

    fn stats(n: usize) -> Self {
        let thresholds = measured::metric::histogram::Thresholds::with_buckets(LIMITS);
        let vec = measured::HistogramVec::with_label_set_and_metadata(measured_labels(), thresholds);
        let latencies = series::latencies();
        for at in 0..n {
            let (client, service) = (series::client(at), series::service(at));
            let id = vec.with_labels(MeasuredGroup { rt: series::rt(), client: &client, service: &service });
            (0..64).for_each(|i| vec.get_metric(id).observe(latencies[(at * 64 + i) % latencies.len()] as f64));
        }
        Self { counters: Vec::new(), stats: Some(vec), encoder: BufferedTextEncoder::new() }
    }
}

impl Peer for Measured {
    fn scrape(&mut self) -> usize {
        for (name, vec) in &self.counters {
            vec.collect_family_into(MetricName::from_str(name), &mut self.encoder).unwrap();
        }
        if let Some(vec) = &self.stats {
            let name = MetricName::from_str("rt_client_service_request_latency_ms");
            vec.collect_family_into(name, &mut self.encoder).unwrap();
        }
        self.encoder.finish().len()
    }
}

fn measured_labels() -> MeasuredLabels {
    MeasuredLabels::new(ParaCord::default(), ParaCord::default(), ParaCord::default())
}
