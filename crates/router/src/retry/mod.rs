//! What decides whether and when something is tried again: the budget and the backoff.
//!
//! Both serve two places: retries of a logical service (above the binding) and requeues of a client (below it). Failure
//! accrual takes its backoffs from here too. The retry loops themselves are layers of the protocol's stack.

pub mod backoff;
pub mod budget;

pub use backoff::{Backoff, Delays};
pub use budget::RetryBudget;
