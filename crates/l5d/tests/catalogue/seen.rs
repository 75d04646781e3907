//! What was seen of the metrics of all processes: which are there, and which have moved.
//!
//! Counters and gauges are read by their paths, as Linkerd names them; whether a stat has samples is told by the modern
//! page, whose counts do not begin anew with each window. A counter has moved when it is not 0, a gauge when two values of
//! it were seen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use l5d_telemetry::listing::{Entry, Found, find, listing};
use serde_json::Value;

/// The record. Shared by scenarios that run beside one another.
pub(crate) struct Seen {
    found: Mutex<Record>,
    /// The stats of the catalogue, by their families.
    families: BTreeMap<String, Name>,
}

/// A level and a name.
type Name = (&'static str, String);

#[derive(Default)]
struct Record {
    moved: BTreeSet<Name>,
    exported: BTreeSet<Name>,
    unlisted: BTreeSet<String>,
    failed: Vec<String>,
    /// The first value of each gauge.
    gauges: BTreeMap<Name, f64>,
}

impl Default for Seen {
    fn default() -> Self {
        let families = listing().into_iter().filter(|entry| entry.kind == "stat");
        let families = families.map(|entry| (entry.family.clone(), name(&entry))).collect();
        Self { found: Mutex::default(), families }
    }
}

fn name(entry: &Entry) -> Name {
    (entry.level, entry.name.clone())
}

impl Seen {
    /// Runs a scenario. That it fails is told at the end, with all others that do.
    pub(crate) fn during(&self, name: &str, scenario: fn(&Self)) {
        if let Err(panic) = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scenario(self))) {
            let why = panic.downcast_ref::<String>().cloned();
            let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned())).unwrap_or_default();
            self.record().failed.push(format!("{name}: {why}"));
        }
    }

    /// The scenarios that failed, and why.
    pub(crate) fn failed(&self) -> Vec<String> {
        self.record().failed.clone()
    }

    /// Takes in what the two pages say: `metrics.json?tree=1` and the modern page in text.
    pub(crate) fn look(&self, tree: &str, modern: &str) {
        let tree: Value = serde_json::from_str(tree).unwrap_or_else(|error| panic!("{error}: {tree}"));
        let mut record = self.record();
        record.walk(&tree, &mut Vec::new());
        for line in modern.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ").and_then(|line| line.split(' ').next()) {
                if family.starts_with("l5d_unlisted") {
                    record.unlisted.insert(format!("something in the family {family}"));
                }
                continue;
            }
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Some(family) = series.split('{').next().and_then(|name| name.strip_suffix("_count")) else { continue };
            if let Some(name) = self.families.get(family) {
                record.exported.insert(name.clone());
                if value != "0" {
                    record.moved.insert(name.clone());
                }
            } else if line.starts_with("l5d_") && modern.contains(&format!("# TYPE {family} histogram")) {
                record.unlisted.insert(format!("the stat {family}"));
            }
        }
    }

    /// Also when a scenario panicked that held it: that is told at the end.
    fn record(&self) -> MutexGuard<'_, Record> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn moved(&self, entry: &Entry) -> bool {
        self.record().moved.contains(&name(entry))
    }

    pub(crate) fn exported(&self, entry: &Entry) -> bool {
        self.record().exported.contains(&name(entry))
    }

    pub(crate) fn unlisted(&self) -> BTreeSet<String> {
        self.record().unlisted.clone()
    }
}

impl Record {
    fn walk<'a>(&mut self, node: &'a Value, path: &mut Vec<&'a str>) {
        for (key, value) in node.as_object().expect("a node of the tree is an object") {
            match value.as_f64() {
                None => {
                    path.push(key);
                    self.walk(value, path);
                    path.pop();
                }
                // A stat's numbers are of a window; the modern page tells of it.
                Some(_) if key.starts_with("stat.") => {}
                Some(number) => self.metric(path, key, number),
            }
        }
    }

    fn metric(&mut self, path: &[&str], kind: &str, number: f64) {
        match find(path, kind) {
            Found::Listed(entry) => {
                let name = name(&entry);
                let moved = match kind {
                    "counter" => number != 0.0,
                    _ => *self.gauges.entry(name.clone()).or_insert(number) != number,
                };
                if moved {
                    self.moved.insert(name.clone());
                }
                self.exported.insert(name);
            }
            Found::Told => {}
            Found::Unlisted => {
                self.unlisted.insert(format!("the {kind} {}", path.join(" | ")));
            }
        }
    }
}
