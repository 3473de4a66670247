//! Connect, subscribe, publish, receive.

use serde_json::json;

use crate::support::{Client, config, serve};

#[tokio::test]
async fn a_message_reaches_every_member_and_its_publisher() {
    let server = serve(config()).await;
    let mut ann = Client::in_room(server.address(), "chat:a").await;
    let mut bob = Client::in_room(server.address(), "chat:a").await;
    let mut cid = Client::in_room(server.address(), "chat:b").await;
    let reply = ann.call(json!({"publish": {"channel": "chat:a", "data": {"text": "hé"}}})).await;
    assert_eq!(reply["publish"], json!({}));
    for client in [&mut ann, &mut bob] {
        let push = client.next().await;
        assert_eq!(push["push"]["channel"], "chat:a");
        assert_eq!(push["push"]["pub"]["data"], json!({"text": "hé"}));
        assert_eq!(push["push"]["pub"]["offset"], 1);
        assert_eq!(push["push"]["pub"]["info"]["user"], "");
        assert!(push["push"]["pub"]["info"]["client"].is_string());
    }
    cid.call(json!({"publish": {"channel": "chat:b", "data": 1}})).await;
    assert_eq!(cid.publication().await, 1, "another room's message comes first only if it leaked");
}

/// Publishers that send bursts into several rooms at once; every member sees every message of its room, and all members of a
/// room see one order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_publishers_and_rooms_at_once() {
    const ROOMS: usize = 5;
    const MEMBERS: usize = 4;
    const PUBLISHERS: usize = 8;
    const MESSAGES: usize = 300;
    let server = serve(config()).await;
    let address = server.address();
    let mut members = Vec::new();
    for index in 0..ROOMS * MEMBERS {
        let mut member = Client::in_room(address, &format!("room-{}", index % ROOMS)).await;
        members.push(tokio::spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < PUBLISHERS * MESSAGES {
                seen.push(member.publication().await.to_string());
            }
            seen
        }));
    }
    let publishers = (0..PUBLISHERS).map(|publisher| {
        tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for burst in 0..MESSAGES / 10 {
                let commands = (0..10 * ROOMS).map(|index| {
                    let (number, room) = (burst * 10 + index / ROOMS, format!("room-{}", index % ROOMS));
                    let data = json!([publisher, number]);
                    json!({"id": 9, "publish": {"channel": room, "data": data}}).to_string() + "\n"
                });
                client.send_text(commands.collect::<String>()).await;
                // Now and then alone in its read, as well.
                for _ in 0..10 * ROOMS {
                    assert_eq!(client.next().await, json!({"id": 9, "publish": {}}));
                }
            }
        })
    });
    for publisher in publishers.collect::<Vec<_>>() {
        publisher.await.unwrap();
    }
    let mut orders = Vec::new();
    for member in members {
        orders.push(member.await.unwrap());
    }
    for (index, order) in orders.iter().enumerate() {
        assert_eq!(order, &orders[index % ROOMS], "one order for all members of a room");
        for publisher in 0..PUBLISHERS {
            let own = order.iter().filter(|seen| seen.starts_with(&format!("[{publisher},")));
            let expected = (0..MESSAGES).map(|number| json!([publisher, number]).to_string());
            assert!(own.cloned().eq(expected), "each publisher's order, complete");
        }
    }
}
