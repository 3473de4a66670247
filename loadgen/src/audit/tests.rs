//! The audit against a naive oracle that remembers everything, over generated histories.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::record::Audit;
use proptest::prelude::*;

const INTERVAL_US: u64 = 1_000;
const EDGE_US: u64 = 5_000;

/// What happens to one member, in order.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Every sender sends `1` message in `stream`.
    Send { stream: u8, outcome: Outcome },
    /// A queued delivery arrives: the one at this place of the queue (0 = oldest).
    Deliver { member: u8, place: u8 },
    /// As `Deliver`, but the message stays queued: it will come again.
    Repeat { member: u8, place: u8 },
    /// A queued delivery is dropped.
    Drop { member: u8, place: u8 },
    /// Member goes, in one of three ways; queued deliveries are dropped.
    Leave { member: u8, how: u8 },
    /// Member comes.
    Join { member: u8 },
    /// Member's connection breaks, and it means to come back; what is queued meanwhile is the room's history.
    Lose { member: u8 },
    /// Member is back, and is said to have missed nothing. It gets its history: whole, or less one message, or one
    /// twice, or the last two swapped; less the newest ones, which come live.
    Recover { member: u8, how: u8, live: u8 },
    /// Member is back, and is told that what it missed is lost.
    Restart { member: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Acknowledged,
    Refused,
    Unknown,
}

const MEMBERS: usize = 3;
const STREAMS: usize = 2;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let place = prop_oneof![8 => Just(0_u8), 1 => 0_u8..100];
    let outcome = prop_oneof![
        20 => Just(Outcome::Acknowledged), 1 => Just(Outcome::Refused), 1 => Just(Outcome::Unknown)
    ];
    let member = 0..MEMBERS as u8;
    let step = prop_oneof![
        40 => (0..STREAMS as u8, outcome).prop_map(|(stream, outcome)| Step::Send { stream, outcome }),
        90 => (member.clone(), place.clone()).prop_map(|(member, place)| Step::Deliver { member, place }),
        3 => (member.clone(), place.clone()).prop_map(|(member, place)| Step::Repeat { member, place }),
        10 => (member.clone(), place).prop_map(|(member, place)| Step::Drop { member, place }),
        1 => (member.clone(), 0_u8..3).prop_map(|(member, how)| Step::Leave { member, how }),
        1 => member.clone().prop_map(|member| Step::Join { member }),
        2 => member.clone().prop_map(|member| Step::Lose { member }),
        2 => (member.clone(), 0_u8..6, 0_u8..3)
            .prop_map(|(member, how, live)| Step::Recover { member, how, live }),
        1 => member.prop_map(|member| Step::Restart { member }),
    ];
    prop::collection::vec(step, 0..3_000)
}

/// One membership, remembered in full.
#[derive(Debug, Default, Clone)]
struct Membership {
    opened: [u32; STREAMS],
    got: [BTreeSet<u32>; STREAMS],
    queue: Vec<(usize, u32)>,
    /// What a server said that it had recovered.
    claimed: BTreeSet<(usize, u32)>,
    away: Option<Away>,
}

/// A member that lost its connection: when, and what had been sent by then.
#[derive(Debug, Clone, Copy)]
struct Away {
    at_us: u64,
    ends: [u32; STREAMS],
}

/// The oracle and the audit side by side.
struct Bench {
    now_us: u64,
    ledger: Ledger,
    windows: [u32; MEMBERS],
    sent: Vec<Sent>,
    sent_at_us: BTreeMap<(usize, u32), u64>,
    unacked: BTreeSet<(usize, u32)>,
    members: [Option<Membership>; MEMBERS],
    oracle: Audit,
    forgotten: u64,
}

