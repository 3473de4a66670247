//! Keeps this node a member: joins, gives signs of life, follows the others, and joins anew when it was expelled.
//!
//! One task that owns the view. Everything it does follows from the view and from what it did before, so a step that fails
//! (a broker that does not answer) is simply tried again on the next turn.

mod looking;
mod reopening;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::control::{Appender, Tail};
use super::membership::{Entry, Member, View};
use super::own::Own;
use super::reading::{Reading, STEP_TIMEOUT, Turn, partitions_needed};
use super::record::{Incarnation, Record};
use super::settings::Settings;
use super::status::{FULL, SHUT_DOWN, SUPERSEDED, Status, finished};
use super::topics::Topics;
use super::writer::Writer;
use crate::backplane::{Entrance, Event};
use crate::clients::kafka::{Cluster, Incarnations};
use crate::error::Result;
use crate::stats::Stats;

/// How soon a step that could not be done is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// A `Join` that is not read back by then is sent again.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);
/// Earlier lives that are remembered.
const PAST_MAX: usize = 16;

/// What the keeper works with.
pub(super) struct Parts {
    pub(super) node: String,
    pub(super) settings: Settings,
    pub(super) topics: Topics,
    pub(super) control_log: Arc<Incarnations>,
    pub(super) cluster: Cluster,
    pub(super) appender: Appender,
    pub(super) writer: Arc<Writer>,
    pub(super) reading: Reading,
    pub(super) entrance: Arc<dyn Entrance>,
    pub(super) stats: Arc<Stats>,
}

/// The task's state.
pub(super) struct Keeper {
    parts: Parts,
    tail: Tail,
    view: View,
    status: watch::Sender<Status>,
    own: Own,
    /// Partitions that the writer writes to.
    installed: Vec<i32>,
    /// A step is to be tried again.
    unsettled: bool,
    /// Earlier lives of this node that may still turn up in the log.
    past: Vec<Incarnation>,
    /// A loss that is declared once this node is effective again.
    loss: Option<&'static str>,
}

impl Keeper {
    /// Reads the control log and asks to become a member. The rest happens in [`run`](Self::run).
    pub(super) async fn start(parts: Parts, status: watch::Sender<Status>) -> Result<Self> {
        let silent = parts.writer.silent();
        let log = looking::log_of(&parts.control_log).await?;
        let (tail, view) =
            Tail::open(&parts.cluster, (&parts.topics.control, log), &parts.stats, &silent).await?;
        // Most probably the partitions that this node will get; made now, the others need not wait for them.
        let expected = view.lowest_free(parts.settings.hold as usize);
        parts.cluster.grow_topic(&parts.reading.topic, partitions_needed(&expected)).await?;
        let keeper = Self {
            own: Own::new()?,
            parts,
            tail,
            view,
            status,
            installed: Vec::new(),
            unsettled: false,
            past: Vec::new(),
            loss: None,
        };
        keeper.ask();
        Ok(keeper)
    }

    /// Runs until `stop` is sent or dropped, and leaves; or until this node cannot be a member any more.
    pub(super) async fn run(mut self, stop: oneshot::Receiver<()>) {
        self.keep(stop).await;
        self.tail.close().await;
        self.parts.reading.consumer.stop().await;
        // Unless there was another reason before.
        self.status.send_if_modified(|status| {
            let stopped = !matches!(status, Status::Ended { .. });
            if stopped {
                *status = Status::Ended { reason: SHUT_DOWN };
            }
            stopped
        });
    }

    async fn keep(&mut self, mut stop: oneshot::Receiver<()>) {
        let mut beat = tokio::time::interval(Duration::from_millis(self.parts.settings.beat_ms));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let reader_standstill = Arc::clone(&self.parts.reading.standstill);
        // Beside everything else: it may take longer than this node can go without a sign of life.
        let mut reopening: Option<JoinHandle<Option<(Tail, View)>>> = None;
        let mut looking = None;
        let mut look = tokio::time::interval(looking::LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let control_standstill = Arc::clone(&self.tail.standstill);
            let mut due = false;
            tokio::select! {
                _ = &mut stop => return self.leave().await,
                entry = self.tail.next(), if reopening.is_none() => match entry {
                    Some(entry) => self.apply_all(entry),
                    // The reading thread is gone.
                    None => self.tail.standstill.raise(),
                },
                () = control_standstill.raised(), if reopening.is_none() => reopening = self.reopen(),
                opened = finished(&mut reopening) => {
                    reopening = None;
                    self.reopened(opened).await;
                }
                () = reader_standstill.raised() => {}
                _ = look.tick(), if looking.is_none() => looking = Some(self.look()),
                changed = finished(&mut looking) => {
                    looking = None;
                    self.looked(changed);
                }
                _ = beat.tick() => due = true,
                () = tokio::time::sleep(RETRY_PAUSE), if self.unsettled => {}
            }
            if self.turn(due).await.is_break() {
                return;
            }
        }
    }

