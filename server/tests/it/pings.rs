//! Pings of the protocol, missing pongs, late connects.

use manifold_server::config::Config;
use serde_json::json;

use crate::support::{Client, Received, config, serve};

fn quick() -> Config {
    Config { ping_interval_ms: 600, pong_timeout_ms: 550, ..config() }
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let server = serve(quick()).await;
    let mut client = Client::connect(server.address()).await;
    for _ in 0..4 {
        assert_eq!(client.next().await, json!({}), "a ping");
        client.send_text("{}").await;
    }
    client.send_text("{}").await;
    assert_eq!(client.close_code().await, 3501, "a pong without a ping");
}

#[tokio::test]
async fn a_missing_pong_costs_the_connection() {
    let server = serve(quick()).await;
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.next().await, json!({}));
    assert_eq!(client.receive().await, Received::Close(3012, "no pong".to_owned()));
}

#[tokio::test]
async fn connect_must_come_in_time() {
    let server = serve(Config { connect_timeout_ms: 300, ..config() }).await;
    let mut client = Client::open(server.address()).await;
    assert_eq!(client.receive().await, Received::Close(3502, "stale".to_owned()));
}
