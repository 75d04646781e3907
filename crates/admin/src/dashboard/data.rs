//! What the dashboard reads, and anybody may: `/admin/history.json`, `/admin/scopes.json`, `/admin/scope.json`,
//! `/admin/names.json`. Their form is told in docs/dashboard.md.

use std::fmt::Write;
use std::sync::Arc;

use http::{Method, StatusCode};
use l5d_telemetry::history::{History, List, ScopeKind, Series, Sort, WrongQuery};
use l5d_telemetry::{MetricRef, MetricsTree, Visitor, meaning};

use crate::index::json_string;
use crate::{Handler, Request, Response};

/// What a page of data answers a request.
type Answer = Box<dyn Fn(&Request) -> Result<String, WrongQuery> + Send + Sync>;

/// Scopes on one page of a list, and series in one answer: an answer is never larger than somebody can use.
const MOST_ROWS: usize = 200;
const MOST_SCOPES: usize = 50;
const MOST_NAMES: usize = 500;

pub(crate) fn handlers(tree: &MetricsTree, history: &Arc<History>) -> Vec<Handler> {
    let json = |path: &str, answer: Answer| {
        Handler::of(path, move |request| {
            if request.method != Method::GET && request.method != Method::HEAD {
                return Response::method_not_allowed("GET, HEAD");
            }
            match answer(request) {
                Ok(json) => Response::json(json).not_stored(),
                Err(WrongQuery(what)) => Response::text(what).with_status(StatusCode::BAD_REQUEST),
            }
        })
    };
    let (series, list, scope) = (Arc::clone(history), Arc::clone(history), Arc::clone(history));
    let (scope_tree, names_tree) = (tree.clone(), tree.clone());
    vec![
        json("/admin/history.json", Box::new(move |request| history_json(request, &series))),
        json("/admin/scopes.json", Box::new(move |request| Ok(list.list_json(&list_of(request)?)))),
        json("/admin/scope.json", Box::new(move |request| scope_json(request, &scope, &scope_tree))),
        json("/admin/names.json", Box::new(move |request| names_json(request, &names_tree))),
    ]
}

fn wrong(what: impl Into<String>) -> WrongQuery {
    WrongQuery(what.into())
}

fn number<T: std::str::FromStr>(request: &Request, name: &str) -> Result<Option<T>, WrongQuery> {
    let Some(text) = request.query(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| wrong(format!("{name}: {text:?} is not a whole number that fits")))
}

fn history_json(request: &Request, history: &History) -> Result<String, WrongQuery> {
    let scopes = request.queries("scope");
    if scopes.is_empty() {
        return Ok(history.about_json());
    }
    if scopes.len() > MOST_SCOPES {
        return Err(wrong(format!("scope: {} are asked for; {MOST_SCOPES} at most", scopes.len())));
    }
    let metrics = request.queries("metric").iter().flat_map(|list| list.split(',')).map(str::to_owned).collect();
    let (since, step) = (number(request, "since")?, number(request, "step")?);
    history.series_json(&Series { scopes, metrics, since, step })
}

fn list_of(request: &Request) -> Result<List, WrongQuery> {
    let kind = |name: &str| {
        ScopeKind::parse(name).ok_or_else(|| {
            let known = ScopeKind::ALL.map(ScopeKind::name).join(", ");
            wrong(format!("kind: unknown kind {name:?}; known: {known}"))
        })
    };
    let kinds = request.queries("kind").iter().map(|name| kind(name)).collect::<Result<_, _>>()?;
    let given = |name: &str| request.query(name).filter(|text| !text.is_empty());
    Ok(List {
        kinds,
        router: given("router"),
        client: given("client"),
        service: given("service"),
        name: given("name"),
        search: given("q"),
        sort: request.query("sort").map_or_else(|| Ok(Sort::default()), |name| Sort::parse(&name))?,
        reverse: request.flag("reverse"),
        offset: number(request, "offset")?.unwrap_or(0),
        limit: number(request, "limit")?.unwrap_or(25).min(MOST_ROWS),
        spark: request.flag("spark"),
    })
}

/// Every metric of one scope, by its name beneath it.
fn scope_json(request: &Request, history: &History, tree: &MetricsTree) -> Result<String, WrongQuery> {
    let path = request.query("scope").ok_or_else(|| wrong("scope: there is none"))?;
    let keys = history.keys(&path).unwrap_or_default();
    let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
    let mut out = Flat { out: String::from("{"), ..Flat::default() };
    if let Some(scope) = tree.find(&keys).filter(|_| !keys.is_empty()) {
        scope.visit(&mut out);
    }
    Ok(out.out + "}")
}

/// Metrics of the whole tree whose name has a text in it.
fn names_json(request: &Request, tree: &MetricsTree) -> Result<String, WrongQuery> {
    let search = request.query("q").unwrap_or_default().to_lowercase();
    let offset: usize = number(request, "offset")?.unwrap_or(0);
    let limit = number(request, "limit")?.unwrap_or(100).min(MOST_NAMES);
    let words = search.split_whitespace().map(str::to_owned).collect();
    let mut found = Flat { words, offset, limit: Some(limit), help: Some(String::new()), ..Flat::default() };
    tree.visit(&mut found);
    Ok(format!(
        "{{\"total\":{},\"matched\":{},\"metrics\":{{{}}},\"meanings\":{{{}}}}}",
        found.total,
        found.matched,
        found.out,
        found.help.unwrap_or_default()
    ))
}

