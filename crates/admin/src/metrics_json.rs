//! `/admin/metrics.json`: the whole tree, always there. The format is the telemetry crate's.

use http::StatusCode;
use l5d_telemetry::MetricsTree;
use l5d_telemetry::format::json;

use crate::{Handler, Request, Response};

const TYPE: &str = "application/json";

pub(crate) fn handler(tree: MetricsTree) -> Handler {
    Handler::metrics_of("/admin/metrics.json", TYPE, move |request| serve(request, &tree))
        .in_nav("metrics")
        .as_face("json")
}

fn serve(request: &Request, tree: &MetricsTree) -> Response {
    let options = json::Options { pretty: request.flag("pretty"), tree: request.flag("tree"), q: request.query("q") };
    match json::page(tree, &options) {
        Ok(page) => Response::page(TYPE, page),
        Err(none) => Response::json(none.body()).with_status(StatusCode::NOT_FOUND),
    }
}
