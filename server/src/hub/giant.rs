//! Giant rooms: their messages queue up, and a task of the room's own takes them to the members in short turns, so
//! that a thousand sends of one room do not stand before the one send of another.
//!
//! The queue is bounded in bytes. Whoever delivers into a full one takes turns itself until there is space again:
//! nothing is lost, and the backplane's reader feels the backpressure. Order is kept, because only the holder of the room's
//! `turn` lock sends, and a room whose queue is at work takes every message through it, whatever its size by then.

use std::collections::VecDeque;
use std::sync::Arc;

use super::room::{Room, State};
use crate::metrics::Metrics;
use crate::session::Session;

/// Members served per turn: about half a millisecond of sends.
const TURN_MEMBERS: usize = 128;

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
#[derive(Debug, Clone, Copy)]
struct Mark {
    start: usize,
    serial: u64,
    published_at_us: u64,
}

/// Messages that go to all members together.
#[derive(Debug, Default)]
struct Round {
    bytes: Vec<u8>,
    marks: Vec<Mark>,
}

impl Giant {
    pub(super) fn push(&mut self, serial: u64, published_at_us: u64, frame: &[u8]) {
        self.queued_bytes += frame.len();
        self.queue
            .push_back(Queued { mark: Mark { start: 0, serial, published_at_us }, frame: frame.into() });
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Takes the next messages out of the queue. False: there are none.
    fn begin_round(&mut self) -> bool {
        let mut round = Round::default();
        while let Some(queued) = self.queue.front() {
            if !round.bytes.is_empty() && round.bytes.len() + queued.frame.len() > ROUND_BYTES_MAX {
                break;
            }
            round.marks.push(Mark { start: round.bytes.len(), ..queued.mark });
            round.bytes.extend_from_slice(&queued.frame);
            self.queued_bytes -= queued.frame.len();
            self.queue.pop_front();
        }
        self.under_way = !round.marks.is_empty();
        self.round = Arc::new(round);
        self.next_slot = 0;
        self.under_way
    }
}

impl Round {
    /// What a member that came after message `joined_serial` gets.
    fn bytes_after(&self, joined_serial: u64) -> &[u8] {
        let first = self.marks.partition_point(|mark| mark.serial <= joined_serial);
        self.marks.get(first).map_or(&[], |mark| &self.bytes[mark.start..])
    }
}

impl State {
    /// The members of the next turn, and what they get. `None`: all is delivered, and the queue is gone.
    fn next_turn(&mut self, turn: &mut Vec<(Arc<Session>, u64)>) -> Option<Arc<Round>> {
        let giant = self.giant.as_mut()?;
        if !giant.under_way && !giant.begin_round() {
            self.giant = None;
            return None;
        }
        let slots = giant.next_slot..giant.next_slot + TURN_MEMBERS;
        giant.next_slot = slots.end;
        giant.under_way = slots.end < self.members.end();
        let members = self.members.slice(slots);
        turn.extend(members.map(|member| (Arc::clone(&member.session), member.joined_serial)));
        Some(Arc::clone(&giant.round))
    }
}

impl Room {
    /// Serves the next members in line. False: nobody is left.
    pub(super) fn take_turn(&self, metrics: &Metrics) -> bool {
        let _turn = self.turn.lock();
        let mut members = Vec::with_capacity(TURN_MEMBERS);
        let Some(round) = self.lock().next_turn(&mut members) else { return false };
        for (session, joined_serial) in &members {
            let bytes = round.bytes_after(*joined_serial);
            if !bytes.is_empty() {
                session.send(bytes);
            }
        }
        let now_us = crate::clock::unix_us();
        for mark in &round.marks {
            metrics.observe_delivery(now_us.saturating_sub(mark.published_at_us), members.len());
        }
        true
    }

    /// Takes turns until the queue is empty, letting other tasks run in between.
    pub(super) async fn take_turns(self: Arc<Self>, metrics: Arc<Metrics>) {
        while self.take_turn(&metrics) {
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_member_gets_the_later_messages_of_a_round() {
        let mut giant = Giant::default();
        for serial in 5..8 {
            giant.push(serial, 0, format!("<{serial}>").as_bytes());
        }
        assert_eq!(giant.queued_bytes(), 9);
        assert!(giant.begin_round());
        assert_eq!(giant.queued_bytes(), 0);
        assert_eq!(giant.round.bytes_after(4), b"<5><6><7>");
        assert_eq!(giant.round.bytes_after(5), b"<6><7>");
        assert_eq!(giant.round.bytes_after(7), b"");
        assert!(!giant.begin_round());
    }

    #[test]
    fn a_round_is_bounded_but_never_empty() {
        let mut giant = Giant::default();
        for serial in 1..=3 {
            giant.push(serial, 0, &vec![b'x'; ROUND_BYTES_MAX * 2 / 3]);
        }
        giant.push(4, 0, &vec![b'y'; ROUND_BYTES_MAX * 2]);
        for expected in [1, 1, 1, 1] {
            assert!(giant.begin_round());
            assert_eq!(giant.round.marks.len(), expected);
        }
        assert!(!giant.begin_round());
    }
}
