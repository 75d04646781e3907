//! `/metrics`: the modern face, always there; and `/admin/metrics/cardinality`, which says what it consists of.
//!
//! The formats are the telemetry crate's. Here is what a request says: the format by `Accept`, bounds of classic buckets by
//! `?buckets=5,10,250` (milliseconds) and `?sizeBuckets=` (bytes), families by `?match=` and `?exclude=` (globs, each as often
//! as one likes), and by `X-Prometheus-Scrape-Timeout-Seconds` how long it waits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::VARY;
use http::{HeaderMap, HeaderValue, StatusCode};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::cardinality::Reporter;
use l5d_telemetry::format::modern::{self, Buckets, Filter, Options};

use crate::negotiate::{TEXT, negotiated};
use crate::{Handler, Request, Response};

/// The page `/metrics` of a tree. A telemeter may give it again, with other buckets.
pub fn metrics_handler(tree: MetricsTree, buckets: Arc<Buckets>) -> Handler {
    Handler::metrics_of("/metrics", TEXT.1, move |request| serve(request, &tree, &buckets)).as_face("modern")
}

pub(crate) fn cardinality_handler(tree: MetricsTree) -> Handler {
    let reporter = Mutex::new(Reporter::default());
    Handler::metrics_of("/admin/metrics/cardinality", PLAIN, move |request| {
        let report = reporter.lock().unwrap_or_else(PoisonError::into_inner).report(&tree);
        match request.query("format").as_deref() {
            Some("json") => Response::json(report.json()),
            None if wants_json(&request.headers) => Response::json(report.json()),
            None | Some("text") => Response::of(PLAIN, report.text()),
            Some(other) => bad(&format!("format: unknown format \"{other}\"; known: json, text")),
        }
    })
}

fn serve(request: &Request, tree: &MetricsTree, buckets: &Arc<Buckets>) -> Response {
    let (format, content_type) = negotiated(&request.headers);
    let buckets = match asked(request, buckets) {
        Ok(buckets) => buckets,
        Err(why) => return bad(&why),
    };
    let filter = Filter { matching: request.queries("match"), exclude: request.queries("exclude") };
    let options = Options { format, buckets, filter, timeout: timeout(&request.headers) };
    Response::page(content_type, modern::page(tree, options)).with_header(VARY, HeaderValue::from_static("Accept"))
}

/// The buckets that the request asks for, or else those of the configuration.
fn asked(request: &Request, configured: &Arc<Buckets>) -> Result<Arc<Buckets>, String> {
    let list = |name: &str| {
        let Some(text) = request.query(name) else { return Ok(None) };
        let bounds = text
            .split(',')
            .map(|bound| bound.trim().parse::<f64>().map_err(|_| format!("{name}: \"{bound}\" is no number")));
        bounds.collect::<Result<Vec<f64>, String>>().map(Some)
    };
    let (times, sizes) = (list("buckets")?, list("sizeBuckets")?);
    if times.is_none() && sizes.is_none() {
        return Ok(Arc::clone(configured));
    }
    let mut buckets = Buckets::clone(configured);
    if let Some(times) = times {
        buckets = buckets.with_millis(&times).map_err(|why| format!("buckets: {why}"))?;
    }
    if let Some(sizes) = sizes {
        buckets = buckets.with_bytes(&sizes).map_err(|why| format!("sizeBuckets: {why}"))?;
    }
    Ok(Arc::new(buckets))
}

/// How long the scraper waits, if it says so.
fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get("x-prometheus-scrape-timeout-seconds")?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|timeout| !timeout.is_zero())
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(http::header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("application/json"))
}

fn bad(why: &str) -> Response {
    Response::of(PLAIN, format!("{why}\n")).with_status(StatusCode::BAD_REQUEST)
}

