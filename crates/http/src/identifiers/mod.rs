//! Identifiers: what names a request (http-behaviour §3, config §17). One file a kind.

use std::net::SocketAddr;

use l5d_naming::Path;

use crate::codec::RequestHead;

l5d_config::kinds! {
    /// Every identifier that `routers[].identifier` may name.
    pub IDENTIFIERS: dyn IdentifierConfig => header_token, header, path, method_and_host, static_path,
}

/// What an identifier says of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Identification {
    /// The request's logical name, without the router's `dstPrefix`.
    Identified(Path),
    /// Why this identifier cannot name it.
    Unidentified(String),
}

/// Names requests. May change the request: `io.l5d.path` can take away what it used.
pub trait Identifier: Send + Sync + std::fmt::Debug {
    /// Names `head`, or says why not.
    fn identify(&self, head: &mut RequestHead) -> Identification;
}

/// A section that has been read.
pub trait IdentifierConfig: Send + Sync + std::fmt::Debug {
    /// The identifier that it asks for.
    fn build(&self) -> Box<dyn Identifier>;
}

/// The identifier of a router without an `identifier` section: the token of the `Host` header.
pub(crate) fn default() -> Box<dyn IdentifierConfig> {
    header_token::default()
}

/// Several identifiers: the first that can name a request does; if none can, the last one's reason is told.
#[derive(Debug)]
pub struct FirstOf(Vec<Box<dyn Identifier>>);

impl FirstOf {
    /// In the order of trying; must not be empty.
    pub fn new(identifiers: Vec<Box<dyn Identifier>>) -> Self {
        Self(identifiers)
    }
}

impl Identifier for FirstOf {
    fn identify(&self, head: &mut RequestHead) -> Identification {
        let mut last = Identification::Unidentified("no identifier is configured".to_owned());
        for identifier in &self.0 {
            last = identifier.identify(head);
            if matches!(last, Identification::Identified(_)) {
                break;
            }
        }
        last
    }
}

/// A request as Finagle prints it in messages: `Request("GET /x", from /127.0.0.1:50123)`.
pub(crate) fn describe(head: &RequestHead, peer: SocketAddr) -> String {
    format!("Request(\"{} {}\", from /{peer})", head.method, head.target)
}
