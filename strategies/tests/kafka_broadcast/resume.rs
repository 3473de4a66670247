//! History across the copies: a client goes on from its position on any node, and nothing is claimed that is not so.

use std::ops::Range;
use std::time::{Duration, Instant};

use manifold_strategies::{Backplane, Envelope, PageQuery, Position, Resumed, RoomId};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::brokers::{address, shared};
use crate::node::{DEADLINE, Node, ROOM, envelope, namespace, run};
use crate::stopped::{CHILD_SETTINGS, start_child};

const TOP: PageQuery = PageQuery { since: None, limit: 0, reverse: false };

async fn resume(node: &Node, since: Position, limit: usize) -> Resumed {
    let history = node.backplane.history().expect("history");
    history.resume(&RoomId::new(ROOM), since, limit).await.expect("an answer")
}

/// The numbers that were missed, if the answer is complete.
async fn missed(node: &Node, since: Position) -> Option<Vec<u64>> {
    match resume(node, since, 300).await {
        Resumed::Complete { messages, top } => {
            assert!(top.offset > 0);
            let number = |payload: &[u8]| std::str::from_utf8(payload).ok()?.parse().ok();
            Some(messages.iter().map(|m| number(&m.envelope.payload).expect("a number")).collect())
        }
        Resumed::Incomplete { .. } => None,
    }
}

fn all(numbers: Range<u64>) -> Option<Vec<u64>> {
    Some(numbers.collect())
}

/// Where a client stands that has everything so far.
async fn place(node: &Node) -> Position {
    let (room, history) = (RoomId::new(ROOM), node.backplane.history().expect("history"));
    // Answered when the node has delivered all that was published.
    history.page(&room, TOP).await.expect("a page");
    node.backplane.leave(&room).await.expect("left");
    node.backplane.join(&room).await.expect("joined")
}

async fn publish(node: &Node, numbers: Range<u64>) {
    let sent: Vec<_> = numbers.map(|number| node.backplane.publish(envelope(number))).collect();
    for sent in sent {
        sent.await.expect("published");
    }
}

/// Messages of rooms that nobody of these tests is in.
async fn publish_elsewhere(node: &Node, count: usize) {
    let elsewhere = |number| Envelope { room: RoomId::new(format!("room {}", number % 9)), ..envelope(0) };
    let sent: Vec<_> = (0..count).map(|number| node.backplane.publish(elsewhere(number))).collect();
    for sent in sent {
        sent.await.expect("published");
    }
}

#[test]
fn any_node_goes_on_from_a_position() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "").await;
        let other = Node::start(&kafka, &namespace, "other", "").await;
        publish(&other, 0..10).await;
        let since = place(&first).await;
        assert_ne!(since.epoch, place(&other).await.epoch, "each reads a copy of its own");
        publish(&other, 10..60).await;
        publish(&first, 60..110).await;
        assert_eq!(missed(&first, since).await, all(10..110), "the same node");
        assert_eq!(missed(&other, since).await, all(10..110), "the other node");
        let fresh = Node::start(&kafka, &namespace, "fresh", "").await;
        assert_eq!(missed(&fresh, since).await, all(10..110), "a node that has just started");
        assert!(matches!(resume(&fresh, since, 99).await, Resumed::Incomplete { .. }), "more than asked for");
        // From here on its position is one of another copy; what comes now is in all of them.
        let Resumed::Complete { top, .. } = resume(&fresh, since, 300).await else {
            panic!("complete before")
        };
        publish(&first, 110..120).await;
        for (who, node) in [("first", &first), ("other", &other), ("fresh", &fresh)] {
            assert_eq!(missed(node, top).await, all(110..120), "{who}");
        }
        for node in [first, other, fresh] {
            node.shutdown().await;
        }
    });
}

