//! The log is ahead of the live path, or makes good what that has lost.

use super::*;

#[test]
fn what_the_log_has_of_an_epoch_waits_for_the_live_path_to_tell_of_it() {
    let mut fixture = Fixture::new();
    let (room, next) = (fixture.room.clone(), |offset| Position { epoch: EPOCH + 1, offset });
    fixture.live(1, at(1), 0);
    fixture.out();
    // This node still listens to the server that was master before; the publisher has found the new one, and lost it.
    fixture.log(2, Some(next(1)), 0);
    fixture.log(3, Some(next(2)), 1);
    fixture.log(4, None, 2);
    assert!(fixture.placed().is_empty() && !fixture.merge.rests(&room));
    fixture.merge.interrupted(fixture.start);
    fixture.merge.missing(&room, EPOCH + 1, 1, 3, fixture.start);
    fixture.merge.reconnected();
    fixture.wait();
    assert_eq!(fixture.placed(), [(0, next(0)), (2, next(1)), (3, next(2)), (4, Position::default())]);
    assert!(fixture.merge.rests(&room));
    assert_eq!(fixture.stats.gaps.get(), 0);
}

#[test]
fn what_waits_for_the_live_path_in_vain_follows_the_log() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    let (before, next) =
        (Position { epoch: EPOCH - 1, offset: 50 }, Position { epoch: EPOCH + 1, offset: 1 });
    fixture.live(1, at(1), 0);
    // One is late, of an epoch from before the join; the other is the first of the next one.
    fixture.log(2, Some(before), 0);
    fixture.log(3, Some(next), 1);
    fixture.out();
    fixture.wait();
    assert_eq!(fixture.placed(), [(2, Position::default()), (0, Position { offset: 0, ..next }), (3, next)]);
    assert!(fixture.merge.rests(&room));
    // The live path of the new epoch goes on from there.
    fixture.live(3, next, 0);
    fixture.live(4, Position { offset: 2, ..next }, 0);
    assert_eq!(fixture.placed(), [(4, Position { offset: 2, ..next })]);
    assert_eq!(fixture.stats.gaps.get(), 0);
}

#[test]
fn what_the_log_makes_good_is_counted() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.log(1, Some(at(1)), 0);
    fixture.live(4, at(4), 0);
    fixture.log(2, Some(at(2)), 1);
    fixture.log(3, Some(at(3)), 2);
    fixture.merge.missing(&room, EPOCH, 5, 6, fixture.start);
    fixture.log(5, Some(at(5)), 3);
    assert_eq!(fixture.out(), [1, 2, 3, 4, 5]);
    assert_eq!((fixture.stats.gaps_repaired.get(), fixture.stats.gap_messages_repaired.get()), (2, 3));
    assert_eq!(fixture.stats.gaps.get(), 0);
}