    /// One turn: brings everything in line with the view.
    async fn turn(&mut self, due: bool) -> ControlFlow<()> {
        self.unsettled = false;
        self.check_standing()?;
        let member = self.view.member(self.own.incarnation).cloned();
        self.read(member.as_ref()).await;
        if let Some(member) = member {
            self.write().await;
            // A new member waits for this acknowledgement.
            let news = self
                .view
                .members()
                .iter()
                .any(|other| (self.own.told..self.own.through).contains(&other.joined));
            if due || news {
                self.beat();
            }
            self.renew_trust(&member);
        }
        self.parts.writer.expire_parked();
        ControlFlow::Continue(())
    }

    fn apply_all(&mut self, first: Entry) {
        let mut next = Some(first);
        while let Some(entry) = next {
            self.apply(&entry);
            next = self.tail.try_next();
        }
    }

    fn apply(&mut self, entry: &Entry) {
        let joined = self.view.member(self.own.incarnation).map(|member| member.joined);
        // Those whom this record expels count: their messages may still be under way.
        self.parts.reading.saw(&self.view);
        self.view.apply(entry.offset, entry.appended_ms, entry.record.as_ref());
        match &entry.record {
            Some(Record::Beat { incarnation, sequence, .. }) if *incarnation == self.own.incarnation => {
                self.own.confirm(*sequence);
            }
            Some(Record::Join { incarnation, .. }) if *incarnation == self.own.incarnation => {
                self.own.confirm(0);
                self.own.admitted = true;
            }
            _ => {}
        }
        if let Some(joined) = joined
            && self.view.member(self.own.incarnation).is_none()
        {
            self.expelled(joined, entry.appended_ms);
        }
    }

    /// The record at hand ended this node's membership, which began at offset `joined`: from here on, others may write
    /// without it.
    fn expelled(&mut self, joined: u64, appended_ms: i64) {
        if !self.parts.settings.deduplicate {
            self.loss =
                Some("it was no member for a while, and without deduplication it cannot read that elsewhere");
            return;
        }
        self.parts.reading.expelled(&self.view, joined, appended_ms);
    }

    /// Admitted, waiting, expelled, superseded?
    fn check_standing(&mut self) -> ControlFlow<()> {
        if self.view.member(self.own.incarnation).is_some() {
            return ControlFlow::Continue(());
        }
        let stranger =
            |member: &Member| member.node == self.parts.node && !self.past.contains(&member.incarnation);
        let namesake = self.view.members().iter().any(stranger);
        match (self.own.admitted, namesake) {
            (true, true) => self.end(SUPERSEDED),
            (true, false) if self.own.through == 0 && self.own.confirmed.is_some() && self.full() => {
                self.end(FULL)
            }
            (true, false) if !self.parts.reading.may_rejoin() => {
                self.parts.writer.distrust();
                self.unsettled = true;
                ControlFlow::Continue(())
            }
            (true, false) => {
                self.rejoin("this node was expelled: it gave no sign of life for its lease; joining anew")
            }
            (false, _) if self.own.asked.elapsed() >= JOIN_PATIENCE => {
                self.rejoin("the request to join was not read back; asking again")
            }
            (false, _) => ControlFlow::Continue(()),
        }
    }

    fn full(&self) -> bool {
        self.view.members().len() >= super::membership::MEMBERS_MAX
    }

    fn end(&mut self, reason: &'static str) -> ControlFlow<()> {
        tracing::error!(node = self.parts.node, "{reason}");
        self.parts.writer.close(reason);
        // What is published from here on does not reach this node.
        self.parts.stats.gaps.add(1);
        self.status.send_replace(Status::Ended { reason });
        ControlFlow::Break(())
    }

    fn rejoin(&mut self, why: &str) -> ControlFlow<()> {
        tracing::warn!(node = self.parts.node, "{why}");
        self.parts.writer.distrust();
        self.status.send_replace(Status::Joining { awaits: 0 });
        match Own::new() {
            Ok(own) => {
                if self.past.len() >= PAST_MAX {
                    self.past.remove(0);
                }
                self.past.push(std::mem::replace(&mut self.own, own).incarnation);
                self.ask();
            }
            Err(error) => {
                tracing::error!(%error, "cannot join anew yet");
                self.unsettled = true;
            }
        }
        ControlFlow::Continue(())
    }

