//! `io.l5d.static`: every request has the same name.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Identification, Identifier, IdentifierConfig};
use crate::codec::RequestHead;

/// The section: `path`, required.
#[derive(Clone, Debug)]
struct Static {
    path: Path,
}

pub(crate) const KIND: Kind<dyn IdentifierConfig> = Kind {
    id: "io.l5d.static",
    experimental: false,
    summary: "names every request alike",
    example: "kind: io.l5d.static\npath: /foo",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn IdentifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    if node.get("path").is_none_or(Node::is_null) {
        cx.error(node, "'path' must be specified: path is required");
    }
    let path = f.parsed("path", cx, Path::read);
    f.finish(cx);
    path.map(|path| Box::new(Static { path }) as _)
}

impl IdentifierConfig for Static {
    fn build(&self) -> Box<dyn Identifier> {
        Box::new(self.clone())
    }
}

impl Identifier for Static {
    fn identify(&self, _head: &mut RequestHead) -> Identification {
        Identification::Identified(self.path.clone())
    }
}
