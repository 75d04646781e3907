//! What the history answers: lists of scopes with their numbers of now, and series of one scope, as JSON.
//!
//! Documented for anyone in docs/dashboard.md; the admin crate serves it.

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::format::labels::push_json;
use crate::history::entry::Entry;
use crate::history::scope::{FAILURES, REQUESTS, ScopeKind};
use crate::history::{COARSE, History, Router, State};

/// Points of a spark line, and the seconds that each of them stands for.
const SPARK: (u64, u64) = (60, 5);

/// Which scopes to list, and how.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Only these kinds; all when empty.
    pub kinds: Vec<ScopeKind>,
    /// Only of this router.
    pub router: Option<String>,
    /// Only pairs of this client.
    pub client: Option<String>,
    /// Only pairs of this service.
    pub service: Option<String>,
    /// Only this one.
    pub name: Option<String>,
    /// Only those whose name has this in it, whatever its case.
    pub search: Option<String>,
    /// What comes first.
    pub sort: Sort,
    /// The other way round.
    pub reverse: bool,
    /// How many to pass over.
    pub offset: usize,
    /// How many to list at most.
    pub limit: usize,
    /// Whether with spark lines of the last five minutes.
    pub spark: bool,
}

/// What comes first in a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// What fails most, then what waits for answers that don't come, then what is busiest.
    #[default]
    Attention,
    /// By name.
    Name,
    /// The most requests.
    Rate,
    /// The largest share of failures.
    Failures,
    /// The slowest.
    P99,
    /// The most requests in flight.
    Pending,
    /// The most retries.
    Retries,
}

impl Sort {
    const NAMES: [(&'static str, Self); 7] = [
        ("attention", Self::Attention),
        ("name", Self::Name),
        ("rate", Self::Rate),
        ("failures", Self::Failures),
        ("p99", Self::P99),
        ("pending", Self::Pending),
        ("retries", Self::Retries),
    ];

    /// The order of this name.
    ///
    /// # Errors
    /// When there is none; with those that there are.
    pub fn parse(name: &str) -> Result<Self, WrongQuery> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, sort)| *sort).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            WrongQuery(format!("sort: unknown order {name:?}; known: {}", known.join(", ")))
        })
    }
}

/// Which series to tell.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// The scopes, as `metrics.json` would write them: `rt/http/service/svc/web`.
    pub scopes: Vec<String>,
    /// The columns; all when empty.
    pub metrics: Vec<String>,
    /// The first second, since 1970, or when negative, before now. `None` for all that is kept.
    pub since: Option<i64>,
    /// Seconds in a step, 1 or 10; `None` for 1 as long as that reaches back far enough.
    pub step: Option<u64>,
}

/// What is wrong with a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongQuery(pub String);

impl fmt::Display for WrongQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongQuery {}

impl State {
    fn find(&self, path: &str) -> Option<&Entry> {
        // Of scopes whose keys join to the same text the first one is told.
        self.routers.iter().flat_map(Router::entries).find(|entry| &*entry.path == path && entry.lives())
    }
}

impl History {
    /// The keys that lead to a scope, given by its path.
    pub fn keys(&self, path: &str) -> Option<Vec<Arc<str>>> {
        self.state().find(path).map(Entry::keys)
    }

    /// What there is and how full it is: spans, memory, columns of each kind.
    pub fn about_json(&self) -> String {
        let (now, status) = (self.state().now, self.status());
        let mut out = format!(
            "{{\"now\":{now},\"steps\":[{{\"step\":1,\"span\":{}}},{{\"step\":{COARSE},\"span\":{}}}],\
             \"memory\":{{\"limit\":{},\"used\":{}}},\"scopes\":{{\"kept\":{},\"left_out\":{}}},\"metrics\":{{",
            self.spans.fine,
            self.spans.coarse as u64 * COARSE,
            self.limits.memory,
            status.bytes,
            status.kept,
            status.left_out
        );
        for (i, kind) in ScopeKind::ALL.into_iter().enumerate() {
            let _ = write!(out, "{}\"{}\":[", if i > 0 { "," } else { "" }, kind.name());
            for (i, column) in kind.columns().iter().enumerate() {
                let what = if column.is_count() { "count" } else { "value" };
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(
                    out,
                    "{comma}{{\"name\":\"{}\",\"unit\":\"{}\",\"is\":\"{what}\"}}",
                    column.name, column.unit
                );
            }
            out.push(']');
        }
        out.push_str("}}");
        out
    }

