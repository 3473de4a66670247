//! Closing the books: the threads' ledgers against what was sent and acknowledged.

use std::collections::{BTreeMap, HashMap};

use super::ledger::{Closing, Ledger, Missing, Note, Tally};
use super::ranges::Ranges;
use crate::record::{Answer, Audit};

/// Examples that are kept of each kind of message out of its place.
const EXAMPLES_MAX: usize = 20;

/// What is known of one stream (a sender in a room) from the sending side.
#[derive(Debug, Clone, Default)]
pub struct Sent {
    /// Sequences handed out: 0..`count` were written to a socket.
    pub count: u32,
    /// Refused with an error reply.
    pub refused: Ranges,
    /// Written, and never answered.
    pub unknown: Ranges,
    /// (interval index, first sequence sent in it), rising; intervals without sends are left out.
    pub marks: Vec<(u32, u32)>,
    /// Sequence → when it was acknowledged, on the run's clock: only those that had to wait for it. What a frozen node
    /// has not read yet has not come into being.
    pub late_acks: BTreeMap<u32, u64>,
    /// First sequence that was sent on each of the sender's connections, rising; those without sends are left out.
    pub turns: Vec<u32>,
}

/// How long things may take before they count.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// Length of the intervals in [`Sent::marks`].
    pub interval_us: u64,
    /// A message younger than this when a member left or its connection broke may have been under way.
    pub edge_us: u64,
    /// A server must have noticed a loss that is older than this.
    pub notice_us: u64,
}

impl Sent {
    /// First sequence that was sent in `interval` or later.
    fn first_since(&self, interval: u32) -> u32 {
        let at = self.marks.partition_point(|mark| mark.0 < interval);
        self.marks.get(at).map_or(self.count, |mark| mark.1)
    }

    /// On which of its sender's connections a message was sent, counted from 1.
    fn turn(&self, sequence: u32) -> usize {
        self.turns.partition_point(|first| *first <= sequence)
    }

    /// How a message was answered.
    fn answer(&self, sequence: u32) -> Answer {
        let among = |ranges: &Ranges| ranges.overlap(sequence, sequence + 1) > 0;
        match () {
            () if among(&self.refused) => Answer::Refused,
            () if among(&self.unknown) => Answer::None,
            () => Answer::Acknowledged,
        }
    }

    /// Those of `from..to` that were there before `at_us`: sent (in an earlier interval), and acknowledged.
    fn before(&self, at_us: u64, interval_us: u64, (from, to): (u32, u32)) -> Ranges {
        let end = self.first_since((at_us / interval_us.max(1)) as u32).clamp(from, to);
        let mut before = Ranges::default();
        let mut start = from;
        for (&late, _) in self.late_acks.range(from..end).filter(|(_, ack_us)| **ack_us >= at_us) {
            before.push(start, late);
            start = late + 1;
        }
        before.push(start, end);
        before
    }
}

/// A first copy that came after a later message of the same stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Example {
    /// Index of the stream.
    pub stream: u32,
    /// The one that was overtaken.
    pub sequence: u32,
    /// The first above it that the member had already.
    pub by: u32,
    /// When it came, on the run's clock.
    pub at_us: u64,
    /// Whether it came with a recovery.
    pub recovering: bool,
    /// How its publish was answered.
    pub answer: Answer,
    /// On which of the sender's connections the two were sent, counted from 1.
    pub turns: (u32, u32),
}

impl Example {
    /// Whether nobody was promised another order: it was never acknowledged, and all that came before it out of turn was
    /// sent over another connection, later. (Connections rise with sequences: what holds for the first holds for all.)
    pub fn is_excused(&self) -> bool {
        self.answer != Answer::Acknowledged && self.turns.0 < self.turns.1
    }
}

/// The settled audit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settled {
    /// The columns.
    pub audit: Audit,
    /// Lost deliveries by the interval in which their message was sent.
    pub lost_by_interval: Vec<u64>,
    /// Of the silent losses, those that a server had said it recovered.
    pub forgotten: u64,
    /// Of the reordered, those that came with a recovery.
    pub reordered_in_recoveries: u64,
    /// The first of the messages that are reordered, then of those that are late and of unknown outcome: the first delivery
    /// of each.
    pub examples: Vec<Example>,
}

