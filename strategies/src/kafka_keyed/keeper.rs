//! The one thread that changes what a node reads: it assigns partitions on demand, releases them, rings the bell,
//! and repairs partitions whose offset the log no longer holds. Joins that wait together are served together.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::bell::Bell;
use super::connect::Recipe;
use super::plan::Plan;
use super::publish::Sender;
use super::rooms::Rooms;
use crate::clients::kafka::fault::closed;
use crate::clients::kafka::{Cluster, Consumer, Incarnations, ReadTo, Resume};
use crate::error::{Error, ErrorKind, Result};
use crate::kafka_history::{numbering, private_numbering};

/// Bound of commands that wait for the keeper.
const COMMANDS_MAX: usize = 16_384;
/// Longest sleep of the keeper.
const IDLE: Duration = Duration::from_secs(1);
/// How often the keeper looks whether the topic is still the one that is read: nobody may be told when it is deleted.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a client's look at a topic may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(2);

enum Command {
    Join { partition: i32, done: oneshot::Sender<Result<()>> },
    Repair,
    Wake,
}

/// A handle to the keeper. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    commands: SyncSender<Command>,
    /// Partitions of rooms that were left. Apart from the bounded queue, because none may be lost; at most as many as
    /// rooms were joined.
    left: Arc<Mutex<Vec<i32>>>,
    stop: Arc<AtomicBool>,
}

/// The keeper's end of its handle.
pub(super) struct Commands {
    queue: Receiver<Command>,
    left: Arc<Mutex<Vec<i32>>>,
    stop: Arc<AtomicBool>,
}

/// A handle and its other end.
pub(super) fn channel() -> (Keeper, Commands) {
    let (commands, queue) = sync_channel(COMMANDS_MAX);
    let (left, stop) = (Arc::new(Mutex::default()), Arc::new(AtomicBool::new(false)));
    (Keeper { commands, left: Arc::clone(&left), stop: Arc::clone(&stop) }, Commands { queue, left, stop })
}

impl Keeper {
    /// Makes sure that a partition is read; resolves when it is.
    pub(super) fn join(&self, partition: i32) -> Result<oneshot::Receiver<Result<()>>> {
        let (done, waiting) = oneshot::channel();
        self.send("join", Command::Join { partition, done })?;
        Ok(waiting)
    }

    /// A room of the partition was left. Its `join` was answered before.
    pub(super) fn leave(&self, partition: i32) {
        self.left.lock().push(partition);
        // A full queue means that the keeper is about to look anyway.
        let _ = self.commands.try_send(Command::Wake);
    }

    /// Some partition stands still because its offset is not in the log.
    pub(super) fn repair(&self) {
        // A full queue means that the keeper is about to look anyway; closed means that there is nothing to repair.
        let _ = self.send("repair", Command::Repair);
    }

    /// Ends the keeper after what it is doing.
    pub(super) fn stop(&self) {
        self.stop.store(true, Relaxed);
        let _ = self.commands.try_send(Command::Wake);
    }

    fn send(&self, operation: &'static str, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => {
                let text = format!("{COMMANDS_MAX} joins are waiting: the broker is slow to answer");
                Error::new(ErrorKind::Overloaded, operation, text)
            }
            TrySendError::Disconnected(_) => closed(operation),
        })
    }
}

/// How partitions come to be read.
pub(super) enum Mode {
    /// All of them, always.
    All,
    /// As the plan says; the bell makes the broker notice.
    Demand(Plan, Bell),
    /// As the consumer group says.
    Group,
}

/// The keeper's state.
pub(super) struct Work {
    pub(super) cluster: Cluster,
    pub(super) consumer: Consumer,
    pub(super) rooms: Arc<Rooms>,
    pub(super) topic: String,
    pub(super) producer: Sender,
    pub(super) recipe: Recipe,
    pub(super) incarnations: Arc<Incarnations>,
    /// Where questions are asked that are no blocking ones.
    pub(super) runtime: Handle,
    pub(super) mode: Mode,
    pub(super) waiting: Vec<(i32, oneshot::Sender<Result<()>>)>,
    pub(super) repair_at: Option<Instant>,
    /// When to look next whether the topic is still the same.
    pub(super) look_at: Instant,
    /// Somebody is looking.
    pub(super) looking: Arc<AtomicBool>,
    /// For those who look.
    pub(super) keeper: Keeper,
}

