//! Ordered, non-blocking sends. Every record carries its own acknowledgement sink.

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::RwLock;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::{FromClientConfigAndContext as _, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{
    BaseRecord, NoCustomPartitioner, Partitioner, Producer as _, ProducerContext, PurgeConfig,
    ThreadedProducer,
};
use rdkafka::types::RDKafkaErrorCode as Code;
use tokio::sync::oneshot;

use super::connection::{Connection, ProducerSettings};
use super::fault::{closed, from_kafka, lost_its_identity, not_sent, timed_out};
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
    /// The client can write no more: librdkafka lost track of what the broker has of it.
    lost: AtomicBool,
    /// The producer was closed.
    closed: Arc<AtomicBool>,
    sinks: PhantomData<fn(A)>,
}

impl<A: AckSink, P: Send + Sync> ClientContext for Callbacks<A, P> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        log_line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(Code::Fatal) {
            self.lost.store(true, Relaxed);
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
                // Before the producer is closed only the loss of its identity empties the queue. This may come before the
                // event that tells of the loss.
                let is_purged = source.rdkafka_error_code() == Some(Code::PurgeQueue);
                Err(match is_purged && !self.closed.load(Relaxed) {
                    true => lost_its_identity(&about, source.clone()),
                    false => from_kafka("publish", &about, source.clone()),
                })
            }
        });
    }

    fn get_custom_partitioner(&self) -> Option<&P> {
        self.partitioner.as_ref()
    }
}

/// What does the work, until it is lost.
type Client<A, P> = ThreadedProducer<Callbacks<A, P>, P>;

/// A producer with its own event thread. `P` is the partitioner hook, if the strategy has one. A client that lost its identity
/// for good is replaced by a new one when all that was sent with it has its outcome.
pub struct Producer<A: AckSink, P: Partitioner + Send + Sync + 'static = NoCustomPartitioner> {
    /// Sending takes part, replacing needs it alone.
    inner: Arc<RwLock<Arc<Client<A, P>>>>,
    config: Arc<ClientConfig>,
    closed: Arc<AtomicBool>,
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> Producer<A, P> {
    /// Records sent and not yet acknowledged.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.inner.read().in_flight_count()).unwrap_or(0)
    }
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> Clone for Producer<A, P> {
    fn clone(&self) -> Self {
        let (inner, config, closed) =
            (Arc::clone(&self.inner), Arc::clone(&self.config), Arc::clone(&self.closed));
        Self { inner, config, closed }
    }
}

impl<A: AckSink, P: Partitioner + Send + Sync + 'static> std::fmt::Debug for Producer<A, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}

