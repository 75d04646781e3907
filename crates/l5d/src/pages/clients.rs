//! `/clients.json`: the clients with their endpoints, for the dashboard and for anyone who asks. `router` and `client`
//! narrow it down.

use std::{sync::Arc, time::Duration};

use http::Method;
use l5d_admin::{Handler, Request, Response};
use l5d_http::{EndpointView, HttpRouter};
use serde_json::{Value, json};

pub(crate) fn handler(routers: Vec<Arc<HttpRouter>>) -> Handler {
    Handler::of("/clients.json", move |request| serve(request, &routers))
}

fn serve(request: &Request, routers: &[Arc<HttpRouter>]) -> Response {
    if request.method != Method::GET && request.method != Method::HEAD {
        return Response::method_not_allowed("GET, HEAD");
    }
    let (label, id) = (request.query("router"), request.query("client"));
    // The metrics' names have no leading slash.
    let id = id.map(|id| if id.starts_with('/') { id } else { format!("/{id}") });
    let chosen = routers.iter().filter(|router| label.as_deref().is_none_or(|label| router.label() == label));
    let clients = chosen.flat_map(|router| {
        router.clients(id.as_deref()).into_iter().map(|client| {
            json!({
                "router": router.label(),
                "id": client.id,
                "state": client.state,
                "balancer": client.balancer,
                "endpoints": client.endpoints.iter().map(endpoint).collect::<Vec<_>>(),
            })
        })
    });
    Response::json(Value::Array(clients.collect()).to_string()).not_stored()
}

fn endpoint(endpoint: &EndpointView) -> Value {
    let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    json!({
        "address": &*endpoint.address,
        "weight": endpoint.weight,
        "state": endpoint.state.name(),
        "dead_for_ms": endpoint.dead_for.map(ms),
        "probe_in_ms": endpoint.probe_in.map(ms),
        "in_use": endpoint.in_use,
        "load": endpoint.load,
        "idle": endpoint.idle,
        "waiting": endpoint.waiting,
        "leaving": endpoint.leaving,
        "last_error": endpoint.last_error,
    })
}
