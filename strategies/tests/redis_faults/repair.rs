//! Losses that the stream makes good, and those that it cannot.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use manifold_compose::RedisTopology;
use manifold_strategies::clients::redis::resp::Value;
use manifold_strategies::{Backplane, Entrance, Event, RoomId, Start, find};
use parking_lot::{Condvar, Mutex};
use tokio::runtime::Runtime;

use crate::inbox::Inbox;
use crate::node::{DEADLINE, Node, ROOM, admin, ask, audit, envelope, patient, servers};

/// An entrance that can be shut: whoever delivers waits outside, and reads nothing more meanwhile.
struct Gate {
    inbox: Arc<Inbox>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    shut: bool,
    /// Somebody waits outside.
    holds: bool,
}

impl Gate {
    fn set(&self, shut: bool) {
        self.state.lock().shut = shut;
        self.changed.notify_all();
    }
}

impl Entrance for Gate {
    fn deliver(&self, batch: &mut Vec<Event>) {
        let mut state = self.state.lock();
        while state.shut {
            state.holds = true;
            self.changed.wait(&mut state);
        }
        drop(state);
        self.inbox.deliver(batch);
    }
}

/// A node on threads of its own, so that only it stands still when its gate is shut.
struct Gated {
    node: Node,
    gate: Arc<Gate>,
    runtime: Option<Runtime>,
}

impl Gated {
    async fn start(redis: &str, settings: &str) -> Result<Self> {
        let inbox = Arc::new(Inbox::new(DEADLINE));
        let gate =
            Arc::new(Gate { inbox: Arc::clone(&inbox), state: Mutex::default(), changed: Condvar::new() });
        let start = Start {
            node: "gated".to_owned(),
            namespace: "faults".to_owned(),
            kafka: None,
            redis: Some(redis.to_owned()),
            settings: patient(settings)?,
            connect_retry: None,
            entrance: Arc::clone(&gate) as Arc<_>,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let strategy = find("redis-pubsub").context("it is registered")?;
        let backplane: Arc<dyn Backplane> = runtime.spawn((strategy.connect)(start)).await??;
        Ok(Self { node: Node { backplane, inbox }, gate, runtime: Some(runtime) })
    }
}

impl Drop for Gated {
    fn drop(&mut self) {
        self.gate.set(false);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How many connections are subscribed to anything.
async fn subscribed(redis: &str) -> Result<usize> {
    let Value::Text(clients) = ask(&mut admin(redis).await?, &["CLIENT", "LIST", "TYPE", "pubsub"]).await?
    else {
        anyhow::bail!("no clients");
    };
    Ok(String::from_utf8_lossy(&clients).lines().count())
}

/// Publishes large messages until Redis cuts off the subscriber that does not read them; how many.
async fn flood(a: &Node, redis: &str) -> Result<usize> {
    let mut count = 0;
    while subscribed(redis).await? > 0 {
        ensure!(count < 9_000, "Redis keeps a subscriber that does not read");
        let sent: Vec<_> = (count..count + 250)
            .map(|number| a.backplane.publish(envelope(ROOM, &format!("{number:0>8000}"))))
            .collect();
        for ack in sent {
            ack.await?;
        }
        count += 250;
    }
    Ok(count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_output_buffer_costs_no_more_than_the_stream_has_lost() -> Result<()> {
    for (settings, all) in [("history_messages = 10000", true), ("history_messages = 100", false)] {
        let servers = servers(RedisTopology::Single)?;
        let redis = servers.redis().unwrap_or_default();
        let a = Node::start("a", redis, settings).await?;
        let b = Gated::start(redis, settings).await?;
        let first = b.node.join(ROOM).await?;
        b.node.join("beside").await?;
        ask(&mut admin(redis).await?, &["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"])
            .await?;
        b.gate.set(true);
        let count = flood(&a, redis).await?;
        a.publish("beside", "0").await?;
        b.gate.set(false);
        b.node.inbox.wait_for("beside", 1).await?;
        let last = a.publish(ROOM, &count.to_string()).await?;
        let arrived = || b.node.inbox.of(ROOM).last().is_some_and(|message| message.position == last);
        b.node.inbox.wait_until("the last message", arrived).await?;

        let seen = audit(&b.node, ROOM, first)?;
        let known = seen.numbers.len() as u64 + seen.declared;
        ensure!(known == count as u64 + 1, "{} + {} of {count}", seen.numbers.len(), seen.declared);
        let stats = b.node.backplane.stats();
        let repaired = stats.gap_messages_repaired.get();
        if all {
            ensure!(seen.declared == 0 && stats.gaps.get() == 0, "{} are declared lost", seen.declared);
            ensure!(stats.gaps_repaired.get() >= 1 && repaired > 0, "{repaired} were repaired");
        } else {
            ensure!(seen.declared > 0, "the stream is too short for all");
            ensure!(stats.gap_messages.get() == seen.declared && repaired >= 99, "{repaired} were repaired");
            // It may have been read when it had the very last message already, and so one of the others less.
            let newest: Vec<usize> = (count - 99..=count).collect();
            ensure!(seen.numbers.ends_with(&newest), "what the stream had was delivered");
        }
        b.node.backplane.shutdown().await?;
        a.backplane.shutdown().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_rooms_are_repaired_at_once() -> Result<()> {
    let servers = servers(RedisTopology::Single)?;
    let redis = servers.redis().unwrap_or_default();
    let a = Node::start("a", redis, "").await?;
    let b = Gated::start(redis, "").await?;
    let rooms: Vec<String> = (0..500).map(|number| format!("room {number}")).collect();
    let mut firsts = Vec::new();
    for room in &rooms {
        firsts.push(b.node.join(room).await?);
    }
    // A room without members any more: nobody needs what it misses.
    b.node.join("left").await?;
    b.node.backplane.leave(&RoomId::new("left")).await?;
    b.gate.set(true);
    // What shuts the node in.
    a.publish(&rooms[0], "0").await?;
    let deadline = Instant::now() + DEADLINE;
    while !b.gate.state.lock().holds {
        ensure!(Instant::now() < deadline, "nothing arrives");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ask(&mut admin(redis).await?, &["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
    a.publish_all("left", 0..5).await?;
    for room in &rooms {
        a.publish_all(room, 1..21).await?;
    }
    b.gate.set(false);
    for (room, first) in rooms.iter().zip(firsts) {
        let arrived = || b.node.inbox.texts(room).last().is_some_and(|text| text == "20");
        b.node.inbox.wait_until("the last message", arrived).await?;
        let seen = audit(&b.node, room, first)?;
        ensure!(
            seen.declared == 0 && seen.numbers.ends_with(&(1..21).collect::<Vec<_>>()),
            "{room}: {seen:?}"
        );
    }
    let told =
        |event: &Event| matches!(event, Event::Gap { room, from: 1, to: 6 } if room.as_str() == "left");
    b.node.wait_for_event("what the room that was left missed", told).await?;
    ensure!(b.node.inbox.of("left").is_empty(), "nothing was read for nobody");
    ensure!(b.node.backplane.stats().gaps.get() == 1, "nothing else was lost");
    b.node.backplane.shutdown().await?;
    Ok(a.backplane.shutdown().await?)
}
