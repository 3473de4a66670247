//! Bringing a node up: topic, producer, consumer, keeper. Resolves when the node can publish and join.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::bell::{self, Bell, Heard};
use super::history::RoomHistory;
use super::keeper::{self, Commands, Mode, Work};
use super::membership::Membership;
use super::node::Node;
use super::partitioner::RoomPartitioner;
use super::plan::{Plan, Thresholds};
use super::publish::{self, Ack, Sender};
use super::reader::Reader;
use super::rooms::Rooms;
use super::settings::{Consume, Settings};
use crate::backplane::Backplane;
use crate::clients::kafka::{
    Cluster, Connection, Consumer, GroupSettings, Incarnations, TopicSpec, incarnation,
};
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::Positions;
use crate::kafka_history::{log::Log, numbering};
use crate::ring::{Feed, Rings};
use crate::strategy::Start;

/// How long the group may take beyond the session timeout of a predecessor that died.
const GROUP_PATIENCE: Duration = Duration::from_secs(15);
/// How long a look at a topic may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between attempts while the cluster comes up.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Connects a node.
///
/// # Errors
/// `Config`, `Unreachable` naming the address, or what the broker refuses.
pub(super) async fn connect(start: Start, settings: Settings) -> Result<Arc<dyn Backplane>> {
    let connection = Connection::new(&start, settings.client.clone())?;
    let deadline = start.connect_retry.map(|time| Instant::now() + time);
    let cluster = Cluster::connect(connection, start.connect_retry).await?;
    let (recipe, topics) = loop {
        // A broker that just started may answer before it can create or lead anything.
        let prepared = async {
            let recipe = Recipe::of(&cluster, &start.namespace, &settings).await?;
            let topics = prepare(&cluster, &recipe).await?;
            Ok((recipe, topics))
        };
        match prepared.await {
            Err::<_, Error>(error)
                if error.is_temporary() && deadline.is_some_and(|at| Instant::now() < at) =>
            {
                tracing::warn!(%error, "the topic is not ready yet; trying again");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            prepared => break prepared?,
        }
    };
    bring_up(start, settings, cluster, recipe, topics).await
}

/// The topics of a namespace.
struct Topics {
    rooms: String,
    bell: String,
    bells: u32,
    incarnations: Arc<Incarnations>,
    /// What tells the rooms' topic from one that is created anew under its name.
    mark: Option<u64>,
}

/// What the topics of a namespace are like.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    rooms: String,
    bell: String,
    /// Hashed and dedicated partitions of the rooms' topic.
    partitions: (u32, u32),
    bells: u32,
    replication: Option<u32>,
    retention_ms: u64,
}

impl Recipe {
    async fn of(cluster: &Cluster, namespace: &str, settings: &Settings) -> Result<Self> {
        let brokers = cluster.run(|cluster| cluster.broker_count_blocking(LOOK_TIMEOUT)).await?;
        Ok(Self {
            rooms: format!("{namespace}.rooms"),
            bell: format!("{namespace}.rooms.bell"),
            partitions: (settings.partitions, settings.dedicated_partitions),
            bells: u32::try_from(brokers.min(bell::PARTITIONS_MAX)).unwrap_or(1),
            replication: settings.replication,
            retention_ms: u64::from(settings.retention_minutes) * 60_000,
        })
    }

    /// Creates what is not there, or no longer. Returns how many partitions the topics have, that of rooms first.
    pub(super) async fn ensure(&self, cluster: &Cluster) -> Result<(u32, u32)> {
        let rooms = TopicSpec {
            name: self.rooms.clone(),
            partitions: self.partitions.0 + self.partitions.1,
            replication: self.replication,
            config: vec![
                ("retention.ms".into(), self.retention_ms.to_string()),
                // The broker's clock: a log that became shorter is found again by it.
                ("message.timestamp.type".into(), "LogAppendTime".into()),
                incarnation::mark(self.number())?,
            ],
        };
        let bell = TopicSpec {
            name: self.bell.clone(),
            partitions: self.bells,
            replication: self.replication,
            config: vec![("retention.ms".into(), "60000".into()), ("segment.ms".into(), "600000".into())],
        };
        Ok((cluster.ensure_topic(&rooms).await?, cluster.ensure_topic(&bell).await?))
    }

    /// How rooms are divided, as one number that the topic's mark carries.
    fn number(&self) -> u32 {
        let (hashed, dedicated) = self.partitions;
        hashed << 8 | dedicated
    }

