//! How long something is held before it is given up.

use tokio::time::Instant;

use super::Merge;
use crate::backplane::{Event, RoomId};
use crate::hybrid::line::{Held, Key, Room, What};

/// How much longer something is held while the log cannot be read, or was not read yet as far as it is known to reach.
const PATIENCE_WITHOUT_LOG: u32 = 5;
/// How much longer it is held at most, whatever the log does.
const PATIENCE_MAX: u32 = 20;

impl Merge {
    /// Whether the log can be read.
    pub(in crate::hybrid) fn log_link(&mut self, broken: bool, now: Instant) {
        if self.log_broken && !broken {
            self.log_back_at = Some(now);
        }
        self.log_broken = broken;
    }

    /// Looks again at everything held: the log has moved on, or time has.
    pub(in crate::hybrid) fn look(&mut self, now: Instant) {
        if self.holding.is_empty() {
            return;
        }
        let patience = if self.log_broken { self.patience * PATIENCE_WITHOUT_LOG } else { self.patience };
        for id in self.holding.iter().cloned().collect::<Vec<_>>() {
            let parked = self.rooms.get(&id).and_then(|room| room.parked.front());
            if parked.is_some_and(|oldest| now.duration_since(oldest.since) >= patience) {
                self.unpark(&id, now);
            }
            self.drain(&id);
            while let Some(room) = self.rooms.get(&id)
                && let Some((_, held)) = room.held.first_key_value()
                && self.is_overdue(room, held, now)
            {
                self.give_up(&id);
                self.drain(&id);
            }
        }
    }

    /// Whether something has been held for long enough. The clock starts anew when the log can be read again: what is missing
    /// may lie in what was not read meanwhile.
    ///
    /// A message that follows records which were not read yet is waited for as long as the log moves on, since these are known to
    /// be there: a node that is short of processor time reads late, and would turn the order of a publisher around.
    fn is_overdue(&self, room: &Room, held: &Held, now: Instant) -> bool {
        if now.duration_since(held.since) >= self.patience * PATIENCE_MAX {
            return true;
        }
        let next = self.tail.get(room.partition).copied().unwrap_or(i64::MAX);
        let is_fenced = matches!(&held.what, What::Sequenced { fence, .. } if *fence > next);
        let read_at = self.read_at.get(room.partition).copied().flatten().filter(|_| is_fenced);
        let from = [self.log_back_at, read_at].into_iter().flatten().fold(held.since, Ord::max);
        let times = if is_fenced || self.log_broken { PATIENCE_WITHOUT_LOG } else { 1 };
        now.duration_since(from) >= self.patience * times
    }

    /// Goes on without what the first of a room's held waits for.
    pub(super) fn give_up(&mut self, id: &RoomId) {
        if let Some(room) = self.rooms.get_mut(id)
            && let Some((key, _)) = room.held.first_key_value()
        {
            let (generation, ..): Key = *key;
            if let Some(epoch) = room.advance_to(generation) {
                self.out.push(Event::Renumbered { room: id.clone(), epoch });
            }
            self.take_first(id);
        }
    }
}
