//! What the node wants and how far it has read: shared by the reading thread, the keeper and the callers.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::RwLock;

use super::partitioner::{RoomPartitioner, murmur2};
use crate::backplane::{Position, RoomId};
use crate::stats::Stats;

/// The node's rooms and its place in every partition.
#[derive(Debug)]
pub(super) struct Rooms {
    partitioner: RoomPartitioner,
    /// Upper bits of every epoch; the partition is in the lowest 16.
    numbering: u64,
    wanted: RwLock<HashMap<RoomId, i32>>,
    /// The offset that is read next, by partition; -1 = the partition was never read.
    next: Box<[AtomicI64]>,
    /// The broker's time of the newest record read, in ms, by partition; -1 = none yet.
    newest_ms: Box<[AtomicI64]>,
    /// How often a partition's log began anew while this node read it: each is another numbering.
    restarts: Box<[AtomicU64]>,
    pub(super) stats: Stats,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Read before, or left over from an earlier assignment.
    Stale,
    /// The next one.
    Next,
    /// The next one that is left: records from this offset on were lost.
    After(i64),
}

impl Rooms {
    /// `cluster` is the identity of the Kafka cluster: offsets of another one are another numbering.
    pub(super) fn new(partitioner: RoomPartitioner, partitions: u32, cluster: &str, topic: &str) -> Self {
        let cells = || (0..partitions).map(|_| AtomicI64::new(-1)).collect();
        let numbering = (u64::from(murmur2(cluster.as_bytes())) << 32)
            | u64::from(murmur2(topic.as_bytes()) & 0xffff) << 16;
        Self {
            partitioner,
            numbering,
            wanted: RwLock::default(),
            next: cells(),
            newest_ms: cells(),
            restarts: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            stats: Stats::default(),
        }
    }

    pub(super) fn partition_of(&self, room: &RoomId) -> i32 {
        self.partitioner.partition_of(room.as_str().as_bytes())
    }

    pub(super) fn partitions(&self) -> impl Iterator<Item = i32> + use<> {
        0..i32::try_from(self.next.len()).unwrap_or(i32::MAX)
    }

    /// The position of the message at `offset`: the first message of a partition has position 1. The epoch names
    /// the partition, so a room that moves to another one starts a new numbering.
    pub(super) fn position(&self, partition: i32, offset: i64) -> Position {
        let epoch = (self.numbering ^ self.restarts(partition) << 32) | partition as u64;
        Position { epoch, offset: (offset + 1).max(0) as u64 }
    }

    /// How often the partition's log began anew.
    pub(super) fn restarts(&self, partition: i32) -> u64 {
        let restarts = usize::try_from(partition).ok().and_then(|index| self.restarts.get(index));
        restarts.map_or(0, |restarts| restarts.load(Relaxed))
    }

    /// The logs of these partitions began anew; they are read from these offsets.
    pub(super) fn renumber(&self, offsets: &[(i32, i64)]) {
        // No record is noted in between, so that none has a place in the wrong numbering.
        let _nobody_reads = self.wanted.write();
        for &(partition, _) in offsets {
            if let Some(restarts) = usize::try_from(partition).ok().and_then(|index| self.restarts.get(index))
            {
                restarts.fetch_add(1, Relaxed);
            }
        }
        self.place(offsets);
    }

    /// Wants a room whose partition is being read; returns where the room stands. What was read up to there was
    /// not delivered for this room, everything after is.
    pub(super) fn want(&self, room: &RoomId, partition: i32) -> Position {
        let mut wanted = self.wanted.write();
        wanted.insert(room.clone(), partition);
        self.position(partition, self.next(partition) - 1)
    }

    /// Wants a room no longer; its partition, if it was wanted.
    pub(super) fn unwant(&self, room: &RoomId) -> Option<i32> {
        self.wanted.write().remove(room)
    }

    /// Takes note of a record, and calls `then` with the room and its partition if the node wants it. No room
    /// becomes wanted in between, so [`want`](Self::want) tells the truth.
    pub(super) fn note<T>(
        &self,
        partition: i32,
        offset: i64,
        timestamp_ms: Option<i64>,
        then: impl FnOnce(&HashMap<RoomId, i32>, Verdict) -> T,
    ) -> T {
        let wanted = self.wanted.read();
        let Some((next, newest_ms)) = self.cells(partition) else { return then(&wanted, Verdict::Stale) };
        let expected = next.load(Relaxed);
        if offset < expected {
            return then(&wanted, Verdict::Stale);
        }
        next.store(offset + 1, Relaxed);
        if let Some(time) = timestamp_ms {
            newest_ms.store(time, Relaxed);
        }
        if expected < 0 || offset == expected {
            then(&wanted, Verdict::Next)
        } else {
            then(&wanted, Verdict::After(expected))
        }
    }

