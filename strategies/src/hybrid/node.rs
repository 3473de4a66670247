//! The backplane of one node: starting it, and its calls.

use std::fmt;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::history::RoomHistory;
use super::kept::Kept;
use super::log::Log;
use super::merge::Merge;
use super::paths::{LivePath, Paths, Tail};
use super::settings::{First, Settings};
use super::under_way::{Permit, UnderWay};
use super::{GUARANTEES, Outcome};
use crate::backplane::{Backplane, BoxFuture, Envelope, History, Position, RoomId};
use crate::clients::kafka::fault::timed_out;
use crate::clients::kafka::{Consumer, Written};
use crate::clients::redis::Address;
use crate::envelope;
use crate::error::{ErrorKind, Result};
use crate::guarantees::Guarantees;
use crate::redis_pubsub::live::{Live, Setup, closed};
use crate::redis_pubsub::work::{Operation, Publish};
use crate::stats::Stats;
use crate::strategy::Start;

/// A message to be published under a position that was reserved for it.
type Announcement = (Envelope, Position);

/// A connected node.
struct Node {
    settings: Settings,
    live: Arc<Live>,
    paths: Arc<Paths>,
    consumer: Consumer,
    history: RoomHistory,
    under_way: Arc<UnderWay>,
    /// Where durable-first messages go once the log has them. No longer than the publishes that may be under way.
    announce: mpsc::UnboundedSender<Announcement>,
    /// What looks after the merge, and after the log.
    keepers: [JoinHandle<()>; 2],
    stats: Arc<Stats>,
    closed: AtomicBool,
}

/// Brings a node up: the log first, so that its tail covers the live path from the start.
pub(super) async fn connect(start: Start, settings: Settings) -> Result<Arc<dyn Backplane>> {
    let address = Address::parse(start.redis()?)?;
    let stats = Arc::new(Stats::default());
    let log = Arc::new(Log::connect(&start, &settings, Arc::clone(&stats)).await?);
    let ends = log.ends().await?;
    let mut tail = vec![0; ends.len()];
    for (partition, end) in &ends {
        if let Some(next) = tail.get_mut(*partition as usize) {
            *next = *end;
        }
    }
    let kept = Kept::new(settings.rings(), tail.len(), std::time::Instant::now());
    let reserved = settings.first == First::Durable;
    let merge =
        Merge::new(tail, settings.heal_timeout(), reserved, settings.dedup_messages, Arc::clone(&stats));
    // An append has its outcome after the publish timeout; a little more, and nothing is left to settle.
    let settle_limit = settings.publish_timeout() + settings.publish_timeout() / 10;
    let paths = Paths::new(merge, kept, start.entrance, Arc::clone(&log), Arc::clone(&stats), settle_limit);
    let paths = Arc::new(paths);
    let consumer = Consumer::start(&log.cluster, &settings.consumer(), Tail(Arc::clone(&paths)))?;
    let (reading, topic) = (consumer.clone(), log.topic.clone());
    log.cluster.run(move |_| reading.assign_blocking(&topic, &ends)).await?;
    let live = Live::start(Setup {
        address,
        namespace: format!("{}.hybrid", start.namespace),
        node: start.node,
        settings: settings.live(),
        fail_fast: true,
        connect_retry: start.connect_retry,
        wire: Arc::new(LivePath(Arc::clone(&paths))),
        stats: Arc::clone(&stats),
    });
    let live = match live.await {
        Ok(live) => Arc::new(live),
        Err(error) => {
            consumer.stop().await;
            return Err(error);
        }
    };
    let keepers = [
        tokio::spawn(Paths::keep(Arc::downgrade(&paths))),
        tokio::spawn(Paths::mind_log(Arc::downgrade(&paths), consumer.clone())),
    ];
    let (announce, announcements) = mpsc::unbounded_channel();
    tokio::spawn(announce_all(Arc::downgrade(&live), announcements));
    let history = RoomHistory::new(Arc::clone(&paths), Arc::clone(&live), &settings);
    let (under_way, closed) = (UnderWay::new(&settings), AtomicBool::new(false));
    Ok(Arc::new(Node {
        settings,
        live,
        paths,
        consumer,
        history,
        under_way,
        announce,
        keepers,
        stats,
        closed,
    }))
}

