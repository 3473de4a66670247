//! Where the two paths meet: what the live path and the log bring goes through one merge to the node's entrance.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::kept::Kept;
use super::log::Log;
use super::merge::{Merge, Place};
use crate::backplane::{BoxFuture, Entrance, Envelope, MessageId, Position, RoomId};
use crate::clients::kafka::{Consumer, Link, Record, RecordSink};
use crate::envelope::{self, View};
use crate::error::Result;
use crate::redis_pubsub::wire::{Inbound, Wire};
use crate::stats::Stats;

/// How often held messages are looked at.
const TICK: Duration = Duration::from_millis(20);
/// How often it is looked whether the log's topic is still the one that is read: nobody may be told when it is deleted.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long a publish waits at least for a log that is known to be silent.
const SILENCE_PAUSE: Duration = Duration::from_millis(200);
/// Pause before a repair that failed is tried again.
const REPAIR_PAUSE: Duration = Duration::from_millis(250);
/// Length of the fence in front of a live message.
const FENCE_BYTES: usize = 8;

/// The meeting point.
pub(super) struct Paths {
    merge: Mutex<Merge>,
    /// Locked under the merge, never the other way round.
    kept: Mutex<Kept>,
    /// Told after each batch of the log, and now and then.
    progress: watch::Sender<()>,
    /// Some broker of the log is connected and answers nothing.
    silent: watch::Sender<bool>,
    entrance: Arc<dyn Entrance>,
    pub(super) log: Arc<Log>,
    stats: Arc<Stats>,
    settle_limit: Duration,
    /// Some partition stands still because its offset is not in the log, or the log is another one.
    out_of_range: AtomicBool,
}

impl Paths {
    pub(super) fn new(
        merge: Merge,
        kept: Kept,
        entrance: Arc<dyn Entrance>,
        log: Arc<Log>,
        stats: Arc<Stats>,
        settle_limit: Duration,
    ) -> Self {
        let (merge, kept, progress) = (Mutex::new(merge), Mutex::new(kept), watch::Sender::new(()));
        let out_of_range = AtomicBool::new(false);
        let silent = watch::Sender::new(false);
        Self { merge, kept, progress, silent, entrance, log, stats, settle_limit, out_of_range }
    }

    /// Runs a step of the merge, and delivers what it yields before anybody else's step.
    pub(super) fn step<T>(&self, step: impl FnOnce(&mut Merge) -> T) -> T {
        let mut merge = self.merge.lock();
        let result = step(&mut merge);
        if !merge.out().is_empty() {
            self.kept.lock().note(merge.out(), std::time::Instant::now());
            self.entrance.deliver(merge.out());
        }
        result
    }

    /// The node wants a room from now on.
    pub(super) fn join(&self, room: &RoomId, partition: i32) {
        self.step(|merge| {
            merge.join(room, partition as usize);
            self.kept.lock().joined(room, partition as usize, std::time::Instant::now());
        });
    }

    /// The node does not want a room any more.
    pub(super) fn leave(&self, room: &RoomId) {
        self.step(|merge| {
            merge.leave(room);
            self.kept.lock().left(room);
        });
    }

    /// The log can be read no more, or again.
    fn log_link(&self, broken: bool) {
        self.step(|merge| {
            merge.log_link(broken, Instant::now());
            self.kept.lock().log_link(broken, std::time::Instant::now());
        });
    }

    /// The offset of a partition that is read next.
    pub(super) fn next_of(&self, partition: i32) -> i64 {
        self.step(|merge| merge.next_of(partition as usize))
    }

    /// Where a room with local members stands, once that is known. Everything up to there was delivered.
    pub(super) fn stands(&self, room: &RoomId) -> Option<Position> {
        self.step(|merge| merge.stands(room))
    }

    /// What this node delivered of a room behind `since` before it had read its record; `None` if that is too much to remember.
    pub(super) fn unlogged(&self, room: &RoomId, since: Position) -> Option<Vec<MessageId>> {
        self.step(|merge| merge.unlogged(room, since))
    }

