//! Losses on the way to this node, made good from the rooms' streams before they are declared.
//!
//! A room with a hole before what arrives next stands still: what arrives is held, the hole is read back beside the live
//! connections and passed on, and then what was held, in the one order that Redis gave. What the stream has no more is
//! declared. Other rooms go on meanwhile.
//!
//! Everything is bounded: reads at a time, what a repair passes on, how long it may take, and what is held. Of what does not
//! fit the room only remembers how far it came. It is in the stream as well, so that it is one more hole, read back next.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::history::{Answer, Question};
use super::live::Shared;
use super::rooms::{Room, Rooms};
use super::sequence::{Missing, Top};
use super::wire::Inbound;
use crate::backplane::{BoxFuture, Position, RoomId};
use crate::error::Result;

/// Reads at a time, per lane: so few that they leave the server to its other clients.
const READS_MAX: usize = 4;
/// Bytes of messages that one repair passes on; what is missing behind them is declared.
const REPAIR_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Messages of a room held at a time.
const HELD_MESSAGES_MAX: usize = 4_096;
/// Bytes of messages held at a time, in all rooms of a lane.
const HELD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The repair that a room stands still for.
#[derive(Debug)]
pub(crate) struct Repair {
    /// Tells its reads from those of an earlier repair of the room.
    number: u64,
    /// Offset of the first message that is not missing.
    to: u64,
    /// When what is still missing is declared.
    until: Instant,
    /// Bytes that were passed on.
    bytes: usize,
    /// Something of it had to be declared.
    declared: bool,
    held: VecDeque<Held>,
    /// How far came what could not be held.
    beyond: Option<Position>,
    /// Bytes held here, and in all rooms.
    held_bytes: usize,
    held_bytes_in_all: Arc<AtomicUsize>,
}

/// What arrived in the meantime.
#[derive(Debug)]
enum Held {
    Message(Position, Bytes),
    Top(Position),
}

impl Repair {
    fn hold(&mut self, at: Position, body: &[u8]) {
        let fits = self.held.len() < HELD_MESSAGES_MAX
            && self.held_bytes_in_all.load(Relaxed) + body.len() <= HELD_BYTES_MAX;
        if self.beyond.is_some() || !fits {
            self.beyond = Some(at);
            return;
        }
        self.held_bytes += body.len();
        self.held_bytes_in_all.fetch_add(body.len(), Relaxed);
        // A copy: the bytes that arrived are part of all that was received with them.
        self.held.push_back(Held::Message(at, Bytes::copy_from_slice(body)));
    }

    fn hold_top(&mut self, top: Position) {
        if self.beyond.is_some() {
            self.beyond = Some(top);
        } else if let Some(Held::Top(last)) = self.held.back_mut() {
            *last = top;
        } else {
            self.held.push_back(Held::Top(top));
        }
    }

    /// Takes out what was held, in order.
    fn release(&mut self) -> VecDeque<Held> {
        let mut held = std::mem::take(&mut self.held);
        held.extend(self.beyond.take().map(Held::Top));
        held
    }
}

impl Drop for Repair {
    fn drop(&mut self) {
        self.held_bytes_in_all.fetch_sub(self.held_bytes, Relaxed);
    }
}

/// A read that waits for its turn.
struct Wanted {
    room: RoomId,
    number: u64,
    question: Question,
    until: Instant,
}

/// What was read.
pub(super) struct Read {
    room: RoomId,
    number: u64,
    asked: usize,
    answer: Result<Answer>,
}

/// The repairs of a lane, and how whatever arrives for a room passes them.
pub(super) struct Repairs {
    shared: Arc<Shared>,
    /// Whether there are streams to read, and one order that a hole can be filled in.
    possible: bool,
    waiting: VecDeque<Wanted>,
    running: FuturesUnordered<BoxFuture<'static, Read>>,
    held_bytes: Arc<AtomicUsize>,
    begun: u64,
}

