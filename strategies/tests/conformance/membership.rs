//! Joining, leaving and growing while messages flow.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::cluster::{Cluster, Node, numbered, same};

pub async fn a_join_is_effective(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    for i in 0..30 {
        let room = format!("room-{i}");
        member.join(&room).await?;
        publisher.publish(&room, "first").await?;
        member.inbox.wait_for(&room, 1).await?;
    }
    // The same room again and again: every second membership starts where the last one ended.
    for i in 0..10 {
        member.join("again").await?;
        publisher.publish("again", format!("{i}")).await?;
        let arrived = || member.inbox.texts("again").contains(&i.to_string());
        member.inbox.wait_until(&format!("message {i} after a new join"), arrived).await?;
        member.leave("again").await?;
    }
    Ok(())
}

pub async fn a_leave_ends_delivery(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let stays = cluster.node().await?;
    member.join("left").await?;
    stays.join("kept").await?;
    publisher.publish("left", "before").await?;
    member.inbox.wait_for("left", 1).await?;
    member.leave("left").await?;
    member.inbox.quiet().await?;
    // The contract allows stragglers for a while; what is published much later must not come.
    let deadline = tokio::time::Instant::now() + cluster.deadline;
    loop {
        let heard = member.inbox.of("left").len();
        publisher.publish("left", "after").await?;
        publisher.publish("kept", "x").await?;
        stays
            .inbox
            .wait_until("a message of the room that was kept", || !stays.inbox.of("kept").is_empty())
            .await?;
        member.inbox.quiet().await?;
        if member.inbox.of("left").len() == heard {
            break;
        }
        ensure!(
            tokio::time::Instant::now() < deadline,
            "messages still arrive {:?} after leave",
            cluster.deadline
        );
    }
    member.join("left").await?;
    publisher.publish("left", "back").await?;
    let back = || member.inbox.texts("left").last().is_some_and(|text| text == "back");
    member.inbox.wait_until("a message after joining again", back).await
}

/// A publisher that numbers its messages and never stops until told.
struct Stream {
    next: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl Stream {
    fn start(node: &Node, tag: &'static str) -> Self {
        let (next, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (node, next, stop) = (node.clone(), Arc::clone(&next), Arc::clone(&stop));
            async move {
                let mut pace = tokio::time::interval(Duration::from_millis(2));
                while !stop.load(SeqCst) {
                    pace.tick().await;
                    // Numbered before the call, so whoever reads `next` knows which messages are still to be sent.
                    let number = next.fetch_add(1, SeqCst);
                    node.publish("room", format!("{tag}:{number}")).await?;
                }
                Ok(())
            }
        });
        Self { next, stop, task }
    }

    async fn finish(self) -> Result<usize> {
        self.stop.store(true, SeqCst);
        self.task.await??;
        Ok(self.next.load(SeqCst))
    }
}

pub async fn grows_from_one_to_four_nodes(cluster: Arc<Cluster>) -> Result<()> {
    let first = cluster.node().await?;
    first.join("room").await?;
    let mut members = vec![(first.clone(), 0)];
    let stream = Stream::start(&first, "m");
    for _ in 0..3 {
        let sent = stream.next.load(SeqCst);
        first.inbox.wait_for("room", sent + 20).await?;
        let node = cluster.node().await?;
        node.join("room").await?;
        members.push((node, stream.next.load(SeqCst)));
    }
    let newcomer = Stream::start(&members[3].0, "n");
    first.inbox.wait_until("the newcomer's messages", || newcomer.next.load(SeqCst) > 50).await?;
    let (total, total_new) = (stream.finish().await?, newcomer.finish().await?);
    for (i, (node, from)) in members.iter().enumerate() {
        let complete = || {
            let texts = node.inbox.texts("room");
            texts.contains(&format!("m:{}", total - 1)) && texts.contains(&format!("n:{}", total_new - 1))
        };
        node.inbox.wait_until(&format!("the last messages on node {i}"), complete).await?;
        node.inbox.quiet().await?;
        let number = |text: &String| text.strip_prefix("m:").and_then(|n| n.parse::<usize>().ok());
        let texts = node.inbox.texts("room");
        let due: Vec<String> =
            texts.iter().filter(|t| number(t).is_some_and(|n| n >= *from)).cloned().collect();
        let expected: Vec<String> = (*from..total).map(|n| format!("m:{n}")).collect();
        same(&format!("node {i}, which joined before m:{from}"), &due, &expected)?;
        let new: Vec<String> = texts.iter().filter(|t| t.starts_with("n:")).cloned().collect();
        same(&format!("node {i}, the newcomer's messages"), &new, &numbered("n", total_new))?;
    }
    if first.guarantees().ordering.is_per_room() {
        let tail = |node: &Node| -> Vec<String> {
            let texts = node.inbox.texts("room");
            let from = texts.iter().position(|text| text == "n:0").unwrap_or(0);
            texts[from..].to_vec()
        };
        same("the order on the newest node", &tail(&members[3].0), &tail(&first))?;
    }
    Ok(())
}
