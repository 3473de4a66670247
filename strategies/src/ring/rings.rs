//! The rings of a node, within one bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Held, Limits, Ring};
use crate::backplane::{Event, Message, MessageId, PageQuery, Position, Resumed, RoomId};
use crate::guarantees::Positions;
use crate::hash::{HashMap, HashSet};

/// What reaches the rings of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Every message of every room, from where [`Rings::reads_from`] says. All rooms of an epoch share one rising count.
    Everything,
    /// Messages of the rooms between [`Rings::begin`] and [`Rings::end`].
    Begun,
}

/// What it costs to keep a ring, beside its messages.
const RING_BYTES: usize = 512;
/// Rings that one push drops at most because they are too old: each push makes one at most, so that they get fewer.
const EXPIRED_PER_PUSH: usize = 4;
/// Rings that one sweep drops, and rooms that it reports, at most.
const SWEPT_MAX: usize = 64;

/// Rooms that the nodes use among themselves have names that begin with a control character. Nobody comes back to them.
fn is_hidden(room: &RoomId) -> bool {
    room.as_str().starts_with(char::is_control)
}

/// A place in the order of writing: the second of the last write, and a number of its own.
type Turn = (u64, u64);

/// A room's ring.
#[derive(Debug)]
struct Slot {
    ring: Ring,
    /// Its place in the order, if it has been written since it was emptied.
    turn: Option<Turn>,
}

/// How far back the rings of an epoch reach.
#[derive(Debug, Clone, Copy, Default)]
struct Floor {
    /// Every message after this offset was pushed.
    read_from: u64,
    /// Rooms without a ring have no message after this offset.
    forgotten: u64,
}

/// All rings of a node, but for rooms whose names begin with a control character. When all of them together cost too much, the
/// room that was written least recently (to a second) is forgotten first.
#[derive(Debug)]
pub struct Rings {
    feed: Feed,
    dense: bool,
    limits: Limits,
    /// Seconds are counted from here.
    origin: Instant,
    rooms: HashMap<RoomId, Slot>,
    /// Least recently written first.
    order: BTreeMap<Turn, RoomId>,
    turns: u64,
    bytes: usize,
    /// By epoch; only with [`Feed::Everything`].
    floors: HashMap<u64, Floor>,
    /// Rooms that lost the last of their messages; only with [`Feed::Begun`].
    emptied: HashSet<RoomId>,
}

impl Rings {
    /// No rings yet. With `limits.messages` 0 there never are any, and every answer is `None`.
    pub fn new(feed: Feed, positions: Positions, limits: Limits, now: Instant) -> Self {
        Self {
            feed,
            dense: positions == Positions::Dense && feed == Feed::Begun,
            limits,
            origin: now,
            rooms: HashMap::default(),
            order: BTreeMap::new(),
            turns: 0,
            bytes: 0,
            floors: HashMap::default(),
            emptied: HashSet::default(),
        }
    }

    /// Takes note of events on their way to the entrance: messages, gaps, skipped positions, new epochs.
    /// Call it *before* they are delivered.
    pub fn note(&mut self, events: &[Event], now: Instant) {
        for event in events {
            match event {
                Event::Message(message) => self.push(message, now),
                Event::Gap { room, to, .. } => self.change(room, |ring| ring.lost(*to)),
                Event::Skipped { room, position } => self.change(room, |ring| ring.skip(*position)),
                Event::Renumbered { room, epoch } => self.change(room, |ring| ring.renumber(*epoch)),
                Event::Reconnected => {}
            }
        }
    }

    /// One message; what [`note`](Self::note) does for each.
    pub fn push(&mut self, message: &Message, now: Instant) {
        let room = &message.envelope.room;
        if self.limits.messages == 0 || is_hidden(room) {
            return;
        }
        if self.feed == Feed::Everything {
            self.open(room, message.position);
        }
        self.change(room, |ring| ring.push(message, now));
        self.touch(room, now);
        self.shed(now);
    }