/// Memory is not needed: the same out of the log, and among many messages of other rooms.
#[test]
fn a_hundred_among_ten_thousand_of_other_rooms() {
    const SETTINGS: &str = "history_messages = 0";
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", SETTINGS).await;
        let other = Node::start(&kafka, &namespace, "other", SETTINGS).await;
        let since = place(&first).await;
        for number in 0..100 {
            publish_elsewhere(&other, 100).await;
            publish(&other, number..number + 1).await;
        }
        assert_eq!(missed(&first, since).await, all(0..100));
        assert_eq!(missed(&other, since).await, all(0..100));
        first.shutdown().await;
        other.shutdown().await;
    });
}

/// A partition that had another owner: what that one's members saw is new to this one's.
#[test]
fn what_a_former_owner_read_is_not_taken_for_seen() {
    const SETTINGS: &str = "history_messages = 0";
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", SETTINGS).await;
        let former = Node::start(&kafka, &namespace, "former", SETTINGS).await;
        let partition = place(&former).await.epoch & 0xffff;
        let message = envelope(7);
        first.backplane.publish(message.clone()).await.expect("published");
        former.shutdown().await;
        let heir = Node::start(&kafka, &namespace, "heir", SETTINGS).await;
        let since = place(&heir).await;
        assert_eq!(since.epoch & 0xffff, partition, "it has the partition of the one that left");
        first.backplane.publish(message).await.expect("published once more");
        publish(&first, 8..9).await;
        heir.wait_for(8).await;
        assert_eq!(heir.inbox.numbers(), [7, 8]);
        assert_eq!(missed(&heir, since).await, all(7..9), "what its members saw");
        for node in [first, heir] {
            node.shutdown().await;
        }
    });
}

#[test]
fn a_client_of_a_node_that_died_goes_on_elsewhere() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let survivor = Node::start(&kafka, &namespace, "survivor", CHILD_SETTINGS).await;
        let (mut victim, told) = start_child(&kafka, &namespace, CHILD_SETTINGS).await;
        let since = told.place();
        publish(&survivor, 0..10).await;
        victim.kill().and_then(|()| victim.wait()).expect("killed with SIGKILL");
        publish(&survivor, 10..20).await;
        assert_eq!(missed(&survivor, since).await, all(0..20), "it is a member still");
        let stats = survivor.backplane.stats();
        let (mut next, deadline) = (20, Instant::now() + DEADLINE);
        loop {
            let (writes, publishes) = (stats.broker_writes.get(), stats.publishes.get());
            publish(&survivor, next..next + 1).await;
            next += 1;
            if stats.broker_writes.get() - writes == stats.publishes.get() - publishes {
                break;
            }
            assert!(Instant::now() < deadline, "the dead is still written to");
            pace().await;
        }
        publish(&survivor, next..next + 10).await;
        next += 10;
        assert_eq!(missed(&survivor, since).await, all(0..next), "its copy ends before the others");
        // It gets the dead node's partition, and is not told everything by it.
        let fresh = Node::start(&kafka, &namespace, "fresh", CHILD_SETTINGS).await;
        assert_eq!(missed(&fresh, since).await, all(0..next), "a node that was not there all the time");
        survivor.shutdown().await;
        // Whoever was there in between is gone too, and its copy with it.
        publish(&fresh, next..next + 1).await;
        assert_eq!(missed(&fresh, since).await, None);
        fresh.shutdown().await;
    });
}

/// So that an answer of a few hundred messages is enough until the dead node is expelled.
async fn pace() {
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    pace.tick().await;
    pace.tick().await;
}

