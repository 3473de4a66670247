//! What a member has seen of one sender: a base and a window of 64 messages, in 16 bytes.

use super::ranges::Ranges;

/// What a member has seen of one sender in one room since its join was confirmed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Window {
    /// First sequence that is owed: what was sent before the join was confirmed is not.
    opened: u32,
    /// Everything below is settled: delivered, or noted as missing.
    base: u32,
    /// Bit k: `base + k` has been delivered. Bit 0 is never set between calls.
    seen: u64,
}

/// What a delivery was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrived {
    /// The first copy, in the sender's order.
    First,
    /// The first copy, after a later message of the same sender.
    Reordered,
    /// The first copy, after an earlier membership had ended without it and before anything that was sent after it: late, and not
    /// lost.
    Belated,
    /// A copy after the first.
    Duplicate,
    /// Sent before the join was confirmed, or arrived after the window was closed: neither owed nor wrong.
    Edge,
}

impl Arrived {
    /// Whether it is the first copy of what was owed.
    pub const fn is_owed(self) -> bool {
        matches!(self, Self::First | Self::Reordered | Self::Belated)
    }
}

impl Window {
    pub(super) const fn open(opened: u32) -> Self {
        Self { opened, base: opened, seen: 0 }
    }

    pub(super) const fn opened(&self) -> u32 {
        self.opened
    }

    /// Whether anything has been delivered that is owed.
    pub(super) const fn has_any(&self) -> bool {
        self.base > self.opened || self.seen != 0
    }

    /// Takes a delivery. `miss(from, to)` is told of sequences that leave the window undelivered; `found(sequence)`
    /// is asked whether one that left it was missing until now.
    #[inline]
    pub(super) fn observe(
        &mut self,
        sequence: u32,
        mut miss: impl FnMut(u32, u32),
        found: impl FnOnce(u32) -> bool,
    ) -> Arrived {
        if sequence < self.opened {
            return Arrived::Edge;
        }
        let Some(ahead) = sequence.checked_sub(self.base) else {
            return if found(sequence) { Arrived::Reordered } else { Arrived::Duplicate };
        };
        if ahead >= 64 {
            self.slide(ahead - 63, &mut miss);
        }
        let place = sequence - self.base;
        let bit = 1_u64 << place;
        if self.seen & bit != 0 {
            return Arrived::Duplicate;
        }
        let later = self.seen & !(bit | (bit - 1)) != 0;
        self.seen |= bit;
        let settled = self.seen.trailing_ones();
        self.base += settled;
        self.seen = self.seen.checked_shr(settled).unwrap_or(0);
        if later { Arrived::Reordered } else { Arrived::First }
    }

    /// The first message above `sequence` that has been delivered and is owed, asked right after `sequence` was found to come
    /// behind one. `missing` is what has left this window undelivered, and not come since.
    pub(super) fn overtaker(&self, sequence: u32, missing: Option<&Ranges>) -> u32 {
        let next = (sequence + 1).max(self.opened);
        if next < self.base {
            // Settled: delivered, unless it is missing.
            let came = missing.map_or(next, |missing| missing.first_without(next));
            if came < self.base {
                return came;
            }
        }
        let place = next.saturating_sub(self.base);
        let later = self.seen.checked_shr(place).unwrap_or(0);
        debug_assert!(later != 0, "nothing above {sequence} has come");
        self.base + place + later.trailing_zeros()
    }

    /// Moves the base up by `by`, noting what was not delivered.
    fn slide(&mut self, by: u32, miss: &mut impl FnMut(u32, u32)) {
        for place in 0..by.min(64) {
            if self.seen & 1 << place == 0 {
                miss(self.base + place, self.base + place + 1);
            }
        }
        if by > 64 {
            miss(self.base + 64, self.base + by);
        }
        self.base += by;
        self.seen = self.seen.checked_shr(by).unwrap_or(0);
        let settled = self.seen.trailing_ones();
        self.base += settled;
        self.seen = self.seen.checked_shr(settled).unwrap_or(0);
    }

    /// The end of what has been delivered, and how much is missing in the window before it.
    pub(super) const fn reach(&self) -> (u32, u64) {
        let span = 64 - self.seen.leading_zeros();
        (self.base + span, (span - self.seen.count_ones()) as u64)
    }

    /// Ends the window before `end`: what is owed and not delivered is missing.
    pub(super) fn close(mut self, end: u32, mut miss: impl FnMut(u32, u32)) {
        if end > self.base {
            self.slide(end - self.base, &mut miss);
        }
    }
}
