//! One window: a run of the engine with every process read at its edges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::counters::{Counters, Counting, Counts};
use super::meter::{Reading, Used};
use super::record::Window;
use super::subject::Subject;
use crate::campaign::{Progress, mix};
use crate::engine::{self, RunError, RunSpec};
use crate::record::{ComponentKind, Deed, FaultOutcome, Measured, Target};
use crate::scenario::Scenario;
use crate::surroundings::Surroundings;

/// What all windows of a bench share.
#[derive(Debug)]
pub(super) struct Rig {
    /// The chat-server program.
    pub(super) server: PathBuf,
    /// This program.
    pub(super) generator: PathBuf,
    /// The bare clients' program, if it was built.
    pub(super) raw_clients: Option<PathBuf>,
    pub(super) seed: u64,
    pub(super) blocks: u32,
    /// What the machine counts.
    pub(super) counters: Counters,
    /// Connections that fit.
    pub(super) connections_max: u64,
    pub(super) cancel: Arc<AtomicBool>,
    pub(super) progress: Arc<Progress>,
}

/// What a window brought.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) window: Window,
    pub(super) measured: Measured,
}

impl Rig {
    /// An error once the person wants to stop.
    pub(super) fn go_on(&self) -> Result<()> {
        if self.cancel.load(Ordering::Relaxed) { Err(RunError::Cancelled.into()) } else { Ok(()) }
    }

    /// Blocks, from 1.
    pub(super) fn blocks(&self) -> std::ops::RangeInclusive<u32> {
        1..=self.blocks
    }

    /// The same things in an order of the block's own.
    pub(super) fn shuffled<T>(&self, mut things: Vec<T>, about: &str, block: u32) -> Vec<T> {
        things.shuffle(&mut StdRng::seed_from_u64(mix(self.seed, about, block)));
        things
    }

    /// A window as it counts: with instructions, where the machine has them for nothing.
    pub(super) fn window(&self, subject: &Subject, scenario: &Scenario, block: u32) -> Result<Taken> {
        self.counted(subject, scenario, block, Counters { calls: false, ..self.counters })
    }

    /// A window whose purpose is to count system calls.
    pub(super) fn calls(&self, subject: &Subject, scenario: &Scenario) -> Result<Taken> {
        self.counted(subject, scenario, 0, Counters { instructions: false, ..self.counters })
    }

    fn counted(
        &self,
        subject: &Subject,
        scenario: &Scenario,
        block: u32,
        counters: Counters,
    ) -> Result<Taken> {
        let edges = Edges::new(subject, counters, Arc::clone(&self.cancel));
        self.run(subject, scenario, block, &edges)
    }

    /// A window in surroundings that the caller keeps an eye on.
    pub(super) fn run(
        &self,
        subject: &Subject,
        scenario: &Scenario,
        block: u32,
        edges: &Edges,
    ) -> Result<Taken> {
        self.go_on()?;
        let dead = subject.parts.iter().find(|(_, process)| !process.is_running());
        if let Some((_, process)) = dead {
            bail!(
                "{} of {} has ended; its log ends with:\n{}",
                process.name(),
                subject.name,
                process.log_tail()
            );
        }
        let spec = RunSpec {
            scenario: scenario.clone(),
            urls: subject.urls.clone(),
            seed: mix(self.seed, &scenario.name, block),
            threads: None,
            room_prefix: String::new(),
        };
        let measured = engine::run(&spec, edges)?;
        let window = window(subject, scenario, block, &measured, edges);
        Ok(Taken { window, measured })
    }
}

/// The surroundings of a window: processes are read when it opens and when it closes.
#[derive(Debug)]
pub(super) struct Edges {
    watched: Vec<(ComponentKind, u32)>,
    state: Mutex<State>,
    cancel: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    opened: Option<Instant>,
    closed: Option<Instant>,
    before: Vec<Option<Reading>>,
    after: Vec<Option<Reading>>,
    counting: Option<Counting>,
    counts: Counts,
}

impl Edges {
    pub(super) fn new(subject: &Subject, counters: Counters, cancel: Arc<AtomicBool>) -> Self {
        let mut watched: Vec<_> =
            subject.parts.iter().map(|(kind, process)| (*kind, process.pid())).collect();
        watched.push((ComponentKind::Generator, std::process::id()));
        let pids: Vec<u32> = subject.parts.iter().map(|(_, process)| process.pid()).collect();
        let state = State { counting: counters.attach(&pids), ..State::default() };
        Self { watched, state: Mutex::new(state), cancel }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readings(&self) -> Vec<Option<Reading>> {
        self.watched.iter().map(|(_, pid)| Reading::now(*pid)).collect()
    }

    /// What a watched process had used when the counted window opened.
    pub(super) fn at_opening(&self, pid: u32) -> Option<Reading> {
        let place = self.watched.iter().position(|(_, watched)| *watched == pid)?;
        self.state().before.get(place)?.clone()
    }

    /// When the counted window opened.
    pub(super) fn opened(&self) -> Option<Instant> {
        self.state().opened
    }

    /// Whether the whole window lay within another one.
    pub(super) fn lay_within(&self, around: &Self) -> bool {
        let span = |edges: &Self| {
            let state = edges.state();
            state.opened.zip(state.closed)
        };
        span(self).zip(span(around)).is_some_and(|(inner, outer)| outer.0 <= inner.0 && inner.1 <= outer.1)
    }

    /// When the counted window closed.
    pub(super) fn closed(&self) -> Option<Instant> {
        self.state().closed
    }

    /// What the processes of each kind used in the window; a kind of which one could not be read at both edges is missing.
    fn used(&self) -> BTreeMap<ComponentKind, Used> {
        let state = self.state();
        let mut sums: BTreeMap<ComponentKind, Option<Used>> = BTreeMap::new();
        let readings = state.before.iter().zip(&state.after);
        for ((kind, _), (before, after)) in self.watched.iter().zip(readings) {
            let used = before.as_ref().zip(after.as_ref()).map(|(before, after)| after.since(before));
            let sum = sums.entry(*kind).or_insert(Some(Used::default()));
            *sum = sum
                .zip(used)
                .map(|(sum, used)| Used { cpu_s: sum.cpu_s + used.cpu_s, sleeps: sum.sleeps + used.sleeps });
        }
        sums.into_iter().filter_map(|(kind, used)| Some((kind, used?))).collect()
    }

    fn resident_bytes(&self, kind: ComponentKind) -> u64 {
        let state = self.state();
        let of_kind = self.watched.iter().zip(&state.after).filter(|((found, _), _)| *found == kind);
        of_kind.filter_map(|(_, reading)| Some(reading.as_ref()?.resident_bytes)).sum()
    }
}

impl Surroundings for Edges {
    fn window_opened(&self) {
        let before = self.readings();
        let mut state = self.state();
        // What does not begin now counts nothing.
        state.counting = state.counting.take().and_then(Counting::begin);
        (state.opened, state.before) = (Some(Instant::now()), before);
    }

