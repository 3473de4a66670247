//! Sets of sequence numbers as sorted, disjoint, half-open ranges.

/// Sorted, disjoint, non-adjacent ranges `from..to`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    /// Adds `from..to`, which must begin at or after the end of the last range.
    pub fn push(&mut self, from: u32, to: u32) {
        if from >= to {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.1 >= from => last.1 = last.1.max(to),
            _ => self.0.push((from, to)),
        }
    }

    /// Adds `from..to` anywhere; quick at the end.
    pub fn append(&mut self, from: u32, to: u32) {
        let end = self.end();
        (from..to.min(end)).for_each(|number| self.insert(number));
        self.push(from.max(end), to);
    }

    /// Adds one number anywhere.
    pub fn insert(&mut self, number: u32) {
        let at = self.0.partition_point(|range| range.1 < number);
        match self.0.get(at).copied() {
            Some((from, to)) if from <= number && number < to => {}
            Some((from, to)) if to == number => match self.0.get(at + 1).copied() {
                Some((next, end)) if next == number + 1 => {
                    self.0[at] = (from, end);
                    self.0.remove(at + 1);
                }
                _ => self.0[at].1 += 1,
            },
            Some((from, _)) if from == number + 1 => self.0[at].0 = number,
            _ => self.0.insert(at, (number, number + 1)),
        }
    }

    /// Takes one number out; false if it was not there.
    pub fn remove(&mut self, number: u32) -> bool {
        let at = self.0.partition_point(|range| range.1 <= number);
        let Some(&(from, to)) = self.0.get(at) else { return false };
        if number < from {
            return false;
        }
        match (number == from, number + 1 == to) {
            (true, true) => drop(self.0.remove(at)),
            (true, false) => self.0[at].0 += 1,
            (false, true) => self.0[at].1 -= 1,
            (false, false) => {
                self.0[at].1 = number;
                self.0.insert(at + 1, (number + 1, to));
            }
        }
        true
    }

    /// How many numbers it holds.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|&(from, to)| u64::from(to - from)).sum()
    }

    /// How many ranges it holds.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// The part of `from..to` that this set does not hold.
    pub fn without(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let start = self.0.partition_point(|range| range.1 <= from);
        let mut at = from;
        let mut held = self.0[start..].iter();
        std::iter::from_fn(move || {
            while at < to {
                let Some(&(next, end)) = held.next() else {
                    let rest = (at, to);
                    at = to;
                    return Some(rest);
                };
                let hole = (at, next.min(to));
                at = end.max(at);
                if hole.0 < hole.1 {
                    return Some(hole);
                }
            }
            None
        })
    }

    /// The part of `from..to` that this set holds.
    pub fn within(&self, from: u32, to: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        let start = self.0.partition_point(|range| range.1 <= from);
        let held = self.0[start..].iter().take_while(move |range| range.0 < to);
        held.map(move |range| (range.0.max(from), range.1.min(to)))
    }

    /// Behind the last number that this set holds, 0 if there is none.
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, |range| range.1)
    }

    /// The first number from `number` on that this set does not hold.
    pub fn first_without(&self, number: u32) -> u32 {
        let at = self.0.partition_point(|range| range.1 <= number);
        match self.0.get(at) {
            // Ranges are not adjacent: what follows one is free.
            Some(&(from, to)) if from <= number => to,
            _ => number,
        }
    }

    /// How many numbers of `from..to` this set holds.
    pub fn overlap(&self, from: u32, to: u32) -> u64 {
        let free: u64 = self.without(from, to).map(|(from, to)| u64::from(to - from)).sum();
        u64::from(to.saturating_sub(from)) - free
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn agrees_with_a_set(changes in prop::collection::vec((any::<bool>(), 0_u32..60), 0..200), from in 0_u32..60, len in 0_u32..60) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (add, number) in changes {
                if add {
                    ranges.insert(number);
                    set.insert(number);
                } else {
                    prop_assert_eq!(ranges.remove(number), set.remove(&number));
                }
                let flat: Vec<u32> = ranges.iter().flat_map(|(from, to)| from..to).collect();
                prop_assert_eq!(flat, set.iter().copied().collect::<Vec<_>>());
                let ends: Vec<_> = ranges.iter().collect();
                prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
            }
            let free: Vec<u32> = ranges.without(from, from + len).flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(free, (from..from + len).filter(|number| !set.contains(number)).collect::<Vec<_>>());
            let held: Vec<u32> = ranges.within(from, from + len).flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(held, set.range(from..from + len).copied().collect::<Vec<_>>());
            prop_assert_eq!(ranges.end(), set.last().map_or(0, |last| last + 1));
            prop_assert_eq!(ranges.overlap(from, from + len), set.range(from..from + len).count() as u64);
            prop_assert_eq!(Some(ranges.first_without(from)), (from..).find(|number| !set.contains(number)));
            ranges.append(from, from + len);
            set.extend(from..from + len);
            let flat: Vec<u32> = ranges.iter().flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(flat, set.into_iter().collect::<Vec<_>>());
        }
    }
}