impl Repairs {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: Arc::clone(shared),
            possible: shared.settings.keeps_history() && shared.wire.in_order(),
            waiting: VecDeque::new(),
            running: FuturesUnordered::new(),
            held_bytes: Arc::default(),
            begun: 0,
        }
    }

    /// A message arrived for a room whose place is known.
    pub(super) fn message(&mut self, room: &mut Room, at: Position, body: &[u8], inbound: &mut dyn Inbound) {
        if room.repair.is_none() {
            self.begin(room, at, inbound);
        }
        match &mut room.repair {
            Some(repair) => repair.hold(at, body),
            None => drop(self.pass(room, at, body, inbound)),
        }
    }

    /// The server told a room's top. Says so if it knows less than the node.
    pub(super) fn top(&mut self, room: &mut Room, top: Position, inbound: &mut dyn Inbound) -> Top {
        if room.repair.is_none() {
            self.begin(room, Position { offset: top.offset.saturating_add(1), ..top }, inbound);
        }
        if let Some(repair) = &mut room.repair {
            repair.hold_top(top);
            return Top::Reached;
        }
        compare(room, top, inbound)
    }

    /// Lets the room stand still if it can be read what is missing before `next`.
    fn begin(&mut self, room: &mut Room, next: Position, inbound: &mut dyn Inbound) {
        // Nobody waits for what a room without members missed.
        if !self.possible || !room.wanted {
            return;
        }
        let Some(since) = room.place.readable(next) else { return };
        if room.place.get().is_some_and(|last| last.epoch != since.epoch) {
            // The end of the epoch before is not to be had; what is new is.
            compare(room, since, inbound);
        }
        self.begun += 1;
        let repair = Repair {
            number: self.begun,
            to: next.offset,
            until: self.shared.deadline(),
            bytes: 0,
            declared: false,
            held: VecDeque::new(),
            beyond: None,
            held_bytes: 0,
            held_bytes_in_all: Arc::clone(&self.held_bytes),
        };
        self.want(&room.id, since, &repair);
        room.repair = Some(repair);
    }

    fn want(&mut self, room: &RoomId, since: Position, repair: &Repair) {
        let missing = usize::try_from(repair.to - since.offset - 1).unwrap_or(usize::MAX);
        let question = Question::behind(since, missing);
        let (room, number, until) = (room.clone(), repair.number, repair.until);
        self.waiting.push_back(Wanted { room, number, question, until });
        self.read_more();
    }

    fn read_more(&mut self) {
        while self.running.len() < READS_MAX
            && let Some(Wanted { room, number, question, until }) = self.waiting.pop_front()
        {
            let shared = Arc::clone(&self.shared);
            self.running.push(Box::pin(async move {
                let answer = shared.read_until(&room, &question, until).await;
                Read { room, number, asked: question.limit(), answer }
            }));
        }
    }

    /// Resolves when something was read.
    pub(super) async fn next(&mut self) -> Read {
        match self.running.next().await {
            Some(read) => read,
            None => std::future::pending().await,
        }
    }

    /// Passes on what was read, and what was held if that was all.
    pub(super) fn take(&mut self, read: Read, rooms: &mut Rooms, inbound: &mut dyn Inbound) {
        self.read_more();
        let Some(room) = rooms.get_mut(read.room.as_str()) else { return };
        let Some(repair) = room.repair.take_if(|repair| repair.number == read.number) else { return };
        match read.answer {
            Ok(answer) => self.fill(room, repair, answer, read.asked, inbound),
            Err(error) => {
                tracing::warn!(%error, room = %room.id, "what was lost cannot be read back");
                self.finish(room, repair, true, inbound);
            }
        }
    }

    fn fill(
        &mut self,
        room: &mut Room,
        mut repair: Repair,
        answer: Answer,
        asked: usize,
        inbound: &mut dyn Inbound,
    ) {
        let is_last = answer.is_last(asked);
        let before = room.place.get();
        for (position, body) in answer.into_entries() {
            let expected = room.place.get().is_some_and(|last| {
                position.epoch == last.epoch && (last.offset + 1..repair.to).contains(&position.offset)
            });
            // What lies behind is held, or comes yet; what an earlier epoch left does not count.
            if !expected {
                continue;
            }
            repair.bytes += body.len();
            repair.declared |= self.pass(room, position, &body, inbound);
            self.shared.stats.gap_messages_repaired.add(1);
        }
        let at = room.place.get();
        let over =
            is_last || at == before || repair.bytes >= REPAIR_BYTES_MAX || repair.until <= Instant::now();
        match at {
            Some(at) if !over && at.offset + 1 < repair.to => {
                self.want(&room.id, at, &repair);
                room.repair = Some(repair);
            }
            _ => self.finish(room, repair, true, inbound),
        }
    }

    /// Declares what is still missing, and goes on with what was held, where `again` says whether its holes are read back too.
    fn finish(&mut self, room: &mut Room, mut repair: Repair, again: bool, inbound: &mut dyn Inbound) {
        if let Some(last) = room.place.get() {
            let top = Position { offset: repair.to - 1, ..last };
            repair.declared |= matches!(compare(room, top, inbound), Top::Missed(_));
        }
        if !repair.declared {
            self.shared.stats.gaps_repaired.add(1);
        }
        let mut held = repair.release();
        drop(repair);
        while let Some(next) = held.pop_front() {
            match (next, again) {
                (Held::Message(at, body), true) => self.message(room, at, &body, inbound),
                (Held::Message(at, body), false) => drop(self.pass(room, at, &body, inbound)),
                (Held::Top(top), true) => drop(self.top(room, top, inbound)),
                (Held::Top(top), false) => drop(compare(room, top, inbound)),
            }
        }
    }

    /// Ends the repair of a room that leaves the lane: what is missing is declared.
    pub(super) fn abandon(&mut self, room: &mut Room, inbound: &mut dyn Inbound) {
        if let Some(repair) = room.repair.take() {
            self.finish(room, repair, false, inbound);
        }
    }

    /// Passes a message on, and declares what is missing before it. Says whether anything was.
    fn pass(&self, room: &mut Room, at: Position, body: &[u8], inbound: &mut dyn Inbound) -> bool {
        let renumber = self.shared.wire.in_order().then_some(&self.shared.epochs);
        let before = room.place.shown();
        let missing = room.place.arrived(at, renumber);
        let position = room.place.shown().unwrap_or(at);
        if let Some(missing) = missing {
            declare(&room.id, before, position.epoch, missing, inbound);
        }
        inbound.message(&room.id, position, body, room.wanted);
        missing.is_some()
    }
}

