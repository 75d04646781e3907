//! The admin pages that know routers and namers. One file a page where it is more than a line.

mod clients;
mod delegator;
mod tracing;

use std::{collections::HashSet, sync::Arc};

use l5d_admin::{Handler, Response};
use l5d_http::{HttpRouter, RequestHead, Target};
use l5d_naming::Namer;
use l5d_telemetry::trace::Tracing;
use serde_json::{Map, Value, json};

/// The type that Linkerd's own pages have, as opposed to those of its libraries.
const JSON_UTF8: &str = "application/json;charset=UTF-8";

/// `/config.json`, `/bound-names.json`, `/client_state.json`, `/clients.json`, `/delegator.json`, `/namer_state/…`,
/// `/admin/tracing`.
pub(crate) fn handlers(
    config: String,
    routers: Vec<Arc<HttpRouter>>,
    namers: &[Arc<dyn Namer>],
    tracing: Arc<Tracing>,
) -> Vec<Handler> {
    let config = config.into_bytes();
    let for_names: Vec<_> = namers.to_vec();
    let (for_states, for_clients) = (routers.clone(), routers.clone());
    let mut handlers = vec![
        Handler::of("/config.json", move |_| Response::of(JSON_UTF8, config.clone())).in_nav("config"),
        Handler::of("/bound-names.json", move |_| {
            let mut names: Vec<_> = for_names.iter().flat_map(|n| n.names()).map(|p| p.show()).collect();
            names.sort();
            Response::json(json!(names).to_string())
        }),
        Handler::of("/client_state.json", move |_| Response::of(JSON_UTF8, client_state(&for_states))),
        clients::handler(for_clients),
        delegator::handler(routers, namers),
        tracing::handler(tracing),
    ];
    for namer in namers {
        let prefix = namer.prefix().show();
        let path = format!("/namer_state{}.json", prefix.strip_prefix("/#").unwrap_or(&prefix));
        if namer.state_json().is_some() {
            let namer = Arc::clone(namer);
            handlers.push(Handler::of(path, move |_| Response::json(namer.state_json().unwrap_or_default())));
        }
    }
    handlers
}

/// The clients in the order of their making, each with its state first, as Linkerd writes them. An id that several
/// routers have is written once, as the last of them sees it: a JSON object has a key once.
fn client_state(routers: &[Arc<HttpRouter>]) -> String {
    let states = routers.iter().map(|router| router.client_states());
    let mut states: Vec<_> = states.rev().flat_map(|of_router| of_router.into_iter().rev()).collect();
    let mut seen = HashSet::new();
    states.retain(|(id, ..)| seen.insert(id.clone()));
    let mut entries = Vec::new();
    for (id, state, addresses) in states.into_iter().rev() {
        let addresses: Vec<&str> = addresses.iter().map(|a| &**a).collect();
        entries.push(format!("{}:{{\"state\":{},\"addresses\":{}}}", json!(id), json!(state), json!(addresses)));
    }
    format!("{{{}}}", entries.join(","))
}

/// The page of the identifier port: what each router would call the request (`httpIdentifierPort`).
pub(crate) fn identifier(routers: Vec<Arc<HttpRouter>>) -> Handler {
    Handler::of("/", move |request| {
        let mut all = Map::new();
        for router in &routers {
            let head = Target::read(&request.uri.to_string()).map(|target| RequestHead {
                method: request.method.clone(),
                target,
                version: request.version,
                headers: request.headers.iter().collect(),
            });
            let found = head.ok_or_else(|| "the target can't be read".to_owned());
            let found = match found.and_then(|mut head| router.identify(&mut head)) {
                Err(reason) => json!({ "error": reason }),
                Ok(path) if router.base_dtab().is_empty() => json!({ "path": path.show() }),
                Ok(path) => json!({ "path": path.show(), "dtab": router.base_dtab().to_string() }),
            };
            all.insert(router.label().to_owned(), found);
        }
        Response::json(Value::Object(all).to_string())
    })
}
