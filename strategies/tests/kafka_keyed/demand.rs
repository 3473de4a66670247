//! Reading on demand: what a join costs on an idle broker, and that nothing unneeded is read.

use std::time::{Duration, Instant};

use crate::harness::{DEADLINE, Node, namespace, rooms_apart, shared_broker};

/// Joins measured; each in a partition that was not read before.
const JOINS: usize = 25;
/// How soon a join is effective, as its median; single ones may meet a busy machine.
const JOIN_MAX: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_join_on_an_idle_broker_is_quick() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = "consume = 'demand'\nfetch_wait_ms = 500\npartitions = 64";
    let publisher = Node::connect(kafka, &namespace, "publisher", settings).await;
    let member = Node::connect(kafka, &namespace, "member", settings).await;
    // The client's own first write to a partition is not what is measured.
    let rooms = rooms_apart(JOINS, 64);
    for room in &rooms {
        publisher.publish(room, "warm").await;
    }
    let (mut joined, mut received) = (Vec::new(), Vec::new());
    // Rooms come one at a time, so that the broker is idle, holding the member's fetch, at each join.
    let mut pace = tokio::time::interval(Duration::from_millis(120));
    for room in &rooms {
        pace.tick().await;
        let begun = Instant::now();
        member.join(room).await;
        joined.push(begun.elapsed());
        publisher.publish(room, room).await;
        member.inbox.wait_for(room).await;
        received.push(member.inbox.arrival(room).expect("arrived").duration_since(begun));
    }
    let (joined, received) = (Figures::of(joined), Figures::of(received));
    println!("join on an idle broker, fetch_wait 500 ms, {JOINS} joins: effective after {joined}");
    println!("  message published right after the join received, counted from the join's begin: {received}");
    assert!(joined.median <= JOIN_MAX, "join {joined}");
    publisher.shutdown().await;
    member.shutdown().await;
}

struct Figures {
    median: Duration,
    max: Duration,
}

impl Figures {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { median: times[times.len() / 2], max: times[times.len() - 1] }
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "p50 {:.2?}, max {:.2?}", self.median, self.max)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_needed_partitions_are_read() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = "consume = 'demand'\npartitions = 16\nrelease_linger_ms = 100";
    let publisher = Node::connect(kafka, &namespace, "publisher", settings).await;
    let member = Node::connect(kafka, &namespace, "member", settings).await;
    let rooms = rooms_apart(3, 16);
    let received = || member.backplane.stats().envelopes_received.get();
    member.join(&rooms[0]).await;
    publisher.publish(&rooms[1], "elsewhere").await;
    publisher.publish(&rooms[0], "here").await;
    member.inbox.wait_for("here").await;
    assert_eq!(received(), 1, "only the needed partition was read");

    // Left and lingered: the partition is released, and a later member gets only what comes after it.
    member.leave(&rooms[0]).await;
    let deadline = Instant::now() + DEADLINE;
    let (mut probes, mut unread) = (0_u64, 0);
    loop {
        let before = received();
        publisher.publish(&rooms[0], "is anybody reading?").await;
        probes += 1;
        // A message of a partition that is read for certain has overtaken nothing: wait for it, then look.
        member.join(&rooms[1]).await;
        let barrier = format!("barrier {probes}");
        publisher.publish(&rooms[1], &barrier).await;
        member.inbox.wait_for(&barrier).await;
        member.leave(&rooms[1]).await;
        // Partitions are fetched independently: a probe that was only late shows in the next round.
        unread = if received() == before + 1 { unread + 1 } else { 0 };
        if unread == 2 {
            break;
        }
        assert!(Instant::now() < deadline, "the partition was never released");
    }
    member.join(&rooms[0]).await;
    publisher.publish(&rooms[0], "again").await;
    member.inbox.wait_for("again").await;
    assert!(!member.inbox.texts().iter().any(|text| text == "is anybody reading?"));
    assert_eq!(member.backplane.stats().gap_messages.get(), 0, "what was not wanted is not lost");
    publisher.shutdown().await;
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_most_are_needed_all_are_read_without_loss() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = "consume = 'demand'\npartitions = 8\ndedicated_partitions = 0\nrelease_linger_ms = 50";
    let publisher = Node::connect(kafka, &namespace, "publisher", settings).await;
    let member = Node::connect(kafka, &namespace, "member", settings).await;
    let rooms = rooms_apart(8, 8);
    let mut texts = Vec::new();
    // Up over the threshold and down again, twice, publishing to every joined room at each step.
    for round in 0..2 {
        for joined in 1..=8 {
            member.join(&rooms[joined - 1]).await;
            for room in &rooms[..joined] {
                let text = format!("round {round}, {joined} joined, {room}");
                publisher.publish(room, &text).await;
                texts.push(text);
            }
        }
        for left in 0..8 {
            member.inbox.wait_for_all(&texts).await;
            member.leave(&rooms[left]).await;
            for room in &rooms[left + 1..] {
                let text = format!("round {round}, {left} left, {room}");
                publisher.publish(room, &text).await;
                texts.push(text);
            }
        }
    }
    member.inbox.wait_for_all(&texts).await;
    assert_eq!(member.inbox.texts().len(), texts.len(), "nothing twice");
    publisher.shutdown().await;
    member.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_joined_together_are_all_effective() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let settings = "consume = 'demand'\npartitions = 32";
    let publisher = Node::connect(kafka, &namespace, "publisher", settings).await;
    let member = Node::connect(kafka, &namespace, "member", settings).await;
    let texts: Vec<String> = (0..200).map(|number| format!("room {number}")).collect();
    let visits = texts.iter().map(|room| async {
        member.join(room).await;
        publisher.publish(room, room).await;
    });
    futures_util::future::join_all(visits).await;
    member.inbox.wait_for_all(&texts).await;
    assert_eq!(member.inbox.texts().len(), texts.len());
    publisher.shutdown().await;
    member.shutdown().await;
}
