//! Campaigns: the same work for every strategy, in interleaved randomised blocks, on real brokers.
//!
//! What lives here: the plan and its content-addressed cells, brokers and their warming, one run from nodes up to record
//! written, the capacity search, progress, resuming. What does not: load and audit (`engine`, `audit`), verdicts (`report`).
//!
//! Nodes are started fresh for each run, in a namespace of its own; brokers stay up across runs, because a JVM needs half
//! a minute before its tail means anything, and are replaced when they have carried [`RUNS_PER_BROKERS`] runs' topics.
//! A run whose timeline strikes Kafka gets brokers of its own, which are *not* warmed: the restarted JVM would be cold in
//! any case, and half a minute more for each such run is long. Records hold their age, and reports name it among the
//! threats. A Redis that was struck stays in use: after its restart it is as new as it was.

mod brokers;
mod capacity;
mod gates;
mod hlog;
mod plan;
mod progress;
mod runner;
mod stage;
mod store;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Instant;

use anyhow::{Context, Result};

pub use brokers::{AGE_MIN, Brokers};
pub use capacity::{AtRate, knee, search};
pub use gates::{AFTER_LAST_FAULT_S, Excluded, is_node};
pub use plan::{Cell, Entrant, Plan, digest, excluded, mix, pace};
pub use progress::{Progress, Show, style};
pub use runner::{Frame, Runner, is_cancelled, namespace, now_rfc3339, null_cell, scenario_record};
pub use stage::{Stage, Watched};
pub use store::{Failure, Loaded, Store, StoreError, write_whole};

use crate::engine::RunError;
use crate::record::{ComponentKind, Gate, Role, RunRecord};
use crate::scenario::{BrokerShapes, Scenario};

/// Brokers are replaced after this many runs that use Kafka: each leaves topics behind, and a broker with thousands of partitions
/// is another broker.
pub const RUNS_PER_BROKERS: u32 = 40;

/// Messages that Kafka has carried at least before a run on shared brokers counts.
pub const WARM_MESSAGES_MIN: u64 = 60_000;

/// Failures in a row after which a campaign gives up: something is wrong that more runs won't cure.
const FAILURES_MAX: u32 = 5;

/// What reports call a strategy with options: `kafka-keyed consume=demand`.
pub fn label(strategy: &str, options: &[impl AsRef<str>]) -> String {
    let mut label = strategy.to_owned();
    for option in options {
        label.push(' ');
        label.push_str(option.as_ref());
    }
    label
}

/// A campaign under way.
#[derive(Debug)]
pub struct Campaign {
    runner: Runner,
    store: Store,
    entrants: Vec<Entrant>,
    brokers: Option<(Brokers, u32)>,
    warm_up: Option<Scenario>,
    failures_in_a_row: u32,
    /// Runs made now, as opposed to found.
    made: u32,
    /// Addresses of the cells that were asked for, made or found.
    asked: BTreeSet<String>,
}

impl Campaign {
    /// A campaign that writes into `store`. `entrants` decides which brokers are needed; `warm_up` is the load that warms them.
    pub fn new(runner: Runner, store: Store, entrants: Vec<Entrant>, warm_up: Option<Scenario>) -> Self {
        Self {
            runner,
            store,
            entrants,
            brokers: None,
            warm_up,
            failures_in_a_row: 0,
            made: 0,
            asked: BTreeSet::new(),
        }
    }

    /// Runs made now, as opposed to found from an earlier attempt.
    pub fn made(&self) -> u32 {
        self.made
    }

    /// Addresses of the cells that were asked for: what the campaign consists of, whoever made it.
    pub fn asked(&self) -> &BTreeSet<String> {
        &self.asked
    }

