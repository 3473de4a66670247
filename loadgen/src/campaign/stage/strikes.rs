//! Faults of a timeline, done to real processes and to the links between them.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use manifold_compose::{Condition, Environment, Process};

use super::{Edge, Stage, Watched, lock};
use crate::probe::usage;
use crate::record::{ComponentKind, Deed, FaultOutcome, Target};

/// How long a node may take to send its clients away and end.
const DRAIN_GRACE: Duration = Duration::from_secs(20);

/// A link that is slow: a link across a continent, or a full one.
const SLOW: Condition = Condition::Slow { delay: Duration::from_millis(25), bytes_per_s: 1_000_000 };

/// What compose starts Redis with.
const BUFFERS_AS_STARTED: &str = "pubsub 256mb 64mb 60";

/// Descriptors of a node that has no more: fewer than it always has open, and enough for `poll`.
const FILES_EXHAUSTED: u64 = 16;

/// Hash slots that a migration moves: a sixth of all, half of what their server holds.
const SLOTS_MOVED: usize = 2_730;

impl Stage<'_> {
    pub(super) fn strike(&self, deed: Deed, target: Target) -> Result<FaultOutcome> {
        ensure!(deed.suits(target), "cannot {deed:?} {target:?}");
        if deed == Deed::Add {
            return self.add_node();
        }
        if target.is_link() {
            return Ok(self.change_links(deed, target));
        }
        if !target.is_process() {
            return self.administer(deed, target);
        }
        let processes = self.whom(deed, target)?;
        if processes.is_empty() {
            return Ok(FaultOutcome::NotApplicable);
        }
        let names = processes.iter().map(Process::name).collect::<Vec<_>>().join(", ");
        let outcome = match deed {
            Deed::Roll => processes
                .iter()
                .try_for_each(|process| self.drain(process).and_then(|()| self.restart(process))),
            Deed::Kill => self.at_once(&processes, |stage, process| stage.kill(process)),
            Deed::Drain => self.at_once(&processes, |stage, process| stage.drain(process)),
            // At once: of several brokers the first may not serve before the others do.
            Deed::Restart => self.at_once(&processes, |stage, process| stage.restart(process)),
            Deed::Stop => self.at_once(&processes, |stage, process| {
                stage.ensure_lives(process)?;
                Ok(process.stop()?)
            }),
            Deed::Continue => self.at_once(&processes, |_, process| Ok(process.cont()?)),
            Deed::Launch => processes.iter().try_for_each(|process| self.launch(process)),
            Deed::Await => processes.iter().try_for_each(|process| Ok(process.wait_ready()?)),
            // Done above: `suits` lets none of these strike a process.
            Deed::Add
            | Deed::Stall
            | Deed::Cut
            | Deed::Slow
            | Deed::Mend
            | Deed::Grow
            | Deed::Delete
            | Deed::Exhaust
            | Deed::Relieve
            | Deed::Migrate => Ok(()),
        };
        outcome.with_context(|| format!("{deed:?} {names}"))?;
        Ok(FaultOutcome::Done { whom: names, added_url: None })
    }

    /// Does something to several processes, each on a thread of its own.
    fn at_once(&self, processes: &[Process], deed: fn(&Self, &Process) -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            let under_way: Vec<_> =
                processes.iter().map(|process| scope.spawn(move || deed(self, process))).collect();
            under_way
                .into_iter()
                .try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    }

    fn kill(&self, process: &Process) -> Result<()> {
        self.ensure_lives(process)?;
        self.may_end(process);
        self.remember_usage(process);
        Ok(process.kill()?)
    }

    fn restart(&self, process: &Process) -> Result<()> {
        self.launch(process)?;
        Ok(process.wait_ready()?)
    }

    fn launch(&self, process: &Process) -> Result<()> {
        self.ensure_lives(process)?;
        self.may_end(process);
        self.remember_usage(process);
        process.launch()?;
        self.must_run(process);
        Ok(())
    }

    fn drain(&self, process: &Process) -> Result<()> {
        self.ensure_lives(process)?;
        self.may_end(process);
        self.remember_usage(process);
        let status = process.terminate(DRAIN_GRACE)?;
        let forced = status.signal() == Some(9);
        ensure!(!forced, "{} had not ended {} s after SIGTERM", process.name(), DRAIN_GRACE.as_secs());
        ensure!(status.success(), "{} did not drain: {status}", process.name());
        Ok(())
    }

    /// What this incarnation has used would be lost with it.
    fn remember_usage(&self, process: &Process) {
        if let Some(usage) = usage(process.pid()).filter(|_| process.is_running()) {
            lock(&self.ended).push((process.name().to_owned(), usage));
        }
    }

    /// The processes that are struck. What mends strikes those that were broken.
    fn whom(&self, deed: Deed, target: Target) -> Result<Vec<Process>> {
        let mut struck = lock(&self.struck);
        // What was launched is still to be waited for.
        let broken = if deed == Deed::Launch { struck.get(&target).cloned() } else { struck.remove(&target) };
        drop(struck);
        if let (Deed::Continue | Deed::Restart | Deed::Launch | Deed::Await, Some(processes)) = (deed, broken)
        {
            return Ok(processes);
        }
        let nodes = || self.node_processes();
        let processes: Vec<Process> = match target {
            Target::Node => nodes().into_iter().take(self.nodes_at_start).next_back().into_iter().collect(),
            Target::Nodes => nodes(),
            Target::Kafka => self.brokers("kafka"),
            Target::KafkaLeader => self.kafka_leader_first()?.into_iter().take(1).collect(),
            Target::KafkaMajority => {
                let brokers = self.kafka_leader_first()?;
                let majority = brokers.len() / 2 + 1;
                brokers.into_iter().take(majority).collect()
            }
            Target::Redis => self.brokers("redis"),
            Target::RedisMaster => {
                self.brokers("redis").into_iter().filter(|process| process.name() == "redis").collect()
            }
            _ => Vec::new(),
        };
        if matches!(deed, Deed::Kill | Deed::Stop | Deed::Drain) {
            lock(&self.struck).insert(target, processes.clone());
        }
        Ok(processes)
    }

    pub(super) fn brokers(&self, prefix: &str) -> Vec<Process> {
        let all = self.environment.map(Environment::processes).unwrap_or_default();
        all.iter().filter(|process| process.name().starts_with(prefix)).cloned().collect()
    }

    fn kafka_leader_first(&self) -> Result<Vec<Process>> {
        let mut brokers = self.brokers("kafka");
        let leader = match self.environment {
            Some(environment) if !brokers.is_empty() => {
                environment.kafka_leader().context("nobody says who leads")?
            }
            _ => None,
        };
        if let Some(leader) = leader {
            brokers.sort_by_key(|process| process.name() != leader.name());
        }
        Ok(brokers)
    }

    fn change_links(&self, deed: Deed, target: Target) -> FaultOutcome {
        let prefix = if target == Target::KafkaLink { "link-kafka" } else { "link-redis" };
        let condition = match deed {
            Deed::Stall => Condition::Stalled,
            Deed::Cut => Condition::Cut,
            Deed::Slow => SLOW,
            _ => Condition::Open,
        };
        let links = self.environment.map(Environment::links).unwrap_or_default();
        let mut names = Vec::new();
        for link in links.iter().filter(|link| link.name().starts_with(prefix)) {
            link.set(condition);
            names.push(link.name());
        }
        match names.is_empty() {
            true => FaultOutcome::NotApplicable,
            false => FaultOutcome::Done { whom: names.join(", "), added_url: None },
        }
    }

    /// What is done to no process as such, but to what brokers hold or what a process may use.
    fn administer(&self, deed: Deed, target: Target) -> Result<FaultOutcome> {
        let Some(environment) = self.environment else { return Ok(FaultOutcome::NotApplicable) };
        let prefix = self.nodes.as_ref().map(|nodes| lock(nodes).namespace().to_owned()).unwrap_or_default();
        ensure!(
            !prefix.is_empty() || target != Target::KafkaTopics,
            "topics without a namespace are not ours"
        );
        let exhausted = deed == Deed::Exhaust;
        let whom = match (target, deed) {
            (Target::KafkaTopics, Deed::Grow) => environment.grow_kafka_topics(&prefix)?.join(", "),
            (Target::KafkaTopics, _) => environment.delete_kafka_topics(&prefix)?.join(", "),
            (Target::KafkaDisk, _) => {
                let brokers = self.brokers("kafka");
                let limit = exhausted.then_some(0);
                // That is what a full disk does to a broker.
                brokers.iter().for_each(|broker| self.may_end(broker));
                brokers.iter().try_for_each(|broker| broker.limit_file_size(limit))?;
                let names = brokers.iter().map(|broker| format!("disk of {}", broker.name()));
                names.collect::<Vec<_>>().join(", ")
            }
            (Target::NodeFiles, _) => {
                let nodes = self.whom(deed, Target::Node)?;
                nodes.iter().try_for_each(|node| self.ensure_lives(node))?;
                let limit = exhausted.then_some(FILES_EXHAUSTED);
                nodes.iter().try_for_each(|node| node.limit_open_files(limit))?;
                nodes.iter().filter(|_| exhausted).try_for_each(|node| self.ensure_shut(node))?;
                nodes.first().map_or_else(String::new, |node| format!("file descriptors of {}", node.name()))
            }
            (Target::RedisMemory, _) => {
                // Less than it uses already: everything that needs memory is refused.
                let limit = if exhausted { "1" } else { "0" };
                self.configure_redis("maxmemory", limit)?
            }
            (Target::RedisBuffers, _) => {
                let limit = if exhausted { "pubsub 1 0 0" } else { BUFFERS_AS_STARTED };
                let before = *lock(&self.cut_off);
                if exhausted {
                    *lock(&self.cut_off) = Some(self.subscribers_cut_off());
                }
                let whom = self.configure_redis("client-output-buffer-limit", limit)?;
                if let Some(before) = before.filter(|_| !exhausted && !whom.is_empty()) {
                    self.ensure_cut_off(before)?;
                }
                whom
            }
            (Target::RedisSlots, _) => match environment.move_redis_slots(SLOTS_MOVED)? {
                Some(keys) => format!("{SLOTS_MOVED} slots with {keys} keys"),
                None => String::new(),
            },
            _ => bail!("{target:?} is a process or a link"),
        };
        Ok(match whom.is_empty() {
            true => FaultOutcome::NotApplicable,
            false => FaultOutcome::Done { whom, added_url: None },
        })
    }

    fn configure_redis(&self, key: &str, value: &str) -> Result<String> {
        let Some(environment) = self.environment.filter(|_| !self.brokers("redis").is_empty()) else {
            return Ok(String::new());
        };
        Ok(match environment.configure_redis(key, value)? {
            0 => String::new(),
            _ => format!("{key} {value}"),
        })
    }

    fn add_node(&self) -> Result<FaultOutcome> {
        let Some(nodes) = &self.nodes else { return Ok(FaultOutcome::NotApplicable) };
        let mut nodes = lock(nodes);
        let process = nodes.add().context("a further node did not start")?.clone();
        let whom = process.name().to_owned();
        self.must_run(&process);
        let (kind, process) = (ComponentKind::Node, Some(process));
        if let Some(http) = nodes.http().pop() {
            self.edge(Edge::Added(Watched { name: whom.clone(), kind, process }, http));
        }
        Ok(FaultOutcome::Done { whom, added_url: nodes.urls().pop() })
    }
}
