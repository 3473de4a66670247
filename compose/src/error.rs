//! What can go wrong, in words that say what to do about it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::request::{STRATEGIES, Topology};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why an environment, a process or a node is not there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No strategy has this name.
    #[error("no strategy is named `{name}`; there are {}", strategy_names())]
    UnknownStrategy {
        /// The name asked for.
        name: String,
    },
    /// No topology has this name.
    #[error("no topology is named `{name}`; there are {}", topology_names())]
    UnknownTopology {
        /// The name asked for.
        name: String,
    },
    /// A topology was chosen for a broker that the strategy does not use.
    #[error("topology `{topology}` does not apply: the strategy does not use that broker")]
    TopologyNotNeeded {
        /// The topology asked for.
        topology: Topology,
    },
    /// A program is missing or too old.
    #[error("{need}; install it with: {install}")]
    MissingTool {
        /// What is needed and what was found, in one clause.
        need: String,
        /// The commands that install it.
        install: String,
    },
    /// A cached artefact is not the pinned one.
    #[error("{} is not the pinned artefact: {problem}; remove {} to have it fetched again", path.display(), remove.display())]
    Corrupt {
        /// The file in question.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// The folder whose removal leads to a fresh fetch.
        remove: PathBuf,
    },
    /// A helper program (Maven, the storage formatter) failed.
    #[error("{what} failed ({status}): {output}")]
    Command {
        /// What was being done.
        what: String,
        /// Its exit status.
        status: String,
        /// The tail of what it printed.
        output: String,
    },
    /// A process ended although it should be running.
    #[error("{name} ended by itself ({status}); the end of its log:\n{log_tail}")]
    Exited {
        /// The process's name.
        name: String,
        /// Its exit status.
        status: String,
        /// The last lines that it logged.
        log_tail: String,
    },
    /// A process or a broker did not become ready in time.
    #[error("{name} was not ready within {:.1} s: {problem}{}", waited.as_secs_f64(), with_log(log_tail))]
    NotReady {
        /// The process or broker.
        name: String,
        /// How long it was given.
        waited: Duration,
        /// What was still missing.
        problem: String,
        /// The last lines that it logged; empty where it is not ours.
        log_tail: String,
    },
    /// The server binary is not where it could be expected.
    #[error("no chat-server binary at {}; build it with: cargo build -p manifold-server", searched.display())]
    NoServerBinary {
        /// Where it was looked for.
        searched: PathBuf,
    },
    /// A fault or restart was asked for on a process that is not running, or the other way round.
    #[error("{name} is {state}")]
    ProcessState {
        /// The process's name.
        name: String,
        /// Its state, e.g. `not running`.
        state: &'static str,
    },
    /// The state of `compose up` does not allow the command.
    #[error("{0}")]
    State(String),
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path or address.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// Whether a process failed because its port had been taken meanwhile; a start with other ports may succeed.
    pub(crate) fn is_port_taken(&self) -> bool {
        match self {
            Error::Exited { log_tail, .. } | Error::NotReady { log_tail, .. } => {
                log_tail.contains("Address already in use") || log_tail.contains("Address in use")
            }
            _ => false,
        }
    }
}

/// Names what was being done when an I/O error arose.
pub(crate) trait IoContext<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
    fn at(self, verb: &str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source: source.into() })
    }

    fn at(self, verb: &str, path: &Path) -> Result<T> {
        self.doing(|| format!("{verb} {}", path.display()))
    }
}

fn strategy_names() -> String {
    STRATEGIES.iter().map(|strategy| strategy.name).collect::<Vec<_>>().join(", ")
}

fn topology_names() -> String {
    Topology::ALL.map(Topology::name).join(", ")
}

fn with_log(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!("; the end of its log:\n{tail}") }
}
