//! The history as its readers see it: what was counted in which second, what has room, what ends with its scope.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use l5d_telemetry::history::{History, HistoryLimits, List, ScopeKind, Series, Sort};
use l5d_telemetry::{Counter, Level, MetricsTree, Scope, Snapshotter, Stat};
use proptest::prelude::*;
use serde_json::Value;

/// A whole ten of seconds, long after 1970.
const START: u64 = 1_700_000_000;

/// What a stack has of the metrics that are kept.
struct Stack {
    scope: Scope,
    requests: Counter,
    success: Counter,
    failures: Counter,
    pending: Level,
    latency: Stat,
}

impl Stack {
    fn new(scope: Scope) -> Self {
        Self {
            requests: scope.counter("requests"),
            success: scope.counter("success"),
            failures: scope.counter("failures"),
            pending: scope.level("pending"),
            latency: scope.stat("request_latency_ms"),
            scope,
        }
    }

    fn answer(&self, times: u64, ms: u64) {
        for _ in 0..times {
            self.requests.incr();
            self.success.incr();
            self.latency.add(ms);
        }
    }

    fn fail(&self, times: u64) {
        self.requests.add(times);
        self.failures.add(times);
    }
}

fn service(tree: &MetricsTree, name: &str) -> Stack {
    Stack::new(tree.scope("rt").scope("http").scope("service").scope(name))
}

fn limits(memory: usize) -> HistoryLimits {
    HistoryLimits { memory, ..HistoryLimits::default() }
}

fn series(history: &History, scope: &str, metric: &str, since: i64, step: Option<u64>) -> Vec<Option<u64>> {
    let asked = Series { scopes: vec![scope.to_owned()], metrics: vec![metric.to_owned()], since: Some(since), step };
    let answer: Value = serde_json::from_str(&history.series_json(&asked).unwrap()).unwrap();
    let values = answer["scopes"][0]["metrics"][metric].as_array().unwrap_or_else(|| panic!("{answer}"));
    values.iter().map(Value::as_u64).collect()
}

fn rows(history: &History, list: &List) -> Vec<Value> {
    let answer: Value = serde_json::from_str(&history.list_json(list)).unwrap();
    answer["rows"].as_array().unwrap().clone()
}

fn services(history: &History) -> Vec<Value> {
    rows(history, &List { kinds: vec![ScopeKind::Service], limit: 100, ..List::default() })
}

const WEB: &str = "rt/http/service/svc/web";

#[test]
fn each_second_has_what_came_in_it() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    for (second, answers) in [3, 0, 5].into_iter().enumerate() {
        web.answer(answers, 20);
        history.sample(START + second as u64);
    }
    assert_eq!(series(&history, WEB, "requests", -3, None), [Some(3), Some(0), Some(5)]);
    assert_eq!(series(&history, WEB, "failures", -3, None), [Some(0), Some(0), Some(0)]);
    assert_eq!(series(&history, WEB, "p99", -3, None), [Some(20), None, Some(20)]);
    assert_eq!(series(&history, WEB, "requests", -5, None)[..2], [None, None], "before there was anything");
    assert_eq!(services(&history)[0]["requests"], 8);
}

#[test]
fn latencies_are_of_their_second_and_not_of_the_faces_window() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    let snapshots = Snapshotter::new(&tree);
    for (second, ms) in [10, 10, 40, 40, 0].into_iter().enumerate() {
        web.answer(u64::from(ms > 0) * 4, ms);
        if second == 1 {
            snapshots.tick();
        }
        history.sample(START + 1 + second as u64);
    }
    assert_eq!(series(&history, WEB, "p50", -5, None), [Some(10), Some(10), Some(40), Some(40), None]);
    for second in 6..=10 {
        history.sample(START + second);
    }
    // The tens have the quantiles of all that came in them: 8 of 10 ms, 8 of 40.
    assert_eq!(series(&history, WEB, "p50", -10, Some(10)), [Some(10)]);
    assert_eq!(series(&history, WEB, "max", -10, Some(10)), [Some(40)]);
    assert_eq!(series(&history, WEB, "requests", -10, Some(10)), [Some(16)]);
}

#[test]
fn what_came_while_the_sampler_was_held_up_is_spread_and_adds_up() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    history.sample(START + 1);
    web.answer(10, 1);
    history.sample(START + 4);
    history.sample(START + 4);
    history.sample(START + 2);
    let values = series(&history, WEB, "requests", -4, None);
    assert_eq!(values.iter().flatten().sum::<u64>(), 10, "{values:?}");
    assert!(values[1..].iter().all(|v| matches!(v, Some(3 | 4))), "{values:?}");
}

