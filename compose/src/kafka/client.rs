//! What is asked of a broker to know that it serves, and the traffic that loads its classes.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::DeliveryResult;
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message};

use crate::error::{Error, Result};

/// The topic by which brokers show that they serve. It stays, with a record per start, so that restarts can use it.
const READY_TOPIC: &str = "__manifold_ready";

/// How long one question to the cluster may take. Short, because an unready broker is simply asked again.
pub(crate) const ASK_WITHIN: Duration = Duration::from_secs(2);

/// How long a Kafka that the user gave may take to answer.
const GIVEN_WITHIN: Duration = Duration::from_secs(5);

/// A client that finds out whether a broker serves.
pub(crate) struct Probe {
    bootstrap: String,
    producer: BaseProducer<Acknowledged>,
}

/// Keeps the outcome of the last produce.
#[derive(Default)]
struct Acknowledged(Mutex<Option<KafkaResult<()>>>);

impl ClientContext for Acknowledged {
    // Refused connections are what a probe expects; each question's own answer is what counts.
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        let outcome = result.as_ref().map(|_| ()).map_err(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }
}

impl Probe {
    pub(crate) fn new(bootstrap: &str) -> Result<Probe> {
        let producer = client_config(bootstrap)
            .set("acks", "all")
            .set("message.timeout.ms", "2000")
            .create_with_context(Acknowledged::default())
            .map_err(|error| refused(bootstrap, &error))?;
        Ok(Probe { bootstrap: bootstrap.to_owned(), producer })
    }

    /// Whether the broker is in sync with the cluster and all in-sync brokers acknowledge a produce; else what is missing.
    pub(crate) fn check(&self, node: usize, nodes: usize) -> std::result::Result<(), String> {
        let partition = match self.leader_when_in_sync(node)? {
            Some(partition) => partition,
            None => {
                self.create_topic(nodes)?;
                self.leader_when_in_sync(node)?.ok_or("the topic of readiness does not exist yet")?
            }
        };
        self.produce(partition).map_err(|error| format!("no produce is acknowledged: {error}"))
    }

    /// A partition that has a leader, once the broker is in sync on every partition; `None` where there is no topic yet.
    fn leader_when_in_sync(&self, node: usize) -> std::result::Result<Option<i32>, String> {
        let metadata = self
            .producer
            .client()
            .fetch_metadata(Some(READY_TOPIC), ASK_WITHIN)
            .map_err(|error| error.to_string())?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == READY_TOPIC);
        let topic = topic.filter(|topic| topic.error().is_none() && !topic.partitions().is_empty());
        let Some(partitions) = topic.map(MetadataTopic::partitions) else { return Ok(None) };
        let in_sync = |replicas: &[i32]| replicas.iter().any(|replica| usize::try_from(*replica) == Ok(node));
        if !partitions.iter().all(|partition| in_sync(partition.isr())) {
            return Err(format!("broker {node} is not in sync"));
        }
        let leaders = metadata.brokers();
        let alive = |leader: i32| leaders.iter().any(|broker| broker.id() == leader);
        let led = partitions.iter().find(|partition| alive(partition.leader()));
        led.map(|partition| Some(partition.id())).ok_or_else(|| "no partition has a leader".to_owned())
    }

    fn create_topic(&self, nodes: usize) -> std::result::Result<(), String> {
        let nodes = i32::try_from(nodes).map_err(|error| error.to_string())?;
        create_topic(&self.bootstrap, READY_TOPIC, nodes, nodes)
    }

    fn produce(&self, partition: i32) -> KafkaResult<()> {
        let record = BaseRecord::<[u8], [u8]>::to(READY_TOPIC).partition(partition).payload(b"ready");
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.flush(ASK_WITHIN)?;
        let outcome = self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take();
        outcome.unwrap_or(Err(KafkaError::Canceled))
    }
}

/// Checks that a Kafka which the user gave answers.
pub(crate) fn check_given(bootstrap: &str) -> Result<()> {
    let probe = Probe::new(bootstrap)?;
    match probe.producer.client().fetch_metadata(None, GIVEN_WITHIN) {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::NotReady {
            name: format!("the given Kafka ({bootstrap})"),
            waited: GIVEN_WITHIN,
            problem: error.to_string(),
            log_tail: String::new(),
        }),
    }
}

