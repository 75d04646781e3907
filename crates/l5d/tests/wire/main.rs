//! What callers, upstreams and operators of an HTTP router see on the wire: the built program, real sockets, one file per
//! noun. The test of a row of the reference's acceptance table names the row, `A1` to `A88`; `§` is a section of the same text.
//!
//! Tests run beside one another, each with processes and ports of its own. They wait for conditions, never for a time:
//! an upstream that has to be slow waits at a [`proxy::Gate`] until its test lets it go.

mod access_log;
mod admin;
mod balance;
mod bodies;
mod caches;
mod compression;
mod connections;
mod contexts;
mod diagnostic;
mod exchanges;
mod failures;
mod headers;
mod identify;
mod limits;
mod names;
mod overload;
mod proxy;
mod retries;
mod shutdown;
mod start;
mod targets;
mod timeouts;
mod tls;
mod tracing;
