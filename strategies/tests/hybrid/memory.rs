//! A Redis that may keep nothing more for a while: it refuses, and no link breaks by itself.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::comeback::{come_back, keep_coming_back};
use crate::node::{
    BOTH, LOG_IS_WELL, Node, REDIS_IS_WELL, ROOM, ask_redis, audit, brokers, shutdown, stream_until,
};

/// How often the memory is full in a test.
const TIMES: usize = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_keep_their_order_while_redis_is_full() -> Result<()> {
    let brokers = brokers()?;
    ask_redis(&brokers, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    for settings in BOTH {
        // Holes have the time that the log takes here.
        let settings = &format!("{settings}\nheal_timeout_ms = 5000\n{LOG_IS_WELL}\n{REDIS_IS_WELL}");
        let nodes = Node::three(&brokers, settings).await?;
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let (stop_streams, stopped) = watch::channel(false);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        for _ in 0..TIMES {
            let positioned =
                || nodes[1].inbox.of(ROOM).last().is_some_and(|message| message.position.offset > 0);
            let unplaced =
                || nodes[1].inbox.of(ROOM).last().is_some_and(|message| message.position.offset == 0);
            nodes[1].inbox.wait_until("the live path", positioned).await?;
            ask_redis(&brokers, &["CONFIG", "SET", "maxmemory", "1"]).await?;
            nodes[1].inbox.wait_until("messages by the log alone", unplaced).await?;
            // Part of the fault.
            sleep(Duration::from_millis(700)).await;
            ask_redis(&brokers, &["CONFIG", "SET", "maxmemory", "0"]).await?;
            nodes[1].inbox.wait_until("the live path again", positioned).await?;
        }
        stop_streams.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        ensure!(
            refused_a + refused_c == 0,
            "{settings}: the log takes everything, but {refused_a} and {refused_c}"
        );
        for node in &nodes {
            node.wait_for_last(&["a"], a.len()).await?;
            node.wait_for_last(&["c"], c.len()).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
            ensure!(node.gap_messages() == 0, "{settings}: {} declared lost", node.gap_messages());
        }
        stop.send_replace(true);
        let (meanwhile, other) = (coming_back.await??, come_back(&nodes[1], &nodes[2]).await?);
        eprintln!("{settings}: {} and {}, meanwhile {meanwhile:?}, then {other:?}", a.len(), c.len());
        shutdown(nodes).await?;
    }
    Ok(())
}
