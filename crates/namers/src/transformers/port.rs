//! `io.l5d.port`: every address gets one port, that of the proxies which stand before the services.

use std::net::SocketAddr;
use std::sync::Arc;

use l5d_config::{Cx, Fields, Kind, Node, Port};
use l5d_naming::{Address, Path};

use super::{Addresses, Transformer, TransformerConfig, prefix, prefixed};
use crate::{BuildError, NamerContext};

pub(crate) const KIND: Kind<dyn TransformerConfig> = Kind {
    id: "io.l5d.port",
    experimental: false,
    summary: "replaces the port of every address",
    example: "kind: io.l5d.port\nport: 4141\n",
    parse,
};

/// The section of the port transformer.
struct PortConfig {
    prefix: Path,
    /// The port that every address gets.
    port: u16,
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn TransformerConfig>> {
    let mut fields = Fields::of(node, cx)?;
    let given = prefix(&mut fields, cx);
    let port: Option<Port> = fields.required("port", cx);
    fields.finish(cx);
    let Port(port) = port?;
    Some(Box::new(PortConfig { prefix: prefixed(given, ["io.l5d.port", &port.to_string()]), port }))
}

impl TransformerConfig for PortConfig {
    fn prefix(&self) -> Path {
        self.prefix.clone()
    }

    fn build(self: Box<Self>, _: &NamerContext) -> Result<Arc<dyn Transformer>, BuildError> {
        let Self { prefix, port } = *self;
        Ok(Arc::new(Addresses::each("PortTransformer", prefix, move |address| Address {
            addr: SocketAddr::new(address.addr.ip(), port),
            ..address.clone()
        })))
    }
}