impl<A: AckSink, P: Partitioner + Clone + Send + Sync + 'static> Producer<A, P> {
    /// Makes a producer; connects in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) when librdkafka refuses a property.
    pub fn new(connection: &Connection, settings: &ProducerSettings, partitioner: Option<P>) -> Result<Self> {
        let (config, closed) = (connection.producer_config(settings), Arc::default());
        let inner = Arc::new(RwLock::new(Arc::new(client(&config, &closed, partitioner)?)));
        Ok(Self { inner, config: Arc::new(config), closed })
    }

    /// Puts a new client into the place of one that is lost, once nothing is under way there: what came after it must not
    /// overtake it.
    fn replace(&self) -> Result<()> {
        let mut inner = self.inner.write();
        if self.closed.load(Relaxed) {
            // What is waited for is the client at hand.
            return Err(closed("publish"));
        }
        if !inner.context().lost.load(Relaxed) {
            return Ok(());
        }
        if inner.in_flight_count() > 0 {
            // What came back for another attempt after the loss would wait for its timeout.
            inner.purge(PurgeConfig::default().queue().non_blocking());
            return Err(not_sent());
        }
        let partitioner = inner.context().partitioner.clone();
        let anew = Arc::new(client(&self.config, &self.closed, partitioner)?);
        let lost = std::mem::replace(&mut *inner, anew);
        tracing::warn!("the producer lost its identity; a new one goes on");
        // Its threads take a moment to end.
        std::thread::spawn(move || drop(lost));
        Ok(())
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
        let mut inner = self.inner.read();
        if inner.context().lost.load(Relaxed) {
            drop(inner);
            if let Err(error) = self.replace() {
                return Err((error, sink));
            }
            inner = self.inner.read();
        }
        if self.closed.load(Relaxed) {
            return Err((closed("publish"), sink));
        }
        let mut record =
            BaseRecord::<'_, [u8], [u8], Box<A>>::with_opaque_to(topic, Box::new(sink)).payload(payload);
        record.partition = partition;
        record.key = key;
        inner.send(record).map_err(|(source, record)| {
            let error = if source.rdkafka_error_code() == Some(Code::Fatal) {
                inner.context().lost.store(true, Relaxed);
                not_sent().with_source(source)
            } else {
                from_kafka("publish", topic, source)
            };
            (error, *record.delivery_opaque)
        })
    }

    fn client(&self) -> Arc<Client<A, P>> {
        Arc::clone(&self.inner.read())
    }

    /// Looks at the topic now, so that partitions created since are known. Blocking; about 1 ms.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn refresh_blocking(&self, topic: &str, timeout: Duration) -> Result<()> {
        let refreshed = self.client().client().fetch_metadata(Some(topic), timeout);
        refreshed.map(drop).map_err(|source| from_kafka("metadata", topic, source))
    }

    /// Looks at the topic now and returns its partitions that have a leader: those that can be written to from here
    /// on. Blocking; about 1 ms.
    ///
    /// # Errors
    /// When the cluster does not answer within `timeout`.
    pub fn partitions_blocking(&self, topic: &str, timeout: Duration) -> Result<Vec<i32>> {
        let metadata = self
            .client()
            .client()
            .fetch_metadata(Some(topic), timeout)
            .map_err(|source| from_kafka("metadata", topic, source))?;
        let found = metadata.topics().iter().filter(|found| found.name() == topic);
        let led = found.flat_map(|topic| topic.partitions()).filter(|partition| partition.leader() >= 0);
        Ok(led.map(rdkafka::metadata::MetadataPartition::id).collect())
    }

    /// Refuses further sends and waits until everything sent is acknowledged or failed.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) when records are still in flight at the deadline; these fail then.
    pub async fn close(&self, deadline: Duration) -> Result<()> {
        self.closed.store(true, Relaxed);
        // Alone: whoever came before has sent by then, and whoever comes later sees that it is closed.
        let inner = Arc::clone(&self.inner.write());
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

fn client<A: AckSink, P: Partitioner + Send + Sync + 'static>(
    config: &ClientConfig,
    closed: &Arc<AtomicBool>,
    partitioner: Option<P>,
) -> Result<Client<A, P>> {
    let (lost, closed) = (AtomicBool::new(false), Arc::clone(closed));
    let callbacks = Callbacks { partitioner, lost, closed, sinks: PhantomData };
    Client::from_config_and_context(config, callbacks)
        .map_err(|source| from_kafka("connect", "Kafka producer", source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
    use std::time::Instant;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn producer(kafka: &str) -> Producer<oneshot::Sender<Result<Written>>> {
        let connection = Connection::to(kafka);
        Producer::new(&connection, &ProducerSettings::default(), None).expect("a producer")
    }

    fn send(producer: &Producer<oneshot::Sender<Result<Written>>>) -> Result<Written> {
        let (sink, outcome) = oneshot::channel();
        producer.send("t", Some(0), None, b"x", sink).map_err(|(error, _)| error)?;
        outcome.blocking_recv().expect("an outcome")
    }

    #[test]
    fn a_client_that_lost_its_identity_is_replaced() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        let producer = producer(&broker.bootstrap_servers());
        send(&producer).expect("written");
        let confused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        broker.request_errors(RDKafkaApiKey::Produce, &[confused]);
        let error = send(&producer).expect_err("the broker expects another sequence number");
        assert!(error.is_temporary(), "{error}");
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = send(&producer) {
            assert!(error.is_temporary() && Instant::now() < deadline, "{error}");
        }
        assert!(!producer.client().context().lost.load(Relaxed));
    }

    #[test]
    fn what_was_under_way_when_the_identity_was_lost_has_its_outcome_soon_and_may_be_repeated() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        let settings = ProducerSettings { message_timeout: DEADLINE * 2, ..ProducerSettings::default() };
        let mut config = Connection::to(&broker.bootstrap_servers()).producer_config(&settings);
        // So that some wait in the queue for others that are in flight.
        config.set("batch.num.messages", "10");
        let closed = Arc::default();
        let inner = Arc::new(RwLock::new(Arc::new(client(&config, &closed, None).expect("a client"))));
        let producer = Producer { inner, config: Arc::new(config), closed };
        send(&producer).expect("written");
        broker.broker_round_trip_time(1, Duration::from_millis(100)).expect("a slow broker");
        let confused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        let again = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
        broker.request_errors(RDKafkaApiKey::Produce, &[confused, again, again, again, again]);
        let outcomes: Vec<_> = (0..200)
            .map(|_| {
                let (sink, outcome) = oneshot::channel();
                producer.send("t", Some(0), None, b"x", sink).map_err(|(error, _)| error).map(|()| outcome)
            })
            .collect();
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = send(&producer) {
            assert!(error.is_temporary() && Instant::now() < deadline, "{error}");
        }
        for outcome in outcomes {
            if let Err(error) = outcome.and_then(|outcome| outcome.blocking_recv().expect("an outcome")) {
                assert!(error.is_temporary(), "{error}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_after_it_was_closed() {
        let broker = MockCluster::new(1).expect("a broker");
        broker.create_topic("t", 1, 1).expect("a topic");
        let producer = producer(&broker.bootstrap_servers());
        producer.client().context().lost.store(true, Relaxed);
        producer.close(DEADLINE).await.expect("closed");
        let (sink, _) = oneshot::channel();
        let (error, _) = producer.send("t", Some(0), None, b"x", sink).expect_err("it is closed");
        assert_eq!(error.kind(), crate::error::ErrorKind::Closed, "{error}");
    }
}