    /// Asks what is kept, between two steps: nothing is remembered that is not delivered yet.
    pub(super) fn recall<T>(&self, ask: impl FnOnce(&mut Kept, std::time::Instant) -> T) -> T {
        let _merge = self.merge.lock();
        ask(&mut self.kept.lock(), std::time::Instant::now())
    }

    /// Waits until the node has read a partition up to `end` and delivered what the room has of it. False if that takes longer
    /// than `limit`.
    pub(super) async fn settled(&self, room: &RoomId, partition: i32, end: i64, limit: Duration) -> bool {
        let mut progress = self.progress.subscribe();
        let settles = async {
            while !self.step(|merge| merge.next_of(partition as usize) >= end && merge.rests(room)) {
                // The sender is this value's own.
                let _ = progress.changed().await;
            }
        };
        timeout(limit, settles).await.is_ok()
    }

    /// Waits until the broker that leads a partition of the log is connected and answers nothing, as far as `reader` knows.
    pub(super) async fn silent(&self, reader: &Consumer, partition: i32) {
        let mut silent = self.silent.subscribe();
        loop {
            // The sender is this value's own.
            let _ = silent.wait_for(|silent| *silent).await;
            // It may be over in a moment, or be another broker's. And whoever tries again at once is slowed down.
            sleep(SILENCE_PAUSE).await;
            if reader.is_silent(&self.log.topic, partition) {
                return;
            }
        }
    }

    /// Looks at held messages now and then, until the node is gone.
    pub(super) async fn keep(paths: Weak<Self>) {
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let Some(paths) = paths.upgrade() else { return };
            paths.step(|merge| merge.look(Instant::now()));
            paths.progress.send_replace(());
        }
    }

    /// Looks now and then whether the log is still the one that is read, and repairs the tail, until the node is gone. Apart
    /// from [`keep`](Self::keep), since a broker may take its time to answer.
    pub(super) async fn mind_log(paths: Weak<Self>, consumer: Consumer) {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look_at = Instant::now() + LOOK_EVERY;
        loop {
            tick.tick().await;
            let Some(paths) = paths.upgrade() else { return };
            if look_at <= Instant::now() {
                if paths.log.life.is_over().await {
                    paths.displaced();
                }
                look_at = Instant::now() + LOOK_EVERY;
            }
            if paths.out_of_range.swap(false, SeqCst)
                && let Err(error) = paths.repair(&consumer).await
            {
                tracing::warn!(%error, "the log's tail is not repaired yet, trying again");
                paths.displaced();
                sleep(REPAIR_PAUSE).await;
            }
        }
    }

    /// The log does not have what this node would read next: it has to look where to go on.
    pub(super) fn displaced(&self) {
        self.out_of_range.store(true, SeqCst);
    }

    /// Goes on where the log has something to read: behind what retention took, from the start of a log that became
    /// shorter, or in a topic that was created anew because the other one is gone. What is read twice is recognised. May be
    /// tried again from any point at which it failed.
    async fn repair(&self, consumer: &Consumer) -> Result<()> {
        let another = self.log.renew(consumer).await?;
        let read = self.step(|merge| merge.read_to());
        let resumes = self.log.resumes(read.clone(), another.is_some()).await?;
        if another.is_some() {
            tracing::error!(
                topic = self.log.topic,
                "the log's topic is gone; what it held is declared lost, and a new one is read"
            );
        }
        for (resume, read) in resumes.iter().zip(read) {
            if !resume.renumbered {
                if resume.offset <= read.next {
                    continue;
                }
                self.stats.gap_messages.add((resume.offset - read.next).unsigned_abs());
            }
            // Before it is read from there: what is read then counts from there.
            self.step(|merge| {
                let mut kept = self.kept.lock();
                kept.unsettle_all();
                kept.lost(resume.partition as usize, std::time::Instant::now());
                merge.log_moved(*resume);
            });
        }
        let offsets: Vec<_> = resumes.iter().map(|resume| (resume.partition, resume.offset)).collect();
        let (topic, reader) = (self.log.topic.clone(), consumer.clone());
        self.log.cluster.run(move |_| reader.read_anew_blocking(&topic, &offsets)).await?;
        if let Some(mark) = another {
            self.log.life.follow(mark);
        }
        Ok(())
    }
}

