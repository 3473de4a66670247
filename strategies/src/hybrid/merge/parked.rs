//! What the log brings of an epoch that the live path has not told of yet.
//!
//! The live link may still be with a server that is master no more, while a publisher has found the new one. If such a message
//! were delivered at once it would have no position here, but it has one in the log: a member that then comes back
//! would get it again. So it waits until the live path has moved on and says what the epoch is, or is known to be broken, or
//! until patience ends. Then an epoch that the log has from its first position on is taken for the next one; anything else is a
//! record from before, and late.

use std::collections::HashSet;

use tokio::time::Instant;

use super::Merge;
use super::bounds::{HELD_MAX, weight};
use crate::backplane::{Position, RoomId};
use crate::envelope::View;
use crate::hybrid::line::Parked;

impl Merge {
    /// Lets a record wait.
    pub(super) fn park(&mut self, id: &RoomId, view: &View<'_>, now: Instant) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        let envelope = view.to_envelope();
        let bytes = weight(&envelope);
        room.parked.push_back(Parked { at: view.position, envelope, since: now });
        let full = room.parked.len() > HELD_MAX;
        self.holding.insert(id.clone());
        self.add_weight(id, bytes);
        if full || self.is_over() {
            self.unpark(id, now);
        }
    }

    /// Finds a place for everything that waits in a room.
    pub(super) fn unpark(&mut self, id: &RoomId, now: Instant) {
        let listening = self.interrupted == 0;
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.parked.is_empty() {
            return;
        }
        let parked = std::mem::take(&mut room.parked);
        self.remove_weight(id, parked.iter().map(|parked| weight(&parked.envelope)).sum());
        let first = |parked: &Parked| parked.at.filter(|at| at.offset == 1).map(|at| at.epoch);
        let whole: HashSet<u64> = parked.iter().filter_map(first).collect();
        for Parked { at, envelope, .. } in parked {
            let Some(at) = at else {
                self.log_only(id, envelope, now);
                continue;
            };
            let Some(room) = self.rooms.get_mut(id) else { return };
            let next = || !room.is_past(at.epoch) && (!listening || whole.contains(&at.epoch));
            let line = match room.line_of(at.epoch) {
                Some(line) => Some(line),
                None => next().then(|| room.begin(at.epoch, 0, 0)),
            };
            match line {
                Some(line) => self.offer(id, line, at.offset, || envelope, None, now),
                None => self.deliver(envelope, id, Position::default(), None),
            }
        }
        self.drain(id);
    }

    /// The same for all rooms.
    pub(super) fn unpark_all(&mut self, now: Instant) {
        for id in self.holding.iter().cloned().collect::<Vec<_>>() {
            self.unpark(&id, now);
        }
    }

    /// The log has filled a hole that the live path had left.
    pub(super) fn count_repaired(&mut self, id: &RoomId, generation: u32, offset: u64) {
        let Some(room) = self.rooms.get_mut(id) else { return };
        if room.repaired != (generation, offset - 1) {
            self.stats.gaps_repaired.add(1);
        }
        room.repaired = (generation, offset);
        self.stats.gap_messages_repaired.add(1);
    }
}
