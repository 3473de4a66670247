//! What a node holds is bounded: per room by messages, over all rooms by bytes.

use super::Merge;
use crate::backplane::{Envelope, MessageId, RoomId};
use crate::hybrid::line::{Held, Key, What};

/// Most that one room holds; beyond, the oldest hole is given up.
pub(in crate::hybrid) const HELD_MAX: usize = 8192;
/// Most that all rooms of a node hold, in bytes; beyond, the room that would hold more gives up its oldest holes.
pub(super) const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most live messages of all rooms that are remembered until their records are read.
const UNLOGGED_MAX: usize = 262_144;
/// What holding a message costs apart from its contents, about.
const OVERHEAD_BYTES: usize = 160;

/// What it costs to hold a message.
pub(super) fn weight(envelope: &Envelope) -> usize {
    envelope.payload.len() + envelope.info.len() + envelope.room.as_str().len() + OVERHEAD_BYTES
}

impl Merge {
    /// Lets something wait for its turn.
    pub(super) fn hold(&mut self, id: &RoomId, key: Key, held: Held) {
        let bytes = match &held.what {
            What::Sequenced { envelope, .. } | What::LogOnly { envelope } => weight(envelope),
            What::Marker | What::Pause => 0,
        };
        if let Some(room) = self.rooms.get_mut(id) {
            room.held.insert(key, held);
            self.add_weight(id, bytes);
        }
    }

    /// A room holds so much more.
    pub(super) fn add_weight(&mut self, id: &RoomId, bytes: usize) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.held_bytes += bytes;
            self.held_bytes += bytes;
        }
    }

    /// A room holds so much less.
    pub(super) fn remove_weight(&mut self, id: &RoomId, bytes: usize) {
        if let Some(room) = self.rooms.get_mut(id) {
            room.held_bytes = room.held_bytes.saturating_sub(bytes);
            self.held_bytes = self.held_bytes.saturating_sub(bytes);
        }
    }

    /// Everything of a room goes.
    pub(super) fn forget_room(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.remove(id) {
            self.held_bytes = self.held_bytes.saturating_sub(room.held_bytes);
            self.unlogged = self.unlogged.saturating_sub(room.unlogged.len());
        }
        self.holding.remove(id);
    }

    /// Whether all rooms together hold too much.
    pub(super) fn is_over(&self) -> bool {
        self.held_bytes > HELD_BYTES_MAX
    }

    /// Gives up the oldest holes of a room while it holds too much.
    pub(super) fn relieve(&mut self, id: &RoomId) {
        while let Some(room) = self.rooms.get(id)
            && (room.held.len() > HELD_MAX || (self.is_over() && !room.held.is_empty()))
        {
            self.give_up(id);
        }
        self.drain(id);
    }

    /// A room was shown a message whose record was not read yet.
    pub(super) fn show(&mut self, id: &RoomId, message: MessageId, place: (u32, u64)) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let before = room.unlogged.len();
        room.unlogged.show(message, place);
        self.unlogged = (self.unlogged + room.unlogged.len()).saturating_sub(before);
        if self.unlogged > UNLOGGED_MAX {
            self.rooms.values_mut().for_each(|room| room.unlogged.forget());
            self.unlogged = 0;
        }
    }

    /// The record of a message was read.
    pub(super) fn logged(&mut self, id: &str, message: MessageId) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let before = room.unlogged.len();
        room.unlogged.log(message);
        self.unlogged = (self.unlogged + room.unlogged.len()).saturating_sub(before);
    }
}
