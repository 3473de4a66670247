//! One publish, as many writes as there are live partitions, one outcome.
//!
//! All partitions get a message under one lock, so every partition has this node's messages in the order of the
//! `publish` calls. What may be in flight is bounded before the first write, so that a full queue refuses a message as a
//! whole.
//!
//! A node may only write while it *trusts* its lease (see the module docs of the strategy). Without trust, messages are
//! parked in their order until the lease is confirmed, and fail as `Unreachable` after the publish timeout: then they were
//! certainly not written.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicUsize, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio::sync::oneshot;

use crate::backplane::{Envelope, Position};
use crate::clients::kafka::{AckSink, Producer, Written, fault};
use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::stats::Stats;

type Outcome = Result<Position>;

/// Writes messages into every live partition.
pub(super) struct Writer {
    topic: String,
    producer: Producer<PartitionAck>,
    stats: Arc<Stats>,
    timeout: Duration,
    limits: Limits,
    flight: Arc<Flight>,
    gate: Mutex<Gate>,
    /// The broker that keeps the control log is connected and answers nothing.
    silent: Arc<AtomicBool>,
}

/// Bounds of what is unacknowledged.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) writes: usize,
    pub(super) bytes: usize,
}

/// What is sent and not yet acknowledged, and what counts as a destination.
#[derive(Debug, Default)]
struct Flight {
    writes: AtomicUsize,
    bytes: AtomicUsize,
    /// Partitions that have an owner now: a failed write to any other is no failure.
    live: RwLock<Arc<[i32]>>,
}

/// What decides whether, and where, the next message is written.
#[derive(Default)]
struct Gate {
    partitions: Arc<[i32]>,
    trusted_until: Option<Instant>,
    parked: VecDeque<Parked>,
    /// Why nothing is accepted any more.
    closed: Option<&'static str>,
    record: Vec<u8>,
}

/// A message that waits for the lease to be confirmed.
struct Parked {
    record: Vec<u8>,
    since: Instant,
    outcome: oneshot::Sender<Outcome>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("topic", &self.topic)
            .field("flight", &self.flight)
            .finish_non_exhaustive()
    }
}

impl Writer {
    pub(super) fn new(
        topic: String,
        producer: Producer<PartitionAck>,
        stats: Arc<Stats>,
        timeout: Duration,
        limits: Limits,
    ) -> Self {
        let (flight, gate, silent) = (Arc::default(), Mutex::default(), Arc::default());
        Self { topic, producer, stats, timeout, limits, flight, gate, silent }
    }

    /// Fixes the message's place and returns where its outcome will appear.
    pub(super) fn publish(&self, envelope: &Envelope) -> Result<oneshot::Receiver<Outcome>> {
        envelope::check(envelope)?;
        let mut gate = self.gate.lock();
        if let Some(reason) = gate.closed {
            return Err(Error::new(ErrorKind::Closed, "publish", reason));
        }
        if self.silent.load(Relaxed) {
            return Err(fault::silent("the membership log"));
        }
        let mut record = std::mem::take(&mut gate.record);
        record.clear();
        envelope::encode(envelope, None, &mut record);
        let trusted = gate.parked.is_empty() && gate.trusts(Instant::now());
        let copies = if trusted { gate.partitions.len() } else { 1 };
        if let Err(error) = self.reserve(copies, record.len()) {
            gate.record = record;
            return Err(error);
        }
        self.stats.publishes.add(1);
        let (outcome, receiver) = oneshot::channel();
        if trusted {
            self.write(&gate.partitions, &record, outcome);
            gate.record = record;
        } else {
            gate.parked.push_back(Parked { record, since: Instant::now(), outcome });
        }
        Ok(receiver)
    }

    /// Writes `record`, whose place in the budget is reserved, into `partitions`.
    fn write(&self, partitions: &[i32], record: &[u8], outcome: oneshot::Sender<Outcome>) {
        self.stats.broker_writes.add(partitions.len() as u64);
        self.send(partitions, record, outcome);
    }

