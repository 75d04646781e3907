//! What balancers promise: who is picked how often, what is counted, and that no load is ever lost.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU8;

use l5d_telemetry::{MetricRef, MetricsTree, Visitor};
use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

struct Endpoint {
    id: usize,
    status: AtomicU8,
    expired: AtomicU64,
}

impl Endpoint {
    fn set(&self, status: Status) {
        self.status.store(status as u8, Relaxed);
    }
}

impl Node for Endpoint {
    fn status(&self, _now: Instant) -> Status {
        [Status::Closed, Status::Busy, Status::Open][usize::from(self.status.load(Relaxed))]
    }

    fn expire(&self) {
        self.expired.fetch_add(1, Relaxed);
    }
}

fn endpoints(count: usize) -> Vec<Arc<Endpoint>> {
    (0..count)
        .map(|id| Arc::new(Endpoint { id, status: AtomicU8::new(Status::Open as u8), expired: AtomicU64::new(0) }))
        .collect()
}

fn weighing(endpoints: &[Arc<Endpoint>], weight: f64) -> Vec<(Arc<Endpoint>, f64)> {
    endpoints.iter().map(|endpoint| (Arc::clone(endpoint), weight)).collect()
}

fn kinds() -> [Kind; 5] {
    [p2c(), EWMA, APERTURE, Kind::Heap, ROUND_ROBIN]
}

fn p2c() -> Kind {
    Kind::default()
}

const EWMA: Kind = Kind::Ewma { max_effort: 5, decay: Duration::from_secs(10) };
const APERTURE: Kind = Kind::Aperture {
    max_effort: 5,
    smooth_window: Duration::from_secs(5),
    low_load: 0.5,
    high_load: 2.0,
    min_aperture: 1,
};
const ROUND_ROBIN: Kind = Kind::RoundRobin { max_effort: 5 };

struct Bench {
    tree: MetricsTree,
    balancer: Arc<Balancer<Endpoint>>,
    rng: fastrand::Rng,
    now: Instant,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        Self::with(Settings { kind, enable_probation: false })
    }

    fn with(settings: Settings) -> Self {
        // Releases and tokens draw from the thread's generator.
        fastrand::seed(11);
        let tree = MetricsTree::new();
        let balancer = Arc::new(Balancer::new(settings, &tree.root().scope("loadbalancer")));
        Self { tree, balancer, rng: fastrand::Rng::with_seed(7), now: Instant::now() }
    }

    fn of(kind: Kind, endpoints: &[Arc<Endpoint>]) -> Self {
        let bench = Self::new(kind);
        bench.balancer.update(weighing(endpoints, 1.0), bench.now);
        bench
    }

    fn pick(&mut self) -> Lease<Endpoint> {
        self.balancer.pick_with(&mut self.rng, self.now).expect("there are endpoints")
    }

    /// Picks so often, one after the other, and counts by endpoint.
    fn shares(&mut self, picks: usize, endpoints: usize) -> Vec<usize> {
        let mut shares = vec![0; endpoints];
        for _ in 0..picks {
            shares[self.pick().id] += 1;
        }
        shares
    }

    fn facts(&self) -> BTreeMap<String, f64> {
        facts(&self.tree)
    }

    fn fact(&self, name: &str) -> f64 {
        self.facts()[&format!("loadbalancer/{name}")]
    }
}

fn facts(tree: &MetricsTree) -> BTreeMap<String, f64> {
    #[derive(Default)]
    struct Facts {
        path: Vec<String>,
        found: BTreeMap<String, f64>,
    }
    impl Visitor for Facts {
        fn enter(&mut self, key: &str) {
            self.path.push(key.to_owned());
        }

        fn metric(&mut self, metric: MetricRef<'_>) {
            let value = match metric {
                MetricRef::Counter(count) => count as f64,
                MetricRef::Gauge(level) => level,
                _ => return,
            };
            self.found.insert(self.path.join("/"), value);
        }

        fn leave(&mut self) {
            self.path.pop();
        }
    }
    let mut facts = Facts::default();
    tree.visit(&mut facts);
    facts.found
}

/// The facts of a recording: a line each, without the prefix.
fn recorded(lines: &[(&str, f64)]) -> BTreeMap<String, f64> {
    lines.iter().map(|(name, value)| (format!("loadbalancer/{name}"), *value)).collect()
}

