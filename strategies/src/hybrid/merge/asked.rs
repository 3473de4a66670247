//! What others ask of the merge, and what they tell it of the log.

use super::Merge;
use crate::backplane::{Event, MessageId, Position, RoomId};
use crate::clients::kafka::{ReadTo, Resume};
use crate::hybrid::line::position;

impl Merge {
    /// The log does not hold what was to be read next: reading goes on at another offset. What that means for a room is
    /// unknown: most was delivered live, so an empty gap says that something may be missing.
    pub(in crate::hybrid) fn log_moved(&mut self, to: Resume) {
        let Ok(partition) = usize::try_from(to.partition) else { return };
        if let Some(tail) = self.tail.get_mut(partition) {
            *tail = to.offset;
        }
        for room in self.rooms.values_mut().filter(|room| room.partition == partition) {
            if to.renumbered {
                // What counted as older than the join means nothing any more.
                room.since = room.since.min(to.offset);
            }
            let next = room.lines.front().map_or(0, |line| line.reached) + 1;
            self.stats.gaps.add(1);
            self.out.push(Event::Gap { room: room.id.clone(), from: next, to: next });
        }
    }

    /// The offset of a partition that is read next.
    pub(in crate::hybrid) fn next_of(&self, partition: usize) -> i64 {
        self.tail.get(partition).copied().unwrap_or_default()
    }

    /// Whether a room holds nothing.
    pub(in crate::hybrid) fn rests(&self, id: &RoomId) -> bool {
        !self.holding.contains(id)
    }

    /// Where a room with local members stands, once that is known.
    pub(in crate::hybrid) fn stands(&self, id: &RoomId) -> Option<Position> {
        let line = self.rooms.get(id)?.lines.front()?;
        Some(position(*line, line.reached))
    }

    /// What a room was shown behind `since` before the log had it; `None` if that is too much to remember.
    pub(in crate::hybrid) fn unlogged(&self, id: &RoomId, since: Position) -> Option<Vec<MessageId>> {
        let Some(room) = self.rooms.get(id) else { return Some(Vec::new()) };
        room.unlogged.behind(room.generation_of(since.epoch).map(|generation| (generation, since.offset)))
    }

    /// How far each partition was read.
    pub(in crate::hybrid) fn read_to(&self) -> Vec<ReadTo> {
        let places = (0..).zip(self.tail.iter().zip(&self.newest_ms));
        places.map(|(partition, (&next, &newest_ms))| ReadTo { partition, next, newest_ms }).collect()
    }
}
