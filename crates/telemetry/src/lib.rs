//! The vocabulary of measuring, and the wire formats as pure encoders. No I/O, no async.
//!
//! A component is given a [`Scope`] and makes its [`Counter`]s, [`Stat`]s, [`Level`]s and gauges there once, when it is
//! built; on the request path it only holds handles. An exporter is given the [`MetricsTree`] and reads it: by
//! [`MetricsTree::visit`], or through one of the encoders in [`mod@format`]. The two sides share nothing else.
//!
//! # The pieces
//!
//! | file | what it owns |
//! |---|---|
//! | `tree.rs` | the tree's shape: nodes, names, pruning, the one lock around them |
//! | `scope.rs` | where a component writes |
//! | `cells.rs` | the numbers behind counters and levels, one writer each; the worker's thread |
//! | `histogram.rs`, `stat.rs` | the buckets behind a stat, its window and its totals |
//! | `buckets.rs` | Finagle's bucket limits and percentiles: pure arithmetic |
//! | `catalogue.rs`, `catalogue/` | what each metric is called in the modern face, what it means, and what moves it |
//! | `ceiling.rs`, `expired.rs` | what becomes of series above the limit, and of those that end |
//! | `exemplar.rs` | samples that a trace tells more about |
//! | `history.rs`, `history/` | the last hour of the golden signals, for the dashboard |
//! | `walk.rs` | reading the tree in steps, with no lock held between them |
//! | `collide.rs` | metrics whose names become one on the wire |
//! | `format/` | one file per wire format |
//! | `trace/` | what is recorded of a request, and who is told |
//!
//! # Locks
//!
//! Taken in this order and no other: the tree's shape, then what expired, then the cells, then a stat's roll, a pusher's
//! last values or the exemplars.
//! A gauge's function is called, and dropped, with none of them held: it may use the tree as it likes. A worker that
//! writes through a handle takes none of them, except the first time it meets a page of cells or a stat.

mod buckets;
mod catalogue;
mod ceiling;
mod cells;
mod collide;
mod counter;
mod exemplar;
mod expired;
pub mod format;
mod gauge;
mod histogram;
pub mod history;
mod level;
mod names;
mod scope;
mod snapshot;
mod stat;
pub mod trace;
mod tree;
mod visit;
mod walk;

pub use buckets::Summary;
pub use catalogue::{Meaning, listing, meaning};
pub use ceiling::Overflow;
pub use cells::WorkerGuard;
pub use counter::Counter;
pub use format::Page;
pub use gauge::GaugeGuard;
pub use level::Level;
pub use scope::Scope;
pub use snapshot::Snapshotter;
pub use stat::{Bucket, Stat, StatRef};
pub use tree::MetricsTree;
pub use visit::{MetricRef, Visitor};
