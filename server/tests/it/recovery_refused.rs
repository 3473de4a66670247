//! Members that come back and cannot recover: they are told so, and never guessed about.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

use manifold_server::Server;
use manifold_server::config::Config;
use manifold_strategies::guarantees::Positions;
use manifold_strategies::{Error, ErrorKind, Event, Position, Resumed, RoomId};
use serde_json::{Value, json};

use crate::recovery::{placed, publish, recover, serve};
use crate::support::{Client, config, http, until};
use crate::test_backplane::{Bus, EPOCH};

async fn assert_outcome(server: &Server, outcome: &str, count: u64) {
    let metrics = http(server.address(), "GET /metrics HTTP/1.1", "").await.1;
    let line = format!("manifold_recoveries_total{{outcome=\"{outcome}\"}} {count}");
    assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    let info: Value =
        serde_json::from_str(&http(server.address(), "GET /info HTTP/1.1", "").await.1).unwrap();
    assert_eq!(info["recoveries"][outcome], count, "{info}");
}

/// What a client reads that is in the room from now on, and does not know what it missed.
fn unrecovered(offset: u64) -> Value {
    json!({
        "recoverable": true,
        "positioned": true,
        "epoch": "25",
        "offset": offset,
        "was_recovering": true,
    })
}

async fn held(bus: &Arc<Bus>, client: &mut Client, offset: u64) {
    bus.history_open.send_replace(false);
    client.send(recover(offset)).await;
    until(|| bus.calls().contains(&"resume a".to_owned())).await;
}

#[tokio::test]
async fn positions_out_of_reach() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, Config { recovery_messages_max: 2, ..config() }).await;
    let mut publisher = Client::connect(server.address()).await;
    for number in 1..=2 {
        publish(&mut publisher, number).await;
    }
    bus.lose("a", 1);
    for number in 4..=6 {
        publish(&mut publisher, number).await;
    }
    let at =
        |epoch: &str, offset: u64| json!({"channel": "a", "recover": true, "epoch": epoch, "offset": offset});
    let cases = [
        ("one was lost", at("25", 1)),
        ("too many were missed", at("25", 3)),
        ("beyond the top", at("25", 7)),
        ("another epoch", at("26", 4)),
        ("another server's epoch", at("wwGy", 4)),
    ];
    let mut count = 0;
    for (case, request) in cases {
        let mut client = Client::connect(server.address()).await;
        let mut strict = request.clone();
        strict["flag"] = json!(2);
        let reply = client.call(json!({"subscribe": strict})).await;
        assert_eq!(reply["error"], json!({"code": 112, "message": "unrecoverable position"}), "{case}");
        // It is no member, so it may try again.
        let reply = client.call(json!({"subscribe": request})).await;
        assert_eq!(reply["subscribe"], unrecovered(6), "{case}");
        count += 2;
    }
    assert_outcome(&server, "incomplete", count).await;
    let mut client = Client::connect(server.address()).await;
    let reply = client.call(json!({"subscribe": at("25", 4)})).await;
    assert_eq!(reply["subscribe"]["recovered"], true, "two are not too many: {reply}");
    publish(&mut publisher, 7).await;
    assert_eq!(client.publication().await, 7);
}

#[tokio::test]
async fn more_than_may_be_held_back() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, Config { recovery_hold_bytes_max: 1024, ..config() }).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    held(&bus, &mut client, 0).await;
    let long = "x".repeat(200);
    for _ in 0..10 {
        publish(&mut plain, long.as_str()).await;
        assert_eq!(plain.publication().await, long.as_str());
    }
    bus.history_open.send_replace(true);
    assert_eq!(client.next().await["subscribe"], unrecovered(10));
    assert_outcome(&server, "hold_overflow", 1).await;
    publish(&mut plain, 11).await;
    assert_eq!(client.next().await["push"]["pub"]["offset"], 11);
}

#[tokio::test]
async fn a_gap_while_history_is_read() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    held(&bus, &mut client, 0).await;
    publish(&mut plain, 1).await;
    bus.lose("a", 2);
    bus.send(Event::Gap { room: RoomId::new("a"), from: 2, to: 4 });
    publish(&mut plain, 4).await;
    assert_eq!((plain.publication().await, plain.publication().await), (json!(1), json!(4)));
    let (messages, top) = (bus.kept("a"), bus.top(&RoomId::new("a")));
    bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top }));
    bus.history_open.send_replace(true);
    assert_eq!(client.next().await["subscribe"], unrecovered(4));
    assert_outcome(&server, "gap", 1).await;
    publish(&mut plain, 5).await;
    assert_eq!(client.next().await["push"]["pub"]["offset"], 5);
}

#[tokio::test]
async fn a_new_numbering_while_history_is_read() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    let mut client = Client::connect(server.address()).await;
    held(&bus, &mut client, 0).await;
    bus.send(Event::Renumbered { room: RoomId::new("a"), epoch: 78 });
    bus.send(Event::Message(placed("1", 1, Position { epoch: 78, offset: 1 })));
    assert_eq!(plain.publication().await, 1);
    bus.history_open.send_replace(true);
    let reply = client.next().await;
    assert_eq!(
        (&reply["subscribe"]["epoch"], &reply["subscribe"]["offset"]),
        (&json!("26"), &json!(1)),
        "{reply}"
    );
    assert!(reply["subscribe"].get("recovered").is_none(), "{reply}");
    assert_outcome(&server, "renumbered", 1).await;
}

