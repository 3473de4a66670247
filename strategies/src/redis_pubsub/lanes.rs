//! Lanes: who serves which slot, and how a lane gets its connections.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::live::{Shared, closed};
use super::publisher::Publisher;
use super::scripts::{
    ANNOUNCE_SCRIPT, KEEPING_ANNOUNCE_SCRIPT, KEEPING_PUBLISH_SCRIPT, PUBLISH_SCRIPT, READ_SCRIPT, TOP_SCRIPT,
};
use super::subscriber::{Request, Subscriber};
use super::work::Work;
use crate::backplane::RoomId;
use crate::clients::redis::topology::{Life, SLOTS, Shard, discover, is_master, slot};
use crate::clients::redis::{Connection, Kind, Value};
use crate::error::{Error, ErrorKind, Result};

/// What a lane may take to hand its rooms over, beyond noticing that a server is gone.
const HANDING_OVER: Duration = Duration::from_secs(5);

/// Which lane serves which slot.
pub(super) struct Table {
    pub(super) lanes: Vec<Arc<Lane>>,
    /// Index of a lane, or `u16::MAX` for a slot that nobody has served yet.
    by_slot: Vec<u16>,
}

impl Default for Table {
    fn default() -> Self {
        Self { lanes: Vec::new(), by_slot: vec![u16::MAX; usize::from(SLOTS)] }
    }
}

/// The handles of a lane.
pub(crate) struct Lane {
    host: Mutex<String>,
    pub(crate) work: mpsc::UnboundedSender<Work>,
    pub(crate) requests: mpsc::UnboundedSender<Request>,
    /// Whether the subscriber's link stands and everything is subscribed.
    pub(crate) listening: watch::Sender<bool>,
    /// The connection that publishes are written to, or were last.
    writer: Mutex<Option<Writer>>,
    /// The life of the server that a connection was last opened to. Older connections may still be to an earlier one.
    life: Mutex<Option<Life>>,
}

/// A connection that publishes were written to.
#[derive(Debug, Clone, Copy)]
struct Writer {
    life: Life,
    id: i64,
}

/// The sending ends of a lane's tasks, before they start.
struct Ends {
    work: mpsc::UnboundedReceiver<Work>,
    requests: mpsc::UnboundedReceiver<Request>,
}

/// A connection ready for a lane, and the scripts loaded on its server.
pub(crate) struct Session {
    pub(crate) connection: Connection,
    /// Digest of the script that this use is about.
    pub(crate) script: Vec<u8>,
    /// Digest of the script that publishes under a position assigned before.
    pub(crate) announce: Vec<u8>,
    /// The life of the server when this was opened.
    pub(crate) life: Life,
}

impl Session {
    /// The life of the server, as scripts take it.
    pub(crate) fn incarnation(&self) -> [u8; 8] {
        self.life.as_u64().to_be_bytes()
    }

    /// The connection, as one that publishes are written to.
    fn writer(&self) -> Writer {
        Writer { life: self.life, id: self.connection.id() }
    }
}

/// Whether one half of a lane has a link that works, as far as it knows. Counted for whoever watches the node.
pub(crate) struct Standing {
    shared: Arc<Shared>,
    down: bool,
}

impl Standing {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), down: false }
    }

    /// Says how it stands.
    pub(crate) fn set(&mut self, down: bool) {
        if std::mem::replace(&mut self.down, down) != down {
            self.shared.stats.links_down.add(if down { 1 } else { -1 });
        }
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Publish,
    Subscribe,
    /// Reading history.
    Read,
}

impl Shared {
    /// The lane that serves `room` now.
    pub(crate) fn lane_of(&self, room: &RoomId) -> Arc<Lane> {
        Arc::clone(self.table.read().lane_of(self, room))
    }

    /// Queues work for the lane that serves `room`. The table stands still meanwhile, so that whoever hands slots over knows
    /// what was queued before.
    pub(crate) fn queue(&self, room: &RoomId, work: Work) -> Result<()> {
        self.table.read().lane_of(self, room).work.send(work).map_err(|_| closed("publish"))
    }

    /// Asks something of the lane that serves `room`. The table stands still meanwhile, as with [`queue`](Self::queue).
    pub(crate) fn request(&self, room: &RoomId, request: Request) -> bool {
        self.table.read().lane_of(self, room).requests.send(request).is_ok()
    }

