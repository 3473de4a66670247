//! Members that come back: everything missed arrives, in order, before what is live, and once.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use manifold_server::Server;
use manifold_server::config::Config;
use manifold_strategies::guarantees::Positions;
use manifold_strategies::{Envelope, Event, Message, MessageId, Position, Resumed, RoomId};
use serde_json::{Value, json};

use crate::support::{Client, config, metric, serve_on, until};
use crate::test_backplane::{Bus, EPOCH};

pub(crate) async fn serve(bus: &Arc<Bus>, config: Config) -> Server {
    let bus = Arc::clone(bus);
    serve_on(config, move |entrance| bus.backplane(entrance)).await
}

/// A command that comes back to room "a" after `offset`. 77 is "25" in base 36.
pub(crate) fn recover(offset: u64) -> Value {
    json!({"subscribe": {"channel": "a", "recoverable": true, "recover": true, "epoch": "25", "offset": offset}})
}

pub(crate) async fn publish(client: &mut Client, data: impl Into<Value>) {
    let data: Value = data.into();
    let reply = client.call(json!({"publish": {"channel": "a", "data": data}})).await;
    assert_eq!(reply["publish"], json!({}), "{reply}");
}

/// Data and offset of every publication in a subscribe reply.
pub(crate) fn missed(reply: &Value) -> Vec<(Value, Option<u64>)> {
    let publications = reply["subscribe"]["publications"].as_array().cloned().unwrap_or_default();
    publications.iter().map(|missed| (missed["data"].clone(), missed["offset"].as_u64())).collect()
}

fn numbers(range: impl Iterator<Item = u64>) -> Vec<(Value, Option<u64>)> {
    range.map(|number| (json!(number), Some(number))).collect()
}

pub(crate) fn placed(data: &'static str, id: u128, position: Position) -> Message {
    let envelope = Envelope {
        room: RoomId::new("a"),
        id: MessageId(id),
        published_at_us: 0,
        info: bytes::Bytes::new(),
        payload: bytes::Bytes::from_static(data.as_bytes()),
    };
    Message { envelope, position }
}

pub(crate) async fn assert_next(client: &mut Client, data: impl Into<Value>, offset: Option<u64>) {
    let push = client.next().await;
    let publication = &push["push"]["pub"];
    assert_eq!((&publication["data"], publication["offset"].as_u64()), (&data.into(), offset), "{push}");
}

pub(crate) async fn assert_sent_away(client: &mut Client) {
    let push = client.next().await;
    assert_eq!(push["push"]["unsubscribe"]["code"], 2500, "{push}");
}

#[tokio::test]
async fn a_hundred_missed_messages_come_on_another_node() {
    let bus = Bus::with_history(Positions::Dense);
    let (one, two) = (serve(&bus, config()).await, serve(&bus, config()).await);
    let mut ann = Client::connect(one.address()).await;
    let reply = ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    assert_eq!(reply["subscribe"], json!({"recoverable": true, "positioned": true, "epoch": "25"}));
    let mut bob = Client::in_room(one.address(), "a").await;
    for number in 1..=3 {
        publish(&mut bob, number).await;
        assert_next(&mut ann, number, Some(number)).await;
    }
    drop(ann);
    for number in 4..=103 {
        publish(&mut bob, number).await;
    }
    let mut ann = Client::connect(two.address()).await;
    let reply = ann.call(recover(3)).await;
    assert_eq!(missed(&reply), numbers(4..=103), "{reply}");
    let result = &reply["subscribe"];
    assert!(result["publications"][0]["info"]["client"].is_string(), "{reply}");
    for (field, value) in [
        ("recovered", json!(true)),
        ("was_recovering", json!(true)),
        ("recoverable", json!(true)),
        ("positioned", json!(true)),
        ("epoch", json!("25")),
        ("offset", json!(3)),
    ] {
        assert_eq!(result[field], value, "{field}: {reply}");
    }
    publish(&mut bob, 104).await;
    assert_next(&mut ann, 104, Some(104)).await;
    // Without an epoch the position is taken to be of the present one.
    let mut eve = Client::connect(two.address()).await;
    let reply = eve.call(json!({"subscribe": {"channel": "a", "recover": true, "offset": 102}})).await;
    assert_eq!(missed(&reply), numbers(103..=104), "{reply}");
    // Who missed nothing gets nothing.
    let mut dan = Client::connect(two.address()).await;
    let reply = dan.call(recover(104)).await;
    assert_eq!((&reply["subscribe"]["recovered"], missed(&reply)), (&json!(true), Vec::new()), "{reply}");
    let metrics = crate::support::http(two.address(), "GET /metrics HTTP/1.1", "").await.1;
    let line = "manifold_recoveries_total{outcome=\"recovered\"} 3";
    assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    assert_eq!(metric(two.address(), "manifold_recovered_publications_total").await, 102.0);
}

