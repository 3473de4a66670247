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

use std::collections::VecDeque;
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

impl Limits {
    /// Bytes of one room where no setting says otherwise: 300 messages of 14 KiB.
    pub const ROOM_BYTES: usize = 4 * 1024 * 1024;
    /// Bytes of all rooms of a node where no setting says otherwise.
    pub const TOTAL_BYTES: usize = 128 * 1024 * 1024;

    /// So many messages for so long, within the usual bounds of bytes.
    pub const fn new(messages: usize, age: Duration) -> Self {
        Self { messages, age, room_bytes: Self::ROOM_BYTES, total_bytes: Self::TOTAL_BYTES }
    }
}

/// What a ring has for a reader of history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The page, as far as the ring reaches.
    pub page: Page,
    /// Nothing of the room's epoch that was asked for lies further back than the ring reaches: no deeper store would answer
    /// otherwise.
    pub whole: bool,
}

/// What a message costs beside its payload, info and room name: the entry, its shared buffers, its share of the tables.
const MESSAGE_OVERHEAD_BYTES: usize = 256;
/// Epochs that a ring remembers beside the one that counts. Each ends with a restarted broker.
const EPOCHS_MAX: usize = 8;

/// A stretch of one epoch.
#[derive(Debug)]
struct Stretch {
    /// Counts the stretches of a ring.
    generation: u64,
    epoch: u64,
    /// Whoever stands at this offset or later finds everything that came after in the ring.
    complete_from: u64,
    /// The last offset so far.
    top: u64,
}

/// A message that is kept.
#[derive(Debug)]
struct Entry {
    message: Message,
    /// The stretch that it belongs to.
    generation: u64,
    /// Its offset; of a message without a position, the last offset before it.
    place: u64,
    kept_since: Instant,
}

impl Entry {
    fn has_position(&self) -> bool {
        self.message.position.offset > 0
    }

    fn bytes(&self) -> usize {
        let envelope = &self.message.envelope;
        MESSAGE_OVERHEAD_BYTES + envelope.room.as_str().len() + envelope.info.len() + envelope.payload.len()
    }
}