/// Compares a room's place with a top, and declares what is missing.
fn compare(room: &mut Room, top: Position, inbound: &mut dyn Inbound) -> Top {
    let before = room.place.shown();
    let result = room.place.compare(top);
    if let Top::Missed(missing) = result {
        let epoch = room.place.shown().unwrap_or(top).epoch;
        declare(&room.id, before, epoch, missing, inbound);
    }
    result
}

/// Declares what is missing of `epoch`, and before that that the epoch is another one than `before`.
fn declare(id: &RoomId, before: Option<Position>, epoch: u64, missing: Missing, inbound: &mut dyn Inbound) {
    if before.is_some_and(|before| before.epoch != epoch) {
        inbound.renumbered(id, epoch);
    }
    inbound.missing(id, epoch, missing.from, missing.to);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repair(in_all: &Arc<AtomicUsize>) -> Repair {
        Repair {
            number: 1,
            to: 5,
            until: Instant::now(),
            bytes: 0,
            declared: false,
            held: VecDeque::new(),
            beyond: None,
            held_bytes: 0,
            held_bytes_in_all: Arc::clone(in_all),
        }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 1, offset }
    }

    /// The offsets that are released, those of tops with a minus.
    fn released(repair: &mut Repair) -> Vec<i64> {
        let offset = |held| match held {
            Held::Message(at, _) => at.offset.cast_signed(),
            Held::Top(top) => -top.offset.cast_signed(),
        };
        repair.release().into_iter().map(offset).collect()
    }

    #[test]
    fn what_does_not_fit_is_one_more_hole() {
        let in_all = Arc::default();
        let (mut first, mut second) = (repair(&in_all), repair(&in_all));
        let half = vec![0; HELD_BYTES_MAX / 2];
        first.hold(at(5), &half);
        first.hold(at(6), &half);
        second.hold_top(at(5));
        second.hold_top(at(6));
        second.hold(at(7), b"x");
        second.hold(at(8), b"");
        second.hold_top(at(9));
        assert_eq!(released(&mut second), [-6, -9], "the lane has no room for another room's messages");
        assert_eq!(released(&mut first), [5, 6]);
        drop(first);
        assert_eq!(in_all.load(Relaxed), 0, "what was held is free again");
        second.hold(at(10), b"x");
        assert_eq!(released(&mut second), [10]);
    }

    #[test]
    fn a_room_holds_so_many_messages() {
        let mut repair = repair(&Arc::default());
        let count = HELD_MESSAGES_MAX as u64;
        (1..=count + 2).for_each(|offset| repair.hold(at(offset), b"x"));
        let last = (count + 2).cast_signed();
        let expected: Vec<i64> = (1..=count.cast_signed()).chain([-last]).collect();
        assert_eq!(released(&mut repair), expected);
    }
}