/// Settles all ledgers against all streams.
///
/// A message that a member misses counts as lost only if it was acknowledged more than [`Terms::edge_us`] before its
/// server last had the chance to deliver to that member (sent: rounded up to a whole interval); younger ones may have been under way and are
/// indeterminate. What a server said that it had recovered is lost in silence, whatever it says later. What was under way when a
/// membership ended, and came to the same member in a later one before anything that was sent after it, is delivered, however late,
/// even if the member had been told of a loss.
///
/// A message out of its place is reordered, unless [`Example::is_excused`] says that nobody was promised more.
pub fn settle(ledgers: &[&Ledger], streams: &[Sent], terms: Terms) -> Settled {
    let mut tally = Tally::default();
    ledgers.iter().for_each(|ledger| tally.add(&ledger.tally));
    let mut books = Books { streams, terms, settled: Settled::default(), late: Vec::new() };
    let mut unacked: HashMap<u32, Ranges> = HashMap::new();
    for (stream, sent) in streams.iter().enumerate() {
        let audit = &mut books.settled.audit;
        let (refused, unknown) = (sent.refused.count(), sent.unknown.count());
        audit.refused += refused;
        audit.unknown += unknown;
        audit.acknowledged += u64::from(sent.count) - refused - unknown;
        if refused + unknown > 0 {
            let mut both = sent.refused.clone();
            sent.unknown.iter().flat_map(|(from, to)| from..to).for_each(|sequence| both.insert(sequence));
            unacked.insert(stream as u32, both);
        }
    }
    let mut covered = 0;
    let mut covered_unacked = 0;
    for (&(stream, from, to), &members) in ledgers.iter().flat_map(|ledger| &ledger.covered) {
        covered += u64::from(to - from) * members;
        let overlap = unacked.get(&stream).map_or(0, |ranges| ranges.overlap(from, to));
        covered_unacked += overlap * members;
    }
    let none = Ranges::default();
    let mut missing = 0;
    let mut missing_unacked = 0;
    for lost in ledgers.iter().flat_map(|ledger| ledger.lost()) {
        missing += u64::from(lost.to - lost.from);
        let ranges = unacked.get(&lost.stream).unwrap_or(&none);
        missing_unacked += ranges.overlap(lost.from, lost.to);
        for (from, to) in ranges.without(lost.from, lost.to) {
            books.take(&Missing { from, to, ..lost });
        }
    }
    // An unacknowledged message that arrived was not owed: it is recovered, not delivered.
    let recovered = covered_unacked.saturating_sub(missing_unacked);
    let mut notes: Vec<&(u32, Note)> = ledgers.iter().flat_map(|ledger| &ledger.overtaken).collect();
    notes.sort_by_key(|(_, note)| note.at_us);
    notes.into_iter().for_each(|(stream, note)| books.place(*stream, note));
    let mut settled = books.finish();
    let audit = &mut settled.audit;
    audit.recovered = recovered;
    audit.delivered = tally.first.saturating_sub(recovered);
    audit.indeterminate += tally.edge;
    audit.expected = covered - covered_unacked + tally.edge;
    audit.duplicates = tally.duplicates;
    audit.reordered += tally.reordered;
    audit.belated = tally.belated;
    audit.leaked = tally.leaked;
    audit.late = tally.late;
    audit.corrupt = tally.corrupt;
    audit.gaps_declared = tally.gaps;
    // What came in one by one, and the holes, must add up to what the windows spanned. Both sides come from the
    // members' windows: this catches a window that forgets or counts twice, not a sender's count that is wrong.
    audit.conserved = covered == tally.first + missing
        && audit.closes()
        && !ledgers.iter().any(|ledger| ledger.has_overflowed());
    settled
}

struct Books<'a> {
    streams: &'a [Sent],
    terms: Terms,
    settled: Settled,
    /// Examples of what is late and of unknown outcome.
    late: Vec<Example>,
}

