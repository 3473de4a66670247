//! Brokers that are killed, stand still, or cannot write: three of them, and a full disk.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_compose::{Environment, KafkaTopology, Request};
use manifold_strategies::{ErrorKind, Event, Resumed, RoomId};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::faults::Stream;
use crate::harness::{DEADLINE, Node, envelope, namespace, own_broker, text};

/// Two seconds are promised; other tests run beside this one.
const NOTICED_MAX: Duration = Duration::from_secs(3);
const SETTINGS: &str = "partitions = 4\ndedicated_partitions = 0\nmessage_timeout_ms = 20000";

fn three() -> Arc<Environment> {
    let request = Request { kafka: Some(KafkaTopology::Three), ..Request::kafka() };
    Arc::new(Environment::start(&request).expect("three Kafka brokers"))
}

/// The name of the broker that leads a partition.
fn leader(kafka: &str, topic: &str, partition: i32) -> String {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let metadata = client.fetch_metadata(Some(topic), DEADLINE).expect("the cluster answers");
    let topic = metadata.topics().first().expect("the topic");
    let found = topic.partitions().iter().find(|found| found.id() == partition).expect("the partition");
    format!("kafka-{}", found.leader())
}

async fn restart(environment: &Arc<Environment>, names: &'static [&'static str]) {
    let environment = Arc::clone(environment);
    let restart = tokio::task::spawn_blocking(move || {
        for name in names {
            environment.process(name).expect("the broker").restart().expect("the broker comes back");
        }
    });
    restart.await.expect("restarted");
}

/// Everything that was acknowledged arrived once, and in its order, and can be read back from `since` on.
async fn is_whole(member: &Node, room: &str, since: manifold_strategies::Position, acknowledged: &[String]) {
    member.inbox.wait_for_all(acknowledged).await;
    let texts = member.inbox.texts();
    let distinct: HashSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "nothing twice");
    let history = member.backplane.history().expect("history");
    let resumed = history.resume(&RoomId::new(room), since, 100_000).await.expect("an answer");
    let Resumed::Complete { messages, .. } = resumed else { panic!("{resumed:?}") };
    assert_eq!(messages.iter().map(text).collect::<Vec<_>>(), texts, "history is what was delivered");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_three_brokers_is_killed() {
    let environment = three();
    let (kafka, namespace) = (environment.kafka().expect("an address"), namespace());
    let publisher = Node::connect(kafka, &namespace, "publisher", SETTINGS).await;
    let member = Node::connect(kafka, &namespace, "member", SETTINGS).await;
    let since = member.join("room").await;
    let stream = Stream::start(&publisher, "room");
    stream.wait_for(100).await;
    let victim = leader(kafka, &format!("{namespace}.rooms"), crate::harness::partition(since) as i32);
    environment.process(&victim).expect("the broker").kill().expect("killed");
    let killed = Instant::now();
    stream.wait_for(stream.count() + 200).await;
    println!("200 more were acknowledged {:.2?} after {victim} was killed", killed.elapsed());
    let (acknowledged, failed) = stream.finish().await;
    assert_eq!(failed, 0);
    is_whole(&member, "room", since, &acknowledged).await;
    publisher.shutdown().await;
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_of_three_brokers_are_killed_and_come_back() {
    let environment = three();
    let (kafka, namespace) = (environment.kafka().expect("an address"), namespace());
    let settings = SETTINGS.replace("20000", "2000");
    let publisher = Node::connect(kafka, &namespace, "publisher", &settings).await;
    let member = Node::connect(kafka, &namespace, "member", &settings).await;
    let since = member.join("room").await;
    let stream = Stream::start(&publisher, "room");
    stream.wait_for(100).await;
    for name in ["kafka-2", "kafka-3"] {
        environment.process(name).expect("the broker").kill().expect("killed");
    }
    // Those that were under way may have been written; one that comes now is refused.
    let error = publisher.backplane.publish(envelope("room", "alone")).await.expect_err("too few replicas");
    println!("two of three are gone: {error}");
    assert!(error.is_temporary(), "{error}");
    let before = stream.count();
    restart(&environment, &["kafka-2", "kafka-3"]).await;
    stream.wait_for(before + 100).await;
    let (acknowledged, failed) = stream.finish().await;
    println!("{} acknowledged, {failed} refused", acknowledged.len());
    is_whole(&member, "room", since, &acknowledged).await;
    publisher.shutdown().await;
    member.shutdown().await;
}

/// A broker that stands still is noticed within two seconds: publishes are refused at once, for a while, and readers are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker_is_declared_within_two_seconds() {
    let environment = own_broker();
    let (kafka, namespace) = (environment.kafka().expect("an address"), namespace());
    for consume in ["all", "demand", "group"] {
        let settings = format!("consume = '{consume}'\npartitions = 4");
        let node = Node::connect(kafka, &namespace, consume, &settings).await;
        node.join("room").await;
        node.publish("room", "before").await;
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
            let outcome = node.backplane.publish(envelope("room", "lost in a frozen broker"));
            if let Ok(Err(error)) = tokio::time::timeout(Duration::from_millis(1), outcome).await {
                break error;
            }
            assert!(frozen.elapsed() < DEADLINE, "publishes are still accepted");
        };
        let noticed = frozen.elapsed();
        println!("{consume}: refused {noticed:.2?} after the broker froze: {refused}");
        assert!(refused.is_temporary() && refused.kind() == ErrorKind::Unreachable, "{refused}");
        let stats = node.backplane.stats();
        node.inbox.wait_until("a broken link", |_| stats.links_down.get() > 0).await;
        assert!(noticed.max(frozen.elapsed()) < NOTICED_MAX + 3 * late, "{noticed:?} {:?}", frozen.elapsed());
        node.inbox.wait_until("an unknown lag", |_| stats.lag_messages.get() == -1).await;

        process.cont().expect("the broker continues");
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = node.backplane.publish(envelope("room", "after")).await {
            assert!(error.is_temporary(), "{error}");
            assert!(Instant::now() < deadline, "{error}");
            pace.tick().await;
        }
        node.inbox.wait_for("after").await;
        node.inbox
            .wait_until("the link", |inbox| {
                stats.links_down.get() == 0 && inbox.events().contains(&Event::Reconnected)
            })
            .await;
        assert_eq!(stats.gaps.get(), 0, "nothing was lost");
        node.shutdown().await;
    }
}

