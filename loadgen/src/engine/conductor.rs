//! One run from beginning to end: threads, start, timeline, drain, settlement.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::books::Interval;
use super::faults::Faults;
use super::plan::{Plan, seconds_us};
use super::process::{self, Cpu};
use super::recorder::{self, Recorder};
use super::shared::{Node, Shared};
use super::worker::{Harvest, Worker};
use super::{RunError, RunSpec};
use crate::audit::{self, Sent, Terms};
use crate::latency::{self, Activity, Lull};
use crate::record::{Fault, FaultMark, Generator, Latencies, Live, Load, Measured, Phase, Recoveries};
use crate::scenario::ClientDeed;
use crate::schedule::Schedule;
use crate::surroundings::Surroundings;

/// How often the conductor looks up.
const TURN: Duration = Duration::from_millis(20);
/// From all being joined to the first message.
const LEAD_US: u64 = 50_000;
/// If nobody has joined by then, nobody will.
const FIRST_JOIN_US: u64 = 6_000_000;
/// Joining may take this long, and longer with many clients.
const JOIN_US: u64 = 20_000_000;
/// Clients per second that any server should manage to take.
const JOINS_PER_S: u64 = 200;
/// Messages sent this long before a server last had the chance to deliver have had their time; younger ones are indeterminate.
pub(super) const EDGE_US: u64 = 1_000_000;
/// Losses must be noticed within this time: servers look every few seconds, and may be without their broker for a while.
const NOTICE_US: u64 = 30_000_000;
/// While draining, when nothing has come for so long and only messages in between are missing, they won't come.
const QUIET_US: u64 = 1_500_000;
/// While draining, when nothing has come for so long and nothing is missing, no second copies come either.
const QUIET_WHOLE_US: u64 = 400_000;
/// The last message may leave this late without the generator counting as behind.
const HICCUP_US: u64 = 100_000;
const INTERVAL_US: u64 = 1_000_000;
/// Faults deserve a finer series.
const INTERVAL_FAULTS_US: u64 = 250_000;

/// Conducts one run.
pub(super) struct Conductor<'a> {
    shared: Shared,
    surroundings: &'a dyn Surroundings,
    recorder: Recorder,
    /// The scenario's faults that are still to come, last first.
    faults: Vec<Fault>,
    cpu_began: Option<Cpu>,
    cpu: Option<Cpu>,
    progress_us: u64,
}

impl<'a> Conductor<'a> {
    pub(super) fn new(spec: &RunSpec, surroundings: &'a dyn Surroundings) -> Result<Self, RunError> {
        let nodes = spec.urls.iter().map(|url| Node::parse(url)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err(RunError::Address { url: String::new(), problem: "none was given".to_owned() });
        }
        let threads = spec.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
        let scenario = spec.scenario.clone();
        // Two runs of one seed against one server must not hear each other.
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nonce = time.as_nanos() as u64 ^ u64::from(std::process::id()) << 40;
        let plan = Plan::new(&scenario, &spec.room_prefix, nonce, threads.unwrap_or(1).clamp(1, 64))?;
        // Clients that vanish leave a socket behind each time.
        let left = scenario.clients.iter().filter(|step| step.deed == ClientDeed::HalfOpen).count();
        process::allow_files(plan.clients.len() as u64 * (left as u64 + 1))?;
        let disturbed = !scenario.faults.is_empty() || !scenario.clients.is_empty();
        let interval_us = if disturbed { INTERVAL_FAULTS_US } else { INTERVAL_US };
        let mut faults = scenario.faults.clone();
        faults.sort_by(|one, other| other.at_s.total_cmp(&one.at_s));
        Ok(Self {
            shared: Shared::new(plan, scenario, spec.seed, interval_us, nodes),
            surroundings,
            recorder: Recorder::default(),
            faults,
            cpu_began: None,
            cpu: None,
            progress_us: 0,
        })
    }

