//! The sequence of a room: how Redis counts it, and how a node notices that it missed something.
//!
//! Redis keeps one short string per room, its *head*: epoch and offset, big-endian, the life of the server that wrote it, and
//! when it was last kept from expiring. The first 16 bytes stand in front of every published message as well. Key and
//! channel have the same name, so in a cluster they share a slot whatever braces the room's name contains. Epoch and offset
//! live and die together: a Redis that lost the key (restart, expiry, eviction) draws a new random epoch with the next
//! message, so numbers are never used twice under one epoch. Neither are they after a failover, or a restart with data: what
//! a replica or a file holds may be older than what was published, so the first that asks of a room in the server's new
//! life starts a new epoch (see `scripts`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::backplane::Position;

/// Length in bytes of a head in front of a message, or as a script returns it.
pub(crate) const HEAD_BYTES: usize = 16;
/// Length in bytes of a head as Redis keeps it: with the life of the server behind it, and from the first message on with the
/// term in which it was kept alive.
pub(crate) const KEPT_HEAD_BYTES: [usize; 2] = [HEAD_BYTES + 8, HEAD_BYTES + 12];

/// A head as scripts take and return it.
pub(crate) fn head(position: Position) -> [u8; HEAD_BYTES] {
    ((u128::from(position.epoch) << 64) | u128::from(position.offset)).to_be_bytes()
}

/// Reads a head off the front of `bytes`.
pub(crate) fn split_head(bytes: &[u8]) -> Option<(Position, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let head = u128::from_be_bytes(*head);
    Some((Position { epoch: (head >> 64) as u64, offset: head as u64 }, rest))
}

/// Draws epochs: never 0, never the same twice from one process, and not the same in two.
#[derive(Debug)]
pub(crate) struct Epochs(AtomicU64);

impl Epochs {
    pub(crate) fn new() -> Self {
        // Without the system's randomness the clock still tells processes apart.
        let seed = getrandom::u64().unwrap_or_else(|_| {
            let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
            now.as_nanos() as u64 ^ (u64::from(std::process::id()) << 32)
        });
        Self(AtomicU64::new(seed))
    }

    /// SplitMix64: a bijection of a counter, so that draws differ, with bits well mixed.
    pub(crate) fn draw(&self) -> u64 {
        let mut z = self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)).max(1)
    }
}

/// Offsets `from..to` that did not arrive. Empty when numbering restarted and nothing is known to be missing: even then
/// whoever counts must be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Missing {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// What the top of a room says about a node's own place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// Everything arrived.
    Reached,
    /// These did not; the place is now the top.
    Missed(Missing),
    /// The server knows less than the node: it lost data.
    Behind,
}

/// A node's place in a room. Compared with tops that stand in one order with the messages (same connection), so no
/// message can be on its way when a top says that it is missing.
///
/// Should numbering go back within an epoch all the same (somebody restored a key), the same numbers come again with other
/// messages until somebody starts a new epoch, and the place shows them under an epoch of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    last: Option<Position>,
    own: Option<Own>,
}

/// An epoch that only this node knows, in place of the server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own {
    epoch: u64,
    /// The server's offset before the first one.
    base: u64,
}

impl Place {
    /// The last position reached, as the server counts, unless the room's top is still unknown.
    pub(crate) fn get(&self) -> Option<Position> {
        self.last
    }

    /// The last position reached, as the node's members are told.
    pub(crate) fn shown(&self) -> Option<Position> {
        self.last.map(|last| self.show(last))
    }

    fn show(&self, at: Position) -> Position {
        match self.own {
            Some(Own { epoch, base }) => Position { epoch, offset: at.offset - base },
            None => at,
        }
    }

    /// If something is missing before `next`, and the server numbers it as the node does: the position that it lies behind.
    pub(crate) fn readable(&self, next: Position) -> Option<Position> {
        let last = self.last?;
        let since = if last.epoch != next.epoch {
            Position { offset: 0, ..next }
        } else if self.own.is_none() {
            last
        } else {
            return None;
        };
        (next.offset.checked_sub(since.offset)? > 1).then_some(since)
    }

    /// A message arrived. Returns what is missing before it, in the numbering that is shown. Only once the top is known.
    /// `renumber` draws an epoch if numbering went back; without it messages may come in any order.
    pub(crate) fn arrived(&mut self, at: Position, renumber: Option<&Epochs>) -> Option<Missing> {
        let last = self.last.replace(at)?;
        if last.epoch != at.epoch {
            self.own = None;
            return Some(Missing { from: 1, to: at.offset });
        }
        if at.offset <= last.offset {
            if let Some(epochs) = renumber {
                self.own = Some(Own { epoch: epochs.draw(), base: at.offset.saturating_sub(1) });
            }
            let first = self.show(at).offset;
            return Some(Missing { from: first, to: first });
        }
        let expected = Position { offset: last.offset + 1, ..at };
        (at != expected).then(|| Missing { from: self.show(expected).offset, to: self.show(at).offset })
    }