#[tokio::test]
async fn what_arrives_while_history_is_read_follows_it_once() {
    // The answer may hold any part of what arrives meanwhile.
    for answered in 0..=3 {
        for giant_members_min in [512, 2] {
            let bus = Bus::with_history(Positions::Dense);
            let server = serve(&bus, Config { giant_members_min, ..config() }).await;
            let mut plain = Client::in_room(server.address(), "a").await;
            let _other = Client::in_room(server.address(), "a").await;
            let mut ann = Client::connect(server.address()).await;
            bus.history_open.send_replace(false);
            let id = ann.send(recover(0)).await;
            until(|| bus.calls().contains(&"resume a".to_owned())).await;
            for number in 1..=3 {
                publish(&mut plain, number).await;
                assert_next(&mut plain, number, Some(number)).await;
            }
            let mut messages = bus.kept("a");
            messages.truncate(answered);
            let top = Position { epoch: EPOCH, offset: answered as u64 };
            bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top }));
            bus.history_open.send_replace(true);
            let reply = ann.next().await;
            assert_eq!(
                (&reply["id"], &reply["subscribe"]["recovered"]),
                (&json!(id), &json!(true)),
                "{reply}"
            );
            assert_eq!(missed(&reply), numbers(1..=answered as u64));
            publish(&mut plain, 4).await;
            for number in answered as u64 + 1..=4 {
                assert_next(&mut ann, number, Some(number)).await;
            }
        }
    }
}

#[tokio::test]
async fn what_history_had_before_it_arrives_comes_once() {
    for positions in [Positions::Dense, Positions::Rising] {
        for giant_members_min in [512, 2] {
            let bus = Bus::with_history(positions);
            let server = serve(&bus, Config { giant_members_min, ..config() }).await;
            let mut plain = Client::in_room(server.address(), "a").await;
            let _other = Client::in_room(server.address(), "a").await;
            bus.publishes_silent.store(2, SeqCst);
            publish(&mut plain, 1).await;
            publish(&mut plain, 2).await;
            // Two messages without a position: history had one of them.
            let unplaced = [placed("8", 8, Position::default()), placed("9", 9, Position::default())];
            let messages = [bus.kept("a"), vec![unplaced[0].clone()]].concat();
            let top = bus.top(&RoomId::new("a"));
            bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top }));
            let mut ann = Client::connect(server.address()).await;
            let reply = ann.call(recover(0)).await;
            let expected = [numbers(1..=2), vec![(json!(8), None)]].concat();
            assert_eq!(missed(&reply), expected, "{reply}");
            let kept = bus.kept("a");
            for late in [&kept[0], &unplaced[1], &unplaced[0], &kept[1]] {
                bus.send(Event::Message(late.clone()));
            }
            publish(&mut plain, 3).await;
            for (data, offset) in [(1, Some(1)), (9, None), (8, None), (2, Some(2)), (3, Some(3))] {
                assert_next(&mut plain, data, offset).await;
            }
            assert_next(&mut ann, 9, None).await;
            assert_next(&mut ann, 3, Some(3)).await;
        }
    }
}

/// A message without a position in the answer has one when it arrives, beyond where the answer ended.
#[tokio::test]
async fn what_history_could_not_place_comes_once_wherever_it_arrives() {
    for positions in [Positions::Dense, Positions::Rising] {
        for giant_members_min in [512, 2] {
            let bus = Bus::with_history(positions);
            let server = serve(&bus, Config { giant_members_min, ..config() }).await;
            let mut plain = Client::in_room(server.address(), "a").await;
            let _other = Client::in_room(server.address(), "a").await;
            publish(&mut plain, 1).await;
            let top = bus.top(&RoomId::new("a"));
            let messages = vec![placed("2", 2, Position::default()), placed("3", 3, Position::default())];
            bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top }));
            let mut ann = Client::connect(server.address()).await;
            let reply = ann.call(recover(1)).await;
            assert_eq!(missed(&reply), [(json!(2), None), (json!(3), None)], "{reply}");
            bus.lose("a", 2);
            for (data, id, offset) in [("2", 2, 2), ("3", 3, 3)] {
                bus.send(Event::Message(placed(data, id, Position { epoch: EPOCH, offset })));
            }
            publish(&mut plain, 4).await;
            for number in 1..=4 {
                assert_next(&mut plain, number, Some(number)).await;
            }
            assert_next(&mut ann, 4, Some(4)).await;
        }
    }
}

