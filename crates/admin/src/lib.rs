//! The admin server, its handlers and its security. Knows no router.
//!
//! The binary collects [`Handler`]s from everything it has built, adds [`base_handlers`] and their [dashboard](with_dashboard), and
//! gives them to an [`AdminServer`], which listens from [`AdminServer::bind`] on and answers while [`AdminServer::serve`] runs. What a
//! handler says is a [`Response`]; pages of metrics are pulled piece by piece while they are sent, so their size costs no
//! memory and a slow reader costs nobody else anything.

mod body;
mod dashboard;
mod encoding;
mod grace;
mod handler;
mod index;
mod info;
mod logging;
mod metrics;
mod metrics_json;
mod negotiate;
mod pages;
mod ping;
mod request;
mod response;
mod security;
mod server;
mod shutdown;
mod stats;
mod wire;

use std::sync::Arc;

use l5d_telemetry::MetricsTree;

pub use dashboard::Dashboard;
pub use grace::parse_duration;
pub use handler::{BoxFuture, Handler, NavItem};
pub use index::{with_dashboard, with_index};
pub use info::ServerInfo;
pub use logging::LogLevels;
pub use metrics::metrics_handler;
pub use request::Request;
pub use response::{Body, Response};
pub use security::{BadPattern, Security, SecurityConfig};
pub use server::{AdminConfig, AdminServer, BindError, Limits};
pub use shutdown::Shutdown;

/// What the pages that are always there need to know.
pub struct Base {
    /// Written by `/admin/metrics.json` and `/metrics`.
    pub tree: MetricsTree,
    /// Shown by `/admin/server_info`.
    pub info: ServerInfo,
    /// Shown and changed by `/logging.json`.
    pub levels: Arc<dyn LogLevels>,
    /// Told by `/admin/shutdown`.
    pub shutdown: Shutdown,
}

/// The pages that are always there, but for those that list all others: see [`with_index`].
pub fn base_handlers(base: Base) -> Vec<Handler> {
    vec![
        ping::handler(),
        info::handler(base.info),
        shutdown::handler(base.shutdown),
        logging::handler(base.levels),
        metrics_json::handler(base.tree.clone()),
        metrics_handler(base.tree.clone(), Arc::default()),
        metrics::cardinality_handler(base.tree),
    ]
}
