//! The catalogue as a list: every metric that l5d counts under Linkerd's names, at each level, and what moves it.
//!
//! The table of docs/metrics.md is written from it, and a test of the whole program compares it with what is exported and
//! what moves. It reads the rows of the catalogue and knows nothing of its own but how they are shown.

use std::fmt::Write;

use super::{Moves, Placed, Row, Unit, Whose, family_name};

/// One metric at one level. What stands for a value is shown as `<value>`: `status/<status>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is, such as `server`.
    pub level: &'static str,
    /// Its path below the level's.
    pub name: String,
    /// `counter`, `gauge` or `stat`.
    pub kind: &'static str,
    /// The unit of its numbers; empty for a number of things.
    pub unit: &'static str,
    /// What it is called in the modern face, without `_total`.
    pub family: String,
    /// What moves it.
    pub moved: Moved,
}

/// What moves a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// This.
    When(&'static str),
    /// This; the unit test of that name makes it happen, as it takes too long or too much for a test of the whole program.
    Slowly {
        /// What it takes.
        when: &'static str,
        /// The test.
        test: &'static str,
    },
    /// Nothing, for this reason.
    Never(&'static str),
}

/// Every metric, level by level.
pub fn listing() -> Vec<Entry> {
    rows().map(|(whose, row, moved)| entry(whose, row, moved)).collect()
}

/// The entry of the metric at these keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This one.
    Listed(Entry),
    /// None of its own: it counts again what another one tells (beneath `failures/rejected`).
    Told,
    /// None, and that is a mistake of the catalogue.
    Unlisted,
}

/// Looks up what is exported at these keys as a `counter`, `gauge` or `stat`.
pub fn find(path: &[&str], kind: &str) -> Found {
    match Placed::of(path) {
        Placed::At { whose, pattern, .. } => rows()
            .find(|(place, row, _)| *place == whose && row.0 == pattern && row.1.name() == kind)
            .map_or(Found::Unlisted, |(whose, row, moved)| Found::Listed(entry(whose, row, moved))),
        Placed::Told => Found::Told,
        Placed::Nowhere => Found::Unlisted,
    }
}

/// The levels and the metrics as tables in Markdown.
pub fn markdown() -> String {
    let mut text = String::from("| level | its metrics are under |\n|---|---|\n");
    for whose in Whose::ALL {
        let _ = writeln!(text, "| {} | `{}` |", whose.level(), whose.path());
    }
    text.push_str("\n| name | type | unit | level | moves when |\n|---|---|---|---|---|\n");
    // The levels that share a row share its line.
    let mut tables: Vec<&[Row]> = Vec::new();
    for rows in Whose::ALL.map(Whose::rows) {
        if !tables.iter().any(|known| std::ptr::eq(*known, rows)) {
            tables.push(rows);
        }
    }
    for row in tables.into_iter().flatten() {
        for (places, moved) in row.6.iter().map(|moves| moves.parts()) {
            let levels: Vec<_> = places.iter().map(|whose| whose.level()).collect();
            let moved = match moved {
                Moved::When(when) | Moved::Slowly { when, .. } => when.to_owned(),
                Moved::Never(why) => format!("*never*: {why}"),
            };
            let name = name(row);
            let (kind, unit) = (row.1.name(), unit(row.3));
            let _ = writeln!(text, "| `{name}` | {kind} | {unit} | {} | {moved} |", levels.join(", "));
        }
    }
    text
}

/// Each row at each of its levels.
fn rows() -> impl Iterator<Item = (Whose, &'static Row, Moved)> {
    Whose::ALL.into_iter().flat_map(|whose| {
        whose.rows().iter().filter_map(move |row| {
            let (_, moved) = row.6.iter().map(|moves| moves.parts()).find(|(places, _)| places.contains(&whose))?;
            Some((whose, row, moved))
        })
    })
}

fn entry(whose: Whose, row: &Row, moved: Moved) -> Entry {
    let family = family_name(whose, row);
    Entry { level: whose.level(), name: name(row), kind: row.1.name(), unit: unit(row.3), family, moved }
}

/// What the numbers on the pages with Linkerd's names are in.
fn unit(unit: Unit) -> &'static str {
    match unit {
        Unit::None => "",
        Unit::Millis => "ms",
        Unit::Micros => "µs",
        Unit::Bytes => "bytes",
        Unit::Percent => "%",
    }
}

