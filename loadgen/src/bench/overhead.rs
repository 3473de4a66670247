//! Number 3: what a strategy adds to its client library: CPU per publish, and latency from WebSocket to WebSocket.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::found::Found;
use super::raw::{Bare, Loop};
use super::record::{Row, Target, Window};
use super::rig::Rig;
use super::shapes::{run_s, shape};
use super::subject::{MEMORY, NO_HISTORY, Subject};
use crate::campaign::{AGE_MIN, Brokers, Entrant, WARM_MESSAGES_MIN};
use crate::scenario::Scenario;

const NUMBER: u8 = 3;
/// What the strategy adds ÷ what the bare client costs.
const CPU_MAX: f64 = 1.3;
/// Above the bare client's, milliseconds.
const P50_EXCESS_MS: f64 = 0.3;
const P99_EXCESS_MS: f64 = 1.0;
/// Strategy, the bare client that it stands on.
const STRATEGIES: [(&str, &str); 2] = [("kafka-keyed", "kafka"), ("redis-pubsub", "redis")];
const NODES: [usize; 2] = [2, 4];
const RATES: [f64; 2] = [1_000.0, 5_000.0];
/// Messages per second, and for how long, that warm a young broker.
const WARMING: (f64, f64) = (10_000.0, 6.0);
/// What a bare loop takes beside its window: connecting, calibrating its pacing.
const BARE_AROUND_S: f64 = 1.0;
/// Starting nodes.
const START_S: f64 = 2.0;

/// How long it takes, seconds, warming left out.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let run = run_s(&shape("cross", "cross", &[])?);
    let pairs = (STRATEGIES.len() * NODES.len() * RATES.len()) as f64;
    let block = pairs * (2.0 * run + bare_s()?);
    Ok(f64::from(blocks) * block + (STRATEGIES.len() * NODES.len()) as f64 * START_S)
}

fn bare_s() -> Result<f64> {
    let cross = shape("cross", "cross", &[])?;
    Ok(cross.warm_up_s + cross.duration_s + BARE_AROUND_S)
}

/// Brokers that are old and used enough for their tails to mean something.
pub(super) fn warmed(rig: &Rig, found: &mut Found, entrants: &[Entrant]) -> Result<Brokers> {
    rig.progress.note("starting brokers");
    let brokers = Brokers::start(entrants)?;
    let Some(address) = brokers.environment().kafka() else { return Ok(brokers) };
    let Some(program) = &rig.raw_clients else {
        found.note("Kafka is cold: the bare clients, which warm it, were not built; figures with it are of a young broker");
        return Ok(brokers);
    };
    let mut carried = 0;
    while carried < WARM_MESSAGES_MIN || brokers.age() < AGE_MIN {
        rig.go_on()?;
        rig.progress
            .note(&format!("warming Kafka: {:.0} s old, {carried} messages", brokers.age().as_secs_f64()));
        let (rate_per_s, window_s) = WARMING;
        let warming = Loop { client: "kafka", address, rate_per_s, consumers: 1, warm_up_s: 0.5, window_s };
        carried += warming.run(program).context("warming Kafka")?.sent;
        if carried >= WARM_MESSAGES_MIN {
            std::thread::sleep(AGE_MIN.saturating_sub(brokers.age()).min(Duration::from_secs(5)));
        }
    }
    Ok(brokers)
}

/// Contenders of this number.
pub(super) fn entrants() -> Vec<Entrant> {
    STRATEGIES.iter().map(|(strategy, _)| entrant(strategy)).collect()
}

fn entrant(strategy: &str) -> Entrant {
    Entrant { strategy: strategy.to_owned(), options: vec![NO_HISTORY.to_owned()] }
}

/// Its lines before anything was measured.
pub(super) fn lines() -> Vec<Row> {
    let pairs = STRATEGIES.into_iter().flat_map(|pair| NODES.map(|count| (pair, count)));
    let pairs = pairs.flat_map(|pair| RATES.map(|rate| (pair, rate)));
    let rows = pairs.flat_map(|(((strategy, client), count), rate)| {
        rows(&about(&subject_name(strategy, count), rate), &bare_name(client), &[])
    });
    rows.collect()
}

fn subject_name(strategy: &str, nodes: usize) -> String {
    format!("{strategy}, {nodes} nodes")
}

fn about(subject: &str, rate: f64) -> String {
    format!("{subject}, {rate:.0} msg/s")
}

