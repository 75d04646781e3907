//! Namers, interpreters and transformers: what turns names into addresses.