// === Metrics, as recorded from Linkerd 1.7.5 ===

/// Recording `weights`, client `bad`: the name never resolved.
#[test]
fn before_the_first_update_only_the_distributor_shows() {
    let bench = Bench::new(p2c());
    assert!(bench.balancer.pick(bench.now).is_none());
    assert_eq!(
        bench.facts(),
        recorded(&[("busy_weight_classes", 0.0), ("meanweight", 0.0), ("num_weight_classes", 0.0)])
    );
}

/// Recording `weights`, client `empty`: it resolved, to nothing.
#[test]
fn no_endpoints_are_one_empty_class() {
    let bench = Bench::of(p2c(), &[]);
    assert!(bench.balancer.pick(bench.now).is_none());
    assert_eq!(bench.balancer.status(bench.now), Status::Closed);
    let expected = recorded(&[
        ("adds", 0.0),
        ("algorithm/p2c_least_loaded", 1.0),
        ("available", 0.0),
        ("busy", 0.0),
        ("busy_weight_classes", 0.0),
        ("closed", 0.0),
        ("load", 0.0),
        ("max_effort_exhausted", 0.0),
        ("meanweight", 0.0),
        ("num_weight_classes", 1.0),
        ("rebuilds", 0.0),
        ("removes", 0.0),
        ("size", 0.0),
        ("updates", 1.0),
    ]);
    assert_eq!(bench.facts(), expected);
}

/// Recording `weights`, client `web`: one endpoint of weight 1 and one of weight 3.
#[test]
fn each_weight_is_a_balancer_of_its_own() {
    let bench = Bench::new(p2c());
    let two = endpoints(2);
    bench.balancer.update(vec![(Arc::clone(&two[0]), 1.0), (Arc::clone(&two[1]), 3.0)], bench.now);
    let expected = recorded(&[
        ("adds", 2.0),
        ("algorithm/p2c_least_loaded", 2.0),
        ("available", 2.0),
        ("busy", 0.0),
        ("busy_weight_classes", 0.0),
        ("closed", 0.0),
        ("load", 0.0),
        ("max_effort_exhausted", 0.0),
        ("meanweight", 2.0),
        ("num_weight_classes", 2.0),
        ("rebuilds", 2.0),
        ("removes", 0.0),
        ("size", 2.0),
        ("updates", 2.0),
    ]);
    assert_eq!(bench.facts(), expected);
}

/// Recordings `accrual` and `refused`: a single endpoint that is dead is picked all the same, and nothing is rebuilt.
#[test]
fn a_dead_endpoint_exhausts_the_effort_and_is_used() {
    let one = endpoints(1);
    let mut bench = Bench::of(p2c(), &one);
    drop(bench.pick());
    one[0].set(Status::Busy);
    drop(bench.pick());
    let lease = bench.pick();
    assert_eq!(bench.fact("max_effort_exhausted"), 2.0);
    assert_eq!(bench.fact("rebuilds"), 1.0);
    assert_eq!([bench.fact("available"), bench.fact("busy"), bench.fact("closed")], [0.0, 1.0, 0.0]);
    assert_eq!(bench.fact("load"), 1.0);
    lease.finish(bench.now);
    assert_eq!(bench.fact("load"), 0.0);
}

#[test]
fn the_heap_counts_less_and_the_aperture_more() {
    let three = endpoints(3);
    let names = |kind| -> Vec<String> {
        let bench = Bench::of(kind, &three);
        bench.facts().into_keys().map(|name| name["loadbalancer/".len()..].to_owned()).collect()
    };
    assert_eq!(
        names(Kind::Heap),
        [
            "adds",
            "algorithm/heap_least_loaded",
            "available",
            "busy_weight_classes",
            "load",
            "meanweight",
            "num_weight_classes",
            "removes",
            "size"
        ]
    );
    let aperture = names(APERTURE);
    for name in [
        "algorithm/aperture_least_loaded",
        "logical_aperture",
        "physical_aperture",
        "use_deterministic_ordering",
        "eager_connections",
        "vector_hash",
        "coordinate_updates",
        "expired",
        "loadband/widen",
        "loadband/narrow",
        "loadband/offered_load_ema",
        "busy",
        "closed",
        "rebuilds",
    ] {
        assert!(aperture.iter().any(|found| found == name), "no {name} in {aperture:?}");
    }
    assert!(names(EWMA).contains(&"algorithm/p2c_peak_ewma".to_owned()));
    assert!(names(ROUND_ROBIN).contains(&"algorithm/round_robin".to_owned()));
}

