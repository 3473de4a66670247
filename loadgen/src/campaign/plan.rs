//! What a campaign runs, in which order: content-addressed cells in randomised, interleaved blocks.

use std::path::PathBuf;

use manifold_compose::{STRATEGIES, StrategyBrokers};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::gates::Excluded;
use super::label;
use crate::claims::{COUNTER_EXAMPLES, Experiment};
use crate::record::{ComponentKind, Deed, Fault, Role, SCHEMA_VERSION};
use crate::scenario::Scenario;

/// A contender of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entrant {
    /// Strategy name.
    pub strategy: String,
    /// Options, `key=value`.
    pub options: Vec<String>,
}

impl Entrant {
    /// The brokers that it needs; `None` for a strategy that nobody knows.
    pub fn brokers(&self) -> Option<&'static StrategyBrokers> {
        STRATEGIES.iter().find(|known| known.name == self.strategy)
    }

    /// Needs no broker, so it can't span nodes: it runs on one, as the floor.
    pub fn is_floor(&self) -> bool {
        self.brokers().is_some_and(|brokers| !brokers.kafka && !brokers.redis)
    }

    /// Exists to show a mistake.
    pub fn is_counter_example(&self) -> bool {
        COUNTER_EXAMPLES.contains(&self.strategy.as_str())
    }

    /// What reports call it.
    pub fn label(&self) -> String {
        label(&self.strategy, &self.options)
    }
}

/// One run to be made.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// What it is for.
    pub role: Role,
    /// Effective scenario.
    pub scenario: Scenario,
    /// Who.
    pub entrant: Entrant,
    /// Nodes to start with.
    pub nodes: usize,
    /// Seed of schedule and payloads: the same for every contender of a block, so that they face the same load.
    pub seed: u64,
    /// Block, from 1; 0 outside blocks.
    pub block: u32,
    /// 1, or 2 for the repetition of a run that was invalid.
    pub attempt: u32,
}

impl Cell {
    /// Content address: whatever may change the outcome is in it. `build` identifies the programs.
    pub fn digest(&self, build: &str) -> String {
        digest(&(SCHEMA_VERSION, build, self))
    }

    /// Where its record lies within the result folder.
    pub fn folder(&self, build: &str) -> PathBuf {
        let role = match self.role {
            Role::Comparison | Role::Single => String::new(),
            Role::Null => "null-".to_owned(),
            Role::Capacity | Role::Knee => format!("{:.0}-per-s-", self.scenario.traffic.rate_per_s),
            Role::Claim => "claim-".to_owned(),
        };
        let who: String = self
            .entrant
            .label()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' })
            .collect();
        let cell = &self.digest(build)[..8];
        PathBuf::from(&self.scenario.name).join(format!("{who}-{role}b{}-{cell}", self.block))
    }

    /// The same once more.
    #[must_use]
    pub fn again(&self) -> Self {
        Self { attempt: self.attempt + 1, ..self.clone() }
    }

    /// How long it takes, warm-up, drain and starting of nodes included; roughly.
    pub fn planned_s(&self) -> f64 {
        self.scenario.warm_up_s
            + self.scenario.duration_s
            + 2.0
            + if self.strikes(ComponentKind::Kafka) { 6.0 } else { 0.0 }
    }

    /// Whether its timeline strikes brokers of a kind, or cuts them off.
    pub fn strikes(&self, kind: ComponentKind) -> bool {
        self.scenario.faults.iter().any(|fault| fault.to.broker() == Some(kind))
    }
}