impl Bench {
    fn new() -> Self {
        let mut ledger = Ledger::default();
        let windows = std::array::from_fn(|_| ledger.allocate(STREAMS as u32));
        Self {
            now_us: 0,
            ledger,
            windows,
            sent: vec![Sent::default(); STREAMS],
            sent_at_us: BTreeMap::new(),
            unacked: BTreeSet::new(),
            members: std::array::from_fn(|_| Some(Membership::default())),
            oracle: Audit::default(),
            forgotten: 0,
        }
    }

    fn step(&mut self, step: Step) {
        self.now_us += 100;
        match step {
            Step::Send { stream, outcome } => self.send(usize::from(stream), outcome),
            Step::Deliver { member, .. } | Step::Repeat { member, .. } if self.is_away(member) => {}
            Step::Deliver { member, place } => self.deliver(usize::from(member), place, true),
            Step::Repeat { member, place } => self.deliver(usize::from(member), place, false),
            Step::Drop { member, place } => {
                if let Some(membership) = &mut self.members[usize::from(member)] {
                    let place = usize::from(place);
                    if place < membership.queue.len() {
                        membership.queue.remove(place);
                    }
                }
            }
            Step::Leave { member, how } => {
                let closing = match how {
                    0 => Closing::Told,
                    1 => Closing::Shed,
                    _ => Closing::Cut { at_us: self.now_us },
                };
                self.leave(usize::from(member), closing);
            }
            Step::Join { member } => self.join(usize::from(member)),
            Step::Lose { member } => {
                let ends = std::array::from_fn(|stream| self.sent[stream].count);
                let away = Away { at_us: self.now_us, ends };
                if let Some(membership) = &mut self.members[usize::from(member)] {
                    membership.away.get_or_insert(away);
                }
            }
            Step::Recover { member, how, live } if self.is_away(member) => {
                self.recover(usize::from(member), how, live);
            }
            Step::Restart { member } if self.is_away(member) => {
                if let Some(membership) = &mut self.members[usize::from(member)] {
                    membership.away = None;
                }
                self.leave(usize::from(member), Closing::Told);
                self.join(usize::from(member));
            }
            Step::Recover { .. } | Step::Restart { .. } => {}
        }
    }

    fn is_away(&self, member: u8) -> bool {
        self.members[usize::from(member)].as_ref().is_some_and(|membership| membership.away.is_some())
    }

    fn recover(&mut self, member: usize, how: u8, live: u8) {
        let Some(membership) = &mut self.members[member] else { return };
        membership.away = None;
        for stream in 0..STREAMS {
            let end = self.sent[stream].count;
            self.ledger.resume(self.windows[member] + stream as u32, end);
            let reached = membership.got[stream].last().map_or(membership.opened[stream], |last| last + 1);
            membership.claimed.extend((reached..end).map(|sequence| (stream, sequence)));
        }
        let missed = membership.queue.len().saturating_sub(usize::from(live));
        match how {
            0 if missed > 0 => drop(membership.queue.remove(missed / 2)),
            1 if missed > 0 => membership.queue.insert(missed / 2, membership.queue[missed / 2]),
            2 if missed > 1 => membership.queue.swap(missed - 2, missed - 1),
            _ => {}
        }
        let history = membership.queue.len().saturating_sub(usize::from(live));
        (0..history).for_each(|_| self.deliver(member, 0, true));
    }

    fn send(&mut self, stream: usize, outcome: Outcome) {
        let interval = (self.now_us / INTERVAL_US) as u32;
        let sent = &mut self.sent[stream];
        let sequence = sent.count;
        sent.count += 1;
        if sent.marks.last().is_none_or(|mark| mark.0 < interval) {
            sent.marks.push((interval, sequence));
        }
        match outcome {
            Outcome::Acknowledged => self.oracle.acknowledged += 1,
            Outcome::Refused => {
                sent.refused.insert(sequence);
                self.oracle.refused += 1;
            }
            Outcome::Unknown => {
                sent.unknown.insert(sequence);
                self.oracle.unknown += 1;
            }
        }
        if outcome != Outcome::Acknowledged {
            self.unacked.insert((stream, sequence));
        }
        self.sent_at_us.insert((stream, sequence), self.now_us);
        self.members.iter_mut().flatten().for_each(|member| member.queue.push((stream, sequence)));
    }