    /// Where results go.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes the runs that have no record yet, in order.
    ///
    /// # Errors
    /// Cancelled, results that can't be written, or too many failed runs in a row. Single failures are noted.
    pub fn run_all(&mut self, cells: &[Cell]) -> Result<()> {
        let planned: f64 = cells.iter().map(Cell::planned_s).sum();
        self.runner.progress.expect(cells.len(), planned);
        self.asked.extend(cells.iter().map(|cell| cell.digest(&self.runner.build)));
        let done: Vec<&Cell> = cells.iter().filter(|cell| self.find(cell).is_some()).collect();
        if !done.is_empty() {
            self.runner.progress.skip(done.len(), done.iter().map(|cell| cell.planned_s()).sum());
            self.runner.progress.say(&format!(
                "{} of {} runs are there already and are kept",
                done.len(),
                cells.len()
            ));
        }
        for block in cells.chunk_by(|a, b| (a.role, a.block) == (b.role, b.block)) {
            let mut invalid = Vec::new();
            for cell in block {
                let record = self.run(cell)?;
                invalid.extend(record.filter(is_worth_repeating).map(|_| cell.again()));
            }
            self.repeat(&invalid)?;
        }
        Ok(())
    }

    /// Makes invalid runs of a block once more at its end: mostly it was the machine that was busy with something else.
    /// Both attempts are kept and listed. Steps of a search are not repeated: there an overloaded generator is an answer.
    fn repeat(&mut self, cells: &[Cell]) -> Result<()> {
        let repeatable = |cell: &&Cell| matches!(cell.role, Role::Null | Role::Comparison | Role::Claim);
        for cell in cells.iter().filter(repeatable) {
            if self.find(cell).is_none() {
                self.runner.progress.expect(1, cell.planned_s());
            }
            self.run(cell)?;
        }
        Ok(())
    }

    /// The record of a cell, if it was made before.
    pub fn find(&self, cell: &Cell) -> Option<RunRecord> {
        let build = &self.runner.build;
        self.store.find(&cell.folder(build), &cell.digest(build))
    }

    /// Makes a run, or finds it; `None` if it could not be made, which is noted.
    ///
    /// # Errors
    /// As for [`Campaign::run_all`].
    pub fn run(&mut self, cell: &Cell) -> Result<Option<RunRecord>> {
        // Asked first: a search over cells that are all there would otherwise not hear of it.
        self.stop_if_cancelled()?;
        self.asked.insert(cell.digest(&self.runner.build));
        if let Some(record) = self.find(cell) {
            return Ok(Some(record));
        }
        let outcome = self.attempt(cell);
        let folder = cell.folder(&self.runner.build);
        match outcome {
            Ok(record) => {
                self.store.save(&folder, &record)?;
                self.failures_in_a_row = 0;
                self.made += 1;
                Ok(Some(record))
            }
            Err(error) if is_cancelled(&error) || self.runner.cancel.load(Ordering::Relaxed) => {
                Err(RunError::Cancelled.into())
            }
            Err(error) => {
                let error = format!("{error:#}");
                self.runner.progress.failed(cell, &error);
                self.store.save_failure(&folder, &self.failure(cell, error.clone()))?;
                // Whatever broke may have been the brokers: the next run gets new ones.
                self.brokers = None;
                self.failures_in_a_row += 1;
                anyhow::ensure!(
                    self.failures_in_a_row < FAILURES_MAX,
                    "{FAILURES_MAX} runs in a row could not be made; the last: {error}"
                );
                Ok(None)
            }
        }
    }

    fn attempt(&mut self, cell: &Cell) -> Result<RunRecord> {
        let own = if cell.role != Role::Null && needs_own_brokers(cell) {
            self.runner.progress.note(&format!("brokers of its own for {}", cell.scenario.name));
            Some(Brokers::start_private(&cell.entrant, &cell.scenario)?)
        } else {
            None
        };
        if own.is_none() && cell.role != Role::Null {
            self.ready_brokers(&cell.entrant)?;
        }
        self.runner.progress.begin(cell);
        let start = Instant::now();
        let record = match (&own, &self.brokers) {
            _ if cell.role == Role::Null => self.runner.run_null(cell),
            (Some(own), _) => self.runner.run(cell, own),
            (None, Some((shared, _))) => self.runner.run(cell, shared),
            (None, None) => anyhow::bail!("no brokers"),
        }?;
        self.runner.progress.end(cell, &record, start.elapsed().as_secs_f64());
        Ok(record)
    }