    /// How long after a slot has moved its rooms may still be on their way between lanes: the losing one must notice.
    pub(crate) fn handing_over(&self) -> Duration {
        HANDING_OVER + 2 * self.settings.response_timeout() + 2 * self.settings.connect_timeout()
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
        let mut session = self.open(&host, purpose).await?;
        if purpose == Use::Publish {
            let last = *lane.writer.lock();
            self.fence(last, &mut session).await?;
            *lane.writer.lock() = Some(session.writer());
        }
        *lane.life.lock() = Some(session.life);
        Ok(session)
    }

    async fn open(&self, host: &str, purpose: Use) -> Result<Session> {
        let mut connection = Connection::open(host, &self.opening).await?;
        if self.address.kind != Kind::Plain && !is_master(&mut connection, &self.opening).await? {
            let problem = format!("{host} is no master, perhaps not yet");
            return Err(Error::new(ErrorKind::Unreachable, "connect", problem));
        }
        let keeps = self.settings.keeps_history();
        let script = match purpose {
            Use::Publish if keeps => KEEPING_PUBLISH_SCRIPT,
            Use::Publish => PUBLISH_SCRIPT,
            Use::Subscribe => TOP_SCRIPT,
            Use::Read => READ_SCRIPT,
        };
        let script = self.load(&mut connection, script).await?;
        let announce = if keeps { KEEPING_ANNOUNCE_SCRIPT } else { ANNOUNCE_SCRIPT };
        let announce = self.load(&mut connection, announce).await?;
        let life = Life::ask(&mut connection, &self.opening).await?;
        Ok(Session { connection, script, announce, life })
    }

    /// Sees to it that what was written to the `last` connection has been carried out, or never will be: a server that was
    /// frozen, or a network, may bring it later than what the next connection brings. The server is asked even when there is
    /// nothing to be ended, so that a user who may not is refused when a node starts, rather than after the first outage.
    async fn fence(&self, last: Option<Writer>, session: &mut Session) -> Result<()> {
        let last = last.filter(|last| last.life.same_process(session.life));
        let id = last.unwrap_or(session.writer()).id.to_string();
        let kill: [&[u8]; 6] = [b"CLIENT", b"KILL", b"ID", id.as_bytes(), b"SKIPME", b"yes"];
        match session.connection.call(&kill, self.opening.timeout).await {
            Err(error) if !error.is_temporary() => {
                let problem = "Redis does not let this node end its own old connections, which keeps publishers in \
                               order: allow its user CLIENT KILL";
                Err(Error::new(ErrorKind::Config, "connect", problem).with_source(error))
            }
            answer => answer.map(drop),
        }
    }

    async fn load(&self, connection: &mut Connection, script: &str) -> Result<Vec<u8>> {
        let load: [&[u8]; 3] = [b"SCRIPT", b"LOAD", script.as_bytes()];
        match connection.call(&load, self.opening.timeout).await? {
            Value::Text(digest) => Ok(digest.to_vec()),
            _ => Err(Error::new(ErrorKind::Corrupt, "connect", "SCRIPT LOAD returned no digest")),
        }
    }

