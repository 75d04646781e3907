//! What a StatsD server is sent, and that nothing counted is lost or sent twice on the way.

use std::collections::{HashMap, HashSet};

use l5d_telemetry::format::statsd::{Flavor, Flushed, Options, Pusher};
use l5d_telemetry::{MetricsTree, Scope, Snapshotter};
use proptest::prelude::*;

fn options() -> Options {
    Options { sample_rate: 1.0, ..Options::default() }
}

fn scope(tree: &MetricsTree, keys: &[&str]) -> Scope {
    keys.iter().fold(tree.root(), |scope, key| scope.scope(key))
}

fn flush(pusher: &mut Pusher, gauges: bool) -> (Vec<String>, Flushed) {
    let mut datagrams = Vec::new();
    let flushed = pusher.flush(gauges, &mut |d| {
        datagrams.push(String::from_utf8(d.to_vec()).unwrap());
        true
    });
    (datagrams, flushed)
}

fn lines(pusher: &mut Pusher) -> Vec<String> {
    flush(pusher, true).0.iter().flat_map(|d| d.split('\n')).map(str::to_owned).collect()
}

#[test]
fn names_are_linkerds() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, Options { prefix: String::new(), ..options() });
    let client = "#/io.l5d.fs/default/path/http/1.1/GET/default";
    scope(&tree, &["rt", "http", "client", client]).counter("request_latency_ms").incr();
    scope(&tree, &["clnt", "zipkin-tracer", "service_creation"]).counter("x_ms").incr();
    scope(&tree, &["rt", "http", "server", "127.0.0.1/4140"]).counter("requests").incr();
    scope(&tree, &["rt", "http", "client", "$/inet/127.1/8888"]).counter("failures").incr();
    scope(&tree, &["rt", "http", "service", "/svc/é"]).counter("a.B").incr();
    assert_eq!(
        lines(&mut pusher),
        [
            "rt.http.client._.io_l5d_fs.default.path.http.1_1.GET.default.request_latency_ms:1|c",
            "rt.http.client._.inet.127_1.8888.failures:1|c",
            "rt.http.server.127_0_0_1.4140.requests:1|c",
            "rt.http.service.svc._.a_B:1|c",
            "clnt.zipkin_tracer.service_creation.x_ms:1|c",
        ]
    );
}

#[test]
fn a_counter_is_sent_once_though_it_stands_at_zero() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    tree.scope("foo").counter("bar");
    let refused = pusher.flush(true, &mut |_| false);
    assert_eq!(refused.refused, 1);
    assert_eq!(lines(&mut pusher), ["linkerd.foo.bar:0|c"], "the first that is taken");
    assert!(lines(&mut pusher).is_empty());
    tree.scope("foo").prune();
    assert!(lines(&mut pusher).is_empty());
    tree.scope("foo").counter("bar");
    assert_eq!(lines(&mut pusher), ["linkerd.foo.bar:0|c"], "another counter");
    assert!(lines(&mut pusher).is_empty());
}

