//! The vocabulary of tracing: ids, what is recorded of a request, who it is given to, and who decides what is recorded.
//!
//! A component that takes part in a request holds a [`Recording`] and writes [`Annotation`]s into it, each to the span it
//! is about. When the last clone of the recording is gone, all of it goes to the [`Tracer`]s as one [`Trace`]: in the order
//! in which things happened, or put together as [`Span`]s. Nothing here does I/O: a tracer only takes what it is given.
//!
//! A request that nobody wants to know of has a recording that is off: it allocates nothing, and each place that would
//! record has one branch.

mod id;
mod record;
mod sampler;
mod span;
mod tracer;

pub use id::{TraceId, hex16};
pub use record::{Annotation, Record, Text, Value};
pub use sampler::Sampler;
#[cfg(test)]
pub(crate) use span::tests;
pub use span::{Span, SpanKind};
pub use tracer::{Recording, Trace, Tracer, Tracing};
