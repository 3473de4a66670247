//! The `compose` command.

fn main() {}
