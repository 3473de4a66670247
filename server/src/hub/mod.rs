//! The hub: this node's rooms and who is in them.
//!
//! What lives here: membership, the interest it causes, the fan-out of a message to the members, and what is held back for
//! members that come back. What does not: the
//! client protocol's commands, sockets' reading side, and any knowledge of what carries messages between nodes.
//!
//! Locks are taken in this order: a room's turn, a shard of the hub, a room, an outbox, presence or the list of newly watched rooms.
//! None is held while the backplane is called.

mod answer;
mod arrivals;
mod cork;
mod fan_out;
mod giant;
mod interest;
mod members;
mod quiet;
mod recovery;
mod room;
#[cfg(test)]
mod tests;
mod trails;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use ahash::RandomState;
use manifold_strategies::guarantees::Positions;
use manifold_strategies::{Backplane, Position, RoomId};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::runtime::Handle;

pub(crate) use answer::Answer;
pub(crate) use cork::{Cork, begin_shift, end_shift, flush_thread, yield_worker};
pub(crate) use interest::{Reservation, Ticket};
use members::Member;
pub(crate) use recovery::{Ending, Recovery};
use room::State;
pub(crate) use room::{JoinFailed, Room};

use crate::metrics::Metrics;
use crate::presence::{Presence, Who};
use crate::session::Session;

/// Shards of the room table: enough that threads rarely meet.
const SHARDS: usize = 64;

type Shard = RwLock<HashMap<RoomId, Arc<Room>, RandomState>>;

/// What the hub is configured with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HubSettings {
    /// How long an empty room stays joined.
    pub(crate) leave_linger: Duration,
    /// Rooms with this many members get a task of their own.
    pub(crate) giant_members_min: usize,
    /// Bytes that may wait in a giant room's queue.
    pub(crate) giant_queue_bytes_max: usize,
    /// Bytes of live messages that a room holds back for those who come back to it.
    pub(crate) recovery_hold_bytes_max: usize,
    /// How often the position of a quiet room is compared with the backplane's; zero is never.
    pub(crate) position_check: Duration,
}

/// What positions mean to members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Numbering {
    /// Nothing: they see none.
    None,
    /// They rise, and history reads on from there.
    Rising,
    /// They count up by one, so that a hole is a loss.
    Dense,
}

/// What a subscription was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Grant {
    /// The member is told of losses.
    pub(crate) positioned: bool,
    /// It gets by history what it missed when it comes back.
    pub(crate) recoverable: bool,
    /// It is shown who comes and goes.
    pub(crate) join_leave: bool,
}

impl Grant {
    /// What is left of it where nobody knows the room's position.
    fn without_position(self) -> Self {
        Self { positioned: false, recoverable: false, ..self }
    }
}

/// What carries the hub's messages, and what it is good for.
struct Link {
    backplane: Arc<dyn Backplane>,
    numbering: Numbering,
    keeps_history: bool,
}

/// This node's rooms.
pub(crate) struct Hub {
    shards: Box<[Shard]>,
    hasher: RandomState,
    /// Set once, when the node has started it: the backplane needs the hub first, as its entrance.
    link: OnceLock<Link>,
    /// Rooms that have positioned members since the last look at those that do.
    newly_watched: Mutex<Vec<Arc<Room>>>,
    /// Who is where in the cluster, unless that is turned off.
    presence: OnceLock<Arc<Presence>>,
    settings: HubSettings,
    metrics: Arc<Metrics>,
    runtime: Handle,
    handle: Weak<Hub>,
}