    /// The offset that is read next; 0 where nothing was ever read.
    pub(super) fn next(&self, partition: i32) -> i64 {
        self.cells(partition).map_or(0, |(next, _)| next.load(Relaxed).max(0))
    }

    /// The offset that is read next, if the partition was ever positioned.
    pub(super) fn known_next(&self, partition: i32) -> Option<i64> {
        self.cells(partition).map(|(next, _)| next.load(Relaxed)).filter(|&next| next >= 0)
    }

    /// The broker's time of the newest record read, if any.
    pub(super) fn newest_ms(&self, partition: i32) -> Option<i64> {
        self.cells(partition).map(|(_, newest)| newest.load(Relaxed)).filter(|&time| time >= 0)
    }

    /// Places partitions before they are assigned from these offsets.
    pub(super) fn place(&self, offsets: &[(i32, i64)]) {
        for &(partition, offset) in offsets {
            if let Some((next, _)) = self.cells(partition) {
                next.store(offset, Relaxed);
            }
        }
    }

    /// The wanted rooms of a partition.
    pub(super) fn wanted_in(&self, partition: i32) -> Vec<RoomId> {
        let wanted = self.wanted.read();
        wanted.iter().filter(|&(_, lies_in)| *lies_in == partition).map(|(room, _)| room.clone()).collect()
    }

    fn cells(&self, partition: i32) -> Option<(&AtomicI64, &AtomicI64)> {
        let index = usize::try_from(partition).ok()?;
        Some((self.next.get(index)?, self.newest_ms.get(index)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn rooms() -> Rooms {
        Rooms::new(RoomPartitioner::new(4, BTreeMap::new()), 4, "cluster", "topic")
    }

    #[test]
    fn records_are_noted_once_and_losses_show() {
        let rooms = rooms();
        rooms.place(&[(1, 10)]);
        let note = |offset| rooms.note(1, offset, Some(5), |_, verdict| verdict);
        assert_eq!(note(9), Verdict::Stale);
        assert_eq!(note(10), Verdict::Next);
        assert_eq!(note(10), Verdict::Stale);
        assert_eq!(note(14), Verdict::After(11));
        assert_eq!((rooms.next(1), rooms.newest_ms(1)), (15, Some(5)));
        assert_eq!(rooms.note(99, 0, None, |_, verdict| verdict), Verdict::Stale);
    }

    #[test]
    fn positions_start_at_one_and_name_their_partition() {
        let rooms = rooms();
        assert_eq!(rooms.position(2, -1).offset, 0);
        assert_eq!(rooms.position(2, 0).offset, 1);
        assert_ne!(rooms.position(2, 0).epoch, rooms.position(3, 0).epoch);
        let other = Rooms::new(RoomPartitioner::new(4, BTreeMap::new()), 4, "another cluster", "topic");
        assert_ne!(rooms.position(2, 0).epoch, other.position(2, 0).epoch);
    }

    #[test]
    fn a_log_that_begins_anew_is_another_numbering() {
        let rooms = rooms();
        rooms.place(&[(1, 10), (2, 10)]);
        let before = [1, 2].map(|partition| rooms.position(partition, 3).epoch);
        rooms.renumber(&[(1, 0)]);
        let after = [1, 2].map(|partition| rooms.position(partition, 3).epoch);
        assert_ne!(after[0], before[0]);
        assert_eq!(after[1], before[1]);
        assert_eq!((rooms.restarts(1), rooms.restarts(2)), (1, 0));
        assert_eq!(rooms.note(1, 0, None, |_, verdict| verdict), Verdict::Next);
    }

    #[test]
    fn a_wanted_room_stands_where_reading_stands() {
        let rooms = rooms();
        let room = RoomId::new("r");
        let partition = rooms.partition_of(&room);
        rooms.place(&[(partition, 7)]);
        assert_eq!(rooms.want(&room, partition).offset, 7);
        assert_eq!(rooms.wanted_in(partition), std::slice::from_ref(&room));
        assert_eq!(rooms.unwant(&room), Some(partition));
        assert_eq!(rooms.unwant(&room), None);
    }
}