impl Work {
    /// Serves commands until it is stopped. Blocking: runs on a thread of its own.
    pub(super) fn run(mut self, commands: &Commands) {
        while !commands.stop.load(Relaxed) {
            match commands.queue.recv_timeout(self.sleep()) {
                Ok(command) => self.take(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            while let Ok(command) = commands.queue.try_recv() {
                self.take(command);
            }
            let now = Instant::now();
            if let Mode::Demand(plan, _) = &mut self.mode {
                std::mem::take(&mut *commands.left.lock())
                    .into_iter()
                    .for_each(|partition| plan.leave(partition, now));
            }
            self.settle(now);
            if self.look_at <= now {
                self.look();
                self.look_at = Instant::now() + LOOK_EVERY;
            }
            if self.repair_at.is_some_and(|at| at <= now) {
                self.repair_at = self.repair().err().map(|error| {
                    tracing::warn!(%error, "partitions that stand still could not be repaired yet");
                    now + IDLE
                });
            }
        }
        for (_, done) in self.waiting {
            // Whoever waits no longer needs no answer.
            let _ = done.send(Err(closed("join")));
        }
    }

    fn sleep(&self) -> Duration {
        let plan = match &self.mode {
            Mode::Demand(plan, bell) => [plan.deadline(), bell.due()],
            _ => [None, None],
        };
        let next = plan.into_iter().flatten().chain(self.repair_at).min();
        next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE))
    }

    fn take(&mut self, command: Command) {
        match (command, &mut self.mode) {
            (Command::Join { partition, done }, Mode::Demand(plan, _)) => {
                if plan.join(partition) {
                    let _ = done.send(Ok(()));
                } else {
                    self.waiting.push((partition, done));
                }
            }
            // Other modes read the partition already.
            (Command::Join { done, .. }, _) => drop(done.send(Ok(()))),
            (Command::Repair, _) => self.repair_at = Some(Instant::now()),
            (Command::Wake, _) => {}
        }
    }

    /// Brings what is read in line with the plan, and answers those who wait.
    fn settle(&mut self, now: Instant) {
        let Mode::Demand(plan, bell) = &mut self.mode else { return };
        let was_all = plan.all();
        plan.tick(now);
        if plan.all() != was_all {
            tracing::info!(all = plan.all(), "most partitions are needed (true) or no longer are (false)");
        }
        let missing = plan.missing();
        if !missing.is_empty() {
            let begun = begin(&self.cluster, &self.consumer, &self.rooms, &self.topic, &missing);
            match &begun {
                Ok(()) => {
                    plan.set_assigned(&missing, true);
                    bell.wind(Instant::now());
                }
                Err(error) => tracing::warn!(%error, "partitions could not be assigned"),
            }
            for (partition, done) in self.waiting.drain(..) {
                if begun.is_err() {
                    plan.leave(partition, now);
                }
                let _ = done.send(begun.as_ref().map(|&()| ()).map_err(again));
            }
        }
        let superfluous = plan.superfluous();
        if !superfluous.is_empty() {
            match self.consumer.release_blocking(&self.topic, &superfluous) {
                Ok(()) => plan.set_assigned(&superfluous, false),
                Err(error) => tracing::warn!(%error, "partitions could not be released"),
            }
        }
        bell.ring_if_due(Instant::now());
    }

    /// Has somebody look whether the topic is still there, and the one that is read. Apart from this thread, on which joins wait:
    /// a broker that stands still takes seconds to be given up.
    fn look(&self) {
        if self.looking.swap(true, Relaxed) {
            return;
        }
        let (incarnations, rooms) = (Arc::clone(&self.incarnations), Arc::clone(&self.rooms));
        let (keeper, looking) = (self.keeper.clone(), Arc::clone(&self.looking));
        self.runtime.spawn(async move {
            let marks = || rooms.partitions().map(|partition| rooms.mark(partition)).collect::<Vec<_>>();
            let read = marks();
            let is_same = match incarnations.refreshed().await {
                Ok(mark) => read.iter().all(|read| *read == mark),
                // It refuses to describe the topic. One that cannot be reached proves nothing.
                Err(error) => error.kind() != ErrorKind::Broker,
            };
            // What was repaired meanwhile says nothing of what is read now.
            if !is_same && read == marks() {
                keeper.repair();
            }
            looking.store(false, Relaxed);
        });
    }

