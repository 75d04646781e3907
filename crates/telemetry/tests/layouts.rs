//! Pages of scopes that are alike, nearly alike, and come and go: what is found at once by the layout of scopes, and written by
//! the run, is what is found one by one.

use std::collections::{BTreeMap, BTreeSet};

use l5d_telemetry::format::{influxdb, json, prometheus};
use l5d_telemetry::{Counter, GaugeGuard, Level, MetricRef, MetricsTree, Page, Scope, Visitor};
use proptest::prelude::*;

fn text(mut page: Box<dyn Page>) -> String {
    let mut out = Vec::new();
    while page.fill(&mut out) {}
    String::from_utf8(out).unwrap()
}

fn prometheus(tree: &MetricsTree) -> Box<dyn Page> {
    prometheus::page(tree, &prometheus::Options::default())
}

fn json(tree: &MetricsTree) -> Box<dyn Page> {
    json::page(tree, &json::Options::default()).unwrap()
}

fn influx(tree: &MetricsTree) -> Box<dyn Page> {
    influxdb::page(tree, &influxdb::Options { host: "h".into(), ..influxdb::Options::default() })
}

/// Services and clients that are made with some of the same names, and end.
struct World {
    tree: MetricsTree,
    /// By scope and name.
    counts: BTreeMap<(usize, usize), u64>,
    held: Vec<Counter>,
    levels: Vec<Level>,
    gauges: Vec<GaugeGuard>,
}

/// Half of the scopes are clients' services, the others services.
const SCOPES: usize = 24;
const NAMES: [&str; 8] =
    ["requests", "success", "failures", "time", "odd name", "a\"quoted\"one", "nacks", "status/200"];

#[derive(Clone, Debug)]
enum Change {
    /// Counters of these names, in this order, each counted so often.
    Count(usize, Vec<usize>, u64),
    /// A metric of another kind, which takes a slot or none, where there is none yet.
    Level(usize),
    Gauge(usize),
    /// A counter gets one beneath it.
    Deepen(usize, usize),
    /// One metric goes, with what is beneath.
    Remove(usize, usize),
    End(usize),
    /// A handle is dropped: of a counter that ended its slot is free again then.
    Drop(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let names = prop_oneof![
        3 => Just((0..NAMES.len()).collect::<Vec<_>>()),
        1 => prop::collection::vec(0..NAMES.len(), 1..6),
    ];
    prop_oneof![
        12 => (0..SCOPES, names, 0..3_000_000_000_u64).prop_map(|(scope, names, n)| Change::Count(scope, names, n)),
        1 => (0..SCOPES).prop_map(Change::Level),
        1 => (0..SCOPES).prop_map(Change::Gauge),
        1 => (0..SCOPES, 0..NAMES.len()).prop_map(|(scope, name)| Change::Deepen(scope, name)),
        1 => (0..SCOPES, 0..NAMES.len()).prop_map(|(scope, name)| Change::Remove(scope, name)),
        4 => (0..SCOPES).prop_map(Change::End),
        6 => (0..1000_usize).prop_map(Change::Drop),
    ]
}

fn service(at: usize) -> String {
    // So long that a piece of a page has few.
    format!("svc/{at}-{}", "x".repeat(900))
}

impl World {
    fn new() -> Self {
        let (counts, held) = (BTreeMap::new(), Vec::new());
        Self { tree: MetricsTree::new(), counts, held, levels: Vec::new(), gauges: Vec::new() }
    }

    fn scope(&self, at: usize) -> Scope {
        let router = self.tree.scope("rt").scope("http");
        match at % 2 {
            0 => router.scope("service").scope(&service(at)),
            _ => router.scope("client").scope("#/c").scope("service").scope(&service(at)),
        }
    }

    fn make(&mut self, change: &Change) {
        match *change {
            Change::Count(at, ref names, n) => {
                let scope = self.scope(at);
                for &name in names {
                    let counter = scope.counter(NAMES[name]);
                    let more = n / (name as u64 + 1);
                    counter.add(more);
                    *self.counts.entry((at, name)).or_default() += more;
                    self.held.push(counter);
                }
            }
            Change::Level(at) => self.levels.push(self.scope(at).level("level")),
            Change::Gauge(at) => self.gauges.push(self.scope(at).gauge("gauge", || 1.0)),
            Change::Deepen(at, name) if self.counts.contains_key(&(at, name)) => {
                self.scope(at).scope(NAMES[name]).counter("beneath").incr();
            }
            Change::Remove(at, name) if self.counts.contains_key(&(at, name)) => {
                self.scope(at).scope(NAMES[name]).prune();
                self.counts.remove(&(at, name));
            }
            Change::Deepen(..) | Change::Remove(..) => {}
            Change::End(at) => {
                self.scope(at).prune();
                self.counts.retain(|&(scope, _), _| scope != at);
            }
            Change::Drop(at) => {
                if !self.held.is_empty() {
                    self.held.swap_remove(at % self.held.len());
                }
            }
        }
    }