/// Metrics as the members of an object, a stat as an object of its own.
#[derive(Default)]
struct Flat {
    path: String,
    keys: Vec<String>,
    above: Vec<usize>,
    /// By name: the modern name and the meaning, of those that are told.
    help: Option<String>,
    words: Vec<String>,
    offset: usize,
    limit: Option<usize>,
    total: usize,
    matched: usize,
    out: String,
}

impl Visitor for Flat {
    fn enter(&mut self, key: &str) {
        self.above.push(self.path.len());
        if !self.path.is_empty() {
            self.path.push('/');
        }
        self.path.push_str(key);
        self.keys.push(key.to_owned());
    }

    fn metric(&mut self, metric: MetricRef<'_>) {
        self.total += 1;
        if !self.words.is_empty() {
            let name = self.path.to_lowercase();
            if !self.words.iter().all(|word| name.contains(word)) {
                return;
            }
        }
        self.matched += 1;
        let nth = self.matched - 1;
        if self.limit.is_some_and(|limit| nth < self.offset || nth >= self.offset + limit) {
            return;
        }
        if !self.out.is_empty() && !self.out.ends_with('{') {
            self.out.push(',');
        }
        self.out.push_str(&json_string(&self.path));
        if let Some(help) = &mut self.help {
            let keys: Vec<&str> = self.keys.iter().map(String::as_str).collect();
            if let Some(meaning) = meaning(&keys, &metric) {
                let (name, family, text) =
                    (json_string(&self.path), json_string(meaning.family), json_string(meaning.help));
                let comma = if help.is_empty() { "" } else { "," };
                let _ = write!(help, "{comma}{name}:[{family},{text}]");
            }
        }
        let _ = match metric {
            MetricRef::Counter(value) => write!(self.out, ":{value}"),
            MetricRef::Gauge(value) if value.is_finite() => write!(self.out, ":{value:?}"),
            MetricRef::Gauge(_) => write!(self.out, ":null"),
            MetricRef::Stat(stat) => match stat.summary() {
                None => write!(self.out, ":{{}}"),
                Some(s) => write!(
                    self.out,
                    ":{{\"count\":{},\"min\":{},\"max\":{},\"avg\":{:?},\"p50\":{},\"p90\":{},\"p99\":{}}}",
                    s.count, s.min, s.max, s.avg, s.p50, s.p90, s.p99
                ),
            },
        };
    }

    fn leave(&mut self) {
        self.path.truncate(self.above.pop().unwrap_or(0));
        self.keys.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::tests::request;
    use crate::response::Body;
    use l5d_telemetry::history::HistoryLimits;

    fn ask(uri: &str) -> (u16, String) {
        let tree = MetricsTree::new();
        let service = tree.scope("rt").scope("a").scope("service").scope("svc/web");
        service.counter("requests").add(3);
        service.scope("failures").counter("x.Y").add(2);
        let _gauge = service.gauge("odd", || f64::NAN);
        service.stat("request_latency_ms").add(4);
        let history = Arc::new(History::new(&tree, HistoryLimits::default()));
        history.sample(1_700_000_000);
        let all = handlers(&tree, &history);
        let request = request(Method::GET, uri);
        let handler = all.iter().find(|h| h.path == request.path()).unwrap();
        let response = futures_now((handler.serve)(request));
        let Body::Full(body) = response.body else { panic!("a page") };
        (response.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    }

    /// These handlers answer at once.
    fn futures_now(future: crate::BoxFuture<'static, Response>) -> Response {
        let mut future = future;
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(response) => response,
            std::task::Poll::Pending => panic!("it waits"),
        }
    }

    #[test]
    fn a_scopes_metrics_are_told_by_their_names_beneath_it() {
        let (status, body) = ask("/admin/scope.json?scope=rt/a/service/svc/web");
        assert_eq!(status, 200);
        assert_eq!(body, r#"{"requests":3,"failures/x.Y":2,"odd":null,"request_latency_ms":{}}"#);
        assert_eq!(ask("/admin/scope.json?scope=rt/none"), (200, "{}".into()));
        assert_eq!(ask("/admin/scope.json").0, 400);
    }

    #[test]
    fn names_are_found_by_words() {
        let (_, body) = ask("/admin/names.json?q=WEB+fail");
        assert!(body.contains(r#""matched":1,"metrics":{"rt/a/service/svc/web/failures/x.Y":2},"#), "{body}");
        assert!(
            body.contains(r#""meanings":{"rt/a/service/svc/web/failures/x.Y":["l5d_service_failures_by_cause","#),
            "{body}"
        );
        let (_, body) = ask("/admin/names.json?q=svc&offset=1&limit=1");
        assert!(body.contains(r#""matched":4,"metrics":{"rt/a/service/svc/web/failures/x.Y":2}"#), "{body}");
        let (_, body) = ask("/admin/names.json?q=odd");
        assert!(body.ends_with(r#""metrics":{"rt/a/service/svc/web/odd":null},"meanings":{}}"#), "{body}");
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (uri, what) in [
            ("/admin/scopes.json?kind=x", "kind: unknown kind \"x\"; known: router, server, service, client, pair"),
            ("/admin/scopes.json?limit=-1", "limit: \"-1\" is not a whole number that fits"),
            ("/admin/history.json?scope=a&step=2", "step: there is no step of 2; known: 1, 10"),
        ] {
            assert_eq!(ask(uri), (400, what.to_owned()), "{uri}");
        }
        let many = "scope=a&".repeat(51);
        assert_eq!(ask(&format!("/admin/history.json?{many}")).0, 400);
        let (status, body) = ask("/admin/scopes.json?kind=service&q=WEB&limit=5&spark=1");
        assert!(status == 200 && body.contains(r#""name":"svc/web","requests":3"#), "{body}");
    }
}