    /// Whether rooms lie where this node looks for them, in a topic that has `found` partitions and this mark. Partitions that
    /// somebody added are left alone: rooms stay where they are.
    fn check(&self, found: u32, mark: Option<u64>) -> Result<()> {
        let (hashed, dedicated) = self.partitions;
        let theirs = mark.map(incarnation::number_of);
        let agreed = theirs.map_or(found == hashed + dedicated, |theirs| theirs == self.number());
        if agreed && found >= hashed + dedicated {
            if found > hashed + dedicated {
                tracing::warn!(
                    topic = self.rooms,
                    found,
                    "partitions were added to the topic; they are not used"
                );
            }
            return Ok(());
        }
        let has = match theirs {
            Some(theirs) => {
                format!("`partitions` = {} and `dedicated_partitions` = {}", theirs >> 8, theirs & 0xff)
            }
            None => "other numbers".to_owned(),
        };
        let text = format!(
            "topic {} has {found} partitions and was made for {has}, but here `partitions` = {hashed} and \
             `dedicated_partitions` = {dedicated}; all nodes of a namespace need the same: use the topic's numbers, or \
             another --namespace",
            self.rooms
        );
        Err(Error::new(ErrorKind::Config, "connect", text))
    }
}

async fn prepare(cluster: &Cluster, recipe: &Recipe) -> Result<Topics> {
    let (found, bells) = recipe.ensure(cluster).await?;
    let incarnations = Incarnations::new(cluster, &recipe.rooms)?;
    let mark = incarnations.now().await?;
    recipe.check(found, mark)?;
    if mark.is_none() {
        tracing::warn!(
            topic = recipe.rooms,
            "the topic was not created by this strategy and has no mark: clients can resume on the node only that they were on"
        );
    }
    let (rooms, bell) = (recipe.rooms.clone(), recipe.bell.clone());
    Ok(Topics { rooms, bell, bells, incarnations: Arc::new(incarnations), mark })
}

async fn bring_up(
    start: Start,
    settings: Settings,
    cluster: Cluster,
    recipe: Recipe,
    topics: Topics,
) -> Result<Arc<dyn Backplane>> {
    let partitioner = RoomPartitioner::new(settings.partitions, settings.overrides.clone());
    let producer = Sender::new(cluster.connection(), &settings.producer(), Some(partitioner.clone()))?;
    let rings = settings
        .rings()
        .map(|limits| Rings::new(Feed::Everything, Positions::Rising, limits, Instant::now()));
    let epochs = numbering(&topics.rooms, topics.mark)?;
    let rooms = Arc::new(Rooms::new(partitioner, settings.total_partitions(), epochs, topics.mark, rings));
    let (keeper, commands) = keeper::channel();
    let heard = Heard::new();
    let reader = Reader::new(
        topics.rooms.clone(),
        heard.clone(),
        Arc::clone(&rooms),
        Arc::clone(&start.entrance),
        keeper.clone(),
        settings.dedup_messages,
    );
    warm_up(&cluster, &topics, &producer, settings.publish_timeout()).await?;
    // If a later step fails, the last handle of the consumer is dropped and its thread ends.
    let (consumer, mode) = match settings.consume {
        Consume::All => read_all(&cluster, &settings, &rooms, &topics, reader).await?,
        Consume::Demand => {
            let bell = Bell::new(topics.bell.clone(), topics.bells, producer.clone());
            read_on_demand(&cluster, &settings, &rooms, &topics, reader, bell, &heard).await?
        }
        Consume::Group => {
            let group = format!("{}.{}", topics.rooms, start.node);
            read_in_group(&cluster, &settings, &rooms, &topics, reader, group, false).await?
        }
        Consume::SharedGroup => {
            let group = format!("{}.shared", topics.rooms);
            read_in_group(&cluster, &settings, &rooms, &topics, reader, group, true).await?
        }
    };
    let log = Arc::new(Log::new(cluster.clone(), topics.rooms.clone(), settings.scan()));
    let incarnations = topics.incarnations;
    let history = (settings.consume != Consume::SharedGroup).then(|| {
        let (log, incarnations) = (Arc::clone(&log), Arc::clone(&incarnations));
        let follows_all = settings.consume != Consume::Demand;
        RoomHistory::new(Arc::clone(&rooms), log, incarnations, keeper.clone(), follows_all)
    });
    let work = Work {
        cluster,
        consumer: consumer.clone(),
        rooms: Arc::clone(&rooms),
        topic: topics.rooms.clone(),
        producer: producer.clone(),
        recipe,
        incarnations,
        runtime: Handle::current(),
        mode,
        waiting: Vec::new(),
        repair_at: None,
        look_at: Instant::now() + keeper::LOOK_EVERY,
        looking: Arc::default(),
        keeper: keeper.clone(),
    };
    let thread = Mutex::new(Some(keep(work, commands)?));
    let (closed, topic) = (AtomicBool::new(false), topics.rooms.into());
    Ok(Arc::new(Node { settings, topic, rooms, producer, consumer, keeper, history, log, thread, closed }))
}

