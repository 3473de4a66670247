//! Redis fails.

use std::time::Duration;

use anyhow::{Result, ensure};
use manifold_strategies::{Event, RoomId};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::comeback::{come_back, keep_coming_back};
use crate::node::{
    BOTH, DEADLINE, LOG_IS_WELL, Node, REDIS_IS_WELL, ROOM, ask_redis, audit, brokers, envelope, shutdown,
    stream, stream_until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_returns_empty_while_messages_flow() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs").clone();
    for settings in BOTH {
        let settings = &format!("{settings}\n{LOG_IS_WELL}");
        let nodes = Node::three(&brokers, settings).await?;
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let (stop_streams, stopped) = watch::channel(false);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        for outage in 1..=2_usize {
            nodes[1].inbox.wait_for(ROOM, nodes[1].inbox.of(ROOM).len() + 1_000).await?;
            redis.kill()?;
            // Part of the fault: long enough for hundreds of messages to go by the log.
            sleep(Duration::from_millis(500)).await;
            let again = redis.clone();
            tokio::task::spawn_blocking(move || again.restart()).await??;
            for node in &nodes {
                node.inbox.wait_until("the live path", || node.reconnects() >= outage).await?;
                node.inbox.wait_until("the next epoch", || node.epochs() >= outage).await?;
            }
        }
        stop_streams.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        ensure!(refused_a + refused_c == 0, "{settings}: {refused_a} and {refused_c} were refused");
        for node in &nodes {
            node.wait_for_last(&["a"], a.len()).await?;
            node.wait_for_last(&["c"], c.len()).await?;
            // Offsets that the dying server assigned without telling anybody may be declared lost; messages are not.
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
            announces_epochs(node)?;
        }
        stop.send_replace(true);
        let fresh = Node::start("fresh", &brokers, settings).await?;
        let (meanwhile, other, anew) = (
            coming_back.await??,
            come_back(&nodes[1], &nodes[2]).await?,
            come_back(&nodes[1], &fresh).await?,
        );
        eprintln!("{settings}: meanwhile {meanwhile:?}, then {other:?}, on a new node {anew:?}");
        // Before the first outage, at least.
        ensure!(other.complete > 0 && anew.complete > 0, "nobody came back");
        fresh.backplane.shutdown().await?;
        shutdown(nodes).await?;
    }
    Ok(())
}