#[test]
fn a_count_and_its_outcome_that_are_seen_in_two_seconds_are_both_seen() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    web.requests.incr();
    history.sample(START + 1);
    web.success.incr();
    web.latency.add(7);
    history.sample(START + 2);
    history.sample(START + 3);
    assert_eq!(series(&history, WEB, "success", -3, None), [Some(0), Some(1), Some(0)]);
    assert_eq!(series(&history, WEB, "p99", -3, None), [None, Some(7), None]);
}

#[test]
fn a_router_is_the_sum_of_its_parts() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let servers = ["127.0.0.1/1", "127.0.0.1/2"]
        .map(|name| Stack::new(tree.scope("rt").scope("http").scope("server").scope(name)));
    let web = service(&tree, "svc/web");
    let retries = web.scope.scope("retries").counter("total");
    servers[0].answer(3, 10);
    servers[1].answer(1, 300);
    servers[1].pending.add(4);
    retries.add(2);
    history.sample(START + 1);
    assert_eq!(series(&history, "rt/http", "requests", -1, None), [Some(4)]);
    assert_eq!(series(&history, "rt/http", "retries", -1, None), [Some(2)]);
    assert_eq!(series(&history, "rt/http", "pending", -1, None), [Some(4)]);
    assert_eq!(series(&history, "rt/http", "p50", -1, None), [Some(10)]);
    assert!(series(&history, "rt/http", "max", -1, None)[0].unwrap().abs_diff(300) < 3);
}

#[test]
fn gauges_are_asked_and_missing_metrics_are_found_when_they_come() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let client = Stack::new(tree.scope("rt").scope("http").scope("client").scope("#/io.l5d.fs/web"));
    history.sample(START + 1);
    let balancer = client.scope.scope("loadbalancer");
    let _guards = [balancer.gauge("size", || 3.0), balancer.gauge("available", || 2.0)];
    let pair = Stack::new(client.scope.scope("service").scope("svc/web"));
    client.answer(6, 1);
    pair.answer(6, 1);
    for second in 2..=12 {
        history.sample(START + second);
    }
    let path = "rt/http/client/#/io.l5d.fs/web";
    assert_eq!(series(&history, path, "endpoints", -1, None), [Some(3)]);
    assert_eq!(series(&history, path, "available", -1, None), [Some(2)]);
    let pairs = List { kinds: vec![ScopeKind::Pair], service: Some("svc/web".to_owned()), limit: 9, ..List::default() };
    let found = rows(&history, &pairs);
    assert_eq!((found.len(), &found[0]["requests"], &found[0]["client"]), (1, &6.into(), &"#/io.l5d.fs/web".into()));
    let keys = history.keys(found[0]["scope"].as_str().unwrap()).unwrap();
    assert_eq!(
        keys.iter().map(|k| &**k).collect::<Vec<_>>(),
        ["rt", "http", "client", "#/io.l5d.fs/web", "service", "svc/web"]
    );
}

#[test]
fn what_was_asleep_is_seen_in_the_second_that_it_wakes() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let router = tree.scope("rt").scope("http");
    let server = Stack::new(router.scope("server").scope("127.0.0.1/1"));
    let client = Stack::new(router.scope("client").scope("c"));
    let pair = Stack::new(client.scope.scope("service").scope("svc/web"));
    let all = [server, service(&tree, "svc/web"), client, pair];
    for second in 1..=20 {
        history.sample(START + second);
    }
    all.iter().for_each(|stack| stack.answer(3, 8));
    history.sample(START + 21);
    // Counted last, as outcomes may be.
    all.iter().for_each(|stack| stack.fail(1));
    history.sample(START + 22);
    for scope in ["rt/http", "rt/http/server/127.0.0.1/1", WEB, "rt/http/client/c", "rt/http/client/c/service/svc/web"]
    {
        assert_eq!(series(&history, scope, "requests", -3, None), [Some(0), Some(3), Some(1)], "{scope}");
        assert_eq!(series(&history, scope, "failures", -3, None), [Some(0), Some(0), Some(1)], "{scope}");
        assert_eq!(series(&history, scope, "p50", -3, None), [None, Some(8), None], "{scope}");
    }
    all[0].pending.incr();
    all[1].pending.incr();
    history.sample(START + 23);
    assert_eq!(series(&history, WEB, "pending", -1, None), [Some(1)]);
}

