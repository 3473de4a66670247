//! The audit against a naive oracle that remembers everything, over generated histories; and by hand.

use super::histories::steps;
use super::oracle::{Bench, TERMS};
use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_the_oracle_to_the_last_count(steps in steps()) {
        let mut bench = Bench::new();
        steps.into_iter().for_each(|step| bench.step(step));
        let (oracle, in_recoveries, settled) = bench.finish();
        prop_assert_eq!(&settled.audit, &oracle);
        prop_assert_eq!([settled.forgotten, settled.reordered_in_recoveries], in_recoveries);
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
            assert_eq!(ledger.observe(window, sequence, false, 0), Arrived::First);
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
    (1..1_000)
        .for_each(|sequence| assert_ne!(ledger.observe(window, sequence, false, 0), Arrived::Duplicate));
    assert_eq!(ledger.missing_so_far(), 1);
    assert_eq!(ledger.observe(window, 0, false, 0), Arrived::Reordered);
    assert_eq!(ledger.observe(window, 0, false, 0), Arrived::Duplicate);
    assert_eq!(ledger.missing_so_far(), 0);
}

#[test]
fn what_was_sent_before_the_join_is_at_the_edge() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    ledger.open(window, 10);
    assert_eq!(ledger.observe(window, 9, false, 0), Arrived::Edge);
    assert_eq!(ledger.observe(window, 10, false, 0), Arrived::First);
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
    let see = |ledger: &mut Ledger, sequence| {
        assert_eq!(ledger.observe(window, sequence, false, 0), Arrived::First)
    };
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
    ledger.observe(window, 0, false, 0);
    ledger.tally_mut().first += 1;
    ledger.close(window, 0, 1, Closing::Drained);
    let sent = Sent { count: 1, marks: vec![(0, 0)], ..Sent::default() };
    assert!(!settle(&[&ledger], &[sent], TERMS).audit.conserved);
}

fn see(ledger: &mut Ledger, window: u32, sequences: impl Iterator<Item = u32>) {
    sequences.for_each(|sequence| assert_eq!(ledger.observe(window, sequence, false, 0), Arrived::First));
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
    assert_eq!(ledger.observe(window, 9, false, 0), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 4, false, 0), Arrived::Edge, "it was lost: 5 came before it");
    assert_eq!(ledger.observe(window, 4, false, 0), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 12, false, 0), Arrived::First);
}

#[test]
fn what_comes_after_the_word_of_its_loss_is_delivered_and_not_lost() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    see(&mut ledger, window, (0..10).filter(|sequence| *sequence != 4));
    ledger.close(window, 0, 14, Closing::Told { at_us: 0 });
    ledger.open(window, 14);
    assert_eq!(ledger.observe(window, 10, false, 0), Arrived::Belated);
    assert_eq!(ledger.early(window, 11), Arrived::Belated);
    assert_eq!(ledger.observe(window, 11, false, 0), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 14, false, 0), Arrived::First);
    ledger.close(window, 0, 15, Closing::Drained);
    let sent = Sent { count: 15, marks: vec![(0, 0)], ..Sent::default() };
    let audit = settle(&[&ledger], &[sent], TERMS).audit;
    assert_eq!((audit.expected, audit.delivered, audit.belated), (15, 12, 2), "{audit:?}");
    assert_eq!(
        (audit.lost_declared, audit.indeterminate, audit.conserved),
        (3, 0, true),
        "4, 12 and 13: {audit:?}"
    );
}

#[test]
fn what_comes_after_the_word_of_its_loss_and_behind_what_was_sent_later_stays_lost() {
    let belated = |arrivals: &[u32], to: u32| {
        let mut ledger = Ledger::default();
        let window = ledger.allocate(1);
        see(&mut ledger, window, 0..10);
        ledger.close(window, 0, 14, Closing::Told { at_us: 0 });
        ledger.open(window, 14);
        see(&mut ledger, window, 14..to);
        ledger.close(window, 0, to, Closing::Told { at_us: 0 });
        ledger.open(window, 20);
        for sequence in arrivals {
            ledger.observe(window, *sequence, false, 0);
        }
        ledger.close(window, 0, 20, Closing::Drained);
        let sent = Sent { count: 20, marks: vec![(0, 0)], ..Sent::default() };
        let audit = settle(&[&ledger], &[sent], TERMS).audit;
        assert!(audit.conserved, "{audit:?}");
        (audit.belated, audit.lost_declared)
    };
    assert_eq!(belated(&[10, 11, 12, 13], 14), (4, 0));
    assert_eq!(belated(&[10, 11, 12, 13], 16), (0, 4), "14 and 15 had come in the membership between");
    assert_eq!(belated(&[13, 11], 14), (1, 3), "11 came behind 13");
}

