//! Membership in a consumer group whose members start at offsets that the strategy names.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use super::health::Health;

/// How long the group may take to tell its committed offsets.
const COMMITTED_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the strategy is asked where to start before a rebalance is given up.
const ATTEMPTS: usize = 12;

/// Decides where a group member reads. Called on the reading thread, in between records.
pub trait GroupHook: Send + Sync + 'static {
    /// The group gave this member these partitions, each with the offset that the group committed for it (the next
    /// message to read), if any. Returns the offset from which each is to be read.
    fn assigned(&self, committed: &[(i32, Option<i64>)]) -> crate::Result<Vec<(i32, i64)>>;

    /// The group took these partitions away. Returns the offsets to commit before another member gets them.
    fn revoked(&self, partitions: &[i32]) -> Vec<(i32, i64)>;
}

/// Applies a rebalance. A member that cannot tell where to start reads nothing rather than the wrong thing, and
/// says so; the next rebalance tries again.
pub(super) fn rebalance(
    hook: &dyn GroupHook,
    consumer: &BaseConsumer<Health>,
    code: RDKafkaRespErr,
    list: &TopicPartitionList,
    stop: &AtomicBool,
) {
    let done = match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assign(hook, consumer, list, stop),
        _ => revoke(hook, consumer, list),
    };
    if let Err(error) = done {
        tracing::error!(%error, "a rebalance of the consumer group failed");
    }
}

fn assign(
    hook: &dyn GroupHook,
    consumer: &BaseConsumer<Health>,
    list: &TopicPartitionList,
    stop: &AtomicBool,
) -> crate::Result<()> {
    let map = |source| super::fault::from_kafka("rebalance", "consumer group", source);
    let known = if stop.load(Relaxed) { Vec::new() } else { committed(consumer, list) };
    let offsets = ask(hook, &known, stop)?;
    consumer.assign(&with_offsets(list, &offsets).map_err(map)?).map_err(map)
}

/// Asks where to start, again and again while the cluster does not answer.
fn ask(
    hook: &dyn GroupHook,
    known: &[(i32, Option<i64>)],
    stop: &AtomicBool,
) -> crate::Result<Vec<(i32, i64)>> {
    let mut attempt = 1;
    loop {
        if stop.load(Relaxed) {
            return Err(super::fault::closed("rebalance"));
        }
        match hook.assigned(known) {
            // Each attempt waits for the cluster itself. Giving up means reading nothing until the next rebalance.
            Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "where to start reading is not known yet");
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// What the group committed. A coordinator that does not tell is taken to know nothing.
fn committed(consumer: &BaseConsumer<Health>, list: &TopicPartitionList) -> Vec<(i32, Option<i64>)> {
    let told = consumer.committed_offsets(list.clone(), COMMITTED_TIMEOUT).unwrap_or_else(|error| {
        tracing::warn!(%error, "the group's committed offsets are not known");
        list.clone()
    });
    told.elements()
        .iter()
        .map(|element| match element.offset() {
            Offset::Offset(offset) => (element.partition(), Some(offset)),
            _ => (element.partition(), None),
        })
        .collect()
}

fn revoke(
    hook: &dyn GroupHook,
    consumer: &BaseConsumer<Health>,
    list: &TopicPartitionList,
) -> crate::Result<()> {
    let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
    let map = |source| super::fault::from_kafka("rebalance", "consumer group", source);
    let offsets = hook.revoked(&partitions);
    if !offsets.is_empty() && !consumer.assignment_lost() {
        // Failing to commit repeats messages at the next owner; it must not keep the partition from moving on.
        let committed =
            with_offsets(list, &offsets).and_then(|offsets| consumer.commit(&offsets, CommitMode::Sync));
        if let Err(error) = committed {
            tracing::warn!(%error, "offsets were not committed; the next owner may repeat messages");
        }
    }
    consumer.unassign().map_err(map)
}

fn with_offsets(list: &TopicPartitionList, offsets: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
    let mut wanted = TopicPartitionList::with_capacity(offsets.len());
    for element in list.elements() {
        if let Some(&(partition, offset)) =
            offsets.iter().find(|(partition, _)| *partition == element.partition())
        {
            wanted.add_partition_offset(element.topic(), partition, Offset::Offset(offset))?;
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::error::{Error, ErrorKind, Result};

    /// A cluster that never answers, and a shutdown that comes while it is asked.
    struct Silent {
        asked: AtomicUsize,
        stop: Arc<AtomicBool>,
    }

    impl GroupHook for Silent {
        fn assigned(&self, _committed: &[(i32, Option<i64>)]) -> Result<Vec<(i32, i64)>> {
            if self.asked.fetch_add(1, Relaxed) == 1 {
                self.stop.store(true, Relaxed);
            }
            Err(Error::new(ErrorKind::Timeout, "offsets", "no answer"))
        }

        fn revoked(&self, _partitions: &[i32]) -> Vec<(i32, i64)> {
            Vec::new()
        }
    }

    #[test]
    fn a_shutdown_ends_the_questions() {
        let stop = Arc::new(AtomicBool::new(false));
        let hook = Silent { asked: AtomicUsize::new(0), stop: Arc::clone(&stop) };
        assert_eq!(ask(&hook, &[], &stop).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(hook.asked.load(Relaxed), 2);
    }
}
