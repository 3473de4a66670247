//! Presence: who is where, on all nodes, whatever is lost and whoever crashes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use manifold_server::Server;
use manifold_server::config::Config;
use manifold_strategies::{Event, RoomId};
use serde_json::{Value, json};

use crate::support::{Client, config, http, metric, serve, serve_on, within};
use crate::test_backplane::Bus;

/// The room in which nodes speak of presence.
const HIDDEN: &str = "\u{1}presence";

/// Nodes that notice everything soon.
pub(crate) fn quick() -> Config {
    Config {
        presence_batch_ms: 5,
        presence_heartbeat_ms: 50,
        presence_silence_ms: 500,
        api_key: Some("secret".to_owned()),
        ..config()
    }
}

pub(crate) async fn node(bus: &Arc<Bus>, config: Config) -> Server {
    let bus = Arc::clone(bus);
    serve_on(config, move |entrance| bus.backplane(entrance)).await
}

pub(crate) async fn stats(client: &mut Client, room: &str) -> (u64, u64) {
    let reply = client.call(json!({"presence_stats": {"channel": room}})).await;
    let stats = &reply["presence_stats"];
    let number = |name: &str| stats[name].as_u64().unwrap_or_else(|| panic!("no {name} in {reply}"));
    (number("num_clients"), number("num_users"))
}