/// A node that connects can publish: the producer knows the topics, has its identity, and one write was
/// acknowledged by as many replicas as a message needs.
async fn warm_up(cluster: &Cluster, topics: &Topics, producer: &Sender, time_max: Duration) -> Result<()> {
    let (rooms, bell, writer) = (topics.rooms.clone(), topics.bell.clone(), producer.clone());
    let written = cluster
        .run(move |_| {
            writer.refresh_blocking(&rooms, LOOK_TIMEOUT)?;
            writer.refresh_blocking(&bell, LOOK_TIMEOUT)?;
            let (sink, waiting) = oneshot::channel();
            let sent = writer.send(&bell, Some(0), None, b"", Ack::Publisher(sink));
            sent.map(|()| waiting).map_err(|(error, _)| error)
        })
        .await?;
    publish::acknowledged_within(written, time_max).await.map(drop)
}

fn keep(work: Work, commands: Commands) -> Result<JoinHandle<()>> {
    let thread = std::thread::Builder::new().name("kafka-keeper".into()).spawn(move || work.run(&commands));
    thread.map_err(|source| Error::new(ErrorKind::Config, "connect", "no thread").with_source(source))
}

async fn read_all(
    cluster: &Cluster,
    settings: &Settings,
    rooms: &Arc<Rooms>,
    topics: &Topics,
    reader: Reader,
) -> Result<(Consumer, Mode)> {
    let consumer = Consumer::start(cluster, &settings.consumer(), reader)?;
    let (reading, rooms, topic) = (consumer.clone(), Arc::clone(rooms), topics.rooms.clone());
    cluster
        .run(move |cluster| {
            let partitions: Vec<i32> = rooms.partitions().collect();
            reading.refresh_blocking(&topic, LOOK_TIMEOUT)?;
            keeper::begin(cluster, &reading, &rooms, &topic, &partitions)
        })
        .await?;
    Ok((consumer, Mode::All))
}

async fn read_on_demand(
    cluster: &Cluster,
    settings: &Settings,
    rooms: &Arc<Rooms>,
    topics: &Topics,
    reader: Reader,
    bell: Bell,
    heard: &Heard,
) -> Result<(Consumer, Mode)> {
    let consumer = Consumer::start(cluster, &settings.consumer(), reader)?;
    let (reading, of_rooms) = (consumer.clone(), topics.rooms.clone());
    let bell = cluster.run(move |cluster| {
        // Asked before the first fetch is held, so that the answers come at once.
        reading.refresh_blocking(&of_rooms, LOOK_TIMEOUT)?;
        bell.listen_blocking(cluster, &reading)?;
        Ok(bell)
    });
    let mut bell = bell.await?;
    bell.wait_until_heard(heard, LOOK_TIMEOUT).await?;
    // One partition is always read, the last (dedicated, so mostly empty): a client that reads nothing of a topic
    // forgets it, and asking for it again waits behind the fetch that the broker holds.
    let anchor = rooms.partitions().last().unwrap_or(0);
    let (reading, at, topic) = (consumer.clone(), Arc::clone(rooms), topics.rooms.clone());
    cluster.run(move |cluster| keeper::begin(cluster, &reading, &at, &topic, &[anchor])).await?;
    bell.wind(Instant::now());
    let thresholds = Thresholds {
        linger: Duration::from_millis(settings.release_linger_ms.into()),
        all_above: settings.all_above,
        all_below: settings.all_below,
    };
    let mut plan = Plan::new(rooms.partitions().count(), thresholds);
    plan.join(anchor);
    plan.set_assigned(&[anchor], true);
    Ok((consumer, Mode::Demand(plan, bell)))
}

async fn read_in_group(
    cluster: &Cluster,
    settings: &Settings,
    rooms: &Arc<Rooms>,
    topics: &Topics,
    reader: Reader,
    group: String,
    shared: bool,
) -> Result<(Consumer, Mode)> {
    let membership =
        Arc::new(Membership::new(cluster.clone(), topics.rooms.clone(), Arc::clone(rooms), shared));
    let timeouts = GroupSettings {
        id: group,
        session_timeout: Duration::from_millis(settings.session_timeout_ms.into()),
        heartbeat: Duration::from_millis(settings.heartbeat_ms.into()),
    };
    let patience = timeouts.session_timeout + GROUP_PATIENCE;
    let mut consuming = settings.consumer();
    consuming.group = Some(timeouts);
    let consumer =
        Consumer::start_in_group(cluster, &consuming, Arc::<Membership>::clone(&membership), reader)?;
    let (reading, topic) = (consumer.clone(), topics.rooms.clone());
    cluster.run(move |_| reading.refresh_blocking(&topic, LOOK_TIMEOUT)).await?;
    consumer.subscribe(&topics.rooms)?;
    membership.ready(patience).await?;
    Ok((consumer, Mode::Group))
}
