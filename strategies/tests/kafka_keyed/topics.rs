//! Somebody deletes the topic while it is in use, or adds partitions to it.

use std::time::{Duration, Instant};

use manifold_strategies::{ErrorKind, Event, PageQuery, Resumed, RoomId, find};

use crate::faults::Stream;
use crate::harness::{DEADLINE, Node, delete_topic, grow_topic, namespace, own_broker, shared_broker, start};

const TOP: PageQuery = PageQuery { since: None, limit: 0, reverse: false };

/// Publishes the same until it is acknowledged; every refusal must be a temporary one.
async fn publish_until_acknowledged(node: &Node, room: &str, text: &str) {
    let deadline = Instant::now() + DEADLINE;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let envelope = crate::harness::envelope(room, text);
    loop {
        match node.backplane.publish(envelope.clone()).await {
            Ok(_) => return,
            Err(error) => {
                assert!(error.is_temporary(), "{error}");
                assert!(Instant::now() < deadline, "{error}");
            }
        }
        pace.tick().await;
    }
}

/// The topic is created anew by the nodes that need it; positions are of another epoch, the loss is declared.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_deleted_while_it_is_used() {
    let broker = own_broker();
    let kafka = broker.kafka().expect("an address");
    for consume in ["all", "demand", "group"] {
        let (namespace, room) = (namespace(), "room");
        let settings = format!("consume = '{consume}'\npartitions = 4\nmessage_timeout_ms = 2000");
        let publisher = Node::connect(kafka, &namespace, "publisher", &settings).await;
        let member = Node::connect(kafka, &namespace, "member", &settings).await;
        let since = member.join(room).await;
        for number in 0..20 {
            publisher.publish(room, &format!("before {number}")).await;
        }
        member.inbox.wait_for("before 19").await;

        delete_topic(kafka, &format!("{namespace}.rooms")).await;
        delete_topic(kafka, &format!("{namespace}.rooms.bell")).await;
        let deleted = Instant::now();
        publish_until_acknowledged(&publisher, room, "after").await;
        println!("{consume}: acknowledged {:.2?} after the topic was deleted", deleted.elapsed());
        member.inbox.wait_for("after").await;
        println!("{consume}: delivered {:.2?} after the topic was deleted", deleted.elapsed());
        let declared = |event: &Event| matches!(event, Event::Gap { room: gap, .. } if gap.as_str() == room);
        let events = member.inbox.events();
        let gap = events.iter().position(declared).expect("a declared gap");
        let after = events.iter().position(
            |event| matches!(event, Event::Message(message) if crate::harness::text(message) == "after"),
        );
        assert!(Some(gap) < after, "{consume}: declared before what follows");
        assert!(member.backplane.stats().gaps.get() >= 1);

        let last = member.inbox.messages().last().expect("the message").position;
        assert_ne!(last.epoch, since.epoch, "{consume}: another epoch");
        // Nothing is claimed about the old topic, on either node; and both agree about the new one.
        for node in [&publisher, &member] {
            let history = node.backplane.history().expect("history");
            let deadline = Instant::now() + DEADLINE;
            let mut look = tokio::time::interval(Duration::from_millis(20));
            while history.page(&RoomId::new(room), TOP).await.expect("a page").top.epoch != last.epoch {
                look.tick().await;
                assert!(Instant::now() < deadline, "{consume}: a node still counts by the old topic");
            }
            let resumed = history.resume(&RoomId::new(room), since, 300).await.expect("an answer");
            assert!(matches!(resumed, Resumed::Incomplete { .. }), "{consume}: {resumed:?}");
        }
        publish_until_acknowledged(&member, room, "the end").await;
        member.inbox.wait_for("the end").await;
        publisher.shutdown().await;
        member.shutdown().await;
    }
}

/// Partitions that somebody adds are not used: rooms stay where they are, in order, on old nodes and new ones.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_added_while_messages_flow() {
    let broker = shared_broker();
    let kafka = broker.kafka().expect("an address");
    for consume in ["all", "demand", "group"] {
        let (namespace, room) = (namespace(), "busy");
        let settings = format!("consume = '{consume}'\npartitions = 4\ndedicated_partitions = 1");
        let publisher = Node::connect(kafka, &namespace, "publisher", &settings).await;
        let member = Node::connect(kafka, &namespace, "member", &settings).await;
        let since = member.join(room).await;
        let stream = Stream::start(&publisher, room);
        stream.wait_for(50).await;
        grow_topic(kafka, &format!("{namespace}.rooms"), 9).await;
        stream.wait_for(stream.count() + 50).await;
        // A node that comes later finds nine partitions and uses the five that were agreed on.
        let late = Node::connect(kafka, &namespace, "late", &settings).await;
        late.join(room).await;
        publisher.publish(room, "from here on").await;
        stream.wait_for(stream.count() + 50).await;
        let (acknowledged, failed) = stream.finish().await;
        assert_eq!(failed, 0, "{consume}");
        let last = late.publish(room, "the end").await;
        assert_eq!(last.epoch, since.epoch, "{consume}: the same partition of the same topic");
        for node in [&member, &late] {
            node.inbox.wait_for("the end").await;
            let offsets: Vec<u64> = node.inbox.messages().iter().map(|m| m.position.offset).collect();
            assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1), "{consume}: {offsets:?}");
            assert!(node.inbox.messages().iter().all(|m| m.position.epoch == since.epoch), "{consume}");
        }
        assert_eq!(member.inbox.messages().len(), acknowledged.len() + 2, "{consume}");
        // Other numbers are refused, also those that the topic seems to have now.
        let (other, _) = start(kafka, &namespace, "other", "partitions = 8\ndedicated_partitions = 1");
        let error = (find("kafka-keyed").expect("registered").connect)(other).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`partitions` = 4"), "{error}");
        for node in [publisher, member, late] {
            node.shutdown().await;
        }
    }
}
