//! How long a message is held for what the log has before it.

use super::*;

#[test]
fn what_follows_the_log_waits_while_the_log_moves_on() {
    let mut fixture = Fixture::new();
    fixture.live(9, at(1), 5);
    for offset in 0..5 {
        assert!(!fixture.out().contains(&9), "before the log was read up to {offset}");
        // A node that is short of processor time.
        fixture.start += PATIENCE * 3;
        fixture.merge.look(fixture.start);
        fixture.log(offset as u128 + 1, None, offset);
    }
    assert_eq!(fixture.out(), [5, 9]);
}

#[test]
fn it_does_not_wait_for_a_log_that_stands_still_nor_for_ever() {
    let mut fixture = Fixture::new();
    fixture.live(8, at(1), 5);
    fixture.merge.look(fixture.start + PATIENCE * 4);
    assert!(fixture.out().is_empty());
    fixture.merge.look(fixture.start + PATIENCE * 5);
    assert_eq!(fixture.out(), [8]);
    // A fence out of another log.
    fixture.live(9, at(2), 1_000);
    for offset in 0..6 {
        fixture.start += PATIENCE * 3;
        fixture.log(offset as u128 + 1, None, offset);
    }
    assert_eq!(fixture.out(), [1, 2, 3, 4, 5, 6]);
    fixture.start += PATIENCE * 3;
    fixture.merge.look(fixture.start);
    assert_eq!(fixture.out(), [9]);
    assert_eq!(fixture.stats.gaps.get(), 0);
}

#[test]
fn a_log_that_is_back_has_time_to_fill_holes() {
    let mut fixture = Fixture::new();
    fixture.live(2, at(2), 0);
    fixture.merge.log_link(true, fixture.start);
    let back = fixture.start + PATIENCE * 4;
    fixture.merge.look(back);
    fixture.merge.log_link(false, back);
    fixture.merge.look(back);
    assert!(fixture.out().is_empty());
    fixture.log(1, Some(at(1)), 0);
    assert_eq!(fixture.out(), [1, 2]);
    fixture.live(4, at(4), 0);
    fixture.merge.look(back);
    assert!(fixture.out().is_empty());
    fixture.merge.look(back + PATIENCE);
    assert_eq!(fixture.out(), [-1, 4]);
}