/// The keys of a row, with what its labels are called in the place of their values.
fn name(Row(pattern, _, _, _, labels, ..): &Row) -> String {
    let mut labels = labels.iter();
    let keys = pattern.split('/').map(|key| match key {
        "*flag" => "<flag>".to_owned(),
        "*cause" => "[<flag>/]<exception>".to_owned(),
        "*nested" => "[<flag>/]<exception>/<its cause>".to_owned(),
        "*" => format!("<{}>", labels.next().expect("a label for each value")),
        "XX" => "{1XX,2XX,3XX,4XX,5XX}".to_owned(),
        "%" => "{request,response}".to_owned(),
        key => key.to_owned(),
    });
    let name = keys.collect::<Vec<_>>().join("/");
    // The value between is told by no key of its own.
    match name.strip_prefix("sourcedfailures/") {
        Some(rest) if rest != "<source>" => format!("sourcedfailures/<source>/{rest}"),
        _ => name,
    }
}

impl Moves {
    fn parts(self) -> (&'static [Whose], Moved) {
        match self {
            Self::When(places, when) => (places, Moved::When(when)),
            Self::Slow(places, when, test) => (places, Moved::Slowly { when, test }),
            Self::Still(places, why) => (places, Moved::Never(why)),
        }
    }
}

impl Whose {
    fn level(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Service => "service",
            Self::Client => "client",
            Self::ClientService => "client's service",
            Self::Router => "router",
            Self::Admin => "admin server",
            Self::Tracer => "Zipkin's connection",
            Self::Process => "process",
            Self::Statsd => "StatsD telemeter",
            Self::Zipkin => "Zipkin telemeter",
            Self::Otlp => "OTLP telemeter",
            Self::OtlpClient => "OTLP's connection",
            Self::History => "history",
            Self::Face => "pages of metrics",
            Self::Series => "series",
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Server => "rt/<router>/server/<ip>/<port>",
            Self::Service => "rt/<router>/service/<name>",
            Self::Client => "rt/<router>/client/<id>",
            Self::ClientService => "rt/<router>/client/<id>/service/<name>",
            Self::Router => "rt/<router>",
            Self::Admin => "srv/adminhttp",
            Self::Tracer => "clnt/zipkin-tracer",
            Self::Process => "jvm",
            Self::Statsd => "statsd",
            Self::Zipkin => "zipkin",
            Self::Otlp => "otlp",
            Self::OtlpClient => "otlp/client",
            Self::History => "telemetry/history",
            Self::Face => "telemetry/faces/<face>",
            Self::Series => "telemetry/series",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_row_has_a_place_and_each_place_one_reason() {
        for row in Whose::ALL.into_iter().flat_map(|whose| whose.rows()) {
            let places: Vec<_> = row.6.iter().flat_map(|moves| moves.parts().0).collect();
            assert!(!places.is_empty(), "{}", row.0);
            assert_eq!(places.iter().collect::<HashSet<_>>().len(), places.len(), "{}", row.0);
        }
        let names: HashSet<_> = listing().into_iter().map(|entry| (entry.level, entry.name)).collect();
        assert_eq!(names.len(), listing().len());
    }

    #[test]
    fn paths_are_found_where_they_are_counted() {
        let listed = |path: &str, kind| match find(&path.split('|').collect::<Vec<_>>(), kind) {
            Found::Listed(entry) => format!("{} {}", entry.level, entry.name),
            other => format!("{other:?}"),
        };
        for (path, kind, expected) in [
            ("rt|http|server|127.0.0.1/4140|requests", "counter", "server requests"),
            ("rt|http|client|#/a|status|204", "counter", "client status/<status>"),
            (
                "rt|http|client|#/a|service|svc/b|failures|a.B",
                "counter",
                "client's service failures/[<flag>/]<exception>",
            ),
            (
                "rt|http|client|#/a|http|stream|request|opened",
                "counter",
                "client http/stream/{request,response}/opened",
            ),
            ("rt|http|server|s|failures|rejected|a.B", "counter", "Told"),
            ("rt|http|server|s|requests", "gauge", "Unlisted"),
            ("rt|http|service|s|connects", "counter", "Unlisted"),
            ("rt|http|access_log|dropped", "counter", "router access_log/dropped"),
            ("elsewhere", "counter", "Unlisted"),
        ] {
            assert_eq!(listed(path, kind), expected, "{path}");
        }
    }
}
