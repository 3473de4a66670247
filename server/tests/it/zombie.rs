//! A node that is frozen for longer than anybody waits for it, and continues: on a real broker, with real signals.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use manifold_compose::{Environment, NodeSpec, Nodes, Purpose, RedisTopology, Request};
use serde_json::{Value, json};

use crate::presence::{present, until_present};
use crate::support::{Client, Received, metric, within};

/// How long the node is frozen.
const FROZEN: Duration = Duration::from_secs(10);
/// Twice what a node notices of its own standing still.
const STOOD_STILL: Duration = Duration::from_secs(2);
/// The clients of a node that is not heard for the default time, and a heartbeat, count as gone; and some time to get there.
const GONE_WITHIN: Duration = Duration::from_secs(8);

fn start() -> (Environment, Nodes) {
    let request = Request {
        kafka: None,
        redis: Some(RedisTopology::Single),
        purpose: Purpose::Tests,
        kafka_given: None,
        redis_given: None,
    };
    let environment = Environment::start(&request).expect("Redis starts");
    let spec = NodeSpec {
        binary: PathBuf::from(env!("CARGO_BIN_EXE_chat-server")),
        strategy: "redis-pubsub".to_owned(),
        nodes: 2,
        namespace: "zombie".to_owned(),
        // The machine that runs the tests may be.
        extra_args: vec!["--overload-ms".to_owned(), "0".to_owned()],
        ..NodeSpec::default()
    };
    let nodes = Nodes::start(&spec, &environment).expect("nodes start");
    (environment, nodes)
}

fn address(http: &str) -> SocketAddr {
    http.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an address")
}

/// A member that keeps its position, as an SDK does.
struct Member {
    client: Client,
    id: String,
    epoch: Value,
    offset: u64,
    /// What it was given, in order.
    seen: Vec<u64>,
}

impl Member {
    async fn enter(address: SocketAddr) -> Self {
        let mut client = Client::open(address).await;
        let reply = client.call(json!({"connect": {}})).await;
        let id = reply["connect"]["client"].as_str().expect("an id").to_owned();
        let reply = client.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
        let result = &reply["subscribe"];
        let (epoch, offset) = (result["epoch"].clone(), result["offset"].as_u64().unwrap_or(0));
        Self { client, id, epoch, offset, seen: Vec::new() }
    }

    fn take(&mut self, publication: &Value) {
        self.seen.push(publication["data"].as_u64().expect("a number"));
        self.offset = publication["offset"].as_u64().unwrap_or(self.offset);
    }

    async fn recover(&mut self) {
        let since = json!({"channel": "a", "recover": true, "epoch": self.epoch, "offset": self.offset});
        // No push of the room comes before the reply.
        self.client.send(json!({"subscribe": since})).await;
        let reply = self.client.next().await;
        let result = &reply["subscribe"];
        assert_eq!(result["recovered"], true, "{reply}");
        for publication in result["publications"].as_array().into_iter().flatten() {
            self.take(publication);
        }
    }

    /// Hears until `last` has come; comes back where it is sent away.
    async fn hear_until(&mut self, last: u64) {
        while self.seen.last() != Some(&last) {
            match self.client.receive().await {
                Received::Reply(reply) if reply == json!({}) => self.client.send_text("{}").await,
                Received::Reply(reply) if reply["push"]["unsubscribe"]["code"] == 2500 => {
                    self.recover().await
                }
                Received::Reply(reply) => {
                    let publication = &reply["push"]["pub"];
                    assert!(publication.is_object(), "{reply}");
                    self.take(&publication.clone());
                }
                end => panic!("the connection ended: {end:?}"),
            }
        }
    }

    async fn hear_up_to(&mut self, last: u64) {
        self.hear_until(last).await;
        assert_eq!(self.seen, (1..=last).collect::<Vec<_>>(), "each once, and in order");
    }

    /// The same member over a new connection.
    async fn move_to(&self, address: SocketAddr) -> Self {
        let mut client = Client::open(address).await;
        let reply = client.call(json!({"connect": {}})).await;
        let id = reply["connect"]["client"].as_str().expect("an id").to_owned();
        let (epoch, offset, seen) = (self.epoch.clone(), self.offset, self.seen.clone());
        let mut moved = Self { client, id, epoch, offset, seen };
        moved.recover().await;
        moved
    }
}

