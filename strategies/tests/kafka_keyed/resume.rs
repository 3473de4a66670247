//! History and resume: nothing missing, nothing twice, and no claim that cannot be kept.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use manifold_strategies::{MessageId, PageQuery, Position, Resumed, RoomId};

use crate::harness::{
    Node, delete_topic, drop_before, envelope, namespace, partition, rooms_apart, shared_broker, text,
};

const MODES: [&str; 3] = ["all", "demand", "group"];
/// Everything lies in one partition, and nothing is kept in memory: answers come out of the log.
const LOG_ONLY: &str = "partitions = 1\ndedicated_partitions = 0\nhistory_messages = 0";

async fn resume(node: &Node, room: &str, since: Position, limit: usize) -> Resumed {
    let history = node.backplane.history().expect("history");
    history.resume(&RoomId::new(room), since, limit).await.expect("an answer")
}

/// What was missed, if the answer is complete.
async fn missed(node: &Node, room: &str, since: Position) -> Option<Vec<String>> {
    match resume(node, room, since, 300).await {
        Resumed::Complete { messages, top } => {
            let rises = messages.windows(2).all(|pair| pair[0].position.offset < pair[1].position.offset);
            assert!(rises, "{messages:?}");
            assert!(messages.iter().all(|message| message.position.epoch == since.epoch));
            assert!(messages.last().is_none_or(|last| last.position.offset <= top.offset));
            Some(messages.iter().map(text).collect())
        }
        Resumed::Incomplete { top } => {
            assert!(top.epoch != 0);
            None
        }
    }
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("missed {number}")).collect()
}

/// Publishes many at once and waits for all.
async fn publish_all(node: &Node, messages: impl Iterator<Item = (String, String)>) {
    let sent: Vec<_> = messages.map(|(room, text)| node.backplane.publish(envelope(&room, &text))).collect();
    for sent in sent {
        sent.await.expect("an acknowledgement");
    }
}

async fn publish_missed(node: &Node, count: usize) {
    publish_all(node, numbered(count).into_iter().map(|text| ("room".to_owned(), text))).await;
}

/// What a member missed is read on another node, on one that has just started, and after the first one died.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_goes_on_from_a_position() {
    let broker = shared_broker();
    let kafka = broker.kafka().expect("an address");
    for mode in MODES {
        let (namespace, settings) = (namespace(), format!("consume = '{mode}'\npartitions = 4"));
        let first = Node::connect(kafka, &namespace, "first", &settings).await;
        let other = Node::connect(kafka, &namespace, "other", &settings).await;
        first.join("room").await;
        first.publish("room", "seen").await;
        first.inbox.wait_for("seen").await;
        let since = first.inbox.messages()[0].position;
        publish_missed(&other, 100).await;

        other.join("room").await;
        assert_eq!(missed(&other, "room", since).await, Some(numbered(100)), "{mode}: the other node");
        assert_eq!(missed(&first, "room", since).await, Some(numbered(100)), "{mode}: the same node");
        let fresh = Node::connect(kafka, &namespace, "fresh", &settings).await;
        fresh.join("room").await;
        assert_eq!(missed(&fresh, "room", since).await, Some(numbered(100)), "{mode}: a fresh node");
        // Without a shutdown.
        drop(first);
        assert_eq!(missed(&fresh, "room", since).await, Some(numbered(100)), "{mode}: its writer is gone");
        let top = fresh.join("another room").await;
        assert_eq!(missed(&fresh, "another room", top).await, Some(Vec::new()), "{mode}: nothing missed");
        other.shutdown().await;
        fresh.shutdown().await;
    }
}

