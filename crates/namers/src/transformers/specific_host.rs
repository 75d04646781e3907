//! `io.l5d.specificHost`: keeps the addresses of one host.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Addresses, Transformer, TransformerConfig, prefix, prefixed};
use crate::{BuildError, NamerContext, dns};

pub(crate) const KIND: Kind<dyn TransformerConfig> = Kind {
    id: ID,
    experimental: false,
    summary: "keeps the addresses of one host",
    example: "kind: io.l5d.specificHost\nhost: 127.0.0.1\n",
    parse,
};

const ID: &str = "io.l5d.specificHost";

/// The section of the specificHost transformer.
struct SpecificHostConfig {
    prefix: Path,
    /// The host, by address or by a name that is resolved at start.
    host: String,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let given = prefix(&mut fields, cx);
    let host: Option<String> = fields.required("host", cx);
    fields.finish(cx);
    Some(Box::new(SpecificHostConfig { prefix: prefixed(given, [ID]), host: host? }))
}

impl TransformerConfig for SpecificHostConfig {
    fn prefix(&self) -> Path {
        self.prefix.clone()
    }

    fn build(self: Box<Self>, _: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError> {
        let Self { prefix, host } = *self;
        let ip = address(&host).map_err(|why| BuildError::UnknownHost { kind: ID, host, why })?;
        Ok(Arc::new(Addresses::keeping("SubnetLocalTransformer", prefix, move |address| address.addr.ip() == ip)))
    }
}

fn address(host: &str) -> Result<IpAddr, String> {
    if let Some(ip) = dns::literal(host) {
        return Ok(ip);
    }
    let ips: Vec<IpAddr> = (host, 0).to_socket_addrs().map_err(|error| error.to_string())?.map(|a| a.ip()).collect();
    dns::first(&ips).ok_or_else(|| "it has no address".to_owned())
}