#[tokio::test]
async fn an_answer_with_less_than_was_delivered() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    publish(&mut plain, 1).await;
    assert_eq!(plain.publication().await, 1);
    let top = Position { epoch: EPOCH, offset: 0 };
    let nothing = Resumed::Complete { messages: Vec::new(), top };
    bus.answers.lock().unwrap().push_back(Ok(nothing));
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.call(recover(0)).await["subscribe"], unrecovered(1));
    assert_outcome(&server, "hole", 1).await;
}

#[tokio::test]
async fn an_answer_with_less_than_was_delivered_and_more_since() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    for number in 1..=3 {
        publish(&mut plain, number).await;
        assert_eq!(plain.publication().await, number);
    }
    let top = Position { epoch: EPOCH, offset: 1 };
    let stale = Resumed::Complete { messages: bus.kept("a")[..1].to_vec(), top };
    bus.answers.lock().unwrap().push_back(Ok(stale));
    let mut client = Client::connect(server.address()).await;
    held(&bus, &mut client, 0).await;
    // What is held back reaches the newest position, but not back to the answer.
    publish(&mut plain, 4).await;
    assert_eq!(plain.publication().await, 4);
    bus.history_open.send_replace(true);
    assert_eq!(client.next().await["subscribe"], unrecovered(4));
    assert_outcome(&server, "hole", 1).await;
}

#[tokio::test]
async fn more_than_the_outbox_takes() {
    let bus = Bus::with_history(Positions::Dense);
    let settings = Config { message_bytes_max: 1024, outbox_bytes_max: 20_000, ..config() };
    let server = serve(&bus, settings).await;
    let mut publisher = Client::connect(server.address()).await;
    let long = "x".repeat(800);
    for _ in 0..30 {
        publish(&mut publisher, long.as_str()).await;
    }
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.call(recover(0)).await["subscribe"], unrecovered(30));
    assert_outcome(&server, "too_large", 1).await;
    let mut other = Client::connect(server.address()).await;
    assert_eq!(other.call(recover(25)).await["subscribe"]["recovered"], true);
}

#[tokio::test]
async fn what_no_server_of_this_kind_wrote() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    let mut message = placed("1", 1, Position { epoch: EPOCH, offset: 1 });
    message.envelope.payload = bytes::Bytes::from_static(b"\xff");
    bus.lose("a", 1);
    let answer = Resumed::Complete { top: message.position, messages: vec![message] };
    bus.answers.lock().unwrap().push_back(Ok(answer));
    let mut client = Client::connect(server.address()).await;
    assert_eq!(client.call(recover(0)).await["subscribe"], unrecovered(1));
    assert_outcome(&server, "unreadable", 1).await;
}

#[tokio::test]
async fn where_nobody_knows_the_position_none_is_granted() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    bus.joins_unaware.store(true, SeqCst);
    bus.history_unaware.store(true, SeqCst);
    let mut client = Client::connect(server.address()).await;
    let reply = client.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    assert_eq!(reply["subscribe"], json!({}));
    bus.answers.lock().unwrap().push_back(Ok(Resumed::Incomplete { top: Position::default() }));
    let mut other = Client::connect(server.address()).await;
    let reply = other.call(recover(3)).await;
    assert_eq!(reply["subscribe"], json!({"was_recovering": true}));
    // The first message shows it.
    publish(&mut client, 1).await;
    assert_eq!(client.publication().await, 1);
    let mut late = Client::connect(server.address()).await;
    let reply = late.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
    assert_eq!(
        reply["subscribe"],
        json!({"recoverable": true, "positioned": true, "epoch": "25", "offset": 1})
    );
}

#[tokio::test]
async fn a_history_that_fails_is_a_temporary_error() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, Config { recovery_timeout_ms: 100, ..config() }).await;
    let temporary = json!({"code": 100, "message": "internal server error", "temporary": true});
    let mut client = Client::connect(server.address()).await;
    let failure = Error::new(ErrorKind::Unreachable, "resume", "as the test wants");
    bus.answers.lock().unwrap().push_back(Err(failure));
    assert_eq!(client.call(recover(0)).await["error"], temporary);
    bus.history_open.send_replace(false);
    assert_eq!(client.call(recover(0)).await["error"], temporary);
    assert_outcome(&server, "failed", 2).await;
    until(|| bus.calls().last().is_some_and(|call| call == "left a")).await;
    bus.history_open.send_replace(true);
    assert_eq!(client.call(recover(0)).await["subscribe"]["recovered"], true);
}

#[tokio::test]
async fn where_nothing_is_kept() {
    let bus = Bus::new();
    let server = serve(&bus, config()).await;
    let mut client = Client::connect(server.address()).await;
    let request = json!({"channel": "a", "recover": true, "positioned": true, "epoch": "25", "flag": 2});
    assert_eq!(client.call(json!({"subscribe": request})).await["error"]["code"], 112);
    let reply =
        client.call(json!({"subscribe": {"channel": "a", "recover": true, "positioned": true}})).await;
    assert_eq!(reply["subscribe"], json!({"positioned": true, "epoch": "25", "was_recovering": true}));
}
