//! A Redis that may keep nothing more.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::{Error, RoomId};

use crate::history::complete;
use crate::node::{Node, ROOM, admin, ask, audit, envelope, servers, stream};
use crate::pauses::Pauses;

/// Who is refused learns why, that it passes, and what helps.
fn says_what_helps(error: &Error) -> Result<()> {
    ensure!(error.is_temporary(), "it may be tried again: {error}");
    ensure!(error.to_string().contains("raise maxmemory"), "it says what helps: {error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_memory_refuses_and_loses_nothing() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    let mut admin = admin(redis).await?;
    ask(&mut admin, &["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    let stream = stream(&a, ROOM, 2_000);
    b.inbox.wait_for(ROOM, 500).await?;
    ask(&mut admin, &["CONFIG", "SET", "maxmemory", "1"]).await?;

    let refused = envelope(ROOM, "2000");
    let (started, pauses) = (Instant::now(), Pauses::watch());
    let error = a.backplane.publish(refused.clone()).await.err().context("it takes more than it may keep")?;
    let (told, allowed) = (started.elapsed(), pauses.allow(Duration::from_secs(1)));
    says_what_helps(&error)?;
    ensure!(told < allowed, "only after {told:?}, {allowed:?} are allowed");
    says_what_helps(&b.backplane.join(&RoomId::new("new")).await.unwrap_err())?;
    let delivered = b.inbox.of(ROOM);
    let since = delivered[delivered.len() - 10].position;
    ensure!(complete(b.resume(ROOM, since, 300).await?)?.len() >= 9, "what is kept can be read");
    ask(&mut admin, &["CONFIG", "SET", "maxmemory", "0"]).await?;

    let acknowledged = stream.await?;
    b.join("new").await?;
    let last = a.backplane.publish(refused).await?;
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
    b.inbox.wait_until("the last message", arrived).await?;
    let seen = audit(&b, ROOM, first)?;
    let mut told: BTreeSet<usize> = acknowledged.into_keys().collect();
    told.insert(2_000);
    ensure!(
        seen.declared == 0 && seen.numbers.iter().copied().collect::<BTreeSet<_>>() == told,
        "those and no others"
    );
    ensure!(b.backplane.stats().reconnects.get() == 0, "no link broke over it");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