/// Seconds of rest are written late, and read as if they had been written.
#[test]
fn seconds_of_rest_are_zeros_whenever_they_are_read() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, HistoryLimits::default());
    let web = service(&tree, "svc/web");
    let mut expected = Vec::new();
    for second in 1..=35 {
        let came = if [2, 3, 17, 33].contains(&second) { second } else { 0 };
        web.answer(came, 5);
        history.sample(START + second);
        expected.push(Some(came));
        assert_eq!(series(&history, WEB, "requests", -(second as i64), Some(1)), expected, "{second}");
        let pending = series(&history, WEB, "pending", -(second as i64), Some(1));
        assert!(pending.iter().all(|n| *n == Some(0)), "{pending:?}");
        let p50 = series(&history, WEB, "p50", -1, Some(1));
        assert_eq!(p50, [(came > 0).then_some(5)], "{second}");
    }
    let tens = series(&history, WEB, "requests", -30, Some(10));
    assert_eq!(tens, [Some(5), Some(17), Some(0)]);
}

#[test]
fn what_a_gauge_said_before_is_true_of_the_seconds_before() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    let budget = Arc::new(AtomicU64::new(10));
    let read = Arc::clone(&budget);
    let _guard = web.scope.scope("retries").gauge("budget", move || read.load(Ordering::Relaxed) as f64);
    history.sample(START + 1);
    web.answer(1, 5);
    let mut told = Vec::new();
    for second in 2..=9 {
        if second == 4 {
            budget.store(3, Ordering::Relaxed);
        }
        history.sample(START + second);
        let values = series(&history, WEB, "budget", -(second as i64 - 1), Some(1));
        assert_eq!(values[..told.len()], told, "what was told stays as it was");
        told = values;
    }
    assert_eq!((told[0], told[7]), (Some(10), Some(3)), "{told:?}");
    assert!(told.is_sorted_by(|a, b| a >= b), "{told:?}");
}

/// What three services did between two samples.
type Step = (u64, [u64; 3], [u64; 3], bool);

proptest! {
    /// Whoever is at rest or awakes, however late a sample is and whenever somebody looks: the rings, the tens and the
    /// lists have what a plain list of seconds has.
    #[test]
    fn the_history_is_what_a_list_of_all_seconds_is(
        steps in prop::collection::vec(
            (
                prop_oneof![9 => Just(1_u64), 1 => 2..=12_u64],
                prop::array::uniform3(prop_oneof![3 => Just(0_u64), 1 => 1..=5_u64]),
                prop::array::uniform3(prop_oneof![9 => Just(0_u64), 1 => 1..=2_u64]),
                any::<bool>(),
            ),
            1..50,
        ),
    ) {
        same_as_a_list(&steps);
    }
}

fn same_as_a_list(steps: &[Step]) {
    let tree = MetricsTree::new();
    let history = History::new(&tree, HistoryLimits::default());
    let names = ["a", "b", "c"];
    let stacks = names.map(|name| service(&tree, name));
    history.sample(START);
    let mut now = START;
    // Requests and failures of each second, from the first after the start.
    let mut seconds = [const { Vec::<[u64; 2]>::new() }; 3];
    for (passed, answered, failed, look) in steps {
        now += passed;
        for (at, stack) in stacks.iter().enumerate() {
            stack.answer(answered[at], 10 + at as u64);
            stack.fail(failed[at]);
            let came = [answered[at] + failed[at], failed[at]];
            let part = |n: u64, back: u64| n / passed + u64::from(back < n % passed);
            seconds[at].extend((0..*passed).rev().map(|back| came.map(|n| part(n, back))));
        }
        history.sample(now);
        let listed = if *look { services(&history) } else { Vec::new() };
        for row in listed {
            let at = names.iter().position(|name| row["name"] == *name).unwrap();
            let last = |column: usize| seconds[at].iter().rev().take(10).map(|second| second[column]).sum::<u64>();
            assert_eq!((&row["requests_10s"], &row["bad_10s"]), (&last(0).into(), &last(1).into()), "{now} {steps:?}");
        }
    }
    for (at, name) in names.iter().enumerate() {
        let scope = format!("rt/http/service/{name}");
        let all = -(seconds[at].len() as i64);
        for (column, metric) in ["requests", "failures"].into_iter().enumerate() {
            let expected: Vec<_> = seconds[at].iter().map(|second| Some(second[column])).collect();
            assert_eq!(series(&history, &scope, metric, all, Some(1)), expected, "{metric} {steps:?}");
            let tens: Vec<_> = expected.chunks_exact(10).map(|ten| ten.iter().copied().sum::<Option<u64>>()).collect();
            if !tens.is_empty() {
                let told = series(&history, &scope, metric, -(tens.len() as i64 * 10), Some(10));
                assert_eq!(told, tens, "{metric} {steps:?}");
            }
        }
        // A latency is told in each of the seconds that a sample stands for.
        let mut answered = Vec::new();
        for (passed, came, ..) in steps {
            answered.extend((0..*passed).map(|_| (came[at] > 0).then_some(10 + at as u64)));
        }
        assert_eq!(series(&history, &scope, "p50", all, Some(1)), answered, "{steps:?}");
    }
}

