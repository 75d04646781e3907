//! `io.l5d.localhost`: keeps addresses of this host, which are those of its interfaces that are up when the transformer
//! is built. (Linkerd's documentation speaks of a DNS lookup; its code does this.)

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::SockaddrStorage;

use super::{Addresses, Transformer, TransformerConfig, prefix, prefixed};
use crate::{BuildError, NamerContext};

pub(crate) const KIND: Kind<dyn TransformerConfig> = Kind {
    id: "io.l5d.localhost",
    experimental: false,
    summary: "keeps the addresses of this host",
    example: "kind: io.l5d.localhost\n",
    parse,
};

/// The section of the localhost transformer.
struct LocalhostConfig {
    prefix: Path,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let given = prefix(&mut fields, cx);
    fields.finish(cx);
    Some(Box::new(LocalhostConfig { prefix: prefixed(given, ["io.l5d.localhost"]) }))
}

impl TransformerConfig for LocalhostConfig {
    fn prefix(&self) -> Path {
        self.prefix.clone()
    }

    fn build(self: Box<Self>, _: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError> {
        let local = local_addresses()?;
        Ok(Arc::new(Addresses::keeping("SubnetLocalTransformer", self.prefix, move |address| {
            local.contains(&address.addr.ip())
        })))
    }
}

fn local_addresses() -> Result<HashSet<IpAddr>, BuildError> {
    let interfaces = getifaddrs().map_err(|error| BuildError::Interfaces(error.to_string()))?;
    Ok(interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| ip(&interface.address?))
        .collect())
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => Some(v4.ip().into()),
        (None, Some(v6)) => Some(v6.ip().into()),
        (None, None) => None,
    }
}
