//! Presence: who is in which room, in the whole cluster.
//!
//! Every node keeps a table of all entries, so that questions are answered on the spot. It owns the entries of its own
//! clients, each of which lives as long as a membership ([`Stay`]), and holds a replica of everybody else's. The nodes
//! tell each other what changes over the backplane itself, in one hidden room that all of them join ([`ROOM`]): nothing
//! but the ordinary contract is needed, and whatever is lost on the way is noticed and repaired (see `gossip`).
//!
//! - `who` and `table`: the entries and their two indexes;
//! - `wire`: the messages between nodes as bytes;
//! - `gossip` and `peer`: who is told what and when, without I/O;
//! - `task`: the one task that moves the messages, and shows clients who comes and goes (`pushes`);
//! - `answers`: replies to those who ask.
//!
//! # What is promised
//! While the backplane is healthy, who joins or leaves is known everywhere within a batch's time (50 ms by default) and the
//! way through the backplane. A batch that is lost is repaired after the next heartbeat (1 s). The entries of a node that
//! crashes vanish within its silence (5 s) and one heartbeat; those of a node that goes in order, at once. Where the backplane does
//! not span nodes, or splits rooms among them, presence speaks of this node alone.
//!
//! Locks: presence is called under a room's lock, and takes none of the hub's while it holds its own.

mod answers;
mod gossip;
mod peer;
mod pushes;
mod table;
mod task;
mod who;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use manifold_protocol::PresenceStatsResult;
use manifold_strategies::RoomId;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use answers::{TooLong, reply, result};
use gossip::Gossip;
pub(crate) use gossip::Timing;
use table::{NodeId, Place};
pub(crate) use who::Who;

use crate::metrics::Metrics;

/// The room that nodes speak in. Names that begin with a control character are refused to clients.
pub(crate) const ROOM: &str = "\u{1}presence";

/// Bytes of messages that wait to be read at most. Beyond, they are lost, and repaired as any loss.
const INBOX_BYTES_MAX: usize = 8 * 1024 * 1024;

/// This node's view of who is where.
pub(crate) struct Presence {
    me: NodeId,
    state: Mutex<Gossip>,
    inbox: Mutex<Inbox>,
    /// There is something to do earlier than was thought.
    wake: Notify,
    started: Instant,
    timing: Timing,
    /// Numbers this node's messages.
    sent: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Messages that came and were not read yet.
#[derive(Default)]
struct Inbox {
    messages: VecDeque<Bytes>,
    bytes: usize,
}

/// An entry: while it lives, its client is present in its room.
#[derive(Debug)]
pub(crate) struct Stay {
    presence: Arc<Presence>,
    room: RoomId,
    client: u128,
}

/// Values for a scrape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    /// Entries of all nodes.
    pub(crate) entries: usize,
    /// Nodes, this one included.
    pub(crate) nodes: usize,
    /// Snapshots asked for.
    pub(crate) resyncs: u64,
}

impl Presence {
    /// Presence of a node without clients.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub(crate) fn new(timing: Timing, metrics: Arc<Metrics>) -> Result<Arc<Self>, getrandom::Error> {
        let me = getrandom::u64()?;
        Ok(Arc::new(Self {
            me,
            state: Mutex::new(Gossip::new(me, timing)),
            inbox: Mutex::default(),
            wake: Notify::new(),
            started: Instant::now(),
            timing,
            sent: AtomicU64::new(0),
            metrics,
        }))
    }

    /// A client of this node enters a room.
    pub(crate) fn enter(self: &Arc<Self>, room: &RoomId, who: Who) -> Stay {
        let client = who.client;
        self.join(room, who);
        Stay { presence: Arc::clone(self), room: room.clone(), client }
    }

    fn join(&self, room: &RoomId, who: Who) {
        self.change(|state| state.join(room, who));
    }

    fn change(&self, change: impl FnOnce(&mut Gossip)) {
        let mut state = self.state.lock();
        let idle = !state.has_news();
        change(&mut state);
        drop(state);
        if idle {
            self.wake.notify_one();
        }
    }

    /// Takes a message that came in the presence room. Called by the backplane: it is read later.
    pub(crate) fn take(&self, message: &Bytes) {
        let mut inbox = self.inbox.lock();
        if inbox.bytes + message.len() > INBOX_BYTES_MAX {
            drop(inbox);
            self.metrics.count_error("presence_inbox_full");
            return;
        }
        inbox.bytes += message.len();
        inbox.messages.push_back(message.clone());
        let first = inbox.messages.len() == 1;
        drop(inbox);
        if first {
            self.wake.notify_one();
        }
    }

    /// Takes note that messages of the presence room were lost on their way here.
    pub(crate) fn take_gap(&self) {
        self.state.lock().hear_gap();
        self.wake.notify_one();
    }

    /// How many clients and users are in a room.
    pub(crate) fn stats(&self, room: &str) -> PresenceStatsResult {
        let (clients, users) = self.state.lock().table.stats(room);
        let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
        PresenceStatsResult { num_clients: count(clients), num_users: count(users) }
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.state.lock();
        Counts { entries: state.table.len(), nodes: state.peer_count() + 1, resyncs: state.resync_count() }
    }

    /// Up to `count` entries of a room behind the place `after`.
    fn page(&self, room: &str, after: Option<Place>, count: usize) -> Vec<(Place, Arc<Who>)> {
        self.state.lock().table.present(room, after, count)
    }
}

impl Inbox {
    fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.presence.change(|state| state.leave(&self.room, self.client));
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("me", &format_args!("{:016x}", self.me)).finish_non_exhaustive()
    }
}