/// A join's position is a place to go on from, also where the room never had a message.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_gives_a_position_to_go_on_from() {
    let broker = shared_broker();
    let kafka = broker.kafka().expect("an address");
    for mode in MODES {
        let (namespace, settings) = (namespace(), format!("consume = '{mode}'\npartitions = 4"));
        let node = Node::connect(kafka, &namespace, "node", &settings).await;
        let since = node.join("room").await;
        publish_missed(&node, 5).await;
        let other = Node::connect(kafka, &namespace, "other", &settings).await;
        other.join("room").await;
        for node in [&node, &other] {
            assert_eq!(missed(node, "room", since).await, Some(numbered(5)), "{mode}");
        }
        node.shutdown().await;
        other.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_among_ten_thousand_of_other_rooms() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    let since = node.join("room").await;
    let texts = numbered(100);
    let among = (0..10_100).map(|number| match number % 101 {
        100 => ("room".to_owned(), texts[number / 101].clone()),
        other => (format!("room {other}"), "x".repeat(200)),
    });
    publish_all(&node, among).await;
    let fresh = Node::connect(kafka, &namespace, "fresh", LOG_ONLY).await;
    fresh.join("room").await;
    assert_eq!(missed(&fresh, "room", since).await, Some(numbered(100)));
    assert_eq!(missed(&node, "room", since).await, Some(numbered(100)));
    // Many at once share the scans.
    let history = fresh.backplane.history().expect("history");
    let all: Vec<_> =
        (0..50).map(|_| tokio::spawn(history.resume(&RoomId::new("room"), since, 300))).collect();
    for resumed in all {
        let resumed = resumed.await.expect("a task").expect("an answer");
        assert!(
            matches!(&resumed, Resumed::Complete { messages, .. } if messages.len() == 100),
            "{resumed:?}"
        );
    }
    node.shutdown().await;
    fresh.shutdown().await;
}

/// What a publisher repeated is one message, also when the place to go on from lies between both copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_message_is_not_missed_twice() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    let start = node.join("room").await;
    let mut message = envelope("room", "once");
    message.id = MessageId(7);
    let first = node.backplane.publish(message.clone()).await.expect("an acknowledgement");
    node.publish("room", "between").await;
    node.backplane.publish(message).await.expect("an acknowledgement");
    node.publish("room", "after").await;
    let fresh = Node::connect(kafka, &namespace, "fresh", LOG_ONLY).await;
    fresh.join("room").await;
    let expected = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    assert_eq!(missed(&fresh, "room", start).await, expected(&["once", "between", "after"]));
    assert_eq!(missed(&fresh, "room", first).await, expected(&["between", "after"]));
    node.shutdown().await;
    fresh.shutdown().await;
}

/// Also where thousands of other rooms' messages lie between the two copies.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_repeated_far_behind_is_not_missed_twice() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    node.join("room").await;
    let mut message = envelope("room", "once");
    message.id = MessageId(7);
    let begun = Instant::now();
    node.backplane.publish(message.clone()).await.expect("an acknowledgement");
    publish_all(&node, (0..11_000).map(|_| ("another room".to_owned(), "x".to_owned()))).await;
    let since = node.publish("room", "seen").await;
    node.backplane.publish(message).await.expect("an acknowledgement");
    let repeated = begun.elapsed();
    node.publish("room", "after").await;
    let fresh = Node::connect(kafka, &namespace, "fresh", LOG_ONLY).await;
    fresh.join("room").await;
    let missed = missed(&fresh, "room", since).await.expect("a complete answer");
    // The last minute is looked at: on a machine that is too slow for that, the repetition is seen as well.
    let is_late = repeated > Duration::from_secs(50);
    assert!(missed == ["after"] || (is_late && missed == ["once", "after"]), "{missed:?} after {repeated:?}");
    node.shutdown().await;
    fresh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_retention_removed_is_not_claimed() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    let since = node.join("room").await;
    publish_missed(&node, 10).await;
    let last = node.publish("room", "last").await;
    let topic = format!("{namespace}.rooms");
    drop_before(kafka, &topic, partition(since) as i32, last.offset as i64 - 3).await;
    let fresh = Node::connect(kafka, &namespace, "fresh", LOG_ONLY).await;
    fresh.join("room").await;
    assert_eq!(missed(&fresh, "room", since).await, None);
    // Whoever stands where the log begins now has missed nothing that is gone.
    let kept = Position { offset: last.offset - 3, ..since };
    let rest = ["missed 8", "missed 9", "last"].map(str::to_owned).to_vec();
    assert_eq!(missed(&fresh, "room", kept).await, Some(rest));
    node.shutdown().await;
    fresh.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_created_anew_has_other_positions() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    node.join("room").await;
    let since = node.publish("room", "of the old topic").await;
    node.shutdown().await;
    delete_topic(kafka, &format!("{namespace}.rooms")).await;
    let node = Node::connect(kafka, &namespace, "node", LOG_ONLY).await;
    let anew = node.join("room").await;
    assert_ne!(anew.epoch, since.epoch);
    // As many as there were, so that the old place exists in the new log too.
    publish_missed(&node, 5).await;
    assert_eq!(missed(&node, "room", since).await, None);
    assert_eq!(missed(&node, "room", anew).await, Some(numbered(5)));
    let page = PageQuery { since: Some(since), limit: 10, reverse: false };
    let history = node.backplane.history().expect("history");
    assert!(history.page(&RoomId::new("room"), page).await.expect("a page").foreign);
    node.shutdown().await;
}

