//! Brokers that fail: writes that reach some partitions only, and a broker that comes back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_compose::KafkaTopology;
use manifold_strategies::kafka_broadcast::KafkaBroadcast;
use manifold_strategies::{Backplane, ErrorKind};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::brokers::{address, own, shared};
use crate::node::{DEADLINE, Node, Stream, envelope, namespace, run, start};

/// Which broker leads each partition of a topic.
fn leaders(kafka: &str, topic: &str) -> Vec<(i32, i32)> {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), DEADLINE).expect("the cluster answers");
    let topic = metadata.topics().first().expect("the topic");
    topic.partitions().iter().map(|partition| (partition.id(), partition.leader())).collect()
}

/// Three brokers without replication, one of which stands still: its partitions cannot be written to.
#[test]
fn a_write_that_reaches_some_partitions_is_reported_and_its_retry_arrives_once() {
    const SETTINGS: &str = "replication = 1\npartitions = 3\npublish_timeout_ms = 1500";
    let environment = own(KafkaTopology::Three);
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let mut nodes = Vec::new();
        for name in ["a", "b", "c"] {
            nodes.push(Node::start(&kafka, &namespace, name, SETTINGS).await);
        }
        let control = leaders(&kafka, &format!("{namespace}.members"))[0].1;
        let data = leaders(&kafka, &format!("{namespace}.broadcast"));
        // Not the broker that keeps the control log: without that one nobody may write at all.
        let victim = data.iter().map(|&(_, leader)| leader).find(|leader| *leader != control);
        let victim = victim.expect("three partitions lie on three brokers");
        let unwritable = data.iter().filter(|(_, leader)| *leader == victim).count();
        let process = environment.process(&format!("kafka-{victim}")).expect("the broker");
        process.stop().expect("the broker stops");

        let message = envelope(7);
        let error =
            nodes[0].backplane.publish(message.clone()).await.expect_err("one partition cannot be written");
        assert_eq!(error.kind(), ErrorKind::PartialWrite, "{error}");
        assert!(error.is_temporary());
        assert!(error.to_string().contains(&format!("{unwritable} of 3")), "{error}");

        process.cont().expect("the broker continues");
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = nodes[0].backplane.publish(message.clone()).await {
            assert!(error.is_temporary(), "{error}");
            assert!(Instant::now() < deadline, "{error}");
        }
        // A message of its own behind it shows that nothing more of it will come.
        nodes[0].publish(8).await.expect("published");
        let mut removed = 0;
        for node in nodes {
            node.wait_for(8).await;
            assert_eq!(node.inbox.numbers(), [7, 8]);
            removed += node.backplane.stats().duplicates_removed.get();
            node.shutdown().await;
        }
        assert!(removed > 0, "the retry repeated the writes that had succeeded");
    });
}

/// A broker that is killed and comes back: nothing that was accepted is lost, nobody is expelled.
#[test]
fn a_broker_that_restarts_costs_a_pause_and_nothing_else() {
    const SETTINGS: &str = "publish_timeout_ms = 20000";
    let environment = Arc::new(own(KafkaTopology::Single));
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", SETTINGS).await;
        let member = Node::start(&kafka, &namespace, "member", SETTINGS).await;
        let stream = Stream::start(&publisher);
        member.wait_for(200).await;
        let restarted = Arc::clone(&environment);
        let restart = tokio::task::spawn_blocking(move || {
            let broker = restarted.process("kafka-1").expect("the broker");
            broker.kill().and_then(|()| broker.restart()).expect("the broker comes back");
        });
        restart.await.expect("restarted");
        member.wait_for(stream.next() + 200).await;
        let last = stream.finish().await;
        for (who, node) in [("publisher", publisher), ("member", member)] {
            node.wait_for(last).await;
            node.inbox.assert_complete(who, 0, last);
            println!(
                "{who}: the room paused for {:?} while the broker restarted",
                node.inbox.longest_pause()
            );
            assert!(node.inbox.longest_pause() < Duration::from_secs(20));
            assert_eq!(node.backplane.stats().gaps.get(), 0);
            node.shutdown().await;
        }
    });
}

/// One of three brokers is killed: its partitions move to another replica.
#[test]
fn a_killed_broker_of_three_costs_a_pause_and_nothing_else() {
    const SETTINGS: &str = "publish_timeout_ms = 20000";
    let environment = own(KafkaTopology::Three);
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", SETTINGS).await;
        let member = Node::start(&kafka, &namespace, "member", SETTINGS).await;
        let stream = Stream::start(&publisher);
        member.wait_for(200).await;
        // The one that keeps the control log: the worst choice.
        let victim = leaders(&kafka, &format!("{namespace}.members"))[0].1;
        environment.process(&format!("kafka-{victim}")).expect("the broker").kill().expect("killed");
        let from = stream.next();
        member.wait_for(from + 200).await;
        publisher.wait_for(from + 200).await;
        let last = stream.finish().await;
        for (who, node) in [("publisher", publisher), ("member", member)] {
            node.wait_for(last).await;
            node.inbox.assert_complete(who, 0, last);
            println!(
                "{who}: the room paused for {:?} after a broker of three was killed",
                node.inbox.longest_pause()
            );
            node.shutdown().await;
        }
    });
}