#[test]
fn updates_count_what_changed_and_the_end_removes_the_rest() {
    let four = endpoints(4);
    let bench = Bench::of(p2c(), &four[..2]);
    let counts = |bench: &Bench| ["adds", "removes", "updates", "rebuilds"].map(|name| bench.fact(name) as u64);
    assert_eq!(counts(&bench), [2, 0, 1, 1]);
    bench.balancer.update(weighing(&four[..2], 1.0), bench.now);
    assert_eq!(counts(&bench), [2, 0, 1, 1], "nothing changed");
    bench.balancer.update(weighing(&four[1..], 1.0), bench.now);
    assert_eq!(counts(&bench), [4, 1, 2, 2]);
    // Another weight is another class: the endpoint leaves one and joins the other.
    let mut reweighed = weighing(&four[1..], 1.0);
    reweighed[0].1 = 2.0;
    bench.balancer.update(reweighed, bench.now);
    assert_eq!(counts(&bench), [5, 2, 4, 4]);
    bench.balancer.update(vec![], bench.now);
    assert_eq!([bench.fact("size"), bench.fact("num_weight_classes")], [0.0, 1.0]);
    assert_eq!(counts(&bench)[1], 5);
    bench.balancer.update(weighing(&four[..3], 1.0), bench.now);
    let tree = bench.tree.clone();
    drop(bench);
    let left = facts(&tree);
    assert_eq!(left["loadbalancer/removes"], 8.0);
    assert!(!left.contains_key("loadbalancer/size"), "gauges end with the balancer");
}

// === Picks ===

#[test]
fn the_default_is_that_of_the_config() {
    assert_eq!(Settings::from(&LoadBalancerConfig::default()), Settings::default());
}

#[test]
fn every_algorithm_uses_what_is_there() {
    for kind in kinds() {
        let one = endpoints(1);
        let mut bench = Bench::of(kind.clone(), &one);
        assert_eq!(bench.shares(10, 1), [10], "{kind:?}");
        assert_eq!(bench.balancer.status(bench.now), Status::Open);
    }
}

#[test]
fn every_algorithm_avoids_endpoints_that_are_not_open() {
    for kind in kinds() {
        let four = endpoints(4);
        four[1].set(Status::Busy);
        four[3].set(Status::Closed);
        let mut bench = Bench::of(kind.clone(), &four);
        four[0].set(Status::Busy);
        // Held, so that the algorithms that compare loads are tempted.
        let held: Vec<_> = (0..100).map(|_| bench.pick()).collect();
        let astray = held.iter().filter(|lease| lease.id != 2).count();
        // P2c finds the open one of four within five tries but for one in thirty times; then any will do.
        let tolerated = if matches!(kind, Kind::P2c { .. } | Kind::Ewma { .. }) { 10 } else { 0 };
        assert!(astray <= tolerated, "{astray} astray with {kind:?}");
    }
}

#[test]
fn every_algorithm_fails_open() {
    for kind in kinds() {
        let three = endpoints(3);
        three.iter().for_each(|endpoint| endpoint.set(Status::Busy));
        let mut bench = Bench::of(kind.clone(), &three);
        bench.pick().finish(bench.now);
        assert_eq!(bench.balancer.status(bench.now), Status::Busy);
        three.iter().for_each(|endpoint| endpoint.set(Status::Closed));
        bench.pick().finish(bench.now);
        assert_eq!(bench.fact("load"), 0.0, "{kind:?}");
    }
}

#[test]
fn equal_seeds_pick_equally() {
    let ten = endpoints(10);
    let picks = |()| -> Vec<usize> {
        let mut bench = Bench::of(p2c(), &ten);
        (0..50).map(|_| bench.pick().id).collect()
    };
    assert_eq!(picks(()), picks(()));
}

