//! What pages may know of a router's clients: plain values, taken at one moment.

use std::{sync::Arc, time::Duration};

/// A client.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientView {
    /// The bound id: `/#/io.l5d.fs/web`.
    pub id: String,
    /// What is known of its addresses, as in `client_state.json`: `bound`, `Neg`, `Pending`, `Failed: …`.
    pub state: String,
    /// The balancer's algorithm, by its metric's name.
    pub balancer: &'static str,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
}

/// One address of a client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointView {
    /// `127.0.0.1:80`, or `host/127.0.0.1:80`.
    pub address: Arc<str>,
    /// Its share among the addresses.
    pub weight: f64,
    /// Whether it gets requests.
    pub state: EndpointState,
    /// For how long it has not been alive.
    pub dead_for: Option<Duration>,
    /// When it may be probed, if not yet.
    pub probe_in: Option<Duration>,
    /// Requests that it has now.
    pub in_use: u64,
    /// What the balancer compares.
    pub load: f64,
    /// Connections that wait for work.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
    /// No name leads to it any more; it stays while it is open.
    pub leaving: bool,
    /// Why the last connection that failed did; empty when none has.
    pub last_error: String,
}

/// The states of an endpoint.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum EndpointState {
    /// No request has come to it yet.
    #[default]
    Unused,
    /// In use.
    Live,
    /// Failure accrual leaves it alone.
    Dead,
    /// Its time is over: a request tries it, or the next one will.
    Probing,
    /// It refused a connection, with `failFast`.
    FastFailed,
}

impl EndpointState {
    /// The state as pages write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::Live => "live",
            Self::Dead => "dead",
            Self::Probing => "probing",
            Self::FastFailed => "fast-failed",
        }
    }
}
