//! Makes one run: nodes up, load, audit, nodes down, record.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use manifold_compose::{NodeSpec, Nodes};

use super::brokers::Brokers;
use super::gates::{self, Aftermath};
use super::plan::{Cell, digest};
use super::progress::Progress;
use super::stage::{Stage, Watched};
use crate::engine::{self, RunError, RunSpec};
use crate::null_server::{NullServer, NullSettings};
use crate::probe::{Info, Steal, hardware, info};
use crate::record::{
    ComponentKind, Contender, Cost, Hardware, Measured, Role, Rules, RunRecord, SCHEMA_VERSION,
    ScenarioRecord, Setting, Tool, judge,
};
use crate::scenario::Scenario;
use crate::surroundings::Surroundings;

/// How long nodes may take to drain; their clients are gone by then.
const GRACE: Duration = Duration::from_secs(10);

/// What all runs of a campaign share.
#[derive(Debug)]
pub struct Runner {
    /// The chat-server program.
    pub binary: PathBuf,
    /// Identifies the programs, for content addresses.
    pub build: String,
    /// Digest of the campaign's plan.
    pub campaign: String,
    /// The command line that reproduces the runs.
    pub command: String,
    /// Set once the person wants to stop.
    pub cancel: Arc<AtomicBool>,
    /// Where progress is shown.
    pub progress: Arc<Progress>,
    /// Which code measures, as it was when the campaign began: the checkout may change under a long one.
    pub tool: Tool,
}

/// What is known of a run besides what it measures.
#[derive(Debug)]
pub struct Frame {
    /// The cell; for a single run, made up from its parts.
    pub cell: Cell,
    /// Who was measured.
    pub contender: Contender,
    /// Brokers beside it.
    pub brokers: Vec<crate::record::Broker>,
    /// When it began.
    pub started_at: String,
    /// The machine when it began.
    pub hardware: Hardware,
    /// CPU time that the host had taken when it began.
    pub steal: Steal,
}

impl Runner {
    /// Runs a cell against brokers that are up.
    ///
    /// # Errors
    /// Nodes that don't start, clients that can't join, a run that was cancelled.
    pub fn run(&self, cell: &Cell, brokers: &Brokers) -> Result<RunRecord> {
        let spec = NodeSpec {
            binary: self.binary.clone(),
            strategy: cell.entrant.strategy.clone(),
            nodes: cell.nodes,
            namespace: namespace(),
            strategy_options: cell.entrant.options.clone(),
            extra_args: cell.scenario.pings.server_arguments(),
            ..NodeSpec::default()
        };
        let nodes = Nodes::start(&spec, brokers.environment()).context("the nodes did not start")?;
        let urls = nodes.urls();
        let contender = info(&nodes.http()[0]).contender(
            &cell.entrant.options,
            cell.nodes as u64,
            cell.entrant.is_floor(),
        );
        let frame = Frame {
            cell: cell.clone(),
            contender,
            brokers: brokers.describe(&cell.entrant),
            started_at: now_rfc3339(),
            hardware: hardware(),
            steal: Steal::now(),
        };
        let mut watched: Vec<Watched> = nodes
            .processes()
            .iter()
            .map(|process| (process.clone(), ComponentKind::Node))
            .chain(brokers.used_by(&cell.entrant))
            .map(|(process, kind)| Watched { name: process.name().to_owned(), kind, process: Some(process) })
            .collect();
        watched.push(Watched::generator());
        let (measured, nodes, cost, mut aftermath) =
            self.measure(cell, urls, Some(brokers), Some(nodes), &watched)?;
        if let Some(nodes) = nodes {
            // A node that a fault killed is gone already; what doesn't drain in time is killed.
            aftermath.undrained = nodes.terminate(GRACE)?;
        }
        brokers.carried(&cell.entrant, measured.audit.acknowledged);
        let mut record = self.record(frame, measured, cost);
        gates::hold(&mut record, &aftermath);
        Ok(record)
    }

    /// Runs a cell against a server that only echoes, in this process.
    ///
    /// # Errors
    /// As for [`Runner::run`].
    pub fn run_null(&self, cell: &Cell) -> Result<RunRecord> {
        let server = NullServer::start(NullSettings::default()).context("the null server did not start")?;
        let contender = Info { strategy: "null".to_owned(), ..Info::default() }.contender(&[], 1, true);
        let contender = Contender { summary: "echoes; no backplane".to_owned(), ..contender };
        let (started_at, hardware, steal) = (now_rfc3339(), hardware(), Steal::now());
        let watched = [Watched::generator()];
        let (measured, _, cost, _) = self.measure(cell, vec![server.url()], None, None, &watched)?;
        let frame = Frame { cell: cell.clone(), contender, brokers: Vec::new(), started_at, hardware, steal };
        Ok(self.record(frame, measured, cost))
    }

