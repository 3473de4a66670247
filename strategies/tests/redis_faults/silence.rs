//! Faults that a careless node would not notice.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::{Error, ErrorKind, Event, Position};

use crate::node::{
    DEADLINE, FREEZES, Node, ROOM, admin, ask, audit, envelope, servers, stream, until_acknowledged,
};
use crate::pauses::Pauses;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_subscription_loses_nothing_in_silence() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    // The stream has room for what is missed while the link comes back, however long that takes here.
    let (a, b) = Node::pair_with(redis, "history_messages = 10000").await?;
    let first = b.join(ROOM).await?;
    let mut admin = admin(redis).await?;
    let stream = stream(&a, ROOM, 2_000);
    for kill in 1..=5 {
        b.inbox.wait_for(ROOM, kill * 200).await?;
        ask(&mut admin, &["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
        let back = |count| {
            move |events: &[Event]| events.iter().filter(|e| **e == Event::Reconnected).count() >= count
        };
        b.inbox.wait_until("the link to be back", || back(kill)(&b.inbox.all())).await?;
    }
    let acknowledged = stream.await?;
    ensure!(acknowledged.len() == 2_000, "only {} were acknowledged", acknowledged.len());
    b.inbox
        .wait_until("the last message", || b.inbox.texts(ROOM).last().is_some_and(|t| t == "1999"))
        .await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.numbers.len() == 2_000, "{} delivered + {} declared", seen.numbers.len(), seen.declared);
    let stats = b.backplane.stats();
    ensure!(
        stats.gaps.get() == 0 && stats.gaps_repaired.get() >= 1,
        "the stream had what was lost: {stats:?}"
    );
    ensure!(b.backplane.stats().reconnects.get() == 5, "every interruption is counted");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_publishing_link_costs_nothing() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    let mut admin = admin(redis).await?;
    let stream = stream(&a, ROOM, 1_000);
    for kill in 1..=3 {
        b.inbox.wait_for(ROOM, kill * 200).await?;
        ask(&mut admin, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
    }
    ensure!(stream.await?.len() == 1_000, "every publish was acknowledged");
    b.inbox.wait_for(ROOM, 1_000).await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.numbers.len() == 1_000 && seen.declared == 0, "{seen:?}");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_last_message_is_noticed() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let b = Node::start("b", redis, "heartbeat_ms = 100").await?;
    b.join(ROOM).await?;
    let position = b.publish(ROOM, "0").await?;
    b.inbox.wait_for(ROOM, 1).await?;
    // A message that Redis numbered and nobody received.
    let mut admin = admin(redis).await?;
    let script = "local head = redis.call('GET', KEYS[1]) \
                  redis.call('SET', KEYS[1], string.sub(head, 1, 8) .. struct.pack('>I8', 3) \
                  .. string.sub(head, 17)) return 'OK'";
    ask(&mut admin, &["EVAL", script, "1", &format!("faults:{ROOM}")]).await?;
    let (started, pauses) = (Instant::now(), Pauses::watch());
    b.wait_for_event("a gap", |event| matches!(event, Event::Gap { from: 2, to: 4, .. })).await?;
    let (noticed, allowed) = (started.elapsed(), pauses.allow(Duration::from_secs(2)));
    ensure!(noticed < allowed, "noticed only after {noticed:?}, {allowed:?} are allowed");
    // Redis forgets the room: numbering starts anew, and that is told before the next message.
    ask(&mut admin, &["DEL", &format!("faults:{ROOM}")]).await?;
    b.wait_for_event("a restart", |event| matches!(event, Event::Gap { from: 1, to: 1, .. })).await?;
    let after = b.publish(ROOM, "1").await?;
    ensure!(after.epoch != position.epoch && after.offset == 1, "{after:?} after {position:?}");
    ensure!(b.backplane.stats().gap_messages.get() == 2, "two messages were lost");
    Ok(b.backplane.shutdown().await?)
}