/// A publisher that is faster than its bounds: what does not fit is refused as a whole.
#[test]
fn a_flood_is_refused_as_a_whole_or_delivered_as_a_whole() {
    const SETTINGS: &str = "in_flight_writes_max = 1000";
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", SETTINGS).await;
        let member = Node::start(&kafka, &namespace, "member", SETTINGS).await;
        let sent: Vec<_> = (0..20_000).map(|number| publisher.backplane.publish(envelope(number))).collect();
        let mut accepted = Vec::new();
        for (number, outcome) in (0u64..).zip(sent) {
            match outcome.await {
                Ok(_) => accepted.push(number),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Overloaded, "{error}"),
            }
        }
        assert!((500..20_000).contains(&accepted.len()), "{} accepted", accepted.len());
        for node in [publisher, member] {
            node.inbox.wait_until("what was accepted", |inbox| inbox.numbers().len() >= accepted.len()).await;
            assert!(node.inbox.numbers() == accepted, "accepted and arrived differ");
            node.shutdown().await;
        }
    });
}

/// A broker that stands still is noticed within two seconds: publishes are refused at once, for a while, and readers are told.
#[test]
fn a_frozen_broker_is_declared_within_two_seconds() {
    let environment = own(KafkaTopology::Single);
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", "").await;
        let member = Node::start(&kafka, &namespace, "member", "").await;
        publisher.publish(0).await.expect("published");
        member.wait_for(0).await;
        let process = environment.process("kafka-1").expect("the broker");
        process.stop().expect("the broker stops");
        let (frozen, mut last, mut late) = (Instant::now(), Instant::now(), Duration::ZERO);
        let mut pace = tokio::time::interval(Duration::from_millis(10));
        let refused = loop {
            pace.tick().await;
            // How late a busy machine lets anybody be.
            late = late.max(last.elapsed());
            last = Instant::now();
            // One that is on its way waits for its outcome; whoever comes later is refused at once.
            let outcome = publisher.backplane.publish(envelope(1));
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_millis(1), outcome).await {
                break error;
            }
            assert!(frozen.elapsed() < DEADLINE, "publishes are still accepted");
        };
        let noticed = frozen.elapsed();
        println!("refused {noticed:.2?} after the broker froze: {refused}");
        assert!(refused.is_temporary() && refused.kind() == ErrorKind::Unreachable, "{refused}");
        let stats = member.backplane.stats();
        member.inbox.wait_until("a broken link", |_| stats.links_down.get() > 0).await;
        let told = frozen.elapsed();
        println!("readers were told {told:.2?} after the broker froze");
        // Two seconds are promised; other tests run beside this one.
        assert!(noticed.max(told) < Duration::from_secs(3) + 3 * late, "{noticed:?} {told:?}");
        member.inbox.wait_until("an unknown lag", |_| stats.lag_messages.get() == -1).await;

        process.cont().expect("the broker continues");
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = publisher.publish(2).await {
            assert!(error.is_temporary(), "{error}");
            assert!(Instant::now() < deadline, "{error}");
            pace.tick().await;
        }
        member.wait_for(2).await;
        member
            .inbox
            .wait_until("the link", |inbox| stats.links_down.get() == 0 && inbox.reconnects() > 0)
            .await;
        assert_eq!((stats.gaps.get(), member.inbox.gaps()), (0, 0), "nothing was lost");
        publisher.shutdown().await;
        member.shutdown().await;
    });
}

/// Two of three brokers are killed: nothing is acknowledged that could be lost. They come back: all goes on.
#[test]
fn two_of_three_brokers_are_killed_and_come_back() {
    const SETTINGS: &str = "publish_timeout_ms = 2000";
    let environment = Arc::new(own(KafkaTopology::Three));
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let publisher = Node::start(&kafka, &namespace, "publisher", SETTINGS).await;
        let member = Node::start(&kafka, &namespace, "member", SETTINGS).await;
        publisher.publish(0).await.expect("published");
        member.wait_for(0).await;
        for name in ["kafka-2", "kafka-3"] {
            environment.process(name).expect("the broker").kill().expect("killed");
        }
        for number in 1..4 {
            let error = publisher.publish(number).await.expect_err("one replica is not enough");
            println!("two of three are gone: {error}");
            assert!(error.is_temporary(), "{error}");
        }
        let restarted = Arc::clone(&environment);
        let restart = tokio::task::spawn_blocking(move || {
            for name in ["kafka-2", "kafka-3"] {
                restarted.process(name).expect("the broker").restart().expect("the broker comes back");
            }
        });
        restart.await.expect("restarted");
        let deadline = Instant::now() + DEADLINE;
        let message = envelope(4);
        while let Err(error) = publisher.backplane.publish(message.clone()).await {
            assert!(error.is_temporary(), "{error}");
            assert!(Instant::now() < deadline, "{error}");
        }
        member.wait_for(4).await;
        let numbers = member.inbox.numbers();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "in order, each once: {numbers:?}");
        publisher.shutdown().await;
        member.shutdown().await;
    });
}

/// A broker that is not there yet: refused with the remedy, or waited for.
#[test]
fn an_absent_broker_is_named_or_waited_for() {
    let environment = Arc::new(own(KafkaTopology::Single));
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        environment.process("kafka-1").expect("the broker").kill().expect("killed");
        let (mut refused, _) = start(&kafka, &namespace, "refused", "");
        refused.connect_retry = None;
        let error = KafkaBroadcast::connect(refused).await.expect_err("nobody there");
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.to_string().contains(&kafka) && error.to_string().contains("--kafka"), "{error}");
        let (waiting, _) = start(&kafka, &namespace, "waiting", "");
        let connecting = tokio::spawn(KafkaBroadcast::connect(waiting));
        let restarted = Arc::clone(&environment);
        let restart = tokio::task::spawn_blocking(move || {
            restarted.process("kafka-1").expect("the broker").restart().expect("the broker comes up");
        });
        restart.await.expect("restarted");
        let node = connecting.await.expect("a task").expect("connected once the broker was there");
        node.shutdown().await.expect("the node shuts down");
    });
}
