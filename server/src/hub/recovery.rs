//! Members that come back: while history is read for them, what arrives live is held back, so that nothing falls between the
//! two and nothing comes twice.
//!
//! A room holds messages back once for all who come back to it, within a bound of bytes. A room that nobody comes back to
//! has none of this, and pays one look at an absent box per message.
//!
//! History may be ahead of what arrives live: a log is read to its end while this node's reader is still on its way there. A
//! member with such an answer *trails*: what the answer held is not for it when it arrives live, too.

use std::collections::VecDeque;
use std::sync::Arc;

use manifold_strategies::{Message, MessageId, Position, Resumed};

use super::answer::Answer;
use super::interest::Ticket;
use super::room::{Room, State};
use super::trails::{Trails, reaches};
use super::{Grant, Hub, Numbering};
use crate::clock::unix_us;
use crate::metrics::RecoveryOutcome;
use crate::session::Session;

/// What a message held back counts for beside its frame, so that the bound is one of number, too.
const HELD_OVERHEAD_BYTES: usize = 256;

/// What a room keeps while somebody comes back to it.
#[derive(Default)]
pub(super) struct Comebacks {
    /// Recoveries whose history is being read.
    under_way: u32,
    /// What arrived since the oldest of them began, as far as the bound allows; oldest first.
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Serial number of the last message that was thrown out of `held`.
    dropped_serial: u64,
    /// Losses on the way to this node, counted while this exists.
    losses: u64,
    /// Members whose history was ahead of what arrives live.
    trails: Trails,
}

/// A live message that waits for histories.
struct Held {
    serial: u64,
    position: Position,
    id: MessageId,
    /// The whole frame, made once for all who wait.
    frame: Box<[u8]>,
}

/// A subscriber whose history is being read. While it lives, its room is joined and holds messages back.
#[derive(Debug)]
pub(crate) struct Recovery {
    ticket: Ticket,
    /// Serial number of the room's last message before this began.
    began_serial: u64,
    /// Where the room stood by then, if that was known.
    began_top: Option<Position>,
    /// The losses that the room had counted by then.
    losses: u64,
}

/// How a recovery ends, told under the room's lock.
pub(crate) enum Ending {
    /// Nothing is missing. These frames, held back meanwhile, follow the reply.
    Complete {
        /// Whole frames; may be empty.
        held: Vec<u8>,
    },
    /// Something is missing, or may be.
    Incomplete {
        /// Where the room stands as the member enters it.
        top: Position,
        /// What is granted: no position where nobody knows the room's.
        grant: Grant,
        /// Why.
        outcome: RecoveryOutcome,
    },
}

impl Recovery {
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.ticket.room
    }
}

impl Drop for Recovery {
    fn drop(&mut self) {
        self.ticket.room.lock().end_recovery();
    }
}

impl Hub {
    /// Begins to hold a room's messages back for a subscriber. History is to be asked after this, and not before.
    pub(crate) fn begin_recovery(&self, ticket: Ticket) -> Recovery {
        let mut state = ticket.room.lock();
        let (began_serial, began_top) = (state.serial, state.top);
        let losses = state.begin_recovery();
        drop(state);
        Recovery { ticket, began_serial, began_top, losses }
    }

    /// Ends a recovery with what history answered, or without it if that is `unfit` for the subscriber. `reply` is called
    /// under the room's lock; it has to put the reply, and what was held back, into the outbox, and says whether the subscriber
    /// becomes a member.
    pub(crate) fn finish_recovery(
        &self,
        recovery: Recovery,
        session: &Arc<Session>,
        grant: Grant,
        answer: &Answer,
        unfit: Option<RecoveryOutcome>,
        reply: impl FnOnce(Ending) -> bool,
    ) -> Option<(Arc<Room>, u32)> {
        let room = Arc::clone(recovery.room());
        let mut state = room.lock();
        let numbering = self.numbering();
        let top = answer.top();
        let judged = match (answer.resumed(), unfit) {
            (Resumed::Complete { .. }, Some(unfit)) => Err(unfit),
            (Resumed::Complete { .. }, None) => state.judge(&recovery, top, numbering),
            (Resumed::Incomplete { .. }, _) => Err(RecoveryOutcome::Incomplete),
        };
        let complete = judged.is_ok();
        // What is known here is what the next message is measured by.
        let stands = state.stands().unwrap_or(top);
        let unknown = !complete && stands == Position::default();
        let grant = if unknown { grant.without_position() } else { grant };
        let ending = match judged {
            Ok(()) => Ending::Complete { held: state.held_since(&recovery, answer) },
            Err(outcome) => Ending::Incomplete { top: stands, grant, outcome },
        };
        let slot = reply(ending).then(|| {
            let slot = self.admit(&room, &mut state, session, grant);
            match complete {
                true => state.trail(slot, answer, numbering),
                false => state.trail_missed(slot),
            }
            slot
        });
        drop(state);
        // Lets go of the room, unless it has this member now.
        drop(recovery);
        slot.map(|slot| (room, slot))
    }
}

impl State {
    /// Says how many losses were counted so far.
    fn begin_recovery(&mut self) -> u64 {
        let comebacks = self.comebacks.get_or_insert_default();
        comebacks.under_way += 1;
        comebacks.losses
    }

    fn end_recovery(&mut self) {
        if let Some(comebacks) = &mut self.comebacks {
            comebacks.under_way -= 1;
            if comebacks.under_way == 0 {
                comebacks.held = VecDeque::new();
                comebacks.held_bytes = 0;
            }
        }
        self.tidy_comebacks();
    }

