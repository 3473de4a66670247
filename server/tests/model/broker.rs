//! The simulated broker: it accepts every message into one order per room, numbers it, and keeps it. What it has accepted is
//! the truth that the oracle judges by.

use std::collections::{BTreeMap, HashMap};

use manifold_strategies::{Envelope, Event, Message, MessageId, Page, PageQuery, Position, Resumed, RoomId};

use crate::link::Link;
use crate::steps::{Numbers, Setup};

/// Epoch of the first numbering of every room; each new one counts up.
const DENSE_EPOCH: u64 = 100;
const RISING_EPOCH: u64 = 50;
/// Link `n` reads the copy with this epoch + `n`.
const COPY_EPOCH: u64 = 1_000;

/// Rooms that nodes use among themselves.
pub(crate) fn is_hidden(room: &RoomId) -> bool {
    room.as_str().starts_with(char::is_control)
}

/// An accepted message.
pub(crate) struct Entry {
    pub(crate) envelope: Envelope,
    dense: Position,
    /// Its place among the messages of all rooms.
    pub(crate) sequence: u64,
}

/// A room.
pub(crate) struct Log {
    /// All that was accepted.
    pub(crate) entries: Vec<Entry>,
    /// What history still has begins here.
    pub(crate) kept_from: usize,
    /// Dense numberings, and with which entry each began.
    epochs: Vec<(u64, usize)>,
    /// The last dense offset that was given out.
    offset: u64,
    ids: HashMap<MessageId, usize>,
}

impl Default for Log {
    fn default() -> Self {
        let epochs = vec![(DENSE_EPOCH, 0)];
        Self { entries: Vec::new(), kept_from: 0, epochs, offset: 0, ids: HashMap::new() }
    }
}

impl Log {
    fn epoch(&self) -> u64 {
        self.epochs.last().expect("there is always one").0
    }

    fn dense_top(&self) -> Position {
        Position { epoch: self.epoch(), offset: self.offset }
    }
}

/// Everything that nodes share.
pub(crate) struct Broker {
    pub(crate) setup: Setup,
    pub(crate) rooms: BTreeMap<RoomId, Log>,
    /// Messages of all rooms.
    pub(crate) sequence: u64,
    pub(crate) links: Vec<Link>,
    pub(crate) ack_ms: u64,
}

impl Broker {
    pub(crate) fn new(setup: Setup) -> Self {
        Self { setup, rooms: BTreeMap::new(), sequence: 0, links: Vec::new(), ack_ms: 0 }
    }

    /// Takes a message in and sends it on its way to every node. A repeat changes nothing. Says which of the room's it is.
    pub(crate) fn accept(&mut self, envelope: Envelope) -> usize {
        let room = envelope.room.clone();
        let log = self.rooms.entry(room.clone()).or_default();
        if let Some(index) = log.ids.get(&envelope.id) {
            return *index;
        }
        self.sequence += 1;
        log.offset += 1;
        let index = log.entries.len();
        log.ids.insert(envelope.id, index);
        let dense = log.dense_top();
        log.entries.push(Entry { envelope, dense, sequence: self.sequence });
        for link in 0..self.links.len() {
            if self.links[link].hears(&room) {
                let message = self.message(&room, index, link);
                self.links[link].send(message, index, self.sequence, self.setup.numbers);
            }
        }
        index
    }

    /// A message as a link sees it.
    pub(crate) fn message(&self, room: &RoomId, index: usize, link: usize) -> Message {
        let entry = &self.rooms[room].entries[index];
        let position = match self.setup.numbers {
            Numbers::Dense => entry.dense,
            Numbers::Rising | Numbers::Copies => self.rising(entry.sequence, link),
        };
        Message { envelope: entry.envelope.clone(), position }
    }

    /// The position of a place in the log as a link sees it.
    pub(crate) fn rising(&self, sequence: u64, link: usize) -> Position {
        match self.setup.numbers {
            Numbers::Copies => {
                let link = link as u64;
                Position { epoch: COPY_EPOCH + link, offset: copied(sequence, link) }
            }
            _ => Position { epoch: RISING_EPOCH, offset: sequence },
        }
    }

    /// Where a room stands as a link sees it.
    pub(crate) fn top(&mut self, room: &RoomId, link: usize) -> Position {
        match self.setup.numbers {
            Numbers::Dense => self.rooms.entry(room.clone()).or_default().dense_top(),
            Numbers::Rising | Numbers::Copies => self.rising(self.sequence, link),
        }
    }

