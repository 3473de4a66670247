//! Topic administration and offset queries, through a client that never consumes: the same questions asked on a
//! reading consumer wait for its outstanding fetch (up to half a second on an idle broker).

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::connection::Connection;
use super::fault::{from_kafka, timed_out};
use super::health::Quiet;
use crate::error::{Error, ErrorKind, Result};

/// How long one question to the cluster may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one attempt to reach the cluster may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between attempts to reach the cluster.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long a change of a topic may take to show.
const TOPIC_TIMEOUT: Duration = Duration::from_secs(15);
/// Pause between looks at a topic that is being created or grown.
const TOPIC_POLL: Duration = Duration::from_millis(20);
/// Timestamps that the ListOffsets request understands as "the end" and "the start".
const TIMESTAMP_END: i64 = -1;
const TIMESTAMP_START: i64 = -2;

/// A topic that a strategy needs.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// Partitions, if it is created now.
    pub partitions: u32,
    /// Replicas, if it is created now; `None` = as many as there are brokers, at most 3. With 3 replicas a write
    /// is acknowledged by at least 2.
    pub replication: Option<u32>,
    /// Broker-side topic settings, e.g. `retention.ms`.
    pub config: Vec<(String, String)>,
}

/// A connection to the cluster for questions. Cheap to clone. Methods named `…_blocking` must not be called on an
/// async worker thread.
#[derive(Clone)]
pub struct Cluster {
    connection: Arc<Connection>,
    query: Arc<BaseConsumer<Quiet>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Cluster {
    /// Reaches the cluster. An absent broker is retried for `retry`, or refused after one attempt.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] naming the address; [`ErrorKind::Config`] when a client property is refused.
    pub async fn connect(connection: Connection, retry: Option<Duration>) -> Result<Self> {
        let deadline = Instant::now() + retry.unwrap_or_default();
        let query: BaseConsumer<Quiet> = connection
            .query_config()
            .create_with_context(Quiet)
            .map_err(|source| from_kafka("connect", "Kafka client", source))?;
        let cluster = Self { connection: Arc::new(connection), query: Arc::new(query) };
        loop {
            let error = match cluster.run(|cluster| cluster.broker_count_blocking(ATTEMPT_TIMEOUT)).await {
                Ok(_) => return Ok(cluster),
                Err(error) => error,
            };
            if Instant::now() >= deadline {
                return Err(cluster.unreachable(retry, error));
            }
            tracing::warn!(kafka = cluster.connection.bootstrap(), "Kafka does not answer yet; trying again");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    fn unreachable(&self, retry: Option<Duration>, cause: Error) -> Error {
        if cause.kind() == ErrorKind::Config {
            return cause;
        }
        let tried =
            retry.map_or_else(|| "one attempt".to_owned(), |time| format!("{} s", time.as_secs_f32()));
        let text = format!(
            "Kafka at {} did not answer within {tried}; start the broker or correct --kafka / KAFKA_BOOTSTRAP",
            self.connection.bootstrap()
        );
        Error::new(ErrorKind::Unreachable, "connect", text).with_source(cause)
    }

    /// How to reach the same cluster with another client.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Runs a blocking question off the async workers.
    ///
    /// # Errors
    /// Those of `question`; [`ErrorKind::Closed`] when the runtime is shutting down.
    pub async fn run<T, F>(&self, question: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Self) -> Result<T> + Send + 'static,
    {
        let cluster = self.clone();
        let answer = tokio::task::spawn_blocking(move || question(&cluster)).await;
        answer.unwrap_or_else(|_| Err(super::fault::closed("query")))
    }

    /// Brokers that are registered now.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn broker_count_blocking(&self, timeout: Duration) -> Result<usize> {
        let metadata = self
            .query
            .client()
            .fetch_metadata(Some("__manifold_probe"), timeout)
            .map_err(|source| self.fail("connect", source))?;
        match metadata.brokers().len() {
            0 => Err(Error::new(ErrorKind::Unreachable, "connect", "the cluster lists no brokers yet")),
            count => Ok(count),
        }
    }

    /// Whether all replicas of a topic, also those that are away, are on one broker: then all times in it are of one clock.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn is_of_one_broker_blocking(&self, topic: &str) -> Result<bool> {
        let metadata = self
            .query
            .client()
            .fetch_metadata(Some(topic), QUERY_TIMEOUT)
            .map_err(|source| self.fail("metadata", source))?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic);
        let mut replicas =
            found.flat_map(|topic| topic.partitions()).flat_map(|partition| partition.replicas());
        let first = replicas.next();
        Ok(first.is_some() && replicas.all(|replica| Some(replica) == first))
    }

