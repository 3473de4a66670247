//! Do all members of a room see one order? Each member hashes what it receives between *anchors*, messages that every
//! member picks alike (about one in 256). Two members that received the same set between the same two anchors must
//! have the same ordered hash; otherwise they prove divergent orders.
//!
//! Members whose sets differ (loss, late join) are not compared, so neither makes a false alarm. A swap across an
//! anchor changes both sets and goes unseen: about one swap in 128.

use std::collections::{HashMap, HashSet};

use crate::schedule::mix;

/// One message in 256 is an anchor.
const ANCHOR_MASK: u64 = 0xFF;
/// Most stretches that are remembered (40 bytes each). Further ones are not compared.
const STRETCHES_MAX: usize = 1_000_000;

/// A member's hash of a room since the last anchor.
#[derive(Debug, Clone, Copy)]
pub struct OrderTrack {
    since: u64,
    ordered: u64,
    set: u64,
}

/// What a member saw from one anchor up to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Room index.
    pub room: u32,
    since: u64,
    until: u64,
    ordered: u64,
    set: u64,
}

impl OrderTrack {
    /// A member's track. `since` tells from when: members that were there before the first message say 0 and are
    /// compared from the start; others say something of their own, and are compared from their first anchor on.
    pub const fn new(since: u64) -> Self {
        Self { since, ordered: 0, set: 0 }
    }

    /// Takes the first copy of a message; returns a stretch when it ends one.
    #[inline]
    pub fn take(&mut self, room: u32, stream: u32, sequence: u32) -> Option<Stretch> {
        let hash = mix(u64::from(stream) << 32 | u64::from(sequence));
        self.ordered = self.ordered.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(hash);
        self.set = self.set.wrapping_add(hash);
        if hash & ANCHOR_MASK != 0 {
            return None;
        }
        Some(self.end(room, hash))
    }

    /// Ends the last stretch, at the end of a run.
    pub fn finish(&mut self, room: u32) -> Option<Stretch> {
        (self.set != 0).then(|| self.end(room, 0))
    }

    fn end(&mut self, room: u32, until: u64) -> Stretch {
        let stretch = Stretch { room, since: self.since, until, ordered: self.ordered, set: self.set };
        *self = Self::new(until);
        stretch
    }
}

/// Compares the stretches of all members.
#[derive(Debug, Default)]
pub struct OrderBook {
    first: HashMap<(u32, u64, u64, u64), u64>,
    compared: HashSet<u32>,
    divergent: HashSet<u32>,
}

impl OrderBook {
    /// Takes a member's stretch.
    pub fn take(&mut self, stretch: &Stretch) {
        let key = (stretch.room, stretch.since, stretch.until, stretch.set);
        if let Some(&ordered) = self.first.get(&key) {
            self.compared.insert(stretch.room);
            if ordered != stretch.ordered {
                self.divergent.insert(stretch.room);
            }
        } else if self.first.len() < STRETCHES_MAX {
            self.first.insert(key, stretch.ordered);
        }
    }

    /// Rooms in which at least two members could be compared.
    pub fn compared_rooms(&self) -> u64 {
        self.compared.len() as u64
    }

    /// Rooms whose members saw divergent orders.
    pub fn divergent_rooms(&self) -> u64 {
        self.divergent.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(book: &mut OrderBook, since: u64, messages: impl Iterator<Item = (u32, u32)>) {
        let mut track = OrderTrack::new(since);
        for (stream, sequence) in messages {
            track.take(3, stream, sequence).iter().for_each(|stretch| book.take(stretch));
        }
        track.finish(3).iter().for_each(|stretch| book.take(stretch));
    }

    #[test]
    fn equal_orders_agree() {
        let mut book = OrderBook::default();
        for _ in 0..3 {
            watch(&mut book, 0, (0..5_000).map(|sequence| (sequence % 7, sequence / 7)));
        }
        assert_eq!((book.compared_rooms(), book.divergent_rooms()), (1, 0));
    }

    #[test]
    fn one_swap_is_seen() {
        let mut book = OrderBook::default();
        watch(&mut book, 0, (0..1_000).map(|sequence| (sequence % 2, sequence / 2)));
        watch(
            &mut book,
            0,
            (0..1_000).map(|sequence| (sequence % 2, sequence / 2)).map(|one| match one {
                (0, 300) => (1, 300),
                (1, 300) => (0, 300),
                other => other,
            }),
        );
        assert_eq!((book.compared_rooms(), book.divergent_rooms()), (1, 1));
    }

    #[test]
    fn loss_and_a_late_join_are_no_divergence() {
        let mut book = OrderBook::default();
        watch(&mut book, 0, (0..3_000).map(|sequence| (0, sequence)));
        watch(&mut book, 0, (0..3_000).filter(|sequence| sequence % 100 != 0).map(|sequence| (0, sequence)));
        watch(&mut book, 99, (1_500..3_000).map(|sequence| (0, sequence)));
        assert_eq!((book.compared_rooms(), book.divergent_rooms()), (1, 0));
    }
}
