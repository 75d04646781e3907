//! HTTP/1.1 on the wire: heads read and written, bodies framed, connections of both sides.
//!
//! The messages of a proxy are mostly bytes that go on as they came. So a head is kept as the text that it arrived as
//! ([`Headers`]), found out by httparse, and an idle connection keeps no buffer: what comes is read to the stack, and only
//! what has to wait is kept. There are no tasks and no channels between a request and its sockets: the future of a request
//! writes to the endpoint and reads from it, a streamed body reads from the socket it comes from when it is asked to.
//!
//! - [`headers`]: the lines of a head; [`message`]: requests and responses;
//! - [`parse`]: from bytes to heads, and what tells how long a body is (RFC 9112 §6);
//! - [`framing`]: the chunks of a body, in and out;
//! - [`input`], [`output`]: what has come and waits to be used, what waits to be written;
//! - [`server`], [`client`]: the two ends of an exchange.

pub(crate) mod client;
pub(crate) mod framing;
pub(crate) mod headers;
mod input;
pub(crate) mod message;
pub(crate) mod output;
pub(crate) mod parse;
pub(crate) mod server;

pub use headers::Headers;
pub use message::{RequestHead, Response, Target};