#[test]
fn a_history_ends_with_its_scope_and_begins_anew() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let web = service(&tree, "svc/web");
    web.answer(5, 1);
    history.sample(START + 1);
    let bytes = history.status().bytes;
    assert!(bytes > 0);
    web.scope.prune();
    for second in 2..=12 {
        history.sample(START + second);
    }
    assert!(services(&history).is_empty());
    assert!(history.status().bytes < bytes);
    let again = service(&tree, "svc/web");
    again.answer(2, 1);
    history.sample(START + 13);
    assert_eq!(services(&history)[0]["requests"], 2);
    assert_eq!(series(&history, WEB, "requests", -2, None), [None, Some(2)]);
}

#[test]
fn a_client_that_ends_takes_the_services_beneath_it_along() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let client = Stack::new(tree.scope("rt").scope("http").scope("client").scope("c"));
    Stack::new(client.scope.scope("service").scope("svc/a")).answer(1, 1);
    history.sample(START + 1);
    let before = history.status();
    client.scope.prune();
    for second in 2..=12 {
        history.sample(START + second);
    }
    assert!(
        rows(&history, &List { kinds: vec![ScopeKind::Pair, ScopeKind::Client], limit: 9, ..List::default() })
            .is_empty()
    );
    assert!(
        history.status().bytes < before.bytes && history.status().kept == before.kept - 2,
        "{:?}",
        history.status()
    );
}

#[test]
fn memory_has_a_limit_and_traffic_decides() {
    let tree = MetricsTree::new();
    // Room for the router, and some five services.
    let limit = 90_000;
    let history = History::new(&tree, limits(limit));
    let all: Vec<Stack> = (0..20).map(|i| service(&tree, &format!("svc/{i:02}"))).collect();
    for second in 1..=60 {
        for (i, stack) in all.iter().enumerate().skip(17) {
            stack.answer(i as u64, 5);
        }
        history.sample(START + second);
        assert!(history.status().bytes <= limit, "{:?}", history.status());
    }
    let status = history.status();
    assert!(status.kept >= 4 && status.left_out >= 12 && status.kept + status.left_out == 21, "{status:?}");
    let kept: Vec<Value> = services(&history).into_iter().filter(|row| row["kept"] == true).collect();
    for busy in ["svc/17", "svc/18", "svc/19"] {
        assert!(kept.iter().any(|row| row["name"] == busy), "{busy} is not among {kept:?}");
    }
    // Nobody lost a count for being left out.
    assert_eq!(services(&history)[0]["requests"], 60 * 19);
}

/// Blocks for latencies come with requests, and may not take more than the limit in any second.
#[test]
fn latencies_never_take_more_than_the_limit() {
    let tree = MetricsTree::new();
    let limit = 1 << 20;
    let history = History::new(&tree, limits(limit));
    let all: Vec<Stack> = (0..100).map(|i| service(&tree, &format!("svc/{i:02}"))).collect();
    history.sample(START);
    let before = history.status();
    assert!(before.left_out > 0, "there is no room for all: {before:?}");
    for second in 1..=12 {
        for stack in &all {
            stack.answer(1, 1 << second);
        }
        history.sample(START + second);
        let status = history.status();
        assert!(status.bytes <= limit && status.kept + status.left_out == 101, "{status:?}");
    }
    assert!(history.status().kept < before.kept, "{:?}", history.status());
}

#[test]
fn without_memory_the_lists_still_work() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(0));
    let web = service(&tree, "svc/web");
    web.answer(4, 30);
    web.fail(1);
    Snapshotter::new(&tree).tick();
    for second in 1..=10 {
        history.sample(START + second);
    }
    let row = &services(&history)[0];
    assert_eq!((&row["requests"], &row["failures"], &row["kept"]), (&5.into(), &1.into(), &false.into()));
    assert_eq!(row["p50"], 30);
    assert_eq!(history.status().bytes, 0);
    assert!(series(&history, WEB, "requests", -5, None).is_empty());
}