impl Node {
    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(SeqCst) { Err(closed(operation)) } else { Ok(()) }
    }

    /// Queues a publish for the live path; its outcome there decides how it is appended to the log.
    fn start_publish(&self, envelope: Envelope) -> Result<oneshot::Receiver<Result<Position>>> {
        self.check_open("publish")?;
        envelope::check(&envelope)?;
        let permit = self.under_way.admit(&envelope)?;
        let (sender, outcome) = oneshot::channel();
        let first = self.settings.first;
        let (log, announce) = (Arc::clone(&self.paths.log), self.announce.clone());
        self.live.publish(Publish {
            envelope,
            operation: if first == First::Fast { Operation::Publish } else { Operation::Reserve },
            until: Instant::now() + self.settings.publish_timeout(),
            done: Box::new(move |envelope, placed| match placed {
                Err(error) if error.kind() == ErrorKind::Closed => drop(sender.send(Err(error))),
                Err(error) => {
                    tracing::debug!(%error, "the live path does not take a message; the log does");
                    append(&log, envelope, None, None, permit, sender);
                }
                Ok(at) => {
                    let announce = (first == First::Durable).then_some(announce);
                    append(&log, envelope, Some(at), announce, permit, sender);
                }
            }),
        })?;
        self.stats.publishes.add(1);
        Ok(outcome)
    }
}

/// Appends a message to the log and tells its publisher; hands it over to be announced then, if it was not sent live.
fn append(
    log: &Log,
    envelope: Envelope,
    at: Option<Position>,
    announce: Option<mpsc::UnboundedSender<Announcement>>,
    permit: Permit,
    outcome: Outcome,
) {
    let message = announce.as_ref().map(|_| envelope.clone());
    let appended = move |written: Result<Written>| {
        let result = written.map(|_| at.unwrap_or_default());
        if let (Ok(at), Some(announce), Some(message)) = (&result, announce, message) {
            // Without a live path the log has it all the same.
            let _ = announce.send((message, *at));
        }
        drop(permit);
        let _ = outcome.send(result);
    };
    log.append(&envelope, at, Box::new(appended));
}

/// Publishes what the log has under the positions that were reserved for it, in the order of the acknowledgements.
async fn announce_all(live: Weak<Live>, mut announcements: mpsc::UnboundedReceiver<Announcement>) {
    while let Some((envelope, at)) = announcements.recv().await {
        let Some(live) = live.upgrade() else { return };
        // If the live path is gone or full, the log has it all the same.
        let _ = live.publish(Publish {
            envelope,
            operation: Operation::Announce(at),
            until: Instant::now(),
            done: Box::new(|_, _| ()),
        });
    }
}

impl Backplane for Node {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let partition = self.paths.log.partition_of(&envelope.room);
        let outcome = match self.start_publish(envelope) {
            Ok(outcome) => outcome,
            Err(error) => return Box::pin(ready(Err(error))),
        };
        let (paths, reader) = (Arc::clone(&self.paths), self.consumer.clone());
        Box::pin(async move {
            tokio::select! {
                biased;
                outcome = outcome => outcome.unwrap_or_else(|_| Err(closed("publish"))),
                // The message goes its way all the same; only its publisher waits no longer.
                () = paths.silent(&reader, partition) => Err(timed_out(
                    "publish",
                    "the log's broker does not answer; the message may have been delivered, and may yet be kept",
                )),
            }
        })
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        if let Err(error) = self.check_open("join") {
            return Box::pin(ready(Err(error)));
        }
        let partition = self.paths.log.partition_of(room);
        self.paths.join(room, partition);
        let joined = self.live.join(room);
        let (paths, live, room) = (Arc::clone(&self.paths), Arc::clone(&self.live), room.clone());
        Box::pin(async move {
            let error = match joined.await {
                Ok(top) => return Ok(top),
                Err(error) => error,
            };
            let topic = paths.log.topic.clone();
            let ends = paths.log.cluster.run(move |cluster| cluster.ends_blocking(&topic, &[partition]));
            match (error.is_temporary(), ends.await) {
                (true, Ok(ends)) if !ends.is_empty() => {
                    let end = ends[0].1;
                    paths.step(|merge| merge.join_by_log(&room, end));
                    Ok(Position::default())
                }
                _ => {
                    paths.leave(&room);
                    let _ = live.leave(&room);
                    Err(error)
                }
            }
        })
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        let left = self.check_open("leave").and_then(|()| self.live.leave(room));
        self.paths.leave(room);
        Box::pin(ready(left))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(&self.history)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        if self.closed.swap(true, SeqCst) {
            return Box::pin(ready(Ok(())));
        }
        self.history.refuse();
        self.keepers.iter().for_each(JoinHandle::abort);
        let until = Instant::now() + self.settings.shutdown_timeout();
        let (live, log, consumer, history) =
            (self.live.shutdown(), Arc::clone(&self.paths.log), self.consumer.clone(), self.history.clone());
        Box::pin(async move {
            // The live path first: what it still holds is appended to the log when it lets go.
            let flushed = live.await;
            let left =
                until.saturating_duration_since(Instant::now()).max(std::time::Duration::from_millis(100));
            let appended = log.close(left).await;
            let _ = timeout(left, async { tokio::join!(consumer.stop(), history.close()) }).await;
            flushed.and(appended)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keepers.iter().for_each(JoinHandle::abort);
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hybrid").field("settings", &self.settings).finish_non_exhaustive()
    }
}