    fn send(&self, partitions: &[i32], record: &[u8], outcome: oneshot::Sender<Outcome>) {
        let publish = Arc::new(Publish {
            writes: partitions.len(),
            pending: AtomicU32::new(u32::try_from(partitions.len()).unwrap_or(u32::MAX)),
            bytes: record.len(),
            failures: Mutex::default(),
            outcome: Mutex::new(Some(outcome)),
            flight: Arc::clone(&self.flight),
        });
        for &partition in partitions {
            let ack = PartitionAck { publish: Arc::clone(&publish), partition };
            if let Err((error, ack)) = self.producer.send(&self.topic, Some(partition), None, record, ack) {
                ack.done(Err(error));
            }
        }
    }

    /// Writes an empty record into partitions of this node's own: when it is read, publishing and reading both work.
    pub(super) fn probe(&self, partitions: &[i32]) -> oneshot::Receiver<Outcome> {
        let (outcome, receiver) = oneshot::channel();
        self.flight.take(partitions.len(), 0);
        self.send(partitions, &[], outcome);
        receiver
    }

    /// Takes `copies` writes of `bytes` each out of the budget.
    fn reserve(&self, copies: usize, bytes: usize) -> Result<()> {
        // Only one caller at a time (the gate is locked): the budget may only grow meanwhile.
        let writes = self.flight.writes.load(Acquire) + copies;
        let total = self.flight.bytes.load(Acquire) + copies * bytes;
        if writes > self.limits.writes || total > self.limits.bytes {
            return Err(Error::new(
                ErrorKind::Overloaded,
                "publish",
                format!("{writes} partition writes of {total} bytes would be unacknowledged: publish slower"),
            ));
        }
        self.flight.take(copies, bytes);
        Ok(())
    }

    /// To say whether the broker that keeps the control log is connected and answers nothing: then nothing is accepted, because
    /// this node cannot be sure of its membership, nor of any write.
    pub(super) fn silent(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.silent)
    }

    /// From now on messages go to these partitions.
    pub(super) fn install(&self, partitions: &[i32]) {
        let partitions: Arc<[i32]> = partitions.into();
        let mut gate = self.gate.lock();
        *self.flight.live.write() = Arc::clone(&partitions);
        gate.partitions = partitions;
    }

    /// The lease is confirmed: writes what was parked, and goes on writing until `trusted_until`.
    pub(super) fn trust(&self, trusted_until: Instant) {
        let mut gate = self.gate.lock();
        gate.trusted_until = Some(trusted_until);
        while gate.trusts(Instant::now())
            && let Some(parked) = gate.parked.pop_front()
        {
            self.flight.give_back(1, parked.record.len());
            match self.reserve(gate.partitions.len(), parked.record.len()) {
                Ok(()) => self.write(&gate.partitions, &parked.record, parked.outcome),
                Err(error) => drop(parked.outcome.send(Err(error))),
            }
        }
    }

    /// Nothing is written until the lease is confirmed anew.
    pub(super) fn distrust(&self) {
        self.gate.lock().trusted_until = None;
    }

    /// Fails what was parked for longer than the publish timeout.
    pub(super) fn expire_parked(&self) {
        let mut gate = self.gate.lock();
        while gate.parked.front().is_some_and(|parked| parked.since.elapsed() >= self.timeout) {
            let Some(parked) = gate.parked.pop_front() else { break };
            self.flight.give_back(1, parked.record.len());
            let text = "this node could not confirm its membership in time; the message was not written";
            let _ = parked.outcome.send(Err(Error::new(ErrorKind::Unreachable, "publish", text)));
        }
    }

    /// Accepts nothing more; what was parked fails.
    pub(super) fn close(&self, reason: &'static str) {
        let mut gate = self.gate.lock();
        gate.closed = Some(reason);
        for parked in std::mem::take(&mut gate.parked) {
            self.flight.give_back(1, parked.record.len());
            let _ = parked.outcome.send(Err(Error::new(ErrorKind::Closed, "publish", reason)));
        }
    }

    /// Waits until everything that was written is acknowledged or failed.
    pub(super) async fn flush(&self, deadline: Duration) -> Result<()> {
        self.producer.close(deadline).await
    }

    /// The partitions of the topic that this producer can write to, as of now.
    pub(super) async fn known_partitions(&self) -> Result<Vec<i32>> {
        let (producer, topic) = (self.producer.clone(), self.topic.clone());
        let asked =
            tokio::task::spawn_blocking(move || producer.partitions_blocking(&topic, Duration::from_secs(1)));
        asked.await.unwrap_or_else(|_| Err(fault::closed("metadata")))
    }
}

