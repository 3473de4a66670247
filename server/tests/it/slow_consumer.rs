//! Clients that do not read.

use std::time::Duration;

use manifold_server::config::Config;
use serde_json::json;

use crate::support::{Client, Received, config, http, metric, metric_in, serve, small_client, until, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_consumer_is_closed_and_its_room_notices_nothing() {
    let outbox_bytes_max = 256 * 1024;
    let server = serve(Config { outbox_bytes_max, close_timeout_ms: 15_000, ..config() }).await;
    let address = server.address();
    let mut slow = small_client(address).await;
    slow.call(json!({"connect": {}})).await;
    slow.call(json!({"subscribe": {"channel": "a"}})).await;
    let mut member = Client::in_room(address, "a").await;
    let mut publisher = Client::connect(address).await;
    let data = "x".repeat(8 * 1024);
    let mut published = 0_u32;
    let mut peak_bytes = 0.0_f64;
    let is_closed = |text: &str| metric_in(text, "manifold_slow_consumer_closes_total") == 1.0;
    within(async {
        loop {
            publisher.call(json!({"publish": {"channel": "a", "data": [published, data]}})).await;
            let received = member.publication().await;
            assert_eq!(received[0], published, "the others miss nothing");
            published += 1;
            if published.is_multiple_of(16) {
                let metrics = http(address, "GET /metrics HTTP/1.1", "").await.1;
                peak_bytes = peak_bytes.max(metric_in(&metrics, "manifold_outbox_bytes"));
                if is_closed(&metrics) {
                    break;
                }
            }
        }
    })
    .await;
    assert!(peak_bytes <= outbox_bytes_max as f64, "{peak_bytes}");
    // The rest of the room goes on, and nothing waits for the slow one any more but a frame's rest and the goodbye.
    let metrics = http(address, "GET /metrics HTTP/1.1", "").await.1;
    assert!(metric_in(&metrics, "manifold_outbox_bytes") < 20_000.0, "{metrics}");
    // It wakes up: whole messages in order, then the reason.
    let mut expected = 0;
    loop {
        match slow.receive().await {
            Received::Reply(push) => {
                assert_eq!(push["push"]["pub"]["data"][0], expected);
                expected += 1;
            }
            end => {
                assert_eq!(end, Received::Close(3008, "slow".to_owned()));
                break;
            }
        }
    }
    assert!(expected < published);
    // And it can come back.
    let mut back = Client::in_room(address, "a").await;
    publisher.call(json!({"publish": {"channel": "a", "data": "again"}})).await;
    assert_eq!(back.publication().await, "again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_never_reads_again_is_cut() {
    let server = serve(Config { outbox_bytes_max: 160 * 1024, close_timeout_ms: 200, ..config() }).await;
    let mut slow = small_client(server.address()).await;
    slow.call(json!({"connect": {}})).await;
    slow.call(json!({"subscribe": {"channel": "a"}})).await;
    let mut publisher = Client::connect(server.address()).await;
    let data = "x".repeat(60 * 1024);
    within(async {
        while server.node().connection_count() == 2 {
            publisher.call(json!({"publish": {"channel": "a", "data": data}})).await;
        }
    })
    .await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_pauses_within_its_limit_misses_nothing() {
    let server = serve(config()).await;
    let mut pausing = small_client(server.address()).await;
    pausing.call(json!({"connect": {}})).await;
    pausing.call(json!({"subscribe": {"channel": "a"}})).await;
    let mut publisher = Client::connect(server.address()).await;
    let data = "x".repeat(8 * 1024);
    let mut published = 0;
    loop {
        publisher.call(json!({"publish": {"channel": "a", "data": [published, data]}})).await;
        published += 1;
        if metric(server.address(), "manifold_outbox_bytes").await > 300_000.0 {
            break;
        }
    }
    for expected in 0..published {
        assert_eq!(pausing.publication().await[0], expected);
    }
    // Reading has emptied it, by the task's own writes.
    let address = server.address();
    until(|| server.node().connection_count() == 2).await;
    within(async {
        while metric(address, "manifold_outbox_bytes").await > 0.0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    publisher.call(json!({"publish": {"channel": "a", "data": "direct again"}})).await;
    assert_eq!(pausing.publication().await, "direct again");
}

#[tokio::test]
async fn a_burst_into_the_own_room_makes_nobody_slow() {
    let server = serve(Config { outbox_bytes_max: 148 * 1024, ..config() }).await;
    let mut client = Client::in_room(server.address(), "a").await;
    let mut member = Client::in_room(server.address(), "a").await;
    let count = 1_200;
    let frame: String = (0..count)
        .map(|number| format!("{{\"id\":9,\"publish\":{{\"channel\":\"a\",\"data\":{number}}}}}\n"))
        .collect();
    assert!(frame.len() < 64 * 1024 && count * 140 > 148 * 1024);
    client.send_text(frame).await;
    for number in 0..count {
        assert_eq!(member.publication().await, number);
    }
    for _ in 0..2 * count {
        client.next().await;
    }
}
