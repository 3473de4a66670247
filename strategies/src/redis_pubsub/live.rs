//! The live path through Redis, shared by every strategy that has one: lanes of a publisher and a subscriber each.
//!
//! A *lane* serves a set of slots with one task that publishes and one that subscribes, each on a connection of its own:
//! a subscriber that falls behind never holds up a publish. There is one lane, or one per master of a cluster. A lane
//! keeps its queue when a failover changes its master's address, so order survives the failover. Moving slots between
//! masters hands rooms and waiting publishes from lane to lane; publishes of one publisher to one room that are under
//! way at that very moment may be reordered, and are the only ones that can be.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::publisher::{Publish, Publisher, Work};
use super::sequence::{ANNOUNCE_SCRIPT, Epochs, PUBLISH_SCRIPT, TOP_SCRIPT};
use super::settings::Settings;
use super::subscriber::{Request, Subscriber};
use crate::backplane::{BoxFuture, Envelope, Position, RoomId};
use crate::clients::redis::connection::Opening;
use crate::clients::redis::topology::{SLOTS, Shard, discover, is_master, slot};
use crate::clients::redis::{Address, Connection, Kind, Value};
use crate::error::{Error, ErrorKind, Result};
use crate::stats::Stats;

/// What a strategy makes of the live path.
pub(crate) trait Wire: Send + Sync + 'static {
    /// Appends what is published for `envelope`.
    fn encode(&self, envelope: &Envelope, out: &mut Vec<u8>);
    /// Takes what arrives on one lane.
    fn inbound(&self) -> Box<dyn Inbound>;
    /// Awaited after an outage before publishing resumes, while publishes wait in the queue.
    fn before_resume(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Takes what arrives on a lane, in order.
pub(crate) trait Inbound: Send {
    /// A message, as [`Wire::encode`] wrote it. `wanted` says whether the room has local members.
    fn message(&mut self, room: &RoomId, position: Position, body: &[u8], wanted: bool);
    /// Offsets that did not arrive and will not.
    fn missing(&mut self, room: &RoomId, epoch: u64, from: u64, to: u64);
    /// The room stands here, and messages follow from here on. Told when a subscription is effective.
    fn top(&mut self, _room: &RoomId, _position: Position) {}
    /// The link broke.
    fn interrupted(&mut self) {}
    /// The link broke and is back; what was missed has been told.
    fn reconnected(&mut self);
    /// Nothing more is at hand: pass on what was collected.
    fn flush(&mut self);
}

/// What starts a live path.
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) namespace: String,
    pub(crate) node: String,
    pub(crate) settings: Settings,
    /// Fail publishes at once while there is no link, in order, rather than keep them for it; likewise joins.
    pub(crate) fail_fast: bool,
    pub(crate) connect_retry: Option<Duration>,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) stats: Arc<Stats>,
}

/// What all lanes share.
pub(crate) struct Shared {
    pub(crate) address: Address,
    pub(crate) settings: Settings,
    pub(crate) fail_fast: bool,
    pub(crate) wire: Arc<dyn Wire>,
    pub(crate) stats: Arc<Stats>,
    pub(crate) epochs: Epochs,
    pub(crate) closing: watch::Sender<bool>,
    /// Publishes without an outcome, and their bytes.
    pub(crate) waiting: AtomicUsize,
    pub(crate) waiting_bytes: AtomicUsize,
    prefix: String,
    opening: Opening,
    table: RwLock<Table>,
    refreshed: tokio::sync::Mutex<Option<Instant>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    closed: AtomicBool,
}

/// Which lane serves which slot.
struct Table {
    lanes: Vec<Arc<Lane>>,
    by_slot: Vec<u16>,
}

/// The handles of a lane.
pub(crate) struct Lane {
    host: Mutex<String>,
    pub(crate) work: mpsc::UnboundedSender<Work>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    /// Whether the subscriber's link stands and everything is subscribed.
    pub(crate) listening: watch::Sender<bool>,
}

/// The sending ends of a lane's tasks, before they start.
struct Ends {
    work: mpsc::UnboundedReceiver<Work>,
    requests: mpsc::UnboundedReceiver<Request>,
}

/// A connection ready for a lane, and the scripts loaded on its server.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// Digest of the script that this use is about: [`PUBLISH_SCRIPT`] or [`TOP_SCRIPT`].
    pub(crate) script: Vec<u8>,
    /// Digest of [`ANNOUNCE_SCRIPT`].
    pub(crate) announce: Vec<u8>,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Publish,
    Subscribe,
}

/// A running live path.
pub(crate) struct Live(Arc<Shared>);