    /// The server told the room's top. What is missing is in the numbering that is shown.
    pub(crate) fn compare(&mut self, top: Position) -> Top {
        match self.last {
            Some(last) if last.epoch == top.epoch && top.offset < last.offset => Top::Behind,
            Some(last) if last != top => {
                self.last = Some(top);
                let from = if last.epoch == top.epoch {
                    self.show(last).offset + 1
                } else {
                    self.own = None;
                    1
                };
                Top::Missed(Missing { from, to: self.show(top).offset + 1 })
            }
            _ => {
                self.last = Some(top);
                Top::Reached
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn at(epoch: u64, offset: u64) -> Position {
        Position { epoch, offset }
    }

    #[test]
    fn heads_come_back() {
        let position = at(u64::MAX - 1, 7);
        let mut bytes = head(position).to_vec();
        bytes.extend_from_slice(b"rest");
        assert_eq!(split_head(&bytes), Some((position, &b"rest"[..])));
        assert_eq!(split_head(&bytes[..15]), None);
    }

    #[test]
    fn a_restart_of_numbering_is_told() {
        let mut place = Place::default();
        assert_eq!(place.compare(at(1, 5)), Top::Reached);
        assert_eq!(place.arrived(at(2, 1), None), Some(Missing { from: 1, to: 1 }));
        assert_eq!(place.arrived(at(2, 2), None), None);
        assert_eq!(place.arrived(at(3, 4), None), Some(Missing { from: 1, to: 4 }));
        assert_eq!(place.compare(at(3, 3)), Top::Behind);
        assert_eq!(place.arrived(at(3, 4), None), Some(Missing { from: 4, to: 4 }));
        assert_eq!(place.compare(at(4, 0)), Top::Missed(Missing { from: 1, to: 1 }));
    }

    #[test]
    fn numbers_that_come_again_get_an_epoch_of_their_own() {
        let (mut place, epochs) = (Place::default(), Epochs::new());
        place.compare(at(1, 10));
        assert_eq!(place.arrived(at(1, 9), Some(&epochs)), Some(Missing { from: 1, to: 1 }));
        let own = place.shown().unwrap();
        assert!(own.epoch != 1 && own.offset == 1, "{own:?} must not stand behind what was seen");
        assert_eq!(place.get(), Some(at(1, 9)), "the server is asked in its own numbers");
        assert_eq!(place.arrived(at(1, 10), Some(&epochs)), None);
        assert_eq!(place.arrived(at(1, 13), Some(&epochs)), Some(Missing { from: 3, to: 5 }));
        assert_eq!(place.shown(), Some(Position { offset: 5, ..own }));
        assert_eq!(place.compare(at(1, 14)), Top::Missed(Missing { from: 6, to: 7 }));
        assert_eq!(place.compare(at(1, 13)), Top::Behind);
        assert_eq!(place.arrived(at(1, 14), Some(&epochs)), Some(Missing { from: 1, to: 1 }), "again");
        assert_ne!(place.shown().unwrap().epoch, own.epoch);
        assert_eq!(place.arrived(at(2, 1), Some(&epochs)), Some(Missing { from: 1, to: 1 }));
        assert_eq!(place.shown(), Some(at(2, 1)), "the server's epoch is new: its numbers are good again");
    }

    #[test]
    fn what_is_missing_can_be_read_where_numbers_are_the_servers() {
        let (mut place, epochs) = (Place::default(), Epochs::new());
        assert_eq!(place.readable(at(1, 9)), None, "nothing is missing before the first top");
        place.compare(at(1, 5));
        assert_eq!(place.readable(at(1, 6)), None);
        assert_eq!(place.readable(at(1, 8)), Some(at(1, 5)));
        assert_eq!(place.readable(at(2, 1)), None, "the end of an epoch is not known");
        assert_eq!(place.readable(at(2, 3)), Some(at(2, 0)));
        for again in [5, 4, 0] {
            assert_eq!(place.readable(at(1, again)), None, "numbers that come again");
        }
        place.arrived(at(1, 3), Some(&epochs));
        assert_eq!(place.readable(at(1, 9)), None, "the stream has other numbers than members saw");
        assert_eq!(place.readable(at(2, 3)), Some(at(2, 0)));
    }

    #[test]
    fn epochs_differ() {
        let epochs = Epochs::new();
        let drawn: HashSet<u64> = (0..10_000).map(|_| epochs.draw()).collect();
        assert_eq!(drawn.len(), 10_000);
        assert!(!drawn.contains(&0));
    }

    proptest! {
        /// Whatever is lost, the gaps and the messages together cover every offset exactly once.
        #[test]
        fn gaps_are_exactly_what_was_lost(
            start in 0u64..50, fate in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut place = Place::default();
            place.compare(at(9, start));
            let mut covered = Vec::new();
            let mut offset = start;
            for (lost, asked) in fate {
                offset += 1;
                if !lost {
                    covered.extend(place.arrived(at(9, offset), None).into_iter().flat_map(|gap| gap.from..gap.to));
                    covered.push(offset);
                }
                if asked && let Top::Missed(gap) = place.compare(at(9, offset)) {
                    covered.extend(gap.from..gap.to);
                }
            }
            if let Top::Missed(gap) = place.compare(at(9, offset)) {
                covered.extend(gap.from..gap.to);
            }
            prop_assert_eq!(covered, (start + 1..=offset).collect::<Vec<_>>());
        }
    }
}
