//! Presence's ways through the hub: what nodes say about it comes in, and `join` and `leave` pushes go out to the members that
//! wish to see who comes and goes.
//!
//! Pushes take turns as a giant room's messages do, whatever the room's size: nothing of them runs within a delivery.

use std::sync::Arc;

use manifold_strategies::{Message, RoomId};

use super::Hub;
use super::cork::yield_worker;
use super::room::Room;
use crate::presence;
use crate::session::Session;

/// Slots looked at per turn.
const TURN_MEMBERS: usize = 128;

impl Hub {
    /// A message of a room that nobody here is in: it may be of the one that nodes speak in.
    pub(super) fn take_hidden(&self, message: &Message) {
        let Some(presence) = self.presence() else { return };
        if message.envelope.room.as_str() == presence::ROOM {
            presence.take(&message.envelope.payload);
        }
    }

    /// Messages of a room that nobody here is in were lost.
    pub(super) fn take_hidden_gap(&self, room: &RoomId) {
        let Some(presence) = self.presence() else { return };
        if room.as_str() == presence::ROOM {
            presence.take_gap();
        }
    }

    /// Whether somebody here wishes to see who comes to a room and goes.
    pub(crate) fn shows_arrivals(&self, room: &RoomId) -> bool {
        let room = self.find(room.as_str());
        room.is_some_and(|room| room.lock().members.iter().any(|member| member.join_leave))
    }

    /// Sends a frame to all members of a room that wish to see who comes and goes.
    pub(crate) async fn show_arrivals(&self, room: &RoomId, frame: &[u8]) {
        let Some(room) = self.find(room.as_str()) else { return };
        let mut first = 0;
        while room.show_arrivals(first, frame) {
            first += TURN_MEMBERS;
            yield_worker().await;
        }
    }
}

impl Room {
    /// Serves the members from slot `first` on. False: these were the last.
    fn show_arrivals(&self, first: usize, frame: &[u8]) -> bool {
        // Nobody leaves meanwhile: no push follows a goodbye.
        let _turn = self.turn.lock();
        let state = self.lock();
        let end = first + TURN_MEMBERS;
        let wishing = state.members.slice(first..end).filter(|(_, member)| member.join_leave);
        let sessions: Vec<Arc<Session>> = wishing.map(|(_, member)| Arc::clone(&member.session)).collect();
        let more = end < state.members.end();
        drop(state);
        for session in sessions {
            session.send(frame);
        }
        more
    }
}