#[test]
fn idle_endpoints_of_p2c_share_evenly() {
    let ten = endpoints(10);
    for share in Bench::of(p2c(), &ten).shares(20_000, 10) {
        assert!((1_800..2_200).contains(&share), "{share} of 2000");
    }
}

#[test]
fn two_choices_keep_loads_level() {
    let ten = endpoints(10);
    let mut bench = Bench::of(p2c(), &ten);
    let held: Vec<_> = (0..10_000).map(|_| bench.pick()).collect();
    let mut loads = [0_u32; 10];
    held.iter().for_each(|lease| loads[lease.id] += 1);
    let (min, max) = (loads.iter().min(), loads.iter().max());
    // A single random choice would leave them about a hundred apart.
    assert!(max.zip(min).is_some_and(|(max, min)| max - min <= 8), "{loads:?}");
    assert_eq!(bench.fact("load"), 10_000.0);
    drop(held);
    assert_eq!(bench.fact("load"), 0.0);
}

#[test]
fn ewma_turns_away_from_a_slow_endpoint_and_comes_back() {
    let four = endpoints(4);
    let mut bench = Bench::of(EWMA, &four);
    let run = |bench: &mut Bench, slow: u32| {
        let mut shares = [0; 4];
        for _ in 0..4_000 {
            let lease = bench.pick();
            shares[lease.id] += 1;
            let rtt = if lease.id == 0 { slow * MS } else { 10 * MS };
            // Requests do not overlap: only the average tells the endpoints apart.
            bench.now += 10 * MS;
            lease.finish(bench.now + rtt.saturating_sub(10 * MS));
        }
        shares
    };
    run(&mut bench, 10);
    let shares = run(&mut bench, 200);
    assert!(shares[0] < 200, "the slow one got {} of 4000", shares[0]);
    bench.now += Duration::from_secs(120);
    let shares = run(&mut bench, 10);
    assert!(shares[0] > 600, "the healed one got {} of 4000", shares[0]);
}

#[test]
fn ewma_sends_one_request_to_an_endpoint_that_never_answered() {
    let two = endpoints(2);
    let mut bench = Bench::of(EWMA, &two[..1]);
    let first = bench.pick();
    bench.now += MS;
    first.finish(bench.now);
    bench.balancer.update(weighing(&two, 1.0), bench.now);
    let held: Vec<_> = (0..20).map(|_| bench.pick()).collect();
    assert_eq!(held.iter().filter(|lease| lease.id == 1).count(), 1);
}

#[test]
fn the_heap_picks_the_least_loaded() {
    let seven = endpoints(7);
    let mut bench = Bench::of(Kind::Heap, &seven);
    let mut held: Vec<Vec<Lease<Endpoint>>> = (0..7).map(|_| Vec::new()).collect();
    for _ in 0..70 {
        let lease = bench.pick();
        let least = held.iter().map(Vec::len).min();
        assert_eq!(Some(held[lease.id].len()), least);
        held[lease.id].push(lease);
    }
    held[3].truncate(2);
    for _ in 0..8 {
        let lease = bench.pick();
        assert_eq!(lease.id, 3);
        held[3].push(lease);
    }
}

#[test]
fn idle_endpoints_of_the_heap_take_turns() {
    let five = endpoints(5);
    for share in Bench::of(Kind::Heap, &five).shares(10_000, 5) {
        assert!((1_000..3_500).contains(&share), "{share} of 2000");
    }
}

#[test]
fn an_endpoint_of_the_heap_that_is_open_again_is_used_again() {
    let two = endpoints(2);
    let mut bench = Bench::of(Kind::Heap, &two);
    two[0].set(Status::Busy);
    let held: Vec<_> = (0..10).map(|_| bench.pick()).collect();
    assert!(held.iter().all(|lease| lease.id == 1));
    two[0].set(Status::Open);
    let again: Vec<_> = (0..10).map(|_| bench.pick()).collect();
    assert!(again.iter().all(|lease| lease.id == 0));
    assert_eq!(bench.fact("load"), 20.0);
}

/// Recording `round-robin`: thirty requests, three endpoints.
#[test]
fn round_robin_goes_round() {
    let three = endpoints(3);
    let mut bench = Bench::of(ROUND_ROBIN, &three);
    assert_eq!(bench.shares(30, 3), [10, 10, 10]);
    assert_eq!(bench.fact("rebuilds"), 1.0);
}

