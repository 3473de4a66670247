//! The order of a room's messages as the log tells it: the one that a member sees who has the log alone. Pure.
//!
//! Messages with a position follow their positions, epoch by epoch, wherever their records lie. One without comes behind
//! everything that was logged before it, as in the merge.
//!
//! The log may lack a position that members saw: its publisher never learned it, and appended the message without one; or the log
//! took too long to take it. What Redis kept at that position tells which.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::backplane::{Message, MessageId, Position};
use crate::kafka_history::log::Located;

/// Where a message belongs: epoch by its first appearance, offset, and place among what follows this offset.
type Key = (usize, u64, usize);

/// A room's messages in their order.
#[derive(Debug, Default)]
pub(super) struct Order {
    epochs: Vec<u64>,
    messages: BTreeMap<Key, Located>,
    /// Positions of messages that the log has without one, or before.
    elsewhere: BTreeSet<(usize, u64)>,
    /// The last position so far.
    last: (usize, u64),
    /// Two messages have one position, so that no order can be told.
    confused: bool,
}

/// What can be told of a room without a hole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) messages: Vec<Message>,
    /// The last position among them, or where they begin.
    pub(super) top: Position,
}

impl Order {
    /// Puts records, in the order of the log, into theirs; behind `since`, if they are of a part of the log only.
    pub(super) fn new(since: Option<Position>, records: impl IntoIterator<Item = Located>) -> Self {
        let mut order = Self::default();
        if let Some(since) = since {
            order.epochs.push(since.epoch);
            order.last = (0, since.offset);
        }
        records.into_iter().for_each(|record| order.add(record));
        order
    }

    fn add(&mut self, record: Located) {
        let key = match record.position {
            Some(at) => {
                let known = self.epochs.iter().position(|epoch| *epoch == at.epoch);
                let line = known.unwrap_or_else(|| {
                    self.epochs.push(at.epoch);
                    self.epochs.len() - 1
                });
                self.last = self.last.max((line, at.offset));
                (line, at.offset, 0)
            }
            // Counts up over all: larger than any before it at the same offset.
            None => (self.last.0, self.last.1, self.messages.len() + 1),
        };
        self.confused |= self.messages.insert(key, record).is_some();
    }

    /// Whether messages of an epoch are among them, or they begin in it.
    pub(super) fn knows(&self, epoch: u64) -> bool {
        self.epochs.contains(&epoch)
    }

    /// How far positions follow each other without a hole; `None` if there is one.
    fn reached(&self, since: Position) -> Option<(usize, u64)> {
        let mut reached = self.past_elsewhere((0, since.offset));
        for &(line, offset, place) in self.messages.keys() {
            if place == 0 {
                if !follows(reached, (line, offset)) {
                    return None;
                }
                reached = self.past_elsewhere((line, offset));
            }
        }
        Some(reached)
    }

    /// Whether there is a hole behind `since`, or the room `stands` further than its messages reach.
    pub(super) fn lacks(&self, since: Position, stands: Option<Position>) -> bool {
        let Some((line, offset)) = self.reached(since) else { return true };
        let epoch = self.epochs.get(line).copied();
        stands.is_some_and(|stands| Some(stands.epoch) == epoch && stands.offset > offset)
    }

    /// Messages without a position that were appended up to a time: their ids, and when.
    pub(super) fn unplaced_before(&self, until_ms: i64) -> Vec<(MessageId, i64)> {
        let unplaced = self.messages.values().filter(|record| record.position.is_none());
        let early = unplaced.filter(|record| record.appended_ms <= until_ms);
        early.map(|record| (record.envelope.id, record.appended_ms)).collect()
    }

    /// Whether a message is among them.
    pub(super) fn holds(&self, id: MessageId) -> bool {
        self.messages.values().any(|record| record.envelope.id == id)
    }

    /// Leaves a message out.
    pub(super) fn take_out(&mut self, id: MessageId) {
        self.messages.retain(|_, record| record.envelope.id != id);
    }

    /// Fills holes behind `since` with what Redis kept; `logged` are ids that the log has. Returns the last position that was filled.
    pub(super) fn fill(
        &mut self,
        since: Position,
        kept: Vec<Message>,
        logged: &HashSet<MessageId>,
    ) -> Option<Position> {
        let mut filled: Option<Position> = None;
        for Message { envelope, position } in kept {
            let line = self.epochs.iter().position(|epoch| *epoch == position.epoch);
            let Some(place) = line.map(|line| (line, position.offset)).filter(|at| *at > (0, since.offset))
            else {
                continue;
            };
            let key = (place.0, place.1, 0);
            if self.messages.contains_key(&key) {
                continue;
            }
            // Redis answers in the order of positions, of one epoch.
            filled = Some(position);
            if logged.contains(&envelope.id) {
                self.elsewhere.insert(place);
            } else {
                let nowhere =
                    Located { offset: i64::MAX, appended_ms: 0, position: Some(position), envelope };
                self.messages.insert(key, nowhere);
            }
        }
        filled
    }

    /// Beyond positions of messages that lie elsewhere.
    fn past_elsewhere(&self, (line, mut offset): (usize, u64)) -> (usize, u64) {
        while self.elsewhere.contains(&(line, offset + 1)) {
            offset += 1;
        }
        (line, offset)
    }

    /// Everything, with holes.
    pub(super) fn all(self) -> Vec<Message> {
        self.messages.into_values().map(message).collect()
    }

