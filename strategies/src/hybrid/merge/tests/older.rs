//! What the log brought before anybody here was in the room comes live after the join: a Redis that was frozen carries it out late.

use super::*;

#[test]
fn what_the_log_brought_before_the_join_is_not_new_when_it_comes_live() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.merge.leave(&room);
    fixture.log(9, None, 5);
    // The live path does not answer: the join goes by the log.
    fixture.merge.join(&room, 0);
    fixture.merge.join_by_log(&room, 6);
    fixture.merge.top(&room, at(2), fixture.start);
    fixture.wait();
    fixture.live(9, at(3), 0);
    fixture.live(10, at(4), 0);
    assert_eq!(fixture.placed(), [(0, at(3)), (10, at(4))]);
    assert_eq!(fixture.merge.unlogged(&room, at(2)), Some(vec![MessageId(10)]), "9 was not shown");
    // The room was still subscribed from before.
    fixture.merge.leave(&room);
    fixture.log(11, None, 6);
    fixture.merge.join(&room, 0);
    fixture.merge.top(&room, at(4), fixture.start);
    fixture.live(11, at(6), 0);
    fixture.live(12, at(5), 0);
    assert_eq!(fixture.placed(), [(12, at(5)), (0, at(6))]);
    assert_eq!(fixture.stats.gaps.get(), 0);
}

#[test]
fn a_log_that_starts_anew_is_believed() {
    let mut fixture = Fixture::new();
    let room = fixture.room.clone();
    fixture.merge.leave(&room);
    fixture.log(9, None, 99);
    fixture.merge.join(&room, 0);
    fixture.merge.top(&room, at(0), fixture.start);
    fixture.merge.log_moved(Resume { partition: 0, offset: 0, renumbered: true });
    fixture.out();
    fixture.log(9, None, 0);
    fixture.live(9, at(1), 0);
    assert_eq!(fixture.placed(), [(9, Position::default()), (0, at(1))]);
}

proptest! {
    /// However a Redis that thaws mixes what the log had before the join with what is new: each new message comes once, at its
    /// place, and nothing of the others.
    #[test]
    fn a_room_joined_in_the_middle_hears_nothing_from_before(
        thawed in proptest::collection::vec(any::<bool>(), 1..60),
        by_log in any::<bool>(),
    ) {
        let mut fixture = Fixture::new();
        let room = fixture.room.clone();
        fixture.merge.leave(&room);
        let mut end = 0;
        for _ in &thawed {
            fixture.log(end as u128 + 1, None, end);
            end += 1;
        }
        fixture.merge.join(&room, 0);
        if by_log {
            fixture.merge.join_by_log(&room, end);
        }
        fixture.merge.top(&room, at(0), fixture.start);
        fixture.wait();
        let (mut older, mut expected) = (0, Vec::new());
        for (place, thaws) in (1..).map(at).zip(&thawed) {
            if *thaws {
                older += 1;
                fixture.live(older, place, 0);
                expected.push((0, place));
            } else {
                let id = 1_000 + u128::from(place.offset);
                fixture.live(id, place, 0);
                fixture.log(id, Some(place), end);
                end += 1;
                expected.push((id, place));
            }
        }
        prop_assert_eq!(fixture.placed(), expected);
    }
}