    /// Runs it.
    pub(super) fn conduct(mut self) -> Result<Measured, RunError> {
        let Self { shared, surroundings, recorder, faults, cpu_began, cpu, progress_us } = &mut self;
        let (shared, surroundings): (&Shared, &dyn Surroundings) = (shared, *surroundings);
        let (harvest, marks, end_us) = std::thread::scope(|scope| {
            let (reports, intervals) = channel();
            let mut threads = Vec::new();
            // Whatever goes wrong below, the threads must end, or the scope waits for ever.
            let guard = Guard(shared);
            for thread in 0..shared.plan.threads {
                let worker = Worker::new(shared, thread, reports.clone())?;
                threads.push(scope.spawn(move || {
                    let _guard = Guard(shared);
                    worker.run()
                }));
            }
            drop(reports);
            let mut stage =
                Stage { shared, surroundings, recorder, faults, cpu_began, cpu, progress_us, intervals };
            let performed =
                stage.join().and_then(|()| stage.perform(Faults::start(scope, shared, surroundings)));
            drop(guard);
            // If a thread failed, its error tells more than that it is gone.
            let harvest = threads.into_iter().map(join).collect::<Result<Vec<Harvest>, RunError>>()?;
            let (injected, end_us) = performed?;
            let marks = injected.finish()?;
            stage.take_intervals();
            Ok::<_, RunError>((harvest, marks, end_us))
        })?;
        Ok(self.settle(&harvest, marks, end_us))
    }

    /// Makes the record of what the threads brought home.
    fn settle(self, harvest: &[Harvest], mut marks: Vec<FaultMark>, end_us: u64) -> Measured {
        let Self { shared, recorder, cpu, .. } = self;
        let scenario = &shared.scenario;
        let mut latencies = Latencies::default();
        let mut activity = Activity::default();
        for thread in harvest {
            latency::add(&mut latencies, &thread.latencies);
            activity.add(&thread.activity);
        }
        latencies
            .last_member
            .add(&recorder.last_member)
            .expect("all histograms of a run have the same bounds");
        let ledgers: Vec<_> = harvest.iter().map(|thread| &thread.ledger).collect();
        let streams: Vec<Sent> = (shared.plan.streams.iter())
            .map(|one| harvest[shared.plan.thread_of(one.client)].sent[one.local as usize].clone())
            .collect();
        let interval_us = shared.interval_us;
        let terms = Terms { interval_us, edge_us: EDGE_US, notice_us: NOTICE_US };
        let mut settled = audit::settle(&ledgers, &streams, terms);
        settled.audit.compared_rooms = recorder.order.compared_rooms();
        settled.audit.divergent_rooms = recorder.order.divergent_rooms();
        let sending_us = seconds_us(scenario.warm_up_s + scenario.duration_s);
        // After the last send it is quiet because nothing is sent; unless something was still to come.
        let heard_ms = activity.end_ms().max((sending_us / 1_000).min(end_us / 1_000));
        mark_silences(&mut marks, &activity, heard_ms);
        let mut lulls: Vec<Lull> = harvest.iter().flat_map(|thread| thread.lulls.iter().copied()).collect();
        lulls.extend(shared.lulls_at_end(sending_us.min(end_us)));
        mark_room_silences(&mut marks, &lulls, &shared, end_us);
        let cpu = cpu.unwrap_or_default();
        let (forgotten, reordered) = (settled.forgotten, settled.reordered_in_recoveries);
        let mut recoveries = Recoveries { forgotten, reordered, ..Recoveries::default() };
        harvest.iter().for_each(|thread| recoveries.add(&thread.sums.recoveries));
        settled.audit.abandoned = harvest.iter().map(|thread| thread.sums.abandoned).sum();
        let busiest = harvest.iter().map(|thread| thread.occupied);
        let busiest = busiest.max_by(|one, other| one.busy.total_cmp(&other.busy)).unwrap_or_default();
        Measured {
            warm_up_s: scenario.warm_up_s,
            window_s: scenario.duration_s,
            drain_s: end_us.saturating_sub(sending_us) as f64 / 1e6,
            load: load(&shared, harvest, recorder.reconnects),
            latencies,
            audit: settled.audit,
            series: recorder.series(shared.interval_us, &settled.lost_by_interval),
            faults: marks,
            recoveries: scenario.recover.then_some(recoveries),
            overtaken: recorder::overtaken(&settled.examples, &shared.plan),
            generator: Generator {
                threads: shared.plan.threads as u64,
                busy_share_max: busiest.busy,
                queued_share_max: busiest.queued,
                cpu_s: cpu.user_s + cpu.system_s,
                cpu_user_s: cpu.user_s,
                rss_bytes_max: process::rss_bytes_max(),
            },
        }
    }
}

fn join(thread: ScopedJoinHandle<'_, Result<Harvest, RunError>>) -> Result<Harvest, RunError> {
    thread.join().unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        Err(RunError::Thread(text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_default()))
    })
}

/// Tells the threads to end when it goes.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::Release);
    }
}

/// The conductor at work: what it needs while the threads run.
struct Stage<'a> {
    shared: &'a Shared,
    surroundings: &'a dyn Surroundings,
    recorder: &'a mut Recorder,
    faults: &'a mut Vec<Fault>,
    cpu_began: &'a mut Option<Cpu>,
    cpu: &'a mut Option<Cpu>,
    progress_us: &'a mut u64,
    intervals: Receiver<Box<Interval>>,
}

