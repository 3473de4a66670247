//! Two paths into one order: the live path and the log, merged per room by sequence. Pure but for the clock it is given.
//!
//! What comes first is delivered, what comes second is dropped. A hole in the sequence is held until the other path fills
//! it, or until patience ends and it is declared as a gap. See the strategy's documentation for why this is enough.

mod asked;
mod bounds;
mod parked;
mod patience;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::bounds::weight;
use super::line::{Held, Line, Room, SEQUENCED, What, position};
use crate::backplane::{Envelope, Event, Message, Position, RoomId};
use crate::dedup::DedupWindow;
use crate::envelope::View;
use crate::stats::Stats;

/// Where a message stands in the log.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) partition: usize,
    pub(super) offset: i64,
    /// The broker's time of the record, in ms.
    pub(super) time_ms: Option<i64>,
}

/// The merge of all rooms of a node.
pub(super) struct Merge {
    rooms: HashMap<RoomId, Room>,
    /// Rooms that hold something.
    holding: HashSet<RoomId>,
    /// Bytes of what all rooms hold.
    held_bytes: usize,
    /// Live messages of all rooms whose records were not read yet.
    unlogged: usize,
    /// Ids of what was delivered, or recognised.
    seen: DedupWindow,
    /// Ids that the log brought without a position before anybody here was in their rooms. They are older than any join
    /// that follows, so they are not new when a Redis that was frozen carries them out live. Apart from `seen`, which an outage
    /// would fill with those of all rooms.
    older: DedupWindow,
    /// The offset to be read next, per partition.
    tail: Vec<i64>,
    /// The broker's time of the newest record read, per partition.
    newest_ms: Vec<Option<i64>>,
    /// When the last record was read, per partition.
    read_at: Vec<Option<Instant>>,
    patience: Duration,
    /// Positions are reserved before the log has their messages. Then a top tells nothing about what must have arrived, and
    /// what comes after its place was given up is still delivered, without a position: both paths carry a publisher's messages
    /// in its order, so nothing of the same publisher has overtaken it.
    reserved: bool,
    log_broken: bool,
    /// When the log could be read again, the last time.
    log_back_at: Option<Instant>,
    /// Live links that are down.
    interrupted: usize,
    stats: Arc<Stats>,
    out: Vec<Event>,
}

