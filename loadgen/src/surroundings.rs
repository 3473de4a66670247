//! What surrounds a run: the seam between the engine, which sends and receives, and whoever started the servers.
//!
//! The engine knows addresses and a scenario. It does not know processes, strategies or brokers; what it needs of them
//! it asks here. A run against servers that somebody else started uses [`Alone`].

use crate::record::{Deed, FaultOutcome, Live, Target};

/// Called by the engine at the moments of a run. Calls may come from any of its threads, one at a time.
pub trait Surroundings: Send + Sync {
    /// The counted window begins: counters and CPU times are read.
    fn window_opened(&self) {}

    /// The counted window, the drain not included, is over: counters and CPU times are read again.
    fn window_closed(&self) {}

    /// About once a second.
    fn progress(&self, _live: &Live) {}

    /// True once the run should end at once. The engine polls it at least ten times a second, and returns an error.
    fn cancelled(&self) -> bool {
        false
    }

    /// Does what the scenario's timeline says. Blocks until it is done (a restart: until the process answers);
    /// the engine calls it from a thread of its own, so that load goes on meanwhile.
    ///
    /// # Errors
    /// The process could not be found, signalled or restarted.
    fn inject(&self, deed: Deed, target: Target) -> anyhow::Result<FaultOutcome>;
}

/// No surroundings: servers that somebody else runs. Faults are refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Surroundings for Alone {
    fn inject(&self, deed: Deed, target: Target) -> anyhow::Result<FaultOutcome> {
        anyhow::bail!(
            "the scenario wants to {deed:?} {target:?}, but these servers were not started by the load generator; \
             use `loadgen compare`, or a scenario without faults"
        )
    }
}