#[test]
fn what_comes_to_a_member_before_its_membership_ends_is_no_second_delivery() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    see(&mut ledger, window, 0..10);
    assert_eq!(ledger.early(window, 11), Arrived::Edge, "it is away, and the server has not let it in again");
    ledger.close(window, 0, 14, Closing::Told { at_us: 0 });
    ledger.open(window, 14);
    assert_eq!(ledger.observe(window, 11, false, 0), Arrived::Duplicate);
    assert_eq!(ledger.observe(window, 12, false, 0), Arrived::Belated);
    ledger.close(window, 0, 14, Closing::Drained);
    let sent = Sent { count: 14, marks: vec![(0, 0)], ..Sent::default() };
    let audit = settle(&[&ledger], &[sent], TERMS).audit;
    assert_eq!((audit.belated, audit.lost_declared, audit.conserved), (1, 3, true), "{audit:?}");
}

#[test]
fn what_was_claimed_in_vain_stays_lost_when_it_comes_later() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    see(&mut ledger, window, 0..10);
    ledger.resume(window, 12, 50_000);
    ledger.close(window, 0, 12, Closing::Told { at_us: 60_000 });
    ledger.open(window, 12);
    assert_eq!(ledger.observe(window, 11, false, 0), Arrived::Edge);
    ledger.close(window, 0, 12, Closing::Drained);
    let sent = Sent { count: 12, marks: vec![(0, 0)], ..Sent::default() };
    let settled = settle(&[&ledger], &[sent], TERMS);
    assert_eq!((settled.audit.lost_silent, settled.forgotten), (2, 2), "{settled:?}");
    assert!(settled.audit.conserved);
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

/// What the audit says of a member that got these one after the other, of a sender whose connections began with `turns` and who
/// has no answer to `unknown`.
fn audited(arrivals: impl IntoIterator<Item = u32>, turns: &[u32], unknown: &[u32]) -> Settled {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    let arrivals: Vec<u32> = arrivals.into_iter().collect();
    let count = arrivals.iter().max().map_or(0, |last| last + 1);
    for &sequence in &arrivals {
        ledger.observe(window, sequence, false, 0);
    }
    ledger.close(window, 0, count, Closing::Drained);
    let mut sent = Sent { count, marks: vec![(0, 0)], turns: turns.to_vec(), ..Sent::default() };
    unknown.iter().for_each(|sequence| sent.unknown.insert(*sequence));
    let settled = settle(&[&ledger], &[sent], TERMS);
    assert!(settled.audit.conserved, "{settled:?}");
    settled
}

fn late_and_reordered(settled: &Settled) -> (u64, u64) {
    (settled.audit.late_unknown, settled.audit.reordered)
}

#[test]
fn what_is_late_is_excused_if_it_was_never_acknowledged_and_its_client_had_gone_on_elsewhere() {
    let late = || (0..8).chain([10, 11, 8, 9]);
    assert_eq!(late_and_reordered(&audited(late(), &[0, 10], &[8, 9])), (2, 0));
    assert_eq!(late_and_reordered(&audited(late(), &[0, 10], &[9])), (1, 1), "8 was acknowledged");
    assert_eq!(late_and_reordered(&audited(late(), &[0], &[8, 9])), (0, 2), "there was one connection");
    let crossed = audited((0..8).chain([10, 11, 9, 8]), &[0, 10], &[8, 9]);
    assert_eq!(late_and_reordered(&crossed), (1, 1), "9 overtook 8 on their own connection");
    let own = audited((0..8).chain([9, 10, 8]), &[0, 10], &[8]);
    assert_eq!(late_and_reordered(&own), (0, 1), "9 came first, and was sent over the same connection");
    let first = own.examples[0];
    assert_eq!((first.sequence, first.by, first.turns), (8, 9, (1, 1)));
    assert_eq!(first.answer, crate::record::Answer::None);
}

