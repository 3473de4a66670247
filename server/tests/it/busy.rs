//! A node on the runtime that it has in production, whose one worker is kept busy: it writes late, and refuses what it cannot keep
//! up with, and still everybody gets what was accepted, once and in order.

use std::net::SocketAddr;
use std::time::Duration;

use manifold_server::config::Config;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::support::{Client, config, serve};

const ROOMS: usize = 8;
const MESSAGES: u64 = 1_500;
const LAST: &str = "last";
const TOO_MANY_REQUESTS: u64 = 111;

/// Publishes as fast as the socket takes it, and reads what comes back. Returns what was accepted.
async fn publish_all(mut client: Client, room: String) -> Vec<Value> {
    let mut first_id = None;
    for number in 0..MESSAGES {
        let id = client.send(json!({"publish": {"channel": room, "data": number}})).await;
        first_id.get_or_insert(u64::from(id));
    }
    let first_id = first_id.expect("messages");
    let (mut accepted, mut own, mut answered) = (Vec::new(), Vec::new(), 0);
    while answered < MESSAGES {
        let received = client.next().await;
        if let Some(id) = received["id"].as_u64() {
            assert_eq!(id, first_id + answered, "replies come in the order of the commands");
            match received["error"]["code"].as_u64() {
                None => accepted.push(json!(answered)),
                code => assert_eq!(code, Some(TOO_MANY_REQUESTS), "{received}"),
            }
            answered += 1;
        } else if received["push"]["pub"].is_object() {
            own.push(received["push"]["pub"]["data"].clone());
        }
    }
    // Its own message comes before the reply that accepts it.
    assert_eq!(own, accepted, "{room}");
    while client.call(json!({"publish": {"channel": room, "data": LAST}})).await["error"].is_object() {}
    accepted.push(json!(LAST));
    accepted
}

async fn read_all(mut member: Client) -> Vec<Value> {
    let mut got = Vec::new();
    while got.last() != Some(&json!(LAST)) {
        got.push(member.publication().await);
    }
    got
}

/// Somebody who asks for little is answered all the while.
async fn ask(address: SocketAddr, mut done: oneshot::Receiver<()>) {
    let mut client = Client::in_room(address, "aside").await;
    while done.try_recv().is_err() {
        let reply = client.call(json!({"presence_stats": {"channel": "aside"}})).await;
        assert_eq!(reply["presence_stats"]["num_clients"], 1, "{reply}");
    }
}

#[test]
fn clients_of_a_busy_worker_get_what_was_accepted_once_and_in_order() {
    let workers = manifold_server::runtime(1).expect("a worker");
    let server = workers.block_on(serve(Config { overload_ms: 250, ping_interval_ms: 180_000, ..config() }));
    let clients = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let address = server.address();
    clients.expect("a runtime").block_on(async {
        let (all_sent, done) = oneshot::channel();
        let asking = tokio::spawn(ask(address, done));
        let mut rooms = Vec::new();
        for number in 0..ROOMS {
            let room = format!("room-{number}");
            let publisher = Client::in_room(address, &room).await;
            let members = [Client::in_room(address, &room).await, Client::in_room(address, &room).await];
            rooms.push((publisher, room, members));
        }
        let started = rooms.into_iter().map(|(publisher, room, members)| {
            let reading = members.map(|member| tokio::spawn(read_all(member)));
            (tokio::spawn(publish_all(publisher, room)), reading)
        });
        let mut accepted_sum = 0;
        for (publishing, reading) in started.collect::<Vec<_>>() {
            let accepted = publishing.await.expect("a publisher");
            accepted_sum += accepted.len();
            for member in reading {
                assert_eq!(member.await.expect("a member"), accepted);
            }
        }
        assert!(accepted_sum > ROOMS, "more than the last ones are accepted");
        all_sent.send(()).expect("somebody asks");
        asking.await.expect("was answered");
    });
    drop(server);
    workers.shutdown_timeout(Duration::from_secs(5));
}