#[test]
fn what_fails_comes_first_then_what_is_stuck_then_what_is_busy() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let [busy, quiet, stuck, failing] = ["busy", "quiet", "stuck", "failing"].map(|name| service(&tree, name));
    stuck.pending.incr();
    for second in 1..=5 {
        busy.answer(100, 1);
        quiet.answer(1, 1);
        failing.answer(10, 1);
        failing.fail(u64::from(second > 2));
        history.sample(START + second);
    }
    let found = services(&history);
    let names: Vec<&str> = found.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["failing", "stuck", "busy", "quiet"]);
    assert_eq!((&found[0]["failing_since"], &found[0]["bad_10s"]), (&(START + 3).into(), &3.into()));
    assert_eq!(found[1]["stuck_since"], START + 1);
    let found = |list: List| -> Vec<String> {
        let list = List { kinds: vec![ScopeKind::Service], ..list };
        rows(&history, &list).iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(found(List { sort: Sort::Rate, limit: 2, ..List::default() }), ["busy", "failing"]);
    assert_eq!(found(List { sort: Sort::Name, limit: 2, offset: 1, ..List::default() }), ["failing", "quiet"]);
    assert_eq!(found(List { search: Some("U".into()), limit: 9, ..List::default() }), ["stuck", "busy", "quiet"]);
    for second in 6..=70 {
        history.sample(START + second);
    }
    let failing = List { kinds: vec![ScopeKind::Service], name: Some("failing".into()), limit: 1, ..List::default() };
    assert_eq!(rows(&history, &failing)[0]["failing_since"], START + 3, "still in the last minute");
    for second in 71..=90 {
        history.sample(START + second);
    }
    assert!(rows(&history, &failing)[0].get("failing_since").is_none(), "forgiven");
}

#[test]
fn hostile_names_are_text() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    let name = "svc/<script>\"\\\n\u{1}é";
    service(&tree, name).answer(1, 1);
    history.sample(START + 1);
    let row = services(&history).remove(0);
    assert_eq!(row["name"], name);
    let scope = row["scope"].as_str().unwrap();
    assert_eq!(series(&history, scope, "requests", -1, None), [Some(1)]);
}

#[test]
fn wrong_questions_are_told_what_there_is() {
    let tree = MetricsTree::new();
    let history = History::new(&tree, limits(1 << 20));
    service(&tree, "svc/web").answer(1, 1);
    history.sample(START + 1);
    let ask = |series: Series| history.series_json(&series).map_err(|e| e.to_string());
    let of = |metrics: &[&str]| Series {
        scopes: vec![WEB.to_owned()],
        metrics: metrics.iter().map(|&m| m.to_owned()).collect(),
        ..Series::default()
    };
    assert!(
        ask(of(&["p98"])).unwrap_err().starts_with("metric: unknown metric \"p98\"; known of a service: requests, ")
    );
    assert!(ask(of(&["status_5xx"])).is_ok(), "of a client, but known");
    let error = ask(Series { step: Some(7), ..of(&[]) }).unwrap_err();
    assert_eq!(error, "step: there is no step of 7; known: 1, 10");
    let missing = ask(Series { scopes: vec!["rt/none".into()], ..Series::default() }).unwrap();
    assert!(missing.contains("\"found\":false"), "{missing}");
    assert!(Sort::parse("size").unwrap_err().to_string().contains("known: attention, name"));
    let about: Value = serde_json::from_str(&history.about_json()).unwrap();
    assert_eq!(about["steps"][1]["span"], 3600);
    assert_eq!(about["metrics"]["client"][0]["name"], "requests");
}

#[test]
fn the_rings_forget_after_their_spans() {
    let tree = MetricsTree::new();
    let spans = HistoryLimits { fine: Duration::from_secs(20), coarse: Duration::from_secs(60), memory: 1 << 20 };
    let history = History::new(&tree, spans);
    let web = service(&tree, "svc/web");
    for second in 1..=100 {
        web.answer(1, 1);
        history.sample(START + second);
    }
    assert_eq!(series(&history, WEB, "requests", -1000, Some(1)), [Some(1); 20]);
    assert_eq!(series(&history, WEB, "requests", -1000, None), [Some(10); 6]);
}
