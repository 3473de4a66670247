//! Going down in order.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use manifold_server::config::Config;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Client, Received, config, http, metric, serve, serve_on, until, within};
use crate::test_backplane::Bus;

#[tokio::test]
async fn clients_are_sent_elsewhere_with_all_that_was_theirs() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let address = server.address();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::in_room(address, "a").await);
    }
    clients[0].call(json!({"publish": {"channel": "a", "data": "last words"}})).await;
    // Members are served in the order in which they came: when the last one has it, all have.
    let mut last = clients.pop().unwrap();
    assert_eq!(last.publication().await, "last words");
    let mut silent = Client::open(address).await;
    let draining = tokio::spawn(server.drain());
    for client in &mut clients {
        assert_eq!(client.publication().await, "last words");
        assert_eq!(client.receive().await, Received::Close(3001, "shutdown".to_owned()));
        let _ = client.socket.close(None).await;
    }
    assert_eq!(silent.close_code().await, 3001, "even who never said connect");
    drop((clients, last, silent));
    within(draining).await.unwrap().expect("the backplane left");
    assert!(bus.shut_down.load(SeqCst));
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn what_the_backplane_accepted_is_answered_before_the_goodbye() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let config = Config { drain_window_ms: 0, ..config() };
    let server = serve_on(config, move |entrance| on.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    let mut idle = Client::connect(server.address()).await;
    bus.acks_open.send_replace(false);
    let id = client.send(json!({"publish": {"channel": "a", "data": 1}})).await;
    until(|| bus.position("a") == 1).await;
    let draining = tokio::spawn(server.drain());
    assert_eq!(idle.close_code().await, 3001, "all have been told to go");
    bus.acks_open.send_replace(true);
    assert_eq!(client.next().await, json!({"id": id, "publish": {}}));
    assert_eq!(client.close_code().await, 3001);
    drop((client, idle));
    within(draining).await.unwrap().expect("the backplane left");
}

#[tokio::test]
async fn answers_that_never_come_do_not_hold_up_the_goodbye() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let config = Config { shutdown_timeout_ms: 100, ..config() };
    let server = serve_on(config, move |entrance| on.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    bus.acks_open.send_replace(false);
    client.send(json!({"publish": {"channel": "a", "data": 1}})).await;
    until(|| bus.position("a") == 1).await;
    let draining = tokio::spawn(server.drain());
    assert_eq!(client.receive().await, Received::Close(3001, "shutdown".to_owned()));
    drop(client);
    within(draining).await.unwrap().expect("the backplane left");
}

#[tokio::test]
async fn goodbyes_are_spread_over_the_window_and_bounded() {
    let server = serve(Config { drain_window_ms: 400, close_timeout_ms: 200, ..config() }).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(server.address()).await);
    }
    let start = Instant::now();
    // None of them answers the close: the node does not wait for them for ever.
    within(server.drain()).await.expect("memory leaves");
    assert!(
        (Duration::from_millis(350)..Duration::from_secs(5)).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_client_is_sent_before_the_goodbye() {
    let server = serve(Config { close_timeout_ms: 15_000, ..config() }).await;
    let address = server.address();
    let mut pausing = crate::support::small_client(address).await;
    pausing.call(json!({"connect": {}})).await;
    pausing.call(json!({"subscribe": {"channel": "a"}})).await;
    let mut publisher = Client::connect(address).await;
    let data = "x".repeat(8 * 1024);
    let mut published = 0;
    while metric(address, "manifold_outbox_bytes").await < 300_000.0 {
        publisher.call(json!({"publish": {"channel": "a", "data": [published, data]}})).await;
        published += 1;
    }
    drop(publisher);
    let draining = tokio::spawn(server.drain());
    for expected in 0..published {
        assert_eq!(pausing.publication().await[0], expected);
    }
    assert_eq!(pausing.receive().await, Received::Close(3001, "shutdown".to_owned()));
    drop(pausing);
    within(draining).await.unwrap().expect("memory leaves");
}

#[tokio::test]
async fn a_backplane_that_failed_for_good_sends_everybody_elsewhere() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let address = server.address();
    let mut client = Client::in_room(address, "a").await;
    assert_eq!(http(address, "GET /health HTTP/1.1", "").await, (200, "{}".to_owned()));
    bus.failed.store(true, SeqCst);
    // Balancers see it before anybody is told to go.
    let (status, body) = http(address, "GET /health HTTP/1.1", "").await;
    assert_eq!(status, 503);
    assert!(body.contains("another process took its name"), "{body}");
    let running = tokio::spawn(server.run(std::future::pending()));
    assert_eq!(client.receive().await, Received::Close(3001, "shutdown".to_owned()));
    drop(client);
    let error = within(running).await.unwrap().expect_err("it failed");
    assert!(error.to_string().contains("another process took its name"), "{error}");
    assert!(bus.shut_down.load(SeqCst), "what can be left is left");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
