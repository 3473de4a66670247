//! Plan 1 of Kafka: every message into every live partition, each node consumes exactly one.
//!
//! # Who owns which partition
//! Neither consumer group protocol moves a partition fast enough for a chat: both need seconds to notice a crash, and
//! pause the survivors. Here each node holds a lease of its own instead, kept in a *control topic* of one partition
//! (`<namespace>.members`) whose append order decides. `membership` computes the view (members and their partitions)
//! from that log, purely, so all nodes agree; `keeper` keeps this node in it; `writer` writes to the
//! partitions of the view; `reader` reads this node's own. Nobody ever pauses because somebody else comes, leaves or
//! dies: a node reads its own partition and no other, and writes to a dead node's partition succeed until it is expelled.
//!
//! # No message misses a member
//! *Claim:* if a node's `connect` (or a later `join` of a room) has resolved, every message whose `publish` is called
//! afterwards on any node is written into a partition that this node reads, at an offset that it has yet to read.
//!
//! Let J be the node, `j` the offset of its `Join`, and P the publishing node.
//! 1. A member's sign of life (`Beat`) carries `through`: it has *first* let its producer learn of all partitions
//!    in its view of the log before `through` and put them into its write set, and *then* sent the beat. Publishing and
//!    changing the write set exclude each other. So once P sent a beat with `through > j`, its publishes go to J's
//!    partition while J is a member.
//! 2. J is *effective* when, by the log, every member that had joined before `j` has sent such a beat, or has left or been
//!    expelled; and when it has looked up where its own partition ends, and reads from there. Both precede `connect`'s end.
//! 3. If P joined after `j`, it had applied J's `Join` before it saw its own, and it only publishes by a view that
//!    includes its own. If P joined before `j` and is a member, 2 holds for it.
//! 4. If P was expelled, it may not know yet (a stopped process). But it only writes while it *trusts its lease*: while
//!    less time has passed since it sent a beat that it read back than `Settings::trust`, which is less than any time in
//!    which log time could have reached its lease. So it was a member when `publish` was called, and 3 holds. A message
//!    that comes later is parked until the lease is confirmed, then written by the view of that moment.
//! 5. The same trust guards `join` of a room: J resolves it only while J itself is certainly a member.
//!
//! `membership`'s tests check the claim on simulated clusters that stop, lag, leave and come back in any order.
//!
//! # When a node is expelled
//! A node that was stopped for longer than its lease sees its own expulsion in the log, stops writing and joins anew under
//! a new incarnation. What was published meanwhile was not written for it, but every other partition has it: it reads that in
//! the partition of a member that was there all the time (`reading`), and reports `Event::Reconnected`. Only where there is
//! no such member, or no deduplication, is something lost; then it counts in `stats.gaps` too. A second process under the same
//! name supersedes the first, and a full cluster admits nobody: then this node ends for good, and `failed` says why.
//!
//! # What it does not promise
//! Partitions order independently: two nodes may show one room's publishers interleaved differently.
//!
//! # Positions and history
//! A position names a copy (`copies`: the partition that a node read, and whose it was) and a place in it. Any node can read
//! any copy, so a client can go on from its position on any node (`history`, `cross`).

mod control;
mod copies;
mod cross;
mod history;
mod keeper;
mod logs;
mod membership;
mod own;
mod pages;
mod places;
mod reader;
mod reading;
mod record;
mod rooms;
mod settings;
mod status;
mod topics;
mod writer;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use self::control::Appender;
use self::history::RoomHistory;
use self::keeper::{Keeper, Parts};
use self::logs::Logs;
use self::places::Places;
use self::reader::{Reader, Standstill};
use self::reading::Reading;
use self::rooms::Rooms;
pub use self::settings::Settings;
use self::status::{SHUT_DOWN, Status};
use self::topics::Topics;
use self::writer::{Limits, Writer};
use crate::backplane::{Backplane, BoxFuture, Envelope, History, Position, RoomId};
use crate::clients::kafka::{Cluster, Connection, Consumer, ConsumerSettings, Incarnations, Producer, fault};
use crate::dedup::DedupWindow;
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::Guarantees;
use crate::kafka_history::log::Log;
use crate::stats::Stats;
use crate::strategy::{Needs, Start, Strategy, Variant};

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "kafka-broadcast",
    summary: "Kafka, every message into every live partition; each node consumes exactly one",
    needs: Needs { kafka: true, redis: false },
    counter_example: false,
    variants: &[Variant { name: "hold-2", settings: "hold = 2" }],
    settings: |table| Settings::parse(table)?.to_table(),
    guarantees: |table| Ok(Settings::parse(table)?.guarantees()),
    connect: |start| {
        Box::pin(async move {
            let backplane: Arc<dyn Backplane> = Arc::new(KafkaBroadcast::connect(start).await?);
            Ok(backplane)
        })
    },
};