    fn ask(&self) {
        self.parts.appender.append(&Record::Join {
            node: self.parts.node.clone(),
            incarnation: self.own.incarnation,
            hold: self.parts.settings.hold,
            lease_ms: self.parts.settings.lease_ms,
            publish_timeout_ms: self.parts.settings.publish_timeout_ms,
            view: self.view.clone(),
        });
    }

    fn beat(&mut self) {
        let sequence = self.own.send();
        let anchor = self.view.is_eldest(self.own.incarnation).then(|| self.view.clone());
        self.parts.appender.append(&Record::Beat {
            incarnation: self.own.incarnation,
            sequence,
            through: self.own.through,
            view: anchor,
        });
    }

    /// Whether every message reaches `member`, this node, as far as the others are concerned.
    fn is_reached(&self, member: &Member) -> bool {
        self.own.through > member.joined && self.view.awaited_by(member).next().is_none()
    }

    /// Brings the reader in line with the view.
    async fn read(&mut self, member: Option<&Member>) {
        let reached = member.is_some_and(|member| self.is_reached(member));
        let turn = self.parts.reading.turn(&self.view, member, reached).await;
        match self.note("this node's partitions could not be taken yet", Some(turn)) {
            Some(Turn::Again) => self.unsettled = true,
            Some(Turn::Lost(why)) => {
                self.loss = Some(why);
                // The topic may be another one.
                let known = tokio::time::timeout(STEP_TIMEOUT, self.parts.writer.known_partitions()).await;
                self.note("the data topic could not be looked at", known.ok());
                self.unsettled = true;
            }
            Some(Turn::Returned) => {
                tracing::info!(node = self.parts.node, "read all that was missed");
                self.parts.stats.reconnects.add(1);
                self.parts.stats.gaps_repaired.add(1);
                self.parts.entrance.deliver(&mut vec![Event::Reconnected]);
            }
            Some(Turn::Settled) | None => {}
        }
    }

    /// Brings the writer in line with the view.
    async fn write(&mut self) {
        let wanted = self.view.partitions();
        let known = if wanted.iter().all(|partition| self.installed.contains(partition)) {
            Some(Ok(self.installed.clone()))
        } else {
            tokio::time::timeout(STEP_TIMEOUT, self.parts.writer.known_partitions()).await.ok()
        };
        let known = self.note("new partitions cannot be written to yet", known).unwrap_or_default();
        let usable: Vec<i32> = wanted.iter().copied().filter(|partition| known.contains(partition)).collect();
        if usable != self.installed && !usable.is_empty() {
            self.parts.writer.install(&usable);
            self.installed.clone_from(&usable);
        }
        if usable == wanted {
            self.own.through = self.view.next;
        } else {
            self.unsettled = true;
        }
    }

    /// The result of a step; a failure (`None`: out of time) is logged and makes the step be tried again.
    fn note<T>(&mut self, what: &str, outcome: Option<Result<T>>) -> Option<T> {
        match outcome {
            Some(Ok(value)) => return Some(value),
            Some(Err(error)) => tracing::debug!(%error, "{what}"),
            None => tracing::debug!("{what}: no answer in time"),
        }
        self.unsettled = true;
        None
    }

    /// Messages did not reach this node. Which ones it cannot know.
    fn declare_loss(&self, why: &str) {
        tracing::warn!(node = self.parts.node, "messages were lost to this node: {why}");
        self.parts.stats.gaps.add(1);
        drop(self.parts.writer.probe(self.parts.reading.lose()));
    }

    /// Lets the writer write for as long as this node's membership is proven, and says whether it is effective.
    fn renew_trust(&mut self, member: &Member) {
        let Some(confirmed) = self.own.confirmed else { return };
        if self.own.through <= member.joined || !self.parts.reading.covers(member) {
            return;
        }
        let until = confirmed + self.parts.settings.trust();
        self.parts.writer.trust(until);
        let awaits = self.view.awaited_by(member).count();
        if awaits == 0
            && let Some(why) = self.loss.take()
        {
            self.declare_loss(why);
        }
        let status = if awaits == 0 { Status::Effective { until } } else { Status::Joining { awaits } };
        self.status.send_if_modified(|old| std::mem::replace(old, status) != status);
    }

    /// Tells the others that this node writes no more. A shutdown flushed its messages before.
    async fn leave(&mut self) {
        self.parts.appender.append(&Record::Leave { incarnation: self.own.incarnation });
        let deadline = Duration::from_millis(self.parts.settings.shutdown_ms / 2);
        if let Err(error) = self.parts.appender.close(deadline).await {
            tracing::warn!(%error, "the others will notice by themselves that this node is gone");
        }
    }
}