    /// Series of scopes, oldest value first; `null` where nothing is kept.
    ///
    /// # Errors
    /// When a column or step is asked for that there isn't. A scope that isn't there is told as such in the answer.
    pub fn series_json(&self, series: &Series) -> Result<String, WrongQuery> {
        let state = self.state();
        let now = state.now;
        let fine = self.spans.fine as u64;
        let coarse = self.spans.coarse as u64 * COARSE;
        let back = |since: i64| match u64::try_from(since) {
            Ok(at) => now.saturating_sub(at),
            Err(_) => since.unsigned_abs(),
        };
        let wanted = series.since.map(back);
        let (step, span) = match (series.step, wanted) {
            (Some(1), _) => (1, fine),
            (Some(COARSE), _) => (COARSE, coarse),
            (Some(step), _) => return Err(WrongQuery(format!("step: there is no step of {step}; known: 1, {COARSE}"))),
            (None, Some(wanted)) if wanted <= fine => (1, fine),
            (None, _) => (COARSE, coarse),
        };
        let last = now / step;
        let rows = wanted.unwrap_or(span).min(span).div_ceil(step);
        let first = (last + 1).saturating_sub(rows);
        let mut out = format!("{{\"now\":{now},\"step\":{step},\"from\":{},\"scopes\":[", first * step);
        for (i, path) in series.scopes.iter().enumerate() {
            out.push_str(if i > 0 { ",{\"scope\":" } else { "{\"scope\":" });
            string(&mut out, path);
            let Some(entry) = state.find(path) else {
                out.push_str(",\"found\":false}");
                continue;
            };
            let _ = write!(out, ",\"found\":true,\"kind\":\"{}\"", entry.kind.name());
            let columns = entry.kind.columns();
            let mut chosen = Vec::new();
            for metric in &series.metrics {
                match columns.iter().position(|c| c.name == metric) {
                    Some(at) => chosen.push(at),
                    None if ScopeKind::ALL.iter().any(|k| k.columns().iter().any(|c| c.name == metric)) => {}
                    None => {
                        let known: Vec<_> = columns.iter().map(|c| c.name).collect();
                        return Err(WrongQuery(format!(
                            "metric: unknown metric {metric:?}; known of a {}: {}",
                            entry.kind.name(),
                            known.join(", ")
                        )));
                    }
                }
            }
            if series.metrics.is_empty() {
                chosen = (0..columns.len()).collect();
            }
            let value =
                |at, column| if step == 1 { entry.second(at, column, now) } else { entry.ten_seconds(at, column) };
            let _ = write!(out, ",\"kept\":{},\"metrics\":{{", entry.is_kept());
            for (i, &column) in chosen.iter().enumerate() {
                let _ = write!(out, "{}\"{}\":[", if i > 0 { "," } else { "" }, columns[column].name);
                if entry.is_kept() {
                    values(&mut out, (first..=last).map(|at| value(at, column)));
                }
                out.push(']');
            }
            out.push_str("}}");
        }
        out.push_str("]}");
        Ok(out)
    }

