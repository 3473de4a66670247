//! Positioned subscriptions: who asks for it is told of every loss.

use std::sync::Arc;

use manifold_strategies::{Envelope, Event, Message, MessageId, Position, RoomId};
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
    assert_eq!(push["push"]["pub"]["data"], 1, "what came is not lost: {push}");
    assert!(push["push"]["pub"].get("offset").is_none(), "it would look like the next one: {push}");
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

fn late(data: &'static str, id: u128, position: Position) -> Event {
    let envelope = Envelope {
        room: RoomId::new("a"),
        id: MessageId(id),
        published_at_us: 0,
        info: bytes::Bytes::new(),
        payload: bytes::Bytes::from_static(data.as_bytes()),
    };
    Event::Message(Message { envelope, position })
}

#[tokio::test]
async fn a_message_without_a_position_reaches_all_and_is_no_jump() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    positioned(&mut client).await;
    // Position 1 is given up and 2 arrives; then 1 comes after all.
    bus.lose("a", 1);
    bus.send(Event::Gap { room: RoomId::new("a"), from: 1, to: 2 });
    assert_eq!(client.next().await["push"]["unsubscribe"]["code"], 2500);
    positioned(&mut client).await;
    plain.call(json!({"publish": {"channel": "a", "data": 2}})).await;
    bus.send(late("1", 9, Position::default()));
    for member in [&mut client, &mut plain] {
        assert_eq!(member.publication().await, 2);
        let push = member.next().await;
        assert_eq!(push["push"]["pub"]["data"], 1, "{push}");
        assert!(push["push"]["pub"].get("offset").is_none(), "{push}");
    }
    plain.call(json!({"publish": {"channel": "a", "data": 3}})).await;
    for member in [&mut client, &mut plain] {
        assert_eq!(member.next().await["push"]["pub"]["offset"], 3);
    }
}

#[tokio::test]
async fn a_position_used_up_by_a_second_copy_is_no_loss() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    let mut client = Client::connect(server.address()).await;
    positioned(&mut client).await;
    client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(client.publication().await, 1);
    bus.lose("a", 1);
    bus.send(Event::Skipped { room: RoomId::new("a"), position: Position { epoch: 77, offset: 2 } });
    client.call(json!({"publish": {"channel": "a", "data": 3}})).await;
    assert_eq!(client.next().await["push"]["pub"]["offset"], 3);
}

#[tokio::test]
async fn a_new_numbering_without_loss_sends_nobody_away() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let server = serve_on(config(), move |entrance| on.backplane(entrance)).await;
    // Keeps the room joined when the others are sent away.
    let _plain = Client::in_room(server.address(), "a").await;
    let mut veteran = Client::connect(server.address()).await;
    positioned(&mut veteran).await;
    veteran.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(veteran.next().await["push"]["pub"]["offset"], 1);
    let anew = |offset| Position { epoch: 78, offset };
    bus.send(Event::Renumbered { room: RoomId::new("a"), epoch: 78 });
    bus.send(late("2", 2, anew(1)));
    let push = veteran.next().await;
    assert_eq!(push["push"]["pub"]["data"], 2, "{push}");
    assert!(push["push"]["pub"].get("offset").is_none(), "it would be taken for the old numbering's: {push}");
    // 78 in base 36.
    let mut newcomer = Client::connect(server.address()).await;
    assert_eq!(positioned(&mut newcomer).await, json!({"positioned": true, "epoch": "26", "offset": 1}));
    bus.send(late("3", 3, anew(2)));
    assert_eq!(newcomer.next().await["push"]["pub"]["offset"], 2);
    assert!(veteran.next().await["push"]["pub"].get("offset").is_none());
    // The veteran is still told of losses.
    bus.send(Event::Gap { room: RoomId::new("a"), from: 3, to: 4 });
    for member in [&mut veteran, &mut newcomer] {
        assert_eq!(member.next().await["push"]["unsubscribe"]["code"], 2500);
    }
    assert_eq!(positioned(&mut veteran).await["offset"], 3);
    bus.send(late("4", 4, anew(4)));
    assert_eq!(veteran.next().await["push"]["pub"]["offset"], 4);
}

#[tokio::test]
async fn a_room_that_grows_into_a_giant_after_a_new_numbering_sends_away_who_has_an_old_position() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let settings = manifold_server::config::Config { giant_members_min: 2, ..config() };
    let server = serve_on(settings, move |entrance| on.backplane(entrance)).await;
    let mut veteran = Client::connect(server.address()).await;
    positioned(&mut veteran).await;
    bus.send(Event::Renumbered { room: RoomId::new("a"), epoch: 78 });
    // Shows that the room was small by then.
    bus.send(late("0", 9, Position::default()));
    assert_eq!(veteran.publication().await, 0);
    let mut newcomer = Client::in_room(server.address(), "a").await;
    bus.send(late("1", 1, Position { epoch: 78, offset: 1 }));
    assert!(veteran.next().await["push"]["pub"].get("offset").is_none());
    assert_eq!(veteran.next().await["push"]["unsubscribe"]["code"], 2500);
    assert_eq!(newcomer.next().await["push"]["pub"]["offset"], 1);
}

#[tokio::test]
async fn a_giant_room_that_is_numbered_anew_sends_away_who_has_a_position_and_knows_where_it_stands() {
    let bus = Bus::new();
    let on = Arc::clone(&bus);
    let settings = manifold_server::config::Config { giant_members_min: 2, ..config() };
    let server = serve_on(settings, move |entrance| on.backplane(entrance)).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    positioned(&mut client).await;
    client.call(json!({"publish": {"channel": "a", "data": 1}})).await;
    assert_eq!(client.publication().await, 1);
    assert_eq!(plain.publication().await, 1);
    let anew = |offset| Position { epoch: 78, offset };
    bus.send(Event::Renumbered { room: RoomId::new("a"), epoch: 78 });
    assert_eq!(client.next().await["push"]["unsubscribe"]["code"], 2500);
    assert_eq!(positioned(&mut client).await, json!({"positioned": true, "epoch": "26"}));
    // A gap of the new numbering means the new numbering's offsets.
    bus.send(Event::Gap { room: RoomId::new("a"), from: 1, to: 3 });
    assert_eq!(client.next().await["push"]["unsubscribe"]["code"], 2500);
    assert_eq!(positioned(&mut client).await, json!({"positioned": true, "epoch": "26", "offset": 2}));
    bus.send(late("3", 3, anew(3)));
    for member in [&mut client, &mut plain] {
        assert_eq!(member.next().await["push"]["pub"]["offset"], 3);
    }
}
