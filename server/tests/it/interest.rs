//! Joins and leaves of the backplane, and what subscribers see of them.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use manifold_server::Server;
use manifold_server::config::Config;
use serde_json::json;

use crate::support::{Client, config, serve_on, until};
use crate::test_backplane::Bus;

async fn serve(bus: &Arc<Bus>) -> Server {
    let bus = Arc::clone(bus);
    serve_on(config(), move |entrance| bus.backplane(entrance)).await
}

#[tokio::test]
async fn two_nodes_share_a_room() {
    let bus = Bus::new();
    let (one, two) = (serve(&bus).await, serve(&bus).await);
    let mut ann = Client::in_room(one.address(), "a").await;
    let mut bob = Client::in_room(two.address(), "a").await;
    for number in 0..200 {
        let publisher = if number % 2 == 0 { &mut ann } else { &mut bob };
        let reply = publisher.call(json!({"publish": {"channel": "a", "data": number}})).await;
        assert_eq!(reply["publish"], json!({}));
    }
    for client in [&mut ann, &mut bob] {
        for number in 0..200 {
            let push = client.next().await;
            assert_eq!(
                (&push["push"]["pub"]["data"], &push["push"]["pub"]["offset"]),
                (&json!(number), &json!(number + 1))
            );
        }
    }
}

#[tokio::test]
async fn subscribers_wait_for_one_join() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    bus.joins_open.send_replace(false);
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Client::connect(server.address()).await;
        client.send(json!({"subscribe": {"channel": "a"}})).await;
        // Answered by the same task, so the subscribe before it is under way.
        assert!(client.call(json!({"rpc": {}})).await["error"].is_object());
        clients.push(client);
    }
    assert_eq!(bus.calls(), ["join a"]);
    bus.joins_open.send_replace(true);
    for client in &mut clients {
        assert_eq!(client.next().await["subscribe"], json!({}));
    }
    clients[0].call(json!({"publish": {"channel": "a", "data": 1}})).await;
    for client in &mut clients {
        assert_eq!(client.publication().await, 1);
    }
    drop(clients);
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
    assert_eq!(bus.calls(), ["join a", "joined a", "leave a", "left a"]);
}

#[tokio::test]
async fn a_failed_join_is_a_temporary_error() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    bus.joins_failing.store(1, SeqCst);
    let mut client = Client::connect(server.address()).await;
    let reply = client.call(json!({"subscribe": {"channel": "a"}})).await;
    assert_eq!(reply["error"], json!({"code": 100, "message": "internal server error", "temporary": true}));
    assert_eq!(client.call(json!({"subscribe": {"channel": "a"}})).await["subscribe"], json!({}));
    assert_eq!(bus.calls(), ["join a", "failed a", "join a", "joined a"]);
}

#[tokio::test]
async fn a_join_outlives_the_client_that_caused_it() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    bus.joins_open.send_replace(false);
    let mut client = Client::connect(server.address()).await;
    client.send(json!({"subscribe": {"channel": "a"}})).await;
    until(|| !bus.calls().is_empty()).await;
    drop(client);
    until(|| server.node().connection_count() == 0).await;
    bus.joins_open.send_replace(true);
    until(|| bus.calls().len() == 4).await;
    assert_eq!(bus.calls(), ["join a", "joined a", "leave a", "left a"]);
}

#[tokio::test]
async fn unsubscribing_while_joining_answers_both_in_order() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    bus.joins_open.send_replace(false);
    let mut client = Client::connect(server.address()).await;
    let subscribe = client.send(json!({"subscribe": {"channel": "a"}})).await;
    let unsubscribe = client.send(json!({"unsubscribe": {"channel": "a"}})).await;
    let again = client.send(json!({"subscribe": {"channel": "a"}})).await;
    bus.joins_open.send_replace(true);
    assert_eq!(client.next().await, json!({"id": subscribe, "subscribe": {}}));
    assert_eq!(client.next().await, json!({"id": unsubscribe, "unsubscribe": {}}));
    assert_eq!(client.next().await, json!({"id": again, "subscribe": {}}));
    client.call(json!({"unsubscribe": {"channel": "a"}})).await;
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
}

