//! Metrics whose names become one on the wire are never written as one series twice.

use std::collections::HashSet;

use l5d_telemetry::format::statsd::{Options, Pusher};
use l5d_telemetry::format::{influxdb, json, prometheus};
use l5d_telemetry::{GaugeGuard, MetricsTree, Page, Snapshotter};
use proptest::prelude::*;

fn text(mut page: Box<dyn Page>) -> String {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

fn prometheus(tree: &MetricsTree) -> String {
    text(prometheus::page(tree, &prometheus::Options::default()))
}

fn influx(tree: &MetricsTree) -> String {
    text(influxdb::page(tree, &influxdb::Options { host: "h".into(), ..influxdb::Options::default() }))
}

fn json(tree: &MetricsTree, pretty: bool) -> String {
    text(json::page(tree, &json::Options { pretty, ..json::Options::default() }).unwrap())
}

#[test]
fn counters_of_one_name_are_written_once_as_their_sum() {
    let tree = MetricsTree::new();
    tree.scope("s").counter("a.b").add(1);
    tree.scope("s").counter("a_b").add(2);
    tree.scope("s").counter("a-b").add(4);
    assert_eq!(prometheus(&tree), "s:a_b 7\n");
    assert_eq!(influx(&tree), "s,host=h a-b=4,a.b=1,a_b=2\n");
    assert_eq!(json(&tree, false), r#"{"s/a.b":1,"s/a_b":2,"s/a-b":4}"#);
    assert_eq!(tree.collisions(), 2);
}

#[test]
fn keys_that_join_to_one_json_name() {
    let tree = MetricsTree::new();
    tree.scope("a/b").counter("c").add(1);
    tree.scope("a").scope("b").counter("c").add(2);
    let _one = tree.scope("a/b").gauge("g", || 1.0);
    let _two = tree.scope("a").scope("b").gauge("g", || 2.0);
    assert_eq!(json(&tree, false), r#"{"a/b/c":3,"a/b/g":1.0,"a/b/g#2":2.0}"#);
    assert_eq!(json(&tree, true), "{\n  \"a/b/c\" : 3,\n  \"a/b/g\" : 1.0,\n  \"a/b/g#2\" : 2.0\n}");
    assert_eq!(prometheus(&tree), "a_b:c 1\na_b:g 1.0\na:b:c 2\na:b:g 2.0\n");
}

#[test]
fn a_scope_in_the_place_of_one_that_went_clashes_by_its_own_name() {
    let tree = MetricsTree::new();
    tree.scope("s/new").counter("c").add(1);
    tree.scope("s").scope("old").counter("c");
    tree.scope("s").prune();
    tree.scope("s").scope("new").counter("c").add(2);
    assert_eq!(json(&tree, false), r#"{"s/new/c":3}"#);
}

#[test]
fn the_second_gauge_says_where_it_comes_from() {
    let tree = MetricsTree::new();
    let mut pusher = Pusher::new(&tree, Options::default());
    let service = tree.scope("rt").scope("http").scope("service").scope("svc/x");
    let one = service.gauge("a.b", || 1.0);
    let _two = service.gauge("a b", || 2.0);
    assert_eq!(
        prometheus(&tree),
        concat!(
            "rt:service:a_b{rt=\"http\", service=\"svc/x\"} 1.0\n",
            "rt:service:a_b{rt=\"http\", service=\"svc/x\", path=\"rt/http/service/svc/x/a b\"} 2.0\n",
        )
    );
    let mut sent = String::new();
    pusher.flush(true, &mut |d| {
        sent += std::str::from_utf8(d).unwrap();
        true
    });
    assert_eq!(sent, "linkerd.rt.http.service.svc.x.a_b:1|g\nlinkerd.rt.http.service.svc.x.a_b-2:2|g");
    drop(one);
    assert_eq!(prometheus(&tree), "rt:service:a_b{rt=\"http\", service=\"svc/x\"} 2.0\n");
}

#[test]
fn a_stat_and_what_is_called_like_one_of_its_lines() {
    for stat_first in [true, false] {
        let tree = MetricsTree::new();
        let stat = || tree.root().stat("x").add(1);
        let counters = || ["x_count", "x_avg", "x_max", "x.count"].map(|name| tree.root().counter(name).add(5));
        if stat_first {
            stat();
            counters();
        } else {
            counters();
            stat();
        }
        Snapshotter::new(&tree).tick();
        for (page, end) in [(prometheus(&tree), ' '), (json(&tree, false).replace([',', '{'], "\n"), ':')] {
            let names: Vec<&str> = page.lines().filter_map(|l| l.rsplit_once(end)).map(|(n, _)| n).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{page}");
        }
        let influx = influx(&tree);
        let fields: Vec<&str> =
            influx.trim_end().split([' ', ',']).filter_map(|f| Some(f.split_once('=')?.0)).collect();
        assert_eq!(fields.iter().collect::<HashSet<_>>().len(), fields.len(), "{influx}");
        assert!(tree.collisions() > 0);
    }
}

#[test]
fn exceptions_have_two_ways_to_one_name() {
    let tree = MetricsTree::new();
    let server = tree.scope("rt").scope("http").scope("server").scope("s");
    server.scope("exn").scope("A").counter("x").add(1);
    server.scope("exn").counter("A").add(2);
    server.scope("failures").counter("A:B").add(3);
    server.scope("failures").scope("A").counter("B").add(4);
    let labels = "rt=\"http\", server=\"s\", exception=";
    assert_eq!(
        prometheus(&tree),
        format!(
            "rt:server:exceptions{{{labels}\"A\"}} 2\nrt:server:exceptions:x{{{labels}\"A\"}} 1\n\
             rt:server:failures{{{labels}\"A:B\"}} 7\n"
        )
    );
}

#[test]
fn names_without_a_clash_cost_nothing_and_say_nothing() {
    let tree = MetricsTree::new();
    for name in ["ab", "a_b", "requests", "request_s", "1XX", "1_XX"] {
        tree.root().counter(name);
        tree.scope("s").stat(name);
    }
    assert_eq!(tree.collisions(), 0);
}

fn path() -> impl Strategy<Value = Vec<String>> {
    let key =
        prop::sample::select(&["a", "b", "a.b", "a_b", "a:b", "a/b", "ab", "a_count", "exn", "failures", ":", "é"][..]);
    let prefix = prop::sample::select(vec![
        vec![],
        vec!["rt"],
        vec!["rt", "r"],
        vec!["rt", "r", "client", "c"],
        vec!["rt", "r", "server", "s", "failures"],
    ]);
    (prefix, prop::collection::vec(key, 1..4))
        .prop_map(|(prefix, keys)| prefix.into_iter().chain(keys).map(str::to_owned).collect())
}

#[derive(Clone, Debug)]
enum Act {
    Count(Vec<String>, u64),
    Sample(Vec<String>),
    Gauge(Vec<String>),
    DropGauge(usize),
    Prune(Vec<String>),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        5 => (path(), 1..9_u64).prop_map(|(p, n)| Act::Count(p, n)),
        2 => path().prop_map(Act::Sample),
        2 => path().prop_map(Act::Gauge),
        1 => (0..9_usize).prop_map(Act::DropGauge),
        1 => path().prop_map(Act::Prune),
    ]
}

/// Does all of it; the gauges are registered while the result lives.
fn act_all(tree: &MetricsTree, acts: Vec<Act>) -> Vec<GaugeGuard> {
    let scope = |keys: &[String]| keys.iter().fold(tree.root(), |s, k| s.scope(k));
    let parent = |path: &[String]| scope(&path[..path.len() - 1]);
    let mut guards = Vec::new();
    for act in acts {
        match act {
            Act::Count(path, n) => parent(&path).counter(&path[path.len() - 1]).add(n),
            Act::Sample(path) => parent(&path).stat(&path[path.len() - 1]).add(1),
            Act::Gauge(path) => guards.push(parent(&path).gauge(&path[path.len() - 1], || 0.25)),
            Act::DropGauge(at) if at < guards.len() => drop(guards.remove(at)),
            Act::DropGauge(_) => {}
            Act::Prune(path) => scope(&path).prune(),
        }
    }
    Snapshotter::new(tree).tick();
    guards
}

/// What is on a page: series and value, in the order of the page.
type Series = Vec<(String, String)>;

fn faces(tree: &MetricsTree) -> [Series; 3] {
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let page = prometheus(tree);
    let prometheus = page.lines().map(|l| l.rsplit_once(' ').unwrap()).map(|(a, b)| pair(a, b)).collect();
    let page = json(tree, false);
    let entries = page[1..page.len() - 1].split(",\"").filter(|e| !e.is_empty());
    let json = entries.map(|e| e.rsplit_once(':').unwrap()).map(|(a, b)| pair(a.trim_matches('"'), b)).collect();
    let page = influx(tree);
    let fields = page.lines().flat_map(|l| {
        let (head, fields) = l.split_once(' ').unwrap();
        fields
            .split(',')
            .map(move |f| f.split_once('=').unwrap())
            .map(move |(k, v)| (format!("{head} {k}"), v.to_owned()))
    });
    [prometheus, json, fields.collect()]
}

proptest! {
    #[test]
    fn no_face_writes_a_series_twice(acts in prop::collection::vec(act(), 1..50)) {
        let tree = MetricsTree::new();
        let _gauges = act_all(&tree, acts);
        for face in faces(&tree) {
            let unique: HashSet<&str> = face.iter().map(|(name, _)| name.as_str()).collect();
            prop_assert_eq!(unique.len(), face.len(), "{:?}", face);
        }
    }

    #[test]
    fn every_face_has_all_that_was_counted(acts in prop::collection::vec(act(), 1..50)) {
        let tree = MetricsTree::new();
        let mut total = 0;
        let acts: Vec<Act> = acts.into_iter().filter(|a| matches!(a, Act::Count(..))).collect();
        for act in &acts {
            if let Act::Count(_, n) = act {
                total += n;
            }
        }
        act_all(&tree, acts);
        for face in faces(&tree) {
            prop_assert_eq!(face.iter().map(|(_, n)| n.parse::<u64>().unwrap()).sum::<u64>(), total, "{:?}", face);
        }
    }

    /// What is left after everything was taken away is a tree without a trace of it.
    #[test]
    fn clashes_end_with_what_clashed(acts in prop::collection::vec(act(), 1..50)) {
        let tree = MetricsTree::new();
        drop(act_all(&tree, acts));
        tree.root().prune();
        let collisions = tree.collisions();
        tree.scope("a").counter("b").add(3);
        prop_assert_eq!(prometheus(&tree), "a:b 3\n");
        prop_assert_eq!(json(&tree, false), "{\"a/b\":3}");
        prop_assert_eq!(tree.collisions(), collisions);
    }
}
