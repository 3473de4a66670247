//! A room on this node: its members, where it stands, and whether the backplane carries it here.

use std::fmt;
use std::sync::Arc;

use manifold_protocol::{PublicationPrefix, Push, PushBody, UnsubscribeCode, json};
use manifold_strategies::{Position, RoomId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use super::giant::Giant;
use super::members::{Member, Members};
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
    /// The last position seen, where positions are dense.
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

    /// Compares a dense position with the last one and moves on to it, unless it is stale.
    pub(super) fn advance(&mut self, position: Position) -> Advance {
        let advance = self.compare(position);
        if advance != Advance::Stale {
            self.top = Some(position);
        }
        advance
    }

    /// Whether a message at this position would come after a hole.
    pub(super) fn jumps_to(&self, position: Position) -> bool {
        self.compare(position) == Advance::Jump
    }

    fn compare(&self, position: Position) -> Advance {
        match self.top {
            Some(top) if top.epoch == position.epoch && position.offset <= top.offset => Advance::Stale,
            Some(top) if top.epoch != position.epoch || position.offset != top.offset + 1 => Advance::Jump,
            _ => Advance::Next,
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
        match &mut self.top {
            Some(top) if top.epoch == position.epoch => top.offset = top.offset.max(position.offset),
            // Where the position is not known, what arrives first is next.
            top => *top = (position != Position::default()).then_some(position),
        }
    }

    /// Sends away the members that asked to be told of losses, with `parting` frames before the goodbye; they subscribe
    /// again by themselves. Says how many.
    pub(super) fn dismiss_positioned(&mut self, room: &RoomId, parting: &[u8]) -> usize {
        let push = Push {
            id: 0,
            channel: room.as_str().into(),
            body: PushBody::Unsubscribe(UnsubscribeCode::INSUFFICIENT_STATE.into()),
        };
        let mut dismissed = 0;
        let goodbye = frame::text(|out| json::append_push(out, &push));
        let bytes = [parting, &goodbye].concat();
        self.members.extract(
            |member| member.positioned,
            |Member { session, .. }| {
                session.send(&bytes);
                dismissed += 1;
            },
        );
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
        assert_eq!(state.advance(at(7, 3)), Advance::Stale);
        assert_eq!(state.advance(at(7, 4)), Advance::Next);
        assert_eq!(state.advance(at(7, 6)), Advance::Jump);
        assert_eq!(state.advance(at(7, 7)), Advance::Next);
        assert_eq!(state.advance(at(8, 1)), Advance::Jump);
        assert_eq!(state.advance(at(8, 2)), Advance::Next);
    }

    #[test]
    fn a_join_does_not_fall_behind_what_arrived_meanwhile() {
        let mut state = State::default();
        assert_eq!(state.advance(at(7, 5)), Advance::Next);
        state.joined_at(at(7, 4));
        assert_eq!(state.top, Some(at(7, 5)));
        state.joined_at(at(9, 1));
        assert_eq!(state.top, Some(at(9, 1)));
        state.joined_at(Position::default());
        assert_eq!(state.advance(at(9, 70)), Advance::Next, "nobody knows what came before");
    }
}