    /// The cluster's own identity: changes when a cluster is created anew under the same address.
    pub fn cluster_id_blocking(&self) -> Option<String> {
        self.query.client().fetch_cluster_id(QUERY_TIMEOUT)
    }

    /// Partitions of a topic that have a leader, or `None` where there is no such topic.
    ///
    /// # Errors
    /// When the cluster does not answer.
    pub fn partition_count_blocking(&self, topic: &str) -> Result<Option<u32>> {
        let metadata = self
            .query
            .client()
            .fetch_metadata(Some(topic), QUERY_TIMEOUT)
            .map_err(|source| self.fail("metadata", source))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
        let led =
            found.map(|topic| topic.partitions().iter().filter(|partition| partition.leader() >= 0).count());
        Ok(led.and_then(|count| u32::try_from(count).ok()).filter(|&count| count > 0))
    }

    /// Creates the topic unless it is there; returns how many partitions it has, once all of them have a leader.
    ///
    /// # Errors
    /// When the cluster refuses the settings or does not get it ready in time.
    pub async fn ensure_topic(&self, spec: &TopicSpec) -> Result<u32> {
        let name = spec.name.clone();
        if let Some(count) = self.run(move |cluster| cluster.partition_count_blocking(&name)).await?
            && count >= spec.partitions
        {
            return Ok(count);
        }
        let brokers = self.run(|cluster| cluster.broker_count_blocking(QUERY_TIMEOUT)).await?;
        let replication = spec.replication.unwrap_or_else(|| u32::try_from(brokers.min(3)).unwrap_or(3));
        let created = self.create(spec, replication).await?;
        // A topic that was there already keeps the number that it has.
        self.wait_for_partitions(&spec.name, if created { spec.partitions } else { 1 }).await
    }

    async fn create(&self, spec: &TopicSpec, replication: u32) -> Result<bool> {
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let replicas = TopicReplication::Fixed(i32::try_from(replication).unwrap_or(i32::MAX));
        // A replica that lacks what was acknowledged never leads, whatever the brokers' own default is.
        let mut topic =
            NewTopic::new(&spec.name, partitions, replicas).set("unclean.leader.election.enable", "false");
        if replication >= 3 {
            topic = topic.set("min.insync.replicas", "2");
        }
        for (key, value) in &spec.config {
            topic = topic.set(key, value);
        }
        let admin = self.admin()?;
        let about = || format!("topic {} ({partitions} partitions, {replication} replicas)", spec.name);
        let results = admin.create_topics([&topic], &options()).await;
        let results = results.map_err(|source| from_kafka("create topic", &about(), source))?;
        match results.into_iter().next() {
            Some(Err((_, Code::TopicAlreadyExists))) => Ok(false),
            Some(Err((_, code))) => Err(from_kafka("create topic", &about(), KafkaError::AdminOp(code))),
            _ => Ok(true),
        }
    }

    /// Grows the topic to at least `partitions`; returns how many it has then. Producers learn of it when they next
    /// refresh ([`Producer::refresh_blocking`](super::Producer::refresh_blocking) makes them at once).
    ///
    /// # Errors
    /// When the cluster refuses or does not get it ready in time.
    pub async fn grow_topic(&self, topic: &str, partitions: u32) -> Result<u32> {
        let name = topic.to_owned();
        let now = self.run(move |cluster| cluster.partition_count_blocking(&name)).await?;
        if let Some(count) = now.filter(|&count| count >= partitions) {
            return Ok(count);
        }
        let admin = self.admin()?;
        let grown = NewPartitions::new(topic, partitions as usize);
        let results = admin.create_partitions([&grown], &options()).await;
        let results = results.map_err(|source| from_kafka("grow topic", topic, source))?;
        match results.into_iter().next() {
            // Somebody else was faster: the wait below sees whether it is enough.
            Some(Err((_, Code::InvalidPartitions))) | None | Some(Ok(_)) => {}
            Some(Err((_, code))) => return Err(from_kafka("grow topic", topic, KafkaError::AdminOp(code))),
        }
        self.wait_for_partitions(topic, partitions).await
    }

    async fn wait_for_partitions(&self, topic: &str, partitions: u32) -> Result<u32> {
        let deadline = Instant::now() + TOPIC_TIMEOUT;
        loop {
            let name = topic.to_owned();
            let count = self.run(move |cluster| cluster.partition_count_blocking(&name)).await?;
            if let Some(count) = count.filter(|&count| count >= partitions) {
                return Ok(count);
            }
            if Instant::now() >= deadline {
                let text = format!("topic {topic} has no leader for {partitions} partitions yet");
                return Err(timed_out("create topic", text));
            }
            tokio::time::sleep(TOPIC_POLL).await;
        }
    }

