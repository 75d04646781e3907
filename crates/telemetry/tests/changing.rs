//! A page that is written while the tree changes between its pieces.

use std::collections::{BTreeSet, HashSet};

use l5d_telemetry::format::{influxdb, json, prometheus};
use l5d_telemetry::{MetricsTree, Page};
use proptest::prelude::*;

/// Scopes of a two-level tree, with enough text in each that a piece holds only a few.
const OUTER: usize = 4;
const INNER: usize = 12;

#[derive(Clone, Debug)]
enum Change {
    Make(usize, usize),
    PruneInner(usize, usize),
    PruneOuter(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..OUTER, 0..INNER + 4).prop_map(|(o, i)| Change::Make(o, i)),
        2 => (0..OUTER, 0..INNER + 4).prop_map(|(o, i)| Change::PruneInner(o, i)),
        1 => (0..OUTER).prop_map(Change::PruneOuter),
    ]
}

fn outer(at: usize) -> String {
    format!("outer{at}-{}", "x".repeat(600))
}

fn make(tree: &MetricsTree, o: usize, i: usize) {
    let scope = tree.scope(&outer(o)).scope(&format!("inner{i}"));
    for metric in 0..10 {
        scope.counter(&format!("metric{metric}"));
    }
}

type Lines = fn(&MetricsTree) -> (Box<dyn Page>, fn(&str) -> Vec<String>);

/// The names on a page, each once per time it is there.
const FACES: [Lines; 2] = [
    |tree| {
        let names = |text: &str| text.lines().map(|l| l.strip_suffix(" 0").unwrap().replace(':', "/")).collect();
        (prometheus::page(tree, &prometheus::Options::default()), names)
    },
    |tree| {
        let names = |text: &str| {
            let inside = text.strip_prefix('{').unwrap().strip_suffix('}').unwrap();
            let entries = inside.split(',').filter(|e| !e.is_empty());
            entries.map(|e| e.strip_suffix("\":0").unwrap()[1..].replace('-', "_")).collect()
        };
        (json::page(tree, &json::Options::default()).unwrap(), names)
    },
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_was_there_all_the_time_is_there_once(
        before in prop::collection::vec((0..OUTER, 0..INNER), 1..40),
        changes in prop::collection::vec(prop::collection::vec(change(), 0..4), 0..8),
    ) {
        for face in FACES {
            let tree = MetricsTree::new();
            for &(o, i) in &before {
                make(&tree, o, i);
            }
            // For each scope, whether it was there from the beginning and never went.
            let mut stayed: BTreeSet<(usize, usize)> = before.iter().copied().collect();
            let mut ever: HashSet<(usize, usize)> = before.iter().copied().collect();
            let (mut page, names) = face(&tree);
            let mut out = Vec::new();
            let mut changes = changes.iter();
            while page.fill(&mut out) {
                for change in changes.next().into_iter().flatten() {
                    match *change {
                        Change::Make(o, i) => {
                            make(&tree, o, i);
                            ever.insert((o, i));
                        }
                        Change::PruneInner(o, i) => {
                            tree.scope(&outer(o)).scope(&format!("inner{i}")).prune();
                            stayed.remove(&(o, i));
                        }
                        Change::PruneOuter(o) => {
                            tree.scope(&outer(o)).prune();
                            stayed.retain(|&(at, _)| at != o);
                        }
                    }
                }
            }
            let names = names(std::str::from_utf8(&out).unwrap());
            let unique: HashSet<&str> = names.iter().map(String::as_str).collect();
            prop_assert_eq!(unique.len(), names.len(), "a series is there twice");
            let name = |o: usize, i: usize, m: usize| format!("{}/inner{i}/metric{m}", outer(o).replace('-', "_"));
            for &(o, i) in &stayed {
                for m in 0..10 {
                    prop_assert!(unique.contains(name(o, i, m).as_str()), "outer{}/inner{}/{} is missing", o, i, m);
                }
            }
            let known: HashSet<String> =
                ever.iter().flat_map(|&(o, i)| (0..10).map(move |m| name(o, i, m))).collect();
            prop_assert!(names.iter().all(|n| known.contains(n)));
        }
    }

    /// The nested and the InfluxDB face are well formed, whatever goes between their pieces.
    #[test]
    fn a_page_is_well_formed_whatever_changes(
        before in prop::collection::vec((0..OUTER, 0..INNER), 20..40),
        changes in prop::collection::vec(prop::collection::vec(change(), 0..4), 0..8),
    ) {
        let tree = MetricsTree::new();
        for &(o, i) in &before {
            make(&tree, o, i);
        }
        let mut nested = json::page(&tree, &json::Options { tree: true, ..json::Options::default() }).unwrap();
        let mut influx = influxdb::page(&tree, &influxdb::Options { host: "h".into(), ..influxdb::Options::default() });
        let (mut nested_out, mut influx_out) = (Vec::new(), Vec::new());
        let mut changes = changes.iter();
        let (mut more, mut more_influx) = (true, true);
        while more || more_influx {
            more = more && nested.fill(&mut nested_out);
            more_influx = more_influx && influx.fill(&mut influx_out);
            for change in changes.next().into_iter().flatten() {
                match *change {
                    Change::Make(o, i) => make(&tree, o, i),
                    Change::PruneInner(o, i) => tree.scope(&outer(o)).scope(&format!("inner{i}")).prune(),
                    Change::PruneOuter(o) => tree.scope(&outer(o)).prune(),
                }
            }
        }
        let depths = nested_out.iter().scan(0_i32, |depth, &b| {
            *depth += i32::from(b == b'{') - i32::from(b == b'}');
            Some(*depth)
        });
        let depths: Vec<i32> = depths.collect();
        prop_assert_eq!(depths.last(), Some(&0));
        prop_assert!(depths[..depths.len() - 1].iter().all(|&d| d > 0));
        let nested = String::from_utf8(nested_out).unwrap();
        let misplaced = [",}", "{,", "}\"", ",,"];
        prop_assert!(misplaced.iter().all(|m| !nested.contains(m)));
        for line in std::str::from_utf8(&influx_out).unwrap().lines() {
            let (measurement, fields) = line.split_once(",host=h ").unwrap();
            prop_assert!(measurement.starts_with("outer"));
            prop_assert!(fields.split(',').all(|f| f.starts_with("metric") && f.ends_with("=0")));
        }
    }
}
