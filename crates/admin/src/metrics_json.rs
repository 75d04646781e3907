//! `/admin/metrics.json`: the whole tree, always there. The format is the telemetry crate's.

use http::{Method, StatusCode};
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::json;

use crate::{Handler, Request, Response};

pub(crate) fn handler(tree: MetricsTree) -> Handler {
    Handler::of("/admin/metrics.json", move |request| serve(request, &tree)).in_nav("metrics")
}

fn serve(request: &Request, tree: &MetricsTree) -> Response {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Response::method_not_allowed("GET, HEAD");
    }
    let options = json::Options { pretty: request.flag("pretty"), tree: request.flag("tree"), q: request.query("q") };
    match json::page(tree, &options) {
        Ok(page) => Response::page("application/json", page),
        Err(none) => Response::json(none.body()).with_status(StatusCode::NOT_FOUND),
    }
}
