//! The last messages of rooms in a node's memory: the first place where history is looked for, and where a strategy has
//! no other, the only one. No I/O and no clock of its own: whoever calls says what time it is.
//!
//! A [`Ring`] holds the tail of one room, [`Rings`] those of all rooms of a node within one bound. Each ring knows from which
//! position on it has *everything*, and answers for members that stand there or later; for all others it says `None`,
//! and a deeper store may know more.
//!
//! # How a strategy uses it
//! One `Mutex<Rings>` per node. Before a batch goes to the entrance it goes to [`Rings::note`], so that the rings never have
//! less than the members saw. What feeds the rings is said once, by [`Feed`]:
//! - [`Feed::Everything`]: the node reads every message of every room (Kafka with `consume = "all"`). Say how far back that
//!   is true with [`Rings::reads_from`], at start, after each jump and with each new epoch. Rings come and go by themselves.
//! - [`Feed::Begun`]: the node hears some rooms only. [`Rings::begin`] at the join, [`Rings::end`] at the leave; messages of
//!   other rooms are passed over.

mod rings;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::backplane::{Message, MessageId, Page, PageQuery, Position, Resumed};

pub use rings::{Feed, Rings};

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Messages of one room at most.
    pub messages: usize,
    /// How long a message is kept at most.
    pub age: Duration,
    /// Bytes of one room at most, with what it costs to keep them.
    pub room_bytes: usize,
    /// Bytes of all rooms together.
    pub total_bytes: usize,
}

/// What a ring has for a reader of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The page, as far as the ring reaches.
    pub page: Page,
    /// Nothing that was asked for lies further back than the ring reaches: no deeper store would answer otherwise.
    pub whole: bool,
}

/// The tail of one room.
#[derive(Debug)]
pub struct Ring {}

impl Ring {
    /// An empty ring of a room that stands at `top`. Everything that comes from here on will be pushed. Members that stand at
    /// `complete_from` or later have missed nothing before: that is `top.offset` where every message has a position, and
    /// `top.offset + 1` where one without a position may have come since.
    pub fn new(limits: Limits, dense: bool, top: Position, complete_from: u64) -> Self {
        todo!()
    }

    /// The room's next message. Where positions are dense, one that does not follow the last shows a loss: the ring begins anew
    /// with it. So does one of another epoch that was not announced. One at or below the top is known already.
    pub fn push(&mut self, message: &Message, now: Instant) {
        todo!()
    }

    /// Nothing comes at this position.
    pub fn skip(&mut self, position: Position) {
        todo!()
    }

    /// Messages before offset `to` may be missing: the ring begins anew there.
    pub fn lost(&mut self, to: u64) {
        todo!()
    }

    /// The numbering starts anew with offset 1 of `epoch`, and nothing is missing in between.
    pub fn renumber(&mut self, epoch: u64) {
        todo!()
    }

    /// Everything after `since`, as [`History::resume`](crate::History::resume) answers it; `None` if the ring does not reach
    /// back so far. See [`Rings::after`].
    pub fn after(&self, since: Position, stands: Position, limit: usize) -> Option<Resumed> {
        todo!()
    }

    /// A page of what is here. See [`Rings::page`].
    pub fn page(&self, query: PageQuery, stands: Position) -> Held {
        todo!()
    }

    /// Where a message that is still here stands.
    pub fn position_of(&self, id: MessageId) -> Option<Position> {
        todo!()
    }

    /// Where the room stands by what was pushed.
    pub fn top(&self) -> Position {
        todo!()
    }

    /// What it costs to keep this.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}
