//! Soaks: hours of a life in minutes. Each strategy has brokers and nodes of its own, a modest load that never pauses, and
//! troubles at random; the audit counts every delivery, and memory and descriptors are watched.
//!
//! What lives here: the seeded timeline, one strategy's soak from brokers up to verdict, the rule of flatness, the record
//! and its page. What does not: load and audit (`engine`, `audit`), promises (`record`), processes (`campaign`).

mod flat;
mod health;
mod outcome;
mod page;
mod stretch;
mod timeline;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use manifold_compose::{Environment, NodeSpec, Nodes, Process};

pub use flat::{Look, Thirds};
use outcome::Who;
pub use outcome::{SOAK_VERSION, Soak, Soaked};
pub use page::page;
pub use stretch::Stretch;
pub use timeline::scenario;
pub use watch::{Life, Rest};

use crate::campaign::{Brokers, Entrant, Stage, Watched, mix, namespace};
use crate::engine::{self, RunError, RunSpec};
use crate::probe::info;
use crate::record::{Live, Measured, Rules, Verdict, judge};
use crate::scenario::Scenario;
use crate::surroundings::Surroundings;
use watch::Watch;

/// Longest time between two looks at memory and descriptors.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(10);
/// Looks that even a short soak takes.
const LOOKS_MIN: f64 = 40.0;
/// How often the watching thread wakes.
const TURN: Duration = Duration::from_millis(200);
/// How long nodes may take to drain at the end.
const GRACE: Duration = Duration::from_secs(15);
/// How long clients' descriptors may take to be closed after them.
const SETTLE: Duration = Duration::from_secs(5);

/// Ids that nodes remember in a soak: fewer are no window for the retries and repetitions of an outage…
const IDS_MIN: u64 = 1_024;
/// …and more would not be reached soon enough.
const IDS_MAX: u64 = 8_192;

/// Processes that ended by themselves, with how their logs end.
type Ended = Vec<(String, String)>;

/// Brokers and nodes come up one strategy after the other: five JVMs that start at once time out.
static STARTING: Mutex<()> = Mutex::new(());

/// The soak of one strategy.
#[derive(Debug)]
pub struct Bath {
    /// The chat-server program.
    pub binary: PathBuf,
    /// Who.
    pub entrant: Entrant,
    /// Load and troubles; see [`scenario`].
    pub scenario: Scenario,
    /// Seed of the load.
    pub seed: u64,
    /// Where logs of a soak that fails are kept.
    pub folder: PathBuf,
    /// Set once the person wants to stop.
    pub cancel: Arc<AtomicBool>,
}

impl Bath {
    /// Runs it. What goes wrong on the way is part of the outcome.
    ///
    /// # Errors
    /// [`RunError::Cancelled`] alone.
    pub fn run(&self, on_progress: impl Fn(&Live) + Send + Sync + 'static) -> Result<Soaked, RunError> {
        let mut lives = Vec::new();
        let outcome = self.attempt(Box::new(on_progress), &mut lives);
        match outcome {
            Ok(soaked) => Ok(soaked),
            Err(error) if crate::campaign::is_cancelled(&error) => Err(RunError::Cancelled),
            Err(error) => Ok(Soaked::failed(self.entrant.label(), format!("{error:#}"), lives)),
        }
    }

    fn attempt(
        &self,
        on_progress: Box<dyn Fn(&Live) + Send + Sync>,
        lives: &mut Vec<Life>,
    ) -> Result<Soaked> {
        let label = self.entrant.label();
        let (brokers, nodes) = self.start()?;
        let about = info(&nodes.http()[0]);
        let server = format!("chat-server {} (commit {})", about.version, about.commit);
        let logs: Vec<Process> =
            nodes.processes().iter().chain(brokers.environment().processes()).cloned().collect();
        let (outcome, nodes, ended) = self.measure(brokers.environment(), nodes, on_progress, lives);
        let mut soaked = outcome.map(|measured| {
            let target_us = self.scenario.target_ms * 1_000;
            let judged = judge(&measured, &about.guarantees, target_us, Rules::default());
            let who = Who {
                label: label.clone(),
                server,
                options: self.further_options(),
                steps: self.scenario.clients.clone(),
            };
            Soaked::finished(who, measured, judged, std::mem::take(lives))
        });
        let undrained = match &nodes {
            Some(nodes) => nodes.terminate(GRACE).unwrap_or_else(|error| vec![error.to_string()]),
            None => Vec::new(),
        };
        let ended =
            ended.into_iter().map(|(name, log)| format!("{name} ended by itself; its log ends with: {log}"));
        let problems: Vec<String> = ended.chain(undrained).collect();
        match &mut soaked {
            Ok(soaked) => soaked.problems.extend(problems),
            // What ended it says more than that it could not go on.
            Err(RunError::Cancelled) => {}
            Err(_) => problems.iter().for_each(|problem| eprintln!("{label}: {problem}")),
        }
        if !soaked.as_ref().is_ok_and(Soaked::passed) {
            self.keep_logs(nodes.iter().flat_map(Nodes::processes).chain(&logs));
        }
        Ok(soaked?)
    }

