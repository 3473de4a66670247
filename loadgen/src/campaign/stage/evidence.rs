//! Evidence that a fault struck, where that does not show by itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use manifold_compose::Process;

use super::{Stage, lock};
use crate::probe::get;

/// How long an answer is waited for that must not come.
const NO_ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// Within this a node without descriptors must have stopped answering: connections of just before may still be served.
const SHUT_WITHIN: Duration = Duration::from_millis(1_500);

/// What Redis logs when it cuts off a subscriber whose buffer is full.
const OVERCOME: &str = "overcoming of output buffer limits";

impl Stage<'_> {
    /// Whoever asks a node without descriptors gets no answer.
    pub(super) fn ensure_shut(&self, node: &Process) -> Result<()> {
        let Some(url) = self.health_url(node) else { return Ok(()) };
        let deadline = Instant::now() + SHUT_WITHIN;
        while get(&url, NO_ANSWER_WITHIN).is_ok() {
            let name = node.name();
            ensure!(
                Instant::now() < deadline,
                "{name} still takes connections: it has not run out of descriptors"
            );
        }
        Ok(())
    }

    fn health_url(&self, node: &Process) -> Option<String> {
        let nodes = lock(self.nodes.as_ref()?);
        let place = nodes.processes().iter().position(|one| one.name() == node.name())?;
        Some(format!("{}/health", nodes.http().get(place)?))
    }

    /// How often Redis has cut off a subscriber so far.
    pub(super) fn subscribers_cut_off(&self) -> usize {
        self.brokers("redis").iter().map(|server| server.count_logged(OVERCOME)).sum()
    }

    /// Small buffers must have cut somebody off.
    pub(super) fn ensure_cut_off(&self, before: usize) -> Result<()> {
        ensure!(
            self.subscribers_cut_off() > before,
            "Redis cut no subscriber off: its output buffers were not full"
        );
        Ok(())
    }
}
