//! Where a room stands, where this node does not know it or knows it from a numbering that has ended.

use std::sync::atomic::Ordering::SeqCst;

use manifold_strategies::guarantees::Positions;
use manifold_strategies::{Event, Position, Resumed};
use serde_json::json;

use crate::recovery::{assert_next, assert_sent_away, missed, placed, publish, recover, serve};
use crate::support::{Client, config};
use crate::test_backplane::Bus;

/// The node reads under a new epoch and says so with the room's next message only; history knows it already.
#[tokio::test]
async fn a_quiet_room_with_a_former_epoch_is_recovered_into() {
    let bus = Bus::with_history(Positions::Rising);
    let server = serve(&bus, config()).await;
    let mut plain = Client::in_room(server.address(), "a").await;
    publish(&mut plain, 1).await;
    assert_next(&mut plain, 1, Some(1)).await;
    let anew = |offset| Position { epoch: 78, offset };
    let messages = vec![placed("2", 2, anew(2)), placed("3", 3, anew(3))];
    bus.answers.lock().unwrap().push_back(Ok(Resumed::Complete { messages, top: anew(3) }));
    let mut ann = Client::connect(server.address()).await;
    let reply = ann.call(recover(1)).await;
    assert_eq!(missed(&reply), [(json!(2), None), (json!(3), Some(3))], "{reply}");
    assert_eq!(
        (&reply["subscribe"]["recovered"], &reply["subscribe"]["epoch"]),
        (&json!(true), &json!("26~"))
    );
    // The node's copy brings what the answer had, and then what is new: the jump sends whoever has a position to recover.
    bus.send(Event::Message(placed("4", 4, anew(4))));
    assert_sent_away(&mut ann).await;
}

/// The join does not know where the room stands: history is asked, so that the client gets a position that it can come back with.
#[tokio::test]
async fn where_the_join_does_not_know_history_is_asked() {
    for positions in [Positions::Dense, Positions::Rising] {
        let bus = Bus::with_history(positions);
        let server = serve(&bus, config()).await;
        bus.joins_unaware.store(true, SeqCst);
        bus.lose("a", 57);
        let mut ann = Client::connect(server.address()).await;
        let reply = ann.call(json!({"subscribe": {"channel": "a", "recoverable": true}})).await;
        assert_eq!(
            reply["subscribe"],
            json!({"recoverable": true, "positioned": true, "epoch": "25", "offset": 57})
        );
        // What lies before that arrives late, and is not for who stands there.
        let mut plain = Client::in_room(server.address(), "a").await;
        bus.send(Event::Message(placed("57", 57, bus.top(&manifold_strategies::RoomId::new("a")))));
        publish(&mut plain, 58).await;
        for number in [57, 58] {
            assert_next(&mut plain, number, Some(number)).await;
        }
        assert_next(&mut ann, 58, Some(58)).await;
        drop(ann);
        publish(&mut plain, 59).await;
        let mut ann = Client::connect(server.address()).await;
        assert_eq!(missed(&ann.call(recover(58)).await), [(json!(59), Some(59))]);
    }
}

#[tokio::test]
async fn a_loss_after_a_position_that_was_asked_for_shows() {
    let bus = Bus::with_history(Positions::Dense);
    let server = serve(&bus, config()).await;
    bus.joins_unaware.store(true, SeqCst);
    bus.lose("a", 57);
    let mut ann = Client::connect(server.address()).await;
    let reply = ann.call(json!({"subscribe": {"channel": "a", "positioned": true}})).await;
    assert_eq!(reply["subscribe"], json!({"positioned": true, "epoch": "25", "offset": 57}));
    bus.lose("a", 1);
    publish(&mut ann, 59).await;
    assert_next(&mut ann, 59, None).await;
    assert_sent_away(&mut ann).await;
}
