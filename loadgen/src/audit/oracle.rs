//! A naive audit that remembers everything, side by side with the real one.

use std::collections::{BTreeMap, BTreeSet};

use super::histories::{MEMBERS, Outcome, STREAMS, Step};
use super::*;
use crate::record::Audit;

pub(super) const TERMS: Terms = Terms { interval_us: 1_000, edge_us: 5_000, notice_us: 40_000 };

/// One membership, remembered in full.
#[derive(Debug, Default, Clone)]
struct Membership {
    opened: [u32; STREAMS],
    got: [BTreeSet<u32>; STREAMS],
    queue: Vec<(usize, u32)>,
    /// What a server said that it had recovered, and when it last did.
    claimed: BTreeMap<(usize, u32), u64>,
    /// It lost its connection.
    away: Option<Away>,
    /// It asked to leave.
    leaving: Option<Away>,
}

/// A member that lost its connection or asked to leave: when, and what had been sent by then.
#[derive(Debug, Clone, Copy)]
struct Away {
    at_us: u64,
    ends: [u32; STREAMS],
}

/// How a missing message was judged.
#[derive(Debug, Clone, Copy)]
enum Judged {
    NotOwed,
    Silent,
    Declared,
    Indeterminate,
}

/// The oracle and the audit side by side.
pub(super) struct Bench {
    now_us: u64,
    ledger: Ledger,
    windows: [u32; MEMBERS],
    sent: Vec<Sent>,
    sent_at_us: BTreeMap<(usize, u32), u64>,
    late_acks: BTreeMap<(usize, u32), u64>,
    unacked: BTreeSet<(usize, u32)>,
    /// How often each sender has come back, and had when it sent a message.
    turns: [u32; STREAMS],
    turn_of: BTreeMap<(usize, u32), u32>,
    /// Whether what is delivered now comes with a recovery.
    recovering: bool,
    /// What each member got before its membership.
    had: [BTreeSet<(usize, u32)>; MEMBERS],
    /// What each member's memberships ended without, with nothing sent later in hand, and how it was judged then.
    awaited: [BTreeMap<(usize, u32), Judged>; MEMBERS],
    members: [Option<Membership>; MEMBERS],
    oracle: Audit,
    forgotten: u64,
    reordered_in_recoveries: u64,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut ledger = Ledger::default();
        let windows = std::array::from_fn(|_| ledger.allocate(STREAMS as u32));
        Self {
            now_us: 0,
            ledger,
            windows,
            sent: vec![Sent::default(); STREAMS],
            sent_at_us: BTreeMap::new(),
            late_acks: BTreeMap::new(),
            unacked: BTreeSet::new(),
            turns: [0; STREAMS],
            turn_of: BTreeMap::new(),
            recovering: false,
            had: Default::default(),
            awaited: Default::default(),
            members: std::array::from_fn(|_| Some(Membership::default())),
            oracle: Audit::default(),
            forgotten: 0,
            reordered_in_recoveries: 0,
        }
    }

    pub(super) fn step(&mut self, step: Step) {
        self.now_us += 100;
        match step {
            Step::Send { stream, outcome } => self.send(usize::from(stream), outcome),
            Step::Reconnect { stream } => self.turns[usize::from(stream)] += 1,
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
                    0 => Closing::Told { at_us: self.now_us },
                    1 => Closing::Shed,
                    _ => Closing::Cut { at_us: self.now_us },
                };
                self.leave(usize::from(member), closing);
            }
            Step::Join { member, again } => self.join(usize::from(member), again),
            Step::Ask { member } | Step::Lose { member } if self.is_away(member) => {}
            Step::Ask { member } => {
                let asked = self.departure();
                if let Some(membership) = &mut self.members[usize::from(member)] {
                    membership.leaving.get_or_insert(asked);
                }
            }
            Step::Lose { member } => {
                let away = self.departure();
                match &mut self.members[usize::from(member)] {
                    Some(Membership { leaving: Some(_), .. }) => {
                        self.leave(usize::from(member), Closing::Cut { at_us: self.now_us });
                    }
                    Some(membership) => membership.away = Some(away),
                    None => {}
                }
            }
            Step::Recover { member, how, live } if self.is_away(member) => {
                self.recover(usize::from(member), how, live);
            }
            Step::Restart { member, given, again } if self.is_away(member) => {
                let away = self.members[usize::from(member)].as_mut().and_then(|one| one.away.take());
                (0..given).for_each(|_| self.deliver(usize::from(member), 0, true));
                let at_us = away.map_or(0, |away| away.at_us);
                self.leave(usize::from(member), Closing::Told { at_us });
                self.join(usize::from(member), again);
            }
            Step::Recover { .. } | Step::Restart { .. } => {}
        }
    }

    fn departure(&self) -> Away {
        Away { at_us: self.now_us, ends: std::array::from_fn(|stream| self.sent[stream].count) }
    }

    fn is_away(&self, member: u8) -> bool {
        self.members[usize::from(member)].as_ref().is_some_and(|membership| membership.away.is_some())
    }

    fn recover(&mut self, member: usize, how: u8, live: u8) {
        let Some(membership) = &mut self.members[member] else { return };
        membership.away = None;
        for stream in 0..STREAMS {
            let end = self.sent[stream].count;
            self.ledger.resume(self.windows[member] + stream as u32, end, self.now_us);
            let reached = membership.got[stream].last().map_or(membership.opened[stream], |last| last + 1);
            membership.claimed.extend((reached..end).map(|sequence| ((stream, sequence), self.now_us)));
        }
        let missed = membership.queue.len().saturating_sub(usize::from(live));
        match how {
            0 if missed > 0 => drop(membership.queue.remove(missed / 2)),
            1 if missed > 0 => membership.queue.insert(missed / 2, membership.queue[missed / 2]),
            2 if missed > 1 => membership.queue.swap(missed - 2, missed - 1),
            _ => {}
        }
        let history = membership.queue.len().saturating_sub(usize::from(live));
        self.recovering = true;
        (0..history).for_each(|_| self.deliver(member, 0, true));
        self.recovering = false;
    }

    fn send(&mut self, stream: usize, outcome: Outcome) {
        let interval = (self.now_us / TERMS.interval_us) as u32;
        let sent = &mut self.sent[stream];
        let sequence = sent.count;
        sent.count += 1;
        let turn = self.turns[stream];
        if sequence == 0 || self.turn_of[&(stream, sequence - 1)] < turn {
            sent.turns.push(sequence);
        }
        self.turn_of.insert((stream, sequence), turn);
        if sent.marks.last().is_none_or(|mark| mark.0 < interval) {
            sent.marks.push((interval, sequence));
        }
        match outcome {
            Outcome::Acknowledged => self.oracle.acknowledged += 1,
            Outcome::Late(ms) => {
                let ack_us = self.now_us + u64::from(ms) * 1_000;
                sent.late_acks.insert(sequence, ack_us);
                self.late_acks.insert((stream, sequence), ack_us);
                self.oracle.acknowledged += 1;
            }
            Outcome::Refused => {
                sent.refused.insert(sequence);
                self.oracle.refused += 1;
            }
            Outcome::Unknown => {
                sent.unknown.insert(sequence);
                self.oracle.unknown += 1;
            }
        }
        if matches!(outcome, Outcome::Refused | Outcome::Unknown) {
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
        let window = self.windows[member] + stream as u32;
        let is_owed = membership.leaving.is_none_or(|asked| sequence < asked.ends[stream]);
        if sequence < membership.opened[stream] || !is_owed {
            let expected = if self.had[member].insert((stream, sequence)) {
                // Nothing that was sent after it has come, in whichever membership.
                let newest = self.had[member].iter().rfind(|(of, _)| *of == stream);
                let is_next = newest == Some(&(stream, sequence)) && membership.got[stream].is_empty();
                let judged = is_next.then(|| self.awaited[member].remove(&(stream, sequence))).flatten();
                came_after_all(&mut self.oracle, judged);
                if sequence < membership.opened[stream] && !membership.got[stream].is_empty() {
                    let later = membership.got[stream].clone();
                    self.out_of_place(stream, sequence, &later);
                }
                if judged.is_some() { Arrived::Belated } else { Arrived::Edge }
            } else {
                self.oracle.duplicates += 1;
                Arrived::Duplicate
            };
            let arrived = match is_owed {
                true => self.ledger.observe(window, sequence, self.recovering, self.now_us),
                false => self.ledger.early(window, sequence),
            };
            return assert_eq!(arrived, expected);
        }
        let got = &mut membership.got[stream];
        let expected = if got.contains(&sequence) {
            self.oracle.duplicates += 1;
            Arrived::Duplicate
        } else if got.last().is_some_and(|&last| last > sequence) {
            let later = got.range(sequence + 1..).copied().collect();
            got.insert(sequence);
            self.out_of_place(stream, sequence, &later);
            Arrived::Reordered
        } else {
            got.insert(sequence);
            Arrived::First
        };
        assert_eq!(self.ledger.observe(window, sequence, self.recovering, self.now_us), expected);
    }

    /// A first copy came behind these.
    fn out_of_place(&mut self, stream: usize, sequence: u32, later: &BTreeSet<u32>) {
        let turn = self.turn_of[&(stream, sequence)];
        let elsewhere = later.iter().all(|later| self.turn_of[&(stream, *later)] > turn);
        if elsewhere && self.unacked.contains(&(stream, sequence)) {
            self.oracle.late_unknown += 1;
        } else {
            self.oracle.reordered += 1;
            self.reordered_in_recoveries += u64::from(self.recovering);
        }
    }

    /// Whether a message was sent and acknowledged before then.
    fn is_before(&self, message: (usize, u32), at_us: u64) -> bool {
        self.sent_at_us[&message] / TERMS.interval_us < at_us / TERMS.interval_us
            && self.late_acks.get(&message).is_none_or(|ack_us| *ack_us < at_us)
    }

    fn leave(&mut self, member: usize, closing: Closing) {
        let Some(membership) = self.members[member].take() else { return };
        // Whoever never came back was a member until its connection broke; whoever asked to leave, until it did.
        let left = membership.away.or(membership.leaving);
        let closing = left.map_or(closing, |left| Closing::Cut { at_us: left.at_us });
        for stream in 0..STREAMS {
            let end = left.map_or(self.sent[stream].count, |left| left.ends[stream]);
            self.ledger.close(self.windows[member] + stream as u32, stream as u32, end, closing);
            for sequence in membership.opened[stream]..end {
                let message = (stream, sequence);
                let got = membership.got[stream].contains(&sequence);
                let claimed = membership.claimed.get(&message);
                let is_last = membership.got[stream].last().is_none_or(|last| *last < sequence);
                let may_come = is_last && claimed.is_none() && closing != Closing::Drained;
                if self.unacked.contains(&message) {
                    self.oracle.recovered += u64::from(got);
                    if may_come {
                        self.awaited[member].insert(message, Judged::NotOwed);
                    }
                    continue;
                }
                self.oracle.expected += 1;
                let firm = claimed.is_some_and(|claimed_us| {
                    self.is_before(message, claimed_us.saturating_sub(TERMS.edge_us))
                });
                let before = |at_us: u64, by_us: u64| self.is_before(message, at_us.saturating_sub(by_us));
                let judged = match closing {
                    _ if got => {
                        self.oracle.delivered += 1;
                        continue;
                    }
                    Closing::Shed => Judged::Indeterminate,
                    Closing::Told { at_us } if !firm && !before(at_us, TERMS.notice_us) => Judged::Declared,
                    Closing::Cut { at_us } if !firm && !before(at_us, TERMS.edge_us) => Judged::Indeterminate,
                    _ => Judged::Silent,
                };
                match judged {
                    Judged::NotOwed => {}
                    Judged::Silent => self.oracle.lost_silent += 1,
                    Judged::Declared => self.oracle.lost_declared += 1,
                    Judged::Indeterminate => self.oracle.indeterminate += 1,
                }
                let is_silent = matches!(judged, Judged::Silent);
                self.forgotten += u64::from(is_silent && claimed.is_some());
                if may_come {
                    self.awaited[member].insert(message, judged);
                }
            }
            self.had[member].extend(membership.got[stream].iter().map(|sequence| (stream, *sequence)));
        }
    }

    fn join(&mut self, member: usize, again: u8) {
        if self.members[member].is_some() {
            return;
        }
        let opened = std::array::from_fn(|stream| self.sent[stream].count);
        for (stream, &from) in opened.iter().enumerate() {
            self.ledger.open(self.windows[member] + stream as u32, from);
        }
        let queue = (0..STREAMS)
            .flat_map(|stream| {
                let last = opened[stream];
                (last.saturating_sub(u32::from(again))..last).map(move |sequence| (stream, sequence))
            })
            .collect();
        self.members[member] = Some(Membership { opened, queue, ..Membership::default() });
    }

    /// The oracle's audit, what it saw forgotten and reordered in recoveries, and what the real audit says.
    pub(super) fn finish(mut self) -> (Audit, [u64; 2], Settled) {
        (0..MEMBERS).for_each(|member| self.leave(member, Closing::Drained));
        self.oracle.conserved = true;
        let in_recoveries = [self.forgotten, self.reordered_in_recoveries];
        (self.oracle, in_recoveries, settle(&[&self.ledger], &self.sent, TERMS))
    }
}

/// A first copy came after its membership, which was judged already, or at an edge.
fn came_after_all(oracle: &mut Audit, judged: Option<Judged>) {
    let unjudged = match judged {
        None => {
            oracle.indeterminate += 1;
            oracle.expected += 1;
            return;
        }
        Some(Judged::NotOwed) => {
            oracle.belated += 1;
            oracle.recovered += 1;
            return;
        }
        Some(Judged::Silent) => &mut oracle.lost_silent,
        Some(Judged::Declared) => &mut oracle.lost_declared,
        Some(Judged::Indeterminate) => &mut oracle.indeterminate,
    };
    *unjudged -= 1;
    oracle.belated += 1;
    oracle.delivered += 1;
}
