//! The scopes that have a history, and which of their metrics.
//!
//! This is where the layout of the tree is known: `rt/<router>/{server,service,client}/<name>`, and the services beneath a
//! client. A router has no metrics of its own; its history is put together from its servers, services and clients.

/// What a scope is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ScopeKind {
    /// A router: its servers added up, and what its services and clients sent once more.
    Router,
    /// A listening address.
    Server,
    /// A logical name.
    Service,
    /// A concrete name.
    Client,
    /// A logical name at one concrete name.
    Pair,
}

impl ScopeKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Router, Self::Server, Self::Service, Self::Client, Self::Pair];

    /// The kind as it is written: `router`, `server`, `service`, `client`, `pair`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Server => "server",
            Self::Service => "service",
            Self::Client => "client",
            Self::Pair => "pair",
        }
    }

    /// The kind that is written so.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What is kept of a scope of this kind.
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Router => ROUTER,
            Self::Server => SERVER,
            Self::Service => SERVICE,
            Self::Client => CLIENT,
            Self::Pair => PAIR,
        }
    }
}

/// A metric that is kept.
#[derive(Debug)]
pub struct Column {
    /// What it is called in the history.
    pub name: &'static str,
    /// Its unit.
    pub unit: &'static str,
    pub(crate) source: Origin,
}

/// Where a column's values come from: the keys beneath the scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A counter: how much it grew in a step.
    Counter(&'static [&'static str]),
    /// A gauge or level: what it was at the end of a step.
    Gauge(&'static [&'static str]),
    /// The stat `request_latency_ms`, of the requests that ended in a step.
    P50,
    P99,
    Max,
}

impl Column {
    /// Whether a value is what came in a step, so that those of several steps may be added up.
    pub fn is_count(&self) -> bool {
        matches!(self.source, Origin::Counter(_))
    }
}

/// The places of the columns that every kind begins with.
pub(crate) const REQUESTS: usize = 0;
pub(crate) const SUCCESS: usize = 1;
pub(crate) const FAILURES: usize = 2;
pub(crate) const PENDING: usize = 3;
pub(crate) const P50: usize = 4;
pub(crate) const P99: usize = 5;
pub(crate) const MAX: usize = 6;
/// Of routers, services and clients.
pub(crate) const RETRIES: usize = 7;
/// Of clients: connections that did not come about.
pub(crate) const NO_CONNECTION: usize = 9;

const fn counter(name: &'static str, unit: &'static str, keys: &'static [&'static str]) -> Column {
    Column { name, unit, source: Origin::Counter(keys) }
}

const fn gauge(name: &'static str, unit: &'static str, keys: &'static [&'static str]) -> Column {
    Column { name, unit, source: Origin::Gauge(keys) }
}

/// The seven of every kind, then those of one kind.
macro_rules! columns {
    ($($more:expr),* $(,)?) => {
        &[
            counter("requests", "requests", &["requests"]),
            counter("success", "requests", &["success"]),
            counter("failures", "requests", &["failures"]),
            gauge("pending", "requests", &["pending"]),
            Column { name: "p50", unit: "ms", source: Origin::P50 },
            Column { name: "p99", unit: "ms", source: Origin::P99 },
            Column { name: "max", unit: "ms", source: Origin::Max },
            $($more),*
        ]
    };
}

const ROUTER: &[Column] = columns![
    counter("retries", "requests", &[]),
    gauge("connections", "connections", &[]),
    counter("received_bytes", "bytes", &[]),
    counter("sent_bytes", "bytes", &[]),
];

const SERVER: &[Column] = columns![
    gauge("connections", "connections", &["connections"]),
    counter("received_bytes", "bytes", &["received_bytes"]),
    counter("sent_bytes", "bytes", &["sent_bytes"]),
    counter("status_2xx", "responses", &["status", "2XX"]),
    counter("status_3xx", "responses", &["status", "3XX"]),
    counter("status_4xx", "responses", &["status", "4XX"]),
    counter("status_5xx", "responses", &["status", "5XX"]),
];

const SERVICE: &[Column] = columns![
    counter("retries", "requests", &["retries", "total"]),
    gauge("budget", "retries", &["retries", "budget"]),
];

const CLIENT: &[Column] = columns![
    counter("retries", "requests", &["retries", "requeues"]),
    gauge("budget", "retries", &["retries", "budget"]),
    counter("connect_failures", "attempts", &["service_creation", "failures"]),
    gauge("connections", "connections", &["connections"]),
    counter("received_bytes", "bytes", &["received_bytes"]),
    counter("sent_bytes", "bytes", &["sent_bytes"]),
    counter("status_2xx", "responses", &["status", "2XX"]),
    counter("status_3xx", "responses", &["status", "3XX"]),
    counter("status_4xx", "responses", &["status", "4XX"]),
    counter("status_5xx", "responses", &["status", "5XX"]),
    counter("status_error", "attempts", &["status", "error"]),
    gauge("endpoints", "endpoints", &["loadbalancer", "size"]),
    gauge("available", "endpoints", &["loadbalancer", "available"]),
];

const PAIR: &[Column] = columns![];

/// Where a router's history gets what its servers have, as (router's column, server's column).
pub(crate) const FROM_SERVERS: &[(usize, usize)] =
    &[(REQUESTS, REQUESTS), (SUCCESS, SUCCESS), (FAILURES, FAILURES), (PENDING, PENDING), (8, 7), (9, 8), (10, 9)];

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: ScopeKind, name: &str) -> Option<usize> {
        kind.columns().iter().position(|c| c.name == name)
    }

    #[test]
    fn the_columns_are_where_the_sampler_looks_for_them() {
        for kind in ScopeKind::ALL {
            let shared = [("requests", REQUESTS), ("success", SUCCESS), ("failures", FAILURES), ("pending", PENDING)];
            for (name, place) in shared.into_iter().chain([("p50", P50), ("p99", P99), ("max", MAX)]) {
                assert_eq!(at(kind, name), Some(place), "{kind:?} {name}");
            }
            assert!(matches!(at(kind, "retries"), None | Some(RETRIES)), "{kind:?}");
            assert_eq!(ScopeKind::parse(kind.name()), Some(kind));
        }
        use crate::history::entry::{CLIENT_CONNECTIONS, CLIENT_ENDPOINTS, MOST_COLUMNS, SERVER_CONNECTIONS};
        assert!(ScopeKind::ALL.iter().all(|kind| kind.columns().len() <= MOST_COLUMNS));
        assert_eq!(at(ScopeKind::Client, "connect_failures"), Some(NO_CONNECTION));
        assert_eq!(at(ScopeKind::Client, "connections"), Some(CLIENT_CONNECTIONS));
        assert_eq!(at(ScopeKind::Client, "endpoints"), Some(CLIENT_ENDPOINTS));
        assert_eq!(at(ScopeKind::Client, "available"), Some(CLIENT_ENDPOINTS + 1));
        assert_eq!(at(ScopeKind::Server, "connections"), Some(SERVER_CONNECTIONS));
        for &(router, server) in FROM_SERVERS {
            assert_eq!(ROUTER[router].name, SERVER[server].name);
            assert_eq!(ROUTER[router].is_count(), SERVER[server].is_count());
        }
    }
}