#[test]
fn round_robin_leaves_out_what_is_down_until_it_is_back() {
    let three = endpoints(3);
    let mut bench = Bench::of(ROUND_ROBIN, &three);
    three[1].set(Status::Busy);
    assert_eq!(bench.shares(30, 3)[1], 0);
    assert_eq!(bench.fact("rebuilds"), 2.0, "once, when it was met");
    three[1].set(Status::Open);
    drop(bench.pick());
    assert_eq!(bench.fact("rebuilds"), 3.0);
    assert_eq!(bench.shares(30, 3), [10, 10, 10]);
    assert_eq!(bench.fact("max_effort_exhausted"), 0.0);
}

#[test]
fn weights_are_respected() {
    for kind in kinds() {
        let six = endpoints(6);
        let mut bench = Bench::new(kind.clone());
        let mut targets = weighing(&six[..3], 1.0);
        targets.extend(weighing(&six[3..5], 3.0));
        targets.extend(weighing(&six[5..], 0.0));
        bench.balancer.update(targets, bench.now);
        let shares = bench.shares(18_000, 6);
        let light: usize = shares[..3].iter().sum();
        let heavy: usize = shares[3..5].iter().sum();
        assert!((5_700..6_300).contains(&light), "{shares:?} with {kind:?}");
        assert!((11_700..12_300).contains(&heavy), "{shares:?} with {kind:?}");
        assert_eq!(shares[5], 0);
        assert!((bench.fact("meanweight") - 1.5).abs() < 1e-9);
    }
}

#[test]
fn a_class_without_open_endpoints_yields_to_the_next() {
    let three = endpoints(3);
    let mut bench = Bench::new(p2c());
    let weights = [0.5, 1.0, 2.0];
    bench.balancer.update(three.iter().cloned().zip(weights).collect(), bench.now);
    three[2].set(Status::Busy);
    let shares = bench.shares(7_000, 3);
    assert_eq!(shares[2], 0);
    // The next after the heaviest is the lightest: it gets 4000 requests beside its own 1000.
    assert!((4_800..5_200).contains(&shares[0]), "{shares:?}");
    let busy = bench.fact("busy_weight_classes");
    assert!((3_800.0..4_200.0).contains(&busy), "{busy}");
    assert_eq!(bench.fact("max_effort_exhausted"), 0.0);
}

#[test]
fn with_zero_weights_only_any_class_is_drawn() {
    let two = endpoints(2);
    let mut bench = Bench::new(p2c());
    bench.balancer.update(vec![(Arc::clone(&two[0]), 0.0), (Arc::clone(&two[1]), f64::NAN)], bench.now);
    let shares = bench.shares(1_000, 2);
    assert!(shares.iter().all(|share| *share > 300), "{shares:?}");
}

#[test]
fn an_endpoint_named_twice_counts_once() {
    let one = endpoints(1);
    let bench = Bench::new(p2c());
    bench.balancer.update(vec![(Arc::clone(&one[0]), 1.0), (Arc::clone(&one[0]), 4.0)], bench.now);
    assert_eq!([bench.fact("size"), bench.fact("meanweight")], [1.0, 4.0]);
}

#[test]
fn a_mean_weight_reads_like_a_short_float() {
    let two = endpoints(2);
    let bench = Bench::new(p2c());
    bench.balancer.update(two.iter().cloned().zip([0.1, 0.2]).collect(), bench.now);
    assert_eq!(bench.fact("meanweight"), 0.15);
}

// === Aperture ===

