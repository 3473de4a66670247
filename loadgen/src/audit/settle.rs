//! Closing the books: the threads' ledgers against what was sent and acknowledged.

use std::collections::HashMap;

use super::ledger::{Closing, Ledger, Missing, Tally};
use super::ranges::Ranges;
use crate::record::Audit;

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
}

impl Sent {
    /// First sequence that was sent in `interval` or later.
    fn first_since(&self, interval: u32) -> u32 {
        let at = self.marks.partition_point(|mark| mark.0 < interval);
        self.marks.get(at).map_or(self.count, |mark| mark.1)
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
}

/// Settles all ledgers against all streams.
///
/// `interval_us` is the length of the intervals in [`Sent::marks`]; a message that a member misses counts as lost only
/// if it was sent more than `edge_us` before that member's connection broke or left (rounded up to a whole interval);
/// younger ones may have been under way and are indeterminate.
pub fn settle(ledgers: &[&Ledger], streams: &[Sent], interval_us: u64, edge_us: u64) -> Settled {
    let mut tally = Tally::default();
    ledgers.iter().for_each(|ledger| tally.add(&ledger.tally));
    let mut books = Books { streams, interval_us, edge_us, settled: Settled::default() };
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
    for lost in ledgers.iter().flat_map(|ledger| &ledger.lost) {
        missing += u64::from(lost.to - lost.from);
        let ranges = unacked.get(&lost.stream).unwrap_or(&none);
        missing_unacked += ranges.overlap(lost.from, lost.to);
        for (from, to) in ranges.without(lost.from, lost.to) {
            books.take(&Missing { from, to, ..*lost });
        }
    }
    // An unacknowledged message that arrived was not owed: it is recovered, not delivered.
    let recovered = covered_unacked.saturating_sub(missing_unacked);
    let Settled { mut audit, lost_by_interval, forgotten } = books.settled;
    audit.recovered = recovered;
    audit.delivered = tally.first.saturating_sub(recovered);
    audit.indeterminate += tally.edge;
    audit.expected = covered - covered_unacked + tally.edge;
    audit.duplicates = tally.duplicates;
    audit.reordered = tally.reordered;
    audit.leaked = tally.leaked;
    audit.late = tally.late;
    audit.corrupt = tally.corrupt;
    audit.gaps_declared = tally.gaps;
    // What came in one by one, and the holes, must add up to what the windows spanned. Both sides come from the
    // members' windows: this catches a window that forgets or counts twice, not a sender's count that is wrong.
    audit.conserved = covered == tally.first + missing
        && audit.closes()
        && !ledgers.iter().any(|ledger| ledger.has_overflowed());
    Settled { audit, lost_by_interval, forgotten }
}

struct Books<'a> {
    streams: &'a [Sent],
    interval_us: u64,
    edge_us: u64,
    settled: Settled,
}

impl Books<'_> {
    fn take(&mut self, missing: &Missing) {
        let count = u64::from(missing.to - missing.from);
        match missing.closing {
            Closing::Told => {
                self.settled.audit.lost_declared += count;
                self.spread(missing.stream, missing.from, missing.to);
            }
            Closing::Shed => self.settled.audit.indeterminate += count,
            Closing::Drained => self.silent(missing, missing.to),
            Closing::Cut { at_us } => {
                let edge_interval = at_us.saturating_sub(self.edge_us) / self.interval_us.max(1);
                let edge = match self.streams.get(missing.stream as usize) {
                    Some(sent) => sent.first_since(edge_interval as u32).clamp(missing.from, missing.to),
                    None => missing.to,
                };
                self.silent(missing, edge);
                self.settled.audit.indeterminate += u64::from(missing.to - edge);
            }
        }
    }

    /// What is missing below `end` is lost, and nobody said so.
    fn silent(&mut self, missing: &Missing, end: u32) {
        let count = u64::from(end - missing.from);
        self.settled.audit.lost_silent += count;
        self.settled.forgotten += if missing.claimed { count } else { 0 };
        self.spread(missing.stream, missing.from, end);
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