impl Books<'_> {
    /// Judges a message that came out of its place.
    fn place(&mut self, stream: u32, note: &Note) {
        let Note { sequence, by, at_us, recovering } = *note;
        let sent = self.streams.get(stream as usize);
        let turn = |sequence| sent.map_or(0, |sent| sent.turn(sequence) as u32);
        let example = Example {
            stream,
            sequence,
            by,
            at_us,
            recovering,
            answer: sent.map_or(Answer::Acknowledged, |sent| sent.answer(sequence)),
            turns: (turn(sequence), turn(by)),
        };
        let settled = &mut self.settled;
        let examples = if example.is_excused() {
            settled.audit.late_unknown += 1;
            &mut self.late
        } else {
            settled.audit.reordered += 1;
            settled.reordered_in_recoveries += u64::from(recovering);
            &mut settled.examples
        };
        // Its other members say nothing new.
        let is_known = |one: &Example| (one.stream, one.sequence) == (stream, sequence);
        if examples.len() < EXAMPLES_MAX && !examples.iter().any(is_known) {
            examples.push(example);
        }
    }

    fn finish(self) -> Settled {
        let Self { mut settled, late, .. } = self;
        settled.examples.extend(late);
        settled
    }

    fn take(&mut self, missing: &Missing) {
        let Missing { stream, from, to, closing, claimed_us, .. } = *missing;
        if closing == Closing::Shed {
            self.settled.audit.indeterminate += u64::from(to - from);
            return;
        }
        // What was young when it was claimed may have been under way, and is judged like everything else.
        let firm = claimed_us.map_or_else(Ranges::default, |claimed_us| {
            self.before(stream, claimed_us.saturating_sub(self.terms.edge_us), (from, to))
        });
        self.silent(stream, &firm, true);
        for (from, to) in firm.without(from, to) {
            let at_us = match closing {
                Closing::Told { at_us } => at_us.saturating_sub(self.terms.notice_us),
                Closing::Cut { at_us } => at_us.saturating_sub(self.terms.edge_us),
                Closing::Drained | Closing::Shed => u64::MAX,
            };
            let owed = self.before(stream, at_us, (from, to));
            self.silent(stream, &owed, claimed_us.is_some());
            for (from, to) in owed.without(from, to) {
                let count = u64::from(to - from);
                if matches!(closing, Closing::Told { .. }) {
                    self.settled.audit.lost_declared += count;
                    self.spread(stream, from, to);
                } else {
                    self.settled.audit.indeterminate += count;
                }
            }
        }
    }

    /// Those of a range that were there before `at_us`.
    fn before(&self, stream: u32, at_us: u64, range: (u32, u32)) -> Ranges {
        if at_us < u64::MAX
            && let Some(sent) = self.streams.get(stream as usize)
        {
            return sent.before(at_us, self.terms.interval_us, range);
        }
        let mut all = Ranges::default();
        all.push(range.0, range.1);
        all
    }

    /// What is missing is lost, and nobody said so.
    fn silent(&mut self, stream: u32, lost: &Ranges, claimed: bool) {
        let count = lost.count();
        self.settled.audit.lost_silent += count;
        self.settled.forgotten += if claimed { count } else { 0 };
        for (from, to) in lost.iter() {
            self.spread(stream, from, to);
        }
    }

    /// Puts lost messages into the intervals in which they were sent.
    fn spread(&mut self, stream: u32, from: u32, to: u32) {
        let Some(sent) = self.streams.get(stream as usize) else { return };
        let mut at = sent.marks.partition_point(|mark| mark.1 <= from).saturating_sub(1);
        let mut from = from;
        while from < to {
            let Some(&(interval, _)) = sent.marks.get(at) else { return };
            let end = sent.marks.get(at + 1).map_or(to, |next| next.1.clamp(from, to));
            let series = &mut self.settled.lost_by_interval;
            if series.len() <= interval as usize {
                series.resize(interval as usize + 1, 0);
            }
            series[interval as usize] += u64::from(end - from);
            from = end;
            at += 1;
        }
    }
}
