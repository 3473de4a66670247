//! One generator thread's account of what its members received. Streaming: 16 bytes per (member, sender), plus what is
//! out of the ordinary.

use std::collections::HashMap;

use super::ranges::Ranges;
use super::window::{Arrived, Window};

/// Most ranges of missing messages that one ledger holds (8 bytes each, and their maps). Beyond that the audit gives
/// up openly: conservation no longer closes and the run says so.
const MISSING_RANGES_MAX: usize = 8_000_000;
/// Most messages out of their place of which one ledger knows what overtook them (32 bytes each). Further ones are
/// reordered, whatever their senders say.
pub(super) const NOTES_MAX: usize = 1_000_000;

/// Why a membership window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// The run is over and its stragglers had their time: whatever is missing is lost.
    Drained,
    /// The member left or its connection broke: recent messages may have been under way.
    Cut {
        /// Until when its server had the chance to deliver, on the run's clock.
        at_us: u64,
    },
    /// The server told the client that it had missed messages: what is missing and could not have been noticed before is a
    /// declared loss. Older losses were kept from it all the while, and being told later is no excuse for them.
    Told {
        /// When the member was told, or was cut off if it was told as it came back.
        at_us: u64,
    },
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
    /// When a server last said that it was among what it recovered, if one did.
    pub(super) claimed_us: Option<u64>,
    /// The window whose member may get it yet, in a later membership: none of what had come from its sender by then was sent after
    /// it, and no server had said that it was recovered.
    pub(super) awaited_by: Option<u32>,
}

/// A first copy that came after a later message of the same sender. Whether that was wrong is known once all answers
/// and connections are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Note {
    pub(super) sequence: u32,
    /// The first message above it that the member had already.
    pub(super) by: u32,
    /// When it came, on the run's clock.
    pub(super) at_us: u64,
    /// It came with a recovery.
    pub(super) recovering: bool,
}

/// A server said `at_us` that nothing was missing of `from..to`.
#[derive(Debug, Clone, Copy)]
struct Claim {
    from: u32,
    to: u32,
    at_us: u64,
}

/// One thread's account. Owned by that thread until the end of the run, then handed to [`super::settle`].
#[derive(Debug, Default)]
pub struct Ledger {
    windows: Vec<Window>,
    /// By window: what left it undelivered, and has not come since.
    missing: HashMap<u32, Ranges>,
    missing_ranges: usize,
    overflowed: bool,
    /// By window: what a server said that it had recovered, in order and disjoint. Empty unless clients recover.
    claims: HashMap<u32, Vec<Claim>>,
    /// By window: what its member got in earlier memberships and at their edges. It must not come again.
    had: HashMap<u32, Ranges>,
    /// By window: what earlier memberships ended without, and may come yet.
    awaited: HashMap<u32, Ranges>,
    /// By window: what came out of its place.
    notes: HashMap<u32, Vec<Note>>,
    noted: usize,
    /// The notes of windows that ended, with their streams.
    pub(super) overtaken: Vec<(u32, Note)>,
    /// Windows that ended: (stream, first owed, end) → how many members.
    pub(super) covered: HashMap<(u32, u32, u32), u64>,
    lost: Vec<Missing>,
    pub(super) tally: Tally,
}

