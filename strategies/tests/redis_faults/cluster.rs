//! A cluster whose slots move and whose masters die.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::clients::redis::Connection;
use manifold_strategies::clients::redis::resp::Value;
use manifold_strategies::clients::redis::topology::slot;
use manifold_strategies::{Position, RoomId};
use tokio::time::interval;

use crate::history::{complete, incomplete};
use crate::node::{DEADLINE, Node, ROOM, admin, ask, audit, envelope, servers, stream, until_acknowledged};
use crate::pauses::Pauses;

struct Master {
    host: String,
    id: String,
    connection: Connection,
}

/// The masters, the owner of `slot` first.
async fn masters(redis: &str, slot: u16) -> Result<Vec<Master>> {
    let seed = redis.trim_start_matches("redis+cluster://").split(',').next().context("a host")?;
    let Value::Array(ranges) = ask(&mut admin(seed).await?, &["CLUSTER", "SLOTS"]).await? else {
        anyhow::bail!("no slots");
    };
    let mut masters = Vec::new();
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Integer(first), Value::Integer(last), Value::Array(master), ..] = &range[..] else {
            continue;
        };
        let [Value::Text(ip), Value::Integer(port), Value::Text(id), ..] = &master[..] else { continue };
        let host = format!("{}:{port}", String::from_utf8_lossy(ip));
        let connection = admin(&host).await?;
        let master = Master { host, id: String::from_utf8_lossy(id).into_owned(), connection };
        match (*first..=*last).contains(&i64::from(slot)) {
            true => masters.insert(0, master),
            false => masters.push(master),
        }
    }
    Ok(masters)
}

async fn masters_host(redis: &str, slot: u16) -> Result<String> {
    Ok(masters(redis, slot).await?.swap_remove(0).host)
}

/// Sets the slot on its way.
async fn begin_moving(from: &mut Master, to: &mut Master, number: &str) -> Result<()> {
    ask(&mut to.connection, &["CLUSTER", "SETSLOT", number, "IMPORTING", &from.id]).await?;
    ask(&mut from.connection, &["CLUSTER", "SETSLOT", number, "MIGRATING", &to.id]).await?;
    Ok(())
}

/// Moves all keys of a slot that is on its way, at once; how many.
async fn move_keys(from: &mut Master, to: &Master, number: &str) -> Result<usize> {
    let (ip, port) = to.host.rsplit_once(':').context("a port")?;
    let keys = keys_in_slot(&mut from.connection, number).await?;
    let mut migrate: Vec<&[u8]> = ["MIGRATE", ip, port, "", "0", "5000", "KEYS"].map(str::as_bytes).to_vec();
    migrate.extend(keys.iter().map(|key| &key[..]));
    from.connection.call(&migrate, DEADLINE).await?;
    Ok(keys.len())
}

/// The slot has arrived.
async fn finish_moving(from: &mut Master, to: &mut Master, number: &str) -> Result<()> {
    for master in [&mut to.connection, &mut from.connection] {
        ask(master, &["CLUSTER", "SETSLOT", number, "NODE", &to.id]).await?;
    }
    Ok(())
}

