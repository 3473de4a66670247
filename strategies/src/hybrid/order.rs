//! The order of a room's messages as the log tells it: the one that a member sees who has the log alone. Pure.
//!
//! Messages with a position follow their positions, epoch by epoch, wherever their records lie. One without comes behind
//! everything that was logged before it, as in the merge.

use std::collections::BTreeMap;

use crate::backplane::{Message, Position};
use crate::kafka_history::log::Located;

/// Where a message belongs: epoch by its first appearance, offset, and place among what follows this offset.
type Key = (usize, u64, usize);

/// A room's messages in their order.
#[derive(Debug, Default)]
pub(super) struct Order {
    epochs: Vec<u64>,
    messages: BTreeMap<Key, Located>,
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

    /// Everything, with holes.
    pub(super) fn all(self) -> Vec<Message> {
        self.messages.into_values().map(message).collect()
    }

    /// Everything behind `since` up to the first hole. `None` if something beyond that hole was logged before `end`, so that
    /// it must not be missing.
    pub(super) fn up_to_a_hole(self, since: Position, end: i64) -> Option<Told> {
        if self.confused {
            return None;
        }
        let (mut messages, mut reached, mut hole) = (Vec::new(), (0, since.offset), false);
        for ((line, offset, place), record) in self.messages {
            let next = line == reached.0 && offset == reached.1 + 1;
            let follows = next || (line == reached.0 + 1 && offset == 1);
            hole |= place == 0 && !follows;
            if hole && record.offset < end {
                return None;
            }
            if !hole {
                reached = (line, offset);
                messages.push(message(record));
            }
        }
        let epoch = self.epochs.get(reached.0).copied().unwrap_or(since.epoch);
        Some(Told { messages, top: Position { epoch, offset: reached.1 } })
    }
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

    #[test]
    fn a_page_may_begin_anywhere() {
        let order = order(None, &[(0, 0), (6, 9), (7, 2), (7, 1)]);
        assert!(order.knows(6) && !order.knows(9));
        assert_eq!(ids(&order.all()), [0, 1, 3, 2]);
    }
}
