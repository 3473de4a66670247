//! One generator thread's account of what its members received. Streaming: 16 bytes per (member, sender), plus what is
//! out of the ordinary.

use std::collections::HashMap;

use super::ranges::Ranges;
use super::window::{Arrived, Window};

/// Most ranges of missing messages that one ledger holds (8 bytes each, and their maps). Beyond that the audit gives
/// up openly: conservation no longer closes and the run says so.
const MISSING_RANGES_MAX: usize = 8_000_000;

/// Why a membership window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The run is over and its stragglers had their time: whatever is missing is lost.
    Drained,
    /// The member left or its connection broke, `at_us` on the run's clock: recent messages may have been under way.
    Cut {
        /// When.
        at_us: u64,
    },
    /// The server told the client that it had missed messages: whatever is missing is a declared loss.
    Told,
    /// However it ended, for a client that the scenario made too slow to keep up: what it had waiting is not owed.
    Shed,
}

/// Messages `from..to` of a stream that a member did not get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) stream: u32,
    pub(super) from: u32,
    pub(super) to: u32,
    pub(super) closing: Closing,
    /// The server had said that it was among what it recovered.
    pub(super) claimed: bool,
}

/// One thread's account. Owned by that thread until the end of the run, then handed to [`super::settle`].
#[derive(Debug, Default)]
pub struct Ledger {
    windows: Vec<Window>,
    /// By window: what left it undelivered, and has not come since.
    missing: HashMap<u32, Ranges>,
    missing_ranges: usize,
    overflowed: bool,
    /// By window: what a server said that it had recovered. Empty unless clients recover.
    claimed: HashMap<u32, Ranges>,
    /// Windows that ended: (stream, first owed, end) → how many members.
    pub(super) covered: HashMap<(u32, u32, u32), u64>,
    pub(super) lost: Vec<Missing>,
    pub(super) tally: Tally,
}

/// What one thread counted as deliveries came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// First copies in windows.
    pub first: u64,
    /// Of those, after a later message of the same sender.
    pub reordered: u64,
    /// Further copies.
    pub duplicates: u64,
    /// Deliveries at the edge of a membership.
    pub edge: u64,
    /// Deliveries to non-members.
    pub leaked: u64,
    /// First copies past the deadline.
    pub late: u64,
    /// Payloads that are none of ours or were damaged.
    pub corrupt: u64,
    /// Gap notices.
    pub gaps: u64,
}

impl Tally {
    /// Adds another thread's counts.
    pub fn add(&mut self, other: &Self) {
        self.first += other.first;
        self.reordered += other.reordered;
        self.duplicates += other.duplicates;
        self.edge += other.edge;
        self.leaked += other.leaked;
        self.late += other.late;
        self.corrupt += other.corrupt;
        self.gaps += other.gaps;
    }
}

impl Ledger {
    /// Reserves windows for a membership in a room of `streams` senders; returns the first one's index.
    pub fn allocate(&mut self, streams: u32) -> u32 {
        let first = self.windows.len() as u32;
        self.windows.resize(self.windows.len() + streams as usize, Window::default());
        first
    }

    /// A join was confirmed: everything from `sequence` on is owed to this member.
    pub fn open(&mut self, window: u32, sequence: u32) {
        self.windows[window as usize] = Window::open(sequence);
    }

    /// A message of the window's sender arrived.
    #[inline]
    pub fn observe(&mut self, window: u32, sequence: u32) -> Arrived {
        let Self { windows, missing, missing_ranges, overflowed, .. } = self;
        // One closure notes and one asks, and both need the map: the sets of gone messages are gathered first.
        let mut gone: Option<Ranges> = None;
        let arrived = windows[window as usize].observe(
            sequence,
            |from, to| gone.get_or_insert_default().push(from, to),
            |sequence| missing.get_mut(&window).is_some_and(|ranges| ranges.remove(sequence)),
        );
        if let Some(gone) = gone {
            *missing_ranges += gone.len();
            if *missing_ranges > MISSING_RANGES_MAX {
                *overflowed = true;
            } else {
                let ranges = missing.entry(window).or_default();
                gone.iter().for_each(|(from, to)| ranges.push(from, to));
            }
        }
        match arrived {
            Arrived::First => self.tally.first += 1,
            Arrived::Reordered => {
                self.tally.first += 1;
                self.tally.reordered += 1;
            }
            Arrived::Duplicate => self.tally.duplicates += 1,
            Arrived::Edge => self.tally.edge += 1,
        }
        arrived
    }

    /// A member that was away is back, and the server said that nothing is missing of what was sent below `end`: the
    /// window goes on, and what is still missing of that in the end was claimed in vain. Call it before the recovered
    /// messages are observed.
    pub fn resume(&mut self, window: u32, end: u32) {
        let (reached, _) = self.windows[window as usize].reach();
        if reached < end {
            self.claimed.entry(window).or_default().push(reached, end);
        }
    }

    /// Ends a membership window: its sender had sent everything below `end`.
    pub fn close(&mut self, window: u32, stream: u32, end: u32, closing: Closing) {
        let mut missing = self.missing.remove(&window).unwrap_or_default();
        let state = std::mem::take(&mut self.windows[window as usize]);
        let opened = state.opened();
        let end = end.max(opened);
        state.close(end, |from, to| missing.push(from, to));
        let claimed = self.claimed.remove(&window).unwrap_or_default();
        for (from, to) in missing.iter() {
            let lost =
                |claimed: bool| move |(from, to): (u32, u32)| Missing { stream, from, to, closing, claimed };
            self.lost.extend(claimed.without(from, to).map(lost(false)));
            self.lost.extend(claimed.within(from, to).map(lost(true)));
        }
        *self.covered.entry((stream, opened, end)).or_default() += 1;
    }

    /// What an open window lacks of the messages below `end`: whether the last one has not come, and how many before
    /// the last that came are missing.
    pub fn lacking(&self, window: u32, end: u32) -> (bool, u64) {
        let (reached, holes) = self.windows[window as usize].reach();
        (reached < end, holes + self.missing.get(&window).map_or(0, Ranges::count))
    }

    /// A delivery that needs no window: at an edge, to a stranger, late, damaged.
    pub fn tally_mut(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// What was counted so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Messages that left a window undelivered so far. Provisional: they may come yet, and may be at an edge.
    pub fn missing_so_far(&self) -> u64 {
        self.missing.values().map(Ranges::count).sum()
    }

    /// Whether more went missing than the ledger can hold.
    pub fn has_overflowed(&self) -> bool {
        self.overflowed
    }
}