/// A node's end of the broadcast backplane. Dropped without [`shutdown`](Backplane::shutdown) it leaves by itself, but does
/// not wait for what was published.
pub struct KafkaBroadcast {
    guarantees: Guarantees,
    shutdown_deadline: Duration,
    join_timeout: Duration,
    rooms: Arc<Rooms>,
    writer: Arc<Writer>,
    stats: Arc<Stats>,
    places: Arc<Places>,
    /// `None` where messages have no positions.
    history: Option<RoomHistory>,
    log: Arc<Log>,
    status: watch::Receiver<Status>,
    stop: Mutex<Option<oneshot::Sender<()>>>,
}

impl fmt::Debug for KafkaBroadcast {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaBroadcast")
            .field("writer", &self.writer)
            .field("status", &*self.status.borrow())
            .finish_non_exhaustive()
    }
}

impl KafkaBroadcast {
    /// Starts a node; resolves when every message published from then on reaches it.
    ///
    /// # Errors
    /// `Config` for settings or address, `Unreachable` for a broker that does not answer, `Timeout` when the other
    /// members do not acknowledge, `Broker` when the cluster refuses.
    pub async fn connect(start: Start) -> Result<Self> {
        let settings = Settings::parse(&start.settings)?;
        let connection = Connection::new(&start, settings.client.clone())?;
        let cluster = Cluster::connect(connection, start.connect_retry).await?;
        let topics = Topics::of(&start.namespace, &settings);
        topics.ensure(&cluster).await?;

        let stats = Arc::new(Stats::default());
        let rooms = Arc::new(Rooms::default());
        let (standstill, places) = (Arc::new(Standstill::default()), Arc::new(Places::default()));
        let logs = Logs::look_at(&cluster, &topics.data, &settings).await?;
        let reader = Reader {
            entrance: Arc::clone(&start.entrance),
            rooms: Arc::clone(&rooms),
            stats: Arc::clone(&stats),
            seen: settings.deduplicate.then(|| DedupWindow::new(settings.dedup_window)),
            standstill: Arc::clone(&standstill),
            places: Arc::clone(&places),
            copies: Arc::clone(&logs.copies),
            positions: settings.has_positions(),
            now: None,
            batch: Vec::new(),
            reached: Vec::new(),
        };
        let reader = Consumer::start(&cluster, &ConsumerSettings::default(), reader)?;
        let writer = Arc::new(writer_to(&cluster, &topics.data, &settings, &stats)?);

        let (status_sender, status) = watch::channel(Status::Joining { awaits: 0 });
        let (stop_sender, stop) = oneshot::channel();
        let read = (Arc::clone(&places), standstill);
        let (history, log) = (logs.history(&settings, &read, &status), Arc::clone(&logs.log));
        let parts = Parts {
            node: start.node,
            appender: Appender::new(&cluster, &settings, &topics.control)?,
            topics: topics.clone(),
            control_log: Arc::new(Incarnations::new(&cluster, &topics.control)?),
            cluster: cluster.clone(),
            writer: Arc::clone(&writer),
            reading: Reading::new(cluster, topics, reader, read, logs.copies, logs.incarnations),
            entrance: start.entrance,
            stats: Arc::clone(&stats),
            settings: settings.clone(),
        };
        // From here on dropping the stop sender, be it because `connect` is cancelled, makes this node leave.
        let keeper = tokio::spawn(Keeper::start(parts, status_sender).await?.run(stop));
        let shutdown_deadline = Duration::from_millis(settings.shutdown_ms);
        let arrived = async {
            effective(status.clone(), settings.join_timeout(), "connect").await?;
            see_for_itself(&writer, &places, settings.join_timeout()).await
        };
        if let Err(error) = arrived.await {
            drop(stop_sender);
            // Told once it has left, so that a next attempt does not find this one; the error counts, not a late leave.
            let _ = tokio::time::timeout(shutdown_deadline, keeper).await;
            return Err(error);
        }
        Ok(Self {
            guarantees: settings.guarantees(),
            shutdown_deadline,
            join_timeout: settings.join_timeout(),
            rooms,
            writer,
            stats,
            places,
            history,
            log,
            status,
            stop: Mutex::new(Some(stop_sender)),
        })
    }
}

