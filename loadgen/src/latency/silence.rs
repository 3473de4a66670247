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

/// Shorter lulls are not noted.
pub const LULL_MIN_US: u64 = 20_000;

/// A stretch in which nothing arrived in a room, microseconds into the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lull {
    /// The room.
    pub room: u32,
    /// The last delivery before it.
    pub from_us: u64,
    /// The first delivery after it, or the end of what was watched.
    pub to_us: u64,
}

/// Longest silence of each room in which something was due within `from_us..to_us`, shortest first. `due` are the times
/// at which each room's messages were meant to be sent, rising: a lull is a silence from the first of them that falls
/// into it. One that was under way at `from_us` counts from there; each may end after `to_us`.
pub fn room_silences_us(lulls: &[Lull], due: &[Vec<u64>], from_us: u64, to_us: u64) -> Vec<u64> {
    let first_due =
        |times: &[u64], since_us: u64| times.get(times.partition_point(|at_us| *at_us < since_us)).copied();
    let mut longest: Vec<Option<u64>> =
        due.iter().map(|times| first_due(times, from_us).filter(|at_us| *at_us < to_us).map(|_| 0)).collect();
    for lull in lulls {
        let room = lull.room as usize;
        let Some(due_us) = first_due(&due[room], lull.from_us) else { continue };
        let began_us = due_us.max(from_us);
        if began_us < to_us.min(lull.to_us) {
            longest[room] = longest[room].max(Some(lull.to_us - began_us));
        }
    }
    let mut silences: Vec<u64> = longest.into_iter().flatten().collect();
    silences.sort_unstable();
    silences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_silent_from_when_something_was_due_until_something_came() {
        let lull = |room, from_us, to_us| Lull { room, from_us, to_us };
        let due = vec![vec![100, 5_000, 9_000], vec![100, 1_000, 2_000], vec![100], vec![50]];
        // Room 0 was quiet because nothing was due; room 1 was out while room 0 was served; room 2 never came back.
        let lulls = [lull(0, 110, 5_010), lull(1, 900, 2_900), lull(2, 0, 10_000)];
        assert_eq!(room_silences_us(&lulls, &due, 0, 10_000), [0, 10, 1_900, 9_900]);
        assert_eq!(room_silences_us(&lulls, &due, 1_500, 10_000), [10, 1_400, 8_500]);
        assert_eq!(room_silences_us(&lulls, &due, 0, 60), [0]);
        assert_eq!(room_silences_us(&[], &due, 20_000, 30_000), [0_u64; 0]);
    }

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