async fn publish(client: &mut Client, number: u64) {
    let reply = client.call(json!({"publish": {"channel": "a", "data": number}})).await;
    assert_eq!(reply["publish"], json!({}), "{reply}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_thaws_delivers_nothing_twice_and_leaves_no_ghosts() {
    let (environment, nodes) = tokio::task::spawn_blocking(start).await.expect("it starts");
    let [one, two] = nodes.http().iter().map(|http| address(http)).collect::<Vec<_>>()[..] else {
        panic!("two nodes were asked for");
    };
    let frozen = nodes.processes().first().expect("the first node");
    let (mut ann, mut bob) = (Member::enter(one).await, Member::enter(two).await);
    let mut speaker = Client::connect(two).await;
    for number in 1..=20 {
        publish(&mut speaker, number).await;
    }
    ann.hear_up_to(20).await;
    bob.hear_up_to(20).await;
    until_present(&mut speaker, "a", 2).await;

    frozen.stop().expect("it runs");
    let frozen_at = Instant::now();
    let mut last = 20;
    // Ann gives up on the frozen node, as an SDK would, and comes back to the other one. Her old connection stays as it is.
    last += 1;
    publish(&mut speaker, last).await;
    let mut moved = ann.move_to(two).await;
    moved.hear_up_to(last).await;
    // Whoever is with the frozen node counts as gone.
    let living = BTreeSet::from([bob.id.clone(), moved.id.clone()]);
    let mut pace = tokio::time::interval(Duration::from_millis(20));
    while present(&mut speaker, "a").await != living {
        assert!(frozen_at.elapsed() < GONE_WITHIN, "the clients of a frozen node are still present");
        pace.tick().await;
        last += 1;
        publish(&mut speaker, last).await;
    }
    while frozen_at.elapsed() < FROZEN {
        pace.tick().await;
        last += 1;
        publish(&mut speaker, last).await;
    }
    frozen.cont().expect("it is stopped");
    for _ in 0..50 {
        last += 1;
        publish(&mut speaker, last).await;
    }
    // Her old connection is as good as any: everything, in order, and once, or it is told and comes back.
    for member in [&mut ann, &mut bob, &mut moved] {
        member.hear_up_to(last).await;
    }
    // The thawed node's clients are present again, once, and on both nodes.
    let everybody = BTreeSet::from([ann.id.clone(), bob.id.clone(), moved.id.clone()]);
    let mut neighbour = Client::connect(one).await;
    for client in [&mut speaker, &mut neighbour] {
        until_present(client, "a", 3).await;
        assert_eq!(present(client, "a").await, everybody);
    }
    drop(ann);
    for client in [&mut speaker, &mut neighbour] {
        until_present(client, "a", 2).await;
        assert_eq!(present(client, "a").await, living, "no ghost is left");
    }
    last += 1;
    publish(&mut neighbour, last).await;
    for member in [&mut bob, &mut moved] {
        within(member.hear_up_to(last)).await;
    }
    drop((bob, moved, speaker, neighbour));
    tokio::task::spawn_blocking(move || drop((nodes, environment))).await.expect("they end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_left_with_a_frozen_node_is_not_carried_out_after_it_left() {
    let (environment, nodes) = tokio::task::spawn_blocking(start).await.expect("it starts");
    let [one, two] = nodes.http().iter().map(|http| address(http)).collect::<Vec<_>>()[..] else {
        panic!("two nodes were asked for");
    };
    let frozen = nodes.processes().first().expect("the first node");
    let (mut ann, mut bob) = (Member::enter(one).await, Member::enter(two).await);
    let mut listener = Client::in_room(two, "b").await;
    let (mut leaves, mut closes) = (Client::connect(one).await, Client::connect(one).await);
    let mut stays = Client::connect(one).await;
    for number in 1..=5 {
        publish(&mut leaves, number).await;
    }
    ann.hear_up_to(5).await;
    bob.hear_up_to(5).await;

    frozen.stop().expect("it runs");
    let frozen_at = Instant::now();
    for number in 6_u64..=8 {
        leaves.send(json!({"publish": {"channel": "a", "data": number}})).await;
        closes.send(json!({"publish": {"channel": "a", "data": 10 * number}})).await;
        stays.send(json!({"publish": {"channel": "b", "data": number}})).await;
    }
    drop(leaves);
    // One hangs up; the other one says goodbye, and its socket stays open for the answer.
    closes.socket.close(None).await.expect("an open connection");
    let mut elsewhere = Client::connect(two).await;
    for number in 9..=12 {
        publish(&mut elsewhere, number).await;
    }
    tokio::time::sleep(STOOD_STILL.saturating_sub(frozen_at.elapsed())).await;
    frozen.cont().expect("it is stopped");

    // Who stayed gets what it asked for, in order.
    for number in 6_u64..=8 {
        let reply = stays.next().await;
        assert_eq!(reply["publish"], json!({}), "{reply}");
        assert_eq!(listener.publication().await, number);
    }
    // The goodbye is answered, and nothing else.
    let end = closes.receive().await;
    assert!(!matches!(end, Received::Reply(_)), "{end:?}");
    // Once the connections of who left are over, nothing of them can follow: two are left.
    within(async {
        while metric(one, "manifold_connections").await != 2.0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    let mut fresh = Client::connect(one).await;
    publish(&mut fresh, 13).await;
    for member in [&mut ann, &mut bob] {
        member.hear_until(13).await;
        let expected: Vec<u64> = (1..=5).chain(9..=13).collect();
        assert_eq!(member.seen, expected, "nothing comes behind what was sent after it");
    }
    drop((ann, bob, listener, closes, stays, elsewhere, fresh));
    tokio::task::spawn_blocking(move || drop((nodes, environment))).await.expect("they end");
}