impl Stage<'_> {
    /// One turn: takes what the threads report, for a moment. An error ends the run.
    fn turn(&mut self, phase: Phase) -> Result<(), RunError> {
        match self.intervals.recv_timeout(TURN) {
            Ok(interval) => {
                self.recorder.take(*interval, self.shared);
                self.take_intervals();
            }
            Err(RecvTimeoutError::Timeout) => {}
            // A thread has ended on an error, which is found when it is joined.
            Err(RecvTimeoutError::Disconnected) => {
                return Err(RunError::Thread("all ended early".to_owned()));
            }
        }
        if self.surroundings.cancelled() {
            return Err(RunError::Cancelled);
        }
        if self.shared.stop.load(Ordering::Acquire) {
            return Err(RunError::Thread("one ended early".to_owned()));
        }
        self.tell(phase);
        Ok(())
    }

    fn take_intervals(&mut self) {
        while let Ok(interval) = self.intervals.try_recv() {
            self.recorder.take(*interval, self.shared);
        }
    }

    /// Waits until every client has joined, and decides the start.
    fn join(&mut self) -> Result<(), RunError> {
        let wanted = self.shared.plan.clients.len() as u64;
        let limit_us = JOIN_US + wanted * 1_000_000 / JOINS_PER_S;
        while self.shared.joined.load(Ordering::Acquire) < wanted {
            let now_us = self.shared.now_us();
            let joined = self.shared.joined.load(Ordering::Acquire);
            let refused = self.shared.refused.load(Ordering::Acquire) > 0;
            if refused || now_us > limit_us || (joined == 0 && now_us > FIRST_JOIN_US) {
                return Err(RunError::Join {
                    joined,
                    wanted,
                    waited_s: now_us as f64 / 1e6,
                    last: self.shared.last_failure(),
                });
            }
            self.turn(Phase::Connect)?;
        }
        self.shared.decide_start(self.shared.now_us() + LEAD_US);
        Ok(())
    }

    /// Warm-up, window, drain. Returns when the run ended, on its own clock.
    fn perform<'s>(&mut self, mut injected: Faults<'s>) -> Result<(Faults<'s>, u64), RunError> {
        let start_us = self.shared.start_us().unwrap_or_default();
        let warm_up_us = seconds_us(self.shared.scenario.warm_up_s);
        let end_us = warm_up_us + seconds_us(self.shared.scenario.duration_s);
        let drained_us = end_us + seconds_us(self.shared.scenario.drain_s);
        loop {
            let run_us = self.shared.now_us().saturating_sub(start_us);
            if run_us >= warm_up_us && self.cpu_began.is_none() {
                *self.cpu_began = Some(Cpu::now());
                self.surroundings.window_opened();
            }
            while self.faults.last().is_some_and(|fault| warm_up_us + seconds_us(fault.at_s) <= run_us) {
                self.faults.pop().into_iter().for_each(|fault| injected.order(fault));
            }
            injected.check()?;
            if run_us >= end_us && self.cpu.is_none() {
                *self.cpu = self.cpu_began.map(|began| Cpu::now().since(&began));
                self.surroundings.window_closed();
            }
            if run_us >= end_us && (run_us >= drained_us || self.is_drained(run_us)) {
                return Ok((injected, run_us));
            }
            self.turn(match run_us {
                _ if run_us < warm_up_us => Phase::WarmUp,
                _ if run_us < end_us => Phase::Window,
                _ => Phase::Drain,
            })?;
        }
    }

    /// It has been quiet for a while, and nothing is missing; or for longer, and what is missing was overtaken.
    fn is_drained(&self, run_us: u64) -> bool {
        let sum = |part: fn(&super::shared::Lacking) -> u64| {
            self.shared.lacking.iter().fold(0_u64, |sum, one| sum.saturating_add(part(one)))
        };
        let tails = sum(|one| one.tails.load(Ordering::Acquire));
        let holes = sum(|one| one.holes.load(Ordering::Acquire));
        let heard_us = self.shared.lacking.iter().map(|one| one.heard_us.load(Ordering::Acquire)).max();
        let quiet_us = run_us.saturating_sub(heard_us.unwrap_or(0));
        tails == 0 && quiet_us >= if holes == 0 { QUIET_WHOLE_US } else { QUIET_US }
    }

    /// Tells the surroundings how it goes, once a second.
    fn tell(&mut self, phase: Phase) {
        let now_us = self.shared.now_us();
        if now_us < *self.progress_us + 1_000_000 {
            return;
        }
        *self.progress_us = now_us;
        let scenario = &self.shared.scenario;
        let latest = self.recorder.latest(self.shared.plan.threads);
        let per_s = |count: u64| count as f64 * 1e6 / self.shared.interval_us as f64;
        let since_us = self.shared.start_us().unwrap_or_default();
        self.surroundings.progress(&Live {
            phase,
            elapsed_s: now_us.saturating_sub(since_us) as f64 / 1e6,
            total_s: scenario.warm_up_s + scenario.duration_s + scenario.drain_s,
            sent_per_s: latest.map_or(0.0, |(_, point, _)| per_s(point.sent)),
            delivered_per_s: latest.map_or(0.0, |(_, point, _)| per_s(point.delivered)),
            delivery_us_p99: latest.and_then(|(_, _, p99)| p99),
            lost: self.recorder.missing(),
            connections: latest.map_or_else(
                || self.shared.joined.load(Ordering::Acquire),
                |(_, point, _)| point.connections,
            ),
        });
    }
}

