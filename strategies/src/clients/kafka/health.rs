//! Lag and link state, read from librdkafka's own statistics: exact, and without a request to the broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use serde::Deserialize;

use super::group::{self, GroupHook};

/// Forwards librdkafka's log lines and errors to `tracing`. A lost broker is a state of the world, not a failure of
/// this program, and librdkafka repeats it up to dozens of times: it is logged at debug level here and reported
/// once by whoever owns the client.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, text: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
            if facility != "FAIL" =>
        {
            tracing::warn!(target: "librdkafka", facility, "{text}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{text}"),
    }
}

/// Context of a client that only needs its log lines forwarded.
#[derive(Debug, Default)]
pub struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl ConsumerContext for Quiet {}

/// Context of a reading consumer: keeps the newest lag and link state, and passes rebalances on.
pub struct Health {
    lag_messages: AtomicI64,
    links_up: AtomicBool,
    hook: Option<Arc<dyn GroupHook>>,
}

impl Health {
    /// A context; `hook` for a member of a consumer group.
    pub(super) fn new(hook: Option<Arc<dyn GroupHook>>) -> Self {
        Self { lag_messages: AtomicI64::new(-1), links_up: AtomicBool::new(true), hook }
    }

    /// Messages that the broker holds in assigned partitions and that were not read yet; -1 before the first figure.
    /// At most a second old.
    pub fn lag_messages(&self) -> i64 {
        self.lag_messages.load(Relaxed)
    }

    /// Whether every broker that leads an assigned partition is connected. At most a second old.
    pub fn links_up(&self) -> bool {
        self.links_up.load(Relaxed)
    }

    /// Marks the links as broken until the next statistics say otherwise.
    pub(super) fn break_links(&self) {
        self.links_up.store(false, Relaxed);
    }
}

impl ClientContext for Health {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }

    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics<'_>>(statistics) {
            Ok(statistics) => {
                self.lag_messages.store(statistics.lag(), Relaxed);
                self.links_up.store(statistics.links_up(), Relaxed);
            }
            Err(error) => tracing::warn!(%error, "librdkafka's statistics are not readable; lag is unknown"),
        }
    }
}

impl ConsumerContext for Health {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        partitions: &mut TopicPartitionList,
    ) {
        // Without a hook nobody subscribed, and so nothing is ever rebalanced.
        if let Some(hook) = &self.hook {
            group::rebalance(&**hook, consumer, code, partitions);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "offsets were not committed");
        }
    }
}

/// The part of librdkafka's statistics (STATISTICS.md there) that is used here.
#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow)]
    brokers: HashMap<&'a str, Broker<'a>>,
    #[serde(borrow)]
    topics: HashMap<&'a str, Topic<'a>>,
}

#[derive(Deserialize)]
struct Broker<'a> {
    nodeid: i64,
    state: &'a str,
    #[serde(borrow)]
    toppars: HashMap<&'a str, serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Topic<'a> {
    #[serde(borrow)]
    partitions: HashMap<&'a str, Partition<'a>>,
}

#[derive(Deserialize)]
struct Partition<'a> {
    fetch_state: &'a str,
    consumer_lag: i64,
}

impl Statistics<'_> {
    fn lag(&self) -> i64 {
        self.topics
            .values()
            .flat_map(|topic| topic.partitions.values())
            .filter(|partition| partition.fetch_state == "active")
            .map(|partition| partition.consumer_lag.max(0))
            .sum()
    }

    fn links_up(&self) -> bool {
        let mut leaders =
            self.brokers.values().filter(|broker| broker.nodeid >= 0 && !broker.toppars.is_empty());
        leaders.all(|broker| broker.state == "UP")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"{ "name": "x", "brokers": {
        "a:1/1": {"nodeid": 1, "state": "UP", "toppars": {"t-0": {"topic": "t", "partition": 0}}, "rtt": {"min": 1}},
        "a:1/bootstrap": {"nodeid": -1, "state": "DOWN", "toppars": {}} },
        "topics": {"t": {"topic": "t", "partitions": {
            "0": {"partition": 0, "fetch_state": "active", "consumer_lag": 7},
            "1": {"partition": 1, "fetch_state": "none", "consumer_lag": 5},
            "2": {"partition": 2, "fetch_state": "active", "consumer_lag": -1} }}}}"#;

    #[test]
    fn lag_counts_active_partitions_and_links_count_leaders() {
        let health = Health::new(None);
        assert_eq!(health.lag_messages(), -1);
        health.stats_raw(SAMPLE.as_bytes());
        assert_eq!(health.lag_messages(), 7);
        assert!(health.links_up());
        health.stats_raw(SAMPLE.replace("\"UP\"", "\"CONNECT\"").as_bytes());
        assert!(!health.links_up());
    }
}
