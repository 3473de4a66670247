//! Presence while a thousand clients come and a thousand go every second.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::presence::{connect, node, present, quick, stats, subscribe, until_present};
use crate::support::{Client, http};
use crate::test_backplane::Bus;

const CLIENTS: usize = 40;
/// Times that each of them comes and goes.
const ROUNDS: u32 = 75;
/// A thousand come and a thousand go every second.
const ROUND: Duration = Duration::from_millis(40);
/// Time between two questions: far below the rate that one connection may ask at.
const QUESTION: Duration = Duration::from_millis(1);

/// Comes and goes, and stays at the end or not.
async fn churn(mut client: Client, stays: bool) -> Client {
    let mut pace = tokio::time::interval(ROUND);
    for _ in 0..ROUNDS {
        pace.tick().await;
        subscribe(&mut client, "a", false).await;
        client.call(json!({"unsubscribe": {"channel": "a"}})).await;
    }
    if stays {
        subscribe(&mut client, "a", false).await;
    }
    client
}

/// Follows the pushes until `present` are left: a client that is there does not come, and one that is not does not go.
async fn follow(observer: &mut Client, expected: &BTreeSet<String>) -> u64 {
    let mut there: BTreeMap<String, bool> = BTreeMap::new();
    let mut seen = 0;
    let is_over = |there: &BTreeMap<String, bool>| {
        let now: BTreeSet<&String> = there.iter().filter(|(_, there)| **there).map(|(id, _)| id).collect();
        now == expected.iter().collect()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while !(seen > 0 && is_over(&there)) {
        assert!(Instant::now() < deadline, "{there:?} is not {expected:?}");
        let push = observer.next().await;
        let body = &push["push"];
        let joined = body["join"].is_object();
        let info = if joined { &body["join"]["info"] } else { &body["leave"]["info"] };
        let id = info["client"].as_str().unwrap_or_else(|| panic!("{push}")).to_owned();
        let was_there = there.insert(id, joined).unwrap_or(false);
        assert_ne!(was_there, joined, "{push}");
        seen += 1;
    }
    seen
}

async fn run(lossy: bool) {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let (mut observer, observer_id) = connect(&two).await;
    subscribe(&mut observer, "a", true).await;
    let mut expected = BTreeSet::from([observer_id]);
    let mut churning = Vec::new();
    for number in 0..CLIENTS {
        let (client, id) = connect(if number % 2 == 0 { &one } else { &two }).await;
        let stays = number % 3 == 0;
        if stays {
            expected.insert(id);
        }
        churning.push(tokio::spawn(churn(client, stays)));
    }
    let losing = lossy.then(|| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(150));
            loop {
                pace.tick().await;
                bus.hidden_lost.store(1, SeqCst);
            }
        })
    });
    // Questions are answered on the spot all the while.
    let (mut asking, _) = connect(&one).await;
    let mut took = Vec::new();
    let mut pace = tokio::time::interval(QUESTION);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !churning.iter().all(tokio::task::JoinHandle::is_finished) {
        pace.tick().await;
        let asked = Instant::now();
        let (clients, _) = stats(&mut asking, "a").await;
        took.push(asked.elapsed());
        assert!(clients <= 1 + CLIENTS as u64, "{clients} clients");
    }
    took.sort_unstable();
    // The slowest of them show how the machine fares.
    let usual = took[took.len() * 9 / 10];
    assert!(usual < Duration::from_secs(1), "{usual:?}");
    if let Some(losing) = losing {
        losing.abort();
        bus.hidden_lost.store(0, SeqCst);
    }
    let mut stayed = Vec::new();
    for task in churning {
        stayed.push(task.await.unwrap());
    }
    let seen = follow(&mut observer, &expected).await;
    if !lossy {
        // Every one of them is shown: nothing is left out, and nothing waits.
        let comings = (CLIENTS as u64) * u64::from(ROUNDS);
        assert!(seen >= 2 * comings, "{seen} of {}", 2 * comings);
    }
    for server in [&one, &two] {
        let (mut client, _) = connect(server).await;
        until_present(&mut client, "a", expected.len() as u64).await;
        assert_eq!(present(&mut client, "a").await, expected);
        let metrics = http(server.address(), "GET /metrics HTTP/1.1", "").await.1;
        assert!(
            !metrics.contains("presence_pushes_lost") && !metrics.contains("presence_inbox_full"),
            "{metrics}"
        );
    }
    drop(stayed);
    let (mut client, _) = connect(&one).await;
    until_present(&mut client, "a", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_come_and_go_every_second() {
    run(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_come_and_go_every_second_and_some_of_it_is_lost() {
    run(true).await;
}