    /// With [`Feed::Everything`]: every message of every room of `epoch` with an offset above `offset` is pushed, or was.
    /// Call it again after a jump of the reader: what lies at or below `offset` then counts as missing in every room.
    pub fn reads_from(&mut self, epoch: u64, offset: u64) {
        if self.feed == Feed::Everything && self.limits.messages > 0 {
            let floor = self.floors.entry(epoch).or_default();
            floor.read_from = floor.read_from.max(offset);
        }
    }

    /// With [`Feed::Begun`]: the room stands at `top`, and everything after it will be pushed. `complete_from` as in
    /// [`Ring::new`]. A ring that is there and stands at `top` already goes on.
    pub fn begin(&mut self, room: &RoomId, top: Position, complete_from: u64) {
        let goes_on = self.rooms.get(room).is_some_and(|slot| slot.ring.top() == top);
        if goes_on || self.feed != Feed::Begun || self.limits.messages == 0 || is_hidden(room) {
            return;
        }
        self.end(room);
        let ring = Ring::new(self.limits, self.dense, top, complete_from);
        self.rooms.insert(room.clone(), Slot { ring, turn: None });
    }

    /// With [`Feed::Begun`]: nothing of the room is pushed any more. Its ring is dropped.
    pub fn end(&mut self, room: &RoomId) {
        self.unlist(room);
        self.emptied.remove(room);
        if let Some(slot) = self.rooms.remove(room) {
            self.bytes -= slot.ring.bytes();
        }
    }

    /// Counts the room as written now, so that its ring is kept for a while, empty or not.
    pub fn touch(&mut self, room: &RoomId, now: Instant) {
        let second = now.saturating_duration_since(self.origin).as_secs();
        let Some(slot) = self.rooms.get_mut(room) else { return };
        match slot.turn {
            Some((at, _)) if at == second => return,
            Some(turn) => drop(self.order.remove(&turn)),
            None => {
                self.bytes += RING_BYTES;
                self.emptied.remove(room);
            }
        }
        self.turns += 1;
        slot.turn = Some((second, self.turns));
        self.order.insert((second, self.turns), room.clone());
    }

    /// Everything after `since`, oldest first. `stands` is where the caller knows the room to stand: everything up to it was
    /// pushed before (on Kafka: where the reader is; elsewhere [`top`](Self::top)).
    ///
    /// - `Some(Complete)`: nothing is missing up to `stands` and up to what was pushed since.
    /// - `Some(Incomplete)`: no store can do better: more than `limit` messages, or directly behind `since` stand messages without
    ///   a position, of which nobody knows whether the member has seen them.
    /// - `None`: the rings do not reach back so far, or not up to `since`: ask the next store.
    pub fn after(
        &mut self,
        room: &RoomId,
        since: Position,
        stands: Position,
        limit: usize,
        now: Instant,
    ) -> Option<Resumed> {
        self.refresh(room, now);
        match self.rooms.get(room) {
            Some(slot) => slot.ring.after(since, stands, limit),
            None => self.nothing_of(room, stands).after(since, stands, limit),
        }
    }

    /// A page of what is held of a room. Messages from before a new epoch keep their old positions.
    pub fn page(&mut self, room: &RoomId, query: PageQuery, stands: Position, now: Instant) -> Held {
        self.refresh(room, now);
        match self.rooms.get(room) {
            Some(slot) => slot.ring.page(query, stands),
            None => self.nothing_of(room, stands).page(query, stands),
        }
    }

    /// Where the room stands by what was pushed, if it has a ring.
    pub fn top(&self, room: &RoomId) -> Option<Position> {
        self.rooms.get(room).map(|slot| slot.ring.top())
    }

    /// Where a message that is still held stands.
    pub fn position_of(&self, room: &RoomId, id: MessageId) -> Option<Position> {
        self.rooms.get(room).and_then(|slot| slot.ring.position_of(id))
    }

    /// Whether the room's ring holds messages, or was [touched](Self::touch), and neither is too old by the last sweep.
    pub fn holds(&self, room: &RoomId) -> bool {
        self.rooms.get(room).is_some_and(|slot| slot.turn.is_some())
    }

    /// Forgets what the room carried so far; members that stand where it stands now miss nothing.
    pub fn clear(&mut self, room: &RoomId) {
        match self.feed {
            Feed::Everything => self.forget(room),
            Feed::Begun => self.change(room, Ring::clear),
        }
    }

