//! Servers that die.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::clients::redis::Connection;
use manifold_strategies::clients::redis::resp::Value;
use manifold_strategies::{Event, Position};
use tokio::time::sleep;

use crate::history::{complete, incomplete};
use crate::node::{DEADLINE, Node, ROOM, admin, ask, audit, envelope, servers, stream};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_comes_back_empty_and_the_room_goes_on() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    // The stream has room for what is missed while a link comes back, however long that takes here.
    let (a, b) = Node::pair_with(redis, "history_messages = 10000").await?;
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
    // Only what was in the dead server's own buffers can be missing: as much as came in one go.
    ensure!(seen.numbers.len() >= 2_900, "{} delivered", seen.numbers.len());
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
    ensure!(seen.numbers.len() + seen.declared as usize >= 5_900, "{} of 6,000", seen.numbers.len());
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

/// Where the sentinels say that the master is.
async fn master_address(redis: &str) -> Result<String> {
    let sentinel = redis.trim_start_matches("redis+sentinel://").split([',', '/']).next().unwrap_or_default();
    let question = ["SENTINEL", "get-master-addr-by-name", "mymaster"];
    let Value::Array(parts) = ask(&mut admin(sentinel).await?, &question).await? else {
        anyhow::bail!("no master");
    };
    let parts: Vec<_> =
        parts.iter().filter_map(Value::text).map(|part| String::from_utf8_lossy(part)).collect();
    Ok(parts.join(":"))
}

/// A connection to the master that the sentinels name.
async fn master(redis: &str) -> Result<Connection> {
    admin(&master_address(redis).await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_forgets_what_was_acknowledged_is_told_to_everybody() -> Result<()> {
    let servers = servers(RedisTopology::Sentinel)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    // In the other room nobody is: nobody compares its top when the links are back.
    for room in [ROOM, "quiet"] {
        a.publish_all(room, 0..10).await?;
    }
    let mut old = master(redis).await?;
    ask(&mut old, &["SET", "marker", "1"]).await?;
    ask(&mut old, &["WAIT", "1", "5000"]).await?;
    let replica = servers.process("redis-replica").expect("it runs");
    replica.stop()?;
    // More than what lies between the two servers holds, so that what follows never reaches the replica.
    let filling: Vec<_> =
        (0..2_500).map(|_| a.backplane.publish(envelope("filling", &"x".repeat(8_000)))).collect();
    for ack in filling {
        ack.await?;
    }
    let lost = a.publish_all("quiet", 10..15).await?;
    a.publish_all(ROOM, 10..15).await?;
    b.inbox.wait_for(ROOM, 15).await?;
    servers.process("redis").expect("it runs").kill()?;
    replica.cont()?;
    b.wait_for_event("the link to be back", |event| *event == Event::Reconnected).await?;

    let kept = ask(&mut master(redis).await?, &["GET", "faults:quiet"]).await?;
    let offset = kept.text().and_then(|head| head.get(8..16)).map(|offset| offset.to_vec());
    ensure!(offset == Some(10_u64.to_be_bytes().to_vec()), "the replica had everything, this proves nothing");
    for since in [lost[4], lost[0], Position { offset: 10, ..lost[0] }, Position { offset: 5, ..lost[0] }] {
        let top = incomplete(b.resume("quiet", since, 300).await?)?;
        ensure!(top.epoch != since.epoch, "{top:?} after {since:?}");
    }
    let later = a.publish_all("quiet", 15..30).await?;
    ensure!(later[0].epoch != lost[0].epoch && later[0].offset == 1, "{:?} after {:?}", later[0], lost[0]);
    ensure!(complete(b.resume("quiet", later[4], 300).await?)?.len() == 10, "what is new is kept");
    incomplete(b.resume("quiet", lost[4], 300).await?)?;
    a.publish_all(ROOM, 15..30).await?;
    b.inbox.wait_for(ROOM, 30).await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(seen.restarts == 1, "members were told that numbering starts anew: {seen:?}");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

/// Waits until a replica has what its master has.
async fn followed(replica: &mut Connection) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let Value::Text(info) = ask(replica, &["INFO", "replication"]).await? else {
            anyhow::bail!("no INFO")
        };
        if String::from_utf8_lossy(&info).contains("master_link_status:up") {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "it does not follow");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The same process is a master, a replica, and a master again: what it holds then is what the other one held.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_comes_back_into_office_is_another_one() -> Result<()> {
    let servers = servers(RedisTopology::Sentinel)?;
    let redis = servers.redis().unwrap_or_default();
    let address = master_address(redis).await?;
    let mut x = admin(&address).await?;
    let Value::Array(role) = ask(&mut x, &["ROLE"]).await? else { anyhow::bail!("no role") };
    let Some(Value::Array(replicas)) = role.get(2) else { anyhow::bail!("no replicas") };
    let Some(Value::Array(replica)) = replicas.first() else { anyhow::bail!("no replica") };
    let place: Vec<_> = replica.iter().filter_map(Value::text).map(|t| String::from_utf8_lossy(t)).collect();
    let (host, port) = (place[0].as_ref(), place[1].as_ref());
    let mut y = admin(&format!("{host}:{port}")).await?;
    // From here on a person decides who is master.
    for sentinel in ["sentinel-1", "sentinel-2", "sentinel-3"] {
        servers.process(sentinel).expect("it runs").kill()?;
    }

    let (a, b) = Node::pair(&format!("redis://{address}")).await?;
    b.join(ROOM).await?;
    let at = a.publish_all("quiet", 0..10).await?;
    ask(&mut x, &["SET", "marker", "1"]).await?;
    ask(&mut x, &["WAIT", "1", "5000"]).await?;
    ask(&mut y, &["REPLICAOF", "NO", "ONE"]).await?;
    // Acknowledged, and not known to the other one.
    let lost = a.publish_all("quiet", 10..15).await?;
    ensure!(lost[4] == Position { offset: 15, ..at[0] }, "{:?}", lost[4]);
    ask(&mut x, &["REPLICAOF", host, port]).await?;
    followed(&mut x).await?;
    ask(&mut x, &["REPLICAOF", "NO", "ONE"]).await?;
    b.wait_for_event("the change to be noticed", |event| *event == Event::Reconnected).await?;
    a.wait_for_event("the change to be noticed", |event| *event == Event::Reconnected).await?;

    let kept = ask(&mut x, &["GET", "faults:quiet"]).await?;
    let offset = kept.text().and_then(|head| head.get(8..16)).map(|offset| offset.to_vec());
    ensure!(offset == Some(10_u64.to_be_bytes().to_vec()), "it kept everything, this proves nothing");
    let later = a.publish_all("quiet", 15..30).await?;
    ensure!(later[0].epoch != at[0].epoch && later[0].offset == 1, "{:?} after {:?}", later[0], lost[4]);
    for since in [at[4], at[9], lost[0], lost[4]] {
        ensure!(incomplete(b.resume("quiet", since, 300).await?)? == later[14], "{since:?}");
    }
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