/// A stable digest of anything that serialises.
pub fn digest(value: &impl Serialize) -> String {
    // Plain data always serialises; an empty text would merely make cells collide, and they carry their content anyway.
    let text = serde_json::to_string(value).unwrap_or_default();
    Sha256::digest(text.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// What to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Scenarios that every contender runs in every block.
    pub scenarios: Vec<Scenario>,
    /// Scenarios of which fewer blocks are run, and how many.
    pub few: Vec<(Scenario, u32)>,
    /// Contenders.
    pub entrants: Vec<Entrant>,
    /// Blocks.
    pub blocks: u32,
    /// Seed of order and load.
    pub seed: u64,
}

impl Plan {
    /// The comparison's cells in the order in which they run.
    pub fn cells(&self) -> Vec<Cell> {
        (1..=self.blocks).flat_map(|block| self.block(block)).collect()
    }

    fn block(&self, block: u32) -> Vec<Cell> {
        let few = self.few.iter().filter(|(_, blocks)| block <= *blocks).map(|(scenario, _)| scenario);
        let mut scenarios: Vec<&Scenario> = self.scenarios.iter().chain(few).collect();
        let mut rng = StdRng::seed_from_u64(mix(self.seed, "order", block));
        scenarios.shuffle(&mut rng);
        let mut cells = Vec::new();
        for scenario in scenarios {
            let mut entrants: Vec<&Entrant> =
                self.entrants.iter().filter(|entrant| self.takes_part(entrant, scenario)).collect();
            entrants.shuffle(&mut rng);
            cells.extend(entrants.into_iter().map(|entrant| self.cell(scenario, entrant, block)));
        }
        cells
    }

    fn cell(&self, scenario: &Scenario, entrant: &Entrant, block: u32) -> Cell {
        Cell {
            role: Role::Comparison,
            scenario: scenario.clone(),
            nodes: if entrant.is_floor() { 1 } else { scenario.nodes as usize },
            entrant: entrant.clone(),
            seed: mix(self.seed, &scenario.name, block),
            block,
            attempt: 1,
        }
    }

    /// A counter-example shows its mistake in one scenario; the rest would repeat it. The floor has no second node to
    /// fail over to, but may wait for its own. A broker's fault concerns only those who use that broker.
    fn takes_part(&self, entrant: &Entrant, scenario: &Scenario) -> bool {
        if entrant.is_counter_example() {
            let healthy = self.scenarios.iter().find(|one| one.faults.is_empty() && one.clients.is_empty());
            // Under faults a loss may be within what it declares: alone it runs wherever it is sent, beside others not.
            return healthy.map_or(self.entrants.len() == 1, |first| first.name == scenario.name);
        }
        excluded(entrant, &scenario.faults).is_none()
    }

    /// The experiments for claims, each as often as it says, in scenarios as this plan paces them.
    pub fn experiments(
        &self,
        experiments: &[Experiment],
        scenario: impl Fn(&str, &[&str]) -> Option<Scenario>,
    ) -> Vec<Cell> {
        experiments
            .iter()
            .flat_map(|experiment| (1..=experiment.repeats).map(move |block| (experiment, block)))
            .filter_map(|(experiment, block)| {
                let entrant = Entrant {
                    strategy: experiment.strategy.to_owned(),
                    options: experiment.options.iter().map(|option| (*option).to_owned()).collect(),
                };
                let overrides = experiment.variant.map_or(&[] as &[&str], |variant| variant.overrides);
                let mut scenario = scenario(experiment.scenario, overrides)?;
                if let Some(variant) = experiment.variant {
                    variant.name.clone_into(&mut scenario.name);
                }
                let cell = self.cell(&scenario, &entrant, block);
                Some(Cell { role: Role::Claim, ..cell })
            })
            .collect()
    }
}

/// Why a contender takes no part under faults; `None` where it does.
pub fn excluded(entrant: &Entrant, faults: &[Fault]) -> Option<Excluded> {
    let uses = entrant.brokers();
    faults.iter().enumerate().find_map(|(place, fault)| match fault.to.broker() {
        Some(kind) => {
            let used =
                uses.is_none_or(|uses| if kind == ComponentKind::Kafka { uses.kafka } else { uses.redis });
            (!used).then_some(Excluded::NoBroker(kind))
        }
        None if !entrant.is_floor() => None,
        // Its clients come back to the same node, once that is there again.
        None => {
            let ends = |later: &Fault| {
                let mends = matches!(later.deed, Deed::Continue | Deed::Restart | Deed::Relieve);
                mends && later.to == fault.to
            };
            (fault.deed == Deed::Add || !faults[place..].iter().any(ends) && fault.deed != Deed::Roll)
                .then_some(Excluded::OneNode)
        }
    })
}

/// A seed for a purpose and a block.
pub fn mix(seed: u64, purpose: &str, block: u32) -> u64 {
    let hash = Sha256::digest(format!("{seed}/{purpose}/{block}"));
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash[..8]);
    // Kept within what JSON readers take for a whole number.
    u64::from_le_bytes(bytes) >> 11
}

/// Longest wait for stragglers where nothing was broken. A run that lost nothing waits for nothing, so only losers pay for it; after
/// a fault stragglers are waited for as long as the scenario says.
const DRAIN_S_MAX: f64 = 5.0;

