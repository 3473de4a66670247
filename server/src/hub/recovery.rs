//! Members that come back: while history is read for them, what arrives live is held back, so that nothing falls between the
//! two and nothing comes twice.
//!
//! A room holds messages back once for all who come back to it, within a bound of bytes. A room that nobody comes back to
//! has none of this, and pays one look at an absent box per message.
//!
//! History may be ahead of what arrives live: a log is read to its end while this node's reader is still on its way there. A
//! member with such an answer *trails*: what the answer held is not for it when it arrives live, too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use manifold_protocol::websocket::FrameBuilder;
use manifold_strategies::{Message, MessageId, Position, Resumed};

use super::answer::Answer;
use super::fan_out::frame_of;
use super::interest::Ticket;
use super::members::Members;
use super::room::{Room, State};
use super::{Grant, Hub, Numbering};
use crate::clock::unix_us;
use crate::metrics::RecoveryOutcome;
use crate::session::Session;

/// What a message held back counts for beside its payload and info, so that the bound is one of number, too.
const HELD_OVERHEAD_BYTES: usize = 256;
/// How long a message without a position, which history had already, may take to arrive live as well.
const UNPLACED_PATIENCE_US: u64 = 30_000_000;

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
    /// Members whose history was ahead of what arrives live, by their slots.
    trails: HashMap<u32, Trail>,
}

/// A live message that waits for histories.
struct Held {
    serial: u64,
    /// The offset that members see.
    offset: u64,
    message: Message,
}

/// How far a member's history was ahead of what arrives live.
struct Trail {
    /// Live messages up to here were in its history.
    top: Position,
    /// So were these, which have no position.
    unplaced: Arc<[MessageId]>,
    /// Until when those may still arrive.
    until_us: u64,
}

/// What a live message is to a member that trails.
enum Heard {
    Already,
    New,
    /// New, and everything after it will be.
    NewFromNowOn,
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

    /// Ends a recovery with what history answered, or without it if that is `too_large` for the subscriber. `reply` is called
    /// under the room's lock; it has to put the reply, and what was held back, into the outbox, and says whether the subscriber
    /// becomes a member.
    pub(crate) fn finish_recovery(
        &self,
        recovery: Recovery,
        session: &Arc<Session>,
        grant: Grant,
        answer: &Answer,
        too_large: bool,
        reply: impl FnOnce(Ending) -> bool,
    ) -> Option<(Arc<Room>, u32)> {
        let room = Arc::clone(recovery.room());
        let mut state = room.lock();
        let numbering = self.numbering();
        let top = answer.top();
        let judged = match answer.resumed() {
            Resumed::Complete { .. } if too_large => Err(RecoveryOutcome::TooLarge),
            Resumed::Complete { .. } => state.judge(&recovery, top, numbering),
            Resumed::Incomplete { .. } => Err(RecoveryOutcome::Incomplete),
        };
        let complete = judged.is_ok();
        let ending = match judged {
            Ok(()) => Ending::Complete { held: state.held_since(&recovery, &room, answer) },
            // What is known here is what the next message is measured by.
            Err(outcome) => Ending::Incomplete { top: state.stands().unwrap_or(top), outcome },
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
        if self.top.is_some_and(|now| now.epoch != top.epoch) {
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
                let mut held = comebacks.since(recovery.began_serial).map(|held| held.message.position);
                let first = held.find(|position| position.epoch == top.epoch && position.offset > top.offset);
                first.is_none_or(|first| first.offset == top.offset + 1)
            }
        };
        if reached { Ok(()) } else { Err(RecoveryOutcome::Hole) }
    }

