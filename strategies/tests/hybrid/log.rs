//! Kafka fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_strategies::clients::kafka::{Cluster, Connection, TopicSpec};
use manifold_strategies::{ErrorKind, Event, RoomId};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

use crate::comeback::{come_back, keep_coming_back};
use crate::node::{
    BOTH, DEADLINE, Node, REDIS_IS_WELL, ROOM, audit, brokers, envelope, shutdown, start_of, stream,
    stream_until, until_acknowledged,
};
use crate::pauses::Pauses;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_flow_on_while_the_log_is_away() -> Result<()> {
    let brokers = brokers()?;
    let kafka = brokers.process("kafka").or_else(|| brokers.process("kafka-1")).expect("it runs").clone();
    // One partition: with more, librdkafka 2.12 may crash while a broker comes back (its issue 5280).
    let settings =
        format!("publish_timeout_ms = 60000\nheal_timeout_ms = 10000\npartitions = 1\n{REDIS_IS_WELL}");
    let nodes = Node::three(&brokers, &settings).await?;
    let streams = [stream(&nodes[0], 5_000), stream(&nodes[2], 5_000)];
    nodes[1].inbox.wait_for(ROOM, 1_000).await?;
    kafka.kill()?;
    nodes[1].inbox.wait_for(ROOM, (nodes[1].inbox.of(ROOM).len() + 1_000).min(10_000)).await?;
    tokio::task::spawn_blocking(move || kafka.restart()).await??;
    let [a, c] = streams;
    let (a, c) = (a.await?, c.await?);
    ensure!(a.len() == 5_000 && c.len() == 5_000, "{} and {} acknowledged", a.len(), c.len());
    for node in &nodes {
        node.wait_for_last(&["a", "c"], 5_000).await?;
        audit(node, "a", &a)?;
        audit(node, "c", &c)?;
        ensure!(node.gap_messages() == 0, "{} declared lost", node.gap_messages());
    }
    shutdown(nodes).await
}

/// What happens to Kafka, for longer than a publish may wait.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Killed,
    Frozen,
}