    /// Assigns everything that is read anew, at offsets that the log holds. The reader declares what was skipped. A topic that
    /// is gone is created anew: whoever is here needs one.
    fn repair(&self) -> Result<()> {
        self.runtime.block_on(self.recipe.ensure(&self.cluster))?;
        self.producer.refresh_blocking(&self.topic, REFRESH_TIMEOUT)?;
        self.consumer.refresh_blocking(&self.topic, REFRESH_TIMEOUT)?;
        if let Mode::Demand(_, bell) = &self.mode {
            bell.listen_blocking(&self.cluster, &self.consumer)?;
        }
        let partitions = match &self.mode {
            Mode::All => self.rooms.partitions().collect(),
            Mode::Demand(plan, _) => plan.assigned(),
            Mode::Group => self.consumer.assigned()?,
        };
        let read_to = |&partition: &i32| ReadTo {
            partition,
            next: self.rooms.next(partition),
            newest_ms: self.rooms.newest_ms(partition),
        };
        let read: Vec<ReadTo> = partitions.iter().map(read_to).collect();
        let resumes = self.cluster.resume_blocking(&self.topic, &read)?;
        tracing::warn!(partitions = partitions.len(), "reading anew where the log goes on");
        let mark = self.runtime.block_on(self.incarnations.refreshed())?;
        let starts = self.cluster.starts_blocking(&self.topic, &partitions)?;
        self.rename_others(&resumes, mark)?;
        // All is known; from here on nothing is asked. What was read ahead of the old log must not be taken for the new one.
        self.rooms.shut(&partitions);
        match self.mode {
            Mode::Group => self.consumer.reassign_blocking(&self.topic, &[])?,
            _ => self.consumer.drop_blocking(&self.topic, &partitions)?,
        }
        // Where offsets count anew the duplicate window removes what was delivered already.
        let offsets = self.renumber(&resumes, &starts, mark)?;
        self.rooms.open(&partitions);
        match self.mode {
            Mode::Group => self.consumer.reassign_blocking(&self.topic, &offsets),
            _ => self.consumer.assign_blocking(&self.topic, &offsets),
        }
    }
}

impl Work {
    /// Partitions that are not read just now belong to the topic with this mark as well.
    fn rename_others(&self, read: &[Resume], mark: Option<u64>) -> Result<()> {
        let is_read = |partition: &i32| read.iter().any(|resume| resume.partition == *partition);
        let others: Vec<i32> = self
            .rooms
            .partitions()
            .filter(|partition| !is_read(partition) && self.rooms.mark(*partition) != mark)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        let numbering = numbering(&self.topic, mark)?;
        if matches!(self.mode, Mode::Group) {
            // The group gives them back in a moment, and all that is in them is new.
            let starts = self.cluster.starts_blocking(&self.topic, &others)?;
            self.rooms.renumber(&starts, numbering, mark);
        } else {
            self.rooms.rename(&others, numbering, mark);
        }
        Ok(())
    }

    /// Another incarnation of the topic is another numbering, the same on all nodes. Where the log only became shorter, places
    /// beyond its end were used and will be used again, which nodes that come later cannot see: from there on the numbering is
    /// this node's own.
    fn renumber(
        &self,
        resumes: &[Resume],
        starts: &[(i32, i64)],
        mark: Option<u64>,
    ) -> Result<Vec<(i32, i64)>> {
        let mut offsets = Vec::with_capacity(resumes.len());
        for &Resume { partition, offset, renumbered } in resumes {
            let is_another = mark != self.rooms.mark(partition);
            let offset = match (is_another, renumbered) {
                // Nothing of it was read, however long it is.
                (true, _) => starts.iter().find(|(of, _)| *of == partition).map_or(0, |start| start.1),
                (false, true) => offset,
                // It was read on meanwhile.
                (false, false) => offset.max(self.rooms.next(partition)),
            };
            offsets.push((partition, offset));
            if is_another || renumbered {
                let numbering = if is_another { numbering(&self.topic, mark)? } else { private_numbering()? };
                self.rooms.renumber(&[(partition, offset)], numbering, mark);
            }
        }
        Ok(offsets)
    }
}

/// Begins to read partitions from their ends: what is published from now on lies behind these.
pub(super) fn begin(
    cluster: &Cluster,
    consumer: &Consumer,
    rooms: &Rooms,
    topic: &str,
    partitions: &[i32],
) -> Result<()> {
    let ends = cluster.ends_blocking(topic, partitions)?;
    rooms.place(&ends);
    consumer.assign_blocking(topic, &ends)
}

/// The same error for one more caller.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), "join", error.to_string()).with_temporary(error.is_temporary())
}