/// Waits until so many clients are present in a room.
pub(crate) async fn until_present(client: &mut Client, room: &str, count: u64) {
    within(async {
        while stats(client, room).await.0 != count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub(crate) async fn present(client: &mut Client, room: &str) -> BTreeSet<String> {
    let reply = client.call(json!({"presence": {"channel": room}})).await;
    let presence = reply["presence"]["presence"].as_object();
    let presence = presence.unwrap_or_else(|| panic!("no presence in {reply}"));
    for (id, info) in presence {
        assert_eq!(info, &json!({"user": "", "client": id}));
    }
    presence.keys().cloned().collect()
}

/// Connects, and says who it is.
pub(crate) async fn connect(server: &Server) -> (Client, String) {
    let mut client = Client::open(server.address()).await;
    let reply = client.call(json!({"connect": {}})).await;
    let id = reply["connect"]["client"].as_str().unwrap().to_owned();
    (client, id)
}

pub(crate) async fn subscribe(client: &mut Client, room: &str, join_leave: bool) {
    let reply = client.call(json!({"subscribe": {"channel": room, "join_leave": join_leave}})).await;
    assert!(reply["subscribe"].is_object(), "{reply}");
}

pub(crate) fn join(room: &str, id: &str) -> Value {
    json!({"push": {"channel": room, "join": {"info": {"user": "", "client": id}}}})
}

fn leave(room: &str, id: &str) -> Value {
    json!({"push": {"channel": room, "leave": {"info": {"user": "", "client": id}}}})
}

#[tokio::test]
async fn a_client_is_present_from_its_subscription_on() {
    let server = serve(config()).await;
    let (mut client, id) = connect(&server).await;
    assert_eq!((stats(&mut client, "a").await, present(&mut client, "a").await.len()), ((0, 0), 0));
    subscribe(&mut client, "a", false).await;
    assert_eq!(stats(&mut client, "a").await, (1, 1));
    assert_eq!(present(&mut client, "a").await, BTreeSet::from([id]));
    let (mut other, _) = connect(&server).await;
    subscribe(&mut other, "a", false).await;
    assert_eq!(stats(&mut client, "a").await, (2, 1), "all anonymous clients are one user");
    client.call(json!({"unsubscribe": {"channel": "a"}})).await;
    assert_eq!(stats(&mut client, "a").await, (1, 1));
    drop(other);
    until_present(&mut client, "a", 0).await;
}

#[tokio::test]
async fn a_question_behind_a_subscribe_waits_for_it() {
    let bus = Bus::new();
    let server = node(&bus, quick()).await;
    let (mut client, id) = connect(&server).await;
    bus.joins_open.send_replace(false);
    client.send(json!({"subscribe": {"channel": "a"}})).await;
    client.send(json!({"presence": {"channel": "a"}})).await;
    client.send(json!({"presence_stats": {"channel": "a"}})).await;
    // Answered by the same task, so the commands before it are under way.
    assert!(client.call(json!({"rpc": {}})).await["error"].is_object());
    bus.joins_open.send_replace(true);
    assert!(client.next().await["subscribe"].is_object());
    assert!(client.next().await["presence"]["presence"][&id].is_object());
    assert_eq!(client.next().await["presence_stats"], json!({"num_clients": 1, "num_users": 1}));
}

#[tokio::test]
async fn nodes_know_of_each_others_clients() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let ((mut ann, ann_id), (mut bob, bob_id)) = (connect(&one).await, connect(&two).await);
    subscribe(&mut ann, "a", false).await;
    subscribe(&mut bob, "a", false).await;
    subscribe(&mut bob, "b", false).await;
    until_present(&mut ann, "a", 2).await;
    until_present(&mut bob, "a", 2).await;
    until_present(&mut ann, "b", 1).await;
    let both = BTreeSet::from([ann_id, bob_id]);
    assert_eq!((present(&mut ann, "a").await, present(&mut bob, "a").await), (both.clone(), both));
    // A node that comes late learns of those who are there.
    let late = node(&bus, quick()).await;
    let (mut carl, _) = connect(&late).await;
    until_present(&mut carl, "a", 2).await;
    until_present(&mut carl, "b", 1).await;
    assert_eq!(metric(late.address(), "manifold_presence_nodes").await, 3.0);
    assert_eq!(metric(late.address(), "manifold_presence_entries").await, 3.0);
    ann.call(json!({"unsubscribe": {"channel": "a"}})).await;
    drop(bob);
    until_present(&mut carl, "a", 0).await;
    until_present(&mut carl, "b", 0).await;
}

#[tokio::test]
async fn who_wishes_sees_who_comes_and_goes() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let ((mut ann, ann_id), (mut bob, bob_id)) = (connect(&one).await, connect(&two).await);
    let mut plain = Client::in_room(one.address(), "a").await;
    subscribe(&mut ann, "a", true).await;
    // The one that came before may be shown as well, if it was not shown to others yet.
    while ann.next().await != join("a", &ann_id) {}
    subscribe(&mut bob, "a", true).await;
    assert_eq!(ann.next().await, join("a", &bob_id));
    while bob.next().await != join("a", &bob_id) {}
    bob.call(json!({"unsubscribe": {"channel": "a"}})).await;
    assert_eq!(ann.next().await, leave("a", &bob_id));
    subscribe(&mut bob, "a", true).await;
    assert_eq!(ann.next().await, join("a", &bob_id));
    drop(bob);
    assert_eq!(ann.next().await, leave("a", &bob_id));
    ann.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(plain.publication().await, 1, "nothing else came");
}

#[tokio::test]
async fn who_comes_and_goes_here_is_shown_while_the_others_cannot_be_heard() {
    let bus = Bus::new();
    bus.hidden_open.store(false, SeqCst);
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let ((mut ann, ann_id), (mut bob, bob_id)) = (connect(&one).await, connect(&one).await);
    let (mut carl, carl_id) = connect(&two).await;
    subscribe(&mut ann, "a", true).await;
    while ann.next().await != join("a", &ann_id) {}
    subscribe(&mut bob, "a", false).await;
    assert_eq!(ann.next().await, join("a", &bob_id));
    drop(bob);
    assert_eq!(ann.next().await, leave("a", &bob_id));
    subscribe(&mut carl, "a", false).await;
    bus.hidden_open.store(true, SeqCst);
    assert_eq!(ann.next().await, join("a", &carl_id));
}

#[tokio::test]
async fn members_sent_away_are_not_present() {
    let bus = Bus::new();
    let server = node(&bus, quick()).await;
    let (mut ann, _) = connect(&server).await;
    let (mut bob, _) = connect(&server).await;
    subscribe(&mut ann, "a", false).await;
    bob.call(json!({"subscribe": {"channel": "a", "positioned": true}})).await;
    assert_eq!(stats(&mut ann, "a").await, (2, 1));
    bus.send(Event::Gap { room: RoomId::new("a"), from: 1, to: 3 });
    assert_eq!(bob.next().await["push"]["unsubscribe"]["code"], 2500);
    until_present(&mut ann, "a", 1).await;
    bob.call(json!({"subscribe": {"channel": "a", "positioned": true}})).await;
    assert_eq!(stats(&mut bob, "a").await, (2, 1));
}

#[tokio::test]
async fn the_clients_of_a_crashed_node_vanish_and_come_back_with_it() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let ((mut ann, ann_id), (mut bob, bob_id)) = (connect(&one).await, connect(&two).await);
    subscribe(&mut ann, "a", true).await;
    while ann.next().await != join("a", &ann_id) {}
    subscribe(&mut bob, "a", false).await;
    assert_eq!(ann.next().await, join("a", &bob_id));
    bus.cut(1, true);
    let crashed = std::time::Instant::now();
    assert_eq!(ann.next().await, leave("a", &bob_id));
    assert!(crashed.elapsed() >= Duration::from_millis(300), "not at the first missing heartbeat");
    assert_eq!(stats(&mut ann, "a").await, (1, 1));
    assert_eq!(metric(one.address(), "manifold_presence_nodes").await, 1.0);
    // Its own clients do not see the others go: it hears nobody, itself included.
    assert_eq!(stats(&mut bob, "a").await, (2, 1));
    bus.cut(1, false);
    assert_eq!(ann.next().await, join("a", &bob_id));
    assert_eq!(stats(&mut bob, "a").await, (2, 1));
}