/// The tail of one room.
#[derive(Debug)]
pub struct Ring {
    limits: Limits,
    /// Each offset is one more than the last.
    dense: bool,
    /// Epochs that ended without a loss, oldest first.
    older: VecDeque<Stretch>,
    current: Stretch,
    /// In the room's order. Without holes: whatever shows a loss empties the ring.
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Ring {
    /// An empty ring of a room that stands at `top`. Everything that comes from here on will be pushed. Members that stand at
    /// `complete_from` or later have missed nothing before: that is `top.offset` where every message has a position, and
    /// `top.offset + 1` where one without a position may have come since.
    pub fn new(limits: Limits, dense: bool, top: Position, complete_from: u64) -> Self {
        let current = Stretch { generation: 0, epoch: top.epoch, complete_from, top: top.offset };
        Self { limits, dense, older: VecDeque::new(), current, entries: VecDeque::new(), bytes: 0 }
    }

    /// The room's next message. Where positions are dense, one that does not follow the last shows a loss: the ring begins anew
    /// with it. So does one of another epoch that was not announced. One at or below the top is known already.
    pub fn push(&mut self, message: &Message, now: Instant) {
        let place = if message.position.offset == 0 {
            self.current.top
        } else if self.advance(message.position) {
            message.position.offset
        } else {
            return;
        };
        let generation = self.current.generation;
        let entry = Entry { message: message.clone(), generation, place, kept_since: now };
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        self.trim(now);
    }

    /// Nothing comes at this position.
    pub fn skip(&mut self, position: Position) {
        self.advance(position);
    }

    /// Moves the top to `position`; false if it is there or beyond already.
    fn advance(&mut self, position: Position) -> bool {
        let same = position.epoch == self.current.epoch;
        if same && position.offset <= self.current.top {
            return false;
        }
        if same && (!self.dense || position.offset == self.current.top + 1) {
            self.current.top = position.offset;
        } else {
            // What was lost may have held messages without a position behind the one before this.
            self.restart(position, position.offset);
        }
        true
    }

    /// Messages before offset `to` may be missing, of whatever epoch: members must stand at `to` or later.
    pub fn lost(&mut self, to: u64) {
        if to <= self.current.complete_from && self.older.is_empty() {
            return;
        }
        if to > self.current.top {
            let top =
                Position { epoch: self.current.epoch, offset: self.current.top.max(to.saturating_sub(1)) };
            return self.restart(top, to);
        }
        self.older.clear();
        let generation = self.current.generation;
        while let Some(first) = self.entries.front()
            && (first.generation < generation || first.place < to)
        {
            self.drop_first();
        }
        self.current.complete_from = self.current.complete_from.max(to);
    }

    /// The numbering starts anew with offset 1 of `epoch`, and nothing is missing in between.
    pub fn renumber(&mut self, epoch: u64) {
        if epoch == self.current.epoch {
            return;
        }
        let generation = self.current.generation + 1;
        let next = Stretch { generation, epoch, complete_from: 0, top: 0 };
        self.older.push_back(std::mem::replace(&mut self.current, next));
        if self.older.len() > EPOCHS_MAX {
            self.older.pop_front();
        }
    }

    /// Forgets all messages. Members that have seen the last one still miss nothing.
    pub fn clear(&mut self) {
        while !self.entries.is_empty() {
            self.drop_first();
        }
    }

    /// Drops what is too old, and what is too much.
    pub fn trim(&mut self, now: Instant) {
        while let Some(first) = self.entries.front()
            && (self.entries.len() > self.limits.messages
                || self.bytes > self.limits.room_bytes
                || now.saturating_duration_since(first.kept_since) >= self.limits.age)
        {
            self.drop_first();
        }
    }

    fn restart(&mut self, top: Position, complete_from: u64) {
        self.entries.clear();
        self.bytes = 0;
        self.older.clear();
        let generation = self.current.generation + 1;
        self.current = Stretch { generation, epoch: top.epoch, complete_from, top: top.offset };
    }

    fn drop_first(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= entry.bytes();
        while self.older.front().is_some_and(|older| older.generation < entry.generation) {
            self.older.pop_front();
        }
        let stretch = self.older.front_mut().unwrap_or(&mut self.current);
        if stretch.generation == entry.generation {
            // One without a position may or may not have been seen by a member that stands at its place.
            let seen_from = if entry.has_position() { entry.place } else { entry.place + 1 };
            stretch.complete_from = stretch.complete_from.max(seen_from);
        }
    }

    /// Everything after `since`, as [`History::resume`](crate::History::resume) answers it; `None` if the ring does not reach
    /// back so far. See [`Rings::after`].
    pub fn after(&self, since: Position, stands: Position, limit: usize) -> Option<Resumed> {
        let top = self.top_with(stands)?;
        let current = Some(&self.current).filter(|current| current.epoch == since.epoch);
        let stretch = current.or_else(|| self.older.iter().rev().find(|older| older.epoch == since.epoch))?;
        let reached = if current.is_some() { top.offset } else { stretch.top };
        if since.offset < stretch.complete_from || since.offset > reached {
            return None;
        }
        let first = self.first_after(stretch.generation, since.offset);
        // Nobody knows whether a member that stands right before it has seen it.
        let unsure = self.entries.get(first).is_some_and(|entry| !entry.has_position());
        if unsure || self.entries.len() - first > limit {
            return Some(Resumed::Incomplete { top });
        }
        let messages = self.entries.range(first..).map(|entry| entry.message.clone()).collect();
        Some(Resumed::Complete { messages, top })
    }

    /// A page of what is here. See [`Rings::page`].
    pub fn page(&self, query: PageQuery, stands: Position) -> Held {
        let Some(top) = self.top_with(stands) else {
            return Held { page: Page { top: stands, ..Page::default() }, whole: query.limit == 0 };
        };
        if query.since.is_some_and(|since| since.epoch != top.epoch) {
            return Held { page: Page { top, foreign: true, ..Page::default() }, whole: true };
        }
        let generation = self.current.generation;
        let from_the_first = self.current.complete_from == 0;
        let message = |entry: &Entry| entry.message.clone();
        let (messages, whole) = if query.reverse {
            let before =
                |offset| self.entries.partition_point(|e| e.generation < generation || e.place < offset);
            let end = query.since.map_or(self.entries.len(), |since| before(since.offset));
            let messages: Vec<_> = self.entries.range(..end).rev().take(query.limit).map(message).collect();
            let whole = messages.len() == query.limit || from_the_first;
            (messages, whole)
        } else {
            let start = query.since.map_or(0, |since| self.first_after(generation, since.offset));
            let messages = self.entries.range(start..).take(query.limit).map(message).collect();
            let reached = self.current.complete_from..=top.offset;
            (messages, query.since.map_or(from_the_first, |since| reached.contains(&since.offset)))
        };
        Held { page: Page { messages, top, foreign: false }, whole: whole || query.limit == 0 }
    }

    /// Where a message that is still here stands.
    pub fn position_of(&self, id: MessageId) -> Option<Position> {
        self.entries
            .iter()
            .rev()
            .map(|entry| &entry.message)
            .find(|m| m.envelope.id == id)
            .map(|m| m.position)
    }

    /// Where the room stands by what was pushed.
    pub fn top(&self) -> Position {
        Position { epoch: self.current.epoch, offset: self.current.top }
    }

    /// What the messages cost.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where the room stands, if everything up to what the caller knows was pushed.
    fn top_with(&self, stands: Position) -> Option<Position> {
        let top = self.top();
        if stands.epoch == top.epoch {
            let behind = self.dense && stands.offset > top.offset;
            return (!behind).then_some(Position { offset: top.offset.max(stands.offset), ..top });
        }
        // The caller looked before the epoch changed, or this ring has not heard of the change.
        self.older.iter().any(|older| older.epoch == stands.epoch).then_some(top)
    }

    /// Index of the first message that a member at `offset` of a stretch has not seen for sure.
    fn first_after(&self, generation: u64, offset: u64) -> usize {
        self.entries.partition_point(|entry| {
            let seen = entry.place < offset || (entry.place == offset && entry.has_position());
            entry.generation < generation || (entry.generation == generation && seen)
        })
    }
}
