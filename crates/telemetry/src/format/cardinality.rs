//! Which families and labels there is how much of: `/admin/metrics/cardinality`.
//!
//! By families and labels of the modern face. Bytes are what a page of the modern face needs for the series, roughly: its
//! name, labels and number. Growth is since the last report, as JSON and text share it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::time::Instant;

use foldhash::fast::RandomState;

use crate::catalogue::{classify, families};
use crate::format::labels::push_json;
use crate::format::survey::Survey;
use crate::tree::MetricsTree;

/// How much there is, and how much there was.
#[derive(Debug, Default)]
pub struct Reporter {
    last: Option<(Instant, BTreeMap<Key, u64>)>,
}

/// A family, or a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Family(u16),
    Label(&'static str),
}

/// What there is of each family and label.
#[derive(Clone, Debug)]
pub struct Report {
    series: u64,
    limit: u64,
    /// Seconds since the last report.
    since: Option<f64>,
    families: Vec<Entry>,
    labels: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: String,
    /// Of a family its series, of a label its values.
    count: u64,
    bytes: u64,
    growth: i64,
}

impl Reporter {
    /// Counts what there is in a tree.
    pub fn report(&mut self, tree: &MetricsTree) -> Report {
        let mut by_family: HashMap<u16, (u64, u64), RandomState> = HashMap::default();
        let mut by_label: HashMap<&'static str, (HashSet<u64, RandomState>, u64), RandomState> = HashMap::default();
        let hasher = RandomState::default();
        let mut survey = Survey::new(tree.shared(), tree.root_place());
        let mut each = |_: &_, _, metric: crate::tree::Metric, names: &[crate::names::Name]| {
            let Some(kind) = metric.kind() else { return };
            let path: Vec<&str> = names.iter().map(|name| name.text()).collect();
            let Some(classified) = classify(&path, kind) else { return };
            let family = &families()[usize::from(classified.family)];
            let mut bytes = family.name.len() as u64 + NUMBER;
            for (label, value) in family.labels.iter().zip(&classified.values) {
                let here = (label.len() + value.len()) as u64 + SIGNS;
                bytes += here;
                let (values, all) = by_label.entry(label).or_default();
                values.insert(hasher.hash_one(&**value));
                *all += here;
            }
            let (series, all) = by_family.entry(classified.family).or_default();
            *series += 1;
            *all += bytes;
        };
        while survey.step(&mut each) {}

        let now = Instant::now();
        let (before, counts) = match self.last.take() {
            Some((at, counts)) => (Some(at), counts),
            None => (None, BTreeMap::new()),
        };
        let mut latest = BTreeMap::new();
        let mut entry = |key: Key, name: String, count: u64, bytes: u64| {
            let was = if before.is_some() { counts.get(&key).copied().unwrap_or(0) } else { count };
            latest.insert(key, count);
            Entry { name, count, bytes, growth: count as i64 - was as i64 }
        };
        let mut report = Report {
            series: tree.series(),
            limit: tree.shared().ceiling().limit(),
            since: before.map(|at| (now - at).as_secs_f64()),
            families: by_family
                .into_iter()
                .map(|(family, (series, bytes))| {
                    entry(Key::Family(family), families()[usize::from(family)].name.clone(), series, bytes)
                })
                .collect(),
            labels: Vec::new(),
        };
        report.labels = by_label
            .into_iter()
            .map(|(label, (values, bytes))| entry(Key::Label(label), label.to_owned(), values.len() as u64, bytes))
            .collect();
        for entries in [&mut report.families, &mut report.labels] {
            entries.sort_by(|a, b| (b.count, b.growth, &a.name).cmp(&(a.count, a.growth, &b.name)));
        }
        self.last = Some((now, latest));
        report
    }
}

/// A number and a line's end.
const NUMBER: u64 = 8;
/// `="",`
const SIGNS: u64 = 4;

