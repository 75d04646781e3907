//! Request routing for any protocol: binding, balancing, accrual, retries, pools, and what they count.

pub mod accrual;
pub mod balance;
pub mod cache;
mod ema;
pub mod retry;
mod windowed;
