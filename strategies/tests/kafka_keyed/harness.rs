//! Brokers, nodes and inboxes of these tests.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use manifold_compose::{Environment, Request};
use manifold_strategies::{
    Backplane, Entrance, Envelope, Event, Message, MessageId, Position, RoomId, Start, find,
};
use parking_lot::Mutex;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::Notify;

/// How long a test waits for what must come.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// One broker for all tests that run at a time and leave it in peace.
static SHARED: Mutex<Weak<Environment>> = Mutex::new(Weak::new());

pub fn shared_broker() -> Arc<Environment> {
    let mut shared = SHARED.lock();
    shared.upgrade().unwrap_or_else(|| {
        let request = Request::kafka().with_environment();
        let environment = Arc::new(Environment::start(&request).expect("a Kafka broker"));
        *shared = Arc::downgrade(&environment);
        environment
    })
}

/// A broker that the test may kill.
pub fn own_broker() -> Environment {
    Environment::start(&Request::kafka()).expect("a Kafka broker")
}

/// A namespace that nobody else uses.
pub fn namespace() -> String {
    format!("keyed-{:016x}", rand::random::<u64>())
}

/// What a node received, with the time of arrival.
#[derive(Default)]
pub struct Inbox {
    events: Mutex<Vec<(Instant, Event)>>,
    arrived: Notify,
    /// While held, deliveries wait: a node that stops reading.
    pub gate: Mutex<()>,
}

impl Entrance for Inbox {
    fn deliver(&self, batch: &mut Vec<Event>) {
        let _open = self.gate.lock();
        let now = Instant::now();
        self.events.lock().extend(batch.drain(..).map(|event| (now, event)));
        self.arrived.notify_waiters();
    }
}

impl Inbox {
    pub fn events(&self) -> Vec<Event> {
        self.events.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    pub fn messages(&self) -> Vec<Message> {
        let message = |event| if let Event::Message(message) = event { Some(message) } else { None };
        self.events().into_iter().filter_map(message).collect()
    }

    pub fn texts(&self) -> Vec<String> {
        self.messages().iter().map(text).collect()
    }

    pub fn arrival(&self, wanted: &str) -> Option<Instant> {
        let is_wanted = |event: &Event| matches!(event, Event::Message(message) if text(message) == wanted);
        self.events.lock().iter().find(|(_, event)| is_wanted(event)).map(|(at, _)| *at)
    }

    pub async fn wait_until(&self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            loop {
                let arrived = self.arrived.notified();
                tokio::pin!(arrived);
                arrived.as_mut().enable();
                if done(self) {
                    return;
                }
                // Counters change without an arrival: look again after a while.
                let _ = tokio::time::timeout(Duration::from_millis(50), arrived).await;
            }
        };
        let ended = tokio::time::timeout(DEADLINE, wait).await;
        assert!(ended.is_ok(), "waited {DEADLINE:?} for {what}; {} events arrived", self.events.lock().len());
    }

    pub async fn wait_for(&self, wanted: &str) {
        self.wait_until(wanted, |inbox| inbox.arrival(wanted).is_some()).await;
    }

    pub async fn wait_for_all(&self, wanted: &[String]) {
        self.wait_until("all of them", |inbox| {
            let got: HashSet<String> = inbox.texts().into_iter().collect();
            wanted.iter().all(|text| got.contains(text))
        })
        .await;
    }
}

pub fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.envelope.payload).into_owned()
}

/// A connected node.
pub struct Node {
    pub backplane: Arc<dyn Backplane>,
    pub inbox: Arc<Inbox>,
}

/// What to start a node with, and its inbox.
pub fn start(kafka: &str, namespace: &str, name: &str, settings: &str) -> (Start, Arc<Inbox>) {
    let inbox = Arc::new(Inbox::default());
    let start = Start {
        node: name.into(),
        namespace: namespace.into(),
        kafka: Some(kafka.into()),
        redis: None,
        settings: settings.parse().expect("TOML"),
        connect_retry: Some(DEADLINE),
        entrance: Arc::clone(&inbox) as Arc<_>,
    };
    (start, inbox)
}

impl Node {
    pub async fn connect(kafka: &str, namespace: &str, name: &str, settings: &str) -> Self {
        Self::of("kafka-keyed", kafka, namespace, name, settings).await
    }

    pub async fn of(strategy: &str, kafka: &str, namespace: &str, name: &str, settings: &str) -> Self {
        let (start, inbox) = start(kafka, namespace, name, settings);
        let strategy = find(strategy).expect("a registered strategy");
        let backplane = (strategy.connect)(start).await.expect("a connected node");
        Self { backplane, inbox }
    }

    pub async fn join(&self, room: &str) -> Position {
        self.backplane.join(&RoomId::new(room)).await.expect("an effective join")
    }

    pub async fn leave(&self, room: &str) {
        self.backplane.leave(&RoomId::new(room)).await.expect("left");
    }

    pub async fn publish(&self, room: &str, text: &str) -> Position {
        self.backplane.publish(envelope(room, text)).await.expect("an acknowledgement")
    }

    pub async fn shutdown(self) {
        self.backplane.shutdown().await.expect("a clean shutdown");
    }
}

pub fn envelope(room: &str, text: &str) -> Envelope {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Envelope {
        room: RoomId::new(room),
        id: MessageId(rand::random()),
        published_at_us: now.as_micros() as u64,
        info: Bytes::new(),
        payload: Bytes::copy_from_slice(text.as_bytes()),
    }
}

/// The partition that a position names.
pub fn partition(position: Position) -> u64 {
    position.epoch & 0xffff
}

/// A room of each of `count` different partitions, out of `partitions`.
pub fn rooms_apart(count: usize, partitions: u32) -> Vec<String> {
    let partitioner =
        manifold_strategies::kafka_keyed::RoomPartitioner::new(partitions, std::collections::BTreeMap::new());
    let mut seen = HashSet::new();
    let apart = (0..).map(|number| format!("room-{number}"));
    apart.filter(|room| seen.insert(partitioner.partition_of(room.as_bytes()))).take(count).collect()
}

fn admin(kafka: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client")
}

/// Drops what lies before an offset from the log, as retention does.
pub async fn drop_before(kafka: &str, topic: &str, partition: i32, offset: i64) {
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a partition");
    admin(kafka).delete_records(&offsets, &AdminOptions::new()).await.expect("records dropped");
}

/// Adds partitions to a topic.
pub async fn grow_topic(kafka: &str, topic: &str, partitions: usize) {
    let grown = NewPartitions::new(topic, partitions);
    let grown = admin(kafka).create_partitions([&grown], &AdminOptions::new()).await.expect("an answer");
    assert!(grown.iter().all(Result::is_ok), "{grown:?}");
}

/// Deletes a topic; returns when nobody sees it any more.
pub async fn delete_topic(kafka: &str, topic: &str) {
    let deleted = admin(kafka).delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
    let gone = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metadata = client.fetch_metadata(Some(&topic), DEADLINE).expect("the cluster answers");
            if metadata.topics().iter().all(|found| found.error().is_some() || found.partitions().is_empty())
            {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} is still there");
        }
    });
    gone.await.expect("a thread");
}
