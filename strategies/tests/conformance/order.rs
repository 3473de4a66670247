//! In which order members see messages, and what positions say of it.

use std::sync::Arc;

use anyhow::{Result, ensure};
use manifold_strategies::guarantees::Positions;
use manifold_strategies::{Event, Position};

use crate::cluster::{Cluster, Node, envelope, numbered, same};

pub async fn keeps_each_publishers_order(cluster: Arc<Cluster>) -> Result<()> {
    let (one, other) = cluster.pair().await?;
    one.join("room").await?;
    other.join("room").await?;
    let (sent, sent_too) =
        tokio::join!(one.publish_numbered("room", "a", 500), other.publish_numbered("room", "b", 500));
    sent.and(sent_too)?;
    // The place in line is taken by the call: futures that are awaited backwards change nothing.
    let late: Vec<_> =
        (500..600).map(|i| one.backplane.publish(envelope("room", format!("a:{i}")))).collect();
    for ack in late.into_iter().rev() {
        ack.await?;
    }
    for node in [&one, &other] {
        node.inbox.wait_for("room", 1_100).await?;
        let of = |tag: &str| -> Vec<String> {
            node.inbox.texts("room").into_iter().filter(|text| text.starts_with(tag)).collect()
        };
        same("publisher a", &of("a:"), &numbered("a", 600))?;
        same("publisher b", &of("b:"), &numbered("b", 500))?;
    }
    Ok(())
}

pub async fn shows_all_members_one_order(cluster: Arc<Cluster>) -> Result<()> {
    let (one, other) = cluster.pair().await?;
    let third = cluster.node().await?;
    for node in [&one, &other, &third] {
        node.join("room").await?;
    }
    let (a, b, c) = tokio::join!(
        one.publish_numbered("room", "a", 300),
        other.publish_numbered("room", "b", 300),
        third.publish_numbered("room", "c", 300),
    );
    a.and(b).and(c)?;
    for node in [&one, &other, &third] {
        node.inbox.wait_for("room", 900).await?;
    }
    let expected = one.inbox.texts("room");
    same("the second member", &other.inbox.texts("room"), &expected)?;
    same("the third member", &third.inbox.texts("room"), &expected)
}

pub async fn positions_are_what_was_declared(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let at_join = member.join("room").await?;
    publisher.publish_numbered("room", "m", 100).await?;
    member.inbox.wait_for("room", 100).await?;
    as_declared(&member, at_join)
}

/// Duplicates are removed, and what they used up is neither missing nor silently left out.
pub async fn a_retry_leaves_positions_as_declared(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let at_join = member.join("room").await?;
    for text in numbered("m", 10) {
        let message = envelope("room", text);
        publisher.send(message.clone()).await?;
        publisher.send(message).await?;
    }
    member.inbox.wait_for("room", 10).await?;
    member.inbox.quiet().await?;
    publisher.publish("room", "m:10").await?;
    member.inbox.wait_for("room", 11).await?;
    same("the member", &member.inbox.texts("room"), &numbered("m", 11))?;
    as_declared(&member, at_join)
}

/// Checks what arrived in the only room, message or not, against what the strategy says of positions.
fn as_declared(member: &Node, at_join: Position) -> Result<()> {
    let events = member.inbox.all();
    let gap = events.iter().find(|event| matches!(event, Event::Gap { .. }));
    ensure!(gap.is_none(), "{gap:?} was declared though nothing was lost");
    let position = |event: &Event| match event {
        Event::Message(message) => Some(message.position),
        Event::Skipped { position, .. } => Some(*position),
        _ => None,
    };
    let positions: Vec<_> = events.iter().filter_map(position).collect();
    let steps = || std::iter::once(at_join).chain(positions.iter().copied()).zip(positions.iter().copied());
    match member.guarantees().positions {
        Positions::None => {
            ensure!(
                positions.iter().all(|p| p.offset == 0),
                "positions {positions:?} though none are declared"
            );
        }
        Positions::Rising => {
            ensure!(
                steps().all(|(a, b)| a.epoch == b.epoch && a.offset < b.offset),
                "not rising: {positions:?}"
            );
        }
        Positions::Dense => {
            let dense = steps().all(|(a, b)| a.epoch == b.epoch && a.offset + 1 == b.offset);
            ensure!(dense, "not dense from {at_join:?}: {positions:?}");
        }
    }
    Ok(())
}