async fn members_come_back_across(fate: Fate) -> Result<()> {
    for first in BOTH {
        let brokers = brokers()?;
        let kafka = brokers.process("kafka").or_else(|| brokers.process("kafka-1")).expect("it runs").clone();
        // The stream tells what was shown and then refused. However slow the machine, what the log has is read.
        let settings = format!(
            "{first}\npartitions = 1\npublish_timeout_ms = 1500\nhistory_messages = 10000\n\
             history_scan_ms_max = 8000\n{REDIS_IS_WELL}"
        );
        let nodes = Node::three(&brokers, &settings).await?;
        let (stop_streams, stopped) = watch::channel(false);
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        nodes[1].inbox.wait_for(ROOM, 300).await?;
        match fate {
            Fate::Killed => kafka.kill()?,
            Fate::Frozen => kafka.stop()?,
        }
        // Part of the fault.
        sleep(Duration::from_millis(3_000)).await;
        match fate {
            Fate::Killed => tokio::task::spawn_blocking(move || kafka.restart()).await??,
            Fate::Frozen => kafka.cont()?,
        }
        until_acknowledged(&nodes[0], "another").await?;
        // A third of those that come back below went after it was over, however long that took.
        let before = nodes[1].inbox.of(ROOM).len();
        nodes[1].inbox.wait_for(ROOM, before + before / 2).await?;
        stop_streams.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        let last =
            |name: &str, numbers: &[usize]| format!("{name}:{}", numbers.last().copied().unwrap_or_default());
        let (last_a, last_c) = (last("a", &a), last("c", &c));
        for node in &nodes {
            let arrived = || {
                let texts = node.inbox.texts(ROOM);
                texts.contains(&last_a) && texts.contains(&last_c)
            };
            node.inbox.wait_until("the last messages", arrived).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        stop.send_replace(true);
        let (meanwhile, other) = (coming_back.await??, come_back(&nodes[1], &nodes[2]).await?);
        eprintln!(
            "{fate:?}, {first}: {} and {} acknowledged, {refused_a} and {refused_c} refused, \
             meanwhile {meanwhile:?}, then {other:?}",
            a.len(),
            c.len()
        );
        ensure!(other.complete >= 10, "hardly anybody came back: {other:?}");
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_back_across_a_killed_log() -> Result<()> {
    members_come_back_across(Fate::Killed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_come_back_across_a_frozen_log() -> Result<()> {
    members_come_back_across(Fate::Frozen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_log_is_declared_within_two_seconds_and_messages_flow_on() -> Result<()> {
    let brokers = brokers()?;
    let kafka = brokers.process("kafka").or_else(|| brokers.process("kafka-1")).expect("it runs").clone();
    let settings = &format!("partitions = 1\npublish_timeout_ms = 60000\n{REDIS_IS_WELL}");
    let (a, b) = (Node::start("a", &brokers, settings).await?, Node::start("b", &brokers, settings).await?);
    b.backplane.join(&RoomId::new(ROOM)).await?;
    a.publish(ROOM, "before").await?;
    kafka.stop()?;
    let (frozen, pauses) = (Instant::now(), Pauses::watch());
    let error = a.backplane.publish(envelope(ROOM, "meanwhile")).await.err().context("nobody keeps it")?;
    let (told, allowed) = (frozen.elapsed(), pauses.allow(Duration::from_secs(2)));
    ensure!(told < allowed, "told after {told:?}, {allowed:?} are allowed");
    ensure!(error.is_temporary() && error.kind() == ErrorKind::Timeout, "nobody knows yet: {error}");
    let links_down = || a.backplane.stats().links_down.get();
    ensure!(links_down() >= 1, "{} links count as down", links_down());
    b.inbox.wait_until("what was shown", || b.inbox.texts(ROOM).contains(&"meanwhile".to_owned())).await?;
    kafka.cont()?;
    until_acknowledged(&a, ROOM).await?;
    a.publish(ROOM, "after").await?;
    b.inbox.wait_until("the last message", || b.inbox.texts(ROOM).contains(&"after".to_owned())).await?;
    let shown = b.inbox.texts(ROOM).iter().filter(|text| *text == "meanwhile").count();
    ensure!(shown == 1, "shown {shown} times");
    let (deadline, mut pace) = (Instant::now() + DEADLINE, interval(Duration::from_millis(10)));
    while links_down() > 0 {
        ensure!(Instant::now() < deadline, "{} links still count as down", links_down());
        pace.tick().await;
    }
    shutdown(vec![a, b]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_created_anew_is_read_on() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs").clone();
    let settings = "partitions = 1";
    let (a, b) = (Node::start("a", &brokers, settings).await?, Node::start("b", &brokers, settings).await?);
    b.backplane.join(&RoomId::new(ROOM)).await?;
    for number in 0..200 {
        a.publish(ROOM, &number.to_string()).await?;
    }
    b.inbox.wait_for(ROOM, 200).await?;
    let start = start_of("admin", &brokers, settings, &b.inbox)?;
    let cluster = Cluster::connect(Connection::new(&start, Default::default())?, None).await?;
    let topic = format!("{}.hybrid", start.namespace);
    cluster.delete_topic(&topic).await?;
    let spec = TopicSpec { name: topic, partitions: 1, replication: None, config: Vec::new() };
    let mut pace = interval(Duration::from_millis(50));
    while cluster.ensure_topic(&spec).await.is_err() {
        // The old one is still being deleted.
        pace.tick().await;
    }
    b.inbox
        .wait_until("the declaration", || b.inbox.all().iter().any(|e| matches!(e, Event::Gap { .. })))
        .await?;
    redis.kill()?;
    // Only the log carries it now.
    let mut sent = a.publish(ROOM, "by the log").await;
    for _ in 0..20 {
        if sent.is_ok() {
            break;
        }
        sent = a.publish(ROOM, "by the log").await;
    }
    sent.context("the log takes messages again")?;
    b.inbox
        .wait_until("a message by the log", || b.inbox.texts(ROOM).contains(&"by the log".to_owned()))
        .await?;
    shutdown(vec![a, b]).await
}
