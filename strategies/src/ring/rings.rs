//! The rings of a node, within one bound.

use std::time::Instant;

use super::{Held, Limits};
use crate::backplane::{Event, Message, MessageId, PageQuery, Position, Resumed, RoomId};
use crate::guarantees::Positions;

/// What reaches the rings of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Every message of every room, from where [`Rings::reads_from`] says. Positions rise over all rooms of an epoch.
    Everything,
    /// Messages of the rooms between [`Rings::begin`] and [`Rings::end`].
    Begun,
}

/// All rings of a node. When all of them together cost too much, the room that was written least recently (to a second) is
/// forgotten first.
#[derive(Debug)]
pub struct Rings {}

impl Rings {
    /// No rings yet.
    pub fn new(feed: Feed, positions: Positions, limits: Limits, now: Instant) -> Self {
        todo!()
    }

    /// Takes note of events on their way to the entrance: messages, gaps, skipped positions, new epochs.
    /// Call it *before* they are delivered.
    pub fn note(&mut self, events: &[Event], now: Instant) {
        todo!()
    }

    /// One message; what [`note`](Self::note) does for each.
    pub fn push(&mut self, message: &Message, now: Instant) {
        todo!()
    }

    /// With [`Feed::Everything`]: every message of every room of `epoch` with an offset above `offset` is pushed, or was.
    /// Call it again after a jump of the reader: what lies at or below `offset` then counts as missing in every room.
    pub fn reads_from(&mut self, epoch: u64, offset: u64) {
        todo!()
    }

    /// With [`Feed::Begun`]: the room stands at `top`, and everything after it will be pushed. `complete_from` as in
    /// [`Ring::new`](super::Ring::new). A ring that is there and stands at `top` already goes on.
    pub fn begin(&mut self, room: &RoomId, top: Position, complete_from: u64, now: Instant) {
        todo!()
    }

    /// With [`Feed::Begun`]: nothing of the room is pushed any more. Its ring is dropped.
    pub fn end(&mut self, room: &RoomId) {
        todo!()
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
        todo!()
    }

    /// A page of what is held of a room. Messages from before a new epoch keep their old positions.
    pub fn page(&mut self, room: &RoomId, query: PageQuery, stands: Position, now: Instant) -> Held {
        todo!()
    }

    /// Where the room stands by what was pushed, if it has a ring.
    pub fn top(&self, room: &RoomId) -> Option<Position> {
        todo!()
    }

    /// Where a message that is still held stands.
    pub fn position_of(&self, room: &RoomId, id: MessageId) -> Option<Position> {
        todo!()
    }

    /// Forgets what the room carried so far; members that stand where it stands now miss nothing.
    pub fn clear(&mut self, room: &RoomId) {
        todo!()
    }

    /// Drops what is too old. Every [`push`](Self::push) does a bounded part of this; a node without traffic may call it now and
    /// then. Returns rooms whose ring holds nothing any more since the last call, at most 64.
    pub fn sweep(&mut self, now: Instant) -> Vec<RoomId> {
        todo!()
    }

    /// What all rings cost together, in bytes.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}
