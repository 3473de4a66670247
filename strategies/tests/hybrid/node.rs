//! Nodes, streams of publishes, and the check that everything acknowledged arrived once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use manifold_compose::{Environment, KafkaTopology, Purpose, RedisTopology, Request};
use manifold_strategies::clients::redis::connection::{Connection, Opening};
use manifold_strategies::{Backplane, Envelope, Event, MessageId, RoomId, Start, find};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::inbox::Inbox;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const ROOM: &str = "room";
/// Where Redis has no part in a fault: it is not taken for lost where the machine is slow.
pub(crate) const REDIS_IS_WELL: &str = "response_timeout_ms = 10000";
/// Where the log has no part in a fault: it may be as slow as the machine, and is read all the same.
pub(crate) const LOG_IS_WELL: &str = "publish_timeout_ms = 20000\nhistory_scan_ms_max = 8000";
/// Both orders in which the paths can be taken.
pub(crate) const BOTH: [&str; 2] = ["first = 'fast'", "first = 'durable'"];

pub(crate) fn brokers() -> Result<Environment> {
    brokers_with(RedisTopology::Single)
}

pub(crate) fn brokers_with(redis: RedisTopology) -> Result<Environment> {
    let request = Request {
        kafka: Some(KafkaTopology::Single),
        redis: Some(redis),
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    Ok(Environment::start(&request)?)
}

/// What a node is started with.
pub(crate) fn start_of(
    name: &str,
    brokers: &Environment,
    settings: &str,
    inbox: &Arc<Inbox>,
) -> Result<Start> {
    Ok(Start {
        node: name.to_owned(),
        namespace: format!("faults-{}", if settings.contains("durable") { "durable" } else { "fast" }),
        kafka: brokers.kafka().map(str::to_owned),
        redis: brokers.redis().map(str::to_owned),
        settings: settings.parse()?,
        connect_retry: None,
        entrance: Arc::clone(inbox) as Arc<_>,
    })
}

/// A node and what it received.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) inbox: Arc<Inbox>,
}

impl Node {
    pub(crate) async fn start(name: &str, brokers: &Environment, settings: &str) -> Result<Self> {
        let inbox = Arc::new(Inbox::new(DEADLINE));
        let start = start_of(name, brokers, settings, &inbox)?;
        let strategy = find("hybrid").context("it is registered")?;
        Ok(Self { name: name.to_owned(), backplane: (strategy.connect)(start).await?, inbox })
    }

    /// Three nodes with a member each.
    pub(crate) async fn three(brokers: &Environment, settings: &str) -> Result<Vec<Self>> {
        let mut nodes = Vec::new();
        for name in ["a", "b", "c"] {
            let node = Self::start(name, brokers, settings).await?;
            node.backplane.join(&RoomId::new(ROOM)).await?;
            nodes.push(node);
        }
        Ok(nodes)
    }

    pub(crate) async fn publish(&self, room: &str, text: &str) -> Result<()> {
        self.backplane.publish(envelope(room, text)).await?;
        Ok(())
    }

    /// Waits until the last number of each stream is there.
    pub(crate) async fn wait_for_last(&self, streams: &[&str], count: usize) -> Result<()> {
        let arrived = || {
            let texts = self.inbox.texts(ROOM);
            streams.iter().all(|name| texts.contains(&format!("{name}:{}", count - 1)))
        };
        self.inbox.wait_until("the last messages", arrived).await
    }

    pub(crate) fn gap_messages(&self) -> u64 {
        self.backplane.stats().gap_messages.get()
    }

    /// The room's events that say that something may be missing.
    pub(crate) fn gaps(&self) -> usize {
        self.inbox.all().iter().filter(|event| matches!(event, Event::Gap { .. })).count()
    }

    /// How often numbering began anew.
    pub(crate) fn epochs(&self) -> usize {
        self.inbox.all().iter().filter(|event| matches!(event, Event::Renumbered { .. })).count()
    }

    pub(crate) fn reconnects(&self) -> usize {
        self.inbox.all().iter().filter(|event| **event == Event::Reconnected).count()
    }
}

pub(crate) fn envelope(room: &str, text: &str) -> Envelope {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    Envelope {
        room: RoomId::new(room),
        id: MessageId(rand::random()),
        published_at_us: now.as_micros() as u64,
        info: bytes::Bytes::new(),
        payload: text.to_owned().into_bytes().into(),
    }
}

