//! Reading history, and publishing once what is sent twice.

use std::net::SocketAddr;

use manifold_server::config::Config;
use manifold_strategies::guarantees::Positions;
use serde_json::{Value, json};

use crate::recovery::publish;
use crate::support::{Client, config, http, metric, serve, serve_on};
use crate::test_backplane::Bus;

fn with_key() -> Config {
    Config { api_key: Some("secret".to_owned()), ..config() }
}

async fn api(address: SocketAddr, method: &str, request: &Value) -> Value {
    let head = format!("POST /api/{method} HTTP/1.1\r\nX-API-Key: secret");
    let (status, body) = http(address, &head, &request.to_string()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).expect("JSON")
}

fn data(result: &Value) -> Vec<Value> {
    let publications = result["publications"].as_array().expect("always there");
    publications.iter().map(|publication| publication["data"].clone()).collect()
}

#[tokio::test]
async fn pages_of_a_room() {
    let bus = Bus::with_history(Positions::Dense);
    let settings = Config { history_messages_max: 4, ..with_key() };
    let server = serve_on(settings, move |entrance| bus.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    for number in 1..=5 {
        publish(&mut client, number).await;
    }
    let cases = [
        (json!({}), vec![]),
        (json!({"limit": 0}), vec![]),
        (json!({"limit": 2}), vec![1, 2]),
        (json!({"limit": -1}), vec![1, 2, 3, 4]),
        (json!({"limit": 100}), vec![1, 2, 3, 4]),
        (json!({"limit": 2, "reverse": true}), vec![5, 4]),
        (json!({"limit": 2, "since": {"offset": 2, "epoch": "25"}}), vec![3, 4]),
        (json!({"limit": 2, "since": {"offset": 2}}), vec![3, 4]),
        (json!({"limit": 2, "since": {"offset": 0, "epoch": "25"}}), vec![1, 2]),
        (json!({"limit": 2, "since": {"offset": 2, "epoch": "25"}, "reverse": true}), vec![1]),
        (json!({"limit": 2, "since": {"offset": 5, "epoch": "25"}}), vec![]),
    ];
    let count = cases.len();
    for (mut request, expected) in cases {
        request["channel"] = json!("a");
        let reply = client.call(json!({"history": request})).await;
        let result = &reply["history"];
        assert_eq!(data(result), expected, "{request}: {reply}");
        assert_eq!((&result["epoch"], &result["offset"]), (&json!("25"), &json!(5)), "{request}: {reply}");
        assert_eq!(api(server.address(), "history", &request).await["result"], *result, "{request}");
    }
    assert_eq!(metric(server.address(), "manifold_history_reads_total").await, 2.0 * count as f64);
    let reply = client.call(json!({"history": {"channel": "a", "limit": 1, "reverse": true}})).await;
    let newest = &reply["history"]["publications"][0];
    assert_eq!(newest["offset"], 5, "{reply}");
    assert!(newest["info"]["client"].is_string(), "{reply}");
}

#[tokio::test]
async fn pages_that_are_not_to_be_had() {
    let bus = Bus::with_history(Positions::Dense);
    let settings = Config { message_bytes_max: 1024, outbox_bytes_max: 20_000, ..with_key() };
    let server = serve_on(settings, move |entrance| bus.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    let cases = [
        (json!({"limit": 1, "since": {"offset": 1, "epoch": "26"}}), 112),
        (json!({"limit": 1, "since": {"offset": 1, "epoch": "wwGy"}}), 112),
        (json!({"limit": 1, "since": {"offset": 0, "epoch": "25"}, "reverse": true}), 107),
        (json!({"limit": 1, "since": {"offset": 0}, "reverse": true}), 107),
    ];
    for (mut request, code) in cases {
        request["channel"] = json!("a");
        let reply = client.call(json!({"history": request})).await;
        assert_eq!(reply["error"]["code"], code, "{request}: {reply}");
        let reply = api(server.address(), "history", &request).await;
        assert_eq!(reply["error"]["code"], code, "{request}: {reply}");
    }
    // More than fits the client's outbox: it has to ask for less.
    let long = "x".repeat(800);
    for _ in 0..30 {
        publish(&mut client, long.as_str()).await;
    }
    let reply = client.call(json!({"history": {"channel": "a", "limit": -1}})).await;
    assert_eq!(reply["error"]["code"], 106, "{reply}");
    let reply = client.call(json!({"history": {"channel": "a", "limit": 5}})).await;
    assert_eq!(data(&reply["history"]).len(), 5);
    let reply = api(server.address(), "history", &json!({"channel": "a", "limit": -1})).await;
    assert_eq!(data(&reply["result"]).len(), 30, "nobody's outbox is concerned");
    // The bus cannot forget.
    let reply = api(server.address(), "history_remove", &json!({"channel": "a"})).await;
    assert_eq!(reply["error"]["code"], 108, "{reply}");
}

#[tokio::test]
async fn where_nothing_is_kept() {
    let bus = Bus::new();
    let server = serve_on(with_key(), move |entrance| bus.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    let request = json!({"channel": "a", "limit": 1});
    assert_eq!(client.call(json!({"history": request})).await["error"]["code"], 108);
    for method in ["history", "history_remove"] {
        let reply = api(server.address(), method, &request).await;
        assert_eq!(reply["error"], json!({"code": 108, "message": "not available"}), "{method}");
        let reply = api(server.address(), method, &json!({})).await;
        assert_eq!(reply["error"]["code"], 107, "{method}");
    }
}

#[tokio::test]
async fn a_publish_that_is_repeated_under_its_key_is_one_message() {
    let server = serve(with_key()).await;
    let mut member = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    let keyed = |data: u32, key: &str| json!({"channel": "a", "data": data, "idempotency_key": key});
    for request in [keyed(1, "k1"), keyed(1, "k1"), keyed(2, "k2")] {
        assert_eq!(client.call(json!({"publish": request})).await["publish"], json!({}));
    }
    // A client that lost its connection may be another one by now.
    drop(client);
    let mut client = Client::connect(server.address()).await;
    client.call(json!({"publish": keyed(2, "k2")})).await;
    api(server.address(), "publish", &keyed(2, "k2")).await;
    client.call(json!({"publish": {"channel": "a", "data": 3}})).await;
    client.call(json!({"publish": {"channel": "a", "data": 3}})).await;
    for expected in [1, 2, 3, 3] {
        assert_eq!(member.publication().await, expected);
    }
}

#[tokio::test]
async fn a_room_that_was_forgotten_keeps_its_numbering() {
    let server = serve(with_key()).await;
    let mut client = Client::in_room(server.address(), "a").await;
    publish(&mut client, 1).await;
    publish(&mut client, 2).await;
    let all = json!({"channel": "a", "limit": -1});
    let before = api(server.address(), "history", &all).await["result"].clone();
    assert_eq!((data(&before), &before["offset"]), (vec![json!(1), json!(2)], &json!(2)), "{before}");
    let reply = api(server.address(), "history_remove", &json!({"channel": "a"})).await;
    assert_eq!(reply["result"], json!({}), "{reply}");
    let after = api(server.address(), "history", &all).await["result"].clone();
    assert_eq!(after, json!({"publications": [], "epoch": before["epoch"], "offset": 2}));
    // Whoever had not seen the last message learns that it is gone; whoever had misses nothing.
    for (offset, recovered) in [(1, Value::Null), (2, json!(true))] {
        let mut client = Client::connect(server.address()).await;
        let from = json!({"channel": "a", "recover": true, "epoch": before["epoch"], "offset": offset});
        let reply = client.call(json!({"subscribe": from})).await;
        assert_eq!(reply["subscribe"]["recovered"], recovered, "{reply}");
    }
}
