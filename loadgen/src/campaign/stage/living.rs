//! Which processes must be running: all but those that a fault ended. Whoever ends by itself is found out.

use anyhow::{Result, ensure};
use manifold_compose::{Environment, Nodes, Process};

use super::{Stage, lock};

/// A process and which incarnation of it must be running; `None` where a fault ended it, or may have.
pub(super) type Expected = (Process, Option<u32>);

/// Everything that runs when a run begins.
pub(super) fn running(environment: Option<&Environment>, nodes: Option<&Nodes>) -> Vec<Expected> {
    let brokers = environment.map(Environment::processes).unwrap_or_default();
    let nodes = nodes.map(Nodes::processes).unwrap_or_default();
    brokers.iter().chain(nodes).map(|process| (process.clone(), Some(process.pid()))).collect()
}

fn lives(process: &Process, pid: Option<u32>) -> bool {
    pid.is_none_or(|pid| process.pid() == pid && process.is_running())
}

impl Stage<'_> {
    /// Processes that no fault ended, and that nevertheless do not run any more: each with how its log ends.
    pub fn ended_by_themselves(&self) -> Vec<(String, String)> {
        let expected = lock(&self.expected);
        let gone = expected.iter().filter(|(process, pid)| !lives(process, *pid));
        gone.map(|(process, _)| (process.name().to_owned(), process.log_tail())).collect()
    }

    /// From now on it need not run: a fault ends it.
    pub(super) fn may_end(&self, process: &Process) {
        self.expect(process, None);
    }

    /// From now on this incarnation of it must run: a fault's end has started it.
    pub(super) fn must_run(&self, process: &Process) {
        self.expect(process, Some(process.pid()));
    }

    /// What a fault strikes must be there to be struck: otherwise its restart would hide that it had ended by itself.
    pub(super) fn ensure_lives(&self, process: &Process) -> Result<()> {
        let expected = lock(&self.expected);
        let known = expected.iter().find(|(known, _)| known.name() == process.name());
        ensure!(
            known.is_none_or(|(_, pid)| lives(process, *pid)),
            "{} had ended by itself; its log ends with:\n{}",
            process.name(),
            process.log_tail()
        );
        Ok(())
    }

    fn expect(&self, process: &Process, pid: Option<u32>) {
        let mut expected = lock(&self.expected);
        match expected.iter_mut().find(|(known, _)| known.name() == process.name()) {
            Some(known) => known.1 = pid,
            None => expected.push((process.clone(), pid)),
        }
    }
}