    fn failure(&self, cell: &Cell, error: String) -> Failure {
        Failure {
            cell: cell.digest(&self.runner.build),
            campaign: self.runner.campaign.clone(),
            role: cell.role,
            ranked: !cell.entrant.is_floor() && !cell.entrant.is_counter_example(),
            scenario: cell.scenario.name.clone(),
            stands_for: cell.scenario.stands_for.clone(),
            label: cell.entrant.label(),
            block: cell.block,
            error,
        }
    }

    /// Brokers that are up, warm and not full of old topics. A run without Kafka leaves none behind.
    fn ready_brokers(&mut self, entrant: &Entrant) -> Result<()> {
        if let Some((_, runs)) = &mut self.brokers {
            *runs += u32::from(entrant.brokers().is_none_or(|needs| needs.kafka));
            if *runs <= RUNS_PER_BROKERS {
                return Ok(());
            }
            self.runner.progress.note("replacing the brokers");
            self.brokers = None;
        }
        self.runner.progress.note("starting brokers");
        let brokers = Brokers::start(&self.entrants)?;
        self.warm(&brokers)?;
        self.brokers = Some((brokers, 1));
        Ok(())
    }

    /// Loads every contender that uses the JVM broker in turn, until it is old and used enough.
    fn warm(&self, brokers: &Brokers) -> Result<()> {
        let Some(scenario) = &self.warm_up else { return Ok(()) };
        let on_kafka = |entrant: &&Entrant| entrant.brokers().is_some_and(|needs| needs.kafka);
        let warmers: Vec<&Entrant> = self.entrants.iter().filter(on_kafka).collect();
        if warmers.is_empty() {
            return Ok(());
        }
        let ready = |brokers: &Brokers| {
            brokers.age() >= AGE_MIN && brokers.messages(ComponentKind::Kafka) >= WARM_MESSAGES_MIN
        };
        for round in 0_u32.. {
            for entrant in &warmers {
                if ready(brokers) {
                    return Ok(());
                }
                self.stop_if_cancelled()?;
                self.runner.progress.note(&format!(
                    "warming Kafka: {:.0} of {} s old, {} of {WARM_MESSAGES_MIN} messages carried; nothing counts yet",
                    brokers.age().as_secs_f64(),
                    AGE_MIN.as_secs(),
                    brokers.messages(ComponentKind::Kafka)
                ));
                let cell = Cell {
                    role: Role::Single,
                    scenario: scenario.clone(),
                    nodes: 1,
                    entrant: (*entrant).clone(),
                    seed: mix(u64::from(round), "warm-up", 0),
                    block: 0,
                    attempt: 1,
                };
                self.runner.run(&cell, brokers).context("warming the brokers")?;
            }
        }
        Ok(())
    }

    fn stop_if_cancelled(&self) -> Result<()> {
        if self.runner.cancel.load(Ordering::Relaxed) {
            return Err(RunError::Cancelled.into());
        }
        Ok(())
    }
}

/// Whether an invalid run is to be made again. Where clients recover from faults, the audit is what counts: a generator that was late for
/// once, while a JVM came up beside it, takes nothing from that.
fn is_worth_repeating(record: &RunRecord) -> bool {
    let about_audit =
        record.validity.objections.iter().any(|one| !matches!(one.gate, Gate::SendLag | Gate::Busy));
    !record.validity.valid && (about_audit || record.measured.recoveries.is_none())
}

/// Whether a run gets brokers of its own: a JVM that was killed is cold afterwards, and brokers that somebody else runs are
/// not ours to strike. A Redis of ours comes back as new as it was. Links, and more brokers than one of a kind, are there
/// only where a scenario asks for them.
fn needs_own_brokers(cell: &Cell) -> bool {
    cell.strikes(ComponentKind::Kafka)
        || (cell.strikes(ComponentKind::Redis) && Brokers::are_given())
        || cell.scenario.needs_links()
        || cell.scenario.brokers != BrokerShapes::default()
}

impl AtRate for Campaign {
    fn run(&mut self, cell: Cell) -> Result<Option<RunRecord>> {
        self.runner.progress.expect(1, cell.planned_s());
        if self.find(&cell).is_some() {
            self.runner.progress.skip(1, cell.planned_s());
        }
        Self::run(self, &cell)
    }
}
