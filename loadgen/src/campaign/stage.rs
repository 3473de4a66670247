//! The surroundings of a campaign's run: counters read at the window's edges, faults done to real processes.

mod evidence;
mod living;
mod strikes;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Result;
use manifold_compose::{Environment, Nodes, Process};

use crate::probe::{Counters, Usage, get, parse_metrics, reset_peak, usage};
use crate::record::{
    Amplification, ComponentCost, ComponentKind, Cost, Deed, FaultOutcome, Live, Target, Unmeasured,
};
use crate::surroundings::Surroundings;

/// How long a node may take to print its metrics.
const METRICS_PATIENCE: Duration = Duration::from_secs(2);

/// Between two readings of the consumers' lag.
const LAG_EVERY: Duration = Duration::from_secs(1);

/// A process whose cost is counted.
#[derive(Debug, Clone)]
pub struct Watched {
    /// What it is called in the record.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// The process; `None` is this one.
    pub process: Option<Process>,
}

impl Watched {
    /// The load generator itself.
    pub fn generator() -> Self {
        Self { name: "loadgen".to_owned(), kind: ComponentKind::Generator, process: None }
    }

    fn pid(&self) -> u32 {
        self.process.as_ref().map_or_else(std::process::id, Process::pid)
    }
}

/// Called with each glance at a running run.
pub(super) type OnProgress = Box<dyn Fn(&Live) + Send + Sync>;

/// The processes around a run. Counters are read by a thread of its own: the engine's threads never wait for it.
pub struct Stage<'e> {
    environment: Option<&'e Environment>,
    nodes: Option<Mutex<Nodes>>,
    nodes_at_start: usize,
    cancel: Arc<AtomicBool>,
    on_progress: OnProgress,
    edges: Mutex<Option<Sender<Edge>>>,
    sampler: Option<JoinHandle<Sampled>>,
    /// CPU that processes had used when a fault ended their incarnation, by process name.
    ended: Mutex<Vec<(String, Usage)>>,
    /// Whom faults broke and nothing has mended yet.
    struck: Mutex<HashMap<Target, Vec<Process>>>,
    /// What must be running.
    expected: Mutex<Vec<living::Expected>>,
    /// Lines of Redis's logs about subscribers that it cut off, before it was made to.
    cut_off: Mutex<Option<usize>>,
}

impl std::fmt::Debug for Stage<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// An edge of the counted window, or what changes between them.
enum Edge {
    Opened,
    Closed,
    /// A node was added, with its HTTP address: from now on it is read too.
    Added(Watched, String),
}

#[derive(Default)]
struct Sampled {
    watched: Vec<Watched>,
    opened: Vec<Option<Usage>>,
    closed: Vec<Option<Usage>>,
    counters_opened: Vec<Option<Counters>>,
    counters_closed: Vec<Option<Counters>>,
    lag_messages_max: Option<u64>,
}

impl<'e> Stage<'e> {
    /// Surroundings with these nodes and brokers; `watched` are counted.
    pub fn new(
        environment: Option<&'e Environment>,
        nodes: Option<Nodes>,
        watched: &[Watched],
        cancel: Arc<AtomicBool>,
        on_progress: Box<dyn Fn(&Live) + Send + Sync>,
    ) -> Self {
        let (edges, received) = channel();
        let http = nodes.as_ref().map(Nodes::http).unwrap_or_default();
        let watched = watched.to_vec();
        let sampler = std::thread::spawn(move || sample(&received, watched, http));
        Self {
            expected: Mutex::new(living::running(environment, nodes.as_ref())),
            cut_off: Mutex::new(None),
            environment,
            nodes_at_start: nodes.as_ref().map_or(0, |nodes| nodes.processes().len()),
            nodes: nodes.map(Mutex::new),
            cancel,
            on_progress,
            edges: Mutex::new(Some(edges)),
            sampler: Some(sampler),
            ended: Mutex::new(Vec::new()),
            struck: Mutex::default(),
        }
    }

    /// Ends sampling; gives back the nodes and what everything watched cost within the window, added nodes included.
    pub fn finish(mut self) -> (Option<Nodes>, Cost) {
        drop(lock(&self.edges).take());
        let sampled = self.sampler.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        let ended = std::mem::take(&mut *lock(&self.ended));
        let cost = cost(&sampled, &ended);
        (self.nodes.take().map(|nodes| nodes.into_inner().unwrap_or_else(PoisonError::into_inner)), cost)
    }

    /// The nodes that there are by now, running or not.
    pub fn node_processes(&self) -> Vec<Process> {
        self.nodes.as_ref().map(|nodes| lock(nodes).processes().to_vec()).unwrap_or_default()
    }

