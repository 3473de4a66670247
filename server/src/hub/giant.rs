//! Giant rooms: their messages queue up, and a task of the room's own takes them to the members in short turns, so
//! that a thousand sends of one room do not stand before the one send of another.
//!
//! The queue is bounded in bytes. Whoever delivers into a full one takes turns itself until there is space again:
//! nothing is lost, and the backplane's reader feels the backpressure. Order is kept, because only the holder of the room's
//! `turn` lock sends, and a room whose queue is at work takes every message through it, whatever its size by then.

use std::collections::VecDeque;
use std::sync::Arc;

use super::cork::{flush_thread, yield_worker};
use super::room::{Room, State};
use crate::metrics::Metrics;
use crate::session::Session;

/// Members served per turn, some 200 µs of sends. Then the room's lock is free for a moment, and the core for other threads: the
/// workers that serve small rooms, which the kernel would let wait for milliseconds else.
const TURN_MEMBERS: usize = 32;

/// Turns until the worker's other tasks run: that passes through the scheduler and the driver, which costs more than a turn's end.
const TURNS_IN_A_ROW: usize = 8;

/// Bytes that one round through the members carries at most, unless a single message is longer. A fraction of the
/// smallest outbox, so that a round alone makes nobody slow.
const ROUND_BYTES_MAX: usize = 32 * 1024;

/// The queue of a giant room. It exists while there is something in it or under way.
#[derive(Debug, Default)]
pub(super) struct Giant {
    queue: VecDeque<Queued>,
    queued_bytes: usize,
    round: Arc<Round>,
    /// The next slot of the round under way.
    next_slot: usize,
    under_way: bool,
}

#[derive(Debug)]
struct Queued {
    mark: Mark,
    frame: Box<[u8]>,
}

/// Where a message begins in its round.
#[derive(Debug)]
struct Mark {
    start: usize,
    serial: u64,
    published_at_us: u64,
    /// Slots of members that it is not for, in ascending order. Whoever takes over such a slot came after the message.
    excluded: Box<[u32]>,
}

/// A member in a turn.
struct Turn {
    session: Arc<Session>,
    slot: u32,
    joined_serial: u64,
}

/// Messages that go to all members together.
#[derive(Debug, Default)]
struct Round {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
    /// Some message is not for all members.
    excludes: bool,
}

impl Queued {
    fn bytes(&self) -> usize {
        self.frame.len() + size_of_val(&*self.mark.excluded)
    }
}

impl Giant {
    /// Queues a message for all members but those in the slots `excluded`, which are in ascending order.
    pub(super) fn push(&mut self, serial: u64, published_at_us: u64, excluded: Vec<u32>, frame: &[u8]) {
        let mark = Mark { start: 0, serial, published_at_us, excluded: excluded.into() };
        let queued = Queued { mark, frame: frame.into() };
        self.queued_bytes += queued.bytes();
        self.queue.push_back(queued);
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Takes the next messages out of the queue. False: there are none.
    fn begin_round(&mut self) -> bool {
        let mut round = Round::default();
        let fits = |round: &Round, queued: &Queued| {
            round.bytes.is_empty() || round.bytes.len() + queued.frame.len() <= ROUND_BYTES_MAX
        };
        while let Some(queued) = self.queue.pop_front_if(|queued| fits(&round, queued)) {
            self.queued_bytes -= queued.bytes();
            round.excludes |= !queued.mark.excluded.is_empty();
            round.marks.push(Mark { start: round.bytes.len(), ..queued.mark });
            round.bytes.extend_from_slice(&queued.frame);
        }
        self.under_way = !round.marks.is_empty();
        self.round = Arc::new(round);
        self.next_slot = 0;
        self.under_way
    }
}

impl Round {
    /// Hands what a member gets to `send`: whole frames, in one piece unless something in between is not for it.
    fn serve(&self, slot: u32, joined_serial: u64, mut send: impl FnMut(&[u8])) {
        let first = self.marks.partition_point(|mark| mark.serial <= joined_serial);
        let Some(mut start) = self.marks.get(first).map(|mark| mark.start) else { return };
        if self.excludes {
            for (index, mark) in self.marks.iter().enumerate().skip(first) {
                if mark.excluded.binary_search(&slot).is_ok() {
                    if start < mark.start {
                        send(&self.bytes[start..mark.start]);
                    }
                    start = self.marks.get(index + 1).map_or(self.bytes.len(), |next| next.start);
                }
            }
        }
        if start < self.bytes.len() {
            send(&self.bytes[start..]);
        }
    }
}

impl State {
    /// The members of the next turn, and what they get. `None`: all is delivered, and the queue is gone.
    fn next_turn(&mut self, turn: &mut Vec<Turn>) -> Option<Arc<Round>> {
        let giant = self.giant.as_mut()?;
        if !giant.under_way && !giant.begin_round() {
            self.giant = None;
            return None;
        }
        let slots = giant.next_slot..giant.next_slot + TURN_MEMBERS;
        giant.next_slot = slots.end;
        giant.under_way = slots.end < self.members.end();
        turn.extend(self.members.slice(slots).map(|(slot, member)| Turn {
            session: Arc::clone(&member.session),
            slot,
            joined_serial: member.joined_serial,
        }));
        Some(Arc::clone(&giant.round))
    }
}

impl Room {
    /// Serves the next members in line. False: nobody is left.
    pub(super) fn take_turn(&self, metrics: &Metrics) -> bool {
        let _turn = self.turn.lock();
        let mut members = Vec::with_capacity(TURN_MEMBERS);
        let Some(round) = self.lock().next_turn(&mut members) else { return false };
        for Turn { session, slot, joined_serial } in &members {
            round.serve(*slot, *joined_serial, |bytes| session.send(bytes));
        }
        let now_us = crate::clock::unix_us();
        for mark in &round.marks {
            metrics.observe_delivery(now_us.saturating_sub(mark.published_at_us), members.len());
        }
        true
    }

