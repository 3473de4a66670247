//! What is held is bounded, and what was shown before the log had it is remembered.

use super::*;
use crate::hybrid::merge::bounds::HELD_BYTES_MAX;

/// Of large messages.
const PAYLOAD_BYTES: usize = 60_000;

#[test]
fn what_all_rooms_hold_is_bounded_by_bytes() {
    let mut fixture = Fixture::new();
    let other = RoomId::new("other");
    fixture.merge.join(&other, 0);
    fixture.merge.top(&other, at(0), fixture.start);
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut live = |room: &RoomId, offset: u64| {
        let envelope = Envelope {
            room: room.clone(),
            id: MessageId(rand::random()),
            published_at_us: 0,
            info: bytes::Bytes::new(),
            payload: payload.clone(),
        };
        let mut record = Vec::new();
        envelope::encode(&envelope, None, &mut record);
        fixture.merge.live(room, at(offset), 0, &View::parse(&record).unwrap(), fixture.start);
        fixture.merge.out().len()
    };
    let room = RoomId::new("room");
    // Less than all may hold waits for the first of each room.
    let most = HELD_BYTES_MAX / PAYLOAD_BYTES;
    let half = most as u64 / 2;
    for offset in 2..half {
        assert_eq!(live(&room, offset), 0);
        assert_eq!(live(&other, offset), 0);
    }
    // A little more is too much: the room that it comes to gives up its hole.
    let last = (half..).find(|offset| live(&other, *offset) > 0).unwrap();
    assert!(last < half + 4, "{last} and {half}");
    assert_eq!(fixture.merge.out().len() as u64, last, "a gap, and what waited behind it");
    assert!(fixture.merge.rests(&other) && !fixture.merge.rests(&room));
    fixture.merge.leave(&room);
    assert_eq!(fixture.merge.held_bytes, 0);
}

#[test]
fn what_is_parked_counts_until_it_finds_its_place() {
    let mut fixture = Fixture::new();
    let next = Position { epoch: EPOCH + 1, offset: 1 };
    fixture.live(1, at(1), 0);
    fixture.log(2, Some(next), 0);
    fixture.log(3, None, 1);
    assert!(fixture.merge.held_bytes > 0);
    fixture.wait();
    assert_eq!((fixture.out(), fixture.merge.held_bytes), (vec![1, 2, 3], 0));
}

#[test]
fn what_was_shown_is_remembered_until_the_log_has_it() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    let next = Position { epoch: EPOCH + 1, offset: 1 };
    // 3 came out of a hold; 2 is in the log without its position, 3 is not there at all.
    fixture.live(1, at(1), 0);
    fixture.live(3, at(3), 0);
    fixture.live(2, at(2), 0);
    fixture.log(1, Some(at(1)), 0);
    fixture.log(2, None, 1);
    fixture.merge.missing(&room, next.epoch, 1, 1, fixture.start);
    fixture.live(4, next, 0);
    assert_eq!(fixture.out(), [1, 2, 3, 4]);
    let unlogged = |fixture: &Fixture, since| {
        let mut ids = fixture.merge.unlogged(&room, since).unwrap();
        ids.sort_unstable_by_key(|id| id.0);
        ids
    };
    assert_eq!(
        unlogged(&fixture, at(1)),
        [MessageId(3), MessageId(4)],
        "beyond the end of the epoch as well"
    );
    assert_eq!(unlogged(&fixture, at(3)), [MessageId(4)]);
    assert_eq!(unlogged(&fixture, next), []);
    fixture.log(4, Some(next), 2);
    assert_eq!(unlogged(&fixture, at(1)), [MessageId(3)]);
    fixture.merge.leave(&room);
    assert_eq!((unlogged(&fixture, at(1)).len(), fixture.merge.unlogged), (0, 0));
}