fn bare_name(client: &str) -> String {
    format!("bare {client}")
}

/// In each block: the nodes, one node without a backplane, and the bare loop, one after another.
pub(super) fn measure(rig: &Rig, found: &mut Found, brokers: &Brokers) -> Result<()> {
    let Some(program) = &rig.raw_clients else {
        found.note("number 3 is left out: the bare clients were not built (cargo build --release -p manifold-strategies --example raw_clients)");
        return Ok(());
    };
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    for (strategy, client) in STRATEGIES {
        found.brokers.extend(brokers.describe(&entrant(strategy)));
        let environment = brokers.environment();
        let address = if client == "kafka" { environment.kafka() } else { environment.redis() };
        let address = address.with_context(|| format!("no address of {client}"))?;
        for count in NODES {
            let name = subject_name(strategy, count);
            let nodes = Subject::nodes(&rig.server, &name, &entrant(strategy), count, brokers);
            let Some(nodes) = found.or_note(&name, nodes)? else { continue };
            for rate in RATES {
                let pair = Pair { nodes: &nodes, memory: &memory, program, client, address, count, rate };
                pair.measure(rig, found)?;
            }
        }
    }
    found.note("number 3 compares without history: a bare publish/subscribe or produce/consume loop keeps none either");
    Ok(())
}

/// A strategy on some nodes at some rate, and what it is held against.
struct Pair<'a> {
    nodes: &'a Subject,
    memory: &'a Subject,
    program: &'a Path,
    client: &'a str,
    address: &'a str,
    count: usize,
    rate: f64,
}

/// One part of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Nodes,
    Memory,
    Bare,
}

/// What a block brought.
#[derive(Debug, Default)]
struct Block {
    nodes: Option<Window>,
    memory: Option<Window>,
    bare: Option<Bare>,
}

impl Pair<'_> {
    fn measure(&self, rig: &Rig, found: &mut Found) -> Result<()> {
        let name = format!("cross-{}-nodes-{:.0}", self.count, self.rate);
        let overrides = [("traffic.services", self.count as f64), ("traffic.rate_per_s", self.rate)];
        let scenario = shape("cross", &name, &overrides)?;
        let mut blocks = Vec::new();
        let outcome = self.take(rig, found, &scenario, &mut blocks);
        let about = about(&self.nodes.name, self.rate);
        if blocks.iter().filter_map(differences).any(|(added, bare)| !is_cost(added, bare)) {
            found.note(format!(
                "{about}: a block in which the strategy or the bare client costs nothing is left out: the difference \
                 drowns in what the machine does besides"
            ));
        }
        found.rows.extend(rows(&about, &bare_name(self.client), &blocks));
        outcome
    }

    fn take(&self, rig: &Rig, found: &mut Found, scenario: &Scenario, blocks: &mut Vec<Block>) -> Result<()> {
        for number in rig.blocks() {
            let mut block = Block::default();
            let turns = rig.shuffled(vec![Turn::Nodes, Turn::Memory, Turn::Bare], &scenario.name, number);
            for turn in turns {
                match turn {
                    Turn::Nodes => {
                        let taken = found.window(rig, self.nodes, scenario, number)?;
                        block.nodes = taken.map(|taken| taken.window).filter(Window::is_usable);
                    }
                    Turn::Memory => {
                        let taken = found.window(rig, self.memory, scenario, number)?;
                        block.memory = taken.map(|taken| taken.window).filter(Window::is_usable);
                    }
                    Turn::Bare => {
                        rig.go_on()?;
                        let what = format!("block {number}, {}, bare {}", scenario.name, self.client);
                        rig.progress.note(&what);
                        let bare = Loop {
                            client: self.client,
                            address: self.address,
                            rate_per_s: self.rate,
                            consumers: self.count,
                            warm_up_s: scenario.warm_up_s,
                            window_s: scenario.duration_s,
                        };
                        block.bare = found.or_note(&what, bare.measure(self.program))?;
                    }
                }
            }
            blocks.push(block);
        }
        Ok(())
    }
}

