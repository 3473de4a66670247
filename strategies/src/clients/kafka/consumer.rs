//! One dedicated thread that reads a consumer and hands over batches.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode as Code;

use super::cluster::Cluster;
use super::connection::ConsumerSettings;
use super::fault::{closed, from_kafka};
use super::group::GroupHook;
use super::health::Health;
use super::progress;
use crate::error::{Error, ErrorKind, Result};

/// Longest sleep of the reading thread, and so the longest time that it takes to stop.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How long leaving a group may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Most records handed over in one batch.
const BATCH_RECORDS_MAX: usize = 1024;
/// A broker that has not answered by so long after it had to is silent. With a quarter of a second between two looks, and half a second
/// for which an empty fetch is held, a broker that stands still is noticed within two seconds.
const SILENT_AFTER: Duration = Duration::from_millis(500);

/// A record as it lies in the fetch buffer: copy what must outlive the call.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The partition.
    pub partition: i32,
    /// The offset in the partition.
    pub offset: i64,
    /// The broker's or producer's time in ms since the Unix epoch, if known.
    pub timestamp_ms: Option<i64>,
    /// The value; empty where there is none.
    pub payload: &'a [u8],
}

/// What happened to the link, as far as the client tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// A broker was lost, or is silent. The client reconnects and goes on at its offsets by itself.
    Broken,
    /// All brokers that lead assigned partitions answer again.
    Restored,
    /// An assigned offset is no longer (or not yet) in the log, or there is no such topic any more, or the client is stuck: the
    /// partition stands still until it is assigned anew. Which one is not said.
    OutOfRange,
}

/// Takes what the reading thread reads. All calls come from that one thread.
pub trait RecordSink: Send + 'static {
    /// A record. Called for each record of a batch, in the order of its partition.
    fn record(&mut self, record: &Record<'_>);
    /// The batch is complete: nothing more is waiting, or it is large enough.
    fn batch_end(&mut self);
    /// The link changed.
    fn link(&mut self, change: Link);
    /// The newest lag in messages, four times a second; negative = unknown.
    fn lag(&mut self, messages: i64);
    /// Some broker is connected and answers nothing (true), or all of them answer again.
    fn silent(&mut self, _silent: bool) {}
}

/// A consumer and its thread. Assignments may be changed from any thread: librdkafka applies them on its own.
/// The thread stops with [`stop`](Self::stop) or with the last clone of this handle.
#[derive(Clone)]
pub struct Consumer {
    handle: Arc<Handle>,
}

/// Dropped with the last clone of the outer handle; the thread holds the inner part only.
struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the thread and those who mind it share.
pub(super) struct Shared {
    pub(super) consumer: BaseConsumer<Health>,
    /// Shared with the client's callbacks, which may be at work when it is set.
    pub(super) stop: Arc<AtomicBool>,
    /// How often the thread asked for more.
    pub(super) turns: AtomicU64,
    /// Some partition is read no more although its log goes on.
    pub(super) stands_still: AtomicBool,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").finish_non_exhaustive()
    }
}

impl Consumer {
    /// Makes a consumer and starts its thread. It reads nothing until partitions are assigned. To be called within a runtime, on
    /// which it is minded: where reading stands still although the log goes on, the sink is told.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when librdkafka refuses a property or the thread cannot start.
    pub fn start(cluster: &Cluster, settings: &ConsumerSettings, sink: impl RecordSink) -> Result<Self> {
        let started = Self::start_with(cluster, settings, None, sink)?;
        let consumer = Arc::downgrade(&started.handle.shared);
        tokio::spawn(progress::mind(consumer, cluster.clone(), settings.fetch_wait));
        Ok(started)
    }

