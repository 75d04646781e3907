//! `/admin/tracing`: stops and resumes the recording of requests (http-behaviour §14). The texts are twitter-server's.

use std::sync::Arc;

use l5d_admin::{Handler, Request, Response};
use l5d_telemetry::trace::Tracing;

/// The page. It does what a query asks for and always answers 200.
pub(super) fn handler(tracing: Arc<Tracing>) -> Handler {
    Handler::of("/admin/tracing", move |request| Response::html(answer(request, &tracing)))
}

fn answer(request: &Request, tracing: &Tracing) -> String {
    let asked = |name: &str| request.query(name).is_some_and(|value| value == "true");
    if asked("enable") {
        tracing.enable(true);
        "Enabled Finagle tracing".to_owned()
    } else if asked("disable") {
        tracing.enable(false);
        "Disabling Finagle tracing".to_owned()
    } else {
        // Linkerd repeats the parameters as they are, into a page of HTML.
        let query = request.uri.query().unwrap_or_default();
        let query = query.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let text = "Could not figure out what you wanted to do with tracing. Either enable or disable it.";
        format!("{text} This is what we got: {query}")
    }
}