    /// The counter's line of Prometheus text, without its value.
    fn line(at: usize, name: usize) -> String {
        let spelled: String = NAMES[name].chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        match at % 2 {
            0 => format!("rt:service:{spelled}{{rt=\"http\", service=\"{}\"}}", service(at)),
            _ => format!("rt:client:service:{spelled}{{rt=\"http\", client=\"#/c\", service=\"{}\"}}", service(at)),
        }
    }

    /// What each counter stands at, by its line.
    fn lines(&self) -> BTreeMap<String, u64> {
        self.counts.iter().map(|(&(at, name), &n)| (Self::line(at, name), n)).collect()
    }

    /// Has each face look at every metric by itself, since some come to one name.
    fn muddle(&self) {
        self.tree.scope("zz/zz").counter("zz");
        self.tree.scope("zz").scope("zz").counter("zz");
        self.tree.scope("zz_zz").counter("zz");
    }
}

/// The counters on a page of Prometheus', by their lines without values, each once.
fn read(page: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter(|line| !["level", "gauge", "beneath"].iter().any(|other| line.contains(other))) {
        let (line, n) = line.rsplit_once(' ').unwrap();
        assert_eq!(found.insert(line.to_owned(), n.parse().unwrap()), None, "{line} is there twice");
    }
    found
}

/// What a page of JSON should be, told by a visit.
#[derive(Default)]
struct Told {
    path: Vec<String>,
    text: String,
}

impl Visitor for Told {
    fn enter(&mut self, key: &str) {
        self.path.push(key.to_owned());
    }

    fn metric(&mut self, metric: MetricRef<'_>) {
        let name = serde_json::to_string(&self.path.join("/")).unwrap();
        match metric {
            MetricRef::Counter(n) => self.text.push_str(&format!(",{name}:{n}")),
            MetricRef::Gauge(x) => self.text.push_str(&format!(",{name}:{x:?}")),
            MetricRef::Stat(_) => unreachable!("there are none"),
        }
    }