#[test]
fn each_flavor_writes_tags_its_own_way() {
    let expected = [
        (
            Flavor::None,
            [
                "l5d.rt.http.client._.io_l5d_fs.a.service.svc._.requests:3|c",
                "l5d.rt.http.server.127_0_0_1.4140.pending:0|g",
                "l5d.rt.http.server.127_0_0_1.4140.pending:-2|g",
                "l5d.rt.http.server.127_0_0_1.4140.bytes:7|ms|@1.000000",
                "l5d.rt.http.server.127_0_0_1.4140.request_latency_ms:7|ms|@1.000000",
            ],
        ),
        (
            Flavor::Dogstatsd,
            [
                "l5d.rt.client.service.requests:3|c|#rt:http,client:#/io.l5d.fs/a,service:svc/é",
                "l5d.rt.server.pending:0|g|#rt:http,server:127.0.0.1/4140",
                "l5d.rt.server.pending:-2|g|#rt:http,server:127.0.0.1/4140",
                "l5d.rt.server.bytes:7|h|@1.000000|#rt:http,server:127.0.0.1/4140",
                "l5d.rt.server.request_latency_ms:7|ms|@1.000000|#rt:http,server:127.0.0.1/4140",
            ],
        ),
        (
            Flavor::Influx,
            [
                "l5d.rt.client.service.requests,rt=http,client=_/io.l5d.fs/a,service=svc/é:3|c",
                "l5d.rt.server.pending,rt=http,server=127.0.0.1/4140:0|g",
                "l5d.rt.server.pending,rt=http,server=127.0.0.1/4140:-2|g",
                "l5d.rt.server.bytes,rt=http,server=127.0.0.1/4140:7|h|@1.000000",
                "l5d.rt.server.request_latency_ms,rt=http,server=127.0.0.1/4140:7|ms|@1.000000",
            ],
        ),
        (
            Flavor::Graphite,
            [
                "l5d.rt.client.service.requests;rt=http;client=_-io.l5d.fs-a;service=svc-_:3|c",
                "l5d.rt.server.pending;rt=http;server=127.0.0.1-4140:0|g",
                "l5d.rt.server.pending;rt=http;server=127.0.0.1-4140:-2|g",
                "l5d.rt.server.bytes;rt=http;server=127.0.0.1-4140:7|ms|@1.000000",
                "l5d.rt.server.request_latency_ms;rt=http;server=127.0.0.1-4140:7|ms|@1.000000",
            ],
        ),
    ];
    for (flavor, expected) in expected {
        let tree = MetricsTree::new();
        let mut pusher = Pusher::new(&tree, Options { flavor, prefix: "l5d".into(), ..options() });
        let requests = scope(&tree, &["rt", "http", "client", "#/io.l5d.fs/a", "service", "svc/é"]).counter("requests");
        let server = scope(&tree, &["rt", "http", "server", "127.0.0.1/4140"]);
        let _gauge = server.gauge("pending", || -2.0);
        server.stat("bytes").add(7);
        server.stat("request_latency_ms").add(7);
        // Refused and said again by the next flush, and what a prune left behind: the same line.
        requests.add(1);
        pusher.flush(false, &mut |_| false);
        requests.add(2);
        server.stat("bytes").add(7);
        server.stat("request_latency_ms").add(7);
        let mut sent = lines(&mut pusher);
        assert_eq!(sent, expected, "{flavor:?}");
        requests.add(3);
        scope(&tree, &["rt", "http", "client"]).prune();
        sent = lines(&mut pusher);
        assert_eq!(sent[0], expected[1], "{flavor:?}");
        assert_eq!(sent[2], expected[0], "{flavor:?}");
    }
}

#[test]
fn no_tag_breaks_a_line_and_two_gauges_are_never_one() {
    for flavor in [Flavor::Dogstatsd, Flavor::Influx, Flavor::Graphite] {
        let tree = MetricsTree::new();
        let mut pusher = Pusher::new(&tree, Options { flavor, ..options() });
        let names = ["a,b", "a;b", "a=b", "a|b", "a:b", "a\nb", "a b", "a#b", "", "a_b", "a/b"];
        let services = scope(&tree, &["rt", "http", "service"]);
        let _gauges: Vec<_> = names.map(|name| services.scope(name).gauge("pending", || 1.0)).into();
        let sent = lines(&mut pusher);
        assert_eq!(sent.len(), names.len(), "{sent:?}");
        assert_eq!(sent.iter().collect::<HashSet<_>>().len(), names.len(), "{sent:?}");
        for line in sent {
            let (name, rest) = line.split_once(if flavor == Flavor::Dogstatsd { ":1|g" } else { ":" }).unwrap();
            let name_ok = |c: char| c.is_alphanumeric() || "._-/,;=".contains(c);
            assert!(name.chars().all(name_ok), "{line}");
            assert!(flavor == Flavor::Dogstatsd && rest.starts_with("|#rt:http") || rest == "1|g", "{line}");
        }
    }
}

#[test]
fn counters_are_sent_as_what_they_grew_by() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    let counter = tree.scope("foo").counter("bar");
    counter.add(3);
    assert_eq!(lines(&mut pusher), ["linkerd.foo.bar:3|c"]);
    assert!(lines(&mut pusher).is_empty());
    counter.incr();
    assert_eq!(lines(&mut pusher), ["linkerd.foo.bar:1|c"]);
}

#[test]
fn a_prefix_cannot_break_a_line() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, Options { prefix: "a:b|c\nd.e-f".into(), ..options() });
    tree.root().counter("x").incr();
    assert_eq!(lines(&mut pusher), ["a_b_c_d.e-f.x:1|c"]);
}

