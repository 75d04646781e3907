//! What tests of l5d stand on: a client, upstreams, sinks and process guards, all on loopback.
//!
//! Everything here is plain and blocking: std threads and sockets, no runtime, no HTTP library and nothing of l5d itself, so
//! that a mistake of the code under test can't hide behind the same mistake in its judge. It is a dev-dependency only.
//!
//! - [`Downstream`]: a client that sends bytes as given and reads responses back.
//! - [`Upstream`]: a scripted HTTP/1.1 server that remembers what it was sent.
//! - [`Scrape`]: the metrics of one admin server, read from any of its pages.
//! - [`StatsdSink`]: a UDP socket that remembers datagrams.
//! - [`Process`] and [`L5d`]: programs that end when their guard does, also when a test fails.
//! - [`free_port`], [`wait_for`]: ports that nobody uses, and waiting for a condition instead of for a time.

mod downstream;
mod message;
mod port;
mod process;
mod scrape;
mod statsd;
mod upstream;
mod wait;

pub use downstream::{Downstream, get};
pub use message::{Headers, Reply, Request};
pub use port::{free_port, free_port_on, free_udp_port};
pub use process::{L5d, Process};
pub use scrape::{InfluxPoint, PromSample, Scrape};
pub use statsd::StatsdSink;
pub use upstream::{Response, Upstream};
pub use wait::{PATIENCE, wait_for, wait_until};
