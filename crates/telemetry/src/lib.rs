//! The vocabulary of measuring, and the wire formats as pure encoders. No I/O, no async.
//!
//! A component is given a [`Scope`] and makes its [`Counter`]s, [`Stat`]s, [`Level`]s and gauges there once, when it is
//! built; on the request path it only holds handles. An exporter is given the [`MetricsTree`] and reads it: by
//! [`MetricsTree::visit`], or through one of the encoders in [`mod@format`]. The two sides share nothing else.
//!
//! # A program of its own
//!
//! Nothing here needs the proxy. A page that Prometheus can scrape:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//!
//! use l5d_telemetry::{MetricsTree, format::prometheus};
//!
//! let tree = MetricsTree::new();
//! let served = tree.scope("pages").counter("served");
//! let listener = TcpListener::bind("127.0.0.1:0")?;
//! let addr = listener.local_addr()?;
//!
//! let server = std::thread::spawn(move || -> std::io::Result<()> {
//!     let _worker = tree.enter_worker();
//!     let (mut client, _) = listener.accept()?; // a server would go on with the next one
//!     served.incr();
//!     write!(client, "HTTP/1.0 200 OK\r\nContent-Type: {}\r\n\r\n", prometheus::CONTENT_TYPE)?;
//!     let mut page = prometheus::page(&tree, &prometheus::Options::default());
//!     let (mut piece, mut more) = (Vec::new(), true);
//!     while more {
//!         more = page.fill(&mut piece);
//!         client.write_all(&piece)?;
//!         piece.clear();
//!     }
//!     Ok(())
//! });
//!
//! let mut answer = String::new();
//! TcpStream::connect(addr)?.read_to_string(&mut answer)?;
//! assert!(answer.ends_with("\r\n\r\npages:served 1\n"));
//! server.join().unwrap()?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A program whose crates count through the `metrics` facade gives it a `Recorder`, which the feature `metrics` has.
//!
//! # The pieces
//!
//! | file | what it owns |
//! |---|---|
//! | `tree.rs` | the tree's shape: nodes, names, pruning, the one lock around them |
//! | `scope.rs`, `taken.rs` | where a component writes, and what it is told when a name is taken |
//! | `cells.rs` | the numbers behind counters and levels, one writer each; the worker's thread |
//! | `lane.rs`, `table.rs` | how a thread finds its own memory, and that memory |
//! | `histogram.rs`, `stat.rs` | the buckets behind a stat, its window and its totals |
//! | `buckets.rs` | Finagle's bucket limits and percentiles: pure arithmetic |
//! | `catalogue.rs`, `catalogue/` | what each metric is called in the modern face, what it means, and what moves it |
//! | `ceiling.rs`, `expired.rs` | what becomes of series above the limit, and of those that end |
//! | `exemplar.rs` | samples that a trace tells more about |
//! | `facade.rs` | what crates count through the `metrics` facade |
//! | `history.rs`, `history/` | the last hour of the golden signals, for the dashboard |
//! | `spread.rs` | how evenly something falls on several |
//! | `walk.rs` | reading the tree in steps, with no lock held between them |
//! | `census.rs`, `format/measured.rs` | how many series there are and what they take; what pages cost |
//! | `families.rs` | which metrics are one family |
//! | `layout.rs` | where scopes have their counters, known once for all that have the same |
//! | `texts.rs` | the scopes' labels as text, in the order in which they are read |
//! | `collide.rs` | metrics whose names become one on the wire |
//! | `format/` | one file per wire format |
//! | `trace/` | what is recorded of a request, and who is told |
//!
//! # Locks
//!
//! Taken in this order and no other: the tree's shape, then what expired, then the cells, then a stat's roll, a pusher's
//! last values, a ledger or the exemplars.
//! A gauge's function is called, and dropped, with none of them held: it may use the tree as it likes. A worker that
//! writes through a handle takes none of them, except the first time it meets a page of cells or a stat.

mod buckets;
mod catalogue;
mod ceiling;
mod cells;
mod census;
mod collide;
mod counter;
mod exemplar;
mod expired;
#[cfg(feature = "metrics")]
mod facade;
mod families;
pub mod format;
mod gauge;
#[allow(unsafe_code, reason = "a block is found by one load; a `OnceLock` has twice the size and a check more")]
mod histogram;
pub mod history;
#[allow(unsafe_code, reason = "a key and a thread-local make an address: 2 ns, where safe code takes 10")]
mod lane;
mod layout;
mod level;
mod names;
#[cfg(all(test, loom))]
mod proofs;
mod scope;
mod snapshot;
mod spread;
mod stat;
mod sync;
#[allow(unsafe_code, reason = "zeros from the system, and histograms that a stat's end takes out of all tables")]
mod table;
mod taken;
mod texts;
pub mod trace;
mod tree;
mod visit;
mod walk;

pub use buckets::Summary;
pub use catalogue::{Meaning, listing, meaning};
pub use ceiling::Overflow;
pub use cells::WorkerGuard;
pub use census::Census;
pub use counter::Counter;
#[cfg(feature = "metrics")]
pub use facade::Recorder;
pub use format::Page;
pub use gauge::GaugeGuard;
pub use level::Level;
pub use scope::Scope;
pub use snapshot::Snapshotter;
pub use spread::Spread;
pub use stat::{Bucket, Stat, StatRef};
pub use taken::Taken;
pub use tree::MetricsTree;
pub use visit::{MetricRef, Visitor};