    pub(super) async fn connect_all(&self) -> Result<Vec<(Shard, Session, Session)>> {
        let mut sessions = Vec::new();
        for shard in discover(&self.address, &[], &self.opening).await? {
            let mut publishing = self.open(&shard.host, Use::Publish).await?;
            self.fence(None, &mut publishing).await?;
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
        for (shard, lane) in self.match_lanes(shards) {
            match lane {
                Some(lane) => self.assign(lane, &shard),
                None => self.add_lane(&shard, None),
            }
        }
        self.retire_lanes();
        *refreshed = Some(Instant::now());
        Ok(())
    }

    /// Finds the lane of each shard: the one that went to this master before; else, after a failover, one that served all of
    /// its slots and whose own master is gone.
    fn match_lanes(&self, shards: Vec<Shard>) -> Vec<(Shard, Option<u16>)> {
        let table = self.table.read();
        let at_host = |shard: &Shard| table.lanes.iter().position(|lane| *lane.host.lock() == shard.host);
        let mut taken: Vec<usize> = shards.iter().filter_map(at_host).collect();
        let mut matched = Vec::new();
        for shard in shards {
            let orphan = || {
                let served_all =
                    |lane: &usize| slots(&shard).all(|slot| usize::from(table.by_slot[slot]) == *lane);
                (0..table.lanes.len()).filter(|lane| !taken.contains(lane)).find(served_all)
            };
            let lane = at_host(&shard).or_else(orphan);
            taken.extend(lane);
            matched.push((shard, lane.and_then(|lane| u16::try_from(lane).ok())));
        }
        matched
    }

    /// Makes `lane` serve the shard. Lanes that served some of its slots hand over what still waits for them.
    fn assign(&self, lane: u16, shard: &Shard) {
        let mut table = self.table.write();
        let to = Arc::clone(&table.lanes[usize::from(lane)]);
        shard.host.clone_into(&mut to.host.lock());
        let mut losing: Vec<u16> = Vec::new();
        for slot in slots(shard) {
            let from = std::mem::replace(&mut table.by_slot[slot], lane);
            if from != lane && from != u16::MAX && !losing.contains(&from) {
                losing.push(from);
            }
        }
        for from in losing {
            let (left, inherited) = oneshot::channel();
            let from = &table.lanes[usize::from(from)];
            // Both tasks end only with the live path, and then nothing is left to be handed over.
            let _ = from.work.send(Work::HandOver { to: Arc::clone(&to), left });
            let _ = to.work.send(Work::Inherit(inherited));
        }
    }

    /// Ends the lanes whose slots have all gone to others: of masters that left the cluster.
    fn retire_lanes(&self) {
        let mut table = self.table.write();
        for index in (0..table.lanes.len()).rev() {
            if table.by_slot.iter().any(|lane| usize::from(*lane) == index) {
                continue;
            }
            let lane = table.lanes.remove(index);
            let later = |lane: &&mut u16| **lane != u16::MAX && usize::from(**lane) > index;
            table.by_slot.iter_mut().filter(later).for_each(|lane| *lane -= 1);
            tracing::info!(host = %lane.host.lock(), "no slot is served there any more");
            // Nothing is queued for a lane out of the table, so that these are its last.
            let _ = lane.work.send(Work::Retire);
            let _ = lane.requests.send(Request::Retire);
        }
    }

    /// Starts the tasks of a lane for `shard`.
    pub(super) fn add_lane(self: &Arc<Self>, shard: &Shard, sessions: Option<(Session, Session)>) {
        let (lane, ends) = Lane::new(&shard.host, sessions.is_some());
        let lane = Arc::new(lane);
        let index = {
            let mut table = self.table.write();
            table.lanes.push(Arc::clone(&lane));
            table.lanes.len() as u16 - 1
        };
        self.assign(index, shard);
        let (publishing, subscribed) = sessions.unzip();
        *lane.writer.lock() = publishing.as_ref().map(Session::writer);
        let publisher = Publisher::new(Arc::clone(self), Arc::clone(&lane), ends.work);
        let subscriber = Subscriber::new(Arc::clone(self), lane, ends.requests);
        let mut tasks = self.tasks.lock();
        tasks.retain(|task| !task.is_finished());
        tasks.extend([tokio::spawn(publisher.run(publishing)), tokio::spawn(subscriber.run(subscribed))]);
    }
}

impl Table {
    fn lane_of(&self, shared: &Shared, room: &RoomId) -> &Arc<Lane> {
        let index = match shared.sharded() {
            true => usize::from(self.by_slot[usize::from(slot(&shared.name(room)))]),
            false => 0,
        };
        // A slot that nobody serves yet is anybody's: whoever gets it is told where it belongs.
        self.lanes.get(index).unwrap_or(&self.lanes[0])
    }
}

impl Lane {
    /// Whether the session is to the server, in the life, that the lane was last connected to.
    pub(crate) fn is_present(&self, session: &Session) -> bool {
        self.life.lock().is_none_or(|life| life == session.life)
    }

    fn new(host: &str, listening: bool) -> (Self, Ends) {
        // Both channels are bounded by their senders: publishes by the queue settings, requests by the number of rooms.
        let (work, work_end) = mpsc::unbounded_channel();
        let (requests, requests_end) = mpsc::unbounded_channel();
        let lane = Self {
            host: Mutex::new(host.to_owned()),
            work,
            requests,
            listening: watch::Sender::new(listening),
            writer: Mutex::new(None),
            life: Mutex::new(None),
        };
        (lane, Ends { work: work_end, requests: requests_end })
    }
}

fn slots(shard: &Shard) -> impl Iterator<Item = usize> + '_ {
    shard.slots.iter().flat_map(|(first, last)| usize::from(*first)..=usize::from(*last))
}
