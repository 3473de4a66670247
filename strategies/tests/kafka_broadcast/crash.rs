//! Nodes that die without a word.

use std::time::{Duration, Instant};

use manifold_strategies::Backplane;
use manifold_strategies::kafka_broadcast::KafkaBroadcast;

use crate::brokers::{address, shared};
use crate::node::{Node, Stream, namespace, run, start};
use crate::stopped::{CHILD_SETTINGS, LONG_LEASE, OWN_PAUSE_MAX, start_child};

#[test]
fn a_crashed_node_is_expelled_and_nobody_else_notices() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let survivor = Node::start(&kafka, &namespace, "survivor", LONG_LEASE).await;
        let (mut victim, _told) = start_child(&kafka, &namespace, LONG_LEASE).await;
        let witness = Node::start(&kafka, &namespace, "witness", LONG_LEASE).await;
        let stream = Stream::start(&survivor);
        survivor.inbox.wait_for(100).await;
        victim.kill().and_then(|()| victim.wait()).expect("killed with SIGKILL");
        let crashed = Instant::now();
        // It is a member until its lease ends: a node that joins meanwhile waits for its acknowledgement in vain.
        let joins = Node::start(&kafka, &namespace, "joins", LONG_LEASE).await;
        let from = stream.next();
        println!("a node that joined after the crash was effective {:?} after it", crashed.elapsed());
        let stats = survivor.backplane.stats();
        let (writes, publishes) = (stats.broker_writes.get(), stats.publishes.get());
        survivor.inbox.wait_for(stream.next() + 200).await;
        let (wrote, published) = (stats.broker_writes.get() - writes, stats.publishes.get() - publishes);
        assert!(
            wrote <= 3 * published + 3,
            "{wrote} writes for {published} publishes: the dead is still written to"
        );
        let last = stream.finish().await;
        for (who, node, from) in
            [("survivor", &survivor, 0), ("witness", &witness, 0), ("joins", &joins, from)]
        {
            node.inbox.wait_for(last).await;
            node.inbox.assert_complete(who, from, last);
        }
        let pause = survivor.inbox.longest_pause().max(witness.inbox.longest_pause());
        println!("longest pause that the room saw around the crash: {pause:?}");
        assert!(pause < OWN_PAUSE_MAX, "survivors read their own partitions and do not wait");
        survivor.shutdown().await;
        witness.shutdown().await;
        joins.shutdown().await;
    });
}

/// A start that is given up: the node leaves again, rather than being written to until its lease ends.
#[test]
fn a_connect_that_is_given_up_leaves_no_member() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let survivor = Node::start(&kafka, &namespace, "survivor", "").await;
        let (mut dead, _told) = start_child(&kafka, &namespace, CHILD_SETTINGS).await;
        dead.kill().and_then(|()| dead.wait()).expect("killed with SIGKILL");
        // The dead member is awaited for its lease, 4 s.
        let (given_up, _) = start(&kafka, &namespace, "given up", "lease_ms = 20000");
        let connecting = tokio::time::timeout(Duration::from_secs(1), KafkaBroadcast::connect(given_up));
        assert!(connecting.await.is_err(), "connected without the acknowledgement of a dead member");
        let stats = survivor.backplane.stats();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (writes, publishes) = (stats.broker_writes.get(), stats.publishes.get());
            survivor.publish(publishes).await.expect("published");
            // Its own partition only: both others are gone, one by its lease and one by its own word.
            if stats.broker_writes.get() - writes == 1 {
                break;
            }
            assert!(Instant::now() < deadline, "who gave up is still written to");
        }
        survivor.shutdown().await;
    });
}
