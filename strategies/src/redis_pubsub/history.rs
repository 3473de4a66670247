//! A room's history out of its stream: what is asked, how answers are read, and when nothing is missing.
//!
//! Offsets are dense and the stream's ids, so whether something is missing can be seen: behind the place that a member
//! reached, the next entry has the next offset, and the last one has the offset of the room's head, read in the same step.
//! Anything else (trimmed, expired, of another epoch, never kept) is a hole, and what spans it is not complete.
//!
//! One answer of the script is bounded in bytes; large histories take several. Each is one moment in Redis, and goes on
//! exactly where the one before ended, so several are as good as one.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;

use super::live::Shared;
use super::sequence::{HEAD_BYTES, split_head};
use crate::backplane::{Envelope, Message, MessageId, Page, PageQuery, Position, Resumed, RoomId};
use crate::clients::redis::Value;
use crate::error::{Error, ErrorKind, Result};

/// Bytes after which the script reads no further: what holds up the server's other clients, and a few large entries more.
const ENOUGH_BYTES: usize = 1024 * 1024;
/// Bytes of messages that one call collects at most; a resume that needs more is incomplete, a page shorter.
const COLLECTED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Entries that one call collects at most.
const COLLECTED_MAX: usize = 20_000;

/// What the script is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// Start behind this place; without one at the end of the stream that comes first.
    since: Option<Position>,
    limit: usize,
    reverse: bool,
    /// Nothing at all if more than `limit` offsets lie behind `since`.
    all: bool,
}

impl Question {
    /// For at most `limit` messages behind `since`, as far as they are there.
    pub(super) fn behind(since: Position, limit: usize) -> Self {
        Self { since: Some(since), limit, reverse: false, all: false }
    }

    /// Entries at most.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// As the script takes it, behind the keys, the epoch to draw, the head's time to live and the server's life.
    pub(super) fn arguments(&self) -> [Vec<u8>; 7] {
        let epoch = self.since.map_or_else(Vec::new, |since| since.epoch.to_be_bytes().to_vec());
        let offset = self.since.map_or(0, |since| since.offset);
        let place = match (self.since, self.reverse) {
            (Some(_), _) => format!("({offset}-0"),
            (None, true) => "+".to_owned(),
            (None, false) => "-".to_owned(),
        };
        // Nothing stands before the first message, and there is no id to say so.
        let limit = if self.since.is_some() && self.reverse && offset == 0 { 0 } else { self.limit };
        let verb = if self.reverse { "XREVRANGE" } else { "XRANGE" };
        let most = if self.all { self.limit.to_string() } else { String::new() };
        [
            epoch,
            place.into_bytes(),
            limit.to_string().into_bytes(),
            ENOUGH_BYTES.to_string().into_bytes(),
            verb.as_bytes().to_vec(),
            most.into_bytes(),
            offset.to_string().into_bytes(),
        ]
    }
}

/// What the script answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    top: Position,
    entries: Vec<Entry>,
}

/// An entry of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    position: Position,
    body: Bytes,
}

impl Answer {
    /// Reads a reply: the head, and the entries as Redis gives them.
    pub(super) fn read(reply: &Value) -> Result<Self> {
        let read = || {
            let Value::Array(parts) = reply else { return None };
            let [Value::Text(head), Value::Array(entries)] = parts.as_slice() else { return None };
            let (top, _) = split_head(head).filter(|_| head.len() == HEAD_BYTES)?;
            let entries = entries.iter().map(Entry::read).collect::<Option<Vec<_>>>()?;
            Some(Self { top, entries })
        };
        read().ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "history", "Redis holds something else where a room's history is")
        })
    }

    /// The script had no reason to stop but the end of the stream.
    pub(super) fn is_last(&self, asked: usize) -> bool {
        let bytes: usize = self.entries.iter().map(|entry| entry.body.len()).sum();
        self.entries.len() < asked && bytes < ENOUGH_BYTES
    }

    /// What was read, as it was published.
    pub(super) fn into_entries(self) -> impl Iterator<Item = (Position, Bytes)> {
        self.entries.into_iter().map(|Entry { position, body }| (position, body))
    }
}

impl Entry {
    /// Reads `[id, [epoch, body]]`.
    fn read(entry: &Value) -> Option<Self> {
        let Value::Array(entry) = entry else { return None };
        let [Value::Text(id), Value::Array(field)] = entry.as_slice() else { return None };
        let [Value::Text(epoch), Value::Text(body)] = field.as_slice() else { return None };
        let offset = std::str::from_utf8(id).ok()?.strip_suffix("-0")?.parse().ok()?;
        let epoch = u64::from_be_bytes(epoch[..].try_into().ok()?);
        Some(Self { position: Position { epoch, offset }, body: body.clone() })
    }
}

/// Everything behind `since`, if nothing is missing.
pub(super) async fn resume(
    shared: &Arc<Shared>,
    room: &RoomId,
    since: Position,
    limit: usize,
) -> Result<Resumed> {
    let mut resuming = Resuming::new(since, limit);
    loop {
        let answer = shared.read(room, &resuming.question()).await?;
        if let Some(resumed) = resuming.take(answer, |body| envelope(shared, room, body)) {
            return Ok(resumed);
        }
    }
}