impl Report {
    /// For people: tables, largest first, and those that grew since the last report, fastest first.
    pub fn text(&self) -> String {
        let limit =
            if self.limit == usize::MAX as u64 { "no limit".to_owned() } else { format!("limit {}", self.limit) };
        let mut text = format!("{} metrics, {limit}\n", self.series);
        for (title, unit, entries) in [("families", "series", &self.families), ("labels", "values", &self.labels)] {
            table(&mut text, &format!("largest {title}"), unit, entries.iter());
            let grown = fastest(entries);
            if let Some(since) = self.since.filter(|_| !grown.is_empty()) {
                table(&mut text, &format!("fastest growing {title}, in {since:.1} s"), unit, grown.into_iter());
            }
        }
        text
    }

    /// For programs: the same.
    pub fn json(&self) -> String {
        let mut json = format!("{{\"series\":{},", self.series).into_bytes();
        if self.limit != usize::MAX as u64 {
            json.extend_from_slice(format!("\"limit\":{},", self.limit).as_bytes());
        }
        if let Some(since) = self.since {
            json.extend_from_slice(format!("\"seconds\":{since:.3},").as_bytes());
        }
        for (title, unit, entries) in [("families", "series", &self.families), ("labels", "values", &self.labels)] {
            list(&mut json, title, unit, entries.iter());
            json.push(b',');
            list(&mut json, &format!("growing_{title}"), unit, fastest(entries).into_iter());
            json.push(b',');
        }
        json.pop();
        json.push(b'}');
        String::from_utf8(json).expect("escaping keeps text text")
    }
}

/// Those that grew.
fn fastest(entries: &[Entry]) -> Vec<&Entry> {
    let mut grown: Vec<&Entry> = entries.iter().filter(|entry| entry.growth > 0).collect();
    grown.sort_by_key(|entry| std::cmp::Reverse(entry.growth));
    grown
}

fn table<'a>(text: &mut String, title: &str, unit: &str, entries: impl Iterator<Item = &'a Entry>) {
    let _ = writeln!(text, "\n{title}\n{unit:>10} {:>12} {:>10}  name", "bytes", "growth");
    for Entry { name, count, bytes, growth } in entries {
        let _ = writeln!(text, "{count:>10} {bytes:>12} {growth:>+10}  {name}");
    }
}

fn list<'a>(json: &mut Vec<u8>, title: &str, unit: &str, entries: impl Iterator<Item = &'a Entry>) {
    json.extend_from_slice(format!("\"{title}\":[").as_bytes());
    for (at, Entry { name, count, bytes, growth }) in entries.enumerate() {
        json.extend_from_slice(if at > 0 { b",{\"name\":\"" } else { b"{\"name\":\"" });
        push_json(json, name);
        json.extend_from_slice(format!("\",\"{unit}\":{count},\"bytes\":{bytes},\"growth\":{growth}}}").as_bytes());
    }
    json.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_that_grows_is_named_first() {
        let tree = MetricsTree::new();
        let rt = tree.scope("rt").scope("http");
        rt.scope("server").scope("s").counter("requests");
        rt.scope("server").scope("s").counter("success");
        let mut reporter = Reporter::default();
        let first = reporter.report(&tree);
        assert!(first.since.is_none() && first.families.iter().all(|entry| entry.growth == 0));
        for i in 0..100 {
            rt.scope("service").scope(&format!("svc/{i}")).counter("requests");
        }
        let second = reporter.report(&tree);
        let top = &second.families[0];
        assert_eq!((top.name.as_str(), top.count, top.growth), ("l5d_service_requests", 100, 100));
        let top = &second.labels[0];
        assert_eq!((top.name.as_str(), top.count, top.growth), ("service", 100, 100));
        let text = second.text();
        assert!(text.starts_with("102 metrics, no limit\n\nlargest families\n"), "{text}");
        assert!(text.contains("fastest growing labels, in "), "{text}");
        let json = second.json();
        assert!(json.contains(r#""growing_labels":[{"name":"service","values":100,"bytes":"#), "{json}");
        tree.limit_series(10, 10);
        assert!(reporter.report(&tree).text().starts_with("102 metrics, limit 10\n"));
    }
}
