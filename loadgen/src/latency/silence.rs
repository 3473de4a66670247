//! When anything arrived at all, to the millisecond: what a fault's silence is read from.

/// One bit per millisecond of a run: did a delivery arrive? 7.5 KB a minute.
#[derive(Debug, Clone, Default)]
pub struct Activity(Vec<u64>);

impl Activity {
    /// A delivery arrived `at_us` into the run.
    #[inline]
    pub fn mark(&mut self, at_us: u64) {
        let millisecond = (at_us / 1_000) as usize;
        if self.0.len() <= millisecond / 64 {
            self.0.resize(millisecond / 64 + 64, 0);
        }
        self.0[millisecond / 64] |= 1 << (millisecond % 64);
    }

    /// Adds what another thread saw.
    pub fn add(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(sum, bits)| *sum |= bits);
    }

    /// The longest stretch without any delivery that began within `from_ms..to_ms`, in milliseconds. It may end after
    /// `to_ms`, but not after `end_ms`, the end of what was watched. One that was under way at `from_ms` counts from
    /// there.
    pub fn longest_silence_ms(&self, from_ms: u64, to_ms: u64, end_ms: u64) -> u64 {
        let (mut longest, mut began) = (0, None);
        for millisecond in from_ms..end_ms {
            if self.is_marked(millisecond) {
                began = None;
                if millisecond >= to_ms {
                    break;
                }
            } else if began.is_some() || millisecond < to_ms {
                let began = *began.get_or_insert(millisecond);
                longest = longest.max(millisecond + 1 - began);
            }
        }
        longest
    }

    /// The end of the last millisecond in which anything arrived; 0 when nothing did.
    pub fn end_ms(&self) -> u64 {
        let last = self.0.iter().rposition(|bits| *bits != 0);
        last.map_or(0, |word| (word as u64 + 1) * 64 - u64::from(self.0[word].leading_zeros()))
    }

    fn is_marked(&self, millisecond: u64) -> bool {
        self.0.get((millisecond / 64) as usize).is_some_and(|bits| bits >> (millisecond % 64) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_found_across_its_bounds() {
        let (mut activity, mut other) = (Activity::default(), Activity::default());
        (0..100).for_each(|at| activity.mark(at * 1_000));
        (350..400).for_each(|at| other.mark(at * 1_000));
        activity.add(&other);
        assert_eq!((activity.end_ms(), Activity::default().end_ms()), (400, 0));
        assert_eq!(activity.longest_silence_ms(0, 400, 400), 250);
        assert_eq!(activity.longest_silence_ms(0, 120, 400), 250);
        assert_eq!(activity.longest_silence_ms(200, 400, 400), 150);
        assert_eq!(activity.longest_silence_ms(360, 380, 400), 0);
        assert_eq!(activity.longest_silence_ms(360, 1_000, 1_000), 600);
    }
}