    fn window_closed(&self) {
        let closed = Instant::now();
        let after = self.readings();
        let counting = self.state().counting.take();
        let counts = counting.map(Counting::end).unwrap_or_default();
        let mut state = self.state();
        (state.closed, state.after, state.counts) = (Some(closed), after, counts);
    }

    fn cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    fn inject(&self, deed: Deed, target: Target) -> Result<FaultOutcome> {
        bail!("the bench strikes nobody, and was asked to {deed:?} {target:?}")
    }
}

fn window(subject: &Subject, scenario: &Scenario, block: u32, measured: &Measured, edges: &Edges) -> Window {
    let used = edges.used();
    let of = |kind| used.get(&kind).copied().unwrap_or_default();
    let counts = edges.state().counts;
    let (node, generator) = (of(ComponentKind::Node), of(ComponentKind::Generator));
    let known = used.contains_key(&ComponentKind::Node);
    let (load, latencies) = (&measured.load, &measured.latencies);
    Window {
        shape: scenario.name.clone(),
        subject: subject.name.clone(),
        block,
        window_s: measured.window_s,
        connections: load.connections,
        publishes: load.sent,
        deliveries: load.delivered_per_s * measured.window_s,
        server_cpu_s: node.cpu_s,
        broker_cpu_s: of(ComponentKind::Kafka).cpu_s + of(ComponentKind::Redis).cpu_s,
        generator_cpu_s: generator.cpu_s,
        server_sleeps: node.sleeps,
        server_resident_bytes: edges.resident_bytes(ComponentKind::Node),
        instructions_user: counts.user,
        instructions_kernel: counts.kernel,
        system_calls: counts.calls,
        delivery_us_p50: latencies.delivery.quantile_us(0.5),
        delivery_us_p99: latencies.delivery.quantile_us(0.99),
        last_member_us_p50: latencies.last_member.quantile_us(0.5),
        offered_share: if load.scheduled == 0 { 1.0 } else { load.offered_per_s / load.target_per_s },
        send_lag_us_p99: latencies.send_lag.quantile_us(0.99),
        generator_busy_share: measured.generator.busy_share_max,
        // What could not be measured is no window either.
        clean: measured.audit.is_clean() && known,
    }
}

#[cfg(test)]
impl Rig {
    /// A rig that starts nothing.
    pub(super) fn unplugged(blocks: u32) -> Self {
        Self {
            server: PathBuf::new(),
            generator: PathBuf::new(),
            raw_clients: None,
            seed: 1,
            blocks,
            counters: Counters::NONE,
            connections_max: 1_000,
            cancel: Arc::default(),
            progress: Arc::new(Progress::new(crate::campaign::Show::Quiet)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_changes_from_block_to_block_and_is_the_seeds() {
        let rig = Rig::unplugged(20);
        let order = |block| rig.shuffled(vec![1, 2, 3, 4], "small", block);
        assert_eq!(order(3), order(3));
        assert!(rig.blocks().any(|block| order(block) != order(1)));
        assert!(rig.blocks().all(|block| order(block).iter().sum::<i32>() == 10));
    }

    #[test]
    fn whoever_wants_to_stop_is_heard() {
        let rig = Rig::unplugged(1);
        assert!(rig.go_on().is_ok());
        rig.cancel.store(true, Ordering::Relaxed);
        assert!(crate::campaign::is_cancelled(&rig.go_on().unwrap_err()));
    }

    #[test]
    fn edges_read_this_process_and_leave_out_who_is_gone() {
        let edges = Edges {
            watched: vec![(ComponentKind::Generator, std::process::id()), (ComponentKind::Node, u32::MAX)],
            state: Mutex::default(),
            cancel: Arc::default(),
        };
        edges.window_opened();
        edges.window_closed();
        let used = edges.used();
        assert!(used.contains_key(&ComponentKind::Generator) && !used.contains_key(&ComponentKind::Node));
        assert!(edges.resident_bytes(ComponentKind::Generator) > 1 << 20);
        assert!(edges.lay_within(&edges) && edges.closed() >= edges.opened());
        assert!(edges.inject(Deed::Kill, Target::Node).is_err());
    }
}