/// What one thread counted as deliveries came in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// First copies in windows, and behind them where they count still ([`Arrived::Belated`]).
    pub first: u64,
    /// Of those, behind their windows.
    pub belated: u64,
    /// Of those, after a later message of the same sender, and of which no more is known.
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
        self.belated += other.belated;
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

    /// A message of the window's sender arrived at `now_us` on the run's clock, live or with the member's recovery.
    #[inline]
    pub fn observe(&mut self, window: u32, sequence: u32, recovering: bool, now_us: u64) -> Arrived {
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
                self.note(window, sequence, recovering, now_us);
            }
            Arrived::Duplicate => self.tally.duplicates += 1,
            Arrived::Edge | Arrived::Belated => {
                let arrived = self.early(window, sequence);
                // It is not owed, and yet not to come behind what was sent after it.
                if arrived == Arrived::Edge && self.windows[window as usize].has_any() {
                    self.note(window, sequence, recovering, now_us);
                }
                return arrived;
            }
        }
        arrived
    }

    /// A message came out of its place.
    #[cold]
    fn note(&mut self, window: u32, sequence: u32, recovering: bool, at_us: u64) {
        if self.noted == NOTES_MAX {
            self.tally.reordered += 1;
            return;
        }
        self.noted += 1;
        let by = self.windows[window as usize].overtaker(sequence, self.missing.get(&window));
        self.notes.entry(window).or_default().push(Note { sequence, by, at_us, recovering });
    }

    /// A message came that this membership is not owed, or not yet. The member may have had it already; an earlier membership may
    /// have ended without it, and nothing that was sent after it have come since; else it is neither right nor wrong.
    #[cold]
    pub fn early(&mut self, window: u32, sequence: u32) -> Arrived {
        let had = self.had.entry(window).or_default();
        if had.overlap(sequence, sequence + 1) > 0 {
            self.tally.duplicates += 1;
            return Arrived::Duplicate;
        }
        let is_next = had.end() <= sequence && !self.windows[window as usize].has_any();
        had.insert(sequence);
        if is_next && self.awaited.get_mut(&window).is_some_and(|awaited| awaited.remove(sequence)) {
            self.tally.first += 1;
            self.tally.belated += 1;
            return Arrived::Belated;
        }
        self.tally.edge += 1;
        Arrived::Edge
    }

    /// Messages that are missing still: what came in a later membership is left out.
    pub(super) fn lost(&self) -> impl Iterator<Item = Missing> + '_ {
        self.lost.iter().flat_map(|lost| {
            let awaited = lost.awaited_by.and_then(|window| self.awaited.get(&window));
            let all = awaited.is_none().then_some((lost.from, lost.to));
            let pieces =
                awaited.into_iter().flat_map(|awaited| awaited.within(lost.from, lost.to)).chain(all);
            pieces.map(|(from, to)| Missing { from, to, ..*lost })
        })
    }

    /// A member that was away is back, and the server said `at_us` that nothing is missing of what was sent below `end`:
    /// the window goes on, and what is still missing of that in the end was claimed in vain. Call it before the recovered
    /// messages are observed.
    pub fn resume(&mut self, window: u32, end: u32, at_us: u64) {
        let (reached, _) = self.windows[window as usize].reach();
        if reached < end {
            let claims = self.claims.entry(window).or_default();
            // Nothing came since: the later word replaces the earlier one.
            claims.retain(|claim| claim.from < reached);
            if let Some(last) = claims.last_mut() {
                last.to = last.to.min(reached);
            }
            claims.push(Claim { from: reached, to: end, at_us });
        }
    }

    /// Ends a membership window: its sender had sent everything below `end`.
    pub fn close(&mut self, window: u32, stream: u32, end: u32, closing: Closing) {
        let mut missing = self.missing.remove(&window).unwrap_or_default();
        let state = std::mem::take(&mut self.windows[window as usize]);
        let (opened, (reached, _)) = (state.opened(), state.reach());
        let end = end.max(opened);
        state.close(end, |from, to| missing.push(from, to));
        let notes = self.notes.remove(&window).unwrap_or_default();
        self.overtaken.extend(notes.into_iter().map(|note| (stream, note)));
        let claims = self.claims.remove(&window).unwrap_or_default();
        for (from, to) in missing.iter() {
            for (from, to, claimed_us) in split(&claims, from, to) {
                let may_come = closing != Closing::Drained && claimed_us.is_none() && from >= reached;
                if may_come {
                    self.awaited.entry(window).or_default().push(from, to);
                }
                let awaited_by = may_come.then_some(window);
                self.lost.push(Missing { stream, from, to, closing, claimed_us, awaited_by });
            }
        }
        if closing != Closing::Drained && opened < end {
            self.remember(window, missing.without(opened, end));
        }
        *self.covered.entry((stream, opened, end)).or_default() += 1;
    }

    /// Keeps what a member got, for as long as it may come back.
    fn remember(&mut self, window: u32, got: impl Iterator<Item = (u32, u32)>) {
        let had = self.had.entry(window).or_default();
        let before = had.len();
        for (from, to) in got {
            had.append(from, to);
        }
        self.missing_ranges += had.len().saturating_sub(before);
        self.overflowed |= self.missing_ranges > MISSING_RANGES_MAX;
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

/// The pieces of `from..to` that were claimed, and when, and those that were not.
fn split(claims: &[Claim], from: u32, to: u32) -> impl Iterator<Item = (u32, u32, Option<u64>)> {
    let mut at = from;
    let mut claims = claims.iter().filter(move |claim| claim.to > from && claim.from < to).peekable();
    std::iter::from_fn(move || {
        if at >= to {
            return None;
        }
        let start = at;
        let claimed = claims.next_if(|claim| claim.from <= start);
        at = match claimed {
            Some(claim) => claim.to.min(to),
            None => claims.peek().map_or(to, |claim| claim.from),
        };
        Some((start, at, claimed.map(|claim| claim.at_us)))
    })
}