async fn keys_in_slot(master: &mut Connection, number: &str) -> Result<Vec<bytes::Bytes>> {
    let Value::Array(keys) = ask(master, &["CLUSTER", "GETKEYSINSLOT", number, "1000000"]).await? else {
        anyhow::bail!("no keys");
    };
    Ok(keys.iter().filter_map(Value::text).cloned().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_while_messages_flow() -> Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let first = b.join(ROOM).await?;
    b.join("another room").await?;
    let stream = stream(&a, ROOM, 3_000);
    b.inbox.wait_for(ROOM, 500).await?;

    let key = format!("faults:{ROOM}");
    let number = slot(key.as_bytes());
    let mut masters = masters(redis, number).await?;
    let number = number.to_string();
    let (from, rest) = masters.split_at_mut(1);
    let (from, to) = (&mut from[0], &mut rest[0]);
    begin_moving(from, to, &number).await?;
    let keys = move_keys(from, to, &number).await?;
    ensure!(keys > 2, "the head, the history and message ids are in one slot, not {keys}");
    finish_moving(from, to, &number).await?;

    // Those that met the slot on its way were refused.
    let mut acknowledged = stream.await?;
    let (number, last) = until_acknowledged(&a, ROOM, 3_000).await?;
    acknowledged.insert(number, last);
    let arrived = || b.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
    b.inbox.wait_until("the last message", arrived).await?;
    let seen = audit(&b, ROOM, first)?;
    ensure!(
        seen.numbers.len() as u64 + seen.declared >= acknowledged.len() as u64,
        "{} delivered, {} declared",
        seen.numbers.len(),
        seen.declared
    );
    b.publish("another room", "0").await?;
    b.inbox.wait_for("another room", 1).await?;
    // History goes on where the slot is now.
    let before_last = Position { offset: last.offset - 1, ..last };
    ensure!(
        complete(b.resume(ROOM, before_last, 300).await?)? == [number.to_string()],
        "the new owner has it"
    );
    ensure!(
        incomplete(b.resume(ROOM, first, 300).await?)? == last,
        "nobody was told that nothing is missing"
    );
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

/// How a reshard looks that takes long, or that was broken off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_stays_on_its_way_holds_up_nobody_else() -> Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let redis = servers.redis().unwrap_or_default();
    // So patient that what is slow is not taken for broken.
    let (a, b) = Node::pair_with(redis, "publish_timeout_ms = 60000").await?;
    let pauses = Pauses::watch();
    // Braces put them into one slot.
    let (moved, new) = ("{moved}", "{moved} new");
    let number = slot(format!("faults:{moved}").as_bytes());
    let mut masters = masters(redis, number).await?;
    let mut beside = None;
    for name in (0..100).map(|number| format!("room {number}")) {
        let slot = slot(format!("faults:{name}").as_bytes());
        if slot != number && masters_host(redis, slot).await? == masters[0].host {
            beside = Some(name);
            break;
        }
    }
    let beside = beside.context("a room of the same master")?;
    let first = b.join(moved).await?;
    let first_beside = b.join(&beside).await?;
    a.publish(moved, "0").await?;
    let (from, rest) = masters.split_at_mut(1);
    let (from, to, number) = (&mut from[0], &mut rest[0], number.to_string());
    begin_moving(from, to, &number).await?;

    let joins = b.backplane.join(&RoomId::new(new));
    let (mut pace, until) = (interval(Duration::from_millis(5)), Instant::now() + Duration::from_secs(2));
    let (mut slowest, mut published) = (Duration::ZERO, 0);
    while Instant::now() < until || published < 200 {
        pace.tick().await;
        if published == 100 {
            // First the new message's id is all that is not there, then everything else is not.
            move_keys(from, to, &number).await?;
        }
        let refused = a.backplane.publish(envelope(moved, "1"));
        let asked = Instant::now();
        a.publish(&beside, &published.to_string()).await?;
        published += 1;
        let error = refused.await.err().context("its keys are not together")?;
        slowest = slowest.max(asked.elapsed());
        ensure!(error.is_temporary(), "it may be tried again: {error}");
    }
    let allowed = pauses.allow(Duration::from_secs(2));
    ensure!(slowest < allowed, "one of {published} took {slowest:?}, {allowed:?} are allowed");
    for node in [&a, &b] {
        ensure!(node.backplane.stats().reconnects.get() == 0, "no link broke over it");
    }
    finish_moving(from, to, &number).await?;
    joins.await.context("it waits for as long as a publish would")?;
    a.publish(new, "0").await?;
    a.publish(moved, "2").await?;
    b.inbox.wait_for(new, 1).await?;
    b.inbox.wait_for(moved, 2).await?;
    let (seen, seen_beside) = (audit(&b, moved, first)?, audit(&b, &beside, first_beside)?);
    ensure!(seen.numbers == [0, 2] && seen.declared == 0, "{seen:?}");
    ensure!(seen_beside.numbers.len() == published && seen_beside.declared == 0, "{seen_beside:?}");
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_lies_beside_its_room_whatever_its_name() -> Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let (a, b) = Node::pair(servers.redis().unwrap_or_default()).await?;
    let names = ["{", "}", "{}", "}{", "a{b}c", "{}{b}", "{{b}}", "a}b", "{b", "b}", "{b}", "ä{ö}ü"];
    let mut rooms = names.map(String::from).to_vec();
    rooms.extend((0..50).map(|number| format!("room {number}")));
    for room in &rooms {
        let at = a.publish_all(room, 0..3).await.with_context(|| format!("publishing to {room:?}"))?;
        let got = b.resume(room, at[0], 300).await.with_context(|| format!("resuming {room:?}"))?;
        ensure!(complete(got)? == ["1", "2"], "{room:?}");
    }
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_master_does_not_stop_the_others() -> Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    let rooms: Vec<String> = (0..30).map(|number| format!("room {number}")).collect();
    for room in &rooms {
        b.join(room).await?;
    }
    let victim = servers.process("redis-1").expect("it runs").clone();
    let port = redis.trim_start_matches("redis+cluster://").split([':', ',']).nth(1).context("a port")?;
    let owned = |masters: &[Master]| masters[0].host.ends_with(&format!(":{port}"));
    let mut others = Vec::new();
    for room in &rooms {
        if !owned(&masters(redis, slot(format!("faults:{room}").as_bytes())).await?) {
            others.push(room);
        }
    }
    ensure!((1..30).contains(&others.len()), "the rooms are spread");
    victim.kill()?;
    for room in &others {
        a.publish(room, "0").await?;
        b.inbox.wait_for(room, 1).await?;
    }
    tokio::task::spawn_blocking(move || victim.restart()).await??;
    for room in &rooms {
        a.publish(room, "1").await.with_context(|| format!("publishing to {room:?}"))?;
        b.inbox.wait_until("all", || b.inbox.texts(room).last().is_some_and(|text| text == "1")).await?;
    }
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_without_slots_is_let_go() -> Result<()> {
    let servers = servers(RedisTopology::Cluster)?;
    let redis = servers.redis().unwrap_or_default();
    let (a, b) = Node::pair(redis).await?;
    b.join(ROOM).await?;
    a.publish(ROOM, "0").await?;
    b.inbox.wait_for(ROOM, 1).await?;

    // The room's own master leaves the cluster: another one gets all that it had.
    let mut masters = masters(redis, slot(format!("faults:{ROOM}").as_bytes())).await?;
    let slots = ask(&mut masters[0].connection, &["CLUSTER", "SLOTS"]).await?;
    let Value::Array(ranges) = slots else { anyhow::bail!("no slots") };
    for range in ranges {
        let Value::Array(range) = range else { continue };
        let [Value::Integer(first), Value::Integer(last), Value::Array(master), ..] = &range[..] else {
            continue;
        };
        if !matches!(master.get(2), Some(Value::Text(id)) if id[..] == *masters[0].id.as_bytes()) {
            continue;
        }
        let (first, last) = (first.to_string(), last.to_string());
        for master in &mut masters {
            ask(&mut master.connection, &["CLUSTER", "DELSLOTSRANGE", &first, &last]).await?;
        }
        ask(&mut masters[1].connection, &["CLUSTER", "ADDSLOTSRANGE", &first, &last]).await?;
    }

    let deadline = Instant::now() + DEADLINE;
    loop {
        // What makes a lane notice is a publish or a lost subscription.
        if let Err(error) = a.backplane.publish(envelope(ROOM, "1")).await {
            ensure!(error.is_temporary(), "{error}");
        }
        let Value::Text(clients) = ask(&mut masters[0].connection, &["CLIENT", "LIST"]).await? else {
            anyhow::bail!("no clients");
        };
        if !String::from_utf8_lossy(&clients).contains("name=manifold-") {
            break;
        }
        ensure!(Instant::now() < deadline, "still connected to a master without slots");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (number, _) = until_acknowledged(&a, ROOM, 2).await?;
    b.inbox.wait_until("the last message", || b.inbox.texts(ROOM).contains(&number.to_string())).await?;
    b.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