/// The live path's view of the meeting point.
pub(super) struct LivePath(pub(super) Arc<Paths>);

impl Wire for LivePath {
    fn encode(&self, message: &Envelope, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.log.fence(&message.room).to_be_bytes());
        envelope::encode(message, None, out);
    }

    fn read<'a>(&self, body: &'a [u8]) -> Result<View<'a>> {
        View::parse(body.get(FENCE_BYTES..).unwrap_or_default())
    }

    fn inbound(&self) -> Box<dyn Inbound> {
        Box::new(LiveEnd { paths: Arc::clone(&self.0) })
    }

    fn before_resume(&self) -> BoxFuture<'static, ()> {
        let paths = Arc::clone(&self.0);
        Box::pin(async move { paths.log.settle(paths.settle_limit).await })
    }
}

struct LiveEnd {
    paths: Arc<Paths>,
}

impl Inbound for LiveEnd {
    fn message(&mut self, room: &RoomId, position: Position, body: &[u8], _wanted: bool) {
        let parsed = body.split_first_chunk::<FENCE_BYTES>().map(|(fence, rest)| (fence, View::parse(rest)));
        match parsed {
            Some((fence, Ok(view))) if view.room == room.as_str() => {
                let fence = i64::from_be_bytes(*fence);
                self.paths.merge.lock().live(room, position, fence, &view, Instant::now());
            }
            _ => self.paths.stats.corrupt.add(1),
        }
    }

    fn missing(&mut self, room: &RoomId, epoch: u64, from: u64, to: u64) {
        self.paths.merge.lock().missing(room, epoch, from, to, Instant::now());
    }

    fn top(&mut self, room: &RoomId, position: Position) {
        self.paths.merge.lock().top(room, position, Instant::now());
    }

    fn interrupted(&mut self) {
        self.paths.kept.lock().unsettle_all();
        self.paths.merge.lock().interrupted(Instant::now());
    }

    fn reconnected(&mut self) {
        self.paths.merge.lock().reconnected();
    }

    fn flush(&mut self) {
        self.paths.step(|_| ());
    }
}

/// The tail of the log.
pub(super) struct Tail(pub(super) Arc<Paths>);

impl RecordSink for Tail {
    fn record(&mut self, record: &Record<'_>) {
        self.0.stats.envelopes_received.add(1);
        let place = Place {
            partition: record.partition as usize,
            offset: record.offset,
            time_ms: record.timestamp_ms,
        };
        match View::parse(record.payload) {
            Ok(view) => {
                if view.position.is_none() {
                    self.0.kept.lock().unsettle(place.partition);
                }
                self.0.merge.lock().log(place, &view, Instant::now());
            }
            Err(error) => {
                self.0.stats.corrupt.add(1);
                tracing::warn!(%error, record.partition, record.offset, "skipping a record");
            }
        }
    }

    fn batch_end(&mut self) {
        self.0.step(|merge| merge.look(Instant::now()));
        self.0.progress.send_replace(());
    }

    fn link(&mut self, change: Link) {
        match change {
            Link::Broken => {
                self.0.stats.links_down.add(1);
                self.0.log_link(true);
            }
            Link::Restored => {
                self.0.stats.links_down.add(-1);
                self.0.stats.reconnects.add(1);
                self.0.log_link(false);
            }
            Link::OutOfRange => {
                self.0.kept.lock().unsettle_all();
                self.0.displaced();
            }
        }
    }

    fn lag(&mut self, messages: i64) {
        self.0.stats.lag_messages.set(messages);
    }

    fn silent(&mut self, silent: bool) {
        self.0.silent.send_replace(silent);
    }
}