impl Gate {
    fn trusts(&self, now: Instant) -> bool {
        self.trusted_until.is_some_and(|until| now < until) && !self.partitions.is_empty()
    }
}

impl Flight {
    fn take(&self, copies: usize, bytes: usize) {
        self.writes.fetch_add(copies, AcqRel);
        self.bytes.fetch_add(copies * bytes, AcqRel);
    }

    fn give_back(&self, copies: usize, bytes: usize) {
        self.writes.fetch_sub(copies, AcqRel);
        self.bytes.fetch_sub(copies * bytes, AcqRel);
    }
}

/// A message on its way into its partitions.
struct Publish {
    writes: usize,
    pending: AtomicU32,
    bytes: usize,
    failures: Mutex<Vec<(i32, Error)>>,
    outcome: Mutex<Option<oneshot::Sender<Outcome>>>,
    flight: Arc<Flight>,
}

/// The acknowledgement of one of a message's writes.
pub(super) struct PartitionAck {
    publish: Arc<Publish>,
    partition: i32,
}

impl AckSink for PartitionAck {
    fn done(self, outcome: Result<Written>) {
        let publish = &*self.publish;
        publish.flight.give_back(1, publish.bytes);
        if let Err(error) = outcome {
            publish.failures.lock().push((self.partition, error));
        }
        if publish.pending.fetch_sub(1, AcqRel) == 1
            && let Some(sender) = publish.outcome.lock().take()
        {
            // The publisher may have stopped waiting; its message stays written.
            let _ = sender.send(publish.conclude());
        }
    }
}

impl Publish {
    /// All writes have an outcome: what is the publish's?
    fn conclude(&self) -> Outcome {
        let failures = std::mem::take(&mut *self.failures.lock());
        conclude(self.writes, failures, &self.flight.live.read())
    }
}

/// The outcome of a publish of `writes` writes of which `failures` failed, while the partitions `live` have owners. A write
/// to a partition whose owner left or was expelled meanwhile is no loss.
fn conclude(writes: usize, mut failures: Vec<(i32, Error)>, live: &[i32]) -> Outcome {
    let nobody = failures.len() == writes;
    failures.retain(|(partition, _)| live.contains(partition));
    let failed = failures.len();
    let Some((partition, first)) = failures.into_iter().next() else { return Ok(Position::default()) };
    if nobody {
        return Err(first);
    }
    let text = format!(
        "{failed} of {writes} partition writes failed, the first in partition {partition}: retry with the same message id"
    );
    Err(Error::new(ErrorKind::PartialWrite, "publish", text).with_source(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(partition: i32, kind: ErrorKind) -> (i32, Error) {
        (partition, Error::new(kind, "publish", "no"))
    }

    #[test]
    fn some_failed_is_partial_and_names_how_many() {
        let error = conclude(3, vec![failure(1, ErrorKind::Timeout)], &[0, 1, 2]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PartialWrite);
        assert!(error.is_temporary());
        assert!(error.to_string().contains("1 of 3"), "{error}");
    }

    #[test]
    fn all_failed_is_the_failure_itself() {
        let failures = vec![failure(0, ErrorKind::Timeout), failure(1, ErrorKind::Timeout)];
        assert_eq!(conclude(2, failures, &[0, 1]).unwrap_err().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_partition_without_owner_does_not_count() {
        assert!(conclude(2, vec![failure(1, ErrorKind::Timeout)], &[0]).is_ok());
    }
}