    /// Everything behind `since` up to the first hole. `None` if something beyond that hole was logged before `end`, so that
    /// it must not be missing.
    pub(super) fn up_to_a_hole(mut self, since: Position, end: i64) -> Option<Told> {
        if self.confused {
            return None;
        }
        let (mut messages, mut hole) = (Vec::new(), false);
        let mut reached = self.past_elsewhere((0, since.offset));
        for ((line, offset, place), record) in std::mem::take(&mut self.messages) {
            hole |= place == 0 && !follows(reached, (line, offset));
            if hole && record.offset < end {
                return None;
            }
            if !hole {
                reached = reached.max(self.past_elsewhere((line, offset)));
                messages.push(message(record));
            }
        }
        let epoch = self.epochs.get(reached.0).copied().unwrap_or(since.epoch);
        Some(Told { messages, top: Position { epoch, offset: reached.1 } })
    }
}

/// Whether a position is the next one.
fn follows(reached: (usize, u64), next: (usize, u64)) -> bool {
    next == (reached.0, reached.1 + 1) || next == (reached.0 + 1, 1)
}

fn message(record: Located) -> Message {
    Message { position: record.position.unwrap_or_default(), envelope: record.envelope }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::backplane::{Envelope, MessageId, RoomId};

    const SINCE: Position = Position { epoch: 7, offset: 2 };

    /// Records with these positions, offset 0 for none; their ids and log offsets count up from 0.
    fn order(since: Option<Position>, positions: &[(u64, u64)]) -> Order {
        let located = |(offset, &(epoch, at)): (i64, &(u64, u64))| {
            let envelope = Envelope {
                room: RoomId::new("room"),
                id: MessageId(offset as u128),
                published_at_us: 0,
                info: Bytes::new(),
                payload: Bytes::new(),
            };
            let position = (at > 0).then_some(Position { epoch, offset: at });
            Located { offset, appended_ms: 0, position, envelope }
        };
        Order::new(since, (0..).zip(positions).map(located))
    }

    fn ids(messages: &[Message]) -> Vec<u128> {
        messages.iter().map(|message| message.envelope.id.0).collect()
    }

    fn told(positions: &[(u64, u64)], end: i64) -> Option<(Vec<u128>, (u64, u64))> {
        let told = order(Some(SINCE), positions).up_to_a_hole(SINCE, end)?;
        Some((ids(&told.messages), (told.top.epoch, told.top.offset)))
    }

    #[test]
    fn positions_come_in_their_order_and_others_behind_what_was_logged_before() {
        let positions = [(7, 4), (0, 0), (7, 3), (0, 0), (7, 5)];
        assert_eq!(told(&positions, 5), Some((vec![2, 0, 1, 3, 4], (7, 5))));
    }

    #[test]
    fn epochs_follow_each_other_and_late_records_find_their_place() {
        let positions = [(7, 3), (0, 0), (8, 1), (7, 4), (0, 0), (8, 2)];
        assert_eq!(told(&positions, 6), Some((vec![0, 1, 3, 2, 4, 5], (8, 2))));
        assert_eq!(told(&[(8, 2), (8, 1)], 2), Some((vec![1, 0], (8, 2))));
        assert_eq!(told(&[], 0), Some((vec![], (7, 2))));
    }

    #[test]
    fn nothing_is_told_beyond_a_hole() {
        assert_eq!(told(&[(7, 3), (7, 5), (0, 0)], 3), None, "they were logged before");
        assert_eq!(told(&[(7, 3), (7, 5), (0, 0)], 1), Some((vec![0], (7, 3))), "they came since");
        assert_eq!(told(&[(7, 3), (8, 2)], 2), None);
        assert_eq!(told(&[(7, 3), (7, 3)], 2), None, "one place, two messages");
    }

    /// A message as Redis kept it.
    fn kept(id: u128, offset: u64) -> Message {
        let position = Position { epoch: SINCE.epoch, offset };
        let mut message = order(None, &[(SINCE.epoch, offset)]).all().remove(0);
        (message.envelope.id, message.position) = (MessageId(id), position);
        message
    }

    #[test]
    fn what_redis_kept_fills_holes() {
        // 1 is at 4 without knowing it, and nobody logged 9, which is at 6.
        let mut order = order(Some(SINCE), &[(7, 3), (0, 0), (7, 5), (7, 7)]);
        assert!(order.lacks(SINCE, None));
        let logged = HashSet::from([0, 1, 2, 3].map(MessageId));
        let stream =
            [(7, 2), (0, 3), (1, 4), (2, 5), (9, 6), (3, 7)].map(|(id, offset)| kept(id, offset)).to_vec();
        assert_eq!(order.fill(SINCE, stream, &logged), Some(Position { offset: 6, ..SINCE }));
        assert!(!order.lacks(SINCE, None) && order.lacks(SINCE, Some(Position { offset: 8, ..SINCE })));
        let told = order.up_to_a_hole(SINCE, 4).unwrap();
        assert_eq!((ids(&told.messages), told.top.offset), (vec![0, 1, 2, 9, 3], 7));
    }

    #[test]
    fn the_last_positions_may_be_of_messages_that_lie_elsewhere() {
        let mut order = order(Some(SINCE), &[(7, 3), (0, 0)]);
        assert!(order.lacks(SINCE, Some(Position { offset: 4, ..SINCE })));
        order.fill(SINCE, vec![kept(1, 4)], &HashSet::from([MessageId(1)]));
        let told = order.up_to_a_hole(SINCE, 2).unwrap();
        assert_eq!((ids(&told.messages), told.top.offset), (vec![0, 1], 4));
    }

    #[test]
    fn a_page_may_begin_anywhere() {
        let order = order(None, &[(0, 0), (6, 9), (7, 2), (7, 1)]);
        assert!(order.knows(6) && !order.knows(9));
        assert_eq!(ids(&order.all()), [0, 1, 3, 2]);
    }
}
