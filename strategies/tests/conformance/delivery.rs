//! Who receives what, and how often.

use std::sync::Arc;

use anyhow::{Result, ensure};
use manifold_strategies::{ErrorKind, Event};

use crate::cluster::{Cluster, envelope, numbered, same};

pub async fn reaches_all_members_and_only_them(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let stranger = cluster.node().await?;
    member.join("wanted").await?;
    publisher.join("other").await?;
    publisher.publish_numbered("wanted", "w", 50).await?;
    publisher.publish_numbered("unwanted", "u", 50).await?;
    publisher.publish_numbered("other", "o", 50).await?;
    member.inbox.wait_for("wanted", 50).await?;
    publisher.inbox.wait_for("other", 50).await?;
    for node in [&publisher, &member, &stranger] {
        node.inbox.quiet().await?;
    }
    same("the member", &member.inbox.texts("wanted"), &numbered("w", 50))?;
    same("the publisher's own room", &publisher.inbox.texts("other"), &numbered("o", 50))?;
    let wanted_anywhere = ["wanted", "other"];
    for (who, node) in [("publisher", &publisher), ("member", &member), ("stranger", &stranger)] {
        for event in node.inbox.all() {
            let Event::Message(message) = event else { continue };
            let room = message.envelope.room.as_str().to_owned();
            ensure!(
                wanted_anywhere.contains(&room.as_str()),
                "{who} received room {room:?}, which nobody joined"
            );
        }
    }
    if member.guarantees().spans_nodes {
        ensure!(member.inbox.of("other").is_empty(), "the member received a room that it did not join");
        ensure!(
            publisher.inbox.of("wanted").is_empty(),
            "the publisher received a room that it did not join"
        );
        ensure!(stranger.inbox.all().is_empty(), "a node without members received messages");
    }
    Ok(())
}

pub async fn reaches_each_member_exactly_once(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    for node in [&publisher, &member] {
        node.join("room").await?;
    }
    publisher.publish_numbered("room", "m", 2_000).await?;
    for node in [&publisher, &member] {
        node.inbox.wait_for("room", 2_000).await?;
        node.inbox.quiet().await?;
        same("a member", &node.inbox.texts("room"), &numbered("m", 2_000))?;
    }
    Ok(())
}

pub async fn carries_every_kind_of_room_and_payload(cluster: Arc<Cluster>) -> Result<()> {
    let rooms = [
        "a",
        "chat:index",
        "방:안녕하세요",
        "with space",
        "{tag}",
        "a\"b\\c",
        "🦀",
        "%$*?[]/",
        &"x".repeat(255),
    ];
    let every_byte: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..64 * 1024).map(|i| (i % 251) as u8).collect();
    let json = br#"{"text":"\u0000\ud83e\udd80 \"quoted\" \\ \n","n":1e400,"nested":[[],{}]}"#.to_vec();
    let payloads = [
        Vec::new(),
        b"plain".to_vec(),
        "안녕 🦀".as_bytes().to_vec(),
        json,
        every_byte,
        vec![0; 1000],
        large,
    ];
    let (publisher, member) = cluster.pair().await?;
    for room in rooms {
        member.join(room).await?;
        for payload in &payloads {
            publisher.publish(room, payload.clone()).await?;
        }
    }
    for room in rooms {
        member.inbox.wait_for(room, payloads.len()).await?;
        let got = member.inbox.of(room);
        ensure!(
            got.len() == payloads.len(),
            "room {room:?}: {} messages, {} expected",
            got.len(),
            payloads.len()
        );
        for (message, payload) in got.iter().zip(&payloads) {
            let intact =
                message.envelope.payload == *payload && message.envelope.info == envelope("", "").info;
            ensure!(intact, "room {room:?}: a payload of {} bytes came back changed", payload.len());
        }
    }
    Ok(())
}

pub async fn serves_two_hundred_rooms_at_once(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    let rooms: Vec<String> = (0..200).map(|i| format!("room-{i}")).collect();
    let joins: Vec<_> = rooms
        .iter()
        .map(|room| {
            tokio::spawn({
                let (member, room) = (member.clone(), room.clone());
                async move { member.join(&room).await }
            })
        })
        .collect();
    for join in joins {
        join.await??;
    }
    let mut acks = Vec::new();
    for i in 0..10 {
        acks.extend(
            rooms.iter().map(|room| publisher.backplane.publish(envelope(room, format!("{room}:{i}")))),
        );
    }
    for ack in acks {
        ack.await?;
    }
    for room in &rooms {
        member.inbox.wait_for(room, 10).await?;
    }
    member.inbox.quiet().await?;
    rooms.iter().try_for_each(|room| same(room, &member.inbox.texts(room), &numbered(room, 10)))
}

pub async fn a_retry_is_idempotent(cluster: Arc<Cluster>) -> Result<()> {
    let (publisher, member) = cluster.pair().await?;
    member.join("room").await?;
    let message = envelope("room", "once");
    for _ in 0..3 {
        publisher.send(message.clone()).await?;
    }
    // The retry may come through another node: the client reconnected.
    member.send(message).await?;
    publisher.publish("room", "last").await?;
    member.inbox.wait_for("room", 2).await?;
    member.inbox.quiet().await?;
    same("the member", &member.inbox.texts("room"), &["once".to_owned(), "last".to_owned()])
}

pub async fn refuses_what_is_too_large(cluster: Arc<Cluster>) -> Result<()> {
    let node = cluster.node().await?;
    for (what, message) in
        [("payload", envelope("room", vec![b'x'; 64 * 1024 + 1])), ("room", envelope(&"r".repeat(256), "x"))]
    {
        let error = node.backplane.publish(message).await.err();
        let kind = error.as_ref().map(manifold_strategies::Error::kind);
        ensure!(kind == Some(ErrorKind::TooLarge), "an over-long {what} was answered with {error:?}");
        ensure!(error.is_some_and(|error| !error.is_temporary()), "an over-long {what} is not worth a retry");
    }
    Ok(())
}

pub async fn a_room_is_fragmented(cluster: Arc<Cluster>) -> Result<()> {
    let (one, other) = cluster.pair().await?;
    for node in [&one, &other] {
        for room in numbered("room", 40) {
            node.join(&room).await?;
        }
    }
    for room in numbered("room", 40) {
        one.publish(&room, "x").await?;
    }
    let both = || one.inbox.all().len() + other.inbox.all().len() >= 40;
    // Both inboxes fill; waiting on each in turn covers whichever is last.
    tokio::select! {
        done = one.inbox.wait_until("one node's share", both) => done?,
        done = other.inbox.wait_until("the other node's share", both) => done?,
    }
    one.inbox.quiet().await?;
    let (left, right) = (one.inbox.all().len(), other.inbox.all().len());
    ensure!(
        left < 40 && right < 40,
        "declared to fragment rooms, but a node saw everything ({left} and {right} of 40)"
    );
    Ok(())
}