    /// Takes turns until the queue is empty, letting other threads and tasks run in between.
    pub(super) async fn take_turns(self: Arc<Self>, metrics: Arc<Metrics>) {
        loop {
            // What this worker keeps back for others would wait for all these turns.
            flush_thread();
            for _ in 0..TURNS_IN_A_ROW {
                if !self.take_turn(&metrics) {
                    return;
                }
                std::thread::yield_now();
            }
            yield_worker().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(giant: &Giant, slot: u32, joined_serial: u64) -> Vec<String> {
        let mut parts = Vec::new();
        giant.round.serve(slot, joined_serial, |bytes| {
            parts.push(String::from_utf8(bytes.to_vec()).expect("text"));
        });
        parts
    }

    #[test]
    fn a_late_member_gets_the_later_messages_of_a_round() {
        let mut giant = Giant::default();
        for serial in 5..8 {
            giant.push(serial, 0, Vec::new(), format!("<{serial}>").as_bytes());
        }
        assert_eq!(giant.queued_bytes(), 9);
        assert!(giant.begin_round());
        assert_eq!(giant.queued_bytes(), 0);
        assert_eq!(served(&giant, 0, 4), ["<5><6><7>"]);
        assert_eq!(served(&giant, 0, 5), ["<6><7>"]);
        assert!(served(&giant, 0, 7).is_empty());
        assert!(!giant.begin_round());
    }

    #[test]
    fn what_a_member_had_by_history_is_left_out_for_it_alone() {
        let mut giant = Giant::default();
        for (serial, excluded) in [(1, vec![]), (2, vec![3, 9]), (3, vec![9]), (4, vec![]), (5, vec![4])] {
            giant.push(serial, 0, excluded, format!("<{serial}>").as_bytes());
        }
        assert_eq!(giant.queued_bytes(), 15 + 4 * 4);
        assert!(giant.begin_round());
        assert_eq!(giant.queued_bytes(), 0);
        assert_eq!(served(&giant, 0, 0), ["<1><2><3><4><5>"]);
        assert_eq!(served(&giant, 3, 0), ["<1>", "<3><4><5>"]);
        assert_eq!(served(&giant, 9, 0), ["<1>", "<4><5>"]);
        assert_eq!(served(&giant, 9, 2), ["<4><5>"]);
        assert_eq!(served(&giant, 4, 1), ["<2><3><4>"]);
        assert!(served(&giant, 4, 4).is_empty());
    }

    #[test]
    fn a_round_is_bounded_but_never_empty() {
        let mut giant = Giant::default();
        for serial in 1..=3 {
            giant.push(serial, 0, Vec::new(), &vec![b'x'; ROUND_BYTES_MAX * 2 / 3]);
        }
        giant.push(4, 0, Vec::new(), &vec![b'y'; ROUND_BYTES_MAX * 2]);
        for expected in [1, 1, 1, 1] {
            assert!(giant.begin_round());
            assert_eq!(giant.round.marks.len(), expected);
        }
        assert!(!giant.begin_round());
    }
}