#[tokio::test]
async fn commands_behind_a_recovery_wait_for_it() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, Config { publish_requires_subscription: true, ..config() }).await;
    let mut client = Client::connect(server.address()).await;
    bus.history_open.send_replace(false);
    let first = client.send(recover(0)).await;
    let rest = [
        client.send(json!({"publish": {"channel": "a", "data": 1}})).await,
        client.send(json!({"unsubscribe": {"channel": "a"}})).await,
        client.send(recover(0)).await,
        client.send(json!({"subscribe": {"channel": "a"}})).await,
        client.send(json!({"unsubscribe": {"channel": "a"}})).await,
    ];
    until(|| bus.calls().contains(&"resume a".to_owned())).await;
    bus.history_open.send_replace(true);
    assert_eq!(client.next().await["id"], first);
    let mut replies = Vec::new();
    while replies.len() < rest.len() {
        let reply = client.next().await;
        if reply["id"].is_u64() {
            replies.push(reply);
        }
    }
    // The acknowledgement of the publish comes from the bus.
    replies.sort_by_key(|reply| reply["id"].as_u64());
    assert!(replies[0]["publish"].is_object() && replies[1]["unsubscribe"].is_object(), "{replies:?}");
    assert_eq!(
        (replies[2]["subscribe"]["recovered"].clone(), missed(&replies[2])),
        (json!(true), numbers(1..=1))
    );
    assert_eq!(replies[3]["error"]["code"], 105, "{replies:?}");
    assert!(replies[4]["unsubscribe"].is_object(), "{replies:?}");
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
}

#[tokio::test]
async fn who_leaves_while_history_is_read_leaves_nothing_behind() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut client = Client::connect(server.address()).await;
    bus.history_open.send_replace(false);
    client.send(recover(0)).await;
    until(|| bus.calls().contains(&"resume a".to_owned())).await;
    drop(client);
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
}

#[tokio::test]
async fn who_is_sent_away_by_a_loss_recovers_it() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut ann = Client::connect(server.address()).await;
    ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    let mut bob = Client::connect(server.address()).await;
    bob.call(json!({"subscribe": {"channel": "a", "positioned": true}})).await;
    bus.publishes_silent.store(1, SeqCst);
    publish(&mut plain, 1).await;
    publish(&mut plain, 2).await;
    // Who cannot recover gets at least what showed the loss; who can gets it by that.
    assert_next(&mut bob, 2, None).await;
    assert_sent_away(&mut bob).await;
    assert_sent_away(&mut ann).await;
    let reply = ann.call(recover(0)).await;
    assert_eq!((&reply["subscribe"]["recovered"], missed(&reply)), (&json!(true), numbers(1..=2)), "{reply}");
    publish(&mut plain, 3).await;
    assert_next(&mut ann, 3, Some(3)).await;
}

#[tokio::test]
async fn a_new_numbering_is_recovered_into() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut ann = Client::connect(server.address()).await;
    ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    publish(&mut plain, 1).await;
    assert_next(&mut ann, 1, Some(1)).await;
    let anew = |offset| Position { epoch: 78, offset };
    bus.send(Event::Renumbered { room: RoomId::new("a"), epoch: 78 });
    let first = placed("2", 2, anew(1));
    bus.send(Event::Message(first.clone()));
    // With the old position it would recover what it has.
    assert_sent_away(&mut ann).await;
    bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages: vec![first], top: anew(1) }));
    let reply = ann.call(recover(1)).await;
    assert_eq!(missed(&reply), [(json!(2), Some(1))], "{reply}");
    // 78 in base 36, and a mark: the last message moves the client there.
    let result = &reply["subscribe"];
    assert_eq!((&result["recovered"], &result["epoch"]), (&json!(true), &json!("26~")));
    bus.send(Event::Message(placed("3", 3, anew(2))));
    assert_next(&mut ann, 3, Some(2)).await;
    for (data, offset) in [(1, 1), (2, 1), (3, 2)] {
        assert_next(&mut plain, data, Some(offset)).await;
    }
}