    /// Drops what is too old. Every [`push`](Self::push) does a bounded part of this; a node without traffic may call it now and
    /// then. With [`Feed::Begun`] it returns rooms whose ring holds nothing any more, at most 64, each once until it is written
    /// or touched again.
    pub fn sweep(&mut self, now: Instant) -> Vec<RoomId> {
        self.expire(SWEPT_MAX, now);
        let rooms: Vec<RoomId> = self.emptied.iter().take(SWEPT_MAX).cloned().collect();
        for room in &rooms {
            self.emptied.remove(room);
        }
        rooms
    }

    /// What all rings cost together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes a ring for the room if it has none in this numbering.
    fn open(&mut self, room: &RoomId, position: Position) {
        let here = self.top(room);
        if position.offset == 0 || here.is_some_and(|top| top.epoch == position.epoch) {
            return;
        }
        if here.is_some() {
            self.forget(room);
        }
        let before = position.offset - 1;
        let (top, complete_from) = match self.floors.get(&position.epoch) {
            Some(floor) => {
                let complete_from = floor.read_from.max(floor.forgotten);
                (before.min(complete_from), complete_from)
            }
            // Nobody said what came before it.
            None => (before, position.offset),
        };
        let top = Position { offset: top, ..position };
        let ring = Ring::new(self.limits, self.dense, top, complete_from);
        self.rooms.insert(room.clone(), Slot { ring, turn: None });
    }

    fn change(&mut self, room: &RoomId, change: impl FnOnce(&mut Ring)) {
        if let Some(slot) = self.rooms.get_mut(room) {
            let before = slot.ring.bytes();
            change(&mut slot.ring);
            self.bytes = self.bytes - before + slot.ring.bytes();
        }
    }

    /// What changed for all rooms, and the time, before a ring is read.
    fn refresh(&mut self, room: &RoomId, now: Instant) {
        let Some(top) = self.top(room) else { return };
        let read_from = self.floors.get(&top.epoch).map(|floor| floor.read_from);
        self.change(room, |ring| {
            if let Some(read_from) = read_from {
                ring.lost(read_from);
            }
            ring.trim(now);
        });
    }

    /// The ring of a room that has none.
    fn nothing_of(&self, room: &RoomId, stands: Position) -> Ring {
        let floor = self.floors.get(&stands.epoch).filter(|_| !is_hidden(room));
        let complete_from = floor.map_or(u64::MAX, |floor| floor.read_from.max(floor.forgotten));
        Ring::new(self.limits, self.dense, stands, complete_from)
    }

    /// Makes room, and drops some of what is too old.
    fn shed(&mut self, now: Instant) {
        while self.bytes > self.limits.total_bytes
            && let Some((_, room)) = self.order.first_key_value()
        {
            let room = room.clone();
            self.forget(&room);
        }
        self.expire(EXPIRED_PER_PUSH, now);
    }

    /// Drops rings whose newest message is too old, `most` of them.
    fn expire(&mut self, most: usize, now: Instant) {
        for _ in 0..most {
            let Some((&(second, _), room)) = self.order.first_key_value() else { return };
            // The last write was within that second.
            let newest = self.origin + Duration::from_secs(second + 1);
            if now.saturating_duration_since(newest) < self.limits.age {
                return;
            }
            let room = room.clone();
            self.forget(&room);
        }
    }

    /// Drops the messages of a room, and its ring where rings come and go by themselves.
    fn forget(&mut self, room: &RoomId) {
        self.unlist(room);
        self.change(room, Ring::clear);
        match self.feed {
            Feed::Begun => {
                self.emptied.insert(room.clone());
            }
            Feed::Everything => {
                if let Some(slot) = self.rooms.remove(room) {
                    let top = slot.ring.top();
                    if let Some(floor) = self.floors.get_mut(&top.epoch) {
                        floor.forgotten = floor.forgotten.max(top.offset);
                    }
                }
            }
        }
    }

    fn unlist(&mut self, room: &RoomId) {
        if let Some(turn) = self.rooms.get_mut(room).and_then(|slot| slot.turn.take()) {
            self.order.remove(&turn);
            self.bytes -= RING_BYTES;
        }
    }
}
