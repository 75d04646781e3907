//! Names that come and go, and names without end: series and memory stay flat, and no count is lost. A process of its own, as
//! its memory is measured.

use std::collections::VecDeque;

use l5d_telemetry::format::modern::{Filter, Options, page};
use l5d_telemetry::{Counter, MetricsTree, Scope, Stat};

/// The metrics of one destination, as a client has them: a few, of each kind.
struct Destination {
    scope: Scope,
    requests: Counter,
    latency: Stat,
    _counters: Vec<Counter>,
    _pending: l5d_telemetry::Level,
}

impl Destination {
    fn new(clients: &Scope, name: &str) -> Self {
        let scope = clients.scope(name);
        let service = scope.scope("service").scope("svc/web");
        let counters =
            ["success", "connects", "closes", "received_bytes", "sent_bytes"].map(|name| scope.counter(name));
        service.counter("requests").incr();
        scope.scope("failures").counter("com.twitter.finagle.ChannelClosedException").incr();
        Self {
            requests: scope.counter("requests"),
            latency: scope.stat("request_latency_ms"),
            _counters: counters.into(),
            _pending: scope.level("pending"),
            scope,
        }
    }
}

/// Kilobytes of this process that are resident.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// The sum of a family.
fn sum(tree: &MetricsTree, name: &str) -> u64 {
    let filter = Filter { matching: vec![name.to_owned()], exclude: Vec::new() };
    let mut page = page(tree, Options { filter, ..Options::default() });
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    let text = String::from_utf8(out).unwrap();
    let values = text.lines().filter(|line| line.starts_with(name)).map(|line| line.rsplit(' ').next().unwrap());
    values.map(|n| n.parse::<u64>().unwrap()).sum()
}

/// Ten minutes of ten thousand destinations each, of which a thousand are in use at a time.
fn names_that_come_and_go() {
    let tree = MetricsTree::new();
    let _worker = tree.enter_worker();
    let clients = tree.scope("rt").scope("http").scope("client");
    let mut live = VecDeque::new();
    let mut minutes = Vec::new();
    let (mut requests, mut last) = (0, 0);
    for minute in 0..10 {
        for i in 0..10_000 {
            let destination = Destination::new(&clients, &format!("#/io.l5d.fs/destination-{minute}-{i}"));
            destination.requests.add(3);
            destination.latency.add(i % 1000);
            requests += 3;
            live.push_back(destination);
            if live.len() > 1000 {
                let Destination { scope, requests: late, .. } = live.pop_front().unwrap();
                scope.prune();
                // What was under way when it ended.
                late.add(1);
                requests += 1;
            }
        }
        let now = sum(&tree, "l5d_client_requests_total");
        assert!(now >= last, "went from {last} to {now}");
        assert_eq!(now, requests);
        assert_eq!(sum(&tree, "l5d_client_request_duration_seconds_count"), (minute + 1) * 10_000);
        last = now;
        minutes.push((tree.series(), resident()));
    }
    println!("    series and resident kilobytes by minute: {minutes:?}");
    let (series, memory) = minutes[1];
    for &(later, resident) in &minutes[2..] {
        assert_eq!(later, series);
        assert!(resident < memory + memory / 20 + 1024, "{minutes:?}");
    }
}

/// A million services, none of which ever ends.
fn names_without_end() {
    const NAMES: u64 = 1_000_000;
    let tree = MetricsTree::new();
    tree.limit_series(100_000, usize::MAX);
    let services = tree.scope("rt").scope("http").scope("service");
    let mut memory = 0;
    for i in 0..NAMES {
        services.scope(&format!("svc/host-{i}.example")).counter("requests").incr();
        if i == NAMES / 5 {
            memory = resident();
        }
    }
    println!("    {} series; resident kilobytes from {memory} to {}", tree.series(), resident());
    assert!(tree.series() <= 100_000);
    assert!(resident() < memory + memory / 20 + 1024, "from {memory} to {}", resident());
    assert_eq!(sum(&tree, "l5d_service_requests_total"), NAMES);
}

/// One after the other: memory is the process'.
#[test]
fn names_that_come_and_go_and_names_without_end_cost_no_memory() {
    names_that_come_and_go();
    names_without_end();
}
