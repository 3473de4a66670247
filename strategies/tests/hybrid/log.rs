//! Kafka fails.

use anyhow::{Result, ensure};

use crate::node::{Node, ROOM, audit, brokers, shutdown, stream};

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