/// Publishes `{node}:{0..count}` at 1,000 per second. Returns the numbers that were acknowledged.
pub(crate) fn stream(node: &Node, count: usize) -> JoinHandle<Vec<usize>> {
    let node = node.clone();
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(1));
        let mut sent = Vec::with_capacity(count);
        for number in 0..count {
            pace.tick().await;
            sent.push(node.backplane.publish(envelope(ROOM, &format!("{}:{number}", node.name))));
        }
        let mut acknowledged = Vec::new();
        for (number, ack) in sent.into_iter().enumerate() {
            match ack.await {
                Ok(_) => acknowledged.push(number),
                Err(error) => eprintln!("{}:{number}: {error}", node.name),
            }
        }
        acknowledged
    })
}

/// Publishes `{node}:{number}` for rising numbers, 250 per second, until told to stop. Returns the numbers that were acknowledged,
/// and how many were not: each of those with an error that a retry may help.
pub(crate) fn stream_until(
    node: &Node,
    mut stopped: watch::Receiver<bool>,
) -> JoinHandle<Result<(Vec<usize>, usize)>> {
    let node = node.clone();
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(4));
        let mut sent = Vec::new();
        while !*stopped.borrow_and_update() {
            pace.tick().await;
            sent.push(node.backplane.publish(envelope(ROOM, &format!("{}:{}", node.name, sent.len()))));
        }
        let (mut acknowledged, mut refused) = (Vec::new(), 0);
        for (number, ack) in sent.into_iter().enumerate() {
            match ack.await {
                Ok(_) => acknowledged.push(number),
                Err(error) => {
                    ensure!(error.is_temporary(), "{}:{number}: {error}", node.name);
                    refused += 1;
                }
            }
        }
        Ok((acknowledged, refused))
    })
}

/// Publishes until a publish is acknowledged, which proves that the log takes messages again.
pub(crate) async fn until_acknowledged(node: &Node, room: &str) -> Result<()> {
    let until = tokio::time::Instant::now() + DEADLINE;
    loop {
        match node.publish(room, "again").await {
            Ok(()) => return Ok(()),
            Err(error) => ensure!(tokio::time::Instant::now() < until, "the log does not come back: {error}"),
        }
    }
}

/// Checks that every acknowledged number of a stream arrived at `node` once, and all in order.
pub(crate) fn audit(node: &Node, stream: &str, acknowledged: &[usize]) -> Result<()> {
    let prefix = format!("{stream}:");
    let numbers: Vec<usize> = node
        .inbox
        .texts(ROOM)
        .iter()
        .filter_map(|text| text.strip_prefix(&prefix))
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let at = |what: &str| format!("{what}: stream {stream} at node {}", node.name);
    let mut counts: HashMap<usize, usize> = HashMap::new();
    for number in &numbers {
        *counts.entry(*number).or_default() += 1;
    }
    let twice: Vec<_> = counts.iter().filter(|(_, count)| **count > 1).take(5).collect();
    ensure!(twice.is_empty(), "{}: {twice:?}", at("delivered twice"));
    let lost: Vec<_> = acknowledged.iter().filter(|number| !counts.contains_key(number)).collect();
    ensure!(lost.is_empty(), "{}: {} lost, first {:?}", at("lost"), lost.len(), lost.first());
    let early = numbers.windows(2).find(|pair| pair[0] > pair[1]);
    ensure!(early.is_none(), "{}: {early:?}", at("out of order"));
    Ok(())
}

/// Shuts all down.
pub(crate) async fn shutdown(nodes: Vec<Node>) -> Result<()> {
    for node in nodes {
        node.backplane.shutdown().await?;
    }
    Ok(())
}

/// Asks Redis something as an administrator.
pub(crate) async fn ask_redis(brokers: &Environment, words: &[&str]) -> Result<()> {
    let host = brokers.redis().unwrap_or_default().trim_start_matches("redis://").to_owned();
    let opening = Opening { login: Default::default(), database: 0, name: "admin".into(), timeout: DEADLINE };
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    Connection::open(&host, &opening).await?.call(&words, DEADLINE).await?;
    Ok(())
}