    fn deliver(&mut self, member: usize, place: u8, take: bool) {
        let Some(membership) = &mut self.members[member] else { return };
        let place = usize::from(place);
        let Some(&(stream, sequence)) = membership.queue.get(place) else { return };
        if take {
            membership.queue.remove(place);
        }
        let got = &mut membership.got[stream];
        let expected = if got.contains(&sequence) {
            self.oracle.duplicates += 1;
            Arrived::Duplicate
        } else if got.last().is_some_and(|&last| last > sequence) {
            self.oracle.reordered += 1;
            Arrived::Reordered
        } else {
            Arrived::First
        };
        got.insert(sequence);
        assert_eq!(self.ledger.observe(self.windows[member] + stream as u32, sequence), expected);
    }

    fn leave(&mut self, member: usize, closing: Closing) {
        let Some(membership) = self.members[member].take() else { return };
        // Whoever never came back was a member until its connection broke.
        let closing = membership.away.map_or(closing, |away| Closing::Cut { at_us: away.at_us });
        for stream in 0..STREAMS {
            let end = membership.away.map_or(self.sent[stream].count, |away| away.ends[stream]);
            self.ledger.close(self.windows[member] + stream as u32, stream as u32, end, closing);
            for sequence in membership.opened[stream]..end {
                let got = membership.got[stream].contains(&sequence);
                if self.unacked.contains(&(stream, sequence)) {
                    self.oracle.recovered += u64::from(got);
                    continue;
                }
                self.oracle.expected += 1;
                let edge = |at_us: u64| {
                    self.sent_at_us[&(stream, sequence)] / INTERVAL_US
                        >= at_us.saturating_sub(EDGE_US) / INTERVAL_US
                };
                match closing {
                    _ if got => self.oracle.delivered += 1,
                    Closing::Told => self.oracle.lost_declared += 1,
                    Closing::Shed => self.oracle.indeterminate += 1,
                    Closing::Cut { at_us } if edge(at_us) => self.oracle.indeterminate += 1,
                    Closing::Cut { .. } | Closing::Drained => {
                        self.oracle.lost_silent += 1;
                        self.forgotten += u64::from(membership.claimed.contains(&(stream, sequence)));
                    }
                }
            }
        }
    }

    fn join(&mut self, member: usize) {
        if self.members[member].is_some() {
            return;
        }
        let opened = std::array::from_fn(|stream| self.sent[stream].count);
        for (stream, &from) in opened.iter().enumerate() {
            self.ledger.open(self.windows[member] + stream as u32, from);
        }
        self.members[member] = Some(Membership { opened, ..Membership::default() });
    }

    fn finish(mut self) -> (Audit, u64, Settled) {
        (0..MEMBERS).for_each(|member| self.leave(member, Closing::Drained));
        self.oracle.conserved = true;
        (self.oracle, self.forgotten, settle(&[&self.ledger], &self.sent, INTERVAL_US, EDGE_US))
    }
}

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
        let audit = settle(&[&ledger], &[sent], INTERVAL_US, EDGE_US).audit;
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
    let audit = settle(&[&ledger], &[sent], INTERVAL_US, EDGE_US).audit;
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
    ledger.resume(window, 20);
    (10..19).filter(|sequence| *sequence != 15).for_each(|sequence| see(&mut ledger, sequence));
    (20..30).filter(|sequence| *sequence != 25).for_each(|sequence| see(&mut ledger, sequence));
    ledger.close(window, 0, 30, Closing::Drained);
    let sent = Sent { count: 30, marks: vec![(0, 0)], ..Sent::default() };
    let settled = settle(&[&ledger], &[sent], INTERVAL_US, EDGE_US);
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
    assert!(!settle(&[&ledger], &[sent], INTERVAL_US, EDGE_US).audit.conserved);
}