    /// Deletes a topic; one that is not there counts as deleted.
    ///
    /// # Errors
    /// When the cluster refuses.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let results = self.admin()?.delete_topics(&[topic], &options()).await;
        let results = results.map_err(|source| from_kafka("delete topic", topic, source))?;
        match results.into_iter().next() {
            Some(Err((_, Code::UnknownTopicOrPartition))) | None | Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(from_kafka("delete topic", topic, KafkaError::AdminOp(code))),
        }
    }

    /// Where each partition ends now: the offset of the next message. One request per leading broker.
    ///
    /// # Errors
    /// When the cluster does not answer, or not for every partition.
    pub fn ends_blocking(&self, topic: &str, partitions: &[i32]) -> Result<Vec<(i32, i64)>> {
        self.offsets_blocking(topic, partitions.iter().map(|&partition| (partition, TIMESTAMP_END)))
    }

    /// The oldest offset that each partition still holds.
    ///
    /// # Errors
    /// As [`ends_blocking`](Self::ends_blocking).
    pub fn starts_blocking(&self, topic: &str, partitions: &[i32]) -> Result<Vec<(i32, i64)>> {
        self.offsets_blocking(topic, partitions.iter().map(|&partition| (partition, TIMESTAMP_START)))
    }

    /// In each partition the first message not older than a time (ms since the Unix epoch), or the partition's end where
    /// there is none.
    ///
    /// # Errors
    /// As [`ends_blocking`](Self::ends_blocking).
    pub fn at_times_blocking(&self, topic: &str, times_ms: &[(i32, i64)]) -> Result<Vec<(i32, i64)>> {
        let partitions: Vec<i32> = times_ms.iter().map(|&(partition, _)| partition).collect();
        // Asked first: what is written in between lies after it and is read all the same.
        let ends = self.ends_blocking(topic, &partitions)?;
        let mut found =
            self.offsets_blocking(topic, times_ms.iter().map(|&(partition, time)| (partition, time.max(0))))?;
        for (partition, offset) in &mut found {
            if *offset < 0 {
                *offset = ends.iter().find(|(end, _)| end == partition).map_or(0, |&(_, end)| end);
            }
        }
        Ok(found)
    }

    /// Asks until every partition has answered: a partition that was just created, or whose leader just moved, first
    /// answers "not the leader".
    fn offsets_blocking(
        &self,
        topic: &str,
        wanted: impl Iterator<Item = (i32, i64)>,
    ) -> Result<Vec<(i32, i64)>> {
        let mut list = TopicPartitionList::new();
        for (partition, timestamp) in wanted {
            list.add_partition_offset(topic, partition, raw_offset(timestamp))
                .map_err(|source| self.fail("offsets", source))?;
        }
        let deadline = Instant::now() + QUERY_TIMEOUT;
        loop {
            match self.offsets_once(topic, list.clone()) {
                Err(error) if error.kind() == ErrorKind::Broker && Instant::now() < deadline => {
                    tracing::debug!(%error, "asking for offsets again");
                    std::thread::sleep(TOPIC_POLL);
                }
                answer => return answer,
            }
        }
    }

    fn offsets_once(&self, topic: &str, list: TopicPartitionList) -> Result<Vec<(i32, i64)>> {
        if list.count() == 0 {
            return Ok(Vec::new());
        }
        let answer = self
            .query
            .offsets_for_times(list, QUERY_TIMEOUT)
            .map_err(|source| self.fail("offsets", source))?;
        answer.elements().iter().map(|element| read_offset(topic, element)).collect()
    }

    pub(super) fn admin(&self) -> Result<AdminClient<Quiet>> {
        self.connection
            .query_config()
            .create_with_context(Quiet)
            .map_err(|source| from_kafka("admin", "Kafka client", source))
    }

    fn fail(&self, operation: &'static str, source: KafkaError) -> Error {
        from_kafka(operation, &format!("Kafka at {}", self.connection.bootstrap()), source)
    }
}

fn raw_offset(timestamp: i64) -> Offset {
    match timestamp {
        TIMESTAMP_END => Offset::End,
        TIMESTAMP_START => Offset::Beginning,
        other => Offset::Offset(other),
    }
}

fn read_offset(
    topic: &str,
    element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>,
) -> Result<(i32, i64)> {
    let about = || format!("{topic}[{}]", element.partition());
    element.error().map_err(|source| from_kafka("offsets", &about(), source))?;
    match element.offset() {
        Offset::Offset(offset) => Ok((element.partition(), offset)),
        // The answer for a time after the last message.
        Offset::End => Ok((element.partition(), -1)),
        other => {
            let text = format!("{}: no offset in the answer ({other:?})", about());
            Err(Error::new(ErrorKind::Broker, "offsets", text))
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT)).operation_timeout(Some(QUERY_TIMEOUT))
}