/// A broker whose files may not grow, as on a full disk: publishes are refused, and what was acknowledged is there when it is
/// back.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_disk_is_full() {
    const ROOM: &str = "room";
    let environment = Arc::new(own_broker());
    let (kafka, namespace) = (environment.kafka().expect("an address"), namespace());
    let settings = "partitions = 2\nmessage_timeout_ms = 3000\nhistory_messages = 0";
    let node = Node::connect(kafka, &namespace, "node", settings).await;
    let since = node.join(ROOM).await;
    node.publish(ROOM, "0").await;
    let mut acknowledged = vec!["0".to_owned()];

    let pid = environment.process("kafka-1").expect("the broker").pid();
    // The limit is on each file: those of the room's partition reach it first.
    let limit = ["--pid", &pid.to_string(), "--fsize=2000000:unlimited"].map(str::to_owned);
    let limited = Command::new("prlimit").args(limit).status().expect("prlimit runs");
    assert!(limited.success(), "prlimit");
    let large = "x".repeat(20_000);
    let refused = loop {
        let text = format!("{} {large}", acknowledged.len());
        match node.backplane.publish(envelope(ROOM, &text)).await {
            Ok(_) => acknowledged.push(text),
            Err(error) => break error,
        }
        assert!(acknowledged.len() < 1_000, "20 MB fit into 2 MB");
    };
    println!("{} acknowledged, then: {refused}", acknowledged.len());
    assert!(refused.is_temporary(), "{refused}");

    restart(&environment, &["kafka-1"]).await;
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = node.backplane.publish(envelope(ROOM, "there is space again")).await {
        assert!(error.is_temporary(), "{error}");
        assert!(Instant::now() < deadline, "{error}");
    }
    let history = node.backplane.history().expect("history");
    let resumed = history.resume(&RoomId::new(ROOM), since, 100_000).await.expect("an answer");
    let Resumed::Complete { messages, .. } = resumed else { panic!("{resumed:?}") };
    let kept: HashSet<String> = messages.iter().map(text).collect();
    assert!(acknowledged.iter().all(|text| kept.contains(text)), "acknowledged and lost");
    node.inbox.wait_for_all(&acknowledged).await;
    node.shutdown().await;
}