#[test]
fn gauges_have_six_decimals_at_most_and_are_set_when_negative() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    #[rustfmt::skip]
    let samples = [
        ("a", 1.0, "1"), ("b", 0.5, "0.5"), ("c", 1e7, "10000000"), ("d", 4_008_938.75, "4008938.75"),
        ("e", 2.0 / 3.0, "0.666667"), ("f", -0.0, "0"), ("g", -1e-9, "0"), ("h", 1.48832833e12, "1488328330000"),
        ("i", 0.000_000_5, "0"), ("j", 100.0, "100"),
    ];
    let _guards = samples.map(|(name, x, _)| tree.root().gauge(name, move || x));
    let expected = samples.map(|(name, _, text)| format!("linkerd.{name}:{text}|g"));
    assert!(flush(&mut pusher, false).0.is_empty());
    assert_eq!(lines(&mut pusher), expected);

    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    let numbers = [("nan", f64::NAN), ("inf", f64::INFINITY), ("neg", -4.25)];
    let _guards = numbers.map(|(name, x)| tree.root().gauge(name, move || x));
    assert_eq!(lines(&mut pusher), ["linkerd.neg:0|g", "linkerd.neg:-4.25|g"]);
}

#[test]
fn a_negative_gauge_is_never_split_from_its_zero() {
    let tree = MetricsTree::new();
    let _guards: Vec<_> = (0..200).map(|i| tree.root().gauge(&format!("gauge{i}"), || -1.5)).collect();
    for max_datagram in 38..120 {
        let mut pusher = Pusher::new(&tree, Options { max_datagram, ..options() });
        let (datagrams, flushed) = flush(&mut pusher, true);
        let lines: Vec<Vec<&str>> = datagrams.iter().map(|d| d.split('\n').collect()).collect();
        assert_eq!(flushed.lines, lines.iter().map(Vec::len).sum::<usize>() as u64);
        for pair in lines.iter().flat_map(|d| d.chunks(2)) {
            let [zero, value] = pair else { panic!("{pair:?}") };
            assert_eq!(zero.strip_suffix(":0|g").unwrap(), value.strip_suffix(":-1.5|g").unwrap());
        }
        assert_eq!(flushed.lines / 2 + flushed.oversize, 200, "{max_datagram}");
    }
}

#[test]
fn timings_say_the_rate_with_six_decimals_and_never_zero() {
    let tree = MetricsTree::new();
    let stat = tree.root().stat("ms");
    let all: &[(f64, &str)] = &[(1.0, "1.000000"), (7.0, "1.000000"), (0.5, "0.500000"), (0.01, "0.010000")];
    for &(sample_rate, shown) in all {
        let mut pusher = Pusher::new(&tree, Options { sample_rate, ..options() });
        stat.add(123);
        for _ in 0..999 {
            stat.add(120);
        }
        let lines = lines(&mut pusher);
        assert!(!lines.is_empty());
        for line in lines {
            assert!([120, 121, 123].iter().any(|v| line == format!("linkerd.ms:{v}|ms|@{shown}")), "{line}");
        }
    }
    for sample_rate in [0.0, -1.0, f64::NAN, 1e-9] {
        let mut pusher = Pusher::new(&tree, Options { sample_rate, ..options() });
        stat.add(1);
        assert!(lines(&mut pusher).is_empty());
    }
}

#[test]
fn timings_do_not_wait_for_a_tick_and_a_tick_takes_none_away() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    let stat = tree.root().stat("ms");
    stat.add(7);
    assert_eq!(lines(&mut pusher), ["linkerd.ms:7|ms|@1.000000"]);
    stat.add(8);
    Snapshotter::new(&tree).tick();
    stat.add(8);
    assert_eq!(lines(&mut pusher), ["linkerd.ms:8|ms|@1.000000"; 2]);
    assert!(lines(&mut pusher).is_empty());
}

#[test]
fn many_stats_with_few_samples_come_to_their_share_of_lines() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, Options { sample_rate: 0.01, ..options() });
    let stats: Vec<_> = (0..1000).map(|i| tree.root().stat(&format!("s{i}"))).collect();
    for _ in 0..10 {
        for stat in &stats {
            stat.add(1);
        }
    }
    let sent = lines(&mut pusher).len();
    assert!((95..=105).contains(&sent), "{sent}");
}

#[test]
fn datagrams_are_filled_and_no_line_is_split() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, Options { prefix: String::new(), ..options() });
    for (letter, len) in [("a", 700), ("b", 700), ("c", 50), ("d", 1500), ("e", 20)] {
        tree.root().counter(&letter.repeat(len - ":1|c".len())).incr();
    }
    let (datagrams, flushed) = flush(&mut pusher, true);
    assert_eq!(datagrams.iter().map(String::len).collect::<Vec<_>>(), [1401, 71]);
    assert_eq!(flushed, Flushed { lines: 4, datagrams: 2, refused: 0, oversize: 1 });
}

