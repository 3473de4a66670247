//! The command line: arguments in, exit code out.

/// Prints to standard output. A reader that went away (`| head`) ends the output, not the program.
macro_rules! out {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stdout(), $($words)*);
    }};
}

/// [`out`] with a line's end.
macro_rules! outln {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

mod arguments;
mod baseline;
mod bench;
mod claims;
mod compare;
mod contest;
mod interrupt;
mod output;
mod readme;
mod report;
mod run;
mod soak;
mod ticket;

use std::process::ExitCode;

pub use arguments::Arguments;
use arguments::Command;

use crate::campaign::is_cancelled;

/// How a command ended, as an exit code that scripts can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0: everything ran and every promise was kept.
    Pass,
    /// 1: it could not be done.
    Error,
    /// 2: it ran, but says nothing: generator saturated, too few samples, interrupted.
    Inconclusive,
    /// 99: a threshold or the audit failed.
    Failed,
}

impl Outcome {
    fn code(self) -> ExitCode {
        ExitCode::from(match self {
            Self::Pass => 0,
            Self::Error => 1,
            Self::Inconclusive => 2,
            Self::Failed => 99,
        })
    }
}

/// Does what the arguments say.
pub fn execute(arguments: Arguments) -> ExitCode {
    let outcome = match arguments.command {
        Command::Run(run) => run::execute(&run),
        Command::Compare(compare) => compare::execute(&compare),
        Command::Report(report) => report::execute(&report),
        Command::Diff(diff) => report::diff(&diff),
        Command::Claims(claims) => claims::execute(&claims),
        Command::Soak(soak) => soak::execute(&soak),
        Command::Bench(bench) => bench::execute(&bench),
        Command::List => report::list(),
        Command::NullServer(null) => run::null_server(&null),
    };
    match outcome {
        Ok(outcome) => outcome.code(),
        Err(error) if is_cancelled(&error) => {
            eprintln!("\ninterrupted; everything that was started has been stopped");
            Outcome::Inconclusive.code()
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            Outcome::Error.code()
        }
    }
}
