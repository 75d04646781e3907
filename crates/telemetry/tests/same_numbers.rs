//! One store, four faces: under load no face is ahead of another that is read later, and at rest they say the same.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use l5d_telemetry::format::statsd::{Options, Pusher};
use l5d_telemetry::format::{influxdb, json, modern, prometheus};
use l5d_telemetry::{MetricsTree, Page, Snapshotter};

/// A counter's value, by its service.
type Counts = BTreeMap<String, u64>;

fn text(mut page: Box<dyn Page>) -> String {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

/// The number between two texts in each line that has both.
fn counts(page: &str, before: &str, between: &str, end: char) -> Counts {
    let lines = page.split('\n').filter_map(|line| {
        let (service, rest) = line.split_once(before)?.1.split_once(between)?;
        Some((service.to_owned(), rest.split(end).next()?.trim().parse().ok()?))
    });
    lines.collect()
}

fn in_json(tree: &MetricsTree) -> Counts {
    let page = text(json::page(tree, &json::Options::default()).unwrap()).replace(',', "\n");
    counts(&page.replace('}', ""), "\"rt/http/service/", "/requests\":", '\n')
}

fn in_prometheus(tree: &MetricsTree, types: bool) -> Counts {
    let options = prometheus::Options { prefix: String::new(), types };
    counts(&text(prometheus::page(tree, &options)), "rt:service:requests{rt=\"http\", service=\"", "\"} ", '\n')
}

fn in_influxdb(tree: &MetricsTree) -> Counts {
    let options = influxdb::Options { host: "h".into(), ..influxdb::Options::default() };
    let page = text(influxdb::page(tree, &options));
    let lines = page.lines().filter_map(|line| {
        let (service, fields) = line.strip_prefix("rt:service,host=h,rt=http,service=")?.split_once(' ')?;
        let requests = fields.split(',').find_map(|field| field.strip_prefix("requests="))?;
        Some((service.to_owned(), requests.parse().unwrap()))
    });
    lines.collect()
}

fn in_modern(tree: &MetricsTree, format: modern::Format) -> Counts {
    let page = text(modern::page(tree, modern::Options { format, ..modern::Options::default() }));
    counts(&page, "l5d_service_requests_total{router=\"http\",service=\"", "\"} ", '\n')
}

/// What a server has been sent, all told.
struct Sent {
    pusher: Pusher,
    counts: Counts,
}

impl Sent {
    fn flush(&mut self) -> Counts {
        let counts = &mut self.counts;
        self.pusher.flush(false, &mut |datagram| {
            for line in std::str::from_utf8(datagram).unwrap().split('\n') {
                let Some((name, n)) = line.strip_suffix("|c").and_then(|line| line.split_once(':')) else { continue };
                if let Some(service) = name.strip_prefix("linkerd.rt.http.service.")
                    && let Some(service) = service.strip_suffix(".requests")
                {
                    *counts.entry(service.to_owned()).or_default() += n.parse::<u64>().unwrap();
                }
            }
            true
        });
        counts.clone()
    }
}

/// Ends the load, also when an assertion fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each service in both, and none with more in the first.
fn not_ahead(earlier: &Counts, later: &Counts, what: &str) {
    assert_eq!(earlier.keys().collect::<Vec<_>>(), later.keys().collect::<Vec<_>>(), "{what}");
    for (service, n) in earlier {
        assert!(*n <= later[service], "{what}: {service} went from {n} to {}", later[service]);
    }
}

#[test]
fn four_faces_say_the_same() {
    const SERVICES: usize = 200;
    let tree = MetricsTree::new();
    let mut sent = Sent { pusher: Pusher::new(&tree, Options::default()), counts: Counts::new() };
    let services = tree.scope("rt").scope("http").scope("service");
    let counters: Vec<_> = (0..SERVICES)
        .map(|i| {
            let service = services.scope(&format!("s{i}"));
            (service.counter("requests"), service.stat("request_latency_ms"))
        })
        .collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|threads| {
        for worker in 0..2 {
            let (tree, counters, over) = (&tree, &counters, &over);
            threads.spawn(move || {
                let _worker = tree.enter_worker();
                let mut at = worker;
                while !over.load(Ordering::Relaxed) {
                    at = (at * 31 + 7) % SERVICES;
                    counters[at].0.incr();
                    counters[at].1.add(at as u64);
                }
            });
        }
        let _end = End(&over);
        let snapshotter = Snapshotter::new(&tree);
        for _ in 0..20 {
            let mut last = in_json(&tree);
            assert_eq!(last.len(), SERVICES);
            snapshotter.tick();
            let faces: [(&str, &dyn Fn() -> Counts); 6] = [
                ("prometheus", &|| in_prometheus(&tree, false)),
                ("typed", &|| in_prometheus(&tree, true)),
                ("influxdb", &|| in_influxdb(&tree)),
                ("modern", &|| in_modern(&tree, modern::Format::Text)),
                ("openmetrics", &|| in_modern(&tree, modern::Format::OpenMetrics)),
                ("json", &|| in_json(&tree)),
            ];
            for (what, read) in faces {
                let now = read();
                not_ahead(&last, &now, what);
                last = now;
            }
            let now = sent.flush();
            not_ahead(&last, &now, "statsd");
            not_ahead(&now, &in_json(&tree), "json after statsd");
        }
    });
    let expected: Counts = counters.iter().enumerate().map(|(i, (c, _))| (format!("s{i}"), c.value())).collect();
    assert!(expected.values().sum::<u64>() > 10_000);
    for read in [
        in_json(&tree),
        in_prometheus(&tree, false),
        in_prometheus(&tree, true),
        in_influxdb(&tree),
        in_modern(&tree, modern::Format::Text),
        in_modern(&tree, modern::Format::OpenMetrics),
        sent.flush(),
    ] {
        assert_eq!(read, expected);
    }
}
