//! Nodes that come and go in good order.

use std::time::{Duration, Instant};

use manifold_strategies::{Backplane, ErrorKind};

use crate::brokers::{address, shared};
use crate::node::{Node, Stream, namespace, run, start};

/// What the room may see when a node joins or leaves.
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[test]
fn grows_beyond_its_partitions_while_messages_flow() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "n0", "partitions = 1").await;
        let stream = Stream::start(&first);
        let mut newcomers = Vec::new();
        for name in ["n1", "n2", "n3"] {
            first.inbox.wait_for(stream.next() + 50).await;
            let asked = Instant::now();
            let node = Node::start(&kafka, &namespace, name, "partitions = 1").await;
            let from = stream.next();
            println!("{name} effective after {:?}", asked.elapsed());
            newcomers.push((name, node, from));
        }
        first.inbox.wait_for(stream.next() + 100).await;
        let last = stream.finish().await;
        first.inbox.wait_for(last).await;
        first.inbox.assert_complete("n0", 0, last);
        for (name, node, from) in &newcomers {
            node.inbox.wait_for(last).await;
            node.inbox.assert_complete(name, *from, last);
        }
        let pause = first.inbox.longest_pause();
        println!("longest pause that the room saw while three nodes joined: {pause:?}");
        assert!(pause < PAUSE_MAX);
        first.shutdown().await;
        for (_, node, _) in newcomers {
            node.shutdown().await;
        }
    });
}

#[test]
fn a_leaving_node_is_dropped_at_once_and_its_partition_is_used_again() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let stays = Node::start(&kafka, &namespace, "stays", "").await;
        let leaves = Node::start(&kafka, &namespace, "leaves", "").await;
        let stream = Stream::start(&stays);
        stays.inbox.wait_for(100).await;
        leaves.shutdown().await;
        let left_at = Instant::now();
        let writes = || stays.backplane.stats().broker_writes.get();
        let publishes = || stays.backplane.stats().publishes.get();
        // One write per publish again: the leaver's partition is no longer written to.
        let settled = |_: &_| {
            let (writes_before, publishes_before) = (writes(), publishes());
            writes_before < 2 * publishes_before && left_at.elapsed() > Duration::from_millis(300)
        };
        stays.inbox.wait_until("the leaver's partition to be dropped", settled).await;
        let (writes_then, publishes_then) = (writes(), publishes());
        stays.inbox.wait_for(stream.next() + 50).await;
        let (wrote, published) = (writes() - writes_then, publishes() - publishes_then);
        assert!(wrote <= published + 2, "{wrote} writes for {published} publishes");
        // The next node takes the partition over and hears nothing of what was written for the other.
        let before = stream.next();
        let successor = Node::start(&kafka, &namespace, "successor", "").await;
        let from = stream.next();
        stays.inbox.wait_for(from + 50).await;
        let last = stream.finish().await;
        successor.inbox.wait_for(last).await;
        stays.inbox.wait_for(last).await;
        stays.inbox.assert_complete("stays", 0, last);
        successor.inbox.assert_complete("successor", from, last);
        assert!(successor.inbox.numbers()[0] + 1 >= before, "stale messages");
        println!("longest pause that the room saw on leave and takeover: {:?}", stays.inbox.longest_pause());
        assert!(stays.inbox.longest_pause() < PAUSE_MAX);
        stays.shutdown().await;
        successor.shutdown().await;
    });
}

#[test]
fn a_second_process_of_one_name_supersedes_the_first() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "same", "").await;
        let second = Node::start(&kafka, &namespace, "same", "").await;
        let deadline = Instant::now() + Duration::from_secs(10);
        let error = loop {
            match first.publish(1).await {
                Err(error) => break error,
                Ok(_) => assert!(Instant::now() < deadline, "the first still publishes"),
            }
        };
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("name"), "{error}");
        let failed = first.backplane.failed().expect("the first says that it is of no use any more");
        assert!(failed.to_string().contains("name"), "{failed}");
        assert_eq!(first.backplane.stats().gaps.get(), 1);
        assert!(second.backplane.failed().is_none());
        second.publish(2).await.expect("the second goes on");
        second.inbox.wait_for(2).await;
        first.shutdown().await;
        second.shutdown().await;
    });
}

#[test]
fn nodes_that_start_at_once_all_become_members() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let names = ["a", "b", "c", "d"];
        let starting = names.map(|name| {
            let (kafka, namespace) = (kafka.clone(), namespace.clone());
            tokio::spawn(async move { Node::start(&kafka, &namespace, name, "partitions = 1").await })
        });
        let mut nodes = Vec::new();
        for node in starting {
            nodes.push(node.await.expect("the node starts"));
        }
        for (number, node) in (0..).zip(&nodes) {
            node.publish(number).await.expect("published");
        }
        for node in &nodes {
            node.inbox.wait_until("all four", |inbox| inbox.numbers().len() == 4).await;
        }
        for node in nodes {
            node.shutdown().await;
        }
    });
}

#[test]
fn wrong_settings_are_refused_before_connecting() {
    run(async {
        let (start, _) = start("127.0.0.1:1", "ns", "n", "hold = 9");
        let refused = manifold_strategies::kafka_broadcast::KafkaBroadcast::connect(start).await;
        let error = refused.expect_err("hold is 8 at most");
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("hold"), "{error}");
    });
}
