//! The server API, and what a node says about itself.

use std::sync::Arc;

use manifold_server::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::{Client, config, http, serve, serve_on, within};
use crate::test_backplane::Bus;

fn with_key() -> Config {
    Config { api_key: Some("secret".to_owned()), node: "n1".to_owned(), ..config() }
}

async fn call(address: std::net::SocketAddr, method: &str, body: &str) -> (u16, Value) {
    let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: secret");
    let (status, body) = http(address, &head, body).await;
    (status, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn a_key_is_needed() {
    let closed = serve(config()).await;
    let open = serve(with_key()).await;
    for (address, header) in [
        (closed.address(), "X-API-Key: secret"),
        (open.address(), "X-API-Key: wrong"),
        (open.address(), "A: b"),
    ] {
        assert_eq!(http(address, &format!("POST /api/info HTTP/1.1\r\n{header}"), "{}").await.0, 401);
    }
    for head in [
        "POST /api/info HTTP/1.1\r\nX-API-Key: secret",
        "POST /api/info HTTP/1.1\r\nAuthorization: apikey secret",
        "POST /api/info?api_key=secret HTTP/1.1",
    ] {
        assert_eq!(http(open.address(), head, "{}").await.0, 200, "{head}");
    }
    assert_eq!(http(open.address(), "GET /api/info?api_key=secret HTTP/1.1", "").await.0, 405);
}

#[tokio::test]
async fn a_body_is_awaited_only_of_those_with_a_key() {
    let server = serve(with_key()).await;
    for (head, status) in [("POST /api/info", "401"), ("PUT /api/info?api_key=secret", "405")] {
        let mut stalled = TcpStream::connect(server.address()).await.unwrap();
        let request = format!("{head} HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{{");
        stalled.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within(stalled.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
}

#[tokio::test]
async fn who_stalls_is_cut_off() {
    let server = serve(Config { request_timeout_ms: 100, ..with_key() }).await;
    // One does not send its body.
    let mut sender = TcpStream::connect(server.address()).await.unwrap();
    let request = "POST /api/info HTTP/1.1\r\nHost: h\r\nX-API-Key: secret\r\nContent-Length: 100\r\n\r\n{";
    sender.write_all(request.as_bytes()).await.unwrap();
    // The other does not read what it asks for, which is more than the sockets hold.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut reader = socket.connect(server.address()).await.unwrap();
    let requests = "GET /vendor/centrifuge.js HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000);
    let written = tokio::spawn(async move {
        let _ = reader.write_all(requests.as_bytes()).await;
        // The server's end of the connection, seen without reading from it.
        while reader.write_all(b"G").await.is_ok() {
            tokio::task::yield_now().await;
        }
    });
    within(sender.read_to_end(&mut Vec::new())).await.unwrap();
    within(written).await.unwrap();
}

#[tokio::test]
async fn publish_and_broadcast() {
    let server = serve(with_key()).await;
    let address = server.address();
    let mut client = Client::in_room(address, "a").await;
    let mut other = Client::in_room(address, "b").await;
    let (status, reply) = call(address, "publish", "{\"channel\":\"a\",\"data\":{\n  \"n\": 1\n}}").await;
    assert_eq!(status, 200);
    assert_eq!(reply["result"]["offset"], 1);
    let push = client.next().await;
    assert_eq!(push["push"]["pub"], json!({"data": {"n": 1}, "offset": 1}), "nobody's info");
    let body = json!({"channels": ["a", "", "b"], "data": 2}).to_string();
    let (_, reply) = call(address, "broadcast", &body).await;
    let responses = &reply["result"]["responses"];
    assert_eq!(responses[0]["result"]["offset"], 2);
    assert_eq!(responses[1], json!({"error": {"code": 107, "message": "bad request"}}));
    assert_eq!(responses[2]["result"]["offset"], 1);
    assert_eq!((client.publication().await, other.publication().await), (json!(2), json!(2)));
    let in_body = json!({"method": "publish", "params": {"channel": "a", "data": 3}}).to_string();
    let (status, _) = http(address, "POST /api HTTP/1.1\r\nX-API-Key: secret", &in_body).await;
    assert_eq!(status, 200);
    assert_eq!(client.publication().await, 3);
}

#[tokio::test]
async fn an_idempotency_key_makes_retries_one_message() {
    let server = serve(with_key()).await;
    let mut client = Client::in_room(server.address(), "a").await;
    for data in [1, 1, 2] {
        let body = json!({"channel": "a", "data": data, "idempotency_key": format!("k{data}")}).to_string();
        assert_eq!(call(server.address(), "publish", &body).await.0, 200);
    }
    assert_eq!(client.publication().await, 1);
    assert_eq!(client.publication().await, 2);
}

#[tokio::test]
async fn errors_of_the_api() {
    let server = serve(with_key()).await;
    let address = server.address();
    let (status, reply) = call(address, "dance", "{}").await;
    assert_eq!((status, reply), (200, json!({"error": {"code": 104, "message": "not found"}})));
    assert_eq!(call(address, "publish", "no json").await.0, 400);
    let cases = [
        json!({"data": 1}),
        json!({"channel": "a"}),
        json!({"channel": "a", "b64data": "aGk="}),
        json!({"channel": "x".repeat(256), "data": 1}),
    ];
    for body in cases {
        let (status, reply) = call(address, "publish", &body.to_string()).await;
        assert_eq!((status, &reply["error"]["code"]), (200, &json!(107)), "{body}");
    }
    let large = json!({"channel": "a", "data": "x".repeat(65_536)}).to_string();
    assert_eq!(call(address, "publish", &large).await.1["error"]["code"], 106);
    let too_large = json!({"channel": "a", "data": "x".repeat(1024 * 1024)}).to_string();
    assert_eq!(call(address, "publish", &too_large).await.0, 413);
}

#[tokio::test]
async fn info_and_channels() {
    let server = serve(with_key()).await;
    let address = server.address();
    let _clients = [
        Client::in_room(address, "chat:a").await,
        Client::in_room(address, "chat:a").await,
        Client::in_room(address, "news").await,
    ];
    let (_, reply) = call(address, "info", "").await;
    let node = &reply["result"]["nodes"][0];
    assert_eq!((&node["name"], &node["num_clients"]), (&json!("n1"), &json!(3)));
    assert_eq!((&node["num_channels"], &node["num_subs"]), (&json!(2), &json!(3)));
    let (_, reply) = call(address, "channels", "{\"pattern\":\"chat:*\"}").await;
    assert_eq!(reply["result"]["channels"], json!({"chat:a": {"num_clients": 2}}));
    let (_, reply) = call(address, "channels", "").await;
    assert_eq!(reply["result"]["channels"].as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn a_node_says_what_it_is() {
    let server = serve(with_key()).await;
    let address = server.address();
    assert_eq!(http(address, "GET /health HTTP/1.1", "").await, (200, "{}".to_owned()));
    let (status, body) = http(address, "GET /info HTTP/1.1", "").await;
    assert_eq!(status, 200);
    let info: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&info["node"], &info["strategy"]), (&json!("n1"), &json!("memory")));
    assert_eq!(info["guarantees"]["positions"], "dense");
    assert_eq!(info["settings"]["api_key"], "***");
    assert_eq!(info["counter_example"], false);
    assert!(info["commit"].is_string() && info["started_at_ms"].as_u64() > Some(1_600_000_000_000));
    assert!(!body.contains("secret"));
    let page = http(address, "GET / HTTP/1.1", "").await;
    assert_eq!(page.0, 200);
    assert_eq!(http(address, "GET /vendor/centrifuge.js HTTP/1.1", "").await.0, 200);
}

#[tokio::test]
async fn a_node_whose_broker_is_away_is_degraded_and_serves() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let address = server.address();
    for (cut, health) in
        [(true, json!({"degraded": "a broker is not there", "links_down": 1})), (false, json!({}))]
    {
        bus.cut(0, cut);
        let (status, body) = http(address, "GET /health HTTP/1.1", "").await;
        assert_eq!((status, serde_json::from_str::<Value>(&body).unwrap()), (200, health));
        let info: Value = serde_json::from_str(&http(address, "GET /info HTTP/1.1", "").await.1).unwrap();
        assert_eq!(info["losses"]["links_down"], u64::from(cut));
        let metrics = http(address, "GET /metrics HTTP/1.1", "").await.1;
        assert!(metrics.contains(&format!("manifold_backplane_links_down {}\n", u8::from(cut))), "{metrics}");
    }
}

#[tokio::test]
async fn metrics_count() {
    let server = serve(with_key()).await;
    let address = server.address();
    let mut client = Client::in_room(address, "a").await;
    client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    client.call(json!({"publish": {"channel": "a"}})).await;
    client.publication().await;
    let metrics = http(address, "GET /metrics HTTP/1.1", "").await.1;
    for line in [
        "manifold_connections 1",
        "manifold_rooms 1",
        "manifold_outbox_bytes 0",
        "manifold_publishes_total 1",
        "manifold_deliveries_total 1",
        "manifold_slow_consumer_closes_total 0",
        "manifold_errors_total{kind=\"reply_107\"} 1",
        "manifold_backplane_lag_messages 0",
        "manifold_backplane_gaps_total 0",
        "manifold_backplane_gap_messages_total 0",
        "manifold_backplane_duplicates_removed_total 0",
        "manifold_backplane_reconnects_total 0",
        "manifold_backplane_envelopes_received_total 1",
        "manifold_backplane_envelopes_wanted_total 1",
        "manifold_backplane_broker_writes_total 0",
        "manifold_backplane_publishes_total 1",
        "manifold_publish_seconds_count 1",
        "manifold_delivery_seconds_count 1",
        "manifold_delivery_seconds_bucket{le=\"+Inf\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
    assert!(metrics.contains("process_resident_memory_bytes "));
}