    /// Whether the answer and what was held back are all that came: if not, why.
    fn judge(&self, recovery: &Recovery, top: Position, numbering: Numbering) -> Result<(), RecoveryOutcome> {
        let comebacks = self.comebacks.as_ref().expect("it is there while a recovery is under way");
        if comebacks.losses != recovery.losses {
            return Err(RecoveryOutcome::Gap);
        }
        if comebacks.dropped_serial > recovery.began_serial {
            return Err(RecoveryOutcome::HoldOverflow);
        }
        // A room where nothing came since this began may have an epoch that has ended: the answer knows better.
        let moved = self.top != recovery.began_top;
        if moved && self.top.is_some_and(|now| now.epoch != top.epoch) {
            return Err(RecoveryOutcome::Renumbered);
        }
        if numbering != Numbering::Dense {
            return Ok(());
        }
        // What is known to be missing here must be in the answer.
        if self.missed_to.is_some_and(|missed| missed.epoch == top.epoch && missed.offset > top.offset) {
            return Err(RecoveryOutcome::Hole);
        }
        // Between where the room stood when this began and what came since nothing else is missing: that would have been a loss.
        // What is left to see is that the answer reaches up to there.
        let reached = match recovery.began_top {
            Some(began) => began.epoch != top.epoch || began.offset <= top.offset,
            None => {
                let mut held = comebacks.since(recovery.began_serial).map(|held| held.position);
                let first = held.find(|position| position.epoch == top.epoch && position.offset > top.offset);
                first.is_none_or(|first| first.offset == top.offset + 1)
            }
        };
        if reached { Ok(()) } else { Err(RecoveryOutcome::Hole) }
    }

    /// The frames of what was held back for a recovery and is not in its answer.
    fn held_since(&self, recovery: &Recovery, answer: &Answer) -> Vec<u8> {
        let mut frames = Vec::new();
        let Some(comebacks) = &self.comebacks else { return frames };
        for held in comebacks.since(recovery.began_serial) {
            if !reaches(answer.top(), held.position) && !answer.holds(held.id) {
                frames.extend_from_slice(&held.frame);
            }
        }
        frames
    }

    /// Sees to it that a new member does not get twice what its history was ahead with.
    fn trail(&mut self, slot: u32, answer: &Answer, numbering: Numbering) {
        let (top, unplaced) = (answer.top(), answer.unplaced());
        // Dense positions that were seen here are refused to everybody when they come again.
        let passed = numbering == Numbering::Dense && self.top.is_some_and(|now| reaches(now, top));
        if unplaced.is_empty() && (passed || top.offset == 0) {
            return;
        }
        self.comebacks.get_or_insert_default().trails.add(slot, top, unplaced, unix_us());
    }

    /// Sees to it that a new member does not get what comes late from before where it was told that the room stands.
    pub(super) fn trail_missed(&mut self, slot: u32) {
        let Some(top) = self.stands().filter(|stands| self.top != Some(*stands)) else { return };
        if self.members.get_mut(slot).is_some_and(|member| member.positioned) {
            self.comebacks.get_or_insert_default().trails.add(slot, top, &Arc::default(), 0);
        }
    }

    /// Takes note of the room's newest message, and of its frame, for those who come back. Names the slots of the members that had
    /// it by history, in ascending order: it is not for them.
    pub(super) fn hold_back(&mut self, message: &Message, frame: &[u8], bytes_max: usize) -> Vec<u32> {
        let Some(comebacks) = &mut self.comebacks else { return Vec::new() };
        if comebacks.under_way > 0 {
            let (position, id) = (message.position, message.envelope.id);
            comebacks.hold(Held { serial: self.serial, position, id, frame: frame.into() }, bytes_max);
        }
        let excluded = match comebacks.trails.is_empty() {
            true => Vec::new(),
            false => comebacks.trails.follow(message, unix_us()),
        };
        self.tidy_comebacks();
        excluded
    }

    /// Messages were lost on their way here: who is coming back cannot be sure of what was held.
    pub(super) fn note_loss(&mut self) {
        if let Some(comebacks) = &mut self.comebacks {
            comebacks.losses += 1;
        }
    }

    /// A member has left its slot.
    pub(super) fn forget_trail(&mut self, slot: u32) {
        if let Some(comebacks) = &mut self.comebacks
            && comebacks.trails.remove(slot)
        {
            self.tidy_comebacks();
        }
    }

    /// Members have left their slots.
    pub(super) fn forget_trails(&mut self) {
        let Some(comebacks) = &mut self.comebacks else { return };
        let members = &mut self.members;
        comebacks.trails.retain(|slot| members.get_mut(slot).is_some());
        self.tidy_comebacks();
    }

    /// Forgets everything once nobody needs it.
    fn tidy_comebacks(&mut self) {
        let unused = |comebacks: &Comebacks| comebacks.under_way == 0 && comebacks.trails.is_empty();
        if self.comebacks.as_deref().is_some_and(unused) {
            self.comebacks = None;
        }
    }
}

impl Comebacks {
    /// What was held back after message `serial`.
    fn since(&self, serial: u64) -> impl Iterator<Item = &Held> {
        let first = self.held.partition_point(|held| held.serial <= serial);
        self.held.range(first..)
    }

    fn hold(&mut self, held: Held, bytes_max: usize) {
        self.held_bytes += held.bytes();
        self.held.push_back(held);
        while self.held_bytes > bytes_max
            && let Some(oldest) = self.held.pop_front()
        {
            self.held_bytes -= oldest.bytes();
            self.dropped_serial = oldest.serial;
        }
    }
}

impl Held {
    fn bytes(&self) -> usize {
        self.frame.len() + HELD_OVERHEAD_BYTES
    }
}
