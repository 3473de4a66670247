//! One producer and some consumers of a topic of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, bail, ensure};
use manifold_strategies::backplane::Event;
use manifold_strategies::clients::kafka::{
    ClientProperties, Cluster, Connection, ConsumerSettings, ProducerSettings, TopicSpec,
};
use manifold_strategies::{Entrance, Start};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::{LOOK, Order, PATIENCE, ROOMS, Reader, Shared, runtime};

/// Partitions, as the keyed strategy has them by default.
const PARTITIONS: u32 = 16;

/// Nothing is received through the strategies here.
struct Nowhere;

impl Entrance for Nowhere {
    fn deliver(&self, batch: &mut Vec<Event>) {
        batch.clear();
    }
}

/// Counts what the broker refused.
#[derive(Clone, Default)]
struct Refusals(Arc<AtomicU64>);

impl ClientContext for Refusals {}

impl ProducerContext for Refusals {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Produces and consumes as ordered.
pub(crate) fn run(order: &Order, shared: &Arc<Shared>) -> Result<()> {
    let start = Start {
        node: "bare".to_owned(),
        namespace: order.name.clone(),
        kafka: Some(order.address.clone()),
        redis: None,
        settings: toml::Table::new(),
        connect_retry: None,
        entrance: Arc::new(Nowhere),
    };
    let connection = Connection::new(&start, ClientProperties::default())?;
    let topic = order.name.clone();
    let runtime = runtime()?;
    let cluster = runtime.block_on(Cluster::connect(connection.clone(), Some(PATIENCE)))?;
    let spec =
        TopicSpec { name: topic.clone(), partitions: PARTITIONS, replication: None, config: Vec::new() };
    runtime.block_on(cluster.ensure_topic(&spec))?;
    let readers = (0..order.consumers)
        .map(|_| reader(&connection, &topic, Arc::clone(shared)))
        .collect::<Result<Vec<_>>>()?;
    let refusals = Refusals::default();
    let producer: ThreadedProducer<Refusals> =
        connection.producer_config(&ProducerSettings::default()).create_with_context(refusals.clone())?;
    let rooms: Vec<String> = (0..ROOMS).map(|number| order.room(number)).collect();
    let partitions = i32::try_from(PARTITIONS)?;
    order.perform("kafka", shared, readers, &mut |number, payload| {
        let room = (number % ROOMS) as usize;
        let record = BaseRecord::<'_, [u8], [u8]>::to(&topic)
            .partition(room as i32 % partitions)
            .key(rooms[room].as_bytes())
            .payload(payload);
        producer.send(record).map_err(|(error, _)| error.into())
    })?;
    producer.flush(PATIENCE)?;
    let refused = refusals.0.load(Ordering::Relaxed);
    runtime.block_on(cluster.delete_topic(&topic))?;
    ensure!(refused == 0, "the broker refused {refused} messages");
    Ok(())
}

/// A consumer that reads every partition, as a node does. Statistics are left out: they are the strategies' own wish.
fn reader(connection: &Connection, topic: &str, shared: Arc<Shared>) -> Result<Reader> {
    let mut config = connection.consumer_config(&ConsumerSettings::default());
    config.set("statistics.interval.ms", "0");
    let consumer: BaseConsumer = config.create()?;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(PARTITIONS)? {
        list.add_partition_offset(topic, partition, Offset::Offset(0))?;
    }
    consumer.assign(&list)?;
    Ok(std::thread::spawn(move || {
        let mut latencies = Vec::new();
        while !shared.stopped() {
            match consumer.poll(LOOK) {
                Some(Ok(message)) => shared.take(message.payload().unwrap_or_default(), &mut latencies),
                Some(Err(error)) => bail!("a consumer failed: {error}"),
                None => {}
            }
        }
        Ok(latencies)
    }))
}
