//! Sentinel makes a replica the master that does not have all that its master had.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use manifold_compose::{Environment, RedisTopology};
use manifold_strategies::Event;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::comeback::{come_back, keep_coming_back};
use crate::node::{
    BOTH, LOG_IS_WELL, Node, ROOM, audit, brokers_with, shutdown, stream_until, until_acknowledged,
};

/// What happens to the master.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It dies.
    Killed,
    /// It stands still, is replaced, and thaws when it is master no more: some may still have links to it.
    Frozen,
}

/// What goes wrong while two streams run: the replica falls behind, and then becomes the master.
async fn fail_over(servers: &Environment, nodes: &[Node], fate: Fate) -> Result<()> {
    let (master, replica) = (servers.process("redis"), servers.process("redis-replica"));
    let (master, replica) = (master.context("it runs")?, replica.context("it runs")?);
    // What the master assigns now, the replica will never know.
    replica.stop()?;
    nodes[1].inbox.wait_for(ROOM, nodes[1].inbox.of(ROOM).len() + 200).await?;
    match fate {
        Fate::Killed => master.kill()?,
        Fate::Frozen => master.stop()?,
    }
    replica.cont()?;
    for node in nodes {
        node.inbox.wait_until("the new master", || node.reconnects() >= 1).await?;
    }
    if let Fate::Frozen = fate {
        master.cont()?;
    }
    Ok(())
}

async fn survives(fate: Fate) -> Result<()> {
    for settings in BOTH {
        let servers = brokers_with(RedisTopology::Sentinel)?;
        let settings = &format!("{settings}\n{LOG_IS_WELL}");
        let nodes = Node::three(&servers, settings).await?;
        let (stop_streams, stopped) = watch::channel(false);
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        nodes[1].inbox.wait_for(ROOM, 500).await?;
        fail_over(&servers, &nodes, fate).await?;
        // Until everybody is back on the live path, and a while longer.
        let renumbered = |node: &Node| {
            let events = node.inbox.all();
            events.iter().any(|event| matches!(event, Event::Renumbered { .. }))
        };
        for node in &nodes {
            node.inbox.wait_until("the new epoch", || renumbered(node)).await?;
        }
        sleep(Duration::from_millis(500)).await;
        stop_streams.send_replace(true);
        let [a, c] = streams;
        let ((a, unsure_a), (c, unsure_c)) = (a.await??, c.await??);
        until_acknowledged(&nodes[0], ROOM).await?;
        let last = |stream: &str, numbers: &[usize]| {
            format!("{stream}:{}", numbers.last().copied().unwrap_or_default())
        };
        let (last_a, last_c) = (last("a", &a), last("c", &c));
        for node in &nodes {
            let arrived = || {
                let texts = node.inbox.texts(ROOM);
                texts.contains(&last_a) && texts.contains(&last_c) && texts.contains(&"again".to_owned())
            };
            node.inbox.wait_until("the last messages", arrived).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        stop.send_replace(true);
        let (meanwhile, other) = (coming_back.await??, come_back(&nodes[1], &nodes[2]).await?);
        let gaps: Vec<usize> = nodes.iter().map(Node::gaps).collect();
        eprintln!(
            "{fate:?}, {settings}: {} and {} acknowledged, {unsure_a} and {unsure_c} not, gaps {gaps:?}, \
             meanwhile {meanwhile:?}, then {other:?}",
            a.len(),
            c.len()
        );
        ensure!(unsure_a + unsure_c == 0, "the log was there all the time");
        ensure!(other.complete + meanwhile.complete > 0, "nobody came back: {other:?}");
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_dies_and_its_replica_knows_less() -> Result<()> {
    survives(Fate::Killed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_freezes_and_thaws_when_it_is_master_no_more() -> Result<()> {
    survives(Fate::Frozen).await
}