#[test]
fn what_was_sent_before_the_join_must_not_come_behind_what_was_sent_after_it() {
    let audited = |arrivals: &[u32], turns: &[u32], unknown: &[u32]| {
        let mut ledger = Ledger::default();
        let window = ledger.allocate(1);
        ledger.open(window, 10);
        for &sequence in arrivals {
            ledger.observe(window, sequence, false, 0);
        }
        ledger.close(window, 0, 200, Closing::Cut { at_us: 0 });
        let mut sent = Sent { count: 200, marks: vec![(0, 0)], turns: turns.to_vec(), ..Sent::default() };
        unknown.iter().for_each(|sequence| sent.unknown.insert(*sequence));
        let settled = settle(&[&ledger], &[sent], TERMS);
        assert!(settled.audit.conserved, "{settled:?}");
        let by = settled.examples.first().map(|example| example.by);
        (late_and_reordered(&settled), by)
    };
    assert_eq!(audited(&[8, 9, 10], &[0], &[]), ((0, 0), None));
    assert_eq!(audited(&[8, 10, 9], &[0], &[]), ((0, 1), Some(10)));
    assert_eq!(audited(&[199, 9, 8], &[0, 10], &[8, 9]), ((2, 0), Some(199)), "their connection had ended");
    assert_eq!(
        audited(&[12, 9, 9], &[0, 10], &[]),
        ((0, 1), Some(12)),
        "acknowledged, and the second is a copy"
    );
}

#[test]
fn a_refused_one_is_as_unknown_as_one_without_an_answer() {
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    for sequence in [0, 2, 1] {
        ledger.observe(window, sequence, true, 7);
    }
    ledger.close(window, 0, 3, Closing::Drained);
    let mut sent = Sent { count: 3, marks: vec![(0, 0)], turns: vec![0, 2], ..Sent::default() };
    let reordered = settle(&[&ledger], std::slice::from_ref(&sent), TERMS);
    assert_eq!((late_and_reordered(&reordered), reordered.reordered_in_recoveries), ((0, 1), 1));
    sent.refused.insert(1);
    let refused = settle(&[&ledger], &[sent], TERMS);
    assert_eq!((late_and_reordered(&refused), refused.reordered_in_recoveries), ((1, 0), 0));
    assert!(refused.examples[0].is_excused() && refused.examples[0].at_us == 7, "{refused:?}");
}

#[test]
fn what_overtook_is_found_however_far_behind_the_late_one_is() {
    let by = |arrivals: Vec<u32>| -> Vec<(u32, u32)> {
        let settled = audited(arrivals, &[0], &[]);
        settled.examples.iter().map(|example| (example.sequence, example.by)).collect()
    };
    // Within the window, with and without the next one there.
    assert_eq!(by(vec![0, 2, 1]), [(1, 2)]);
    assert_eq!(by(vec![0, 3, 4, 1, 2]), [(1, 3), (2, 3)]);
    assert_eq!(by(vec![5, 1, 0]), [(1, 5), (0, 1)]);
    // Far out of it: the next that came may be a settled one, or behind a long hole, or in the window still.
    assert_eq!(by((1..200).chain([0]).collect()), [(0, 1)]);
    assert_eq!(by((100..200).chain([5]).collect()), [(5, 100)]);
    assert_eq!(by(vec![300, 5, 4, 299]), [(5, 300), (4, 5), (299, 300)]);
    assert_eq!(by((0..10).chain(90..95).chain([300, 50, 40]).collect()), [(50, 90), (40, 50)]);
}

#[test]
fn what_is_not_noted_any_more_is_reordered_without_excuse() {
    let pairs = super::ledger::NOTES_MAX as u32 + 3;
    let mut ledger = Ledger::default();
    let window = ledger.allocate(1);
    for sequence in (0..pairs).flat_map(|pair| [2 * pair + 1, 2 * pair]) {
        ledger.observe(window, sequence, false, 0);
    }
    let count = 2 * pairs;
    ledger.close(window, 0, count, Closing::Drained);
    // Each connection ends between the two of a pair.
    let turns = std::iter::once(0).chain((0..pairs).map(|pair| 2 * pair + 1)).collect();
    let mut sent = Sent { count, marks: vec![(0, 0)], turns, ..Sent::default() };
    sent.unknown.push(0, count);
    let settled = settle(&[&ledger], &[sent], TERMS);
    assert_eq!(late_and_reordered(&settled), (super::ledger::NOTES_MAX as u64, 3));
    assert_eq!(settled.examples.len(), 20);
}