#[test]
fn an_aperture_is_as_wide_as_the_load() {
    let twenty = endpoints(20);
    let mut bench = Bench::of(APERTURE, &twenty);
    assert_eq!(bench.fact("logical_aperture"), 1.0);
    let mut used = bench.shares(100, 20);
    assert_eq!(used.iter().filter(|share| **share > 0).count(), 1);
    // Ten requests at a time for a minute: between 0.5 and 2 for each endpoint.
    let mut held = std::collections::VecDeque::new();
    used = vec![0; 20];
    for i in 0..6_000 {
        bench.now += 10 * MS;
        if held.len() == 10 {
            held.pop_front().into_iter().for_each(|lease: Lease<Endpoint>| lease.finish(bench.now));
        }
        let lease = bench.pick();
        if i > 5_000 {
            used[lease.id] += 1;
        }
        held.push_back(lease);
    }
    let width = bench.fact("logical_aperture");
    assert!((5.0..=20.0).contains(&width), "{width}");
    assert!(used.iter().filter(|share| **share > 0).count() <= width as usize);
    let offered = bench.fact("loadband/offered_load_ema");
    assert!((8.5..10.5).contains(&offered), "{offered}");
    // Silence, then one request at a time.
    for lease in held {
        lease.finish(bench.now);
    }
    for _ in 0..3_000 {
        bench.now += 5 * MS;
        let lease = bench.pick();
        bench.now += 5 * MS;
        lease.finish(bench.now);
    }
    assert_eq!(bench.fact("logical_aperture"), 1.0);
    assert!(bench.fact("loadband/widen") >= 4.0 && bench.fact("loadband/narrow") >= 4.0);
    assert_eq!(bench.fact("load"), 0.0);
}

#[test]
fn what_falls_out_of_the_aperture_expires_once() {
    let ten = endpoints(10);
    let mut bench = Bench::of(APERTURE, &ten);
    let mut held = Vec::new();
    for _ in 0..200 {
        bench.now += 100 * MS;
        held.push(bench.pick());
    }
    assert_eq!(bench.fact("logical_aperture"), 10.0);
    held.into_iter().for_each(|lease| lease.finish(bench.now));
    for _ in 0..300 {
        bench.now += 50 * MS;
        let lease = bench.pick();
        bench.now += 50 * MS;
        lease.finish(bench.now);
    }
    assert_eq!(bench.fact("logical_aperture"), 1.0);
    bench.balancer.sweep(bench.now);
    assert_eq!(bench.fact("expired"), 0.0, "less than ten windows ago");
    bench.now += Duration::from_secs(50);
    for _ in 0..2 {
        bench.balancer.sweep(bench.now);
        assert_eq!(bench.fact("expired"), 9.0);
        assert_eq!(ten.iter().map(|endpoint| endpoint.expired.load(Relaxed)).sum::<u64>(), 9);
    }
}

#[test]
fn a_broken_aperture_moves_on_and_comes_back() {
    let five = endpoints(5);
    let mut bench = Bench::of(APERTURE, &five);
    let first = bench.pick().id;
    five[first].set(Status::Busy);
    let second = bench.pick().id;
    assert_ne!(second, first);
    assert_eq!(bench.fact("max_effort_exhausted"), 1.0);
    assert_eq!(bench.fact("rebuilds"), 2.0);
    assert_eq!(bench.shares(10, 5)[second], 10);
    five[first].set(Status::Open);
    drop(bench.pick());
    assert_eq!(bench.shares(10, 5)[first], 10);
    assert_eq!(bench.fact("rebuilds"), 3.0);
}

#[test]
fn a_least_width_is_kept() {
    let five = endpoints(5);
    let Kind::Aperture { max_effort, smooth_window, low_load, high_load, .. } = APERTURE else { unreachable!() };
    let kind = Kind::Aperture { max_effort, smooth_window, low_load, high_load, min_aperture: 3 };
    let mut bench = Bench::of(kind, &five);
    bench.shares(1_000, 5);
    assert_eq!(bench.fact("logical_aperture"), 3.0);
    bench.balancer.update(weighing(&five[..2], 1.0), bench.now);
    assert_eq!(bench.fact("logical_aperture"), 2.0);
}

// === Traffic, simulated: virtual time, seeded chance, the real balancer ===

/// What became of the requests of a simulation.
struct Traffic {
    shares: Vec<usize>,
    latencies: Vec<Duration>,
}

impl Traffic {
    fn percentile(&self, share: f64) -> Duration {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() as f64 * share) as usize]
    }
}

