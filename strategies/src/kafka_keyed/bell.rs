//! The doorbell: small records that make a broker answer the fetch it is holding.
//!
//! A consumer has one fetch outstanding per broker, and on an idle broker that is held for up to `fetch_wait_ms`. A
//! partition assigned meanwhile is read from the *next* fetch on. A record to a partition that is being read ends
//! the hold. The bell has a topic of its own with one partition per broker, which every node reads.

use std::time::{Duration, Instant};

use super::publish::{Ack, Sender};

/// When to ring after an assignment: the client needs a moment to take it in, and how long is not observable.
const RINGS: [Duration; 4] = [
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(14),
    Duration::from_millis(40),
];

/// A node's bell.
pub(super) struct Bell {
    topic: String,
    partitions: u32,
    producer: Sender,
    /// Rings to come, the latest first.
    due: Vec<Instant>,
}

impl Bell {
    pub(super) fn new(topic: String, partitions: u32, producer: Sender) -> Self {
        Self { topic, partitions, producer, due: Vec::with_capacity(RINGS.len()) }
    }

    /// Plans the rings after an assignment; those still to come of an earlier one merge with them.
    pub(super) fn wind(&mut self, now: Instant) {
        self.due.clear();
        self.due.extend(RINGS.iter().rev().map(|after| now + *after));
    }

    /// When to ring next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due.last().copied()
    }

    /// Rings if it is time.
    pub(super) fn ring_if_due(&mut self, now: Instant) {
        let rings = self.due.len();
        while self.due.last().is_some_and(|&at| at <= now) {
            self.due.pop();
        }
        if self.due.len() < rings {
            for partition in 0..self.partitions {
                // A bell that cannot ring costs time, not messages: the fetch ends by itself.
                let _ =
                    self.producer.send(&self.topic, i32::try_from(partition).ok(), None, b"", Ack::Nobody);
            }
        }
    }
}
