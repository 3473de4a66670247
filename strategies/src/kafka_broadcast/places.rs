//! Where the reader stands: shared between its thread and whoever directs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::backplane::Position;

/// Where the reader stands and where it has to stop.
#[derive(Debug, Default)]
pub(super) struct Places {
    partitions: Mutex<HashMap<i32, Place>>,
    /// The partition from which reading started last.
    current: Mutex<Option<i32>>,
    /// Some partition has an end: looked at per record, so it costs no lock.
    bounded: AtomicBool,
    /// Something was lost that the reader has yet to declare.
    loss: AtomicBool,
    /// What is read now and was appended before this time (ms since the Unix epoch) is what this node missed.
    repair_until_ms: AtomicI64,
    passed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    /// The numbering of its messages.
    epoch: u64,
    /// Where reading started.
    start: i64,
    /// The next offset, after delivery.
    next: i64,
    /// What lies here and beyond is not for this node.
    until: Option<i64>,
}

impl Places {
    /// The reader delivered what lies before `next`.
    pub(super) fn pass(&self, partition: i32, next: i64) {
        if let Some(place) = self.partitions.lock().get_mut(&partition) {
            // Left over from before it was started where it is.
            if next < place.start {
                return;
            }
            place.next = next;
        }
        self.passed.notify_waiters();
    }

    /// What comes next in these partitions, as far as they are read.
    pub(super) fn nexts(&self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let places = self.partitions.lock();
        partitions.iter().filter_map(|of| Some((*of, places.get(of)?.next))).collect()
    }

    /// The reader goes on there: what lies before is no longer in the log. Returns the numbering.
    pub(super) fn skip_to(&self, partition: i32, next: i64) -> u64 {
        let mut places = self.partitions.lock();
        let Some(place) = places.get_mut(&partition) else { return 0 };
        (place.start, place.next) = (next, next);
        place.epoch
    }

    /// The position of the message at an offset.
    pub(super) fn position(&self, partition: i32, offset: i64) -> Position {
        let epoch = self.partitions.lock().get(&partition).map_or(0, |place| place.epoch);
        Position { epoch, offset: u64::try_from(offset + 1).unwrap_or(0) }
    }

    /// Which partition the reader reads, and the position of what it delivered last.
    pub(super) fn current(&self) -> Option<(i32, Position)> {
        let partitions = self.partitions.lock();
        let partition = (*self.current.lock())?;
        let place = partitions.get(&partition)?;
        Some((partition, Position { epoch: place.epoch, offset: u64::try_from(place.next).unwrap_or(0) }))
    }

    /// Resolves when the reader delivered everything before `end`, or started anew: true if it still reads by this numbering.
    pub(super) async fn has_passed(&self, partition: i32, epoch: u64, end: i64) -> bool {
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            match self.current() {
                Some((of, now)) if of == partition && now.epoch == epoch => {
                    if i64::try_from(now.offset).is_ok_and(|next| next >= end) {
                        return true;
                    }
                }
                _ => return false,
            }
            passed.await;
        }
    }

    /// The partitions that are read now.
    pub(super) fn partitions(&self) -> Vec<i32> {
        self.partitions.lock().keys().copied().collect()
    }

    /// Resolves when something was read from every partition.
    pub(super) async fn all_moved(&self) {
        loop {
            let passed = self.passed.notified();
            tokio::pin!(passed);
            passed.as_mut().enable();
            if self.partitions.lock().values().all(|place| place.next > place.start) {
                return;
            }
            passed.await;
        }
    }

    /// Something was lost up to where the reader is: it says so with the next record.
    pub(super) fn note_loss(&self) {
        self.loss.store(true, Release);
    }

    /// Whether something was lost since the last call.
    pub(super) fn take_loss(&self) -> bool {
        self.loss.load(Acquire) && self.loss.swap(false, AcqRel)
    }

    /// What the reader reads from now on, and was appended before this time (ms since the Unix epoch), is what this node missed.
    pub(super) fn repair_until(&self, time_ms: i64) {
        self.repair_until_ms.store(time_ms, Release);
    }

    /// Whether this node had missed what was appended at this time.
    pub(super) fn had_missed(&self, appended_ms: Option<i64>) -> bool {
        appended_ms.is_some_and(|appended_ms| appended_ms < self.repair_until_ms.load(Acquire))
    }

    /// Whether a record is not for this node any more.
    pub(super) fn beyond(&self, partition: i32, offset: i64) -> bool {
        self.bounded.load(Acquire)
            && self
                .partitions
                .lock()
                .get(&partition)
                .and_then(|place| place.until)
                .is_some_and(|until| offset >= until)
    }

    /// The reader starts there; messages are numbered by `epoch`.
    pub(super) fn start(&self, partition: i32, next: i64, epoch: u64) {
        let mut partitions = self.partitions.lock();
        partitions.insert(partition, Place { epoch, start: next, next, until: None });
        *self.current.lock() = Some(partition);
        self.bounded.store(partitions.values().any(|place| place.until.is_some()), Release);
        drop(partitions);
        self.passed.notify_waiters();
    }

    /// The reader must not go further than that.
    pub(super) fn bound(&self, ends: &[(i32, i64)]) {
        let mut partitions = self.partitions.lock();
        for (partition, end) in ends {
            if let Some(place) = partitions.get_mut(partition) {
                place.until = Some(*end);
            }
        }
        self.bounded.store(true, Release);
    }

    /// Whether the reader has come to all of these ends.
    pub(super) fn reached(&self, ends: &[(i32, i64)]) -> bool {
        let partitions = self.partitions.lock();
        ends.iter().all(|(partition, end)| partitions.get(partition).is_none_or(|place| place.next >= *end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_partition_ends_and_a_new_start_lifts_the_bound() {
        let places = Places::default();
        places.start(1, 10, 5);
        assert!(!places.beyond(1, 99));
        places.bound(&[(1, 20), (2, 5)]);
        assert!(!places.beyond(1, 19));
        assert!(places.beyond(1, 20));
        assert!(!places.reached(&[(1, 20)]));
        places.pass(1, 20);
        assert!(places.reached(&[(1, 20), (2, 5)]), "a partition that is not read holds nobody up");
        assert_eq!(places.current(), Some((1, Position { epoch: 5, offset: 20 })));
        assert_eq!(places.position(1, 20), Position { epoch: 5, offset: 21 });
        places.start(1, 50, 6);
        assert_eq!(places.current(), Some((1, Position { epoch: 6, offset: 50 })));
        assert!(!places.beyond(1, 60));
    }

    #[tokio::test]
    async fn who_waits_for_an_end_learns_of_a_new_start() {
        let places = Places::default();
        places.start(1, 10, 5);
        assert!(places.has_passed(1, 5, 10).await);
        let both = async {
            tokio::join!(places.has_passed(1, 5, 11), async {
                tokio::task::yield_now().await;
                places.start(2, 0, 6);
            })
        };
        assert!(!tokio::time::timeout(std::time::Duration::from_secs(5), both).await.unwrap().0);
    }

    #[tokio::test]
    async fn all_moved_waits_for_every_partition() {
        let places = Places::default();
        places.start(0, 5, 1);
        places.start(1, 0, 1);
        places.pass(0, 6);
        let both = async {
            tokio::join!(places.all_moved(), async {
                tokio::task::yield_now().await;
                places.pass(1, 1);
            })
        };
        tokio::time::timeout(std::time::Duration::from_secs(5), both).await.unwrap();
    }
}
