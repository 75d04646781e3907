//! `/delegator.json`: how a name is delegated, step by step (http-behaviour §14).
//!
//! The router's own dtab is not added: callers pass the table they want explained. Without a namespace the configured
//! namers are asked, where Linkerd 1 knows only its built-in names.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header::CONTENT_TYPE};
use l5d_admin::{Handler, Request, Response};
use l5d_http::HttpRouter;
use l5d_namers::{NamerContext, default_interpreter};
use l5d_naming::{Dtab, Interpreter, Namer, Path};

/// How long an explanation may take.
const LIMIT: Duration = Duration::from_secs(2);

pub(crate) fn handler(routers: Vec<Arc<HttpRouter>>, namers: &[Arc<dyn Namer>]) -> Handler {
    let runtime = tokio::runtime::Handle::current();
    let anonymous = default_interpreter(namers, &NamerContext { runtime });
    let routers = Arc::new(routers);
    Handler::new("/delegator.json", move |request| {
        let (routers, anonymous) = (Arc::clone(&routers), Arc::clone(&anonymous));
        async move { serve(&request, &routers, &anonymous).await.unwrap_or_else(|refusal| *refusal) }
    })
}

/// What is to be explained.
struct Question {
    path: Path,
    dtab: Dtab,
    namespace: Option<String>,
}

async fn serve(
    request: &Request,
    routers: &[Arc<HttpRouter>],
    anonymous: &Arc<dyn Interpreter>,
) -> Result<Response, Box<Response>> {
    let question = match request.method {
        Method::GET | Method::HEAD => from_query(request)?,
        Method::POST => from_body(request)?,
        _ => return Err(Box::new(Response::empty(StatusCode::METHOD_NOT_ALLOWED))),
    };
    let name = question.namespace.as_deref().unwrap_or("default");
    let cannot = || {
        let text = format!("Name Interpreter for {name} cannot show delegations");
        Box::new(Response::text(text).with_status(StatusCode::NOT_IMPLEMENTED))
    };
    let interpreter = match &question.namespace {
        None => anonymous,
        Some(label) => routers.iter().find(|r| r.label() == label).ok_or_else(cannot)?.interpreter(),
    };
    let delegator = interpreter.delegator().ok_or_else(cannot)?;
    match tokio::time::timeout(LIMIT, delegator.delegate(&question.dtab, &question.path)).await {
        Ok(Ok(tree)) => Ok(Response::json(tree.to_json())),
        Ok(Err(why)) => Ok(Response::text(why.to_string()).with_status(StatusCode::INTERNAL_SERVER_ERROR)),
        Err(_) => Ok(Response::text("Request timed out.").with_status(StatusCode::SERVICE_UNAVAILABLE)),
    }
}

fn refuse(what: String) -> Box<Response> {
    Box::new(Response::text(what).with_status(StatusCode::BAD_REQUEST))
}

fn read(path: &str, dtab: &str, namespace: Option<String>) -> Result<Question, Box<Response>> {
    let path = Path::read(path).map_err(|e| refuse(format!("Invalid path: {e}")))?;
    let dtab = Dtab::read(dtab).map_err(|e| refuse(format!("Invalid dtab: {e}")))?;
    Ok(Question { path, dtab, namespace })
}

fn from_query(request: &Request) -> Result<Question, Box<Response>> {
    let namespace = request.query("namespace").filter(|n| !n.is_empty());
    read(&request.query("path").unwrap_or_default(), &request.query("dtab").unwrap_or_default(), namespace)
}

fn from_body(request: &Request) -> Result<Question, Box<Response>> {
    let json = HeaderValue::from_static("application/json");
    let kind = request.headers.get(CONTENT_TYPE).unwrap_or(&json);
    if !kind.to_str().is_ok_and(|k| k.split(';').next().unwrap_or("").trim() == "application/json") {
        return Err(Box::new(Response::empty(StatusCode::UNSUPPORTED_MEDIA_TYPE)));
    }
    let malformed = |what: &str| refuse(format!("Malformed delegation request: {what}"));
    let body: serde_json::Value = serde_json::from_slice(&request.body).map_err(|e| malformed(&e.to_string()))?;
    let text = |key: &str| body.get(key).and_then(serde_json::Value::as_str);
    let path = text("path").ok_or_else(|| malformed("'path' must be a string"))?;
    let dtab = text("dtab").ok_or_else(|| malformed("'dtab' must be a string"))?;
    read(path, dtab, text("namespace").map(str::to_owned))
}