#[tokio::test]
async fn an_answer_in_another_numbering_moves_the_client_with_its_last_message() {
    let elsewhere = |offset| Position { epoch: 5, offset };
    let at_zero = 9_007_199_254_740_991_u64;
    for (stands_at, last) in [(0, at_zero), (40, 40)] {
        let bus = Bus::with_history(Positions::Rising);
        let server = serve(&bus, config()).await;
        bus.lose("a", stands_at);
        let mut client = Client::connect(server.address()).await;
        let messages = vec![placed("1", 1, elsewhere(9)), placed("2", 2, elsewhere(12))];
        let top = Position { epoch: EPOCH, offset: stands_at };
        bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top }));
        let from = json!({"channel": "a", "recover": true, "epoch": "5", "offset": 7});
        let reply = client.call(json!({"subscribe": from})).await;
        assert_eq!(missed(&reply), [(json!(1), None), (json!(2), Some(last))], "{reply}");
        let result = &reply["subscribe"];
        assert_eq!((&result["recovered"], &result["epoch"]), (&json!(true), &json!("25~")), "{reply}");
        assert!(result.get("offset").is_none(), "it stands nowhere before it has the last message: {reply}");

        // A client that breaks off before the last message comes back like this, one that has it all like that.
        let mut again = Client::connect(server.address()).await;
        let at = |offset: u64| json!({"channel": "a", "recover": true, "epoch": "25~", "offset": offset});
        let interrupted = again.call(json!({"subscribe": at(0)})).await;
        assert_eq!(interrupted["subscribe"]["was_recovering"], true);
        assert!(interrupted["subscribe"].get("recovered").is_none(), "{interrupted}");
        publish(&mut client, 3).await;
        assert_next(&mut client, 3, Some(stands_at + 1)).await;
        let mut whole = Client::connect(server.address()).await;
        let reply = whole.call(json!({"subscribe": at(last)})).await;
        assert_eq!(missed(&reply), [(json!(3), Some(stands_at + 1))], "{reply}");
        assert_eq!(
            (&reply["subscribe"]["recovered"], &reply["subscribe"]["epoch"]),
            (&json!(true), &json!("25"))
        );
    }
}

#[tokio::test]
async fn rising_positions_have_holes_and_are_recovered_from() {
    let bus = Bus::with_history(Positions::Rising);
    let server = serve(&bus, config()).await;
    let mut ann = Client::connect(server.address()).await;
    let reply = ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    assert_eq!(reply["subscribe"], json!({"recoverable": true, "positioned": true, "epoch": "25"}));
    let mut bob = Client::connect(server.address()).await;
    for offset in [3, 7] {
        bus.lose("a", offset - 1 - bus.position("a"));
        publish(&mut bob, offset).await;
        assert_next(&mut ann, offset, Some(offset)).await;
    }
    drop(ann);
    bus.lose("a", 10);
    publish(&mut bob, 18).await;
    let mut ann = Client::connect(server.address()).await;
    let reply = ann.call(recover(7)).await;
    assert_eq!(
        (&reply["subscribe"]["recovered"], missed(&reply)),
        (&json!(true), numbers(18..=18)),
        "{reply}"
    );
    // Positions of two numberings cannot be compared: who can recover does.
    bus.send(Event::Message(placed("1", 1, Position { epoch: 79, offset: 5 })));
    assert_sent_away(&mut ann).await;
}

#[tokio::test]
async fn a_lost_last_message_is_noticed() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, Config { position_check_ms: 20, ..config() }).await;
    let mut ann = Client::connect(server.address()).await;
    ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    publish(&mut ann, 1).await;
    assert_next(&mut ann, 1, Some(1)).await;
    bus.publishes_silent.store(1, SeqCst);
    publish(&mut ann, 2).await;
    assert_sent_away(&mut ann).await;
    let reply = ann.call(recover(1)).await;
    assert_eq!((&reply["subscribe"]["recovered"], missed(&reply)), (&json!(true), numbers(2..=2)), "{reply}");
    assert!(metric(server.address(), "manifold_positions_behind_total").await >= 1.0);
    assert!(metric(server.address(), "manifold_position_checks_total").await >= 2.0);
}