#[tokio::test]
async fn a_node_that_goes_in_order_is_forgotten_at_once() {
    let slow = || Config { presence_heartbeat_ms: 20_000, presence_silence_ms: 60_000, ..quick() };
    let bus = Bus::new();
    let (one, two) = (node(&bus, slow()).await, node(&bus, slow()).await);
    let (mut ann, _) = connect(&one).await;
    let _bob = Client::in_room(two.address(), "a").await;
    until_present(&mut ann, "a", 1).await;
    two.drain().await.unwrap();
    until_present(&mut ann, "a", 0).await;
    within(async {
        while metric(one.address(), "manifold_presence_nodes").await != 1.0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_lost_between_nodes_is_repaired() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let ((mut ann, _), (mut bob, _)) = (connect(&one).await, connect(&two).await);
    subscribe(&mut bob, "start", false).await;
    until_present(&mut ann, "start", 1).await;
    for round in 0..20 {
        bus.hidden_lost.store(round % 4, SeqCst);
        let room = format!("room-{round}");
        subscribe(&mut bob, &room, false).await;
        if round % 3 == 0 {
            bob.call(json!({"unsubscribe": {"channel": "start"}})).await;
            subscribe(&mut bob, "start", false).await;
        }
        until_present(&mut ann, &room, 1).await;
        until_present(&mut ann, "start", 1).await;
    }
    assert!(metric(one.address(), "manifold_presence_resyncs_total").await > 1.0);
}

#[tokio::test]
async fn a_declared_gap_is_repaired_before_the_next_heartbeat() {
    let slow = || Config { presence_heartbeat_ms: 20_000, presence_silence_ms: 60_000, ..quick() };
    let bus = Bus::new();
    let (one, two) = (node(&bus, slow()).await, node(&bus, slow()).await);
    let ((mut ann, _), (mut bob, _)) = (connect(&one).await, connect(&two).await);
    subscribe(&mut bob, "a", false).await;
    until_present(&mut ann, "a", 1).await;
    const ALL: usize = 1_000_000;
    bus.hidden_lost.store(ALL, SeqCst);
    subscribe(&mut bob, "b", false).await;
    within(async {
        while bus.hidden_lost.load(SeqCst) == ALL {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(stats(&mut ann, "b").await, (0, 0));
    bus.hidden_lost.store(0, SeqCst);
    bus.send(Event::Gap { room: RoomId::new(HIDDEN), from: 1, to: 2 });
    tokio::time::timeout(Duration::from_secs(10), until_present(&mut ann, "b", 1)).await.expect("repaired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_leaves_nothing_behind() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let churn: Vec<_> = [one.address(), two.address()]
        .into_iter()
        .flat_map(|address| (0..4).map(move |number| (address, number)))
        .map(|(address, number)| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for round in 0..100 {
                    let room = format!("room-{}", (round + number) % 5);
                    subscribe(&mut client, &room, round % 2 == 0).await;
                    let reply = client.call(json!({"unsubscribe": {"channel": room}})).await;
                    assert_eq!(reply["unsubscribe"], json!({}));
                }
                subscribe(&mut client, "end", false).await;
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    for task in churn {
        clients.push(task.await.unwrap());
    }
    let (mut ann, mut bob) = (Client::connect(one.address()).await, Client::connect(two.address()).await);
    for client in [&mut ann, &mut bob] {
        until_present(client, "end", 8).await;
        for room in 0..5 {
            until_present(client, &format!("room-{room}"), 0).await;
        }
    }
    assert_eq!(metric(one.address(), "manifold_presence_entries").await, 8.0);
}

#[tokio::test]
async fn the_api_answers_for_the_cluster() {
    let bus = Bus::new();
    let (one, two) = (node(&bus, quick()).await, node(&bus, quick()).await);
    let (mut ann, id) = connect(&one).await;
    subscribe(&mut ann, "a", false).await;
    let (mut bob, _) = connect(&two).await;
    until_present(&mut bob, "a", 1).await;
    let call = async |method: &str, body: Value| -> Value {
        let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: secret");
        serde_json::from_str(&http(two.address(), &head, &body.to_string()).await.1).unwrap()
    };
    let expected = json!({"result": {"presence": {(id.as_str()): {"user": "", "client": id}}}});
    assert_eq!(call("presence", json!({"channel": "a"})).await, expected);
    let expected = json!({"result": {"num_clients": 1, "num_users": 1}});
    assert_eq!(call("presence_stats", json!({"channel": "a"})).await, expected);
    for wrong in ["", HIDDEN] {
        assert_eq!(call("presence", json!({"channel": wrong})).await["error"]["code"], 107);
    }
}

#[tokio::test]
async fn it_can_be_turned_off_and_the_nodes_own_room_is_not_for_clients() {
    let bus = Bus::new();
    let server = node(&bus, Config { presence: false, ..quick() }).await;
    let (mut client, _) = connect(&server).await;
    subscribe(&mut client, "a", true).await;
    for command in ["presence", "presence_stats"] {
        let reply = client.call(json!({command: {"channel": "a"}})).await;
        assert_eq!(reply["error"]["code"], 108, "{command}");
    }
    assert_eq!(bus.position(HIDDEN), 0, "nothing is said");
    let server = node(&bus, quick()).await;
    let (mut client, _) = connect(&server).await;
    for command in ["subscribe", "publish", "presence", "presence_stats"] {
        let reply = client.call(json!({command: {"channel": HIDDEN, "data": 1}})).await;
        assert_eq!(reply["error"]["code"], 107, "{command}");
    }
}
