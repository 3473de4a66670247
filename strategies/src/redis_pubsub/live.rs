//! The live path through Redis, shared by every strategy that has one: lanes of a publisher and a subscriber each.
//!
//! A *lane* serves a set of slots with one task that publishes and one that subscribes, each on a connection of its own:
//! a subscriber that falls behind never holds up a publish. There is one lane, or one per master of a cluster. A lane
//! keeps its queue when a failover changes its master's address. When slots move between masters, the losing lane hands
//! over its rooms and what still waits to be published, and the gaining lane sends that first: order survives both.
//! A lane that has lost all of its slots ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::commands::Numbers;
use super::history;
use super::lanes::{Lane, Table};
use super::readers::Readers;
use super::sequence::Epochs;
use super::settings::Settings;
use super::subscriber::Request;
use super::wire::Wire;
use super::work::{Publish, Work};
use crate::backplane::{BoxFuture, Page, PageQuery, Position, Resumed, RoomId};
use crate::clients::redis::connection::Opening;
use crate::clients::redis::topology::tag;
use crate::clients::redis::{Address, Kind};
use crate::error::{Error, ErrorKind, Result};
use crate::stats::Stats;

/// The part of the time for a shutdown that is kept for ending the tasks: one in so many.
const TASKS_SHARE: u32 = 10;

/// What starts a live path.
pub(crate) struct Setup {
    pub(crate) address: Address,
    pub(crate) namespace: String,
    pub(crate) node: String,
    pub(crate) settings: Settings,
    /// Fail publishes at once while there is no link, in order, rather than keep them for it; likewise joins. What Redis
    /// refuses for the time being is failed in order, too, with all that was queued behind it, if the settings keep a
    /// history: without one, publishes on their way behind a refused one may still be carried out, and overtake it.
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
    pub(super) numbers: Numbers,
    /// Connections that read history.
    pub(super) readers: Readers,
    pub(super) opening: Opening,
    pub(super) table: RwLock<Table>,
    /// When the cluster was last asked who serves what.
    pub(super) refreshed: tokio::sync::Mutex<Option<Instant>>,
    pub(super) tasks: Mutex<Vec<JoinHandle<()>>>,
    closed: AtomicBool,
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
        if setup.address.kind == Kind::Cluster && setup.settings.keeps_history() {
            // Looked for now, once, rather than when the first message waits.
            tag(0);
        }
        let until = setup.connect_retry.map(|limit| Instant::now() + limit);
        let shared = Arc::new(Shared {
            prefix: format!("{}:", setup.namespace),
            numbers: Numbers::new(&setup.settings),
            readers: Readers::new(),
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
            table: RwLock::default(),
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
        let room = publish.envelope.room.clone();
        shared.queue(&room, Work::Publish(publish)).inspect_err(|_| shared.finished(bytes))
    }

    /// Subscribes a room. Resolves with its top once every later message will arrive.
    pub(crate) fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        let (waiter, joined) = oneshot::channel();
        let sent = self.check_open("join").and_then(|()| {
            let request = Request::Join { room: room.clone(), waiter, until: self.0.deadline() };
            if self.0.request(room, request) { Ok(()) } else { Err(closed("join")) }
        });
        Box::pin(async move {
            sent?;
            joined.await.unwrap_or_else(|_| Err(closed("join")))
        })
    }

    /// The room has no local members any more.
    pub(crate) fn leave(&self, room: &RoomId) -> Result<()> {
        self.check_open("leave")?;
        let request = Request::Leave { room: room.clone() };
        if self.0.request(room, request) { Ok(()) } else { Err(closed("leave")) }
    }

    /// What a room carried after `since`. See [`History::resume`](crate::History::resume).
    pub(crate) fn resume(
        &self,
        room: &RoomId,
        since: Position,
        limit: usize,
    ) -> BoxFuture<'static, Result<Resumed>> {
        let (shared, room, open) = (Arc::clone(&self.0), room.clone(), self.check_open("resume"));
        Box::pin(async move {
            open?;
            history::resume(&shared, &room, since, limit).await
        })
    }

    /// A page of what a room carried. See [`History::page`](crate::History::page).
    pub(crate) fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        let (shared, room, open) = (Arc::clone(&self.0), room.clone(), self.check_open("history"));
        Box::pin(async move {
            open?;
            history::page(&shared, &room, query).await
        })
    }

    /// Forgets what a room carried. See [`History::remove`](crate::History::remove).
    pub(crate) fn remove(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        let (shared, room, open) = (Arc::clone(&self.0), room.clone(), self.check_open("remove"));
        Box::pin(async move {
            open?;
            shared.remove(&room).await
        })
    }

    /// Waits for publishes to get their outcome, then closes every connection, within the settings' bound.
    pub(crate) fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        let shared = Arc::clone(&self.0);
        Box::pin(async move {
            if shared.closed.swap(true, SeqCst) {
                return Ok(());
            }
            let limit = shared.settings.shutdown_timeout();
            let until = Instant::now() + limit;
            // The last tenth is for the tasks, which then only have to end.
            let in_time = timeout(limit - limit / TASKS_SHARE, shared.flush()).await.is_ok();
            shared.closing.send_replace(true);
            shared.readers.close();
            let tasks = std::mem::take(&mut *shared.tasks.lock());
            for mut task in tasks {
                // The tasks look at `closing` whenever they wait, so this bound is for a bug, not for Redis.
                if timeout_at(until, &mut task).await.is_err() {
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
    /// Waits until every publish queued so far has its outcome.
    async fn flush(&self) {
        let flush = |lane: &Arc<Lane>| {
            let (flushed, done) = oneshot::channel();
            lane.work.send(Work::Flush(flushed)).is_ok().then_some(done)
        };
        let waiting: Vec<_> = self.table.read().lanes.iter().filter_map(flush).collect();
        for done in waiting {
            // A lane that ended has refused what it had.
            let _ = done.await;
        }
    }

    /// The name of a room's key and channel.
    pub(crate) fn name(&self, room: &RoomId) -> Vec<u8> {
        let mut name = Vec::with_capacity(self.prefix.len() + room.as_str().len());
        name.extend_from_slice(self.prefix.as_bytes());
        name.extend_from_slice(room.as_str().as_bytes());
        name
    }

    /// What all names begin with.
    pub(super) fn namespace(&self) -> &str {
        self.prefix.trim_end_matches(':')
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
}

pub(crate) fn closed(operation: &'static str) -> Error {
    Error::new(ErrorKind::Closed, operation, "the backplane was shut down")
}
