//! `/admin/grafana.json`: a Grafana dashboard of this instance's routers, to be imported as it is.
//!
//! The queries are those that the charts of our own pages show (`assets/queries.json`): with Linkerd's names, for a Prometheus
//! that scrapes `/admin/metrics/prometheus`, or with `?face=modern`, for one that scrapes `/metrics`.

use std::sync::Arc;

use http::{Method, StatusCode};
use l5d_telemetry::history::{History, List, ScopeKind};
use serde_json::{Value, json};

use crate::{Handler, Response};

/// More routers than anybody has; a dashboard with more could not be opened.
const MOST_ROUTERS: usize = 50;

pub(crate) fn handler(history: Arc<History>) -> Handler {
    let queries: Value = serde_json::from_slice(include_bytes!("../../assets/queries.json")).expect("a test reads it");
    Handler::of("/admin/grafana.json", move |request| {
        if request.method != Method::GET && request.method != Method::HEAD {
            return Response::method_not_allowed("GET, HEAD");
        }
        let list = List { kinds: vec![ScopeKind::Router], limit: MOST_ROUTERS, ..List::default() };
        let routers: Vec<String> = history.list(&list).rows.iter().map(|row| row.name.to_string()).collect();
        let face = match request.query("face").as_deref() {
            None | Some("legacy") => "legacy",
            Some("modern") => "modern",
            Some(other) => {
                let what = format!("face: there is no face {other:?}; known: legacy, modern");
                return Response::text(what).with_status(StatusCode::BAD_REQUEST);
            }
        };
        Response::json(dashboard(&queries, &routers, face).to_string()).not_stored()
    })
}

/// A PromQL string.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

fn dashboard(queries: &Value, routers: &[String], face: &str) -> Value {
    let mut panels = Vec::new();
    let mut y = 0;
    for label in routers {
        for (kind, title) in [
            ("router", "requests as callers see them"),
            ("service", "services: $service"),
            ("client", "clients: $client"),
        ] {
            let id = panels.len() + 1;
            let at = json!({"h": 1, "w": 24, "x": 0, "y": y});
            panels.push(json!({
                "id": id, "type": "row", "title": format!("{label} · {title}"), "collapsed": false, "gridPos": at,
                "panels": [],
            }));
            y += 1;
            for (i, chart) in queries[kind].as_array().into_iter().flatten().enumerate() {
                let (column, row) = (i % 3, i / 3);
                let at = json!({"h": 8, "w": 8, "x": column * 8, "y": y + row * 8});
                panels.push(panel(panels.len() + 1, chart, label, face, &at));
            }
            y += queries[kind].as_array().map_or(0, |charts| charts.len().div_ceil(3)) * 8;
        }
    }
    let (page, of_service, of_client) = match face {
        "modern" => ("/metrics", "l5d_service_requests_total, service", "l5d_client_requests_total, client"),
        _ => ("/admin/metrics/prometheus", "rt:service:requests, service", "rt:client:requests, client"),
    };
    json!({
        "title": "l5d",
        "uid": null,
        "tags": ["l5d", "linkerd"],
        "timezone": "browser",
        "editable": true,
        "schemaVersion": 36,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "__inputs": [{
            "name": "DS_PROMETHEUS", "label": "Prometheus", "type": "datasource", "pluginId": "prometheus",
            "description": format!("the Prometheus that scrapes {page}"),
        }],
        "templating": {"list": [
            variable("service", &format!("label_values({of_service})")),
            variable("client", &format!("label_values({of_client})")),
        ]},
        "panels": panels,
    })
}

fn variable(name: &str, query: &str) -> Value {
    json!({
        "name": name, "type": "query", "label": name, "query": query, "definition": query, "refresh": 2, "sort": 1,
        "includeAll": true, "allValue": ".*", "multi": true, "current": {"text": "All", "value": "$__all"},
        "datasource": {"type": "prometheus", "uid": "${DS_PROMETHEUS}"},
    })
}

fn panel(id: usize, chart: &Value, router: &str, face: &str, at: &Value) -> Value {
    let unit = match chart["unit"].as_str().unwrap_or_default() {
        "/s" => "reqps",
        "ratio" => "percentunit",
        "ms" => "ms",
        "bytes/s" => "Bps",
        _ => "short",
    };
    let source = json!({"type": "prometheus", "uid": "${DS_PROMETHEUS}"});
    let lines = chart["lines"].as_array().into_iter().flatten();
    let told = lines.filter_map(|line| Some((line, line[face].as_str()?)));
    let targets = told.enumerate().map(|(i, (line, expression))| {
        let expression = expression
            .replace("<rt>", &format!("rt={}", quoted(router)))
            .replace("<router>", &format!("router={}", quoted(router)))
            .replace("<service>", "service=~\"$service\"")
            .replace("<client>", "client=~\"$client\"")
            .replace("<server>", "server=~\".*\"");
        json!({
            "refId": char::from(b'A' + (i % 26) as u8).to_string(), "expr": expression,
            "legendFormat": line["name"], "datasource": source,
        })
    });
    json!({
        "id": id, "type": "timeseries", "title": chart["title"], "gridPos": at, "datasource": source,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_router_has_its_panels_and_its_name_is_quoted() {
        let queries: Value = serde_json::from_slice(include_bytes!("../../assets/queries.json")).unwrap();
        for kind in ["router", "server", "service", "client"] {
            assert!(queries[kind].as_array().is_some_and(|charts| charts.len() >= 4), "{kind}");
        }
        for (face, label) in [("legacy", "rt"), ("modern", "router")] {
            let dashboard = dashboard(&queries, &["a\"b\\".to_owned(), "http".to_owned()], face);
            let panels = dashboard["panels"].as_array().unwrap();
            let rows = panels.iter().filter(|panel| panel["type"] == "row").count();
            assert_eq!(rows, 6);
            let expressions: Vec<&str> = panels
                .iter()
                .filter_map(|panel| panel["targets"].as_array())
                .flatten()
                .map(|target| target["expr"].as_str().unwrap())
                .collect();
            assert!(expressions.iter().all(|e| !e.is_empty() && !e.contains('<')), "{expressions:?}");
            assert!(expressions.iter().any(|e| e.contains(&format!(r#"{label}="a\"b\\""#))), "{expressions:?}");
            let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
            ids.dedup();
            assert_eq!(ids.len(), panels.len());
        }
    }
}