/// Every change of epoch is announced before its first message, and nothing of the epoch before comes with a position after.
fn announces_epochs(node: &Node) -> Result<()> {
    let (mut current, mut changes) = (None, 0);
    for event in node.inbox.all() {
        match event {
            Event::Message(message) if message.position.offset > 0 => {
                let epoch = *current.get_or_insert(message.position.epoch);
                ensure!(
                    epoch == message.position.epoch,
                    "epoch {epoch} became {} unannounced",
                    message.position.epoch
                );
            }
            Event::Renumbered { epoch, .. } => {
                changes += 1;
                current = Some(epoch);
            }
            _ => {}
        }
    }
    ensure!(changes == 2, "{changes} changes of epoch in 2 outages");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_freezes_and_thaws_while_messages_flow() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs");
    for settings in BOTH {
        // What Redis executed after it was given up on has positions that only its stream tells.
        let settings = &format!("{settings}\nhistory_messages = 10000\n{LOG_IS_WELL}");
        let nodes = Node::three(&brokers, settings).await?;
        let (stop, coming_back) = keep_coming_back(&nodes[1], &nodes[2]);
        let streams = [stream(&nodes[0], 5_000), stream(&nodes[2], 5_000)];
        nodes[1].inbox.wait_for(ROOM, 1_000).await?;
        redis.stop()?;
        // Part of the fault.
        sleep(Duration::from_millis(2_000)).await;
        redis.cont()?;
        let [a, c] = streams;
        let (a, c) = (a.await?, c.await?);
        ensure!(a.len() == 5_000 && c.len() == 5_000, "{settings}: {} and {} acknowledged", a.len(), c.len());
        for node in &nodes {
            node.wait_for_last(&["a", "c"], 5_000).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        stop.send_replace(true);
        let (meanwhile, other) = (coming_back.await??, come_back(&nodes[1], &nodes[2]).await?);
        eprintln!("{settings}: meanwhile {meanwhile:?}, then {other:?}");
        // Those from before; who stands shortly behind what went by the log alone is told that it may miss some of that.
        // A position that was reserved, and given up before its publisher learned it, is a hole that nothing explains.
        ensure!(other.complete > 0 || settings.contains("durable"), "nobody came back: {other:?}");
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_heals_what_a_broken_subscription_missed() -> Result<()> {
    let brokers = brokers()?;
    for settings in BOTH {
        // Holes have the time that the log takes here.
        let settings = &format!("{settings}\nheal_timeout_ms = 10000\n{LOG_IS_WELL}\n{REDIS_IS_WELL}");
        let nodes = Node::three(&brokers, settings).await?;
        let (stop, stopped) = watch::channel(false);
        let streams = [stream_until(&nodes[0], stopped.clone()), stream_until(&nodes[2], stopped)];
        let repaired = |node: &Node| node.backplane.stats().gaps_repaired.get() > 0;
        let (mut kill, until) = (0, Instant::now() + DEADLINE);
        // Until everybody has missed something: a machine that pauses may have published nothing meanwhile.
        while kill < 5 || (!nodes.iter().all(repaired) && Instant::now() < until) {
            kill += 1;
            nodes[1].inbox.wait_for(ROOM, nodes[1].inbox.of(ROOM).len() + 200).await?;
            ask_redis(&brokers, &["CLIENT", "KILL", "TYPE", "pubsub"]).await?;
            nodes[1].inbox.wait_until("the live path", || nodes[1].reconnects() >= kill).await?;
        }
        stop.send_replace(true);
        let [a, c] = streams;
        let ((a, refused_a), (c, refused_c)) = (a.await??, c.await??);
        ensure!(refused_a + refused_c == 0, "{settings}: {refused_a} and {refused_c} were refused");
        for node in &nodes {
            node.wait_for_last(&["a"], a.len()).await?;
            node.wait_for_last(&["c"], c.len()).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
            ensure!(node.gap_messages() == 0, "{settings}: {} declared lost", node.gap_messages());
            let stats = node.backplane.stats();
            let (gaps, messages) = (stats.gaps_repaired.get(), stats.gap_messages_repaired.get());
            ensure!(
                gaps > 0 && messages >= gaps,
                "{settings}: {gaps} gaps with {messages} messages repaired"
            );
        }
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_publishing_link_alone_breaks() -> Result<()> {
    let brokers = brokers()?;
    for settings in BOTH {
        // What was executed and not answered has positions that only the stream tells.
        let settings = &format!("{settings}\nhistory_messages = 10000\n{LOG_IS_WELL}\n{REDIS_IS_WELL}");
        let nodes = Node::three(&brokers, settings).await?;
        let streams = [stream(&nodes[0], 2_000), stream(&nodes[2], 2_000)];
        for kill in 1..=5_usize {
            nodes[1].inbox.wait_for(ROOM, kill * 500).await?;
            ask_redis(&brokers, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await?;
        }
        let [a, c] = streams;
        let (a, c) = (a.await?, c.await?);
        ensure!(a.len() == 2_000 && c.len() == 2_000, "{} and {} acknowledged", a.len(), c.len());
        for node in &nodes {
            node.wait_for_last(&["a", "c"], 2_000).await?;
            audit(node, "a", &a)?;
            audit(node, "c", &c)?;
        }
        let other = come_back(&nodes[1], &nodes[2]).await?;
        eprintln!("{settings}: {other:?}");
        ensure!(other.complete > 0 || settings.contains("durable"), "nobody came back: {other:?}");
        shutdown(nodes).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_can_be_joined_while_redis_is_away() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs").clone();
    let nodes = Node::three(&brokers, LOG_IS_WELL).await?;
    nodes[0].publish("late", "before").await?;
    redis.kill()?;
    nodes[1].backplane.join(&RoomId::new("late")).await?;
    // What was published before the join may reach it or not: the node reads the log at its own pace.
    let heard = || -> Vec<String> {
        nodes[1].inbox.texts("late").into_iter().filter(|text| text != "before").collect()
    };
    for number in 0..50 {
        nodes[0].publish("late", &number.to_string()).await?;
    }
    nodes[1].inbox.wait_until("50 messages", || heard().len() >= 50).await?;
    tokio::task::spawn_blocking(move || redis.restart()).await??;
    nodes[1].inbox.wait_until("the live path", || nodes[1].reconnects() >= 1).await?;
    for number in 50..100 {
        nodes[0].publish("late", &number.to_string()).await?;
    }
    nodes[1].inbox.wait_until("100 messages", || heard().len() >= 100).await?;
    nodes[1].inbox.quiet().await?;
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    ensure!(heard() == expected, "{:?}", heard());
    shutdown(nodes).await
}

/// Rooms that are joined during a freeze: in what order the sockets are served at the thaw is chance.
const FREEZES: usize = 12;
/// Messages of each freeze.
const FROZEN: usize = 200;

/// Publishes until the live path takes a message.
async fn until_live(node: &Node, room: &str) -> Result<()> {
    let until = Instant::now() + DEADLINE;
    while node.backplane.publish(envelope(room, "again")).await?.offset == 0 {
        ensure!(Instant::now() < until, "the live path does not come back");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_joined_during_a_freeze_does_not_hear_again_what_the_log_had() -> Result<()> {
    let brokers = brokers()?;
    let redis = brokers.process("redis").expect("it runs");
    let settings = &format!("partitions = 1\n{LOG_IS_WELL}");
    let (a, b) = (Node::start("a", &brokers, settings).await?, Node::start("b", &brokers, settings).await?);
    b.backplane.join(&RoomId::new("witness")).await?;
    for freeze in 0..FREEZES {
        // The room is subscribed to from before, or not; the join is answered after the thaw, or goes by the log.
        let (lingers, goes_by_log) = (freeze % 2 == 1, freeze % 4 > 1);
        let name = format!("room-{freeze}");
        let room = RoomId::new(name.as_str());
        a.backplane.join(&room).await?;
        if lingers {
            b.backplane.join(&room).await?;
            b.backplane.leave(&room).await?;
        }
        until_live(&a, "nobody").await?;
        redis.stop()?;
        let frozen: Vec<_> =
            (0..FROZEN).map(|number| a.backplane.publish(envelope(&name, &number.to_string()))).collect();
        for publish in frozen {
            publish.await?;
        }
        // There is one partition: whoever has read this has read them all.
        a.publish("witness", &name).await?;
        b.inbox.wait_until("the witness", || b.inbox.texts("witness").contains(&name)).await?;
        let joining = tokio::spawn(b.backplane.join(&room));
        if goes_by_log {
            joining.await??;
            redis.cont()?;
        } else {
            redis.cont()?;
            joining.await??;
        }
        until_live(&a, &name).await?;
        b.inbox.wait_until("what came since", || !b.inbox.of(&name).is_empty()).await?;
        b.inbox.quiet().await?;
        let heard = b.inbox.texts(&name);
        let twice: Vec<_> = heard.iter().filter(|text| *text != "again").take(5).collect();
        ensure!(twice.is_empty(), "freeze {freeze}: delivered again: {twice:?} of {}", heard.len());
        let frozen = || a.inbox.texts(&name).iter().filter(|text| *text != "again").count();
        a.inbox.wait_until("its own messages", || frozen() >= FROZEN).await?;
        let count = frozen();
        ensure!(count == FROZEN, "freeze {freeze}: its own node has {count} of {FROZEN}");
        a.backplane.leave(&room).await?;
        b.backplane.leave(&room).await?;
    }
    shutdown(vec![a, b]).await
}
