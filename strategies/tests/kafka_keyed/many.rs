//! Thousands of clients that come back at once: their reads are shared and bounded, and leave nothing behind.
//!
//! Threads and descriptors are counted in a process of its own: this test binary again.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_strategies::{Position, Resumed, RoomId};
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, Node, envelope, namespace, shared_broker};

const CHILD: &str = "MANIFOLD_TEST_KEYED_CHILD";
const CLIENTS: usize = 5_000;
const ROOMS: usize = 100;
const MISSED: usize = 20;
/// Out of the log, which is the slow way.
const SETTINGS: &str = "history_messages = 0";
/// Threads that ask the broker, read slices, or belong to the clients that do.
const THREADS_MAX: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_clients_come_back_at_once() {
    let broker = shared_broker();
    let address = format!("{} {}", broker.kafka().expect("an address"), namespace());
    let run = move || {
        Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "many::child", "--nocapture"])
            .env(CHILD, address)
            .output()
            .expect("the child runs")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("a thread");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The child process. Run without its parent it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(child) = std::env::var(CHILD) else { return };
    let (kafka, namespace) = child.split_once(' ').expect("address and namespace");
    let node = Node::connect(kafka, namespace, "node", SETTINGS).await;
    let mut since = Vec::new();
    for room in 0..ROOMS {
        since.push(node.join(&format!("room {room}")).await);
    }
    let sent: Vec<_> = (0..ROOMS * MISSED)
        .map(|number| node.backplane.publish(envelope(&format!("room {}", number % ROOMS), "missed")))
        .collect();
    for sent in sent {
        sent.await.expect("an acknowledgement");
    }
    all_come_back(&node, &since[..1], 1).await;
    let (threads, descriptors) = (count("task"), count("fd"));

    let begun = Instant::now();
    let peak = tokio::spawn(peak());
    all_come_back(&node, &since, CLIENTS).await;
    let took = begun.elapsed();
    peak.abort();
    let most = PEAK.load(std::sync::atomic::Ordering::SeqCst);
    println!("{CLIENTS} clients came back in {took:.2?}; threads {threads}, at most {most}");
    assert!(most <= threads + THREADS_MAX, "{most} threads");
    let now = count("fd");
    assert!(now <= descriptors + 24, "{now} descriptors instead of {descriptors}");
    // Again and again: no more than before.
    let settled = count("fd");
    for _ in 0..5 {
        all_come_back(&node, &since, 200).await;
    }
    assert!(count("fd") <= settled + 4, "{} descriptors instead of {settled}", count("fd"));

    node.shutdown().await;
    let deadline = Instant::now() + DEADLINE;
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while clients() > 0 {
        look.tick().await;
        assert!(Instant::now() < deadline, "{} threads of Kafka clients are left", clients());
    }
}

async fn all_come_back(node: &Node, since: &[Position], clients: usize) {
    let history = node.backplane.history().expect("history");
    let mut all = JoinSet::new();
    for client in 0..clients {
        let room = client % since.len();
        all.spawn(history.resume(&RoomId::new(format!("room {room}")), since[room], 300));
    }
    while let Some(resumed) = all.join_next().await {
        match resumed.expect("a task").expect("an answer") {
            Resumed::Complete { messages, .. } => assert_eq!(messages.len(), MISSED),
            Resumed::Incomplete { .. } => panic!("nothing is missing"),
        }
    }
}

static PEAK: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

/// Watches how many threads there are.
async fn peak() {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    loop {
        look.tick().await;
        PEAK.fetch_max(count("task"), std::sync::atomic::Ordering::SeqCst);
    }
}

/// Threads (`task`) or descriptors (`fd`) of this process.
fn count(what: &str) -> usize {
    std::fs::read_dir(format!("/proc/self/{what}")).expect("proc").count()
}

/// Threads of Kafka clients.
fn clients() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("proc").flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("rdk:")).count()
}

/// One room, one partition: all who ask at the same time share its scans.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_clients_of_one_room() {
    let broker = shared_broker();
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", SETTINGS).await;
    let since = node.join("room 0").await;
    for _ in 0..MISSED {
        node.publish("room 0", "missed").await;
    }
    let node = Arc::new(node);
    all_come_back(&node, &[since], 1_000).await;
    node.backplane.shutdown().await.expect("a clean shutdown");
}
