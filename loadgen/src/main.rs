//! The `loadgen` command.

use std::process::ExitCode;

use clap::Parser;
use manifold_loadgen::cli::{Arguments, execute};

fn main() -> ExitCode {
    execute(Arguments::parse())
}
