//! The `Forwarded` header (RFC 7239) that a server adds when `addForwardedHeader` is set: who forwards and for whom,
//! by address or by a label that says nothing (http-behaviour §6.5, config §10.2).

use std::{net::SocketAddr, sync::Arc};

use crate::{
    codec::RequestHead,
    headers::{FORWARDED, HOST},
    router::HttpRouter,
    stack::server::Peer,
};

/// How one side is named.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Label {
    /// The address without port.
    Ip,
    /// The address with port, quoted.
    IpPort,
    /// A random word per request.
    RequestRandom,
    /// A random word per connection.
    ConnectionRandom,
    /// `_<router label>`.
    Router,
    /// A fixed word.
    Static(Arc<str>),
}

/// The filter.
#[derive(Clone, Debug)]
pub(crate) struct Forwarded {
    pub(crate) by: Label,
    pub(crate) r#for: Label,
}

impl Forwarded {
    /// Adds a line to the request.
    pub(crate) fn add(&self, head: &mut RequestHead, peer: &Peer, router: &HttpRouter) {
        let by = show(&self.by, peer.local, peer, router);
        let r#for = show(&self.r#for, peer.addr, peer, router);
        let mut line = format!("by={by};for={for}").into_bytes();
        if let Some(host) = head.headers.get(HOST) {
            line.extend_from_slice(b";host=");
            line.extend_from_slice(host);
        }
        if let Some(scheme) = head.target.scheme() {
            line.extend_from_slice(b";proto=");
            line.extend_from_slice(scheme.as_bytes());
        }
        head.headers.add(FORWARDED, line);
    }
}

fn show(label: &Label, addr: SocketAddr, peer: &Peer, router: &HttpRouter) -> String {
    match label {
        _ if addr.ip().is_unspecified() && matches!(label, Label::Ip | Label::IpPort) => "unknown".to_owned(),
        Label::Ip if addr.is_ipv6() => format!("\"[{}]\"", addr.ip()),
        Label::Ip => addr.ip().to_string(),
        Label::IpPort => format!("\"{addr}\""),
        Label::RequestRandom => random_label().to_string(),
        Label::ConnectionRandom => peer.connection_label.to_string(),
        Label::Router => format!("_{}", router.label()),
        Label::Static(word) => format!("_{}", word.strip_prefix('_').unwrap_or(word)),
    }
}

/// `_` and six letters or digits.
pub(crate) fn random_label() -> Arc<str> {
    let mut label = String::with_capacity(7);
    label.push('_');
    label.extend((0..6).map(|_| fastrand::alphanumeric()));
    label.into()
}
