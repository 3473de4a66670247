//! The audit against a naive oracle that remembers everything, over generated histories; and by hand.

use super::oracle::{Bench, TERMS, steps};
use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_the_oracle_to_the_last_count(steps in steps()) {
        let mut bench = Bench::new();
        steps.into_iter().for_each(|step| bench.step(step));
        let (oracle, forgotten, settled) = bench.finish();
        prop_assert_eq!(&settled.audit, &oracle);
        prop_assert_eq!(settled.forgotten, forgotten);
        prop_assert_eq!(settled.lost_by_interval.iter().sum::<u64>(), oracle.lost());
    }
}

#[test]
fn any_rate_of_loss_is_counted_exactly() {
    for every in [1_u32, 2, 3, 7, 64, 65, 1_000] {
        let mut ledger = Ledger::default();
        let window = ledger.allocate(1);
        let count = 10_000;
        for sequence in (0..count).filter(|sequence| sequence % every != 0) {
            assert_eq!(ledger.observe(window, sequence), Arrived::First);
        }
        ledger.close(window, 0, count, Closing::Drained);
        let sent = Sent { count, marks: vec![(0, 0)], ..Sent::default() };
        let audit = settle(&[&ledger], &[sent], TERMS).audit;
        assert_eq!(audit.lost_silent, u64::from(count.div_ceil(every)), "one in {every}");
        assert!(audit.conserved);
    }
}

#[test]
fn a_message_that_left_the_window_may_still_come() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    (1..1_000).for_each(|sequence| assert_ne!(ledger.observe(window, sequence), Arrived::Duplicate));
    assert_eq!(ledger.missing_so_far(), 1);
    assert_eq!(ledger.observe(window, 0), Arrived::Reordered);
    assert_eq!(ledger.observe(window, 0), Arrived::Duplicate);
    assert_eq!(ledger.missing_so_far(), 0);
}

#[test]
fn what_was_sent_before_the_join_is_at_the_edge() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    ledger.open(window, 10);
    assert_eq!(ledger.observe(window, 9), Arrived::Edge);
    assert_eq!(ledger.observe(window, 10), Arrived::First);
    ledger.close(window, 0, 11, Closing::Drained);
    let sent = Sent { count: 11, marks: vec![(0, 0)], ..Sent::default() };
    let audit = settle(&[&ledger], &[sent], TERMS).audit;
    assert_eq!((audit.expected, audit.delivered, audit.indeterminate), (2, 1, 1));
    assert!(audit.conserved);
}

#[test]
fn what_was_missed_is_owed_by_whoever_claims_to_have_recovered_it() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    let see = |ledger: &mut Ledger, sequence| assert_eq!(ledger.observe(window, sequence), Arrived::First);
    (0..10).filter(|sequence| *sequence != 3).for_each(|sequence| see(&mut ledger, sequence));
    // 10 to 19 were sent while it was away; 15 is forgotten, and so is 19, which would have come last.
    ledger.resume(window, 20, 0);
    (10..19).filter(|sequence| *sequence != 15).for_each(|sequence| see(&mut ledger, sequence));
    (20..30).filter(|sequence| *sequence != 25).for_each(|sequence| see(&mut ledger, sequence));
    ledger.close(window, 0, 30, Closing::Drained);
    let sent = Sent { count: 30, marks: vec![(0, 0)], ..Sent::default() };
    let settled = settle(&[&ledger], &[sent], TERMS);
    assert_eq!((settled.audit.lost_silent, settled.forgotten), (4, 2), "3 and 25 were lost at other times");
    assert_eq!(settled.audit.expected, 30);
    assert!(settled.audit.conserved);
}

#[test]
fn a_wrong_count_does_not_close() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    ledger.observe(window, 0);
    ledger.tally_mut().first += 1;
    ledger.close(window, 0, 1, Closing::Drained);
    let sent = Sent { count: 1, marks: vec![(0, 0)], ..Sent::default() };
    assert!(!settle(&[&ledger], &[sent], TERMS).audit.conserved);
}

fn see(ledger: &mut Ledger, window: u32, sequences: impl Iterator<Item = u32>) {
    sequences.for_each(|sequence| assert_eq!(ledger.observe(window, sequence), Arrived::First));
}

#[test]
fn a_later_word_of_loss_excuses_neither_what_was_claimed_nor_what_is_old() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    // One message a millisecond; 3 is missed early, 50 is claimed in vain, 115 is missed shortly before the cut.
    see(&mut ledger, window, (0..50).filter(|sequence| *sequence != 3));
    ledger.resume(window, 60, 60_000);
    see(&mut ledger, window, (51..120).filter(|sequence| *sequence != 115));
    ledger.close(window, 0, 130, Closing::Told { at_us: 120_000 });
    let sent = Sent { count: 130, marks: (0..130).map(|at| (at, at)).collect(), ..Sent::default() };
    let settled = settle(&[&ledger], std::slice::from_ref(&sent), TERMS);
    assert_eq!((settled.audit.lost_silent, settled.forgotten), (2, 1), "{settled:?}");
    assert_eq!(settled.audit.lost_declared, 11, "115, and what was sent while it was away");
    // Had 3 come into being only when a frozen node thawed, it would have been noticed in time.
    let frozen = Sent { late_acks: [(3, 100_000)].into(), ..sent };
    assert_eq!(settle(&[&ledger], &[frozen], TERMS).audit.lost_silent, 1);
}

#[test]
fn what_comes_again_after_a_new_beginning_is_a_duplicate() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    see(&mut ledger, window, (0..10).filter(|sequence| *sequence != 4));
    ledger.close(window, 0, 12, Closing::Told { at_us: 0 });
    ledger.open(window, 12);
    assert_eq!(ledger.observe(window, 9), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 4), Arrived::Edge, "it never came before");
    assert_eq!(ledger.observe(window, 4), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 12), Arrived::First);
}

#[test]
fn who_leaves_for_good_is_owed_what_was_acknowledged_before() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    let sent = Sent {
        count: 3,
        marks: vec![(0, 0), (1, 1), (2, 2)],
        late_acks: [(1, 9_000)].into(),
        ..Sent::default()
    };
    ledger.close(window, 0, 3, Closing::Cut { at_us: 10_000 });
    let audit = settle(&[&ledger], &[sent], TERMS).audit;
    assert_eq!((audit.lost_silent, audit.indeterminate), (2, 1), "the second was not there yet: {audit:?}");
}