impl Hub {
    /// A hub without rooms. Must be called within the runtime that its tasks shall run on.
    pub(crate) fn new(settings: HubSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new_cyclic(|handle| Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            hasher: RandomState::new(),
            link: OnceLock::new(),
            newly_watched: Mutex::default(),
            presence: OnceLock::new(),
            settings,
            metrics,
            runtime: Handle::current(),
            handle: Weak::clone(handle),
        })
    }

    /// Connects the hub with what carries its messages. The first call counts.
    pub(crate) fn set_backplane(&self, backplane: Arc<dyn Backplane>) {
        let keeps_history = backplane.history().is_some();
        let numbering = match backplane.guarantees().positions {
            Positions::Dense => Numbering::Dense,
            Positions::Rising if keeps_history => Numbering::Rising,
            Positions::Rising | Positions::None => Numbering::None,
        };
        // A second backplane would be a programming error that the first survives.
        let _ = self.link.set(Link { backplane, numbering, keeps_history });
    }

    /// Lets members be present. The first call counts.
    pub(crate) fn set_presence(&self, presence: Arc<Presence>) {
        let _ = self.presence.set(presence);
    }

    /// Who is where in the cluster, unless that is turned off.
    pub(crate) fn presence(&self) -> Option<&Arc<Presence>> {
        self.presence.get()
    }

    /// What carries messages between nodes.
    pub(crate) fn backplane(&self) -> &Arc<dyn Backplane> {
        &self.link.get().expect("the node connects the backplane before it serves").backplane
    }

    /// What positions are to members: with dense ones they can be told of losses, with rising ones alone they see them only
    /// where history makes use of them.
    pub(crate) fn numbering(&self) -> Numbering {
        self.link.get().map_or(Numbering::None, |link| link.numbering)
    }

    /// Whether the backplane keeps messages, so that members can come back to them.
    pub(crate) fn keeps_history(&self) -> bool {
        self.link.get().is_some_and(|link| link.keeps_history)
    }

    /// Whether this node knows where a room stands, or will never need to.
    pub(crate) fn knows_position(&self, room: &Room) -> bool {
        !self.keeps_history() || room.lock().stands().is_some()
    }

    /// Makes a reserved place a membership. `asked` is where the room stands as the backplane says, where this node [does not
    /// know](Self::knows_position): if nobody does, a position is not granted. `reply` is called under the room's lock with the
    /// room's position and what is granted; it has to put the subscriber's reply into the outbox, so that the reply comes before
    /// every push and nothing after it is missed.
    pub(crate) fn attach(
        &self,
        ticket: Ticket,
        session: &Arc<Session>,
        grant: Grant,
        asked: Option<Position>,
        reply: impl FnOnce(Position, Grant),
    ) -> (Arc<Room>, u32) {
        let room = Arc::clone(&ticket.room);
        let mut state = room.lock();
        if state.stands().is_none() {
            state.missed_to = asked;
        }
        let stands = state.stands();
        let unknown = stands.is_none() && self.keeps_history();
        let grant = if unknown { grant.without_position() } else { grant };
        reply(stands.unwrap_or_default(), grant);
        let slot = self.admit(&room, &mut state, session, grant);
        state.trail_missed(slot);
        drop(state);
        // Hands the interest over. A gap may have ended the membership again by now: then this lets go of the room.
        drop(ticket);
        (room, slot)
    }

    /// Makes a session a member from the room's next message on.
    fn admit(
        &self,
        room: &Arc<Room>,
        state: &mut MutexGuard<'_, State>,
        session: &Arc<Session>,
        grant: Grant,
    ) -> u32 {
        if grant.positioned && self.checks_positions() && !std::mem::replace(&mut state.watched, true) {
            self.newly_watched.lock().push(Arc::clone(room));
        }
        let stay = self.presence().map(|presence| Box::new(presence.enter(&room.id, Who::of(session))));
        let Grant { positioned, recoverable, join_leave } = grant;
        let joined_serial = state.serial;
        let session = Arc::clone(session);
        let member =
            Member { session, joined_serial, positioned, recoverable, void: false, join_leave, _stay: stay };
        state.members.insert(member)
    }

    /// Ends a membership. `reply` is called when no further push will follow.
    pub(crate) fn detach(
        self: &Arc<Self>,
        room: &Arc<Room>,
        slot: u32,
        session: &Arc<Session>,
        reply: impl FnOnce(),
    ) {
        let turn = room.turn.lock();
        let mut state = room.lock();
        let removed = state.members.remove(slot, session);
        if removed {
            state.forget_trail(slot);
        }
        reply();
        let unwanted = removed && !state.wanted();
        drop(state);
        drop(turn);
        if unwanted {
            self.tend(room);
        }
    }

    /// The room, if anybody here is in it.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Room>> {
        self.shard(name).read().get(name).map(Arc::clone)
    }

    /// Rooms with members on this node.
    pub(crate) fn room_count(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().len()).sum()
    }

    /// Every room with its number of members here, in no order.
    pub(crate) fn rooms(&self) -> Vec<(RoomId, usize)> {
        let rooms =
            self.shards.iter().flat_map(|shard| shard.read().values().map(Arc::clone).collect::<Vec<_>>());
        rooms.map(|room| (room.id.clone(), room.len())).filter(|(_, members)| *members > 0).collect()
    }

    fn find_or_create(&self, name: &str) -> Arc<Room> {
        if let Some(room) = self.find(name) {
            return room;
        }
        let mut shard = self.shard(name).write();
        let id = RoomId::new(name);
        Arc::clone(shard.entry(id.clone()).or_insert_with(|| Arc::new(Room::new(id))))
    }

    fn shard(&self, name: &str) -> &Shard {
        let hash =
            usize::try_from(self.hasher.hash_one(name) % SHARDS as u64).expect("a shard's index is small");
        &self.shards[hash]
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("rooms", &self.room_count()).finish_non_exhaustive()
    }
}
