//! Where the reader stands: shared between its thread and whoever directs it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Where the reader stands and where it has to stop.
#[derive(Debug, Default)]
pub(super) struct Places {
    partitions: Mutex<HashMap<i32, Place>>,
    /// Some partition has an end: looked at per record, so it costs no lock.
    bounded: AtomicBool,
    passed: Notify,
}

#[derive(Debug, Clone, Copy)]
struct Place {
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
            place.next = next;
        }
        self.passed.notify_waiters();
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

    /// The reader starts there.
    pub(super) fn start(&self, partition: i32, next: i64) {
        let mut partitions = self.partitions.lock();
        partitions.insert(partition, Place { start: next, next, until: None });
        self.bounded.store(partitions.values().any(|place| place.until.is_some()), Release);
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
        places.start(1, 10);
        assert!(!places.beyond(1, 99));
        places.bound(&[(1, 20), (2, 5)]);
        assert!(!places.beyond(1, 19));
        assert!(places.beyond(1, 20));
        assert!(!places.reached(&[(1, 20)]));
        places.pass(1, 20);
        assert!(places.reached(&[(1, 20), (2, 5)]), "a partition that is not read holds nobody up");
        places.start(1, 50);
        assert!(!places.beyond(1, 60));
    }

    #[tokio::test]
    async fn all_moved_waits_for_every_partition() {
        let places = Places::default();
        places.start(0, 5);
        places.start(1, 0);
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
