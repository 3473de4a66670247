//! What the node wants and how far it has read: shared by the reading thread, the keeper and the callers.

use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::Instant;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;

use super::partitioner::RoomPartitioner;
use crate::backplane::{Message, Position, RoomId};
use crate::hash::HashMap;
use crate::ring::Rings;
use crate::stats::Stats;

/// The node's rooms and its place in every partition.
#[derive(Debug)]
pub(super) struct Rooms {
    partitioner: RoomPartitioner,
    /// By partition, the numbering of its messages: the incarnation of the topic in the upper bits, the partition in the
    /// lowest 16.
    epochs: Box<[AtomicU64]>,
    /// By partition, the mark of the topic to which the numbering belongs; 0 = it has none.
    marks: Box<[AtomicU64]>,
    wanted: RwLock<HashMap<RoomId, i32>>,
    /// The offset that is read next, by partition; -1 = the partition was never read.
    next: Box<[AtomicI64]>,
    /// The broker's time of the newest record read, in ms, by partition; -1 = none yet.
    newest_ms: Box<[AtomicI64]>,
    /// How often a partition's log began anew while this node read it: each is another numbering.
    restarts: Box<[AtomicU64]>,
    /// The offset after the last one whose message the node's entrance has, by partition; -1 = the partition was never read.
    delivered: Box<[AtomicI64]>,
    /// Where the partition was placed last: what the reader says of places before that is left over from before.
    placed: Box<[AtomicI64]>,
    /// By partition: it is being placed anew, and no record of it counts.
    shut: Box<[AtomicBool]>,
    progress: Notify,
    /// The last messages of every room that is read; `None` where none are kept.
    pub(super) rings: Option<Mutex<Rings>>,
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
    /// `numbering` holds the upper bits of epochs, by the topic's `mark`.
    pub(super) fn new(
        partitioner: RoomPartitioner,
        partitions: u32,
        numbering: u64,
        mark: Option<u64>,
        rings: Option<Rings>,
    ) -> Self {
        let cells = || (0..partitions).map(|_| AtomicI64::new(-1)).collect();
        Self {
            partitioner,
            epochs: (0..partitions)
                .map(|partition| AtomicU64::new(numbering | u64::from(partition)))
                .collect(),
            marks: (0..partitions).map(|_| AtomicU64::new(mark.unwrap_or(0))).collect(),
            wanted: RwLock::default(),
            next: cells(),
            newest_ms: cells(),
            restarts: (0..partitions).map(|_| AtomicU64::new(0)).collect(),
            delivered: cells(),
            placed: cells(),
            shut: (0..partitions).map(|_| AtomicBool::new(false)).collect(),
            progress: Notify::new(),
            rings: rings.map(Mutex::new),
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
        Position { epoch: self.epoch(partition), offset: (offset + 1).max(0) as u64 }
    }

    /// The numbering of a partition's messages; 0 where there is no such partition.
    pub(super) fn epoch(&self, partition: i32) -> u64 {
        cell(&self.epochs, partition).map_or(0, |epoch| epoch.load(Acquire))
    }

    /// The mark of the topic to which a partition's numbering belongs, if it has one.
    pub(super) fn mark(&self, partition: i32) -> Option<u64> {
        cell(&self.marks, partition).map(|mark| mark.load(Acquire)).filter(|&mark| mark != 0)
    }

    /// How often the partition's log began anew.
    pub(super) fn restarts(&self, partition: i32) -> u64 {
        cell(&self.restarts, partition).map_or(0, |restarts| restarts.load(Relaxed))
    }

    /// The logs of these partitions began anew; they are read from these offsets, and their messages are numbered by the
    /// upper bits in `numbering`, which belong to `mark`.
    pub(super) fn renumber(&self, offsets: &[(i32, i64)], numbering: u64, mark: Option<u64>) {
        // No record is noted in between, so that none has a place in the wrong numbering.
        let _nobody_reads = self.wanted.write();
        let partitions: Vec<i32> = offsets.iter().map(|&(partition, _)| partition).collect();
        self.rename(&partitions, numbering, mark);
        for &partition in &partitions {
            if let Some(restarts) = cell(&self.restarts, partition) {
                restarts.fetch_add(1, Relaxed);
            }
        }
        self.place(offsets);
    }

    /// The same for partitions that this node does not read, so that it missed nothing of them.
    pub(super) fn rename(&self, partitions: &[i32], numbering: u64, mark: Option<u64>) {
        for &partition in partitions {
            if let (Some(epoch), Some(of)) = (cell(&self.epochs, partition), cell(&self.marks, partition)) {
                epoch.store(numbering | partition as u64, Release);
                of.store(mark.unwrap_or(0), Release);
            }
        }
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
        let is_shut = cell(&self.shut, partition).is_some_and(|shut| shut.load(Acquire));
        if offset < expected || is_shut {
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

    /// No record of these partitions counts until they are [placed](Self::place): what comes is left over from an
    /// assignment that ends.
    pub(super) fn shut(&self, partitions: &[i32]) {
        // A record that is being noted still counts.
        let _nobody_reads = self.wanted.write();
        for &partition in partitions {
            if let Some(shut) = cell(&self.shut, partition) {
                shut.store(true, Release);
            }
        }
    }

    /// Records of these partitions count again, from where they stand.
    pub(super) fn open(&self, partitions: &[i32]) {
        for &partition in partitions {
            if let Some(shut) = cell(&self.shut, partition) {
                shut.store(false, Release);
            }
        }
    }

    /// Places partitions before they are assigned from these offsets.
    pub(super) fn place(&self, offsets: &[(i32, i64)]) {
        for &(partition, offset) in offsets {
            let (Some((next, _)), Some(delivered)) =
                (self.cells(partition), cell(&self.delivered, partition))
            else {
                continue;
            };
            if let Some(placed) = cell(&self.placed, partition) {
                placed.store(offset, Release);
            }
            next.store(offset, Relaxed);
            self.keeps_from(partition, offset);
            delivered.store(offset, Release);
            self.open(&[partition]);
        }
        self.progress.notify_waiters();
    }

    /// Everything from this offset on is read; what lies before may have been missed.
    pub(super) fn keeps_from(&self, partition: i32, offset: i64) {
        if let Some(rings) = &self.rings {
            let Position { epoch, offset } = self.position(partition, offset - 1);
            rings.lock().reads_from(epoch, offset);
        }
    }

    /// Keeps a message, before it is delivered.
    pub(super) fn keep(&self, message: &Message, now: Instant) {
        if let Some(rings) = &self.rings {
            rings.lock().push(message, now);
        }
    }

    /// The entrance has everything before these offsets.
    pub(super) fn deliver(&self, offsets: impl Iterator<Item = (i32, i64)>) {
        for (partition, next) in offsets {
            if let (Some(delivered), Some((read, _))) =
                (cell(&self.delivered, partition), self.cells(partition))
            {
                // The partition may have been placed elsewhere since.
                if cell(&self.placed, partition).is_none_or(|placed| next >= placed.load(Acquire)) {
                    delivered.store(next.min(read.load(Relaxed)), Release);
                }
            }
        }
        self.progress.notify_waiters();
    }

    /// The offset after the last one whose message the entrance has; 0 where nothing was ever read.
    pub(super) fn delivered(&self, partition: i32) -> i64 {
        cell(&self.delivered, partition).map_or(0, |delivered| delivered.load(Acquire).max(0))
    }

    /// Resolves when the entrance has everything before `end`.
    pub(super) async fn has_delivered(&self, partition: i32, end: i64) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if self.delivered(partition) >= end {
                return;
            }
            progress.await;
        }
    }

    /// Whether the node wants this room.
    pub(super) fn wants(&self, room: &RoomId) -> bool {
        self.wanted.read().contains_key(room)
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

fn cell<T>(cells: &[T], partition: i32) -> Option<&T> {
    cells.get(usize::try_from(partition).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn rooms() -> Rooms {
        Rooms::new(RoomPartitioner::new(4, BTreeMap::new()), 4, 1 << 16, Some(5), None)
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
        assert_eq!(rooms.position(2, 0).epoch, 1 << 16 | 2);
        assert_eq!(rooms.position(3, 0).epoch, 1 << 16 | 3);
    }

    #[test]
    fn a_log_that_begins_anew_is_another_numbering() {
        let rooms = rooms();
        rooms.place(&[(1, 10), (2, 10)]);
        let before = [1, 2].map(|partition| rooms.position(partition, 3).epoch);
        rooms.renumber(&[(1, 0)], 7 << 16, None);
        assert_eq!((rooms.mark(1), rooms.mark(2)), (None, Some(5)));
        let after = [1, 2].map(|partition| rooms.position(partition, 3).epoch);
        assert_ne!(after[0], before[0]);
        assert_eq!(after[1], before[1]);
        assert_eq!((rooms.restarts(1), rooms.restarts(2)), (1, 0));
        assert_eq!(rooms.note(1, 0, None, |_, verdict| verdict), Verdict::Next);
    }

    #[test]
    fn what_is_left_over_counts_for_nothing() {
        let rooms = rooms();
        rooms.place(&[(1, 10)]);
        rooms.shut(&[1]);
        let note = |offset| rooms.note(1, offset, None, |_, verdict| verdict);
        assert_eq!(note(10), Verdict::Stale);
        rooms.renumber(&[(1, 0)], 7 << 16, None);
        assert_eq!(note(0), Verdict::Next);
        rooms.shut(&[1]);
        assert_eq!((note(1), rooms.next(1)), (Verdict::Stale, 1));
        rooms.open(&[1]);
        assert_eq!(note(1), Verdict::Next);
        rooms.place(&[(1, 10)]);
        rooms.deliver(std::iter::once((1, 2)));
        assert_eq!(rooms.delivered(1), 10, "the batch is from before");
    }

    #[tokio::test]
    async fn what_was_read_is_delivered_later() {
        let rooms = rooms();
        rooms.place(&[(1, 10)]);
        rooms.has_delivered(1, 10).await;
        rooms.note(1, 10, None, |_, _| ());
        assert_eq!((rooms.next(1), rooms.delivered(1)), (11, 10));
        let both = async {
            tokio::join!(rooms.has_delivered(1, 11), async {
                tokio::task::yield_now().await;
                rooms.deliver(std::iter::once((1, 11)));
            })
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), both).await.unwrap();
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
