//! Ordered, non-blocking sends. Every record carries its own acknowledgement sink.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Partitioner, Producer as _, ProducerContext, ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::oneshot;

use super::connection::{Connection, ProducerSettings};
use super::fault::{closed, from_kafka, timed_out};
use super::health::log_line;
use crate::error::{Error, Result};

/// Where a record came to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// Takes the outcome of one send. Called exactly once, on librdkafka's event thread: it must not block.
pub trait AckSink: Send + Sync + 'static {
    /// The broker acknowledged the record, or gave no acknowledgement: then the outcome may be unknown.
    fn done(self, outcome: Result<Written>);
}

impl AckSink for oneshot::Sender<Result<Written>> {
    fn done(self, outcome: Result<Written>) {
        // The publisher may have stopped waiting; its message stays sent.
        let _ = self.send(outcome);
    }
}

/// An acknowledgement that nobody waits for.
#[derive(Debug, Clone, Copy)]
pub struct NoAck;

impl AckSink for NoAck {
    fn done(self, outcome: Result<Written>) {
        if let Err(error) = outcome {
            tracing::debug!(%error, "a record that nobody waits for was not written");
        }
    }
}

/// librdkafka's callbacks: deliveries to their sinks, partitioning to the strategy's own hook.
struct Callbacks<A, P> {
    partitioner: Option<P>,
    sinks: PhantomData<fn(A)>,
}

impl<A: AckSink, P: Send + Sync> ClientContext for Callbacks<A, P> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error.rdkafka_error_code(), Some(Code::Fatal)) {
            // From here on it refuses every record, each with the remedy.
            tracing::error!(target: "librdkafka", %error, "{reason}");
        } else {
            // librdkafka reconnects by itself, and each record reports its own failure.
            tracing::debug!(target: "librdkafka", %error, "{reason}");
        }
    }
}

impl<A: AckSink, P: Partitioner + Send + Sync> ProducerContext<P> for Callbacks<A, P> {
    type DeliveryOpaque = Box<A>;

    fn delivery(&self, result: &DeliveryResult<'_>, sink: Box<A>) {
        sink.done(match result {
            Ok(message) => Ok(Written { partition: message.partition(), offset: message.offset() }),
            Err((source, message)) => {
                let about = format!("{}[{}]", message.topic(), message.partition());
                Err(from_kafka("publish", &about, source.clone()))
            }
        });
    }

    fn get_custom_partitioner(&self) -> Option<&P> {
        self.partitioner.as_ref()
    }
}

/// A producer with its own event thread. `P` is the partitioner hook, if the strategy has one.
pub struct Producer<A: AckSink, P: Partitioner + Send + Sync + 'static = NoCustomPartitioner> {
    inner: Arc<ThreadedProducer<Callbacks<A, P>, P>>,
    closed: Arc<AtomicBool>,
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> Clone for Producer<A, P> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), closed: Arc::clone(&self.closed) }
    }
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> std::fmt::Debug for Producer<A, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.inner.in_flight_count()).finish_non_exhaustive()
    }
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> Producer<A, P> {
    /// Makes a producer; connects in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when librdkafka refuses a property.
    pub fn new(connection: &Connection, settings: &ProducerSettings, partitioner: Option<P>) -> Result<Self> {
        let inner = connection
            .producer_config(settings)
            .create_with_context(Callbacks { partitioner, sinks: PhantomData })
            .map_err(|source| from_kafka("connect", "Kafka producer", source))?;
        Ok(Self { inner: Arc::new(inner), closed: Arc::new(AtomicBool::new(false)) })
    }

    /// Puts a record into the ordered send queue and returns at once; its place is fixed then. Without a partition
    /// the partitioner hook chooses by the key. The payload is copied.
    ///
    /// # Errors
    /// The sink comes back unused with the error:
    /// [`Overloaded`](crate::ErrorKind::Overloaded) when the queue is full, `TooLarge`, `Closed`, or `Broker` for
    /// a partition that does not exist.
    #[allow(clippy::result_large_err)] // the sink must come back, and errors are rare
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        payload: &[u8],
        sink: A,
    ) -> std::result::Result<(), (Error, A)> {
        if self.closed.load(Relaxed) {
            return Err((closed("publish"), sink));
        }
        let mut record =
            BaseRecord::<'_, [u8], [u8], Box<A>>::with_opaque_to(topic, Box::new(sink)).payload(payload);
        record.partition = partition;
        record.key = key;
        self.inner
            .send(record)
            .map_err(|(source, record)| (from_kafka("publish", topic, source), *record.delivery_opaque))
    }

    /// Looks at the topic now, so that partitions created since are known. Blocking; about 1 ms.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn refresh_blocking(&self, topic: &str, timeout: Duration) -> Result<()> {
        let refreshed = self.inner.client().fetch_metadata(Some(topic), timeout);
        refreshed.map(drop).map_err(|source| from_kafka("metadata", topic, source))
    }

    /// Looks at the topic now and returns its partitions that have a leader: those that can be written to from here
    /// on. Blocking; about 1 ms.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn partitions_blocking(&self, topic: &str, timeout: Duration) -> Result<Vec<i32>> {
        let metadata = self
            .inner
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|source| from_kafka("metadata", topic, source))?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic);
        let led = found.flat_map(|topic| topic.partitions()).filter(|partition| partition.leader() >= 0);
        Ok(led.map(rdkafka::metadata::MetadataPartition::id).collect())
    }

    /// Records sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.inner.in_flight_count()).unwrap_or(0)
    }

    /// Refuses further sends and waits until everything sent is acknowledged or failed.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) when records are still in flight at the deadline; these fail then.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Relaxed);
        let inner = Arc::clone(&self.inner);
        let flushed = tokio::task::spawn_blocking(move || inner.flush(deadline)).await;
        match flushed {
            Ok(Ok(())) => Ok(()),
            _ => {
                let left = self.in_flight();
                Err(timed_out("shutdown", format!("{left} records were not acknowledged in time")))
            }
        }
    }
}