const PLAIN: &str = "text/plain; charset=utf-8";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Body;
    use crate::request::tests::request;
    use http::Method;
    use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};

    async fn ask(handler: &Handler, uri: &str, headers: &[(&'static str, &str)]) -> (StatusCode, HeaderMap, String) {
        let mut get = request(Method::GET, uri);
        for (name, value) in headers {
            get.headers.insert(*name, value.parse().unwrap());
        }
        let response = (handler.serve)(get).await;
        let mut text = Vec::new();
        match response.body {
            Body::Full(bytes) => text.extend_from_slice(&bytes),
            Body::Page(mut page) => while page.fill(&mut text) {},
        }
        (response.status, response.headers, String::from_utf8(text).unwrap())
    }

    fn tree() -> MetricsTree {
        let tree = MetricsTree::new();
        let server = tree.scope("rt").scope("http").scope("server").scope("s");
        server.counter("requests").add(7);
        server.stat("request_latency_ms").add(7);
        tree
    }

    #[tokio::test]
    async fn a_request_chooses_format_buckets_and_families() {
        let handler = metrics_handler(tree(), Arc::default());
        let (status, headers, body) = ask(&handler, "/metrics", &[]).await;
        assert_eq!(status, StatusCode::OK);
        for (name, value) in [(CONTENT_TYPE, TEXT.1), (CACHE_CONTROL, "no-store"), (VARY, "Accept")] {
            assert_eq!(headers[&name], value);
        }
        assert!(body.contains("l5d_server_requests_total{router=\"http\",server=\"s\"} 7\n"), "{body}");
        let accept = [("accept", "application/openmetrics-text; version=1.0.0")];
        let uri = "/metrics?buckets=5,10,250&match=l5d_server_*&match=x&exclude=*requests";
        let (_, headers, body) = ask(&handler, uri, &accept).await;
        assert_eq!(headers[CONTENT_TYPE], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        let bounds: Vec<&str> = body.lines().filter_map(|line| line.split("le=\"").nth(1)?.split('"').next()).collect();
        assert_eq!(bounds, ["0.005", "0.01", "0.25", "+Inf"]);
        assert!(!body.contains("requests_total") && body.ends_with("# EOF\n"), "{body}");
    }

    #[tokio::test]
    async fn a_request_that_makes_no_sense_is_told_so() {
        let handler = metrics_handler(tree(), Arc::default());
        for (query, why) in [
            ("buckets=5,x", "buckets: \"x\" is no number\n"),
            ("buckets=", "buckets: \"\" is no number\n"),
            ("buckets=-1", "buckets: -1 is no bound: a bound is a number from 0 to 1000000000\n"),
            ("sizeBuckets=inf", "sizeBuckets: inf is no bound: a bound is a number from 0 to 1000000000\n"),
        ] {
            let (status, headers, body) = ask(&handler, &format!("/metrics?{query}"), &[]).await;
            assert_eq!((status, body.as_str()), (StatusCode::BAD_REQUEST, why));
            assert_eq!(headers[CONTENT_TYPE], PLAIN);
        }
    }

    #[test]
    fn only_a_time_is_a_timeout() {
        for (text, expected) in
            [("10", Some(10_000)), ("0.25", Some(250)), ("0", None), ("-1", None), ("x", None), ("inf", None)]
        {
            let mut headers = HeaderMap::new();
            headers.insert("X-Prometheus-Scrape-Timeout-Seconds", text.parse().unwrap());
            assert_eq!(timeout(&headers), expected.map(Duration::from_millis), "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[tokio::test]
    async fn cardinality_comes_as_text_and_as_json() {
        let handler = cardinality_handler(tree());
        let (_, headers, body) = ask(&handler, "/admin/metrics/cardinality", &[]).await;
        assert_eq!(headers[CONTENT_TYPE], PLAIN);
        assert!(body.starts_with("2 metrics, no limit\n"), "{body}");
        for (uri, accept) in [("?format=json", "*/*"), ("", "application/json")] {
            let uri = format!("/admin/metrics/cardinality{uri}");
            let (_, headers, body) = ask(&handler, &uri, &[(ACCEPT.as_str(), accept)]).await;
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            assert!(body.starts_with("{\"series\":2,"), "{body}");
        }
        assert_eq!(ask(&handler, "/admin/metrics/cardinality?format=xml", &[]).await.0, StatusCode::BAD_REQUEST);
    }
}
