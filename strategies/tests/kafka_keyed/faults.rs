//! The broker dies, freezes, or drops what was not read yet. Nothing acknowledged is lost in silence.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_strategies::{Event, MessageId};
use parking_lot::Mutex;

use crate::harness::{Node, envelope, namespace, own_broker, shared_broker, text};

/// Publishes numbered messages one after the other, at a steady pace, until told to stop.
pub struct Stream {
    stop: tokio::sync::watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
    acknowledged: Arc<Mutex<Vec<String>>>,
    failed: Arc<Mutex<usize>>,
    last_error: Arc<Mutex<String>>,
}

impl Stream {
    pub fn start(node: &Node, room: &'static str) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let (acknowledged, failed) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<usize>>::default());
        let (backplane, acks, fails) =
            (Arc::clone(&node.backplane), Arc::clone(&acknowledged), Arc::clone(&failed));
        let last_error = Arc::<Mutex<String>>::default();
        let told = Arc::clone(&last_error);
        let task = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            let mut waiting = tokio::task::JoinSet::new();
            for number in 0.. {
                pace.tick().await;
                if *stopped.borrow() {
                    break;
                }
                let text = format!("message {number}");
                let sent = backplane.publish(envelope(room, &text));
                let (acks, fails, told) = (Arc::clone(&acks), Arc::clone(&fails), Arc::clone(&told));
                waiting.spawn(async move {
                    match sent.await {
                        Ok(_) => acks.lock().push(text),
                        Err(error) => {
                            assert!(error.is_temporary(), "{error}");
                            *fails.lock() += 1;
                            *told.lock() = error.to_string();
                        }
                    }
                });
            }
            while waiting.join_next().await.is_some() {}
        });
        Self { stop, task, acknowledged, failed, last_error }
    }

    pub fn count(&self) -> usize {
        self.acknowledged.lock().len()
    }

    pub async fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + crate::harness::DEADLINE;
        let mut look = tokio::time::interval(Duration::from_millis(10));
        while self.count() < count {
            look.tick().await;
            assert!(
                Instant::now() < deadline,
                "{} of {count} acknowledged; {}",
                self.count(),
                self.last_error.lock()
            );
        }
    }

    pub async fn finish(self) -> (Vec<String>, usize) {
        self.stop.send_replace(true);
        self.task.await.expect("the stream ended");
        let acknowledged = self.acknowledged.lock().clone();
        let failed = *self.failed.lock();
        (acknowledged, failed)
    }
}