fn load(shared: &Shared, harvest: &[Harvest], reconnects: u64) -> Load {
    let plan = &shared.plan;
    let sum = |part: fn(&Harvest) -> u64| harvest.iter().map(part).sum::<u64>();
    let (scheduled, sent) = (sum(|one| one.sums.scheduled), sum(|one| one.sums.sent));
    let window_s = shared.scenario.duration_s;
    // A generator that falls behind takes longer than the window to send what the window holds. A hiccup at its very
    // end does not make it one that falls behind; send lag tells of hiccups.
    let last_sent_us = harvest.iter().map(|one| one.sums.last_sent_us).max().unwrap_or(0);
    let last_sent_s = last_sent_us.saturating_sub(HICCUP_US) as f64 / 1e6;
    let sending_s = (last_sent_s - shared.scenario.warm_up_s).max(window_s);
    Load {
        connections: plan.clients.len() as u64,
        rooms: plan.rooms.len() as u64,
        memberships: plan.memberships(),
        members_max: plan.rooms.iter().map(|room| u64::from(room.members)).max().unwrap_or(0),
        nodes: shared.nodes_at_start as u64,
        scheduled,
        sent,
        unsent: sum(|one| one.sums.unsent),
        target_per_s: scheduled as f64 / window_s,
        offered_per_s: sent as f64 / sending_s,
        delivered_per_s: sum(|one| one.sums.delivered) as f64 / window_s,
        payload_bytes_mean: sum(|one| one.sums.payload_bytes) as f64 / sent.max(1) as f64,
        connections_failed: sum(|one| one.failed),
        slowed: sum(|one| one.sums.slowed),
        slow_closes: sum(|one| one.sums.slow_closes),
        garbled: sum(|one| one.sums.garbled),
        garbled_closes: sum(|one| one.sums.garbled_closes),
        reconnects,
    }
}

fn mark_silences(marks: &mut [FaultMark], activity: &Activity, end_ms: u64) {
    marks.sort_by(|one, other| one.began_s.total_cmp(&other.began_s));
    let began: Vec<u64> = marks.iter().map(|mark| (mark.began_s * 1e3) as u64).collect();
    for (index, mark) in marks.iter_mut().enumerate() {
        let until_ms = began.get(index + 1).copied().unwrap_or(end_ms);
        mark.silence_ms = activity.longest_silence_ms(began[index], until_ms, end_ms) as f64;
    }
}

/// Room by room, what [`mark_silences`] does for all together. The schedule tells when something was due.
fn mark_room_silences(marks: &mut [FaultMark], lulls: &[Lull], shared: &Shared, end_us: u64) {
    if marks.is_empty() {
        return;
    }
    let mut due = vec![Vec::new(); shared.plan.rooms.len()];
    for intent in Schedule::new(shared.shape.clone()) {
        due[shared.plan.streams[intent.stream as usize].room as usize].push(intent.at_us);
    }
    let began: Vec<u64> = marks.iter().map(|mark| seconds_us(mark.began_s)).collect();
    for (index, mark) in marks.iter_mut().enumerate() {
        let until_us = began.get(index + 1).copied().unwrap_or(end_us);
        let silences_us = latency::room_silences_us(lulls, &due, began[index], until_us);
        // The nearest rank.
        let p99 = (silences_us.len() * 99).div_ceil(100).saturating_sub(1);
        mark.room_silence_ms_p99 = silences_us.get(p99).map(|us| *us as f64 / 1e3);
        mark.room_silence_ms_max = silences_us.last().map(|us| *us as f64 / 1e3);
    }
}
