//! A topic is deleted while it is in use: it is created anew, what is lost is declared, and all goes on.

use std::time::{Duration, Instant};

use manifold_compose::KafkaTopology;
use manifold_strategies::{Backplane, PageQuery, Resumed, RoomId};

use crate::brokers::{address, own};
use crate::node::{DEADLINE, Node, ROOM, envelope, namespace, run};
use crate::resume::delete_topic;

const SETTINGS: &str = "publish_timeout_ms = 2000";
const TOP: PageQuery = PageQuery { since: None, limit: 0, reverse: false };

/// Publishes the same until it is acknowledged; every refusal must be a temporary one.
async fn publish_until_acknowledged(node: &Node, number: u64) {
    let deadline = Instant::now() + DEADLINE;
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    let message = envelope(number);
    while let Err(error) = node.backplane.publish(message.clone()).await {
        assert!(error.is_temporary(), "{error}");
        assert!(Instant::now() < deadline, "{error}");
        pace.tick().await;
    }
}

/// Waits until both nodes have declared a loss, and hear each other again.
async fn goes_on_after_a_declared_loss(first: &Node, other: &Node) {
    let begun = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(50));
    let mut number = 1_000;
    let declared = |node: &Node| node.backplane.stats().gaps.get() > 0 && node.inbox.gaps() > 0;
    while !declared(first) || !declared(other) {
        pace.tick().await;
        publish_until_acknowledged(first, number).await;
        number += 1;
        assert!(
            begun.elapsed() < DEADLINE,
            "not declared: {:?} {:?}",
            first.backplane.stats(),
            other.backplane.stats()
        );
    }
    println!("both nodes had declared the loss after {:.2?}", begun.elapsed());
    publish_until_acknowledged(first, 2_000).await;
    publish_until_acknowledged(other, 2_001).await;
    for node in [first, other] {
        node.wait_for(2_000).await;
        node.wait_for(2_001).await;
    }
}

#[test]
fn the_data_topic_deleted_while_it_is_used() {
    let environment = own(KafkaTopology::Single);
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", SETTINGS).await;
        let other = Node::start(&kafka, &namespace, "other", SETTINGS).await;
        for number in 0..20 {
            first.publish(number).await.expect("published");
        }
        other.wait_for(19).await;
        let history = other.backplane.history().expect("history");
        let since = history.page(&RoomId::new(ROOM), TOP).await.expect("a page").top;
        delete_topic(&kafka, &format!("{namespace}.broadcast")).await;
        goes_on_after_a_declared_loss(&first, &other).await;
        for node in [&first, &other] {
            let history = node.backplane.history().expect("history");
            let resumed = history.resume(&RoomId::new(ROOM), since, 300).await.expect("an answer");
            assert!(matches!(resumed, Resumed::Incomplete { .. }), "{resumed:?}");
            assert_eq!(node.backplane.stats().gaps.get(), 1, "it is lost once");
        }
        first.shutdown().await;
        other.shutdown().await;
    });
}

#[test]
fn the_control_topic_deleted_while_it_is_used() {
    let environment = own(KafkaTopology::Single);
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", SETTINGS).await;
        let other = Node::start(&kafka, &namespace, "other", SETTINGS).await;
        first.publish(0).await.expect("published");
        other.wait_for(0).await;
        delete_topic(&kafka, &format!("{namespace}.members")).await;
        goes_on_after_a_declared_loss(&first, &other).await;
        // A node that comes now finds the others.
        let late = Node::start(&kafka, &namespace, "late", SETTINGS).await;
        publish_until_acknowledged(&first, 3_000).await;
        publish_until_acknowledged(&late, 3_001).await;
        for node in [&first, &other, &late] {
            node.wait_for(3_000).await;
            node.wait_for(3_001).await;
        }
        for node in [first, other, late] {
            node.shutdown().await;
        }
    });
}
