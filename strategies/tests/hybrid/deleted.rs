//! Somebody deletes the log's topic while it is in use.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_strategies::clients::kafka::{Cluster, Connection};
use manifold_strategies::{Event, PageQuery, Position, Resumed, RoomId};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use crate::node::{
    BOTH, DEADLINE, Node, REDIS_IS_WELL, ROOM, audit, brokers, envelope, shutdown, start_of, stream_until,
    until_acknowledged,
};
use crate::pauses::Pauses;

/// How long a namespace may be without service.
const AWAY_MAX: Duration = Duration::from_secs(15);

impl Node {
    async fn comes_back(&self, since: Position) -> Result<Resumed> {
        let history = self.backplane.history().context("history")?;
        Ok(history.resume(&RoomId::new(ROOM), since, 10_000).await?)
    }

    /// Comes back until there is an answer: the log may be on its way.
    async fn comes_back_in_the_end(&self, since: Position) -> Result<Resumed> {
        let until = Instant::now() + DEADLINE;
        let mut pace = interval(Duration::from_millis(50));
        loop {
            match self.comes_back(since).await {
                Err(error) => ensure!(Instant::now() < until, "{error}"),
                resumed => return resumed,
            }
            pace.tick().await;
        }
    }
}

/// Nothing is claimed about what the old topic held, by nobody.
async fn is_told_of_a_loss(node: &Node, since: Position) -> Result<()> {
    for since in [since, Position { offset: 0, ..since }] {
        let resumed = node.comes_back_in_the_end(since).await?;
        ensure!(
            matches!(resumed, Resumed::Incomplete { .. }),
            "{} claims to be whole since {since:?}: {resumed:?}",
            node.name
        );
    }
    Ok(())
}

/// Members recover again as soon as the new topic reaches back far enough.
async fn recovers_in_the_end(from: &Node, to: &Node) -> Result<()> {
    let until = Instant::now() + 2 * DEADLINE;
    let mut pace = interval(Duration::from_millis(200));
    loop {
        pace.tick().await;
        let since = from.backplane.publish(envelope(ROOM, "seen")).await?;
        let missed = from.backplane.publish(envelope(ROOM, "missed")).await?;
        match to.comes_back_in_the_end(since).await? {
            Resumed::Complete { messages, top } => {
                let positions: Vec<Position> = messages.iter().map(|message| message.position).collect();
                ensure!(positions == [missed] && top == missed, "{positions:?}, {top:?}");
                return Ok(());
            }
            Resumed::Incomplete { .. } => ensure!(Instant::now() < until, "nobody recovers any more"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_deleted_while_messages_flow_is_made_anew() -> Result<()> {
    for first in BOTH {
        let brokers = brokers()?;
        let settings = format!(
            "{first}\npartitions = 2\npublish_timeout_ms = 5000\nhistory_messages = 10000\n{REDIS_IS_WELL}"
        );
        let nodes = Node::three(&brokers, &settings).await?;
        let (stop, stopped) = watch::channel(false);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        nodes[1].inbox.wait_for(ROOM, 300).await?;
        let since = nodes[1].inbox.of(ROOM).last().context("a message")?.position;

        let start = start_of("admin", &brokers, &settings, &nodes[1].inbox)?;
        let cluster = Cluster::connect(Connection::new(&start, Default::default())?, None).await?;
        cluster.delete_topic(&format!("{}.hybrid", start.namespace)).await?;
        let (deleted, pauses) = (Instant::now(), Pauses::watch());
        for node in &nodes {
            let declared = || {
                let room = |event: &Event| matches!(event, Event::Gap { room, .. } if room.as_str() == ROOM);
                node.inbox.all().iter().any(room)
            };
            node.inbox.wait_until("the declaration", declared).await?;
            until_acknowledged(node, ROOM).await?;
        }
        let away = deleted.elapsed();
        eprintln!("{first}: every node declared the loss and publishes again {away:.2?} after the deletion");
        let allowed = pauses.allow(AWAY_MAX);
        ensure!(away < allowed, "{first}: {away:?}, {allowed:?} are allowed");
        let fresh = Node::start("fresh", &brokers, &settings).await?;
        for node in nodes.iter().chain([&fresh]) {
            is_told_of_a_loss(node, since).await?;
        }
        stop.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        eprintln!("{first}: {} and {} acknowledged, {refused_a} and {refused_c} refused", a.len(), c.len());
        let (last_a, last_c) = (a.last().context("acknowledged")?, c.last().context("acknowledged")?);
        for node in &nodes {
            let arrived = || {
                let texts = node.inbox.texts(ROOM);
                texts.contains(&format!("a:{last_a}")) && texts.contains(&format!("c:{last_c}"))
            };
            node.inbox.wait_until("the last messages", arrived).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        for to in [&nodes[1], &fresh] {
            recovers_in_the_end(&nodes[0], to).await?;
        }
        fresh.backplane.shutdown().await?;
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_nobody_writes_to_is_made_anew_as_well() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs").clone();
    let nodes = Node::three(&brokers, "partitions = 2\npublish_timeout_ms = 2000").await?;
    let start = start_of("admin", &brokers, "", &nodes[1].inbox)?;
    let cluster = Cluster::connect(Connection::new(&start, Default::default())?, None).await?;
    for round in 1..=2_usize {
        cluster.delete_topic(&format!("{}.hybrid", start.namespace)).await?;
        for node in &nodes {
            node.inbox.wait_until("the declaration", || node.gaps() >= round).await?;
        }
        until_acknowledged(&nodes[0], ROOM).await?;
    }
    // Only the log carries it now, on every node.
    redis.kill()?;
    until_acknowledged(&nodes[0], ROOM).await?;
    nodes[0].publish(ROOM, "by the log").await?;
    for node in &nodes {
        let arrived = || node.inbox.texts(ROOM).contains(&"by the log".to_owned());
        node.inbox.wait_until("a message by the log", arrived).await?;
    }
    let page = PageQuery { since: None, limit: 10, reverse: true };
    let page = nodes[2].backplane.history().context("history")?.page(&RoomId::new(ROOM), page).await?;
    let newest = page.messages.first().context("a page out of the new topic")?;
    ensure!(newest.envelope.payload == "by the log", "{newest:?}");
    shutdown(nodes).await
}
