//! Members that come back: while history is read for them, what arrives live is held back, so that nothing falls between the
//! two and nothing comes twice.
//!
//! A room holds messages back once for all who come back to it, within a bound of bytes. A room that nobody comes back to
//! has none of this, and pays one look at an absent box per message.
//!
//! History may be ahead of what arrives live: a log is read to its end while this node's reader is still on its way there. A
//! member with such an answer *trails*: what the answer held is not for it when it arrives live, too.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use manifold_protocol::websocket::FrameBuilder;
use manifold_strategies::{Message, MessageId, Position, Resumed};

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
    trails: Vec<Trail>,
}

/// A live message that waits for histories.
struct Held {
    serial: u64,
    /// The offset that members see.
    offset: u64,
    message: Message,
}

/// A member whose history was ahead of what arrives live.
struct Trail {
    slot: u32,
    session: Arc<Session>,
    /// Live messages up to here were in its history.
    top: Position,
    /// So were these, which have no position.
    unplaced: Vec<MessageId>,
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
        let (began_serial, losses) = ticket.room.lock().begin_recovery();
        Recovery { ticket, began_serial, losses }
    }

    /// Ends a recovery with what history answered. `reply` is called under the room's lock; it has to put the reply, and what
    /// was held back, into the outbox, and says whether the subscriber becomes a member.
    pub(crate) fn finish_recovery(
        &self,
        recovery: Recovery,
        session: &Arc<Session>,
        grant: Grant,
        resumed: &Resumed,
        reply: impl FnOnce(Ending) -> bool,
    ) -> Option<(Arc<Room>, u32)> {
        let room = Arc::clone(recovery.room());
        let mut state = room.lock();
        let numbering = self.numbering();
        let (ending, answer) = match resumed {
            Resumed::Complete { messages, top } => match state.judge(&recovery, *top, numbering) {
                Ok(()) => {
                    let held = state.held_since(&recovery, &room, messages, *top);
                    (Ending::Complete { held }, Some((messages, *top)))
                }
                Err(outcome) => (state.incomplete(*top, outcome), None),
            },
            Resumed::Incomplete { top } => (state.incomplete(*top, RecoveryOutcome::Incomplete), None),
        };
        let slot = reply(ending).then(|| {
            let slot = self.admit(&room, &mut state, session, grant);
            if let Some((messages, top)) = answer {
                state.trail(slot, session, messages, top, numbering);
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
    fn begin_recovery(&mut self) -> (u64, u64) {
        let comebacks = self.comebacks.get_or_insert_default();
        comebacks.under_way += 1;
        (self.serial, comebacks.losses)
    }

    fn end_recovery(&mut self) {
        if let Some(comebacks) = &mut self.comebacks {
            comebacks.under_way -= 1;
            if comebacks.under_way == 0 {
                comebacks.held = VecDeque::new();
                comebacks.held_bytes = 0;
            }
        }
        self.forget_comebacks();
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
        let Some(now) = self.top else { return Ok(()) };
        if now.epoch != top.epoch {
            return Err(RecoveryOutcome::Renumbered);
        }
        let held = comebacks.since(recovery.began_serial).map(|held| held.message.position);
        let reached = held.filter(|position| position.epoch == now.epoch).map(|position| position.offset);
        if numbering == Numbering::Dense && reached.fold(top.offset, u64::max) < now.offset {
            // History answered with less than had been delivered here.
            return Err(RecoveryOutcome::Hole);
        }
        Ok(())
    }

    fn incomplete(&self, top: Position, outcome: RecoveryOutcome) -> Ending {
        // What is known here is what the next message is measured by.
        Ending::Incomplete { top: self.top.unwrap_or(top), outcome }
    }

    /// The frames of what was held back for a recovery and is not in its answer.
    fn held_since(&self, recovery: &Recovery, room: &Room, answer: &[Message], top: Position) -> Vec<u8> {
        let mut frames = Vec::new();
        let Some(comebacks) = &self.comebacks else { return frames };
        let mut held = comebacks.since(recovery.began_serial).peekable();
        if held.peek().is_none() {
            return frames;
        }
        let answered: HashSet<MessageId> = answer.iter().map(|message| message.envelope.id).collect();
        let mut builder = FrameBuilder::new();
        for Held { offset, message, .. } in held {
            if !answered.contains(&message.envelope.id) && !reaches(top, message.position) {
                frames.extend_from_slice(frame_of(&mut builder, room, message, *offset));
            }
        }
        frames
    }

    /// Sees to it that a new member does not get twice what its history was ahead with.
    fn trail(
        &mut self,
        slot: u32,
        session: &Arc<Session>,
        answer: &[Message],
        top: Position,
        numbering: Numbering,
    ) {
        let unplaced = answer.iter().filter(|message| message.position.offset == 0);
        let unplaced: Vec<MessageId> = unplaced.map(|message| message.envelope.id).collect();
        // Dense positions that were seen here are refused to everybody when they come again.
        let passed = numbering == Numbering::Dense && self.top.is_some_and(|now| reaches(now, top));
        if unplaced.is_empty() && (passed || top.offset == 0) {
            return;
        }
        let until_us = unix_us() + UNPLACED_PATIENCE_US;
        let trail = Trail { slot, session: Arc::clone(session), top, unplaced, until_us };
        self.comebacks.get_or_insert_default().trails.push(trail);
    }

    /// Takes note of the room's newest message for those who come back. Says how many members are not to get it: their
    /// `joined_serial` is raised to it.
    pub(super) fn hold_back(&mut self, message: &Message, offset: u64, bytes_max: usize) -> usize {
        let Self { comebacks: Some(comebacks), members, serial, .. } = self else { return 0 };
        if comebacks.under_way > 0 {
            comebacks.hold(Held { serial: *serial, offset, message: message.clone() }, bytes_max);
        }
        let excluded = comebacks.follow(message, members, *serial);
        self.forget_comebacks();
        excluded
    }

    /// In a giant room: members that trail get what is for them at once. In the queue it would stand among messages that are
    /// not.
    pub(super) fn serve_trailing(&mut self, frame: &[u8]) {
        let Self { comebacks: Some(comebacks), members, serial, .. } = self else { return };
        for trail in &comebacks.trails {
            if let Some(member) = members.get_mut(trail.slot)
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

    /// Forgets members that have left, and everything once nobody needs it.
    pub(super) fn forget_comebacks(&mut self) {
        let Some(comebacks) = &mut self.comebacks else { return };
        let members = &self.members;
        comebacks.trails.retain(|trail| members.holds(trail.slot, &trail.session));
        if comebacks.under_way == 0 && comebacks.trails.is_empty() {
            self.comebacks = None;
        }
    }
}

impl Comebacks {
    /// What was held back after message `serial`.
    fn since(&self, serial: u64) -> impl Iterator<Item = &Held> {
        self.held.iter().skip_while(move |held| held.serial <= serial)
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
        self.trails.retain(|trail| match trail.hear(message) {
            Heard::Already => {
                if let Some(member) = members.get_mut(trail.slot) {
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