/// Beyond what a read may scan nothing is claimed, unless memory knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_scan_is_bounded() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let bounded = format!("{LOG_ONLY}\nhistory_scan_messages_max = 1000");
    let remembers = bounded.replace("history_messages = 0", "history_messages = 50");
    let node = Node::connect(kafka, &namespace, "node", &remembers).await;
    let since = node.join("room").await;
    publish_missed(&node, 3).await;
    publish_all(&node, (0..1500).map(|number| (format!("room {}", number % 7), "x".to_owned()))).await;
    let fresh = Node::connect(kafka, &namespace, "fresh", &bounded).await;
    fresh.join("room").await;
    assert_eq!(missed(&fresh, "room", since).await, None, "1503 records are more than 1000");
    assert_eq!(missed(&node, "room", since).await, Some(numbered(3)), "but this node has them in memory");
    // More messages than were asked for.
    assert!(matches!(resume(&node, "room", since, 2).await, Resumed::Incomplete { .. }));
    node.shutdown().await;
    fresh.shutdown().await;
}

/// Pages from both ends, out of memory and out of the log.
#[tokio::test(flavor = "multi_thread")]
async fn pages_of_history() {
    let broker = shared_broker();
    let kafka = broker.kafka().expect("an address");
    for history_messages in [0, 300] {
        let namespace = namespace();
        let settings =
            LOG_ONLY.replace("history_messages = 0", &format!("history_messages = {history_messages}"));
        let node = Node::connect(kafka, &namespace, "node", &settings).await;
        node.join("room").await;
        publish_missed(&node, 20).await;
        let (room, history) = (RoomId::new("room"), node.backplane.history().expect("history"));
        let page = async |since, limit, reverse| {
            history.page(&room, PageQuery { since, limit, reverse }).await.expect("a page")
        };
        let texts = |page: &manifold_strategies::Page| page.messages.iter().map(text).collect::<Vec<_>>();
        let all = numbered(20);
        let top = page(None, 0, false).await;
        assert_eq!((top.messages.len(), top.top.offset), (0, 20));
        let first = page(None, 5, false).await;
        assert_eq!(texts(&first), all[..5]);
        let next = page(Some(first.messages[4].position), 5, false).await;
        assert_eq!(texts(&next), all[5..10]);
        let newest = page(None, 3, true).await;
        assert_eq!(texts(&newest), ["missed 19", "missed 18", "missed 17"]);
        let before = page(Some(newest.messages[2].position), 2, true).await;
        assert_eq!(texts(&before), ["missed 16", "missed 15"]);
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counter_example_has_no_history() {
    let broker = shared_broker();
    let kafka = broker.kafka().expect("an address");
    let node = Node::of("kafka-shared-group", kafka, &namespace(), "node", "partitions = 2").await;
    assert!(node.backplane.history().is_none());
    node.shutdown().await;
}

/// Rooms of different partitions have numberings of their own.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_have_epochs_of_their_own() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", "partitions = 4").await;
    let other = Node::connect(kafka, &namespace, "other", "partitions = 4").await;
    let mut epochs = HashSet::new();
    for room in rooms_apart(4, 4) {
        let epoch = node.join(&room).await.epoch;
        assert_eq!(other.join(&room).await.epoch, epoch, "the same on every node");
        epochs.insert(epoch);
    }
    assert_eq!(epochs.len(), 4);
    node.shutdown().await;
    other.shutdown().await;
}
