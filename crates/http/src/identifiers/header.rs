//! `io.l5d.header`: the value of a header, by default `l5d-name`, is the name, as a path.

use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Identification, Identifier, IdentifierConfig, header_token::read_header};
use crate::codec::RequestHead;

/// The section: `header`, default `l5d-name`.
#[derive(Clone, Debug)]
struct Header {
    shown: String,
    header: String,
}

pub(crate) const KIND: Kind<dyn IdentifierConfig> = Kind {
    id: "io.l5d.header",
    experimental: false,
    summary: "names a request by a header whose value is a path",
    example: "kind: io.l5d.header\nheader: l5d-name",
    parse,
};

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn IdentifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    let header = read_header(&mut f, "l5d-name", cx);
    f.finish(cx);
    let (shown, header) = header?;
    Some(Box::new(Header { shown, header }))
}

impl IdentifierConfig for Header {
    fn build(&self) -> Box<dyn Identifier> {
        Box::new(self.clone())
    }
}

impl Identifier for Header {
    fn identify(&self, head: &mut RequestHead) -> Identification {
        match head.headers.get(&self.header) {
            Some(value) if !value.is_empty() => match Path::read(&String::from_utf8_lossy(value)) {
                Ok(path) => Identification::Identified(path),
                Err(e) => Identification::Unidentified(e.to_string()),
            },
            _ => Identification::Unidentified(format!("{} header is absent", self.shown)),
        }
    }
}
