//! Limits, each with its error.

use manifold_server::config::Config;
use serde_json::json;

use crate::support::{Client, config, http, serve, until};

const UPGRADE: &str = "GET /connection/websocket HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test]
async fn rooms_per_connection() {
    let server = serve(Config { rooms_per_connection_max: 3, ..config() }).await;
    let mut client = Client::connect(server.address()).await;
    for room in ["a", "b", "c"] {
        assert!(client.call(json!({"subscribe": {"channel": room}})).await["subscribe"].is_object());
    }
    let reply = client.call(json!({"subscribe": {"channel": "d"}})).await;
    assert_eq!(reply["error"], json!({"code": 106, "message": "limit exceeded"}));
    client.call(json!({"unsubscribe": {"channel": "b"}})).await;
    assert!(client.call(json!({"subscribe": {"channel": "d"}})).await["subscribe"].is_object());
}

#[tokio::test]
async fn connections() {
    let server = serve(Config { connections_max: 2, ..config() }).await;
    let address = server.address();
    let one = Client::connect(address).await;
    let _two = Client::connect(address).await;
    let (status, body) = http(address, UPGRADE, "").await;
    assert_eq!(status, 503);
    assert!(body.contains("no more connections"), "{body}");
    drop(one);
    until(|| server.node().connection_count() == 1).await;
    Client::connect(address).await;
}

#[tokio::test]
async fn inbound_rate() {
    let server = serve(Config { inbound_rate_max: 1, inbound_burst_max: 5, ..config() }).await;
    let mut client = Client::connect(server.address()).await;
    // connect took one of five.
    for _ in 0..4 {
        assert!(client.call(json!({"publish": {"channel": "a", "data": 1}})).await["publish"].is_object());
    }
    let reply = client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(reply["error"], json!({"code": 111, "message": "too many requests", "temporary": true}));
    let flood: String = (0..40).map(|id| format!("{{\"id\":{},\"rpc\":{{}}}}\n", id + 100)).collect();
    client.send_text(flood).await;
    assert_eq!(client.close_code().await, 3013);
}

#[tokio::test]
async fn room_names_and_publishers() {
    let config = Config {
        room_name_bytes_max: 10,
        unicode_room_names: true,
        publish_requires_subscription: true,
        ..config()
    };
    let server = serve(config).await;
    let mut client = Client::connect(server.address()).await;
    assert!(client.call(json!({"subscribe": {"channel": "ééééé"}})).await["subscribe"].is_object());
    assert_eq!(client.call(json!({"subscribe": {"channel": "éééééx"}})).await["error"]["code"], 107);
    assert_eq!(client.call(json!({"publish": {"channel": "x", "data": 1}})).await["error"]["code"], 103);
    assert!(client.call(json!({"publish": {"channel": "ééééé", "data": 1}})).await["publish"].is_object());
    assert_eq!(client.publication().await, 1);
}
