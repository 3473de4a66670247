//! Many that come back to one room at once.

use manifold_server::config::Config;
use manifold_strategies::guarantees::Positions;
use serde_json::json;

use crate::recovery::{publish, recover, serve};
use crate::support::{Client, config, metric, until};
use crate::test_backplane::Bus;

/// More than a giant room's minimum in these tests, and many more than reads at once.
const CLIENTS: usize = 600;
/// Messages that all of them missed.
const MISSED: u64 = 100;

fn reads(bus: &Bus) -> usize {
    bus.calls().iter().filter(|call| *call == "resume a").count()
}

/// A history that waits must not be asked once per client, and whatever comes meanwhile, and after, comes once and in order.
async fn all_come_back(positions: Positions, giant_members_min: u64) {
    let bus = Bus::with_history(positions);
    let (one, two) = (
        serve(&bus, config()).await,
        serve(&bus, Config { giant_members_min, recovery_timeout_ms: 60_000, ..config() }).await,
    );
    let mut publisher = Client::connect(one.address()).await;
    for number in 1..=MISSED {
        publish(&mut publisher, number).await;
    }
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(two.address()).await);
    }
    bus.history_open.send_replace(false);
    let mut ids = Vec::new();
    for client in &mut clients {
        ids.push(client.send(recover(0)).await);
    }
    for client in &mut clients {
        // The commands of a client take effect in their order: then it waits.
        client.call(json!({"presence_stats": {"channel": "b"}})).await;
    }
    publish(&mut publisher, MISSED + 1).await;
    bus.history_open.send_replace(true);
    publish(&mut publisher, MISSED + 2).await;
    publish(&mut publisher, MISSED + 3).await;
    for (client, id) in clients.iter_mut().zip(ids) {
        let reply = client.next().await;
        assert_eq!((&reply["id"], &reply["subscribe"]["recovered"]), (&json!(id), &json!(true)), "{reply}");
        let publications = reply["subscribe"]["publications"].as_array().expect("what was missed");
        let mut seen: Vec<u64> =
            publications.iter().map(|missed| missed["offset"].as_u64().expect("an offset")).collect();
        while seen.last() != Some(&(MISSED + 3)) {
            let push = client.next().await;
            seen.push(push["push"]["pub"]["offset"].as_u64().unwrap_or_else(|| panic!("{push}")));
        }
        assert_eq!(seen, (1..=MISSED + 3).collect::<Vec<_>>());
    }
    // Those that were asked at once, and one for all others.
    assert_eq!(reads(&bus), 17, "questions for {CLIENTS} clients");
    assert_eq!(metric(two.address(), "manifold_recovery_reads_total").await, 17.0);
    // Nothing comes twice later.
    publish(&mut publisher, MISSED + 4).await;
    for client in &mut clients {
        assert_eq!(client.next().await["push"]["pub"]["offset"], json!(MISSED + 4));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_rooms_worth_with_dense_positions() {
    all_come_back(Positions::Dense, 100_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_rooms_worth_with_dense_positions() {
    all_come_back(Positions::Dense, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_rooms_worth_with_rising_positions() {
    all_come_back(Positions::Rising, 64).await;
}

/// Who gives up while a question waits takes nobody else's answer away.
#[tokio::test]
async fn who_gives_up_does_not_matter_to_the_others() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut publisher = Client::connect(server.address()).await;
    publish(&mut publisher, 1).await;
    bus.history_open.send_replace(false);
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = Client::connect(server.address()).await;
        client.send(recover(0)).await;
        clients.push(client);
    }
    until(|| reads(&bus) >= 16).await;
    let stay = clients.split_off(30);
    drop(clients);
    let address = server.address();
    while metric(address, "manifold_connections").await > 11.0 {
        tokio::task::yield_now().await;
    }
    bus.history_open.send_replace(true);
    for mut client in stay {
        assert_eq!(client.next().await["subscribe"]["recovered"], true);
    }
    let mut late = Client::connect(address).await;
    assert_eq!(late.call(recover(0)).await["subscribe"]["recovered"], true, "nothing is stuck");
}
