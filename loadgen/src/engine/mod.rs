//! The engine: drives servers with an open-loop load over the client protocol, and times and audits every delivery.

mod abandoned;
mod agenda;
mod alarm;
mod books;
mod client;
mod conductor;
mod faults;
mod garbage;
mod link;
mod payload;
mod plan;
mod process;
mod receive;
mod recorder;
mod shared;
mod upkeep;
mod voices;
mod wire;
mod worker;

pub use payload::{PAYLOAD_BYTES_MIN, Stamp};

use crate::record::Measured;
use crate::scenario::Scenario;
use crate::surroundings::Surroundings;

/// What to run.
#[derive(Debug, Clone)]
pub struct RunSpec {
    /// The load shape, overrides applied.
    pub scenario: Scenario,
    /// Addresses of the nodes, `ws://host:port/connection/websocket`; clients are spread over them in turn.
    pub urls: Vec<String>,
    /// Seed of schedule, sizes and of who is struck by what.
    pub seed: u64,
    /// Threads that drive connections; `None`: one per core that this process may use.
    pub threads: Option<usize>,
    /// Put before each room's name, e.g. a namespace with its colon.
    pub room_prefix: String,
}

/// A run that could not be made, or not be finished. A run that went badly is a [`Measured`], not an error.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An address is not `ws://host:port/path`, or does not resolve.
    #[error("bad address {url}: {problem}")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The scenario needs more than this machine or tool allows.
    #[error("the scenario does not fit: {0}")]
    TooLarge(String),
    /// Clients could not connect and join before the load starts.
    #[error("{joined} of {wanted} clients joined within {waited_s:.0} s; the last failure: {last}")]
    Join {
        /// Clients that made it.
        joined: u64,
        /// Clients that were wanted.
        wanted: u64,
        /// How long the engine waited.
        waited_s: f64,
        /// The last failure that any of them saw.
        last: String,
    },
    /// A fault of the scenario could not be done.
    #[error("fault at {at_s} s: {source:#}")]
    Fault {
        /// When it was to happen, seconds after the warm-up.
        at_s: f64,
        /// What the surroundings said.
        source: anyhow::Error,
    },
    /// The surroundings asked for an end.
    #[error("cancelled")]
    Cancelled,
    /// The operating system refused something the engine cannot do without.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A thread of the engine died; this is a bug.
    #[error("a generator thread died: {0}")]
    Thread(String),
}

/// Runs a scenario against servers that are already there.
///
/// Blocks until the run is over; the threads that it starts end with it.
///
/// # Errors
/// See [`RunError`].
pub fn run(spec: &RunSpec, surroundings: &dyn Surroundings) -> Result<Measured, RunError> {
    conductor::Conductor::new(spec, surroundings)?.conduct()
}

/// Wraps an error of the operating system.
fn system<E: Into<std::io::Error>>(what: &'static str) -> impl FnOnce(E) -> RunError {
    move |source| RunError::System { what, source: source.into() }
}