/// Sends requests, some 200 a second and at random moments, to endpoints that take so many milliseconds each, give or take
/// a fifth.
fn traffic(kind: Kind, millis: &[u32], requests: usize) -> Traffic {
    let all = endpoints(millis.len());
    let mut bench = Bench::of(kind, &all);
    let mut traffic = Traffic { shares: vec![0; millis.len()], latencies: Vec::with_capacity(requests) };
    // By when they end; the number keeps equal moments apart.
    let mut pending: BTreeMap<(Instant, usize), Lease<Endpoint>> = BTreeMap::new();
    for number in 0..requests {
        // Between two arrivals of a Poisson process.
        bench.now += (5 * MS).mul_f64(-(1.0 - bench.rng.f64()).ln());
        while let Some(first) = pending.first_entry() {
            if first.key().0 > bench.now {
                break;
            }
            let ((ended, _), lease) = first.remove_entry();
            lease.finish(ended);
        }
        let lease = bench.pick();
        let took = (millis[lease.id] * MS).mul_f64(0.8 + 0.4 * bench.rng.f64());
        traffic.shares[lease.id] += 1;
        traffic.latencies.push(took);
        pending.insert((bench.now + took, number), lease);
    }
    assert_eq!(bench.fact("load"), pending.len() as f64);
    drop(pending);
    assert_eq!(bench.fact("load"), 0.0);
    traffic
}

/// Of ten endpoints one takes ten times as long.
#[test]
fn ewma_halves_the_p99_of_round_robin_where_one_endpoint_is_slow() {
    let mut millis = [20; 10];
    millis[3] = 200;
    let p99 = |kind| traffic(kind, &millis, 20_000).percentile(0.99);
    let (ewma, round_robin) = (p99(EWMA), p99(ROUND_ROBIN));
    assert!(ewma * 2 <= round_robin, "{ewma:?} {round_robin:?}");
    // Least loaded is in between: it only avoids what is full.
    let shares = traffic(p2c(), &millis, 20_000).shares;
    assert!(shares[3] < 1_400 && shares[3] > 200, "{shares:?}");
    let shares = traffic(EWMA, &millis, 20_000).shares;
    assert!(shares[3] < 200, "{shares:?}");
}

/// Where all are alike, each has its tenth; the heap, which goes by the order of its array, has them nearly so.
#[test]
fn equal_endpoints_share_evenly_with_every_algorithm() {
    let wide = Kind::Aperture {
        max_effort: 5,
        smooth_window: Duration::from_secs(5),
        low_load: 0.5,
        high_load: 2.0,
        min_aperture: 10,
    };
    for (kind, tolerated) in [(p2c(), 200), (EWMA, 400), (wide, 200), (Kind::Heap, 800), (ROUND_ROBIN, 1)] {
        let Traffic { shares, .. } = traffic(kind.clone(), &[20; 10], 20_000);
        for share in &shares {
            assert!(share.abs_diff(2_000) <= tolerated, "{kind:?}: {shares:?}");
        }
    }
}

/// The aperture keeps as few endpoints busy as the load needs, here four requests at a time, and those evenly.
#[test]
fn an_aperture_shares_among_few() {
    let Traffic { shares, .. } = traffic(APERTURE, &[20; 10], 20_000);
    let mut sorted = shares.clone();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let used = sorted.iter().take_while(|share| **share > 200).count();
    assert!((2..=8).contains(&used), "{shares:?}");
    assert!(sorted[used..].iter().sum::<usize>() < 600, "{shares:?}");
}

// === Probation ===

#[test]
fn on_probation_an_endpoint_stays_while_it_is_open() {
    let two = endpoints(2);
    let mut bench = Bench::with(Settings { enable_probation: true, ..Settings::default() });
    bench.balancer.update(weighing(&two, 1.0), bench.now);
    bench.balancer.update(weighing(&two[..1], 1.0), bench.now);
    assert_eq!(bench.fact("size"), 2.0);
    assert!(bench.shares(100, 2)[1] > 0);
    two[1].set(Status::Busy);
    bench.balancer.sweep(bench.now);
    assert_eq!([bench.fact("size"), bench.fact("removes")], [1.0, 1.0]);
    // Named again it is a new endpoint, and no longer on probation.
    bench.balancer.update(weighing(&two, 1.0), bench.now);
    bench.balancer.sweep(bench.now);
    assert_eq!(bench.fact("size"), 2.0);
    // Without any name left, the open one stays.
    bench.balancer.update(vec![], bench.now);
    assert_eq!(bench.fact("size"), 1.0);
    assert_eq!(bench.pick().id, 0);
}

