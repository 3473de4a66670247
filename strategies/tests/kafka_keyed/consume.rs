//! What every way to consume has in common, and what the shared group does not.

use std::collections::HashSet;

use manifold_strategies::ErrorKind;

use crate::harness::{Node, envelope, namespace, partition, rooms_apart, shared_broker, start};

async fn two_nodes_share_a_room(consume: &str) {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = format!("consume = '{consume}'\npartitions = 8");
    let first = Node::connect(kafka, &namespace, "first", &settings).await;
    let second = Node::connect(kafka, &namespace, "second", &settings).await;
    let before = first.publish("room", "before anybody joined").await;
    let stand_at = [first.join("room").await, second.join("room").await];
    let mut texts = Vec::new();
    for number in 0..50 {
        let (sender, text) = (if number % 2 == 0 { &first } else { &second }, format!("message {number}"));
        sender.publish("room", &text).await;
        texts.push(text);
    }
    for (node, stands_at) in [&first, &second].into_iter().zip(stand_at) {
        node.inbox.wait_for_all(&texts).await;
        let mut received = node.inbox.texts();
        // A node may have joined before it had read what was published earlier.
        received.retain(|text| text != "before anybody joined");
        assert_eq!(received, texts, "each once, in the order of acknowledgement ({consume})");
        // Only this room writes to its partition: from the join's position on there are no holes.
        let positions: Vec<_> = node.inbox.messages().iter().map(|message| message.position).collect();
        assert!(
            positions.iter().map(|position| position.offset).eq(stands_at.offset + 1..=51),
            "{positions:?}"
        );
        assert!(positions.iter().all(|position| position.epoch == before.epoch), "{positions:?}");
    }
    let retried = envelope("room", "once");
    first.backplane.publish(retried.clone()).await.expect("an acknowledgement");
    first.backplane.publish(retried).await.expect("an acknowledgement");
    first.publish("room", "after").await;
    second.inbox.wait_for("after").await;
    assert_eq!(second.inbox.texts().iter().filter(|text| *text == "once").count(), 1);
    assert_eq!(second.backplane.stats().duplicates_removed.get(), 1);
    assert_eq!(first.backplane.stats().broker_writes.get(), first.backplane.stats().publishes.get());
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_partitions() {
    two_nodes_share_a_room("all").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_demand() {
    two_nodes_share_a_room("demand").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_group_of_its_own() {
    two_nodes_share_a_room("group").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hot_room_has_a_partition_of_its_own() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings =
        "consume = 'demand'\npartitions = 4\ndedicated_partitions = 3\noverrides = { hot = 1, hotter = 2 }";
    let node = Node::connect(kafka, &namespace, "node", settings).await;
    for (room, expected) in [("hot", 5), ("hotter", 6)] {
        assert_eq!(partition(node.join(room).await), expected);
        assert_eq!(partition(node.publish(room, room).await), expected, "the hook and the join agree");
        node.inbox.wait_for(room).await;
    }
    for number in 0..40 {
        assert!(partition(node.publish(&format!("cold {number}"), "").await) < 4);
    }
    node.shutdown().await;
}

/// The mistake of the shared group, shown: both nodes have members of every room, and each sees a part.
#[tokio::test(flavor = "multi_thread")]
async fn a_shared_group_fragments_rooms() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let rooms = rooms_apart(8, 8);
    let settings = "partitions = 8";
    let connect = |name| Node::of("kafka-shared-group", kafka, &namespace, name, settings);
    let (first, second) = tokio::join!(connect("first"), connect("second"));
    assert!(!first.backplane.guarantees().whole_rooms);
    for room in &rooms {
        first.join(room).await;
        second.join(room).await;
    }
    // The group may still be moving partitions to the second member: publish until both have seen something.
    let mut published = HashSet::new();
    let both_saw_some = || !first.inbox.texts().is_empty() && !second.inbox.texts().is_empty();
    let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
    while !both_saw_some() {
        assert!(std::time::Instant::now() < deadline, "a member of the group never got a message");
        for room in &rooms {
            let text = format!("{room} {}", published.len());
            first.publish(room, &text).await;
            published.insert(text);
        }
    }
    let seen: Vec<HashSet<String>> =
        [&first, &second].map(|node| node.inbox.texts().into_iter().collect()).into();
    assert!(seen.iter().all(|seen| seen.len() < published.len()), "a node saw its rooms whole");
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test]
async fn the_mistake_must_be_asked_for_by_name() {
    let (begin, _) = start("127.0.0.1:1", "n", "node", "consume = 'shared-group'");
    let keyed = manifold_strategies::find("kafka-keyed").expect("registered");
    let error = (keyed.connect)(begin).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("kafka-shared-group"), "{error}");
}