    /// The frames of what was held back for a recovery and is not in its answer.
    fn held_since(&self, recovery: &Recovery, room: &Room, answer: &Answer) -> Vec<u8> {
        let mut frames = Vec::new();
        let Some(comebacks) = &self.comebacks else { return frames };
        let mut builder = FrameBuilder::new();
        for Held { offset, message, .. } in comebacks.since(recovery.began_serial) {
            if !reaches(answer.top(), message.position) && !answer.holds(message.envelope.id) {
                frames.extend_from_slice(frame_of(&mut builder, room, message, *offset));
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
        let until_us = unix_us() + UNPLACED_PATIENCE_US;
        let trail = Trail { top, unplaced: Arc::clone(unplaced), until_us };
        self.comebacks.get_or_insert_default().trails.insert(slot, trail);
    }

    /// Sees to it that a new member does not get what comes late from before where it was told that the room stands.
    pub(super) fn trail_missed(&mut self, slot: u32) {
        let Some(top) = self.stands().filter(|stands| self.top != Some(*stands)) else { return };
        if self.members.get_mut(slot).is_some_and(|member| member.positioned) {
            let trail = Trail { top, unplaced: Arc::default(), until_us: 0 };
            self.comebacks.get_or_insert_default().trails.insert(slot, trail);
        }
    }

    /// Takes note of the room's newest message for those who come back. Says how many members are not to get it: their
    /// `joined_serial` is raised to it.
    pub(super) fn hold_back(&mut self, message: &Message, offset: u64, bytes_max: usize) -> usize {
        let Self { comebacks: Some(comebacks), members, serial, .. } = self else { return 0 };
        if comebacks.under_way > 0 {
            comebacks.hold(Held { serial: *serial, offset, message: message.clone() }, bytes_max);
        }
        let excluded = comebacks.follow(message, members, *serial);
        self.tidy_comebacks();
        excluded
    }

    /// In a giant room: members that trail get what is for them at once. In the queue it would stand among messages that are
    /// not.
    pub(super) fn serve_trailing(&mut self, frame: &[u8]) {
        let Self { comebacks: Some(comebacks), members, serial, .. } = self else { return };
        for slot in comebacks.trails.keys() {
            if let Some(member) = members.get_mut(*slot)
                && member.joined_serial < *serial
            {
                member.joined_serial = *serial;
                member.session.send(frame);
            }
        }
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
            && comebacks.trails.remove(&slot).is_some()
        {
            self.tidy_comebacks();
        }
    }

    /// Members have left their slots.
    pub(super) fn forget_trails(&mut self) {
        let Some(comebacks) = &mut self.comebacks else { return };
        let members = &mut self.members;
        comebacks.trails.retain(|slot, _| members.get_mut(*slot).is_some());
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

    /// Looks at a live message for every member that trails.
    fn follow(&mut self, message: &Message, members: &mut Members, serial: u64) -> usize {
        let mut excluded = 0;
        self.trails.retain(|slot, trail| match trail.hear(message) {
            Heard::Already => {
                if let Some(member) = members.get_mut(*slot) {
                    member.joined_serial = serial;
                    excluded += 1;
                }
                true
            }
            Heard::New => true,
            Heard::NewFromNowOn => false,
        });
        excluded
    }
}

impl Held {
    fn bytes(&self) -> usize {
        let envelope = &self.message.envelope;
        envelope.payload.len() + envelope.info.len() + HELD_OVERHEAD_BYTES
    }
}

impl Trail {
    fn hear(&self, message: &Message) -> Heard {
        let waits_for_unplaced = || !self.unplaced.is_empty() && unix_us() < self.until_us;
        match message.position.offset {
            0 if self.unplaced.contains(&message.envelope.id) => Heard::Already,
            0 => Heard::New,
            _ if reaches(self.top, message.position) => Heard::Already,
            _ if waits_for_unplaced() => Heard::New,
            _ => Heard::NewFromNowOn,
        }
    }
}

/// Whether who stands at `top` has come by `position`.
fn reaches(top: Position, position: Position) -> bool {
    position.offset > 0 && position.epoch == top.epoch && position.offset <= top.offset
}