    fn measure(
        &self,
        cell: &Cell,
        urls: Vec<String>,
        brokers: Option<&Brokers>,
        nodes: Option<Nodes>,
        watched: &[Watched],
    ) -> Result<(Measured, Option<Nodes>, Cost, Aftermath)> {
        let progress = Arc::clone(&self.progress);
        let stage = Stage::new(
            brokers.map(Brokers::environment),
            nodes,
            watched,
            Arc::clone(&self.cancel),
            Box::new(move |live| progress.live(live)),
        );
        let spec = RunSpec {
            scenario: cell.scenario.clone(),
            urls,
            seed: cell.seed,
            threads: None,
            room_prefix: String::new(),
        };
        let outcome = engine::run(&spec, &stage as &dyn Surroundings);
        let aftermath = Aftermath { ended: stage.ended_by_themselves(), undrained: Vec::new() };
        let (nodes, cost) = stage.finish();
        let measured = outcome.map_err(|error| explain(error, nodes.as_ref()))?;
        Ok((measured, nodes, cost, aftermath))
    }

    /// Puts everything together and judges it.
    pub fn record(&self, frame: Frame, measured: Measured, cost: Cost) -> RunRecord {
        let Frame { cell, contender, brokers, started_at, hardware, steal } = frame;
        let hardware = Hardware { steal_share: steal.share_since(), ..hardware };
        let scenario = scenario_record(&cell.scenario);
        let target_us = scenario.delivery_us_p99_target;
        let (mut validity, verdict) = judge(&measured, &contender.guarantees, target_us, Rules::default());
        gates::hold_late_faults(&mut validity, &measured);
        gates::hold_patient_clients(&mut validity, &measured, cell.scenario.pings);
        // Somebody else started the servers of a single run: nobody knows from what.
        let build = if cell.role == Role::Single { String::new() } else { self.build.clone() };
        RunRecord {
            schema_version: SCHEMA_VERSION,
            cell: cell.digest(&self.build),
            campaign: self.campaign.clone(),
            started_at,
            command: self.command.clone(),
            seed: cell.seed,
            block: cell.block,
            role: cell.role,
            scenario,
            contender,
            setting: Setting { hardware, brokers, tool: Tool { build, ..self.tool.clone() } },
            measured,
            cost,
            validity,
            verdict,
        }
    }
}

/// A run's failure with what the nodes last said: the cause is mostly there.
fn explain(error: RunError, nodes: Option<&Nodes>) -> anyhow::Error {
    let dead = nodes.into_iter().flat_map(Nodes::processes).find(|process| !process.is_running());
    match (error, dead) {
        (RunError::Cancelled, _) => anyhow::Error::new(RunError::Cancelled),
        (error, None) => anyhow::Error::new(error),
        (error, Some(node)) => {
            let message = format!("node {} is gone; its log ends with:\n{}", node.name(), node.log_tail());
            anyhow::Error::new(error).context(message)
        }
    }
}

/// What a record says of a scenario.
pub fn scenario_record(scenario: &Scenario) -> ScenarioRecord {
    ScenarioRecord {
        name: scenario.name.clone(),
        stands_for: scenario.stands_for.clone(),
        digest: digest(scenario),
        delivery_us_p99_target: scenario.target_ms * 1_000,
        parameters: serde_json::to_value(scenario).unwrap_or_default(),
    }
}

/// Topics, keys and channels of a run: nobody has used them before.
pub fn namespace() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("lg{:x}-{}", since.as_millis(), RUNS.fetch_add(1, Ordering::Relaxed))
}

/// Now, RFC 3339, UTC, whole seconds.
pub fn now_rfc3339() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    rfc3339(seconds)
}

/// Seconds since 1970 as RFC 3339, UTC (civil-from-days, Howard Hinnant's algorithm).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3_600, rest / 60 % 60, rest % 60)
}

/// Whether an error is the person's own wish to stop.
pub fn is_cancelled(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref::<RunError>(), Some(RunError::Cancelled)))
}

/// A null run's cell: the first scenario's load, on a server that only echoes.
pub fn null_cell(scenario: &Scenario, seed: u64) -> Cell {
    let mut scenario = scenario.clone();
    scenario.faults.clear();
    scenario.clients.clear();
    Cell {
        role: Role::Null,
        scenario,
        entrant: super::plan::Entrant { strategy: "null".to_owned(), options: Vec::new() },
        nodes: 1,
        seed,
        block: 0,
        attempt: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(rfc3339(1_795_235_400), "2026-11-21T04:30:00Z");
    }

    #[test]
    fn namespaces_differ_and_are_names() {
        let (a, b) = (namespace(), namespace());
        assert_ne!(a, b);
        assert!(
            a.len() <= 64 && a.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        );
    }
}
