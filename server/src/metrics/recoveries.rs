//! How recoveries end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How a recovery ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecoveryOutcome {
    /// Everything that was missed was delivered.
    Recovered,
    /// History does not reach back to the client's position, or more was missed than one answer may hold.
    Incomplete,
    /// More arrived live, while history was read, than may be held back.
    HoldOverflow,
    /// Messages were lost on their way to this node while history was read.
    Gap,
    /// The room's numbering changed while history was read.
    Renumbered,
    /// History answered with less than had been delivered here.
    Hole,
    /// What was missed does not fit the client's outbox.
    TooLarge,
    /// A message that was missed is not what this server writes.
    Unreadable,
    /// The client's outbox was too full at the moment: it was told to try again.
    Busy,
    /// History could not be read, or not in time: the client was told to try again.
    Failed,
}

impl RecoveryOutcome {
    /// Every outcome, for counters with one cell per outcome. In the order of their numbers.
    const ALL: [Self; 10] = [
        Self::Recovered,
        Self::Incomplete,
        Self::HoldOverflow,
        Self::Gap,
        Self::Renumbered,
        Self::Hole,
        Self::TooLarge,
        Self::Unreadable,
        Self::Busy,
        Self::Failed,
    ];

    /// The label used in metrics and in `/info`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::Incomplete => "incomplete",
            Self::HoldOverflow => "hold_overflow",
            Self::Gap => "gap",
            Self::Renumbered => "renumbered",
            Self::Hole => "hole",
            Self::TooLarge => "too_large",
            Self::Unreadable => "unreadable",
            Self::Busy => "busy",
            Self::Failed => "failed",
        }
    }
}

/// Counters of recoveries, history reads and position checks.
#[derive(Debug, Default)]
pub(crate) struct Recoveries {
    outcomes: [AtomicU64; RecoveryOutcome::ALL.len()],
    /// Missed messages that were delivered by recoveries.
    pub(crate) publications: AtomicU64,
    /// Questions to the backplane's history for those who come back; one may be for many of them.
    pub(crate) reads: AtomicU64,
    /// Answers to history requests.
    pub(crate) history_reads: AtomicU64,
    /// Times that the position of a quiet room was compared with the backplane's.
    pub(crate) position_checks: AtomicU64,
    /// Times that this showed a loss.
    pub(crate) positions_behind: AtomicU64,
}

impl Recoveries {
    pub(crate) fn count(&self, outcome: RecoveryOutcome) {
        self.outcomes[outcome as usize].fetch_add(1, Relaxed);
    }

    /// Every outcome by its label, with its count.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let cells = RecoveryOutcome::ALL.into_iter().zip(&self.outcomes);
        cells.map(|(outcome, count)| (outcome.as_str(), count.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_a_cell_of_its_own() {
        let recoveries = Recoveries::default();
        for (count, outcome) in (1..).zip(RecoveryOutcome::ALL) {
            (0..count).for_each(|_| recoveries.count(outcome));
        }
        let expected: Vec<_> =
            RecoveryOutcome::ALL.map(RecoveryOutcome::as_str).into_iter().zip(1..).collect();
        assert_eq!(recoveries.outcomes().collect::<Vec<_>>(), expected);
    }
}