/// As after a failover to a replica that lagged, before anybody has compared tops.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_come_again_are_no_numbers_seen_before() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let b = Node::start("b", redis, "heartbeat_ms = 60000").await?;
    b.join(ROOM).await?;
    for text in ["0", "1", "2"] {
        b.publish(ROOM, text).await?;
    }
    b.inbox.wait_for(ROOM, 3).await?;
    let script = "local head = redis.call('GET', KEYS[1]) \
                  redis.call('SET', KEYS[1], string.sub(head, 1, 8) .. struct.pack('>I8', 1) \
                  .. string.sub(head, 17)) return 'OK'";
    ask(&mut admin(redis).await?, &["EVAL", script, "1", &format!("faults:{ROOM}")]).await?;
    let again = b.publish(ROOM, "3").await?;
    ensure!(again.offset == 2, "numbering went back: {again:?}");
    b.publish(ROOM, "4").await?;
    b.inbox.wait_for(ROOM, 5).await?;
    let at: Vec<Position> = b.inbox.of(ROOM).iter().map(|message| message.position).collect();
    ensure!(at[3].epoch != at[2].epoch && at[3].offset == 1, "{:?} after {:?}", at[3], at[2]);
    ensure!(at[4] == Position { offset: 2, ..at[3] }, "{:?} after {:?}", at[4], at[3]);
    let told = |event: &&Event| matches!(event, Event::Gap { from: 1, to: 1, .. });
    ensure!(b.inbox.all().iter().filter(told).count() == 1, "the restart was told once");
    Ok(b.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_server_loses_nothing() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair_with(redis, &format!("history_messages = 10000\n{FREEZES}")).await?;
    let first = b.join(ROOM).await?;
    let server = servers.process("redis").expect("it runs");
    let stream = stream(&a, ROOM, 4_000);
    b.inbox.wait_for(ROOM, 300).await?;
    server.stop()?;
    // Long enough for both halves of both nodes to suspect it.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.cont()?;
    let acknowledged = stream.await?;
    // What nobody waited for any longer was refused, and may have been delivered all the same. After the thaw one is taken.
    let (last, at) = until_acknowledged(&a, ROOM, 4_000).await?;
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == at);
    b.inbox.wait_until("the last message", arrived).await?;
    let seen = audit(&b, ROOM, first)?;
    let arrived: HashSet<usize> = seen.numbers.iter().copied().collect();
    ensure!(arrived.contains(&last), "{last} was taken after the thaw");
    let lost: Vec<_> = acknowledged.keys().filter(|number| !arrived.contains(number)).collect();
    ensure!(lost.is_empty() && seen.declared == 0, "{lost:?} lost, {} declared", seen.declared);
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_is_noticed_in_time_and_what_was_refused_is_unknown_but_once() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let a = Node::start("a", redis, &format!("publish_timeout_ms = 60000\n{FREEZES}")).await?;
    let b = Node::start("b", redis, FREEZES).await?;
    let first = b.join(ROOM).await?;
    let server = servers.process("redis").expect("it runs");
    server.stop()?;
    let (frozen, pauses) = (Instant::now(), Pauses::watch());
    // Both halves of the node that publishes, and a node that only waits.
    let message = envelope(ROOM, "0");
    let publish = a.backplane.publish(message.clone());
    let down = |node: &Node| node.backplane.stats().links_down.get();
    while down(&a) < 2 || down(&b) < 1 {
        ensure!(
            frozen.elapsed() < pauses.allow(Duration::from_secs(2)),
            "{} and {} links count as down",
            down(&a),
            down(&b)
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = publish.await.unwrap_err();
    let (told, allowed) = (frozen.elapsed(), pauses.allow(Duration::from_secs(2)));
    ensure!(told < allowed, "told after {told:?}, {allowed:?} are allowed");
    ensure!(error.is_temporary() && error.kind() == ErrorKind::Timeout, "nobody knows yet: {error}");
    // From now on nobody waits.
    let asked = Instant::now();
    let error = a.publish(ROOM, "not sent").await.unwrap_err().downcast::<Error>()?;
    let (told, allowed) = (asked.elapsed(), pauses.allow(Duration::from_secs(1)));
    ensure!(error.is_temporary() && error.kind() == ErrorKind::Unreachable, "it was not sent: {error}");
    ensure!(told < allowed, "told after {told:?}, {allowed:?} are allowed");
    server.cont()?;
    // Refused for a moment yet, until the server was heard.
    let deadline = Instant::now() + DEADLINE;
    let position = loop {
        match a.backplane.publish(message.clone()).await {
            Ok(position) => break position,
            Err(error) => ensure!(Instant::now() < deadline && error.is_temporary(), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    b.inbox.wait_for(ROOM, 1).await?;
    let last = a.publish(ROOM, "1").await?;
    ensure!(last.offset == position.offset + 1, "the repeat created nothing: {last:?} after {position:?}");
    b.inbox.wait_for(ROOM, 2).await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.numbers == [0, 1] && seen.declared == 0, "{seen:?}");
    let deadline = Instant::now() + DEADLINE;
    while down(&a) + down(&b) > 0 {
        ensure!(Instant::now() < deadline, "{} and {} links still count as down", down(&a), down(&b));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_a_dead_server_is_told() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let settings = "queue_messages_max = 10\npublish_timeout_ms = 2000";
    let a = Node::start("a", redis, settings).await?;
    servers.process("redis").expect("it runs").kill()?;
    let waiting: Vec<_> = (0..10).map(|_| a.backplane.publish(envelope(ROOM, "x"))).collect();
    let (started, pauses) = (Instant::now(), Pauses::watch());
    let refused = a.backplane.publish(envelope(ROOM, "x")).await.unwrap_err();
    let (told, allowed) = (started.elapsed(), pauses.allow(Duration::from_millis(100)));
    ensure!(refused.kind() == ErrorKind::Overloaded, "{refused}");
    ensure!(told < allowed, "it was not at once: {told:?}, {allowed:?} are allowed");
    for publish in waiting {
        let error = publish.await.unwrap_err();
        ensure!(matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Timeout), "{error}");
        ensure!(error.is_temporary(), "it may be tried again");
    }
    let error = a.join(ROOM).await.unwrap_err();
    ensure!(error.to_string().contains("no link to Redis"), "{error}");
    ensure!(started.elapsed() < DEADLINE, "the bounds hold");
    Ok(a.backplane.shutdown().await?)
}
