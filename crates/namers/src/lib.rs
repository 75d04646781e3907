//! Namers, interpreters and transformers: what turns names into addresses.
//!
//! The rules by which names are followed are not here but in `l5d-naming`.

mod built_in;
mod dns;

pub use built_in::BuiltIn;
