//! A room of many members: served in turns, in order, and small rooms do not wait for it.

use manifold_server::config::Config;
use serde_json::json;

use crate::support::{Client, config, serve, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_giant_room_keeps_its_order_and_members_may_come_and_go() {
    let server = serve(Config { giant_members_min: 20, ..config() }).await;
    let address = server.address();
    let mut members = Vec::new();
    for _ in 0..300 {
        members.push(Client::in_room(address, "giant").await);
    }
    let count = 200;
    let churn = tokio::spawn(async move {
        for _ in 0..30 {
            let mut guest = Client::in_room(address, "giant").await;
            // Whatever it gets is without holes.
            let first = guest.publication().await.as_u64().unwrap();
            assert_eq!(guest.publication().await, first + 1);
            guest.call(json!({"unsubscribe": {"channel": "giant"}})).await;
        }
    });
    let mut publisher = Client::connect(address).await;
    for number in 0..count {
        publisher.call(json!({"publish": {"channel": "giant", "data": number}})).await;
    }
    for member in &mut members {
        for number in 0..count {
            assert_eq!(member.publication().await, number);
        }
    }
    let mut number = count;
    while !churn.is_finished() {
        publisher.call(json!({"publish": {"channel": "giant", "data": number}})).await;
        number += 1;
        tokio::task::yield_now().await;
    }
    churn.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_delays_and_loses_nothing() {
    let server = serve(Config { giant_members_min: 2, giant_queue_bytes_max: 64 * 1024, ..config() }).await;
    let mut member = Client::in_room(server.address(), "giant").await;
    let _other = Client::in_room(server.address(), "giant").await;
    let mut publisher = Client::connect(server.address()).await;
    let data = "x".repeat(1000);
    let count = 300;
    let publish = async {
        // One read of many publishes fills the queue faster than any task could empty it.
        for batch in 0..count / 30 {
            let frame: String = (0..30)
                .map(|index| batch * 30 + index)
                .map(|number| {
                    json!({"id": number + 9, "publish": {"channel": "giant", "data": [number, data]}})
                        .to_string()
                        + "\n"
                })
                .collect();
            publisher.send_text(frame).await;
        }
        for _ in 0..count {
            publisher.next().await;
        }
    };
    let receive = async {
        for number in 0..count {
            assert_eq!(member.publication().await[0], number);
        }
    };
    within(async { tokio::join!(publish, receive) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_room_is_served_while_a_giant_one_is_busy() {
    let server = serve(Config { giant_members_min: 50, giant_queue_bytes_max: 64 << 20, ..config() }).await;
    let address = server.address();
    let mut giants = Vec::new();
    for _ in 0..400 {
        giants.push(Client::in_room(address, "giant").await);
    }
    let mut small = Client::in_room(address, "small").await;
    let mut publisher = Client::connect(address).await;
    // One read: two hundred messages for the giant room, 80,000 sends, and then one for the small room.
    let giant_messages = 200;
    let mut frame: String = (0..giant_messages)
        .map(|number| {
            json!({"id": number + 9, "publish": {"channel": "giant", "data": number}}).to_string() + "\n"
        })
        .collect();
    frame += &json!({"id": 1000, "publish": {"channel": "small", "data": "now"}}).to_string();
    publisher.send_text(frame).await;
    assert_eq!(small.publication().await, "now");
    let metrics = crate::support::http(address, "GET /info HTTP/1.1", "").await;
    assert_eq!(metrics.0, 200, "HTTP is served meanwhile as well");
    for member in &mut giants {
        for number in 0..giant_messages {
            assert_eq!(member.publication().await, number);
        }
    }
}