    /// How many messages of a room lie at a position or before it. `None`: there is no such position.
    pub(crate) fn count_at(&self, room: &RoomId, position: Position) -> Option<usize> {
        let none = Log::default();
        let log = self.rooms.get(room).unwrap_or(&none);
        let by_sequence = |last: u64| log.entries.partition_point(|entry| entry.sequence <= last);
        match self.setup.numbers {
            Numbers::Dense => {
                let number = log.epochs.iter().position(|(epoch, _)| *epoch == position.epoch)?;
                let end = log.epochs.get(number + 1).map_or(log.entries.len(), |(_, first)| *first);
                let first = log.epochs[number].1;
                let current = number + 1 == log.epochs.len();
                if current && position.offset > log.offset {
                    return None;
                }
                let of_epoch = &log.entries[first..end];
                Some(first + of_epoch.partition_point(|entry| entry.dense.offset <= position.offset))
            }
            Numbers::Rising => (position.epoch == RISING_EPOCH && position.offset <= self.sequence)
                .then(|| by_sequence(position.offset)),
            Numbers::Copies => {
                let link = position.epoch.checked_sub(COPY_EPOCH)?;
                (usize::try_from(link).ok()? < self.links.len()).then(|| {
                    log.entries.partition_point(|entry| copied(entry.sequence, link) <= position.offset)
                })
            }
        }
    }

    pub(crate) fn resume(&mut self, room: &RoomId, since: Position, limit: usize, link: usize) -> Resumed {
        let top = self.top(room, link);
        if let Some(remembered) = self.links[link].remembered(room, since, top, limit) {
            return remembered;
        }
        let Some(first) = self.count_at(room, since) else { return Resumed::Incomplete { top } };
        let log = &self.rooms.entry(room.clone()).or_default();
        if first < log.kept_from || log.entries.len() - first > limit {
            return Resumed::Incomplete { top };
        }
        let indices = first..log.entries.len();
        Resumed::Complete { messages: indices.map(|index| self.message(room, index, link)).collect(), top }
    }

    pub(crate) fn page(&mut self, room: &RoomId, query: PageQuery, link: usize) -> Page {
        let top = self.top(room, link);
        if query.since.is_some_and(|since| since.epoch != top.epoch) {
            return Page { messages: Vec::new(), top, foreign: true };
        }
        let log = &*self.rooms.entry(room.clone()).or_default();
        let mut messages: Vec<Message> =
            (log.kept_from..log.entries.len()).map(|index| self.message(room, index, link)).collect();
        messages.retain(|message| match query.since {
            None => true,
            Some(since) if query.reverse => message.position.offset < since.offset,
            Some(since) => message.position.epoch == top.epoch && message.position.offset > since.offset,
        });
        if query.reverse {
            messages.reverse();
        }
        messages.truncate(query.limit);
        Page { messages, top, foreign: false }
    }

    pub(crate) fn evict(&mut self, room: &RoomId, keep: usize) {
        let log = self.rooms.entry(room.clone()).or_default();
        log.kept_from = log.kept_from.max(log.entries.len().saturating_sub(keep));
    }

    pub(crate) fn renumber(&mut self, room: &RoomId) {
        if self.setup.numbers != Numbers::Dense {
            return;
        }
        let log = self.rooms.entry(room.clone()).or_default();
        let epoch = log.epoch() + 1;
        log.epochs.push((epoch, log.entries.len()));
        log.offset = 0;
        let links = self.links.iter_mut().filter(|link| link.hears(room));
        links.for_each(|link| link.renumber(room, epoch));
    }

    pub(crate) fn skip(&mut self, room: &RoomId) {
        if self.setup.numbers != Numbers::Dense {
            return;
        }
        let log = self.rooms.entry(room.clone()).or_default();
        log.offset += 1;
        let position = log.dense_top();
        let skipped = Event::Skipped { room: room.clone(), position };
        let links = self.links.iter_mut().filter(|link| link.hears(room));
        links.for_each(|link| link.queue(skipped.clone(), 0));
    }
}

/// The offset of a place in the log in link `link`'s copy of it.
fn copied(sequence: u64, link: u64) -> u64 {
    sequence * 3 + link * 7
}