fn writer_to(cluster: &Cluster, topic: &str, settings: &Settings, stats: &Arc<Stats>) -> Result<Writer> {
    let producer = Producer::new(cluster.connection(), &settings.data_producer(), None)?;
    let limits = Limits { writes: settings.in_flight_writes_max, bytes: settings.in_flight_bytes_max };
    Ok(Writer::new(topic.to_owned(), producer, Arc::clone(stats), settings.publish_timeout(), limits))
}

/// A node that connects can publish and hears what is published: it wrote into its own partition and read it. This also
/// spares the first message what a client does once.
async fn see_for_itself(writer: &Writer, places: &Places, timeout: Duration) -> Result<()> {
    let written = writer.probe(&places.partitions());
    let seen = async {
        written.await.unwrap_or_else(|_| Err(fault::closed("connect")))?;
        places.all_moved().await;
        Ok(())
    };
    let late = |_| Err(fault::timed_out("connect", "this node could not read its own partition in time"));
    tokio::time::timeout(timeout, seen).await.unwrap_or_else(late)
}

/// Resolves when this node is certainly a member whom every message reaches.
async fn effective(
    mut status: watch::Receiver<Status>,
    timeout: Duration,
    operation: &'static str,
) -> Result<()> {
    let settled = |status: &Status| match status {
        Status::Joining { .. } => false,
        Status::Effective { until } => Instant::now() < *until,
        Status::Ended { .. } => true,
    };
    let waited = tokio::time::timeout(timeout, status.wait_for(settled)).await;
    let reached = waited.map(|status| status.map_or(Status::Ended { reason: SHUT_DOWN }, |status| *status));
    let last = reached.unwrap_or_else(|_| *status.borrow());
    match last {
        Status::Effective { until } if Instant::now() < until => Ok(()),
        Status::Ended { reason } => Err(Error::new(ErrorKind::Closed, operation, reason)),
        Status::Joining { awaits } if awaits > 0 => Err(fault::timed_out(
            operation,
            format!("{awaits} members did not acknowledge this node in time"),
        )),
        _ => Err(fault::timed_out(operation, "this node could not confirm its membership in time")),
    }
}

impl Backplane for KafkaBroadcast {
    fn guarantees(&self) -> Guarantees {
        self.guarantees
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let outcome = self.writer.publish(&envelope);
        Box::pin(async move { outcome?.await.unwrap_or_else(|_| Err(fault::closed("publish"))) })
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        self.rooms.add(room.clone());
        // Whatever lies behind is delivered from here on.
        let current = self.places.current().filter(|_| self.history.is_some());
        let position = current.map_or_else(Position::default, |(_, position)| position);
        let (rooms, room) = (Arc::clone(&self.rooms), room.clone());
        let effective = effective(self.status.clone(), self.join_timeout, "join");
        Box::pin(async move {
            let outcome = effective.await;
            if outcome.is_err() {
                rooms.remove(&room);
            }
            outcome.map(|()| position)
        })
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        self.rooms.remove(room);
        Box::pin(std::future::ready(Ok(())))
    }

    fn history(&self) -> Option<&dyn History> {
        self.history.as_ref().map(|history| history as &dyn History)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn failed(&self) -> Option<Error> {
        match *self.status.borrow() {
            Status::Ended { reason } if reason != SHUT_DOWN => {
                Some(Error::new(ErrorKind::Closed, "membership", reason))
            }
            _ => None,
        }
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        let Some(stop) = self.stop.lock().take() else { return Box::pin(std::future::ready(Ok(()))) };
        self.writer.close(SHUT_DOWN);
        let (writer, mut status, deadline) =
            (Arc::clone(&self.writer), self.status.clone(), self.shutdown_deadline);
        let log = Arc::clone(&self.log);
        Box::pin(async move {
            let ends = Instant::now() + deadline;
            // First everything that was published, then the farewell.
            let flushed = writer.flush(deadline / 2).await;
            let _ = stop.send(());
            let ended = async {
                log.close().await;
                status.wait_for(|status| matches!(status, Status::Ended { .. })).await.map(drop)
            };
            let left = ends.saturating_duration_since(Instant::now());
            match tokio::time::timeout(left, ended).await {
                Ok(_) => flushed,
                Err(_) => Err(fault::timed_out("shutdown", "this node could not leave in time")),
            }
        })
    }
}
