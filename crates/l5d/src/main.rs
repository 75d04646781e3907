//! The `l5d` binary.

fn main() {}