impl Live {
    /// Connects every lane, both ways.
    pub(crate) async fn start(setup: Setup) -> Result<Self> {
        let opening = Opening {
            login: setup.address.login.clone(),
            database: setup.address.database,
            name: format!("manifold-{}", setup.node),
            timeout: setup.settings.connect_timeout(),
        };
        let until = setup.connect_retry.map(|limit| Instant::now() + limit);
        let shared = Arc::new(Shared {
            prefix: format!("{}:", setup.namespace),
            address: setup.address,
            settings: setup.settings,
            fail_fast: setup.fail_fast,
            wire: setup.wire,
            stats: setup.stats,
            epochs: Epochs::new(),
            closing: watch::Sender::new(false),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            opening,
            table: RwLock::new(Table { lanes: Vec::new(), by_slot: vec![0; usize::from(SLOTS)] }),
            refreshed: tokio::sync::Mutex::new(None),
            tasks: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        loop {
            match shared.connect_all().await {
                Ok(sessions) => {
                    for (shard, publishing, subscribed) in sessions {
                        shared.add_lane(&shard, Some((publishing, subscribed)));
                    }
                    return Ok(Self(shared));
                }
                Err(error) if error.is_temporary() && until.is_some_and(|until| Instant::now() < until) => {
                    tracing::info!(%error, address = %shared.address, "Redis is not there yet, trying again");
                    sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues a publish. Its place is fixed when this returns; `done` is called once, in order of the lane.
    pub(crate) fn publish(&self, publish: Publish) -> Result<()> {
        self.check_open("publish")?;
        let shared = &self.0;
        let bytes = publish.bytes();
        let messages = shared.waiting.fetch_add(1, Relaxed);
        let total = shared.waiting_bytes.fetch_add(bytes, Relaxed) + bytes;
        if messages >= shared.settings.queue_messages_max || total > shared.settings.queue_bytes_max {
            shared.finished(bytes);
            return Err(Error::new(
                ErrorKind::Overloaded,
                "publish",
                format!("{messages} publishes ({total} bytes) already wait for Redis"),
            ));
        }
        let lane = shared.lane_of(&publish.envelope.room);
        lane.work.send(Work::Publish(publish)).map_err(|_| {
            shared.finished(bytes);
            closed("publish")
        })
    }

    /// Subscribes a room. Resolves with its top once every later message will arrive.
    pub(crate) fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        let (waiter, joined) = oneshot::channel();
        let lane = self.0.lane_of(room);
        let sent = self.check_open("join").and_then(|()| {
            let request = Request::Join { room: room.clone(), waiter, until: self.0.deadline() };
            lane.requests.send(request).map_err(|_| closed("join"))
        });
        Box::pin(async move {
            sent?;
            joined.await.unwrap_or_else(|_| Err(closed("join")))
        })
    }

    /// The room has no local members any more.
    pub(crate) fn leave(&self, room: &RoomId) -> Result<()> {
        self.check_open("leave")?;
        let lane = self.0.lane_of(room);
        lane.requests.send(Request::Leave { room: room.clone() }).map_err(|_| closed("leave"))
    }

    /// Waits for publishes to get their outcome, then closes every connection, within the settings' bound.
    pub(crate) fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            if shared.closed.swap(true, SeqCst) {
                return Ok(());
            }
            let limit = shared.settings.shutdown_timeout();
            let lanes = shared.table.read().lanes.clone();
            let flushed = timeout(limit, async {
                for lane in &lanes {
                    let (flushed, done) = oneshot::channel();
                    if lane.work.send(Work::Flush(flushed)).is_ok() {
                        let _ = done.await;
                    }
                }
            });
            let in_time = flushed.await.is_ok();
            shared.closing.send_replace(true);
            let tasks = std::mem::take(&mut *shared.tasks.lock());
            for mut task in tasks {
                // The tasks look at `closing` whenever they wait, so this bound is for a bug, not for Redis.
                if timeout(Duration::from_secs(1), &mut task).await.is_err() {
                    task.abort();
                }
            }
            if in_time {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Timeout, "shutdown", "some publishes had no outcome in time"))
        })
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.0.closed.load(SeqCst) { Err(closed(operation)) } else { Ok(()) }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.closing.send_replace(true);
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").field("address", &self.0.address).finish_non_exhaustive()
    }
}

impl Shared {
    /// The name of a room's key and channel.
    pub(crate) fn name(&self, room: &RoomId) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.prefix.len() + room.as_str().len());
        name.extend_from_slice(self.prefix.as_bytes());
        name.extend_from_slice(room.as_str().as_bytes());
        name
    }

    /// The room of a channel.
    pub(crate) fn room_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(channel.strip_prefix(self.prefix.as_bytes())?).ok()
    }

    /// Whether messages go through sharded channels.
    pub(crate) fn sharded(&self) -> bool {
        self.address.kind == Kind::Cluster
    }

    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.settings.publish_timeout()
    }

    /// A publish of so many bytes has its outcome.
    pub(crate) fn finished(&self, bytes: usize) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waiting_bytes.fetch_sub(bytes, Relaxed);
    }

    /// The lane that serves `room` now.
    pub(crate) fn lane_of(&self, room: &RoomId) -> Arc<Lane> {
        let table = self.table.read();
        let index = match self.sharded() {
            true => table.by_slot[usize::from(slot(&self.name(room)))],
            false => 0,
        };
        Arc::clone(&table.lanes[usize::from(index)])
    }

    /// Opens a connection for `lane` to whoever is its master now.
    pub(crate) async fn connect(self: &Arc<Self>, lane: &Lane, purpose: Use) -> Result<Session> {
        match self.address.kind {
            Kind::Plain => {}
            Kind::Sentinel { .. } => {
                let shards = discover(&self.address, &[], &self.opening).await?;
                shards[0].host.clone_into(&mut lane.host.lock());
            }
            Kind::Cluster => self.refresh().await?,
        }
        let host = lane.host.lock().clone();
        self.open(&host, purpose).await
    }

    async fn open(&self, host: &str, purpose: Use) -> Result<Session> {
        let mut connection = Connection::open(host, &self.opening).await?;
        if self.address.kind != Kind::Plain && !is_master(&mut connection, &self.opening).await? {
            let problem = format!("{host} is no master, perhaps not yet");
            return Err(Error::new(ErrorKind::Unreachable, "connect", problem));
        }
        let script = match purpose {
            Use::Publish => PUBLISH_SCRIPT,
            Use::Subscribe => TOP_SCRIPT,
        };
        let script = self.load(&mut connection, script).await?;
        let announce = self.load(&mut connection, ANNOUNCE_SCRIPT).await?;
        Ok(Session { connection, script, announce })
    }

    async fn load(&self, connection: &mut Connection, script: &str) -> Result<Vec<u8>> {
        let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.as_bytes()];
        match connection.call(&load, self.opening.timeout).await? {
            Value::Text(digest) => Ok(digest.to_vec()),
            _ => Err(Error::new(ErrorKind::Corrupt, "connect", "SCRIPT LOAD returned no digest")),
        }
    }

    async fn connect_all(&self) -> Result<Vec<(Shard, Session, Session)>> {
        let mut sessions = Vec::new();
        for shard in discover(&self.address, &[], &self.opening).await? {
            let publishing = self.open(&shard.host, Use::Publish).await?;
            let subscribed = self.open(&shard.host, Use::Subscribe).await?;
            sessions.push((shard, publishing, subscribed));
        }
        Ok(sessions)
    }

    /// Asks the cluster again who serves what, at most once per reconnect delay for all lanes together.
    async fn refresh(self: &Arc<Self>) -> Result<()> {
        let mut refreshed = self.refreshed.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < self.settings.reconnect_delay()) {
            return Ok(());
        }
        let known: Vec<String> =
            self.table.read().lanes.iter().map(|lane| lane.host.lock().clone()).collect();
        let shards = discover(&self.address, &known, &self.opening).await?;
        for shard in shards {
            match self.matching_lane(&shard) {
                Some(lane) => self.assign(lane, &shard),
                None => self.add_lane(&shard, None),
            }
        }
        *refreshed = Some(Instant::now());
        Ok(())
    }

    /// The lane that went to this master before, else the one that served most of its slots and whose own master is
    /// gone from them: a failover.
    fn matching_lane(&self, shard: &Shard) -> Option<u16> {
        let table = self.table.read();
        let at_host = table.lanes.iter().position(|lane| *lane.host.lock() == shard.host);
        let index = at_host.or_else(|| {
            let mut served = vec![0_u32; table.lanes.len()];
            for slot in slots(shard) {
                served[usize::from(table.by_slot[slot])] += 1;
            }
            let all = slots(shard).count() as u32;
            served.iter().position(|count| *count == all)
        })?;
        u16::try_from(index).ok()
    }

    fn assign(&self, lane: u16, shard: &Shard) {
        let mut table = self.table.write();
        shard.host.clone_into(&mut table.lanes[usize::from(lane)].host.lock());
        for slot in slots(shard) {
            table.by_slot[slot] = lane;
        }
    }

    /// Starts the tasks of a lane for `shard`.
    fn add_lane(self: &Arc<Self>, shard: &Shard, sessions: Option<(Session, Session)>) {
        let (lane, ends) = Lane::new(&shard.host, sessions.is_some());
        let lane = Arc::new(lane);
        let index = {
            let mut table = self.table.write();
            table.lanes.push(Arc::clone(&lane));
            table.lanes.len() as u16 - 1
        };
        self.assign(index, shard);
        let (publishing, subscribed) = sessions.unzip();
        let publisher = Publisher::new(Arc::clone(self), Arc::clone(&lane), ends.work);
        let subscriber = Subscriber::new(Arc::clone(self), lane, ends.requests);
        self.tasks
            .lock()
            .extend([tokio::spawn(publisher.run(publishing)), tokio::spawn(subscriber.run(subscribed))]);
    }
}

impl Lane {
    fn new(host: &str, listening: bool) -> (Self, Ends) {
        // Both channels are bounded by their senders: publishes by the queue settings, requests by the number of rooms.
        let (work, work_end) = mpsc::unbounded_channel();
        let (requests, requests_end) = mpsc::unbounded_channel();
        let lane = Self {
            host: Mutex::new(host.to_owned()),
            work,
            requests,
            listening: watch::Sender::new(listening),
        };
        (lane, Ends { work: work_end, requests: requests_end })
    }
}

fn slots(shard: &Shard) -> impl Iterator<Item = usize> + '_ {
    shard.slots.iter().flat_map(|(first, last)| usize::from(*first)..=usize::from(*last))
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the backplane was shut down")
}
