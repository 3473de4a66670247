//! One room's place in its sequences, and what waits for its turn. Pure.
//!
//! A *line* is one epoch as this node follows it: how far it has come. Lines follow each other; the front one is current.
//! What cannot be delivered yet is *held* under a key that says where in the order it belongs.

use std::collections::{BTreeMap, VecDeque};

use tokio::time::Instant;

use super::unlogged::Unlogged;
use crate::backplane::{Envelope, Position, RoomId};

/// Epochs that a room remembers after they ended: late records of theirs are still delivered.
const PAST_EPOCHS_MAX: usize = 8;

/// One epoch of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// Counts the lines of a room.
    pub(super) generation: u32,
    pub(super) epoch: u64,
    /// Everything up to here was delivered or declared lost.
    pub(super) reached: u64,
    /// Offsets below were counted as reached unseen, and are delivered when they come from the log.
    pub(super) floor: u64,
    /// The live path is known to have come so far: what is missing below, it has lost.
    pub(super) heard: u64,
}

/// Where something held belongs: line, offset, and place among what shares the offset (the sequenced message first).
pub(super) type Key = (u32, u64, u32);

/// Places behind the sequenced message of an offset.
pub(super) const SEQUENCED: u32 = 0;
const PAUSE: u32 = u32::MAX - 1;
const MARKER: u32 = u32::MAX;

/// Something that waits.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) what: What,
    pub(super) since: Instant,
}

/// What waits.
#[derive(Debug)]
pub(super) enum What {
    /// A message with a place in the sequence. It follows log offset `fence` (exclusive), if that is not 0; `logged` says
    /// that its record was read, `live` that it came live.
    Sequenced { envelope: Envelope, fence: i64, logged: bool, live: bool },
    /// A message that only the log carries, behind what was logged before it.
    LogOnly { envelope: Envelope },
    /// The sequence is known to reach this offset.
    Marker,
    /// What follows waits until this is taken out.
    Pause,
}

/// Something of the log that has to wait until it is known what its epoch is to the others.
#[derive(Debug)]
pub(super) struct Parked {
    /// `None`: a message that only the log carries, behind such a one.
    pub(super) at: Option<Position>,
    pub(super) envelope: Envelope,
    pub(super) since: Instant,
}

/// A room with local members.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: RoomId,
    pub(super) partition: usize,
    /// Log records before this offset are older than the join.
    pub(super) since: i64,
    /// The live path was down at the join, so its top at that time is unknown.
    pub(super) blind: bool,
    pub(super) lines: VecDeque<Line>,
    pub(super) held: BTreeMap<Key, Held>,
    /// In the order of the log.
    pub(super) parked: VecDeque<Parked>,
    /// The last place that the log made good: line and offset.
    pub(super) repaired: (u32, u64),
    /// Bytes of what is held and parked.
    pub(super) held_bytes: usize,
    pub(super) unlogged: Unlogged,
    /// Ended lines: generation and epoch.
    past: VecDeque<(u32, u64)>,
    generations: u32,
    log_only: u32,
}

impl Room {
    pub(super) fn new(id: RoomId, partition: usize, since: i64, blind: bool) -> Self {
        Self {
            id,
            partition,
            since,
            blind,
            lines: VecDeque::new(),
            held: BTreeMap::new(),
            parked: VecDeque::new(),
            repaired: (0, 0),
            held_bytes: 0,
            unlogged: Unlogged::default(),
            past: VecDeque::new(),
            generations: 0,
            log_only: 0,
        }
    }

    /// The latest line of an epoch that is current or to come.
    pub(super) fn line_of(&self, epoch: u64) -> Option<Line> {
        self.lines.iter().rev().find(|line| line.epoch == epoch).copied()
    }

    /// Whether an epoch was current once.
    pub(super) fn is_past(&self, epoch: u64) -> bool {
        self.past.iter().any(|(_, past)| *past == epoch)
    }

    /// The latest line of an epoch, ended or not, by its generation.
    pub(super) fn generation_of(&self, epoch: u64) -> Option<u32> {
        let past =
            || self.past.iter().rev().find(|(_, past)| *past == epoch).map(|(generation, _)| *generation);
        self.line_of(epoch).map(|line| line.generation).or_else(past)
    }

    /// Starts a line behind all others.
    pub(super) fn begin(&mut self, epoch: u64, reached: u64, floor: u64) -> Line {
        self.generations += 1;
        let line = Line { generation: self.generations, epoch, reached, floor, heard: 0 };
        self.lines.push_back(line);
        line
    }

    /// The current line.
    pub(super) fn current(&mut self) -> Option<&mut Line> {
        self.lines.front_mut()
    }

    /// Ends lines before `generation`. Says which epoch is current now, if another one was.
    pub(super) fn advance_to(&mut self, generation: u32) -> Option<u64> {
        let before = self.lines.front()?.generation;
        while self.lines.len() > 1
            && let Some(line) = self.lines.pop_front_if(|line| line.generation < generation)
        {
            self.past.push_back((line.generation, line.epoch));
            if self.past.len() > PAST_EPOCHS_MAX {
                self.past.pop_front();
            }
        }
        self.lines.front().filter(|line| line.generation != before).map(|line| line.epoch)
    }

    /// The live path has come to `offset`.
    pub(super) fn hear(&mut self, line: Line, offset: u64) {
        if let Some(line) = self.lines.iter_mut().find(|other| other.generation == line.generation) {
            line.heard = line.heard.max(offset);
        }
    }

    /// Holds a marker for `offset`.
    pub(super) fn mark(&mut self, line: Line, offset: u64, now: Instant) {
        self.hear(line, offset);
        let marker = Held { what: What::Marker, since: now };
        self.held.entry((line.generation, offset, MARKER)).or_insert(marker);
    }

    /// Holds what follows `offset`.
    pub(super) fn pause(&mut self, line: Line, offset: u64, now: Instant) {
        let pause = Held { what: What::Pause, since: now };
        self.held.entry((line.generation, offset, PAUSE)).or_insert(pause);
    }

    /// Where a message that only the log carries belongs: behind everything held whose record was read before. `None` if
    /// that is nothing.
    pub(super) fn behind_logged(&mut self) -> Option<Key> {
        let logged =
            |held: &Held| matches!(held.what, What::Sequenced { logged: true, .. } | What::LogOnly { .. });
        let (generation, offset, _) = *self.held.iter().rev().find(|(_, held)| logged(held))?.0;
        self.log_only = self.log_only % (PAUSE - 1) + 1;
        Some((generation, offset, self.log_only))
    }
}

/// A position of a line.
pub(super) fn position(line: Line, offset: u64) -> Position {
    Position { epoch: line.epoch, offset }
}
