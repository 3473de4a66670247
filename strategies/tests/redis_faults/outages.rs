//! Servers that die.

use anyhow::{Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::Event;

use crate::node::{Node, ROOM, audit, servers, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back_empty_and_the_room_goes_on() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    let stream = stream(&a, ROOM, 3_000);
    b.inbox.wait_for(ROOM, 500).await?;
    let server = servers.process("redis").expect("it runs").clone();
    tokio::task::spawn_blocking(move || server.restart()).await??;
    b.wait_for_event("the link to be back", |event| *event == Event::Reconnected).await?;
    let acknowledged = stream.await?;
    ensure!(acknowledged.len() == 3_000, "only {} were acknowledged", acknowledged.len());
    b.inbox
        .wait_until("the last message", || b.inbox.texts(ROOM).last().is_some_and(|t| t == "2999"))
        .await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.restarts == 1, "the restart of numbering was told: {seen:?}");
    // Only what was in the dead server's own buffers can be missing.
    ensure!(seen.numbers.len() >= 2_990, "{} delivered", seen.numbers.len());
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_is_followed() -> Result<()> {
    let servers = servers(RedisTopology::Sentinel)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    let stream = stream(&a, ROOM, 6_000);
    b.inbox.wait_for(ROOM, 500).await?;
    servers.process("redis").expect("it runs").kill()?;
    b.wait_for_event("the link to be back", |event| *event == Event::Reconnected).await?;
    let acknowledged = stream.await?;
    ensure!(acknowledged.len() == 6_000, "only {} were acknowledged", acknowledged.len());
    b.inbox
        .wait_until("the last message", || b.inbox.texts(ROOM).last().is_some_and(|t| t == "5999"))
        .await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.numbers.len() + seen.declared as usize >= 5_990, "{} of 6,000", seen.numbers.len());
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
