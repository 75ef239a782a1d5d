//! The `flawtune` binary.

fn main() {}
