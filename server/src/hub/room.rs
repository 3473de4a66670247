//! A room on this node: its members, where it stands, and whether the backplane carries it here.

use std::fmt;
use std::sync::Arc;

use manifold_protocol::{PublicationPrefix, Push, PushBody, UnsubscribeCode, json};
use manifold_strategies::{Position, RoomId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::Numbering;
use super::giant::Giant;
use super::members::{Member, Members};
use super::recovery::Comebacks;
use crate::frame;
use crate::session::Session;

/// A room with local members, or on its way there or back.
pub(crate) struct Room {
    pub(crate) id: RoomId,
    /// The constant front of its pushes.
    pub(super) prefix: PublicationPrefix,
    /// Held while a turn through a giant room's members runs, and by whoever takes members out, so that no push follows
    /// their goodbye; taken before `state`.
    pub(super) turn: Mutex<()>,
    state: Mutex<State>,
}

/// What the room's lock guards. Appending to outboxes happens under it, so all members see one order.
#[derive(Default)]
pub(super) struct State {
    pub(super) members: Members,
    /// Counts this room's messages on this node.
    pub(super) serial: u64,
    /// The last position seen, where positions mean something to members.
    pub(super) top: Option<Position>,
    /// Some members may have a position of a numbering that has ended.
    pub(super) renumbered: bool,
    pub(super) interest: Interest,
    /// Subscribers that wait for the join to resolve.
    pub(super) waiters: Vec<oneshot::Sender<Result<(), JoinFailed>>>,
    /// Subscribers that will become members, or give up: they keep the interest alive.
    pub(super) tickets: u32,
    /// A task is at work on the interest.
    pub(super) driven: bool,
    /// The hub has dropped this room: look again.
    pub(super) removed: bool,
    pub(super) giant: Option<Box<Giant>>,
    /// What is kept for those who come back; absent while nobody does.
    pub(super) comebacks: Option<Box<Comebacks>>,
    /// The room's position is compared with the backplane's while it is quiet.
    pub(super) watched: bool,
    /// The last position that such a comparison found to be missing, or that was asked for where nothing is known here:
    /// whoever has a position here stands there or further on.
    pub(super) missed_to: Option<Position>,
}

/// Whether the backplane brings this room's messages to this node.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    #[default]
    Idle,
    Joining,
    Joined,
    Leaving,
}

/// The backplane could not join the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the backplane could not join the room")]
pub(crate) struct JoinFailed;

/// How a message stands to what the room has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Advance {
    /// It is the next one.
    Next,
    /// Something is missing before it, or the numbering restarted.
    Jump,
    /// It was seen before.
    Stale,
}