/// Longest time between two deliveries.
fn longest_silence(node: &Node) -> Duration {
    let times: Vec<Instant> = node.inbox.texts().iter().filter_map(|text| node.inbox.arrival(text)).collect();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

async fn nothing_acknowledged_is_lost(consume: &str, kill: bool) {
    let broker = own_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = format!("consume = '{consume}'\npartitions = 8\nmessage_timeout_ms = 20000");
    let publisher = Node::connect(kafka, &namespace, "publisher", &settings).await;
    let member = Node::connect(kafka, &namespace, "member", &settings).await;
    member.join("room").await;
    let stream = Stream::start(&publisher, "room");
    stream.wait_for(100).await;
    let process = broker.process("kafka-1").expect("the broker's process").clone();
    if kill {
        process.kill().expect("killed");
        tokio::task::spawn_blocking(move || process.restart()).await.expect("a thread").expect("restarted");
    } else {
        process.stop().expect("stopped");
        // The fault itself: the broker stands still for this long.
        tokio::time::sleep(Duration::from_secs(2)).await;
        process.cont().expect("continued");
    }
    let before = stream.count();
    stream.wait_for(before + 200).await;
    let (acknowledged, failed) = stream.finish().await;
    member.inbox.wait_for_all(&acknowledged).await;
    let texts = member.inbox.texts();
    let distinct: HashSet<&String> = texts.iter().collect();
    assert_eq!(distinct.len(), texts.len(), "nothing twice");
    println!(
        "{consume}, broker {}: {} acknowledged, {failed} failed, {} received, longest silence {:.2?}",
        if kill { "killed and restarted" } else { "stopped for 2 s" },
        acknowledged.len(),
        texts.len(),
        longest_silence(&member)
    );
    if kill {
        member
            .inbox
            .wait_until("a counted reconnect", |_| member.backplane.stats().reconnects.get() >= 1)
            .await;
        member.inbox.wait_until("the event", |inbox| inbox.events().contains(&Event::Reconnected)).await;
    }
    assert_eq!(member.backplane.stats().gap_messages.get(), 0);
    // A room joined after the fault works like one before it.
    member.join("another room").await;
    publisher.publish("another room", "hello").await;
    member.inbox.wait_for("hello").await;
    publisher.shutdown().await;
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_reading_all() {
    nothing_acknowledged_is_lost("all", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_reading_on_demand() {
    nothing_acknowledged_is_lost("demand", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_broker_reading_in_a_group() {
    nothing_acknowledged_is_lost("group", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_broker() {
    nothing_acknowledged_is_lost("all", false).await;
}

/// A node that joins while messages flow gets all that is published after its join.
#[tokio::test(flavor = "multi_thread")]
async fn growth_while_messages_flow() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    for consume in ["all", "demand", "group"] {
        let (settings, room) = (format!("consume = '{consume}'\npartitions = 8"), "busy");
        let publisher = Node::connect(kafka, &namespace, "publisher", &settings).await;
        let stream = Stream::start(&publisher, room);
        stream.wait_for(20).await;
        let mut members = Vec::new();
        for name in ["m1", "m2", "m3"] {
            let member = Node::connect(kafka, &namespace, name, &settings).await;
            let stands_at = member.join(room).await;
            let first_sure = publisher.publish(room, &format!("{consume}: {name} is here")).await;
            assert!(stands_at.offset < first_sure.offset, "the join was effective before the publish");
            members.push((member, first_sure));
            stream.wait_for(stream.count() + 20).await;
        }
        stream.finish().await;
        let last = publisher.publish(room, &format!("{consume}: the end")).await;
        for (member, first_sure) in members {
            member.inbox.wait_for(&format!("{consume}: the end")).await;
            let offsets: Vec<u64> =
                member.inbox.messages().iter().map(|message| message.position.offset).collect();
            // Only this room writes to its partition, so from the join on offsets are without holes.
            let from = offsets.iter().position(|&offset| offset == first_sure.offset).expect("received");
            let expected: Vec<u64> = (first_sure.offset..=last.offset).collect();
            assert_eq!(offsets[from..], expected, "{consume}");
            member.shutdown().await;
        }
        publisher.shutdown().await;
    }
}

/// Retention overtakes a node that reads too slowly: it is told what is gone, and goes on behind it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_log_dropped_is_declared() {
    const MESSAGES: usize = 400;
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    for consume in ["all", "demand", "group"] {
        let room = format!("room of {consume}");
        // A node that reads ahead as little as possible.
        let settings = format!(
            "consume = '{consume}'\npartitions = 2\n[client]\n'queued.min.messages' = 1\n\
             'queued.max.messages.kbytes' = 1\n'fetch.message.max.bytes' = 1000"
        );
        let node = Node::connect(kafka, &namespace, "slow", &settings).await;
        node.join(&room).await;
        let closed = node.inbox.gate.lock();
        let large = "x".repeat(4000);
        let mut last = Default::default();
        for sent in (0..MESSAGES).map(|_| node.backplane.publish(envelope(&room, &large))) {
            last = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(sent))
                .expect("an acknowledgement");
        }
        let partition = crate::harness::partition(last) as i32;
        let topic = format!("{namespace}.rooms");
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(crate::harness::drop_before(
                kafka,
                &topic,
                partition,
                last.offset as i64,
            ))
        });
        drop(closed);
        node.publish(&room, "after the loss").await;
        node.inbox.wait_for("after the loss").await;
        let received = node.inbox.messages().iter().filter(|message| text(message) == large).count() as u64;
        let lost: u64 = node
            .inbox
            .events()
            .iter()
            .filter_map(|event| match event {
                Event::Gap { room: gap, from, to } if gap.as_str() == room => Some(to - from),
                _ => None,
            })
            .sum();
        println!("{consume}: {received} received, {lost} declared lost");
        assert!(
            lost > 0 && received + lost == MESSAGES as u64,
            "{consume}: {received} received, {lost} lost"
        );
        assert_eq!(node.backplane.stats().gap_messages.get(), lost);
        node.shutdown().await;
    }
}

/// The publisher's own retry after an unknown outcome: with the same id, delivered once.
#[tokio::test(flavor = "multi_thread")]
async fn a_retry_after_a_timeout_is_delivered_once() {
    let broker = own_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = "partitions = 2\nmessage_timeout_ms = 2000";
    let node = Node::connect(kafka, &namespace, "node", settings).await;
    node.join("room").await;
    node.publish("room", "warm").await;
    let process = broker.process("kafka-1").expect("the broker's process");
    process.stop().expect("stopped");
    let mut message = envelope("room", "is it there?");
    message.id = MessageId(42);
    let error = node.backplane.publish(message.clone()).await.expect_err("the broker stands still");
    assert!(error.is_temporary(), "{error}");
    process.cont().expect("continued");
    let mut acknowledged = node.backplane.publish(message.clone()).await;
    while acknowledged.is_err() {
        acknowledged = node.backplane.publish(message.clone()).await;
    }
    node.publish("room", "after").await;
    node.inbox.wait_for("after").await;
    assert_eq!(node.inbox.texts(), ["warm", "is it there?", "after"]);
    node.shutdown().await;
}
