//! Kafka fails.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_strategies::clients::kafka::{Cluster, Connection, TopicSpec};
use manifold_strategies::{Event, RoomId};
use tokio::time::interval;

use crate::node::{Node, ROOM, audit, brokers, shutdown, start_of, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_messages_flow_on_while_the_log_is_away() -> Result<()> {
    let brokers = brokers()?;
    let kafka = brokers.process("kafka").or_else(|| brokers.process("kafka-1")).expect("it runs").clone();
    // One partition: with more, librdkafka 2.12 may crash while a broker comes back (its issue 5280).
    let nodes = Node::three(&brokers, "publish_timeout_ms = 20000\npartitions = 1").await?;
    let streams = [stream(&nodes[0], 5_000), stream(&nodes[2], 5_000)];
    nodes[1].inbox.wait_for(ROOM, 1_000).await?;
    kafka.kill()?;
    nodes[1].inbox.wait_for(ROOM, nodes[1].inbox.of(ROOM).len() + 1_000).await?;
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
