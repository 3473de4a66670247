//! Members that trail: history was ahead of what arrives live, and what it held is not for them when it arrives, too.
//!
//! Many come back to one room at once and get the same answer, so a message is looked at once per answer, not per member.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use manifold_strategies::{Message, MessageId, Position};

/// How long a message whose place was not known, and which history had already, may take to arrive live as well.
const UNPLACED_PATIENCE_US: u64 = 30_000_000;

/// The members of a room that trail.
#[derive(Default)]
pub(super) struct Trails(Vec<Trail>);

/// How far an answer of history was ahead, and for whom.
struct Trail {
    /// Live messages up to here were in the answer.
    top: Position,
    /// So were these, which had no position there. They may have one when they arrive, beyond `top`.
    unplaced: Arc<HashSet<MessageId>>,
    /// Until when those may still arrive.
    until_us: u64,
    /// Slots of the members that had this answer.
    slots: BTreeSet<u32>,
}

/// What a live message is to members that trail.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Already,
    New,
    /// New, and everything after it will be.
    NewFromNowOn,
}

impl Trails {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A member entered with an answer up to `top`, in which `unplaced` messages had no position.
    pub(super) fn add(&mut self, slot: u32, top: Position, unplaced: &Arc<HashSet<MessageId>>, now_us: u64) {
        let until_us = now_us.saturating_add(UNPLACED_PATIENCE_US);
        let same = |trail: &&mut Trail| {
            let none = trail.unplaced.is_empty() && unplaced.is_empty();
            trail.top == top && (none || Arc::ptr_eq(&trail.unplaced, unplaced))
        };
        if let Some(trail) = self.0.iter_mut().find(same) {
            trail.until_us = until_us;
            trail.slots.insert(slot);
        } else {
            let (unplaced, slots) = (Arc::clone(unplaced), BTreeSet::from([slot]));
            self.0.push(Trail { top, unplaced, until_us, slots });
        }
    }

    /// Names the slots of the members that had a live message by history, in ascending order.
    pub(super) fn follow(&mut self, message: &Message, now_us: u64) -> Vec<u32> {
        let mut excluded = Vec::new();
        self.0.retain_mut(|trail| match trail.hear(message, now_us) {
            Heard::Already => {
                excluded.extend(&trail.slots);
                true
            }
            Heard::New => true,
            Heard::NewFromNowOn => false,
        });
        excluded.sort_unstable();
        excluded
    }

    /// A member has left its slot. True: it trailed.
    pub(super) fn remove(&mut self, slot: u32) -> bool {
        let Some(index) = self.0.iter_mut().position(|trail| trail.slots.remove(&slot)) else { return false };
        if self.0[index].slots.is_empty() {
            self.0.swap_remove(index);
        }
        true
    }

    /// Forgets all members but those that `stay`.
    pub(super) fn retain(&mut self, mut stay: impl FnMut(u32) -> bool) {
        self.0.retain_mut(|trail| {
            trail.slots.retain(|slot| stay(*slot));
            !trail.slots.is_empty()
        });
    }
}

impl Trail {
    fn hear(&mut self, message: &Message, now_us: u64) -> Heard {
        if now_us >= self.until_us && !self.unplaced.is_empty() {
            self.unplaced = Arc::default();
        }
        // Whatever its position is now: the answer may not have known it.
        if self.unplaced.contains(&message.envelope.id) {
            return Heard::Already;
        }
        let waits_for_unplaced = !self.unplaced.is_empty();
        match message.position.offset {
            0 if waits_for_unplaced || self.top.offset > 0 => Heard::New,
            0 => Heard::NewFromNowOn,
            _ if reaches(self.top, message.position) => Heard::Already,
            _ if waits_for_unplaced => Heard::New,
            _ => Heard::NewFromNowOn,
        }
    }
}

/// Whether who stands at `top` has come by `position`.
pub(super) fn reaches(top: Position, position: Position) -> bool {
    position.offset > 0 && position.epoch == top.epoch && position.offset <= top.offset
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use manifold_strategies::{Envelope, RoomId};

    use super::*;

    fn message(id: u128, offset: u64) -> Message {
        let envelope = Envelope {
            room: RoomId::new("a"),
            id: MessageId(id),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::new(),
        };
        Message { envelope, position: Position { epoch: if offset > 0 { 7 } else { 0 }, offset } }
    }

    fn at(offset: u64) -> Position {
        Position { epoch: 7, offset }
    }

    #[test]
    fn those_with_the_same_answer_share_a_trail() {
        let mut trails = Trails::default();
        let unplaced = Arc::new(HashSet::from([MessageId(8)]));
        for slot in [5, 1, 3] {
            trails.add(slot, at(4), &unplaced, 0);
        }
        trails.add(2, at(4), &Arc::default(), 0);
        assert_eq!(trails.0.len(), 2);
        assert_eq!(trails.follow(&message(4, 4), 1), [1, 2, 3, 5]);
        assert_eq!(trails.follow(&message(8, 5), 1), [1, 3, 5], "it has a position by now");
        assert_eq!(trails.0.len(), 1, "nothing can come twice to who waits for no message");
        assert!(trails.remove(3) && !trails.remove(3));
        trails.retain(|slot| slot == 5);
        assert_eq!(trails.follow(&message(8, 0), 1), [5]);
        assert!(trails.remove(5) && trails.is_empty());
    }

    #[test]
    fn patience_ends_with_whatever_message_comes() {
        for (top, offset) in [(0, 0), (0, 1), (4, 5)] {
            let mut trails = Trails::default();
            trails.add(1, at(top), &Arc::new(HashSet::from([MessageId(8)])), 0);
            assert!(trails.follow(&message(9, offset), UNPLACED_PATIENCE_US - 1).is_empty());
            assert!(!trails.is_empty(), "message 8 may still come");
            assert!(trails.follow(&message(9, offset), UNPLACED_PATIENCE_US).is_empty());
            assert!(trails.is_empty());
        }
        let mut trails = Trails::default();
        trails.add(1, at(4), &Arc::new(HashSet::from([MessageId(8)])), 0);
        assert!(trails.follow(&message(9, 0), UNPLACED_PATIENCE_US).is_empty());
        assert_eq!(trails.follow(&message(3, 3), UNPLACED_PATIENCE_US), [1], "it was in the answer");
    }
}