/// A page of what is kept.
pub(super) async fn page(shared: &Arc<Shared>, room: &RoomId, query: PageQuery) -> Result<Page> {
    let mut paging = Paging::new(query);
    loop {
        let answer = shared.read(room, &paging.question()).await?;
        if let Some(page) = paging.take(answer, |body| envelope(shared, room, body)) {
            return Ok(page);
        }
    }
}

/// Reads a message of `room`.
fn envelope(shared: &Shared, room: &RoomId, body: &[u8]) -> Option<Envelope> {
    match shared.wire.read(body) {
        Ok(view) if view.room == room.as_str() => Some(view.to_envelope()),
        _ => {
            shared.stats.corrupt.add(1);
            None
        }
    }
}

/// Messages, as they come together.
#[derive(Debug, Default)]
struct Collected {
    messages: Vec<Message>,
    ids: HashSet<MessageId>,
    bytes: usize,
}

impl Collected {
    /// Adds a message, unless it is the repeat of one: receivers skip the second copy, and so does who comes back.
    fn add(&mut self, envelope: Envelope, position: Position) {
        self.bytes += envelope.payload.len() + envelope.info.len();
        if self.ids.insert(envelope.id) {
            self.messages.push(Message { envelope, position });
        }
    }

    fn is_full(&self) -> bool {
        self.bytes >= COLLECTED_BYTES_MAX
    }
}

/// A resume on its way.
#[derive(Debug)]
struct Resuming {
    since: Position,
    limit: usize,
    /// Everything up to here is collected.
    reached: u64,
    collected: Collected,
}

impl Resuming {
    fn new(since: Position, limit: usize) -> Self {
        let limit = limit.min(COLLECTED_MAX);
        Self { since, limit, reached: since.offset, collected: Collected::default() }
    }

    fn question(&self) -> Question {
        let taken = (self.reached - self.since.offset) as usize;
        let since = Some(Position { offset: self.reached, ..self.since });
        Question { since, limit: self.limit.saturating_sub(taken), reverse: false, all: true }
    }

    /// Takes an answer. Returns the outcome, or nothing if there is more to ask for.
    fn take(&mut self, answer: Answer, envelope: impl Fn(&[u8]) -> Option<Envelope>) -> Option<Resumed> {
        let Answer { top, entries } = answer;
        let incomplete = Some(Resumed::Incomplete { top });
        let behind = top.offset.checked_sub(self.since.offset);
        if top.epoch != self.since.epoch || behind.is_none_or(|behind| behind > self.limit as u64) {
            return incomplete;
        }
        let stuck = entries.is_empty();
        for Entry { position, body } in entries {
            let next = Position { epoch: top.epoch, offset: self.reached.wrapping_add(1) };
            match envelope(&body) {
                Some(envelope) if position == next => self.collected.add(envelope, position),
                _ => return incomplete,
            }
            self.reached = position.offset;
        }
        if self.reached == top.offset {
            let messages = std::mem::take(&mut self.collected.messages);
            return Some(Resumed::Complete { messages, top });
        }
        if stuck || self.reached > top.offset || self.collected.is_full() { incomplete } else { None }
    }
}

/// A page on its way.
#[derive(Debug)]
struct Paging {
    query: PageQuery,
    limit: usize,
    /// The last entry that was read.
    reached: Option<Position>,
    collected: Collected,
}

impl Paging {
    fn new(query: PageQuery) -> Self {
        Self { query, limit: query.limit.min(COLLECTED_MAX), reached: None, collected: Collected::default() }
    }

    fn question(&self) -> Question {
        Question {
            since: self.reached.or(self.query.since),
            limit: self.limit.saturating_sub(self.collected.messages.len()),
            reverse: self.query.reverse,
            all: false,
        }
    }

    /// Takes an answer. Returns the page, or nothing if there is more to ask for.
    fn take(&mut self, answer: Answer, envelope: impl Fn(&[u8]) -> Option<Envelope>) -> Option<Page> {
        let asked = self.question().limit;
        let top = answer.top;
        if self.query.since.is_some_and(|since| since.epoch != top.epoch) {
            return Some(Page { messages: Vec::new(), top, foreign: true });
        }
        if self.reached.is_some_and(|reached| reached.epoch != top.epoch) {
            // Numbering started anew meanwhile: nothing of the room's present epoch was seen.
            return Some(Page { messages: Vec::new(), top, foreign: false });
        }
        let (last, before) = (answer.is_last(asked), self.reached);
        for Entry { position, body } in answer.entries {
            // What an earlier epoch left behind does not count.
            if position.epoch != top.epoch {
                continue;
            }
            self.reached = Some(position);
            if let Some(envelope) = envelope(&body) {
                self.collected.add(envelope, position);
            }
        }
        let full = self.collected.messages.len() >= self.limit || self.collected.is_full();
        if !last && !full && self.reached != before {
            return None;
        }
        let messages = std::mem::take(&mut self.collected.messages);
        Some(Page { messages, top, foreign: false })
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
