//! `io.l5d.header.token`: the value of a header, by default `Host`, is one segment of the name, as it is: neither
//! lower-cased nor split, a port stays.

use std::borrow::Cow;

use http::HeaderName;
use l5d_config::{Cx, Fields, Kind, Node};
use l5d_naming::Path;

use super::{Identification, Identifier, IdentifierConfig};
use crate::codec::RequestHead;

/// The section: `header`, default `Host`.
#[derive(Clone, Debug)]
struct HeaderToken {
    shown: String,
    /// The same in lower case.
    header: String,
}

pub(crate) const KIND: Kind<dyn IdentifierConfig> = Kind {
    id: "io.l5d.header.token",
    experimental: false,
    summary: "names a request by the value of a header, by default Host",
    example: "kind: io.l5d.header.token\nheader: Host",
    parse,
};

/// The identifier of a router without an `identifier` section.
pub(crate) fn default() -> Box<dyn IdentifierConfig> {
    Box::new(HeaderToken { shown: "Host".to_owned(), header: "host".to_owned() })
}

fn parse(node: &Node, cx: &mut Cx) -> Option<Box<dyn IdentifierConfig>> {
    let mut f = Fields::of(node, cx)?;
    f.skip_kind();
    let header = read_header(&mut f, "Host", cx);
    f.finish(cx);
    let (shown, header) = header?;
    Some(Box::new(HeaderToken { shown, header }))
}

/// The key `header` of this kind and of `io.l5d.header`: how it is written, and the name.
pub(super) fn read_header(f: &mut Fields<'_>, default: &str, cx: &mut Cx) -> Option<(String, String)> {
    let before = cx.error_count();
    let name = f.parsed("header", cx, |text| {
        HeaderName::from_bytes(text.as_bytes())
            .map(|name| (text.to_owned(), name.as_str().to_owned()))
            .map_err(|_| format!("{text:?} is not a header name"))
    });
    if cx.error_count() > before {
        return None;
    }
    Some(name.unwrap_or_else(|| (default.to_owned(), default.to_ascii_lowercase())))
}

/// A header's bytes as a segment: Netty reads them as ISO-8859-1 and a path writes UTF-8, so `é` is named `\xc3\xa9`.
fn segment(value: &[u8]) -> Cow<'_, [u8]> {
    if value.is_ascii() {
        Cow::Borrowed(value)
    } else {
        Cow::Owned(value.iter().map(|b| char::from(*b)).collect::<String>().into_bytes())
    }
}

impl IdentifierConfig for HeaderToken {
    fn build(&self) -> Box<dyn Identifier> {
        Box::new(self.clone())
    }
}

impl Identifier for HeaderToken {
    fn identify(&self, head: &mut RequestHead) -> Identification {
        match head.headers.get(&self.header) {
            Some(value) if !value.is_empty() => Identification::Identified(Path::from_segments([segment(value)])),
            _ => Identification::Unidentified(format!("{} header is absent", self.shown)),
        }
    }
}