#[test]
fn a_pick_that_meets_a_closed_endpoint_on_probation_ends_it() {
    let two = endpoints(2);
    let mut bench = Bench::with(Settings { enable_probation: true, kind: ROUND_ROBIN });
    bench.balancer.update(weighing(&two, 1.0), bench.now);
    bench.balancer.update(weighing(&two[..1], 1.0), bench.now);
    two[1].set(Status::Closed);
    bench.shares(10, 2);
    assert_eq!(bench.fact("size"), 1.0);
}

// === Leases ===

#[test]
fn leases_outlive_endpoint_and_balancer() {
    fn sendable(_: &(impl Send + 'static)) {}
    for kind in kinds() {
        let two = endpoints(2);
        let mut bench = Bench::of(kind, &two[..1]);
        let (first, second) = (bench.pick(), bench.pick());
        sendable(&first);
        bench.balancer.update(weighing(&two[1..], 1.0), bench.now);
        assert_eq!(bench.fact("load"), 0.0);
        first.finish(bench.now);
        bench.balancer.update(weighing(&two, 1.0), bench.now);
        assert_eq!(bench.fact("load"), 0.0);
        let third = bench.pick();
        drop(bench);
        drop((second, third));
        assert_eq!(two.iter().map(Arc::strong_count).collect::<Vec<_>>(), [1, 1], "nothing holds the endpoints");
    }
}

#[test]
fn no_load_is_lost_while_everything_changes() {
    for kind in kinds() {
        let eight = endpoints(8);
        let bench = Bench::with(Settings { kind: kind.clone(), enable_probation: true });
        bench.balancer.update(weighing(&eight, 1.0), bench.now);
        let (balancer, start) = (&bench.balancer, bench.now);
        std::thread::scope(|scope| {
            for seed in 0..3 {
                let eight = &eight;
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed);
                    let mut held = Vec::new();
                    for i in 0..4_000 {
                        let now = start + i * MS;
                        if let Some(lease) = balancer.pick_with(&mut rng, now) {
                            held.push(lease);
                        }
                        if held.len() > 20 {
                            held.swap_remove(rng.usize(..held.len())).finish(now);
                        }
                        if i % 16 == 0 {
                            let status = [Status::Open, Status::Open, Status::Busy, Status::Closed][rng.usize(..4)];
                            eight[rng.usize(..8)].set(status);
                        }
                    }
                });
            }
            scope.spawn(|| {
                let mut rng = fastrand::Rng::with_seed(99);
                for i in 0..400 {
                    let targets = eight.iter().filter(|_| rng.bool());
                    let targets = targets.map(|endpoint| (Arc::clone(endpoint), [1.0, 2.0][usize::from(i % 3 == 0)]));
                    balancer.update(targets.collect(), start + i * 10 * MS);
                    balancer.sweep(start + i * 10 * MS);
                }
            });
        });
        assert_eq!(bench.fact("load"), 0.0, "{kind:?}");
        assert_eq!(bench.fact("adds") - bench.fact("removes"), bench.fact("size"), "{kind:?}");
        let classes = bench.balancer.classes.load();
        for heap in classes.entries.iter().filter_map(|entry| entry.class.heap()) {
            heap.assert_sound();
        }
    }
}

proptest! {
    /// The heap stays a heap, and its loads stay those of the leases, whatever comes.
    #[test]
    fn the_heap_stays_sound(steps in proptest::collection::vec((0_u8..6, 0_usize..8), 1..300)) {
        let eight = endpoints(8);
        let mut bench = Bench::of(Kind::Heap, &eight);
        let mut held: Vec<Lease<Endpoint>> = Vec::new();
        for (step, which) in steps {
            match step {
                0..=2 => held.extend(bench.balancer.pick_with(&mut bench.rng, bench.now)),
                3 if !held.is_empty() => held.swap_remove(which % held.len()).finish(bench.now),
                4 => eight[which].set([Status::Open, Status::Busy, Status::Closed][which % 3]),
                5 => bench.balancer.update(weighing(&eight[which..], 1.0), bench.now),
                _ => {}
            }
            bench.balancer.classes.load().entries[0].class.heap().expect("a heap").assert_sound();
        }
        held.clear();
        prop_assert_eq!(bench.fact("load"), 0.0);
    }
}