impl Room {
    pub(super) fn new(id: RoomId) -> Self {
        let prefix = PublicationPrefix::new(id.as_str());
        Self { id, prefix, turn: Mutex::new(()), state: Mutex::default() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Members on this node.
    pub(crate) fn len(&self) -> usize {
        self.lock().members.len()
    }

    /// Whether `session` is still the member in `slot`: the room may have sent it away.
    pub(crate) fn holds(&self, slot: u32, session: &Arc<Session>) -> bool {
        self.lock().members.holds(slot, session)
    }
}

impl State {
    /// Whether somebody here wants the room's messages.
    pub(super) fn wanted(&self) -> bool {
        self.tickets > 0 || !self.members.is_empty()
    }

    /// Compares a position with the last one and moves on to it, unless it is stale.
    pub(super) fn advance(&mut self, position: Position, numbering: Numbering) -> Advance {
        let advance = self.compare(position, numbering);
        if advance != Advance::Stale {
            self.top = Some(position);
        }
        advance
    }

    /// Whether members have to go before a message at this position: because it comes after a hole, or because theirs is of a
    /// numbering that has ended, and history gives them what follows with positions of the new one.
    pub(super) fn sends_away(&self, position: Position, numbering: Numbering) -> bool {
        self.compare(position, numbering) == Advance::Jump
            || self.renumbered && self.members.iter().any(|member| member.void && member.recoverable)
    }

    /// Where the room stands for those who enter it: ahead of what arrived, if the rest is known to be missing. What of that
    /// arrives late is not for them.
    pub(super) fn stands(&self) -> Option<Position> {
        let Some(top) = self.top else { return self.missed_to };
        let missed = self.missed_to.filter(|missed| missed.epoch == top.epoch && missed.offset > top.offset);
        Some(missed.unwrap_or(top))
    }

    fn compare(&self, position: Position, numbering: Numbering) -> Advance {
        let Some(stands) = self.stands() else { return Advance::Next };
        if stands.epoch != position.epoch {
            return Advance::Jump;
        }
        // Of what is missing up to where the room stands everybody who wants to know was told.
        let hole = numbering == Numbering::Dense && position.offset > stands.offset + 1;
        match self.top.is_some_and(|top| position.offset <= top.offset) {
            true => Advance::Stale,
            false if hole => Advance::Jump,
            false => Advance::Next,
        }
    }

    /// The numbering starts anew at offset 1 of `epoch`; whoever is here has positions of an old one.
    pub(super) fn renumber(&mut self, epoch: u64) {
        self.top = Some(Position { epoch, offset: 0 });
        self.members.iter_mut().for_each(|member| member.void = member.positioned);
        self.renumbered = true;
    }

    /// The join resolved with `position`; messages after it may have arrived already.
    pub(super) fn joined_at(&mut self, position: Position) {
        self.interest = Interest::Joined;
        if position == Position::default() {
            // What was known was known before the room was left.
            self.missed_to = None;
        }
        match &mut self.top {
            Some(top) if top.epoch == position.epoch => top.offset = top.offset.max(position.offset),
            // Where the position is not known, what arrives first is next.
            top => *top = (position != Position::default()).then_some(position),
        }
    }

    /// Sends away the members that asked to be told of losses, with `parting` frames before the goodbye; they subscribe
    /// again by themselves. Who can recover gets those frames by that, and would get them twice. Says how many.
    pub(super) fn dismiss_positioned(&mut self, room: &RoomId, parting: &[u8]) -> usize {
        self.dismiss(room, parting, |member| member.positioned)
    }

    /// Sends away the members whose position is of a numbering that has ended and who get by history what follows. Says how
    /// many.
    pub(super) fn dismiss_void(&mut self, room: &RoomId) -> usize {
        self.dismiss(room, &[], |member| member.void && member.recoverable)
    }

    fn dismiss(&mut self, room: &RoomId, parting: &[u8], unwanted: impl Fn(&Member) -> bool) -> usize {
        let push = Push {
            id: 0,
            channel: room.as_str().into(),
            body: PushBody::Unsubscribe(UnsubscribeCode::INSUFFICIENT_STATE.into()),
        };
        let mut dismissed = 0;
        let goodbye = frame::text(|out| json::append_push(out, &push));
        let bytes = [parting, &goodbye].concat();
        self.members.extract(unwanted, |Member { session, recoverable, .. }| {
            session.send(if recoverable { &goodbye } else { &bytes });
            dismissed += 1;
        });
        self.forget_trails();
        dismissed
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("id", &self.id).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn positions_advance_by_one_within_an_epoch() {
        let mut state = State::default();
        state.joined_at(at(7, 3));
        let mut advance = |position| state.advance(position, Numbering::Dense);
        assert_eq!(advance(at(7, 3)), Advance::Stale);
        assert_eq!(advance(at(7, 4)), Advance::Next);
        assert_eq!(advance(at(7, 6)), Advance::Jump);
        assert_eq!(advance(at(7, 7)), Advance::Next);
        assert_eq!(advance(at(8, 1)), Advance::Jump);
        assert_eq!(advance(at(8, 2)), Advance::Next);
    }

    #[test]
    fn what_is_known_to_be_missing_is_no_hole_and_keeps_its_place() {
        let mut state = State::default();
        state.joined_at(at(7, 3));
        state.missed_to = Some(at(7, 5));
        assert_eq!(state.stands(), Some(at(7, 5)));
        assert_eq!(state.advance(at(7, 4), Numbering::Dense), Advance::Next, "it comes late");
        assert_eq!(state.advance(at(7, 4), Numbering::Dense), Advance::Stale);
        assert_eq!(state.compare(at(7, 7), Numbering::Dense), Advance::Jump);
        assert_eq!(state.advance(at(7, 6), Numbering::Dense), Advance::Next);
        assert_eq!(state.stands(), Some(at(7, 6)));
        state.renumber(8);
        assert_eq!(state.stands(), Some(at(8, 0)));
    }

    #[test]
    fn where_nothing_is_known_what_was_asked_for_is_the_measure() {
        let mut state = State::default();
        state.joined_at(Position::default());
        state.missed_to = Some(at(7, 5));
        assert_eq!(state.stands(), Some(at(7, 5)));
        assert_eq!(state.compare(at(7, 7), Numbering::Dense), Advance::Jump);
        assert_eq!(state.compare(at(8, 6), Numbering::Dense), Advance::Jump);
        assert_eq!(state.compare(at(7, 6), Numbering::Dense), Advance::Next);
        assert_eq!(state.advance(at(7, 4), Numbering::Dense), Advance::Next, "it comes late");
        assert_eq!(state.stands(), Some(at(7, 5)));
        state.joined_at(Position::default());
        assert_eq!(state.stands(), None, "the room was left meanwhile");
    }

    #[test]
    fn rising_positions_have_holes() {
        let mut state = State::default();
        state.joined_at(at(7, 3));
        let mut advance = |position| state.advance(position, Numbering::Rising);
        assert_eq!(advance(at(7, 3)), Advance::Stale);
        assert_eq!(advance(at(7, 9)), Advance::Next);
        assert_eq!(advance(at(7, 4)), Advance::Stale);
        assert_eq!(advance(at(8, 1)), Advance::Jump, "positions of two numberings cannot be compared");
        assert_eq!(advance(at(8, 5)), Advance::Next);
    }

    #[test]
    fn a_join_does_not_fall_behind_what_arrived_meanwhile() {
        let mut state = State::default();
        assert_eq!(state.advance(at(7, 5), Numbering::Dense), Advance::Next);
        state.joined_at(at(7, 4));
        assert_eq!(state.top, Some(at(7, 5)));
        state.joined_at(at(9, 1));
        assert_eq!(state.top, Some(at(9, 1)));
        state.joined_at(Position::default());
        assert_eq!(
            state.advance(at(9, 70), Numbering::Dense),
            Advance::Next,
            "nobody knows what came before"
        );
    }
}
