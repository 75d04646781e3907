//! Request routing for any protocol: binding, balancing, accrual, retries, pools, and what they count.

pub mod config;
