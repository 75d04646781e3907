//! The overview's numbers as plain tables: what there is to see without JavaScript, and before it has run.

use std::fmt::Write;

use l5d_telemetry::history::{History, List, Row, ScopeKind};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::index::escaped;

/// How many services, and how many clients.
const ROWS: usize = 25;

pub(crate) fn body(history: &History) -> String {
    let mut out = String::from("<h1>Overview</h1>\n");
    for (kind, title) in [
        (ScopeKind::Router, "Routers"),
        (ScopeKind::Server, "Servers"),
        (ScopeKind::Service, "Services"),
        (ScopeKind::Client, "Clients"),
    ] {
        let listed = history.list(&List { kinds: vec![kind], limit: ROWS, ..List::default() });
        let _ = writeln!(
            out,
            "<section class=\"card plain\">\n<h2>{title} <small>{} in all, {} failing</small></h2>",
            listed.total, listed.failing
        );
        if listed.rows.is_empty() {
            let _ = writeln!(
                out,
                "<p>None yet: {}.</p>\n</section>",
                if kind == ScopeKind::Router {
                    "the first second is not over"
                } else {
                    "they come with the first request"
                }
            );
            continue;
        }
        out.push_str(
            "<table>\n<thead><tr><th>name</th><th>state</th><th>requests/s</th><th>success</th><th>p50</th><th>p99</th>\
             <th>in flight</th><th>requests, all</th></tr></thead>\n<tbody>\n",
        );
        for row in &listed.rows {
            write_row(&mut out, row);
        }
        out.push_str("</tbody>\n</table>\n</section>\n");
    }
    out
}

fn write_row(out: &mut String, row: &Row) {
    let name = escaped(&row.name);
    let name = match row.kind {
        ScopeKind::Router => name,
        kind => {
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            format!(
                "<a href=\"/{}?router={}&amp;name={}\">{name}</a>",
                kind.name(),
                encoded(&row.router),
                encoded(&row.name)
            )
        }
    };
    let state = if row.failing {
        "failing"
    } else if row.stuck_since > 0 {
        "no answers"
    } else if row.requests_10s == 0 {
        "idle"
    } else {
        "ok"
    };
    let all = row.requests_10s.max(row.bad_10s);
    let success = if all == 0 {
        "–".to_owned()
    } else {
        format!("{:.2} %", 100.0 * (all - row.bad_10s.min(all)) as f64 / all as f64)
    };
    let (p50, p99) =
        row.latency.map_or_else(|| ("–".into(), "–".into()), |l| (format!("{} ms", l[0]), format!("{} ms", l[1])));
    let _ = writeln!(
        out,
        "<tr><td>{name}</td><td>{state}</td><td>{:.1}</td><td>{success}</td><td>{p50}</td><td>{p99}</td><td>{}</td><td>{}</td></tr>",
        row.requests_10s as f64 / row.seconds.max(1) as f64,
        row.pending,
        row.requests
    );
}