    /// The same for a member of the group in `settings`, which nobody minds. It reads nothing until it
    /// [subscribes](Self::subscribe).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_in_group(
        cluster: &Cluster,
        settings: &ConsumerSettings,
        hook: Arc<dyn GroupHook>,
        sink: impl RecordSink,
    ) -> Result<Self> {
        Self::start_with(cluster, settings, Some(hook), sink)
    }

    fn start_with(
        cluster: &Cluster,
        settings: &ConsumerSettings,
        hook: Option<Arc<dyn GroupHook>>,
        sink: impl RecordSink,
    ) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let consumer: BaseConsumer<Health> = cluster
            .connection()
            .consumer_config(settings)
            .create_with_context(Health::new(settings.fetch_wait + SILENT_AFTER, hook, Arc::clone(&stop)))
            .map_err(|source| from_kafka("connect", "Kafka consumer", source))?;
        let shared = Arc::new(Shared {
            consumer,
            stop,
            turns: AtomicU64::new(0),
            stands_still: AtomicBool::new(false),
        });
        let reader = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("kafka-consumer".into())
            .spawn(move || read(&reader, sink))
            .map_err(|source| Error::new(ErrorKind::Config, "connect", "no thread").with_source(source))?;
        Ok(Self { handle: Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) }) })
    }

    /// Adds partitions, each from an explicit offset. When this returns, everything from those offsets on will be
    /// read. Never pass a symbolic offset such as "end": it resolves later and loses what comes in between.
    ///
    /// # Errors
    /// When the client is closed or a partition is assigned already.
    pub fn assign_blocking(&self, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let list = at_offsets(topic, offsets)?;
        self.alive("assign")?;
        self.consumer().incremental_assign(&list).map_err(|source| from_kafka("assign", topic, source))
    }

    /// Removes partitions. Records of theirs that were read ahead are dropped.
    ///
    /// # Errors
    /// When the client is closed or a partition is not assigned.
    pub fn release_blocking(&self, topic: &str, partitions: &[i32]) -> Result<()> {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for &partition in partitions {
            list.add_partition(topic, partition);
        }
        self.alive("release")?;
        let released = self.consumer().incremental_unassign(&list);
        released.map_err(|source| from_kafka("release", topic, source))
    }

    /// Reads partitions of a topic anew from these offsets, whether they are assigned now or, after an attempt that got half
    /// way, not.
    ///
    /// # Errors
    /// When the client is closed; trying again is safe.
    pub fn read_anew_blocking(&self, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        let partitions: Vec<i32> = offsets.iter().map(|&(partition, _)| partition).collect();
        self.drop_blocking(topic, &partitions)?;
        self.assign_blocking(topic, offsets)
    }

    /// Removes those of these partitions that are assigned.
    ///
    /// # Errors
    /// When the client is closed; trying again is safe.
    pub fn drop_blocking(&self, topic: &str, partitions: &[i32]) -> Result<()> {
        let assignment =
            self.consumer().assignment().map_err(|source| from_kafka("assignment", topic, source))?;
        let assigned: Vec<i32> = assignment
            .elements_for_topic(topic)
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .filter(|assigned| partitions.contains(assigned))
            .collect();
        if assigned.is_empty() { Ok(()) } else { self.release_blocking(topic, &assigned) }
    }

    /// Subscribes through the consumer group of the settings: the group decides which partitions are read.
    ///
    /// # Errors
    /// When the client is closed or has no group.
    pub fn subscribe(&self, topic: &str) -> Result<()> {
        self.alive("subscribe")?;
        self.consumer().subscribe(&[topic]).map_err(|source| from_kafka("subscribe", topic, source))
    }

    /// Partitions that are read now.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn assigned(&self) -> Result<Vec<i32>> {
        let list =
            self.consumer().assignment().map_err(|source| from_kafka("assignment", "consumer", source))?;
        Ok(list
            .elements()
            .iter()
            .map(rdkafka::topic_partition_list::TopicPartitionListElem::partition)
            .collect())
    }

    /// Replaces all that is read: for a member of a group, whose partitions cannot be changed one by one.
    ///
    /// # Errors
    /// When the client is closed.
    pub fn reassign_blocking(&self, topic: &str, offsets: &[(i32, i64)]) -> Result<()> {
        self.alive("assign")?;
        let list = at_offsets(topic, offsets)?;
        self.consumer().assign(&list).map_err(|source| from_kafka("assign", topic, source))
    }

    /// Looks at a topic now, so that its partitions can be read without asking once they are assigned.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn refresh_blocking(&self, topic: &str, timeout: Duration) -> Result<()> {
        let refreshed = self.consumer().fetch_metadata(Some(topic), timeout);
        refreshed.map(drop).map_err(|source| from_kafka("metadata", topic, source))
    }

    /// Whether the broker that leads a partition is connected and answers nothing, as far as this consumer reads from it.
    pub fn is_silent(&self, topic: &str, partition: i32) -> bool {
        self.consumer().client().context().silence().covers(topic, partition)
    }

    fn consumer(&self) -> &BaseConsumer<Health> {
        &self.handle.shared.consumer
    }

    fn alive(&self, operation: &'static str) -> Result<()> {
        if self.handle.shared.stop.load(Relaxed) { Err(closed(operation)) } else { Ok(()) }
    }

    /// Stops the thread after the batch at hand, leaves the group, and waits for both: as long as the sink takes, and
    /// within a rebalance as long as the cluster takes to answer what was asked already. A second call returns at once.
    pub async fn stop(&self) {
        self.handle.shared.stop.store(true, Relaxed);
        let thread = self.handle.thread.lock().take();
        if let Some(thread) = thread {
            // A panic of the sink was reported by the panic hook already; the thread is gone either way.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

fn at_offsets(topic: &str, offsets: &[(i32, i64)]) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for &(partition, offset) in offsets {
        list.add_partition_offset(topic, partition, Offset::Offset(offset))
            .map_err(|source| from_kafka("assign", topic, source))?;
    }
    Ok(list)
}

fn read(shared: &Shared, mut sink: impl RecordSink) {
    let mut watch = Watch { lag: i64::MIN, lost: 0, broken: false, silent: false };
    while !shared.stop.load(Relaxed) {
        let mut next = shared.consumer.poll(POLL_TIMEOUT);
        shared.turns.fetch_add(1, Relaxed);
        let mut records = 0;
        while let Some(polled) = next {
            match polled {
                Ok(message) => {
                    let record = record(&message);
                    shared.consumer.client().context().silence().heard(record.topic, record.partition);
                    sink.record(&record);
                    records += 1;
                }
                Err(error) => watch.error(&mut sink, &error),
            }
            if records >= BATCH_RECORDS_MAX {
                break;
            }
            next = shared.consumer.poll(Duration::ZERO);
        }
        if records > 0 {
            sink.batch_end();
        }
        watch.tick(shared, &mut sink);
    }
    close(&shared.consumer);
}

/// Leaves the group, if in one: others take over at once instead of after the session timeout.
fn close(consumer: &BaseConsumer<Health>) {
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    if consumer.close_queue().is_ok() {
        while !consumer.closed() && Instant::now() < deadline {
            // Serves the last rebalance; records that still come are not this node's any more.
            drop(consumer.poll(Duration::from_millis(20)));
        }
    }
}

pub(super) fn record<'a>(message: &'a BorrowedMessage<'_>) -> Record<'a> {
    Record {
        topic: message.topic(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis(),
        payload: message.payload().unwrap_or_default(),
    }
}

/// Turns the client's errors and statistics into changes of the link.
struct Watch {
    lag: i64,
    lost: u64,
    broken: bool,
    silent: bool,
}

impl Watch {
    fn error(&self, sink: &mut impl RecordSink, error: &KafkaError) {
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => sink.link(Link::OutOfRange),
            Some(
                Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::UnknownTopicId,
            ) => {
                tracing::debug!(%error, "Kafka consumer");
                sink.link(Link::OutOfRange);
            }
            // Never fatal, repeated up to dozens of times, and told by the statistics more exactly.
            Some(Code::AllBrokersDown | Code::BrokerTransportFailure) => {
                tracing::debug!(%error, "Kafka consumer");
            }
            // Everything else is reported and survived: the client retries on its own.
            _ => tracing::warn!(%error, "Kafka consumer reports an error; going on"),
        }
    }

    fn tick(&mut self, shared: &Shared, sink: &mut impl RecordSink) {
        let health = shared.consumer.client().context();
        let (up, lost, silent) = (health.links_up(), health.links_lost(), health.silence().is_any());
        if silent != self.silent {
            self.silent = silent;
            sink.silent(silent);
        }
        if !self.broken && (lost > self.lost || silent) {
            self.broken = true;
            tracing::warn!(silent, "the link to Kafka broke, or a broker does not answer; waiting for it");
            sink.link(Link::Broken);
        }
        if self.broken && up && !silent {
            (self.broken, self.lost) = (false, lost);
            tracing::info!("the link to Kafka is back");
            sink.link(Link::Restored);
        }
        if shared.stands_still.swap(false, Relaxed) {
            sink.link(Link::OutOfRange);
        }
        // Nobody knows what a broker holds that does not answer.
        let lag = if self.broken { -1 } else { health.lag_messages() };
        if lag != self.lag {
            self.lag = lag;
            sink.lag(lag);
        }
    }
}
