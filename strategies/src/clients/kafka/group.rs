//! Membership in a consumer group whose members start at offsets that the strategy names.

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaResult;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;
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
) {
    let done = match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => assign(hook, consumer, list),
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
) -> crate::Result<()> {
    let map = |source| super::fault::from_kafka("rebalance", "consumer group", source);
    let known = committed(consumer, list);
    let mut attempt = 1;
    let offsets = loop {
        match hook.assigned(&known) {
            // Each attempt waits for the cluster itself. Giving up means reading nothing until the next rebalance.
            Err(error) if error.is_temporary() && attempt < ATTEMPTS => {
                tracing::warn!(%error, attempt, "where to start reading is not known yet");
                attempt += 1;
            }
            answer => break answer?,
        }
    };
    consumer.assign(&with_offsets(list, &offsets).map_err(map)?).map_err(map)
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
