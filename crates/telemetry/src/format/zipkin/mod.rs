//! Spans as Zipkin takes them: JSON v2 for HTTP (`json.rs`), Thrift for Scribe (`scribe.rs`).
//!
//! A collector refuses a whole batch over one bad span, and leaves out without a word what it does not know. So nothing is
//! written that it would refuse, and every fact is a string: Zipkin drops Thrift's numbers and booleans, and refuses
//! JSON's `true`.

use std::net::{IpAddr, SocketAddr};

use crate::trace::{Span, SpanKind};

mod json;
mod scribe;

pub use json::push_spans;
pub use scribe::{Refused, Reply, message, push_log, reply};

/// Whether a collector would take the span: zero is no id to it.
pub fn is_acceptable(span: &Span<'_>) -> bool {
    span.id.is_valid() && span.start_us > 0
}

/// What tells the two ends of a call apart in Zipkin's annotations.
fn is_core(event: &str) -> bool {
    matches!(event, "cs" | "cr" | "ss" | "sr")
}

/// IPv4 where it is one, also in IPv6's clothes.
fn canonical(addr: SocketAddr) -> (IpAddr, u16) {
    (addr.ip().to_canonical(), addr.port())
}

fn is_server(span: &Span<'_>) -> bool {
    span.kind == SpanKind::Server
}
