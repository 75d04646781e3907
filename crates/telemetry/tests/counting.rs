//! Handles, workers, prunes and ticks: what is counted is there once, whoever counted it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use l5d_telemetry::format::{Scrapes, prometheus};
use l5d_telemetry::{Census, MetricRef, MetricsTree, Snapshotter, Summary, Taken, Visitor};

fn page(tree: &MetricsTree) -> String {
    let mut out = Vec::new();
    let mut page = prometheus::page(tree, &prometheus::Options::default());
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

/// What a visitor sees, flat.
#[derive(Default)]
struct Flat {
    path: Vec<String>,
    counters: Vec<(String, u64)>,
    gauges: Vec<(String, f64)>,
    stats: Vec<(String, Option<Summary>, u64, u64)>,
}

impl Visitor for Flat {
    fn enter(&mut self, key: &str) {
        self.path.push(key.into());
    }

    fn metric(&mut self, metric: MetricRef<'_>) {
        let name = self.path.join("|");
        match metric {
            MetricRef::Counter(n) => self.counters.push((name, n)),
            MetricRef::Gauge(x) => self.gauges.push((name, x)),
            MetricRef::Stat(s) => {
                assert_eq!(s.buckets().iter().map(|b| b.count).sum::<u64>(), s.count());
                self.stats.push((name, s.summary(), s.count(), s.sum()));
            }
        }
    }

    fn leave(&mut self) {
        self.path.pop().unwrap();
    }
}

fn seen(tree: &MetricsTree) -> Flat {
    let mut flat = Flat::default();
    tree.visit(&mut flat);
    assert!(flat.path.is_empty());
    flat
}

#[test]
fn asking_again_gives_the_same_metric() {
    let tree = MetricsTree::new();
    tree.scope("a/b").counter("c").add(2);
    tree.scope("a/b").counter("c").add(3);
    assert_eq!(tree.find(&["a/b"]).unwrap().counter("c").value(), 5);
    assert!(tree.find(&["a", "b"]).is_none());
    let level = tree.root().level("l");
    tree.root().level("l").decr();
    assert_eq!(level.value(), -1);
    assert_eq!(tree.collisions(), 0);
}

#[test]
fn another_kind_at_a_taken_name_works_and_is_not_exported() {
    let tree = MetricsTree::new();
    let counter = tree.root().counter("x");
    let stat = tree.root().stat("x");
    stat.add(1);
    let level = tree.root().level("x");
    level.incr();
    let gauge = tree.root().gauge("x", || 7.0);
    counter.add(5);
    Snapshotter::new(&tree).tick();
    assert_eq!((page(&tree).as_str(), level.value(), tree.collisions()), ("x 5\n", 1, 3));
    drop((gauge, level, stat));
    assert_eq!(page(&tree), "x 5\n");
}

#[test]
fn another_kind_at_a_taken_name_is_an_error_to_those_who_ask() {
    let tree = MetricsTree::new();
    let scope = tree.scope("rt").scope("svc/web");
    let (counter, level) = (scope.try_counter("x").unwrap(), scope.try_level("l").unwrap());
    scope.try_counter("x").unwrap().incr();
    let _gauge = scope.try_gauge("l", || 2.0).unwrap();
    level.incr();
    let said = |taken: Result<(), Taken>| taken.unwrap_err().to_string();
    let of = |is, name, asked| {
        format!("\"rt/svc/web/{name}\" is a {is} already and can't be a {asked} too: choose another name")
    };
    assert_eq!(said(scope.try_stat("x").map(drop)), of("counter", "x", "stat"));
    assert_eq!(said(scope.try_gauge("x", || 1.0).map(drop)), of("counter", "x", "gauge"));
    assert_eq!(said(scope.try_level("x").map(drop)), of("counter", "x", "gauge"));
    assert_eq!(said(scope.try_counter("l").map(drop)), of("gauge", "l", "counter"));
    assert_eq!(scope.try_stat("l").unwrap_err().path(), "rt/svc/web/l");
    let stat = scope.try_stat("s").unwrap();
    assert_eq!(said(scope.try_counter("s").map(drop)), of("stat", "s", "counter"));
    // They were told: that is no collision.
    assert_eq!((counter.value(), tree.collisions()), (1, 0));
    assert_eq!(page(&tree), "rt:x{rt=\"svc/web\"} 1\nrt:l{rt=\"svc/web\"} 3.0\n");
    drop(stat);
}

#[test]
fn a_level_is_exported_while_a_handle_lives_and_starts_anew() {
    let tree = MetricsTree::new();
    let one = tree.root().level("open");
    let two = one.clone();
    one.add(4);
    drop(one);
    two.decr();
    assert_eq!(page(&tree), "open 3.0\n");
    drop(two);
    assert_eq!(page(&tree), "");
    let again = tree.root().level("open");
    assert_eq!((page(&tree).as_str(), again.value()), ("open 0.0\n", 0));
}

#[test]
fn what_is_pruned_is_in_no_face_and_its_handles_write_for_nobody() {
    let tree = MetricsTree::new();
    let parent = tree.scope("client");
    let client = parent.scope("a");
    let (counter, stat, level) = (client.counter("c"), client.stat("s"), client.level("l"));
    let gauge = client.gauge("g", || 1.0);
    counter.incr();
    stat.add(1);
    Snapshotter::new(&tree).tick();
    assert_eq!(page(&tree).lines().count(), 1 + 11 + 2);
    parent.prune();
    counter.incr();
    stat.add(1);
    level.incr();
    Snapshotter::new(&tree).tick();
    assert_eq!(page(&tree), "");
    // A scope that was pruned is no place any more; its parent's is.
    client.counter("c").add(9);
    client.scope("deeper").stat("x").add(1);
    assert_eq!(page(&tree), "");
    assert!(tree.find(&["client"]).is_some() && tree.find(&["client", "a"]).is_none());
    let anew = parent.scope("a").counter("c");
    assert_eq!((page(&tree).as_str(), anew.value(), counter.value()), ("client:a:c 0\n", 0, 2));
    let level_anew = parent.scope("a").level("l");
    let gauge_anew = parent.scope("a").gauge("g", || 2.0);
    drop((gauge, level));
    assert_eq!(page(&tree), "client:a:c 0\nclient:a:l 0.0\nclient:a:g 2.0\n");
    drop((level_anew, gauge_anew));
}

#[test]
fn cells_that_are_used_again_start_at_zero_while_old_handles_live() {
    let tree = MetricsTree::new();
    let _worker = tree.enter_worker();
    let scope = tree.scope("s");
    let mut old = Vec::new();
    for round in 0..if cfg!(miri) { 40 } else { 400_u64 } {
        let (counter, stat) = (scope.counter("c"), scope.stat("t"));
        counter.add(round + 1);
        stat.add(round % 100);
        Snapshotter::new(&tree).tick();
        let seen = seen(&tree);
        assert_eq!(seen.counters, [("s|c".into(), round + 1)]);
        assert_eq!((seen.stats[0].2, seen.stats[0].3), (1, round % 100));
        if round % 7 == 0 {
            old.push((round, counter, stat));
        }
        scope.prune();
    }
    for (round, counter, stat) in old {
        counter.incr();
        stat.add(1);
        assert_eq!(counter.value(), round + 2);
    }
}

#[test]
fn a_gauge_may_use_the_tree() {
    let tree = MetricsTree::new();
    let inner = tree.clone();
    let counter = tree.root().counter("c");
    let held = counter.clone();
    let guard = tree.root().gauge("g", move || {
        inner.root().counter("made").incr();
        inner.scope("x").prune();
        held.value() as f64
    });
    counter.add(3);
    assert_eq!(page(&tree), "c 3\ng 3.0\nmade 1\n");
    drop(counter);
    drop(guard);
    assert_eq!(page(&tree), "c 3\nmade 1\n");
}

#[test]
fn handles_outlive_their_tree() {
    let tree = MetricsTree::new();
    let (counter, stat, level) = (tree.root().counter("c"), tree.root().stat("s"), tree.root().level("l"));
    let gauge = tree.root().gauge("g", || 1.0);
    let scope = tree.scope("s");
    drop(tree);
    drop(scope);
    counter.add(2);
    stat.add(1);
    level.add(-2);
    assert_eq!((counter.value(), level.value()), (2, -2));
    drop((counter, stat, level, gauge));
}

#[test]
fn a_thread_may_work_for_two_trees_and_enter_one_twice() {
    let (one, two) = (MetricsTree::new(), MetricsTree::new());
    let (a, b) = (one.root().counter("x"), two.root().counter("x"));
    let guard_one = one.enter_worker();
    let guard_two = two.enter_worker();
    let again = one.enter_worker();
    a.incr();
    b.add(10);
    drop(again);
    a.incr();
    drop(guard_one);
    a.incr();
    b.add(10);
    drop(guard_two);
    b.add(10);
    assert_eq!((a.value(), b.value()), (3, 30));
}

#[test]
fn what_finished_workers_counted_stays() {
    let tree = MetricsTree::new();
    let snapshotter = Snapshotter::new(&tree);
    let (counter, level, stat) = (tree.root().counter("c"), tree.root().level("l"), tree.root().stat("s"));
    for thread in 1..=3 {
        let (tree, counter, level, stat) = (tree.clone(), counter.clone(), level.clone(), stat.clone());
        let work = move || {
            let _worker = tree.enter_worker();
            counter.add(10);
            level.add(if thread % 2 == 0 { -7 } else { 5 });
            stat.add(thread);
        };
        std::thread::spawn(work).join().unwrap();
        if thread == 2 {
            snapshotter.tick();
        }
    }
    assert_eq!((counter.value(), level.value()), (30, 3));
    snapshotter.tick();
    let seen = seen(&tree);
    let (_, window, count, sum) = seen.stats[0].clone();
    let window = window.unwrap();
    assert_eq!((window.count, window.sum, window.max, count, sum), (1, 3, 3, 3, 6));
}

/// Threads come and go, count, and are read, ticked and pruned all the while: at the end everything is there once.
#[test]
fn nothing_is_lost_or_doubled_whatever_happens_at_once() {
    const THREADS: u64 = 4;
    // Under miri everything takes a thousand times as long.
    const ROUNDS: u64 = if cfg!(miri) { 6 } else { 20 };
    const EACH: u64 = if cfg!(miri) { 40 } else { 300 };
    let tree = MetricsTree::new();
    let (counter, level, stat) = (tree.root().counter("c"), tree.root().level("l"), tree.root().stat("s"));
    let over = Arc::new(AtomicBool::new(false));
    let start = Arc::new(Barrier::new(THREADS as usize + 2));

    let ticker = {
        let (tree, over, start) = (tree.clone(), over.clone(), start.clone());
        std::thread::spawn(move || {
            let snapshotter = Snapshotter::new(&tree);
            start.wait();
            let (mut count, mut sum) = (0, 0);
            loop {
                let last = over.load(Ordering::SeqCst);
                snapshotter.tick();
                let window = seen(&tree).stats[0].1.unwrap();
                count += window.count;
                sum += window.sum;
                if last {
                    return (count, sum);
                }
            }
        })
    };
    let reader = {
        let (tree, over, start) = (tree.clone(), over.clone(), start.clone());
        std::thread::spawn(move || {
            start.wait();
            let mut last = 0;
            while !over.load(Ordering::SeqCst) {
                let page = page(&tree);
                let now = page.lines().find_map(|l| l.strip_prefix("c ")).unwrap().parse::<u64>().unwrap();
                assert!(now >= last, "a counter went from {last} to {now}");
                last = now;
                let scope = tree.scope("passing");
                scope.counter("c").incr();
                scope.stat("s").add(1);
                scope.prune();
            }
        })
    };
    let workers: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (tree, start) = (tree.clone(), start.clone());
            let (counter, level, stat) = (counter.clone(), level.clone(), stat.clone());
            std::thread::spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    // Every third round without being a worker: the shared cells.
                    let worker = (round % 3 != 2).then(|| tree.enter_worker());
                    for i in 0..EACH {
                        counter.incr();
                        level.add(if (thread + i) % 2 == 0 { 3 } else { -2 });
                        stat.add(i % 100);
                        if i % 50 == 0 {
                            let scope = tree.scope(&format!("own{thread}"));
                            scope.counter("c").incr();
                            scope.prune();
                        }
                    }
                    drop(worker);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    over.store(true, Ordering::SeqCst);
    reader.join().unwrap();
    let total = THREADS * ROUNDS * EACH;
    let sum = THREADS * ROUNDS * (0..EACH).map(|i| i % 100).sum::<u64>();
    assert_eq!(ticker.join().unwrap(), (total, sum));
    assert_eq!((counter.value(), level.value()), (total, (total / 2) as i64));
    let seen = seen(&tree);
    assert_eq!((seen.stats[0].2, seen.stats[0].3), (total, sum));
}

#[test]
fn a_gauge_that_panics_is_left_out_and_counted() {
    let tree = MetricsTree::new();
    let _before = tree.root().gauge("a", || 1.0);
    let _broken = tree.scope("s").gauge("g", || panic!("as a test wants it"));
    let _after = tree.scope("s").gauge("h", || 2.0);
    assert_eq!((page(&tree).as_str(), tree.panics()), ("a 1.0\ns:h 2.0\n", 1));
    assert_eq!((seen(&tree).gauges, tree.panics()), (vec![("a".into(), 1.0), ("s|h".into(), 2.0)], 2));
}

#[cfg_attr(miri, ignore = "many series, and nothing that miri would look at")]
#[test]
fn the_tree_says_how_many_series_it_has_and_what_they_take() {
    let tree = MetricsTree::new();
    let _census = Census::new(&tree);
    let of = |name: &str| {
        let name = format!("telemetry|series|{name}");
        seen(&tree).gauges.into_iter().find(|g| g.0 == name).unwrap().1
    };
    assert_eq!(["counters", "gauges", "stats"].map(of), [0.0, 4.0, 0.0]);
    let empty = of("bytes");
    let scope = tree.scope("rt").scope("http").scope("service");
    let _worker = tree.enter_worker();
    for service in 0..100 {
        let scope = scope.scope(&format!("svc/{service}"));
        (0..20).for_each(|i| scope.counter(&format!("counter{i}")).incr());
        scope.stat("request_latency_ms");
    }
    assert_eq!(["counters", "gauges", "stats"].map(of), [2000.0, 4.0, 100.0]);
    let filled = of("bytes") - empty;
    // 20 to 90 bytes a counter, and each stat's own.
    assert!((40_000.0..220_000.0).contains(&filled), "{filled}");
    // A stat's buckets come with its samples: three blocks for these, and once more what was read of them.
    (0..100).for_each(|service| {
        let stat = scope.scope(&format!("svc/{service}")).stat("request_latency_ms");
        [1, 100, 1000].into_iter().for_each(|n| stat.add(n));
    });
    Snapshotter::new(&tree).tick();
    let sampled = of("bytes") - empty - filled;
    assert!((100_000.0..150_000.0).contains(&sampled), "{sampled}");
    scope.prune();
    Snapshotter::new(&tree).tick();
    assert_eq!(["counters", "gauges", "stats"].map(of), [0.0, 4.0, 0.0]);
    let left = of("bytes") - empty;
    // The nodes are kept for those to come, and a few stats until somebody looks whether their handles are gone.
    assert!(left < filled + sampled / 2.0, "{left} of {filled} and {sampled}");
}

#[test]
fn a_page_is_measured_by_its_face() {
    let tree = MetricsTree::new();
    let scrapes = Scrapes::new(&tree, "prometheus");
    let face = tree.scope("telemetry").scope("faces").scope("prometheus");
    let counts = || (face.counter("scrapes").value(), face.counter("bytes").value());
    let begin = || scrapes.measured(prometheus::page(&tree, &prometheus::Options::default()), Duration::ZERO);
    let mut first = begin();
    assert_eq!(counts(), (1, 0));
    let mut out = b"before".to_vec();
    while first.fill(&mut out) {}
    drop(first);
    assert_eq!(counts(), (1, out.len() as u64 - 6));
    // Nobody reads this one.
    drop(begin());
    assert_eq!(counts(), (2, out.len() as u64 - 6));
    Snapshotter::new(&tree).tick();
    assert_eq!(seen(&tree).stats[0].2, 2);
}