#[test]
fn what_retention_removed_is_not_claimed() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "history_messages = 0").await;
        let other = Node::start(&kafka, &namespace, "other", "history_messages = 0").await;
        let since = place(&first).await;
        publish(&first, 0..20).await;
        let now = place(&first).await;
        let partition = (since.epoch & 0xffff) as i32;
        let mut offsets = TopicPartitionList::new();
        let kept = Offset::Offset(now.offset as i64 - 5);
        offsets
            .add_partition_offset(&format!("{namespace}.broadcast"), partition, kept)
            .expect("a partition");
        admin(&kafka).delete_records(&offsets, &AdminOptions::new()).await.expect("records dropped");
        for (who, node) in [("first", &first), ("other", &other)] {
            assert_eq!(missed(node, since).await, None, "{who}");
        }
        let kept = Position { offset: now.offset - 5, ..since };
        assert_eq!(missed(&first, kept).await, all(15..20), "what is kept is enough for its own clients");
        first.shutdown().await;
        other.shutdown().await;
    });
}

#[test]
fn a_topic_created_anew_has_other_positions() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let node = Node::start(&kafka, &namespace, "node", "").await;
        publish(&node, 0..3).await;
        let since = place(&node).await;
        node.shutdown().await;
        delete_topic(&kafka, &format!("{namespace}.broadcast")).await;
        let node = Node::start(&kafka, &namespace, "node", "").await;
        publish(&node, 0..9).await;
        assert_eq!(missed(&node, since).await, None);
        let history = node.backplane.history().expect("history");
        let page = PageQuery { since: Some(since), limit: 5, reverse: false };
        assert!(history.page(&RoomId::new(ROOM), page).await.expect("a page").foreign);
        node.shutdown().await;
    });
}

#[test]
fn a_scan_is_bounded() {
    const SETTINGS: &str = "history_messages = 0\nhistory_scan_messages_max = 1000";
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "history_scan_messages_max = 1000").await;
        let other = Node::start(&kafka, &namespace, "other", SETTINGS).await;
        let since = place(&first).await;
        publish(&first, 0..3).await;
        publish_elsewhere(&first, 1_500).await;
        assert_eq!(missed(&other, since).await, None);
        assert_eq!(missed(&first, since).await, all(0..3), "this node has them in memory");
        first.shutdown().await;
        other.shutdown().await;
    });
}

/// Every node shows the same pages, one that has just started too.
#[test]
fn pages_of_history() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "").await;
        publish(&first, 0..20).await;
        let fresh = Node::start(&kafka, &namespace, "fresh", "").await;
        for node in [&first, &fresh] {
            let (room, history) = (RoomId::new(ROOM), node.backplane.history().expect("history"));
            let page = async |since, limit, reverse| {
                let page = history.page(&room, PageQuery { since, limit, reverse }).await.expect("a page");
                let text = |m: &manifold_strategies::Message| {
                    String::from_utf8_lossy(&m.envelope.payload).into_owned()
                };
                (page.messages.iter().map(text).collect::<Vec<_>>(), page.messages)
            };
            let (texts, messages) = page(None, 3, false).await;
            assert_eq!(texts, ["0", "1", "2"]);
            assert_eq!(page(Some(messages[2].position), 2, false).await.0, ["3", "4"]);
            let (texts, messages) = page(None, 2, true).await;
            assert_eq!(texts, ["19", "18"]);
            assert_eq!(page(Some(messages[1].position), 2, true).await.0, ["17", "16"]);
            // A position of a page is one to go on from.
            assert_eq!(missed(node, messages[1].position).await, all(19..20));
        }
        first.shutdown().await;
        fresh.shutdown().await;
    });
}

fn admin(kafka: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client")
}

/// Deletes a topic; returns when nobody sees it any more.
pub(crate) async fn delete_topic(kafka: &str, topic: &str) {
    let deleted = admin(kafka).delete_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let (kafka, topic) = (kafka.to_owned(), topic.to_owned());
    let gone = tokio::task::spawn_blocking(move || {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let metadata = client.fetch_metadata(Some(&topic), DEADLINE).expect("the cluster answers");
            if metadata.topics().iter().all(|found| found.error().is_some() || found.partitions().is_empty())
            {
                return;
            }
            assert!(Instant::now() < deadline, "{topic} is still there");
        }
    });
    gone.await.expect("a thread");
}