    /// Scopes with their numbers of now.
    pub fn list(&self, list: &List) -> Listed {
        let mut state = self.state();
        state.settle();
        let search = list.search.as_ref().map(|text| text.to_lowercase()).filter(|text| !text.is_empty());
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|w| w == text);
        let chosen = |entry: &&Entry| {
            (list.kinds.is_empty() || list.kinds.contains(&entry.kind))
                && entry.lives()
                && is(&list.router, &entry.router)
                && is(&list.name, &entry.name)
                && (list.client.is_none()
                    || (entry.kind == ScopeKind::Pair && is(&list.client, entry.client.as_deref().unwrap_or(""))))
                && (list.service.is_none() || (entry.kind == ScopeKind::Pair && is(&list.service, &entry.name)))
        };
        let (mut total, mut failing) = (0, 0);
        let mut matched: Vec<(&Entry, f64)> = Vec::new();
        for entry in state.routers.iter().flat_map(Router::entries).filter(chosen) {
            total += 1;
            failing += usize::from(entry.now.is_failing());
            if search.as_ref().is_none_or(|text| entry.name.to_lowercase().contains(text)) {
                matched.push((entry, key(list.sort, entry)));
            }
        }
        if list.sort == Sort::Name {
            matched.sort_by(|(a, _), (b, _)| (&a.name, &a.path).cmp(&(&b.name, &b.path)));
        } else {
            // Ties keep an order, so that rows don't jump.
            matched.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.path.cmp(&b.path)));
        }
        if list.reverse {
            matched.reverse();
        }
        let page = matched.iter().skip(list.offset).take(list.limit);
        let rows = page.map(|(entry, _)| Row::of(entry, state.now, list.spark)).collect();
        Listed { now: state.now, total, failing, matched: matched.len(), rows }
    }

    /// Scopes with their numbers of now, as JSON.
    pub fn list_json(&self, list: &List) -> String {
        let listed = self.list(list);
        let mut out = format!(
            "{{\"now\":{},\"total\":{},\"matched\":{},\"failing\":{},\"rows\":[",
            listed.now, listed.total, listed.matched, listed.failing
        );
        for (i, row) in listed.rows.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            row.write(&mut out);
        }
        out.push_str("]}");
        out
    }
}

/// A list of scopes.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The second that the numbers are of, since 1970.
    pub now: u64,
    /// How many scopes there are of what was asked for, whatever was searched.
    pub total: usize,
    /// How many of those fail.
    pub failing: usize,
    /// How many were found.
    pub matched: usize,
    /// Those of them that are on the page.
    pub rows: Vec<Row>,
}

/// A scope with its numbers of now.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Its keys, joined.
    pub scope: String,
    /// What it is.
    pub kind: ScopeKind,
    /// Its router's label.
    pub router: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Of a pair: the client's name.
    pub client: Option<Arc<str>>,
    /// All requests so far.
    pub requests: u64,
    /// Those that went well.
    pub success: u64,
    /// Those that failed.
    pub failures: u64,
    /// What was sent once more.
    pub retries: u64,
    /// Requests in flight.
    pub pending: u64,
    /// How many seconds the next two numbers are of: ten, unless the scope is younger.
    pub seconds: u64,
    /// Requests of the last ten seconds.
    pub requests_10s: u64,
    /// What went wrong in the last ten seconds.
    pub bad_10s: u64,
    /// Median, 99th percentile and maximum of the last ten whole seconds; of the last minute when there are no rings.
    pub latency: Option<[u64; 3]>,
    /// Of routers, servers and clients: open connections.
    pub connections: Option<u64>,
    /// Of clients: addresses, and how many of them may be picked.
    pub endpoints: Option<(u64, u64)>,
    /// Whether a hundredth or more of the last ten seconds failed.
    pub failing: bool,
    /// Since when it fails, with pauses of less than a minute; 0 when it doesn't.
    pub failing_since: u64,
    /// Since when requests wait and none ends; 0 when that is not so.
    pub stuck_since: u64,
    /// Whether it has rings.
    pub kept: bool,
    /// Requests and failures of the last five minutes, in steps of five seconds.
    pub spark: Option<[Vec<Option<u64>>; 2]>,
}

impl Row {
    fn of(entry: &Entry, second: u64, spark: bool) -> Self {
        let now = &entry.now;
        Self {
            scope: entry.path.to_string(),
            kind: entry.kind,
            router: Arc::clone(&entry.router),
            name: Arc::clone(&entry.name),
            client: entry.client.clone(),
            requests: now.requests,
            success: now.success,
            failures: now.failures,
            retries: now.retries,
            pending: now.pending,
            seconds: now.seconds(second),
            requests_10s: now.in_ten_seconds(),
            bad_10s: now.bad_in_ten_seconds(),
            latency: now.latency,
            connections: now.connections,
            endpoints: now.endpoints,
            failing: now.is_failing(),
            failing_since: now.failing_since,
            stuck_since: now.stuck_since,
            kept: entry.is_kept(),
            spark: (spark && entry.is_kept())
                .then(|| [REQUESTS, FAILURES].map(|column| five_seconds(entry, column, second))),
        }
    }

