//! The `l5d` binary.

#![cfg_attr(not(test), expect(dead_code, reason = "what the command line and the file ask for is built by the linker"))]

mod args;
mod config_json;
mod linker_config;

fn main() {}