    fn leave(&mut self) {
        self.path.pop();
    }
}

/// Without what muddles it.
fn plain(page: &str, between: char) -> Vec<&str> {
    page.trim_matches(['{', '}']).split(between).filter(|entry| !entry.is_empty() && !entry.contains("zz")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn pages_are_what_is_found_one_by_one(changes in prop::collection::vec(change(), 1..120)) {
        let mut world = World::new();
        let worker = world.tree.enter_worker();
        for change in &changes {
            world.make(change);
        }
        drop(worker);
        // And some that are counted by nobody's worker, and by two.
        let _worker = world.tree.enter_worker();
        world.make(&Change::Count(1, vec![0, 1], 77));

        let [in_prometheus, in_json, in_influx] = [prometheus, json, influx].map(|page| text(page(&world.tree)));
        prop_assert_eq!(read(&in_prometheus), world.lines());
        let mut told = Told::default();
        world.tree.visit(&mut told);
        prop_assert_eq!(&in_json, &format!("{{{}}}", told.text.trim_start_matches(',')));

        world.muddle();
        let [slow_prometheus, slow_json, slow_influx] = [prometheus, json, influx].map(|page| text(page(&world.tree)));
        prop_assert_eq!(plain(&slow_prometheus, '\n'), plain(&in_prometheus, '\n'));
        prop_assert_eq!(plain(&slow_json, ','), plain(&in_json, ','));
        prop_assert_eq!(plain(&slow_influx, '\n'), plain(&in_influx, '\n'));
    }

    #[test]
    fn what_stays_while_a_page_is_written_is_there_once(
        before in prop::collection::vec(change(), 40..120),
        changes in prop::collection::vec(prop::collection::vec(change(), 0..4), 0..12),
    ) {
        let mut world = World::new();
        for change in &before {
            world.make(change);
        }
        let mut stayed: BTreeSet<String> = world.lines().into_keys().collect();
        let mut page = prometheus(&world.tree);
        let (mut out, mut changes) = (Vec::new(), changes.iter());
        while page.fill(&mut out) {
            for change in changes.next().into_iter().flatten() {
                world.make(change);
                let lines = world.lines();
                stayed.retain(|line| lines.contains_key(line));
                match *change {
                    // It may have been filled anew by the next change.
                    Change::End(at) => stayed.retain(|line| !line.contains(&service(at))),
                    Change::Remove(at, name) => _ = stayed.remove(&World::line(at, name)),
                    _ => {}
                }
            }
        }
        let found = read(std::str::from_utf8(&out).unwrap());
        let missing: Vec<&String> = stayed.iter().filter(|line| !found.contains_key(*line)).collect();
        prop_assert!(missing.is_empty(), "{:?}", missing);
        // And the next page is right.
        prop_assert_eq!(read(&text(prometheus(&world.tree))), world.lines());
    }
}

/// The nodes of what ended were taken for what was made at another one in their scope since.
#[test]
fn what_is_made_again_is_found_where_it_is() {
    let tree = MetricsTree::new();
    let service = |at: usize| tree.scope("rt").scope("http").scope("service").scope(&format!("s{at}"));
    let fill = |at: usize| ["one", "two", "three"].map(|name| service(at).gauge(name, || 1.0));
    let _first = fill(0);
    drop(fill(1));
    service(1).prune();
    for name in ["two", "three", "one"] {
        let _gauge = service(1).gauge(name, || 2.0);
        let page = text(prometheus(&tree));
        let line = format!("rt:service:{name}{{rt=\"http\", service=\"s1\"}} 2.0\n");
        assert!(page.contains(&line), "{name}: {page}");
        service(1).prune();
    }
}

#[test]
fn a_name_that_gets_the_number_of_another_is_not_taken_for_it() {
    let tree = MetricsTree::new();
    let fill = |scope: &str, names: [&str; 2]| {
        let scope = tree.scope("rt").scope("http").scope("service").scope(scope);
        names.into_iter().zip(1..).for_each(|(name, n)| scope.counter(name).add(n));
        scope
    };
    // Enough for two pieces, so that the page has learned the names when they go.
    let long = |at: usize| format!("{at}-{}", "x".repeat(5000));
    let first: Vec<Scope> = (0..16).map(|at| fill(&long(at), ["one", "two"])).collect();
    for page in [json, influx] {
        let mut page = page(&tree);
        let mut out = Vec::new();
        assert!(page.fill(&mut out));
        first.iter().for_each(Scope::prune);
        let second: Vec<Scope> = (16..32).map(|at| fill(&long(at), ["three", "four"])).collect();
        while page.fill(&mut out) {}
        let out = String::from_utf8(out).unwrap();
        let written = |at: usize| {
            let entries = out.split_once(&long(at)).map_or("", |(_, rest)| rest);
            entries.split(['\n', '}']).next().unwrap().replace(&long(at), "")
        };
        for at in 16..32 {
            assert!(written(at).contains("three") && !written(at).contains("one"), "{}", written(at));
        }
        second.iter().for_each(Scope::prune);
        (0..16).for_each(|at| _ = fill(&long(at), ["one", "two"]));
    }
}

#[test]
fn siblings_that_stand_before_one_another_are_each_there_once() {
    let tree = MetricsTree::new();
    let scopes = ["a", "b", "c"].map(|name| tree.scope(name));
    scopes[..2].iter().for_each(|scope| _ = scope.counter("x"));
    // Their nodes are given out again in the other order.
    scopes[..2].iter().for_each(Scope::prune);
    ["x", "y"].iter().for_each(|name| scopes[2].counter(name).incr());
    assert_eq!(text(json(&tree)), r#"{"c/x":1,"c/y":1}"#);
}

#[test]
fn a_run_of_counters_may_lie_in_two_pages_of_cells() {
    let tree = MetricsTree::new();
    let mut expected = Vec::new();
    for scope in 0..100 {
        for name in 0..30 {
            let (scope, name, n) = (format!("s{scope}"), format!("n{name}"), scope * 100 + name + 1);
            // By no worker, so that it is in the page's own cells.
            tree.scope(&scope).counter(&name).add(n);
            expected.push(format!("\"{scope}/{name}\":{n}"));
        }
    }
    assert_eq!(text(json(&tree)), format!("{{{}}}", expected.join(",")));
}

#[test]
fn counters_far_apart_and_many_kinds_of_scopes_are_all_there() {
    let tree = MetricsTree::new();
    let service = |at: usize| tree.scope("rt").scope("http").scope("service").scope(&format!("s{at}"));
    let (near, far) = (service(0), service(1));
    near.counter("first").add(1);
    far.counter("first").add(2);
    // Further apart than a layout says, and more of them than there are layouts.
    for at in 2..6000 {
        service(at).counter(&format!("own{at}")).add(at as u64);
    }
    near.counter("last").add(3);
    far.counter("last").add(4);
    let page = text(prometheus(&tree));
    assert_eq!(page.lines().count(), 4 + 5998);
    let expect = |name: &str, at: usize, n: u64| {
        let line = format!("rt:service:{name}{{rt=\"http\", service=\"s{at}\"}} {n}\n");
        assert!(page.contains(&line), "{line}");
    };
    (2..6000).for_each(|at| expect(&format!("own{at}"), at, at as u64));
    for (name, at, n) in [("first", 0, 1), ("first", 1, 2), ("last", 0, 3), ("last", 1, 4)] {
        expect(name, at, n);
    }
    let page = text(json(&tree));
    assert_eq!(page.split(',').count(), 4 + 5998);
}