/// The lines of one pair.
fn rows(about: &str, bare: &str, blocks: &[Block]) -> [Row; 3] {
    let costs = blocks.iter().filter_map(differences).filter(|(added, bare)| is_cost(*added, *bare));
    let added: Vec<(f64, f64)> = costs.collect();
    let latency = |window: fn(&Window) -> Option<u64>, of_bare: fn(&Bare) -> u64| -> Vec<(f64, f64)> {
        let pair = |block: &Block| {
            let (window, bare) = (window(block.nodes.as_ref()?)?, of_bare(block.bare.as_ref()?));
            Some((window as f64 / 1e3, bare as f64 / 1e3))
        };
        blocks.iter().filter_map(pair).collect()
    };
    let p50 = latency(|window| window.delivery_us_p50, |bare| bare.delivery_us_p50);
    let p99 = latency(|window| window.delivery_us_p99, |bare| bare.delivery_us_p99);
    let row = |what: &str, unit: &str, target: Target, pairs: &[(f64, f64)]| {
        Row::paired(NUMBER, &format!("{about}: {what}"), unit, target, bare, pairs)
    };
    [
        row("CPU that it adds to the nodes", "µs per publish", Target::Ratio(CPU_MAX), &added),
        row("WebSocket to WebSocket, p50", "ms", Target::Excess(P50_EXCESS_MS), &p50),
        row("WebSocket to WebSocket, p99", "ms", Target::Excess(P99_EXCESS_MS), &p99),
    ]
}

/// What the strategy adds to a node without a backplane, and what the bare client costs; microseconds per publish.
fn differences(block: &Block) -> Option<(f64, f64)> {
    let with = block.nodes.as_ref()?.us_per_publish()?;
    let without = block.memory.as_ref()?.us_per_publish()?;
    Some((with - without, block.bare.as_ref()?.cpu_us_per_message))
}

/// Neither is done for nothing.
fn is_cost(added: f64, bare: f64) -> bool {
    added > 0.0 && bare > 0.0
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    fn block(nodes_s: f64, memory_s: f64, bare_us: f64) -> Block {
        let window = |server_cpu_s| Window {
            publishes: 1_000,
            server_cpu_s,
            delivery_us_p50: Some(400),
            delivery_us_p99: Some(2_500),
            ..Window::default()
        };
        Block {
            nodes: Some(window(nodes_s)),
            memory: Some(window(memory_s)),
            bare: Some(Bare {
                client: "redis".into(),
                sent: 1_000,
                received: 2_000,
                sending_s: 1.0,
                send_lag_us_max: 100,
                cpu_us_per_message: bare_us,
                pacing_us_per_message: 5.0,
                delivery_us_p50: 150,
                delivery_us_p99: 900,
            }),
        }
    }

    #[test]
    fn what_a_node_costs_anyway_is_not_the_strategys() {
        let (added, bare) = differences(&block(0.062, 0.026, 30.0)).unwrap();
        assert!((added - 36.0).abs() < 1e-9 && (bare - 30.0).abs() < 1e-9);
        assert!(differences(&Block::default()).is_none());
    }

    #[test]
    fn each_pair_has_its_three_lines() {
        let blocks = [block(0.062, 0.026, 30.0), block(0.070, 0.030, 31.0), Block::default()];
        let [cpu, p50, p99] = rows("redis-pubsub, 2 nodes, 1000 msg/s", "bare redis", &blocks);
        assert_eq!((cpu.ours.len(), cpu.verdict(2)), (2, Verdict::Met));
        assert!((p50.figure().unwrap().median - 0.25).abs() < 1e-9);
        assert_eq!(p50.verdict(2), Verdict::Met);
        assert_eq!(p99.verdict(2), Verdict::Missed, "1.6 ms more");
    }

    #[test]
    fn what_costs_less_than_nothing_is_no_figure() {
        let blocks = [block(0.062, 0.026, 30.0), block(0.025, 0.026, 30.0), block(0.062, 0.026, 0.0)];
        let [cpu, p50, _] = rows("redis-pubsub, 2 nodes, 1000 msg/s", "bare redis", &blocks);
        assert_eq!((cpu.ours.len(), cpu.verdict(3)), (1, Verdict::Unknown));
        assert_eq!(p50.ours.len(), 3);
    }

    #[test]
    fn every_pair_has_its_lines_before_it_is_measured() {
        let lines = lines();
        assert_eq!(lines.len(), 2 * 2 * 2 * 3);
        assert!(
            lines
                .iter()
                .any(|row| row.what == "kafka-keyed, 4 nodes, 5000 msg/s: WebSocket to WebSocket, p99")
        );
    }
}