    /// What its nodes are told besides the entrant's own options: they remember so few ids that they have enough within half
    /// of the first third. What grows after that is a leak.
    fn further_options(&self) -> Vec<String> {
        let Some(key) = self.entrant.brokers().and_then(|brokers| brokers.ids_kept) else {
            return Vec::new();
        };
        let given = |option: &String| option.split_once('=').is_some_and(|(name, _)| name == key);
        if self.entrant.options.iter().any(given) {
            return Vec::new();
        }
        let sent = self.scenario.traffic.rate_per_s * self.scenario.duration_s;
        vec![format!("{key}={}", ((sent / 6.0) as u64).clamp(IDS_MIN, IDS_MAX))]
    }

    fn start(&self) -> Result<(Brokers, Nodes)> {
        let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let brokers = Brokers::start_small(&self.entrant, &self.scenario)?;
        let nodes = if self.entrant.is_floor() { 1 } else { self.scenario.nodes as usize };
        let spec = NodeSpec {
            binary: self.binary.clone(),
            strategy: self.entrant.strategy.clone(),
            nodes,
            namespace: namespace(),
            strategy_options: self.entrant.options.iter().cloned().chain(self.further_options()).collect(),
            extra_args: self.scenario.pings.server_arguments(),
            ..NodeSpec::default()
        };
        let nodes = Nodes::start(&spec, brokers.environment()).context("the nodes did not start")?;
        Ok((brokers, nodes))
    }

    fn measure(
        &self,
        environment: &Environment,
        nodes: Nodes,
        on_progress: Box<dyn Fn(&Live) + Send + Sync>,
        lives: &mut Vec<Life>,
    ) -> (Result<Measured, RunError>, Option<Nodes>, Ended) {
        let spec = RunSpec {
            scenario: self.scenario.clone(),
            urls: nodes.urls(),
            seed: mix(self.seed, &self.entrant.label(), 1),
            threads: Some(1),
            room_prefix: String::new(),
        };
        let watched: [Watched; 0] = [];
        let stage =
            Stage::new(Some(environment), Some(nodes), &watched, Arc::clone(&self.cancel), on_progress);
        let outcome = std::thread::scope(|scope| {
            let soak_s = self.scenario.duration_s;
            let every = LOOK_EVERY_MAX.min(Duration::from_secs_f64(soak_s / LOOKS_MIN));
            let mut watch = Watch::new(every);
            watch.before(&stage.node_processes());
            let run = scope.spawn(|| engine::run(&spec, &stage as &dyn Surroundings));
            while !run.is_finished() {
                let brokers = environment.processes().iter().map(|broker| (broker.clone(), None));
                watch.look(stage.node_addresses().into_iter().chain(brokers));
                std::thread::sleep(TURN);
            }
            watch.after(SETTLE);
            watch.ask_all(stage.node_addresses());
            *lives = watch.finish(soak_s);
            run.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let ended = stage.ended_by_themselves();
        (outcome, stage.finish().0, ended)
    }

    /// Logs are removed with their processes; those of a soak that failed are evidence.
    fn keep_logs<'p>(&self, processes: impl Iterator<Item = &'p Process>) {
        let folder = self.folder.join("logs").join(self.entrant.label().replace(' ', "_"));
        // Evidence that cannot be kept changes nothing about the verdict.
        let _ = fs::create_dir_all(&folder);
        for process in processes {
            keep(process.log_path(), &folder);
            keep(&process.log_path().with_extension("log.old"), &folder);
        }
    }
}

fn keep(log: &Path, folder: &Path) {
    if let Some(name) = log.file_name().filter(|_| log.exists()) {
        let _ = fs::copy(log, folder.join(name));
    }
}

/// Whether the promises of a verdict were all kept, for pages.
fn kept(verdict: Option<&Verdict>) -> bool {
    verdict.is_some_and(|verdict| verdict.kept)
}
