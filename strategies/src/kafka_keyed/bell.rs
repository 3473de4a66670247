//! The doorbell: small records that make a broker answer the fetch it is holding.
//!
//! A consumer has one fetch outstanding per broker, and on an idle broker that is held for up to `fetch_wait_ms`. A
//! partition assigned meanwhile is read from the *next* fetch on. A record to a partition that is being read ends
//! the hold. The bell has a topic of its own with one partition per broker; a node that reads on demand reads all
//! of them, always.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::publish::{Ack, Sender};
use crate::clients::kafka::fault::timed_out;
use crate::clients::kafka::{Cluster, Consumer};
use crate::error::Result;

/// When to ring after an assignment: the client needs a moment to take it in, and how long is not observable.
const RINGS_MS: [u64; 6] = [1, 2, 4, 8, 16, 40];
/// How long a client's look at the bell may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node that starts rings until it hears itself.
const FIRST_RINGS: Duration = Duration::from_millis(5);
/// Most partitions of the bell, and so most brokers that have one.
pub(super) const PARTITIONS_MAX: usize = 16;

/// Which partitions of the bell were heard: written by the reading thread.
#[derive(Clone)]
pub(super) struct Heard(Arc<watch::Sender<u32>>);

impl Heard {
    pub(super) fn new() -> Self {
        Self(Arc::new(watch::channel(0).0))
    }

    /// A record of the bell was read.
    pub(super) fn note(&self, partition: i32) {
        let bit =
            u32::try_from(partition).ok().and_then(|partition| 1_u32.checked_shl(partition)).unwrap_or(0);
        self.0.send_if_modified(|heard| {
            let is_new = *heard & bit != bit;
            *heard |= bit;
            is_new
        });
    }
}

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
        Self { topic, partitions, producer, due: Vec::with_capacity(RINGS_MS.len()) }
    }

    /// Rings until every partition of the bell is heard: only then does ringing end a held fetch.
    ///
    /// # Errors
    /// `Timeout` when that takes longer than `deadline`.
    pub(super) async fn wait_until_heard(&self, heard: &Heard, deadline: Duration) -> Result<()> {
        let all = (1_u32 << self.partitions.min(PARTITIONS_MAX as u32)) - 1;
        let mut listening = heard.0.subscribe();
        let ring_and_listen = async {
            loop {
                self.ring();
                let heard_all = listening.wait_for(|heard| heard & all == all);
                if let Ok(Ok(_)) = tokio::time::timeout(FIRST_RINGS, heard_all).await {
                    return;
                }
            }
        };
        tokio::time::timeout(deadline, ring_and_listen)
            .await
            .map_err(|_| timed_out("connect", format!("nothing is read from {} yet", self.topic)))
    }

    /// Reads all of the bell from its end on, and can ring it: also after its topic was created anew. Blocking.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub(super) fn listen_blocking(&self, cluster: &Cluster, consumer: &Consumer) -> Result<()> {
        self.producer.refresh_blocking(&self.topic, REFRESH_TIMEOUT)?;
        consumer.refresh_blocking(&self.topic, REFRESH_TIMEOUT)?;
        let all: Vec<i32> = (0..i32::try_from(self.partitions).unwrap_or(0)).collect();
        let ends = cluster.ends_blocking(&self.topic, &all)?;
        consumer.read_anew_blocking(&self.topic, &ends)
    }

    /// Plans the rings after an assignment; those still to come of an earlier one merge with them.
    pub(super) fn wind(&mut self, now: Instant) {
        self.due.clear();
        self.due.extend(RINGS_MS.iter().rev().map(|&after| now + Duration::from_millis(after)));
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
            self.ring();
        }
    }

    fn ring(&self) {
        for partition in 0..self.partitions {
            let partition = i32::try_from(partition).ok();
            // A bell that cannot ring costs time, not messages: the fetch ends by itself.
            let _ = self.producer.send(&self.topic, partition, None, b"", Ack::Nobody);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_heard_for_itself() {
        let heard = Heard::new();
        for partition in [0, 2, 2, -1, 99] {
            heard.note(partition);
        }
        assert_eq!(*heard.0.borrow(), 0b101);
    }
}
