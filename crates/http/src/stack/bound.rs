//! The bound stack: what a logical name has been bound to. It adds the residual, keeps the counts of the logical name
//! beneath the client, and chooses where a union leaves a choice (http-behaviour §4.3, §4.4).

use std::sync::{Arc, OnceLock};

use l5d_naming::Path;
use l5d_router::{cache::CacheLease, stats::RequestStats};

use crate::{scopes::Scoped, stack::client::Client};

/// A bound id with a residual: one entry of the bound cache, shared by every name that binds to it.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) client: CacheLease<Arc<Scoped<Arc<Client>>>>,
    pub(crate) residual: Option<Box<str>>,
}

impl Bound {
    pub(crate) fn new(client: CacheLease<Arc<Scoped<Arc<Client>>>>, residual: &Path) -> Self {
        let residual = (!residual.is_empty()).then(|| residual.show().into());
        Self { client, residual }
    }
}

/// A logical name's way to a bound: the bound, and the counts of the name beneath its client.
#[derive(Debug)]
pub(crate) struct Leaf {
    pub(crate) bound: CacheLease<Bound>,
    pub(crate) service_stats: OnceLock<Arc<Scoped<Arc<RequestStats>>>>,
    /// How the name came here, for traces: worked out when the first one wants to know.
    pub(crate) way: OnceLock<Option<Arc<str>>>,
}

impl Leaf {
    pub(crate) fn new(bound: CacheLease<Bound>) -> Arc<Self> {
        Arc::new(Self { bound, service_stats: OnceLock::new(), way: OnceLock::new() })
    }
}

/// What a name's tree comes to, with the clients in place of the names.
#[derive(Debug)]
pub(crate) enum Choice {
    /// No route: negative, failed or empty.
    None,
    /// One way.
    One(Arc<Leaf>),
    /// Ways by weight.
    Union(Arc<[(f64, Self)]>),
}

impl Choice {
    /// One of the ways, at random by weight.
    pub(crate) fn pick(&self) -> Option<&Arc<Leaf>> {
        match self {
            Self::None => None,
            Self::One(leaf) => Some(leaf),
            Self::Union(ways) => {
                let total: f64 = ways.iter().map(|(w, _)| w).sum();
                let mut at = fastrand::f64() * total;
                for (weight, way) in ways.iter() {
                    if at < *weight {
                        return way.pick();
                    }
                    at -= weight;
                }
                ways.last().and_then(|(_, way)| way.pick())
            }
        }
    }
}
