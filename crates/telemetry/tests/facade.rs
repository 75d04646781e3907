//! Crates that count through the `metrics` facade.

#![cfg(feature = "metrics")]

use std::time::Duration;

use l5d_telemetry::format::{influxdb, json, prometheus, statsd};
use l5d_telemetry::{MetricsTree, Page, Recorder, Snapshotter};
use metrics::{Unit, counter, describe_histogram, gauge, histogram, with_local_recorder};

fn text(mut page: Box<dyn Page>) -> String {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

fn page(tree: &MetricsTree) -> String {
    text(prometheus::page(tree, &prometheus::Options::default()))
}

#[test]
fn what_a_crate_counts_is_in_every_face() {
    let tree = MetricsTree::new();
    let recorder = Recorder::new(tree.root());
    let mut pusher = statsd::Pusher::new(&tree, statsd::Options { prefix: "p".into(), ..Default::default() });
    with_local_recorder(&recorder, || {
        counter!("requests", "method" => "GET", "code" => "200").increment(3);
        // The same one, whatever the order of its labels.
        counter!("requests", "code" => "200", "method" => "GET").increment(4);
        gauge!("depth").set(2.5);
    });
    assert_eq!(page(&tree), "requests:code:200:method:GET 7\ndepth 2.5\n");
    let json = text(json::page(&tree, &json::Options::default()).unwrap());
    assert_eq!(json, r#"{"requests/code/200/method/GET":7,"depth":2.5}"#);
    let influx = text(influxdb::page(&tree, &influxdb::Options { host: "h".into(), integers: false }));
    assert_eq!(influx, "requests:code:200:method,host=h GET=7\nroot,host=h depth=2.5\n");
    let mut sent = String::new();
    pusher.flush(true, &mut |datagram| {
        sent.push_str(std::str::from_utf8(datagram).unwrap());
        true
    });
    assert_eq!(sent, "p.requests.code.200.method.GET:7|c\np.depth:2.5|g");
}

#[test]
fn counters_are_raised_and_gauges_moved() {
    let tree = MetricsTree::new();
    let recorder = Recorder::new(tree.scope("app"));
    with_local_recorder(&recorder, || {
        counter!("c").absolute(10);
        counter!("c").absolute(4);
        counter!("c").increment(1);
        gauge!("g").set(1.5);
        gauge!("g").increment(2);
        gauge!("g").decrement(0.5);
    });
    assert_eq!(page(&tree), "app:c 11\napp:g 3.0\n");
    drop(recorder);
    assert_eq!(page(&tree), "app:c 11\n");
}

#[test]
fn seconds_become_microseconds_and_other_samples_whole_numbers() {
    let tree = MetricsTree::new();
    let recorder = Recorder::new(tree.root());
    with_local_recorder(&recorder, || {
        describe_histogram!("wait", Unit::Seconds, "time in the queue");
        histogram!("wait").record(Duration::from_micros(1500));
        histogram!("took_seconds").record(0.000_025);
        for value in [2.4, 2.6, -7.0, f64::NAN, f64::INFINITY] {
            histogram!("size").record(value);
        }
    });
    Snapshotter::new(&tree).tick();
    let page = page(&tree);
    let lines: Vec<&str> = page.lines().filter(|l| !l.contains("quantile=\"0.")).collect();
    for line in ["wait_us_count 1", "wait_us_sum 1500", "took_us_sum 25", "size_count 4", "size_sum 2147483652"] {
        assert!(lines.contains(&line), "{line} is not in {page}");
    }
}

#[test]
fn a_name_of_two_kinds_keeps_the_first() {
    let tree = MetricsTree::new();
    let recorder = Recorder::new(tree.root());
    with_local_recorder(&recorder, || {
        counter!("x").increment(1);
        gauge!("x").set(9.0);
        histogram!("x").record(9.0);
    });
    assert_eq!((page(&tree).as_str(), tree.collisions()), ("x 1\n", 2));
}