#[test]
fn what_a_pruned_counter_had_left_is_sent() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    let service = scope(&tree, &["rt", "http", "service", "svc/web"]);
    let counter = service.counter("requests");
    counter.add(2);
    assert_eq!(lines(&mut pusher), ["linkerd.rt.http.service.svc.web.requests:2|c"]);
    counter.add(3);
    service.prune();
    counter.add(100);
    assert_eq!(lines(&mut pusher), ["linkerd.rt.http.service.svc.web.requests:3|c"]);
    assert!(lines(&mut pusher).is_empty());

    // Pruned, made again, and counted: one line says both.
    service.counter("requests").add(4);
    service.prune();
    service.counter("requests").add(5);
    assert_eq!(lines(&mut pusher), ["linkerd.rt.http.service.svc.web.requests:9|c"]);
}

#[test]
fn what_was_not_taken_is_said_by_the_next_flush_and_not_twice_in_one() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, options());
    let counter = tree.root().counter("x");
    counter.add(5);
    let mut tries = 0;
    let flushed = pusher.flush(true, &mut |_| {
        tries += 1;
        false
    });
    assert_eq!((tries, flushed), (1, Flushed { refused: 1, ..Flushed::default() }));
    assert_eq!(lines(&mut pusher), ["linkerd.x:5|c"]);
    counter.add(1);
    pusher.flush(true, &mut |_| false);
    counter.add(2);
    assert_eq!(lines(&mut pusher), ["linkerd.x:3|c"]);
}

#[derive(Clone, Debug)]
enum Act {
    Count(usize, u64),
    Prune(usize),
    Flush(Vec<bool>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (0..6_usize, 0..50_u64).prop_map(|(at, n)| Act::Count(at, n)),
        1 => (0..3_usize).prop_map(Act::Prune),
        2 => prop::collection::vec(any::<bool>(), 0..4).prop_map(Act::Flush),
    ]
}

proptest! {
    /// Whatever is counted arrives once, if the network comes back: through prunes, refusals and small datagrams.
    #[test]
    fn everything_counted_is_sent_once(acts in prop::collection::vec(act(), 1..60)) {
        let tree = MetricsTree::new();
        let mut pusher = Pusher::new(&tree, Options { prefix: "p".into(), max_datagram: 40, ..options() });
        let mut counted = HashMap::<String, u64>::new();
        let mut sent = HashMap::<String, u64>::new();
        let mut take = |datagram: &[u8]| {
            for line in std::str::from_utf8(datagram).unwrap().split('\n') {
                let (name, n) = line.strip_suffix("|c").unwrap().split_once(':').unwrap();
                *sent.entry(name.to_owned()).or_default() += n.parse::<u64>().unwrap();
            }
            true
        };
        for act in acts {
            match act {
                Act::Count(at, n) => {
                    let (scope, name) = (format!("s{}", at / 2), format!("c{}", at % 2));
                    tree.scope(&scope).counter(&name).add(n);
                    *counted.entry(format!("p.{scope}.{name}")).or_default() += n;
                }
                Act::Prune(at) => tree.scope(&format!("s{at}")).prune(),
                Act::Flush(taken) => {
                    let mut taken = taken.into_iter();
                    pusher.flush(true, &mut |d| taken.next().unwrap_or(true) && take(d));
                }
            }
        }
        pusher.flush(true, &mut take);
        counted.retain(|_, n| *n > 0);
        sent.retain(|_, n| *n > 0);
        prop_assert_eq!(sent, counted);
    }

    #[test]
    fn the_number_of_timings_is_the_rates_share(rate in 0.001..1.0_f64, batches in prop::collection::vec(0..400_u64, 1..20)) {
        let tree = MetricsTree::new();
        let mut pusher = Pusher::new(&tree, Options { sample_rate: rate, ..options() });
        let stat = tree.root().stat("ms");
        let mut sent = 0;
        for &batch in &batches {
            for i in 0..batch {
                stat.add(i % 90);
            }
            sent += lines(&mut pusher).len();
        }
        let share = rate * batches.iter().sum::<u64>() as f64;
        prop_assert!((sent as f64 - share).abs() <= 1.0 + 1e-6, "{} of {}", sent, share);
    }
}