/// Fits a scenario into the time that a campaign has for a run. A scenario with a timeline keeps its shape: all of its
/// times shrink by the same factor.
pub fn pace(mut scenario: Scenario, window_s: f64, warm_up_s: f64, timeline_s: f64) -> Scenario {
    scenario.warm_up_s = scenario.warm_up_s.min(warm_up_s);
    if scenario.faults.is_empty() && scenario.clients.is_empty() {
        scenario.drain_s = scenario.drain_s.min(DRAIN_S_MAX);
    }
    let timed =
        !scenario.faults.is_empty() || !scenario.clients.is_empty() || !scenario.traffic.surges.is_empty();
    let factor = if timed { timeline_s } else { window_s } / scenario.duration_s;
    if factor >= 1.0 {
        return scenario;
    }
    scenario.duration_s *= factor;
    for fault in &mut scenario.faults {
        fault.at_s *= factor;
    }
    for step in &mut scenario.clients {
        step.at_s *= factor;
    }
    for surge in &mut scenario.traffic.surges {
        surge.at_s *= factor;
        surge.for_s *= factor;
    }
    scenario
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn plan(seed: u64) -> Plan {
        let load = |name| Scenario::load(name, &[]).unwrap();
        let entrant = |known: &StrategyBrokers| Entrant { strategy: known.name.into(), options: vec![] };
        Plan {
            scenarios: vec![load("small-rooms"), load("giant-room"), load("redis-restart")],
            few: vec![(load("node-crash"), 1)],
            entrants: STRATEGIES.iter().map(entrant).collect(),
            blocks: 3,
            seed,
        }
    }

    #[test]
    fn every_block_has_every_contender_once_per_scenario() {
        let cells = plan(1).cells();
        for block in 1..=3 {
            for scenario in ["small-rooms", "giant-room"] {
                let who: Vec<&str> = cells
                    .iter()
                    .filter(|cell| cell.block == block && cell.scenario.name == scenario)
                    .map(|cell| cell.entrant.strategy.as_str())
                    .collect();
                let unique: BTreeSet<&str> = who.iter().copied().collect();
                assert_eq!(unique.len(), who.len());
                for name in ["memory", "kafka-broadcast", "kafka-keyed", "redis-pubsub", "hybrid"] {
                    assert!(unique.contains(name), "{name} in {scenario}, block {block}");
                }
                assert_eq!(unique.contains("kafka-shared-group"), scenario == "small-rooms");
            }
        }
        let crash = cells.iter().filter(|cell| cell.scenario.name == "node-crash");
        assert!(crash.clone().all(|cell| cell.block == 1));
        assert!(crash.clone().any(|cell| cell.entrant.is_floor()), "its one node comes back");
        let redis = cells.iter().filter(|cell| cell.scenario.name == "redis-restart");
        assert!(redis.clone().all(|cell| cell.entrant.brokers().unwrap().redis) && redis.count() == 6);
    }

    #[test]
    fn order_is_random_seeded_and_differs_between_blocks() {
        let order = |seed| -> Vec<String> {
            plan(seed)
                .cells()
                .iter()
                .map(|cell| format!("{} {}", cell.scenario.name, cell.entrant.label()))
                .collect()
        };
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn contenders_of_a_block_face_the_same_load_and_cells_have_addresses_of_their_own() {
        let cells = plan(1).cells();
        let seeds: BTreeSet<u64> = cells
            .iter()
            .filter(|cell| cell.block == 2 && cell.scenario.name == "small-rooms")
            .map(|cell| cell.seed)
            .collect();
        assert_eq!(seeds.len(), 1);
        let addresses: BTreeSet<String> = cells.iter().map(|cell| cell.digest("build")).collect();
        assert_eq!(addresses.len(), cells.len());
        assert_ne!(cells[0].digest("build"), cells[0].digest("another build"));
    }

    #[test]
    fn pacing_shrinks_a_timeline_as_a_whole_and_never_stretches() {
        let slow = Scenario::load("redis-restart", &[]).unwrap();
        let fast = pace(slow.clone(), 4.0, 1.0, 10.0);
        assert!((fast.duration_s - 10.0).abs() < 1e-9);
        assert!((fast.faults[0].at_s / slow.faults[0].at_s - 10.0 / slow.duration_s).abs() < 1e-9);
        assert_eq!(pace(slow.clone(), 1e3, 1e3, 1e3), slow, "stragglers of a fault are waited for");
        let quiet = Scenario { faults: vec![], drain_s: 60.0, ..slow };
        assert!((pace(quiet, 1e3, 1e3, 1e3).drain_s - DRAIN_S_MAX).abs() < 1e-9);
    }
}
