//! Positioned subscriptions: who asks for it is told of every loss.

use std::sync::Arc;

use manifold_strategies::{Event, RoomId};
use serde_json::{Value, json};

use crate::support::{Client, config, serve_on};
use crate::test_backplane::Bus;

async fn positioned(client: &mut Client) -> Value {
    client.call(json!({"subscribe": {"channel": "a", "positioned": true}})).await["subscribe"].clone()
}

#[tokio::test]
async fn a_gap_sends_positioned_members_away_and_no_others() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    plain.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    plain.publication().await;
    let mut client = Client::connect(server.address()).await;
    // 77 in base 36.
    assert_eq!(positioned(&mut client).await, json!({"positioned": true, "epoch": "25", "offset": 1}));
    bus.lose("a", 2);
    bus.send(Event::Gap { room: RoomId::new("a"), from: 2, to: 4 });
    let push = client.next().await;
    assert_eq!(
        push["push"],
        json!({"channel": "a", "unsubscribe": {"code": 2500, "reason": "insufficient state"}})
    );
    assert_eq!(positioned(&mut client).await["offset"], 3);
    plain.call(json!({"publish": {"channel": "a", "data": 2}})).await;
    for member in [&mut client, &mut plain] {
        let push = member.next().await;
        assert_eq!(push["push"]["pub"]["offset"], 4, "{push}");
    }
}

#[tokio::test]
async fn an_undeclared_jump_counts_as_a_gap() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    assert_eq!(positioned(&mut client).await, json!({"positioned": true, "epoch": "25"}));
    bus.lose("a", 1);
    client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    let push = client.next().await;
    assert_eq!(push["push"]["unsubscribe"]["code"], 2500, "{push}");
    assert_eq!(
        positioned(&mut client).await["offset"],
        2,
        "the message itself is before the new subscription"
    );
    client.call(json!({"publish": {"channel": "a", "data": 2}})).await;
    assert_eq!(client.publication().await, 2);
}
