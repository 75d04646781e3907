//! Every metric of the catalogue moves when the catalogue says so, and nothing is exported that it does not list.
//!
//! Each scenario runs the built program with upstreams and traffic that make its share of the metrics move; all of them
//! write into one record of what was seen. What can't move is only looked for. A new metric needs its row in
//! `telemetry/src/catalogue.rs` and something in a scenario that moves it.

mod scenarios;
mod seen;
mod stage;

use std::collections::BTreeSet;
use std::path::Path;

use l5d_telemetry::listing::{Moved, listing};

use crate::seen::Seen;

#[test]
fn every_metric_moves_and_is_listed() {
    let seen = Seen::default();
    std::thread::scope(|scope| {
        // Two at a time: most of them wait for something.
        for share in [&scenarios::ALL[..scenarios::ALL.len() / 2], &scenarios::ALL[scenarios::ALL.len() / 2..]] {
            let seen = &seen;
            scope.spawn(move || share.iter().for_each(|(name, scenario)| seen.during(name, *scenario)));
        }
    });

    let mut missing: Vec<_> = seen.failed().into_iter().map(|why| format!("scenario {why}")).collect();
    let still = |level: &str, name: &str| format!("{level}: {name}");
    for entry in listing() {
        match entry.moved {
            Moved::When(when) if !seen.moved(&entry) => {
                missing.push(format!("{} did not move; it should when {when}", still(entry.level, &entry.name)));
            }
            Moved::Slowly { .. } | Moved::Never(_) if !seen.exported(&entry) => {
                missing.push(format!("{} is not exported", still(entry.level, &entry.name)));
            }
            Moved::Never(why) if seen.moved(&entry) => {
                missing.push(format!("{} moved, and should not: {why}", still(entry.level, &entry.name)));
            }
            _ => {}
        }
    }
    missing.extend(seen.unlisted().into_iter().map(|path| format!("{path} is exported and not in the catalogue")));
    assert!(missing.is_empty(), "{} mistakes:\n{}", missing.len(), missing.join("\n"));
}

/// What takes too long for this test is the business of a unit test, which has to be there.
#[test]
fn the_unit_tests_of_slow_metrics_exist() {
    fn tests(folder: &Path, found: &mut String) {
        for entry in std::fs::read_dir(folder).expect("a folder of sources can be read") {
            let path = entry.expect("an entry of a folder can be read").path();
            if path.is_dir() {
                tests(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push_str(&std::fs::read_to_string(&path).expect("a source file can be read"));
            }
        }
    }
    let mut sources = String::new();
    for name in ["admin", "http", "net", "router", "telemeters"] {
        tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src"), &mut sources);
    }
    let wanted: BTreeSet<_> = listing()
        .into_iter()
        .filter_map(|entry| match entry.moved {
            Moved::Slowly { test, .. } => Some(test),
            _ => None,
        })
        .collect();
    assert!(!wanted.is_empty());
    for test in wanted {
        assert!(sources.contains(&format!("fn {test}()")), "there is no test {test}");
    }
}
