//! Nodes, a stream of publishes, and the check that nothing was lost in silence.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_compose::{Environment, Purpose, RedisTopology, Request};
use manifold_strategies::clients::redis::connection::{Connection, Opening};
use manifold_strategies::clients::redis::resp::Value;
use manifold_strategies::{Backplane, Envelope, Event, MessageId, Position, RoomId, Start, find};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep};

use crate::inbox::Inbox;

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const ROOM: &str = "room";
/// Where a server freezes: that is noticed as soon as by default.
pub(crate) const FREEZES: &str = "response_timeout_ms = 1000";
/// Unless a test says otherwise no server is taken for frozen because the machine is slow, and publishes are tried for as long as
/// the machine may take for a failover or a restart.
const PATIENCE_MS: [(&str, i64); 2] = [("response_timeout_ms", 10_000), ("publish_timeout_ms", 20_000)];

pub(crate) fn servers(topology: RedisTopology) -> Result<Environment> {
    let request = Request {
        kafka: None,
        redis: Some(topology),
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    Ok(Environment::start(&request)?)
}

/// A node's settings.
pub(crate) fn patient(settings: &str) -> Result<toml::Table> {
    let mut settings: toml::Table = settings.parse()?;
    for (name, ms) in PATIENCE_MS {
        settings.entry(name).or_insert(ms.into());
    }
    Ok(settings)
}

/// A node and what it received.
#[derive(Clone)]
pub(crate) struct Node {
    pub(crate) backplane: Arc<dyn Backplane>,
    pub(crate) inbox: Arc<Inbox>,
}

impl Node {
    pub(crate) async fn start(name: &str, redis: &str, settings: &str) -> Result<Self> {
        let inbox = Arc::new(Inbox::new(DEADLINE));
        let start = Start {
            node: name.to_owned(),
            namespace: "faults".to_owned(),
            kafka: None,
            redis: Some(redis.to_owned()),
            settings: patient(settings)?,
            connect_retry: None,
            entrance: Arc::clone(&inbox) as Arc<_>,
        };
        let strategy = find("redis-pubsub").context("it is registered")?;
        Ok(Self { backplane: (strategy.connect)(start).await?, inbox })
    }

    pub(crate) async fn pair(redis: &str) -> Result<(Self, Self)> {
        Self::pair_with(redis, "").await
    }

    pub(crate) async fn pair_with(redis: &str, settings: &str) -> Result<(Self, Self)> {
        Ok((Self::start("a", redis, settings).await?, Self::start("b", redis, settings).await?))
    }

    pub(crate) async fn join(&self, room: &str) -> Result<Position> {
        Ok(self.backplane.join(&RoomId::new(room)).await?)
    }

    pub(crate) async fn publish(&self, room: &str, text: &str) -> Result<Position> {
        Ok(self.backplane.publish(envelope(room, text)).await?)
    }

    pub(crate) async fn wait_for_event(&self, what: &str, wanted: impl Fn(&Event) -> bool) -> Result<()> {
        self.inbox.wait_until(what, || self.inbox.all().iter().any(&wanted)).await
    }
}

pub(crate) fn envelope(room: &str, text: &str) -> Envelope {
    Envelope {
        room: RoomId::new(room),
        id: MessageId(rand::random()),
        published_at_us: 1,
        info: bytes::Bytes::new(),
        payload: text.to_owned().into_bytes().into(),
    }
}

/// Publishes `0..count` at 1,000 per second; the positions of those that were acknowledged, by number.
pub(crate) fn stream(node: &Node, room: &str, count: usize) -> JoinHandle<HashMap<usize, Position>> {
    let (node, room) = (node.clone(), room.to_owned());
    tokio::spawn(async move {
        let mut pace = interval(Duration::from_millis(1));
        let mut sent = Vec::with_capacity(count);
        for number in 0..count {
            pace.tick().await;
            sent.push(node.backplane.publish(envelope(&room, &number.to_string())));
        }
        let mut acknowledged = HashMap::new();
        for (number, ack) in sent.into_iter().enumerate() {
            if let Ok(position) = ack.await {
                acknowledged.insert(number, position);
            }
        }
        acknowledged
    })
}

/// Publishes rising numbers, beginning with `next`, until one is acknowledged: that one, and its position.
pub(crate) async fn until_acknowledged(
    node: &Node,
    room: &str,
    mut next: usize,
) -> Result<(usize, Position)> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match node.backplane.publish(envelope(room, &next.to_string())).await {
            Ok(position) => return Ok((next, position)),
            Err(error) => ensure!(error.is_temporary() && Instant::now() < deadline, "{next}: {error}"),
        }
        next += 1;
        sleep(Duration::from_millis(5)).await;
    }
}

/// What a node saw of a room: numbers delivered, and how many messages were declared lost.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) numbers: Vec<usize>,
    pub(crate) declared: u64,
    pub(crate) restarts: usize,
}

/// Checks order and that what is missing was declared. `first` is where the room stood when it was joined.
pub(crate) fn audit(node: &Node, room: &str, first: Position) -> Result<Seen> {
    let mut place = first;
    let mut seen = Seen { numbers: Vec::new(), declared: 0, restarts: 0 };
    let mut gap_to = None;
    for event in node.inbox.all() {
        match event {
            Event::Message(message) if message.envelope.room.as_str() == room => {
                let at = message.position;
                follows(&mut place, &mut gap_to, at)?;
                seen.numbers.push(std::str::from_utf8(&message.envelope.payload)?.parse()?);
            }
            // A resent message that was removed as a duplicate.
            Event::Skipped { room: of, position } if of.as_str() == room => {
                follows(&mut place, &mut gap_to, position)?;
            }
            Event::Gap { room: of, from, to } if of.as_str() == room => {
                seen.declared += to - from;
                seen.restarts += usize::from(from == to);
                gap_to = Some(to);
            }
            _ => {}
        }
    }
    let early = seen.numbers.windows(2).find(|pair| pair[0] > pair[1]);
    ensure!(early.is_none(), "out of order: {early:?}");
    let mut counts = BTreeMap::new();
    for number in &seen.numbers {
        *counts.entry(number).or_insert(0) += 1;
    }
    ensure!(counts.values().all(|count| *count == 1), "delivered twice");
    Ok(seen)
}

/// Positions rise by one, but for what was declared.
fn follows(place: &mut Position, gap_to: &mut Option<u64>, at: Position) -> Result<()> {
    ensure!(at.epoch == place.epoch || gap_to.is_some(), "a new epoch was not declared");
    let expected = gap_to.take().unwrap_or(place.offset + 1);
    ensure!(at.offset == expected, "{at:?} after {place:?}, not {expected}");
    *place = at;
    Ok(())
}

/// A connection for administration.
pub(crate) async fn admin(redis: &str) -> Result<Connection> {
    let host = redis.trim_start_matches("redis://").to_owned();
    let opening = Opening { login: Default::default(), database: 0, name: "admin".into(), timeout: DEADLINE };
    Ok(Connection::open(&host, &opening).await?)
}

pub(crate) async fn ask(connection: &mut Connection, words: &[&str]) -> Result<Value> {
    let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    Ok(connection.call(&words, DEADLINE).await?)
}