/// The number of the broker that leads most partitions, the brokers' own topics aside; `None` where none leads any.
pub(crate) fn busiest_leader(bootstrap: &str) -> Result<Option<usize>> {
    let probe = Probe::new(bootstrap)?;
    let metadata =
        probe.producer.client().fetch_metadata(None, GIVEN_WITHIN).map_err(|error| Error::NotReady {
            name: format!("Kafka ({bootstrap})"),
            waited: GIVEN_WITHIN,
            problem: error.to_string(),
            log_tail: String::new(),
        })?;
    let topics = metadata.topics().iter().filter(|topic| !topic.name().starts_with("__"));
    let mut led: BTreeMap<usize, usize> = BTreeMap::new();
    // A partition without a leader says -1.
    let leaders = topics.flat_map(|topic| topic.partitions()).map(|partition| partition.leader());
    leaders
        .filter_map(|leader| usize::try_from(leader).ok())
        .for_each(|node| *led.entry(node).or_default() += 1);
    Ok(led.into_iter().max_by_key(|(_, partitions)| *partitions).map(|(node, _)| node))
}

/// Lets a broker do what brokers do: topics, produces of several kinds, fetches, a group, metadata.
pub(crate) fn traffic(bootstrap: &str) -> Result<()> {
    const TOPIC: &str = "training";
    const RECORDS: usize = 2_000;
    let fail = |error: String| Error::NotReady {
        name: "kafka-training".to_owned(),
        waited: Duration::ZERO,
        problem: error,
        log_tail: String::new(),
    };
    create_topic(bootstrap, TOPIC, 4, 1).map_err(fail)?;
    for (codec, idempotence) in [("none", "true"), ("lz4", "false")] {
        let producer: BaseProducer = client_config(bootstrap)
            .set("compression.codec", codec)
            .set("enable.idempotence", idempotence)
            .create()
            .map_err(|error| refused(bootstrap, &error))?;
        for number in 0..RECORDS {
            let payload = format!("{number} {}", "x".repeat(200));
            let partition = (number % 4) as i32;
            let record = BaseRecord::<[u8], str>::to(TOPIC).partition(partition).payload(&payload);
            producer.send(record).map_err(|(error, _)| fail(error.to_string()))?;
        }
        producer.flush(Duration::from_secs(10)).map_err(|error| fail(error.to_string()))?;
    }
    read_back(bootstrap, TOPIC, 2 * RECORDS).map_err(|error| fail(error.to_string()))
}

fn read_back(bootstrap: &str, topic: &str, records: usize) -> KafkaResult<()> {
    let consumer: BaseConsumer = client_config(bootstrap)
        .set("group.id", "training")
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()?;
    consumer.subscribe(&[topic])?;
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut seen = 0;
    while seen < records && Instant::now() < deadline {
        if let Some(message) = consumer.poll(Duration::from_millis(100)) {
            seen += usize::from(message?.payload().is_some());
        }
    }
    consumer.fetch_watermarks(topic, 0, ASK_WITHIN)?;
    consumer.commit_consumer_state(CommitMode::Sync)
}

/// Creates a topic; that it exists already is fine.
fn create_topic(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    replicas: i32,
) -> std::result::Result<(), String> {
    let admin: AdminClient<DefaultClientContext> =
        client_config(bootstrap).create().map_err(|error| error.to_string())?;
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
    let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN)).operation_timeout(Some(ASK_WITHIN));
    let results = block_on(admin.create_topics([&topic], &options)).map_err(|error| error.to_string())?;
    for result in results {
        match result {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, error)) => return Err(format!("cannot create topic {name}: {error}")),
        }
    }
    Ok(())
}

pub(crate) fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("client.id", "manifold-compose")
        .set("linger.ms", "0")
        .set("reconnect.backoff.ms", "20")
        .set("reconnect.backoff.max.ms", "200")
        .set("retry.backoff.ms", "20")
        .set("topic.metadata.refresh.interval.ms", "1000");
    config
}

fn refused(bootstrap: &str, error: &KafkaError) -> Error {
    Error::State(format!("cannot make a Kafka client for {bootstrap}: {error}"))
}
