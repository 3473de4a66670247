//! Starting: absent brokers, disagreeing nodes, secrets.

use std::time::{Duration, Instant};

use manifold_strategies::{ErrorKind, RoomId, find};

use crate::harness::{Node, namespace, own_broker, shared_broker, start};

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_disagree_about_partitions_are_refused() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "first", "partitions = 8").await;
    let (other, _) = start(kafka, &namespace, "second", "partitions = 16");
    let error = (find("kafka-keyed").expect("registered").connect)(other).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(
        error.to_string().contains("has 12 partitions")
            && error.to_string().contains("`partitions` = 8")
            && !error.is_temporary(),
        "{error}"
    );
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absent_broker_is_named_or_waited_for() {
    let broker = own_broker();
    let process = broker.process("kafka-1").expect("the broker's process").clone();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    process.kill().expect("killed");
    let keyed = find("kafka-keyed").expect("registered");
    let (mut refused, _) = start(kafka, &namespace, "refused", "partitions = 2");
    refused.connect_retry = None;
    let error = (keyed.connect)(refused).await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains(kafka), "{error}");
    let (waiting, _) = start(kafka, &namespace, "waiting", "partitions = 2");
    let connected = tokio::spawn((keyed.connect)(waiting));
    tokio::task::spawn_blocking(move || process.restart()).await.expect("a thread").expect("restarted");
    let node = connected.await.expect("a task").expect("connected once the broker was there");
    node.shutdown().await.expect("a clean shutdown");
}

/// Two thousand nodes' worth of threads would show: every thread of a node ends with it, shut down or dropped.
#[tokio::test(flavor = "multi_thread")]
async fn threads_end_with_their_node() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    for round in 0..4 {
        let node = Node::connect(kafka, &namespace, "node", "consume = 'demand'\npartitions = 2").await;
        node.join("room").await;
        let inbox = std::sync::Arc::downgrade(&node.inbox);
        if round % 2 == 0 {
            node.shutdown().await;
        } else {
            drop(node);
        }
        // The reading thread owns the entrance: when it is gone, so is the inbox.
        let deadline = std::time::Instant::now() + crate::harness::DEADLINE;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while inbox.strong_count() > 0 {
            look.tick().await;
            assert!(std::time::Instant::now() < deadline, "the reading thread still runs");
        }
    }
}

/// Whatever the node waits for, a shutdown does not wait longer than it may.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_is_bounded_while_the_broker_stands_still() {
    let broker = own_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    for consume in ["all", "demand", "group"] {
        let settings = format!("consume = '{consume}'\npartitions = 8\nshutdown_timeout_ms = 1000");
        let node = Node::connect(kafka, &namespace, consume, &settings).await;
        let process = broker.process("kafka-1").expect("the broker's process");
        process.stop().expect("stopped");
        // On demand this makes the keeper ask the broker, which takes seconds to fail.
        let joining = node.backplane.join(&RoomId::new("room"));
        let joining = tokio::spawn(joining);
        let begun = Instant::now();
        let ended = node.backplane.shutdown().await;
        let took = begun.elapsed();
        process.cont().expect("continued");
        println!("{consume}: shut down after {took:.2?}: {ended:?}");
        // Who asked the silent broker would wait for five seconds.
        assert!(took < Duration::from_secs(3), "{consume}: {took:?}");
        // Answered either way.
        let _ = joining.await.expect("a task");
    }
}
