//! Request routing for any protocol: binding, balancing, accrual, retries, pools, and what they count.

pub mod accrual;
pub mod balance;
pub mod cache;
pub mod classify;
pub mod clock;
pub mod config;
mod ema;
pub mod error;
pub mod linked_cache;
pub mod retry;
pub mod stats;
mod windowed;
pub mod worker;
