//! A collector of traces or metrics, and the way to it.
//!
//! What requests leave behind waits in an [`Outbox`], which never makes a request wait; [`deliver()`] takes it from there in
//! batches and decides what becomes of a batch that was not taken; a [`Carrier`] speaks the collector's protocol over a
//! [`Link`]. A collector that is down, slow or hostile costs the outbox's room and counted drops, and nothing else.

mod deliver;
mod http;
mod link;
mod outbox;
mod stats;
mod teller;

pub(crate) use deliver::{Carrier, Counts, Sent, deliver};
pub(crate) use http::{Endpoint, Post, answer};
pub(crate) use link::{Link, Parsed};
pub(crate) use outbox::{Outbox, ROOM};
pub(crate) use stats::LinkStats;
pub(crate) use teller::Teller;