    /// The same, each with its HTTP address.
    pub fn node_addresses(&self) -> Vec<(Process, Option<String>)> {
        let Some(nodes) = &self.nodes else { return Vec::new() };
        let nodes = lock(nodes);
        nodes.processes().iter().cloned().zip(nodes.http().into_iter().map(Some)).collect()
    }

    fn edge(&self, edge: Edge) {
        if let Some(sender) = lock(&self.edges).as_ref() {
            // The sampler lives until the sender is dropped.
            let _ = sender.send(edge);
        }
    }
}

impl Surroundings for Stage<'_> {
    fn window_opened(&self) {
        self.edge(Edge::Opened);
    }

    fn window_closed(&self) {
        self.edge(Edge::Closed);
    }

    fn progress(&self, live: &Live) {
        (self.on_progress)(live);
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn inject(&self, deed: Deed, target: Target) -> Result<FaultOutcome> {
        self.strike(deed, target)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn usages(watched: &[Watched]) -> Vec<Option<Usage>> {
    watched.iter().map(|one| usage(one.pid())).collect()
}

fn counters(http: &[String]) -> Vec<Option<Counters>> {
    let scrape = |base| get(&format!("{base}/metrics"), METRICS_PATIENCE).ok();
    http.iter().map(|base| scrape(base).and_then(|text| parse_metrics(&text))).collect()
}

fn sample(edges: &Receiver<Edge>, watched: Vec<Watched>, mut http: Vec<String>) -> Sampled {
    let mut sampled = Sampled { watched, ..Sampled::default() };
    let mut open = false;
    loop {
        let edge = edges.recv_timeout(LAG_EVERY);
        match edge {
            Ok(Edge::Opened) => {
                sampled.watched.iter().for_each(|one| reset_peak(one.pid()));
                sampled.opened = usages(&sampled.watched);
                sampled.counters_opened = counters(&http);
                open = true;
            }
            Ok(Edge::Closed) => {
                sampled.closed = usages(&sampled.watched);
                sampled.counters_closed = counters(&http);
                open = false;
            }
            Ok(Edge::Added(one, base)) => {
                sampled.watched.push(one);
                http.push(base);
                if open {
                    // All that it has used since it was started, it has used within the window.
                    sampled.opened.push(Some(Usage::default()));
                    sampled.counters_opened.push(Some(Counters::default()));
                }
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) if open => {
                let lags = counters(&http).into_iter().flatten().filter_map(|one| one.lag_messages);
                sampled.lag_messages_max = sampled.lag_messages_max.max(lags.max());
            }
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {}
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return sampled,
        }
    }
}

/// What was read at both edges. A process that was not, though no fault ended it, is named as unmeasured; a process that
/// is in no reading at all belongs to a window that never opened, or came after it.
fn cost(sampled: &Sampled, ended: &[(String, Usage)]) -> Cost {
    let (mut components, mut unmeasured) = (Vec::new(), Vec::new());
    for (one, (opened, closed)) in sampled.watched.iter().zip(sampled.opened.iter().zip(&sampled.closed)) {
        let died = ended.iter().find(|(name, _)| *name == one.name).map(|(_, usage)| *usage);
        // What a fault ended and nobody started again has nothing to add to what it had used by then.
        match (opened, closed.or(died.map(|_| Usage::default()))) {
            (Some(opened), Some(closed)) => components.push(component(one, opened, &closed, died.as_ref())),
            _ => unmeasured.push(Unmeasured { name: one.name.clone(), kind: one.kind }),
        }
    }
    let readings = sampled.counters_opened.iter().zip(&sampled.counters_closed);
    // One reading that is missing makes every sum wrong.
    let deltas: Option<Vec<Counters>> =
        readings.map(|(opened, closed)| Some((*closed)?.since(&(*opened)?))).collect();
    let deltas = deltas.unwrap_or_default();
    let sum = |pick: fn(&Counters) -> u64| deltas.iter().map(pick).sum();
    let amplification = (!deltas.is_empty()).then(|| Amplification {
        envelopes_received: sum(|one| one.envelopes_received),
        envelopes_wanted: sum(|one| one.envelopes_wanted),
        publishes: sum(|one| one.publishes),
        broker_writes: sum(|one| one.broker_writes),
        duplicates_removed: sum(|one| one.duplicates_removed),
        gap_messages: sum(|one| one.gap_messages),
        lag_messages_max: sampled.lag_messages_max,
    });
    Cost { components, unmeasured, amplification }
}

/// Usage within the window. An incarnation that a fault ended adds what it had used since the window opened.
fn component(one: &Watched, opened: &Usage, closed: &Usage, died: Option<&Usage>) -> ComponentCost {
    let bytes = |pick: fn(&Usage) -> Option<u64>| match died {
        None => Some(pick(closed)?.saturating_sub(pick(opened)?)),
        Some(died) => Some(pick(died)?.saturating_sub(pick(opened)?) + pick(closed).unwrap_or(0)),
    };
    let cpu_s = match died {
        None => closed.cpu_s - opened.cpu_s,
        Some(died) => died.cpu_s - opened.cpu_s + closed.cpu_s,
    };
    ComponentCost {
        name: one.name.clone(),
        kind: one.kind,
        cpu_s: cpu_s.max(0.0),
        rss_bytes_max: closed.rss_bytes_max.max(died.map_or(0, |died| died.rss_bytes_max)),
        written_bytes: bytes(|usage| usage.written_bytes),
        read_bytes: bytes(|usage| usage.read_bytes),
        disk_bytes: bytes(|usage| usage.disk_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_s: f64, written: u64) -> Usage {
        Usage { cpu_s, written_bytes: Some(written), rss_bytes_max: 10, ..Usage::default() }
    }

    #[test]
    fn an_incarnation_that_was_killed_is_not_forgotten() {
        let sampled = Sampled {
            watched: vec![Watched { name: "redis".into(), ..Watched::generator() }],
            opened: vec![Some(used(5.0, 100))],
            closed: vec![Some(used(1.0, 30))],
            ..Sampled::default()
        };
        let cost = cost(&sampled, &[("redis".into(), used(7.0, 150))]);
        assert!((cost.components[0].cpu_s - 3.0).abs() < 1e-9);
        assert_eq!(cost.components[0].written_bytes, Some(80));
        assert_eq!(cost.amplification, None);
    }

    #[test]
    fn what_was_not_read_at_both_edges_is_not_measured() {
        let counters = |publishes| Some(Counters { publishes, ..Counters::default() });
        let mut sampled = Sampled {
            watched: vec![Watched::generator(), Watched { name: "n2".into(), ..Watched::generator() }],
            opened: vec![Some(used(5.0, 100)), None],
            closed: vec![Some(used(6.0, 130)), Some(used(9.0, 500))],
            counters_opened: vec![counters(1_000), None],
            counters_closed: vec![counters(1_010), counters(9_000)],
            lag_messages_max: None,
        };
        let missing = cost(&sampled, &[]);
        assert_eq!((missing.components.len(), missing.unmeasured[0].name.as_str()), (1, "n2"));
        assert!(missing.amplification.is_none() && !missing.is_known(ComponentKind::Generator));
        sampled.opened[1] = Some(used(8.0, 400));
        sampled.counters_opened[1] = counters(8_000);
        let whole = cost(&sampled, &[]);
        assert!(whole.is_known(ComponentKind::Generator));
        assert_eq!(whole.amplification.map(|all| all.publishes), Some(1_010));
    }

    #[test]
    fn a_node_that_is_added_is_read_too() {
        let (edges, received) = channel();
        let node = Watched { name: "n4".into(), kind: ComponentKind::Node, ..Watched::generator() };
        for edge in [Edge::Opened, Edge::Added(node, "http://127.0.0.1:1".into()), Edge::Closed] {
            edges.send(edge).unwrap();
        }
        drop(edges);
        let cost = cost(&sample(&received, vec![Watched::generator()], Vec::new()), &[]);
        assert_eq!(
            cost.components.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(),
            ["loadgen", "n4"]
        );
        assert!(cost.is_known(ComponentKind::Node) && cost.amplification.is_none());
    }

    #[test]
    fn a_window_that_never_opened_costs_nothing() {
        let stage = Stage::new(None, None, &[Watched::generator()], Arc::default(), Box::new(|_| {}));
        assert!(!stage.cancelled());
        assert_eq!(stage.inject(Deed::Kill, Target::Node).unwrap(), FaultOutcome::NotApplicable);
        assert_eq!(stage.inject(Deed::Kill, Target::Redis).unwrap(), FaultOutcome::NotApplicable);
        assert_eq!(stage.inject(Deed::Cut, Target::RedisLink).unwrap(), FaultOutcome::NotApplicable);
        assert_eq!(stage.inject(Deed::Kill, Target::KafkaMajority).unwrap(), FaultOutcome::NotApplicable);
        assert!(stage.inject(Deed::Kill, Target::KafkaLink).is_err());
        let (nodes, cost) = stage.finish();
        assert!(nodes.is_none() && cost.components.is_empty());
    }

    #[test]
    fn the_window_counts_our_own_work() {
        let watched = [Watched::generator()];
        let stage = Stage::new(None, None, &watched, Arc::default(), Box::new(|_| {}));
        stage.window_opened();
        stage.window_closed();
        let (_, cost) = stage.finish();
        assert_eq!(cost.components.len(), 1);
        assert!(cost.components[0].rss_bytes_max > 1 << 20);
    }
}