    fn write(&self, out: &mut String) {
        out.push_str("{\"scope\":");
        string(out, &self.scope);
        let _ = write!(out, ",\"kind\":\"{}\",\"router\":", self.kind.name());
        string(out, &self.router);
        out.push_str(",\"name\":");
        string(out, &self.name);
        if let Some(client) = &self.client {
            out.push_str(",\"client\":");
            string(out, client);
        }
        for (name, value) in [
            ("requests", Some(self.requests)),
            ("success", Some(self.success)),
            ("failures", Some(self.failures)),
            ("retries", Some(self.retries)),
            ("pending", Some(self.pending)),
            ("seconds", Some(self.seconds)),
            ("requests_10s", Some(self.requests_10s)),
            ("bad_10s", Some(self.bad_10s)),
            ("p50", self.latency.map(|l| l[0])),
            ("p99", self.latency.map(|l| l[1])),
            ("max", self.latency.map(|l| l[2])),
            ("connections", self.connections),
            ("endpoints", self.endpoints.map(|e| e.0)),
            ("available", self.endpoints.map(|e| e.1)),
            ("failing_since", Some(self.failing_since).filter(|&since| since > 0)),
            ("stuck_since", Some(self.stuck_since).filter(|&since| since > 0)),
        ] {
            if let Some(value) = value {
                let _ = write!(out, ",\"{name}\":{value}");
            }
        }
        let _ = write!(out, ",\"failing\":{},\"kept\":{}", self.failing, self.kept);
        if let Some(spark) = &self.spark {
            let _ = write!(out, ",\"spark\":{{\"step\":{}", SPARK.1);
            for (name, points) in ["requests", "failures"].into_iter().zip(spark) {
                let _ = write!(out, ",\"{name}\":[");
                values(out, points.iter().copied());
                out.push(']');
            }
            out.push('}');
        }
        out.push('}');
    }
}

/// What a list is sorted by, the largest first.
fn key(sort: Sort, entry: &Entry) -> f64 {
    let now = &entry.now;
    let (requests, bad) = (now.in_ten_seconds() as f64, now.bad_in_ten_seconds() as f64);
    match sort {
        Sort::Name => 0.0,
        Sort::Rate => requests,
        Sort::Pending => now.pending as f64,
        Sort::P99 => now.latency.map_or(-1.0, |[_, p99, _]| p99 as f64),
        Sort::Failures => bad / requests.max(bad).max(1.0),
        Sort::Retries => now.retries as f64,
        Sort::Attention => {
            let trouble = match (now.is_failing(), now.stuck_since > 0, now.failing_since > 0) {
                (true, ..) => 3e12 + bad * 1e6,
                (false, true, _) => 2e12,
                (false, false, true) => 1e12,
                _ => 0.0,
            };
            trouble + requests
        }
    }
}

/// What came in each five seconds that have ended, oldest first.
fn five_seconds(entry: &Entry, column: usize, second: u64) -> Vec<Option<u64>> {
    let (points, step) = SPARK;
    let last = second / step;
    let steps = (last + 1).saturating_sub(points)..=last;
    let came = steps.map(|point| {
        let seconds = point.saturating_sub(1) * step + 1..=point * step;
        seconds.filter_map(|at| entry.second(at, column, second)).reduce(|a, b| a + b)
    });
    came.collect()
}

fn values(out: &mut String, values: impl Iterator<Item = Option<u64>>) {
    for (i, value) in values.enumerate() {
        if i > 0 {
            out.push(',');
        }
        match value {
            Some(value) => {
                let _ = write!(out, "{value}");
            }
            None => out.push_str("null"),
        }
    }
}

/// A JSON string with its quotes.
fn string(out: &mut String, text: &str) {
    let mut bytes = vec![b'"'];
    push_json(&mut bytes, text);
    bytes.push(b'"');
    out.push_str(&String::from_utf8(bytes).expect("escaping keeps text text"));
}