impl Merge {
    pub(super) fn new(
        tail: Vec<i64>,
        patience: Duration,
        reserved: bool,
        remembered: usize,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            rooms: HashMap::new(),
            holding: HashSet::new(),
            held_bytes: 0,
            unlogged: 0,
            seen: DedupWindow::new(remembered),
            older: DedupWindow::new(remembered),
            newest_ms: vec![None; tail.len()],
            read_at: vec![None; tail.len()],
            tail,
            patience,
            reserved,
            log_broken: false,
            log_back_at: None,
            interrupted: 0,
            stats,
            out: Vec::new(),
        }
    }

    /// What is to be delivered, in order.
    pub(super) fn out(&mut self) -> &mut Vec<Event> {
        &mut self.out
    }

    /// The node wants a room from now on.
    pub(super) fn join(&mut self, room: &RoomId, partition: usize) {
        let since = self.tail.get(partition).copied().unwrap_or_default();
        let blind = self.interrupted > 0;
        self.forget_room(room);
        self.rooms.insert(room.clone(), Room::new(room.clone(), partition, since, blind));
    }

    /// The join found the live path down; the log ended at `end` then.
    pub(super) fn join_by_log(&mut self, room: &RoomId, end: i64) {
        if let Some(room) = self.rooms.get_mut(room) {
            room.blind = true;
            room.since = room.since.max(end);
        }
    }

    /// The node does not want the room any more.
    pub(super) fn leave(&mut self, room: &RoomId) {
        self.forget_room(room);
    }

    /// A live link broke.
    pub(super) fn interrupted(&mut self, now: Instant) {
        self.interrupted += 1;
        // From here on the log alone says what follows.
        self.unpark_all(now);
    }

    /// A live link is back.
    pub(super) fn reconnected(&mut self) {
        self.interrupted = self.interrupted.saturating_sub(1);
        self.out.push(Event::Reconnected);
    }

    /// The live path stands at `top`, and what follows will come.
    pub(super) fn top(&mut self, id: &RoomId, top: Position, now: Instant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        match room.line_of(top.epoch) {
            None if room.blind => {
                // Up to the top everything since the join is in the log, from an unknown offset on.
                let line = room.begin(top.epoch, top.offset, top.offset + 1);
                room.pause(line, top.offset, now);
                room.blind = false;
            }
            None if room.lines.is_empty() => drop(room.begin(top.epoch, top.offset, 0)),
            None => drop(room.begin(top.epoch, 0, 0)),
            Some(line) if top.offset > line.reached && !self.reserved => room.mark(line, top.offset, now),
            Some(_) => {}
        }
        self.unpark(id, now);
        self.drain(id);
    }

    /// The live path lost `from..to`, or started a new epoch.
    pub(super) fn missing(&mut self, id: &RoomId, epoch: u64, from: u64, to: u64, now: Instant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let line = match room.line_of(epoch) {
            Some(line) => line,
            None if room.lines.is_empty() => room.begin(epoch, from.saturating_sub(1), 0),
            None => room.begin(epoch, 0, 0),
        };
        if from < to && to - 1 > line.reached && !self.reserved {
            room.mark(line, to - 1, now);
        }
        self.unpark(id, now);
        self.drain(id);
    }

    /// A message of the live path. It follows the log up to `fence`.
    pub(super) fn live(&mut self, id: &RoomId, at: Position, fence: i64, view: &View<'_>, now: Instant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let line = match room.line_of(at.epoch) {
            Some(line) => line,
            None => {
                // A new epoch starts at 1; before the first top nothing is known.
                let known = !room.lines.is_empty() && !room.is_past(at.epoch);
                room.begin(at.epoch, if known { 0 } else { at.offset - 1 }, 0)
            }
        };
        room.hear(line, at.offset);
        self.unpark(id, now);
        // What was parked may have moved it.
        let line = self.rooms.get(id).and_then(|room| room.line_of(at.epoch)).unwrap_or(line);
        self.offer(id, line, at.offset, || view.to_envelope(), Some(fence), now);
    }

    /// A record of the log.
    pub(super) fn log(&mut self, place: Place, view: &View<'_>, now: Instant) {
        if let Some(tail) = self.tail.get_mut(place.partition) {
            *tail = place.offset + 1;
        }
        if let Some(newest) = self.newest_ms.get_mut(place.partition) {
            *newest = place.time_ms.or(*newest);
        }
        if let Some(read_at) = self.read_at.get_mut(place.partition) {
            *read_at = Some(now);
        }
        self.logged(view.room, view.id);
        let listening = self.interrupted == 0;
        let joined = self.rooms.get_mut(view.room).filter(|room| place.offset >= room.since);
        let Some(room) = joined else {
            if view.position.is_none() {
                self.older.insert(view.id);
            }
            return;
        };
        let id = room.id.clone();
        let Some(at) = view.position else {
            return if room.parked.is_empty() {
                self.log_only(&id, view.to_envelope(), now)
            } else {
                self.park(&id, view, now)
            };
        };
        let line = match room.line_of(at.epoch) {
            Some(line) => line,
            // Late: its line has ended.
            None if room.is_past(at.epoch) => {
                return self.deliver(view.to_envelope(), &id, Position::default(), None);
            }
            // The live path knows better which one comes next.
            None if listening && !room.lines.is_empty() => return self.park(&id, view, now),
            None if room.lines.is_empty() => room.begin(at.epoch, at.offset - 1, at.offset),
            None => room.begin(at.epoch, 0, 0),
        };
        self.offer(&id, line, at.offset, || view.to_envelope(), None, now);
    }

    /// A message that has no place in the sequence: its publisher could not reach the live path.
    fn log_only(&mut self, id: &RoomId, envelope: Envelope, now: Instant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        match room.behind_logged() {
            Some(key) => {
                let what = What::LogOnly { envelope };
                self.hold(id, key, Held { what, since: now });
                self.relieve(id);
            }
            None => self.deliver(envelope, id, Position::default(), None),
        }
    }

    /// A message with a place in the sequence: out of the log, or live behind a fence.
    fn offer(
        &mut self,
        id: &RoomId,
        line: Line,
        offset: u64,
        envelope: impl FnOnce() -> Envelope,
        fence: Option<i64>,
        now: Instant,
    ) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        if offset <= line.reached {
            if offset < line.floor {
                let shown = fence.is_some().then_some((line.generation, offset));
                return self.deliver(envelope(), id, Position::default(), shown);
            }
            return self.stats.duplicates_removed.add(1);
        }
        let (logged, live, fence) = (fence.is_none(), fence.is_some(), fence.unwrap_or(0));
        let free = fence <= self.tail.get(room.partition).copied().unwrap_or(i64::MAX);
        let current = room.lines.front_mut().filter(|front| front.generation == line.generation);
        if let Some(current) = current
            && room.held.is_empty()
            && free
            && offset == current.reached + 1
        {
            current.reached = offset;
            let shown = live.then_some((line.generation, offset));
            return self.deliver(envelope(), id, position(line, offset), shown);
        }
        match room.held.get_mut(&(line.generation, offset, SEQUENCED)) {
            Some(Held { what: What::Sequenced { logged: in_log, live: came_live, .. }, .. }) => {
                (*in_log, *came_live) = (*in_log || logged, *came_live || live);
                self.stats.duplicates_removed.add(1);
            }
            _ => {
                let what = What::Sequenced { envelope: envelope(), fence, logged, live };
                self.hold(id, (line.generation, offset, SEQUENCED), Held { what, since: now });
            }
        }
        self.relieve(id);
    }

    /// Delivers a message unless another copy of it was. The default position is for what has no place among the others.
    /// `shown` is the place of one that came live alone so far: line and offset.
    fn deliver(&mut self, envelope: Envelope, id: &RoomId, at: Position, shown: Option<(u32, u64)>) {
        let is_older = shown.is_some() && self.older.contains(envelope.id);
        if is_older || !self.seen.insert(envelope.id) {
            if at != Position::default() {
                self.out.push(Event::Skipped { room: id.clone(), position: at });
            }
            return self.stats.duplicates_removed.add(1);
        }
        debug_assert_eq!(&envelope.room, id, "a room's messages are its own");
        if let Some(place) = shown {
            self.show(id, envelope.id, place);
        }
        self.stats.envelopes_wanted.add(1);
        self.out.push(Event::Message(Message { envelope, position: at }));
    }

    /// Delivers what waits, as far as its turn has come.
    fn drain(&mut self, id: &RoomId) {
        while let Some(room) = self.rooms.get_mut(id)
            && let Some(entry) = room.held.first_entry()
        {
            let (generation, offset, _) = *entry.key();
            if let Some(epoch) = room.advance_to(generation) {
                self.out.push(Event::Renumbered { room: id.clone(), epoch });
            }
            let tail = self.tail.get(room.partition).copied().unwrap_or(i64::MAX);
            let reached = room.current().map_or(0, |line| line.reached);
            let turn = match room.held.first_key_value().map(|(_, held)| &held.what) {
                Some(What::Sequenced { fence, .. }) => {
                    offset <= reached || (offset == reached + 1 && *fence <= tail)
                }
                Some(What::LogOnly { .. } | What::Marker) => offset <= reached,
                Some(What::Pause) | None => false,
            };
            if !turn {
                self.holding.insert(id.clone());
                return;
            }
            self.take_first(id);
        }
        if self.rooms.get(id).is_none_or(|room| room.parked.is_empty()) {
            self.holding.remove(id);
        }
    }

    /// Takes the first of what waits, whatever is missing before it.
    fn take_first(&mut self, id: &RoomId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let Some(((_, offset, _), held)) = room.held.pop_first() else { return };
        if let What::Sequenced { envelope, .. } | What::LogOnly { envelope } = &held.what {
            self.remove_weight(id, weight(envelope));
        }
        let Some(line) = self.rooms.get_mut(id).and_then(|room| room.lines.front_mut()) else { return };
        let complete_to = match &held.what {
            What::Sequenced { .. } => offset - 1,
            What::Pause => line.reached,
            What::LogOnly { .. } | What::Marker => offset,
        };
        let (from, to) = (line.reached + 1, complete_to + 1);
        line.reached = line.reached.max(complete_to);
        if self.reserved && from < to {
            line.floor = line.floor.max(to);
        }
        let line_now = *line;
        if from < to {
            self.stats.gaps.add(1);
            self.stats.gap_messages.add(to - from);
            self.out.push(Event::Gap { room: id.clone(), from, to });
        }
        match held.what {
            What::Sequenced { envelope, live, logged, .. } if offset > line_now.reached => {
                line.reached = offset;
                let shown = (live && !logged).then_some((line_now.generation, offset));
                if !live && offset <= line_now.heard {
                    self.count_repaired(id, line_now.generation, offset);
                }
                self.deliver(envelope, id, position(line_now, offset), shown);
            }
            What::Sequenced { .. } => self.stats.duplicates_removed.add(1),
            What::LogOnly { envelope } => self.deliver(envelope, id, Position::default(), None),
            What::Marker | What::Pause => {}
        }
    }
}