#[tokio::test]
async fn commands_for_a_room_take_effect_in_the_order_sent() {
    let bus = Bus::new();
    let config = Config { publish_requires_subscription: true, pending_commands_max: 4, ..config() };
    let on = Arc::clone(&bus);
    let server = serve_on(config, move |entrance| on.backplane(entrance)).await;
    bus.joins_open.send_replace(false);
    let mut client = Client::connect(server.address()).await;
    client
        .send_text(
            "{\"id\":11,\"subscribe\":{\"channel\":\"a\"}}\n{\"id\":12,\"publish\":{\"channel\":\"a\",\"data\":1}}\n\
             {\"id\":13,\"unsubscribe\":{\"channel\":\"a\"}}\n{\"id\":14,\"publish\":{\"channel\":\"a\",\"data\":2}}\n\
             {\"id\":15,\"publish\":{\"channel\":\"a\",\"data\":3}}",
        )
        .await;
    // The bound: the join and three commands behind it.
    assert_eq!(client.next().await["id"], 15);
    assert_eq!(bus.position("a"), 0);
    bus.joins_open.send_replace(true);
    let mut replies = Vec::new();
    while replies.len() < 4 {
        let reply = client.next().await;
        if reply["id"].is_u64() {
            replies.push(reply);
        }
    }
    // The acknowledgement of the publish comes from the bus.
    replies.sort_by_key(|reply| reply["id"].as_u64());
    assert_eq!(
        replies[..3],
        [11, 12, 13].map(|id| {
            let name = ["subscribe", "publish", "unsubscribe"][id - 11];
            json!({"id": id, name: {}})
        })
    );
    assert_eq!(replies[3]["error"]["code"], 103, "a member no more");
    assert_eq!(bus.position("a"), 1);
}

#[tokio::test]
async fn who_subscribes_and_publishes_in_one_frame_hears_itself() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    bus.joins_open.send_replace(false);
    let mut client = Client::connect(server.address()).await;
    let frame: String = (1..=3)
        .map(|number| {
            format!("\n{{\"id\":{},\"publish\":{{\"channel\":\"a\",\"data\":{number}}}}}", number + 20)
        })
        .collect();
    client.send_text(format!("{{\"id\":20,\"subscribe\":{{\"channel\":\"a\"}}}}{frame}")).await;
    until(|| bus.calls() == ["join a"]).await;
    bus.joins_open.send_replace(true);
    let (mut heard, mut acknowledged) = (Vec::new(), Vec::new());
    while heard.len() + acknowledged.len() < 7 {
        let reply = client.next().await;
        match reply["id"].as_u64() {
            Some(id) => acknowledged.push(id),
            None => heard.push(reply["push"]["pub"]["data"].clone()),
        }
    }
    assert_eq!((heard, acknowledged[0]), (vec![json!(1), json!(2), json!(3)], 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_leaves_of_a_room_alternate_under_churn() {
    let bus = Bus::new();
    let server = serve(&bus).await;
    let address = server.address();
    let churn = (0..8).map(|_| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..40 {
                client.call(json!({"subscribe": {"channel": "a"}})).await;
                client.call(json!({"unsubscribe": {"channel": "a"}})).await;
            }
        })
    });
    for task in churn.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
    let calls = bus.calls();
    for (index, call) in calls.iter().enumerate() {
        assert_eq!(call, ["join a", "joined a", "leave a", "left a"][index % 4], "call {index}");
    }
}

#[tokio::test]
async fn an_empty_room_lingers() {
    let bus = Bus::new();
    let config = manifold_server::config::Config { leave_linger_ms: 3_600_000, ..config() };
    let on = Arc::clone(&bus);
    let server = serve_on(config, move |entrance| on.backplane(entrance)).await;
    drop(Client::in_room(server.address(), "a").await);
    until(|| server.node().connection_count() == 0).await;
    let mut client = Client::in_room(server.address(), "a").await;
    client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(client.publication().await, 1);
    assert_eq!(bus.calls(), ["join a", "joined a"]);
}

#[tokio::test]
async fn failing_and_slow_publishes() {
    let bus = Bus::new();
    let config = manifold_server::config::Config { pending_commands_max: 2, ..config() };
    let on = Arc::clone(&bus);
    let server = serve_on(config, move |entrance| on.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    bus.publishes_failing.store(1, SeqCst);
    let reply = client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(reply["error"], json!({"code": 100, "message": "internal server error", "temporary": true}));
    bus.acks_open.send_replace(false);
    let ids = [
        client.send(json!({"publish": {"channel": "a", "data": 2}})).await,
        client.send(json!({"publish": {"channel": "a", "data": 3}})).await,
    ];
    let reply = client.call(json!({"publish": {"channel": "a", "data": 4}})).await;
    assert_eq!(reply["error"]["code"], 111, "{reply}");
    assert_eq!(bus.position("a"), 2);
    bus.acks_open.send_replace(true);
    let mut acknowledged = [client.next().await["id"].clone(), client.next().await["id"].clone()];
    acknowledged.sort_by_key(|id| id.as_u64());
    assert_eq!(acknowledged, ids.map(|id| json!(id)));
}
