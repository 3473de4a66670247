//! A node's link to the simulated broker: what waits on it, and what goes wrong on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use manifold_strategies::guarantees::Positions;
use manifold_strategies::ring::{Feed, Limits, Rings};
use manifold_strategies::{Event, Message, Position, Resumed, RoomId};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::is_hidden;
use crate::steps::{Numbers, Setup};

/// Messages of a room that a node keeps.
const RING_MESSAGES: usize = 10;

/// An event on its way to a node.
struct Queued {
    due: Instant,
    event: Event,
    /// Which of its room's messages it is.
    index: usize,
    /// The place in the log that the node has read up to with it; 0 for none.
    sequence: u64,
}

/// How a link is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// What is meant for the node waits.
    Waiting,
    /// It is lost, and declared when the link is back.
    Lossy,
}

/// A node's end of the broker.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) joined: BTreeSet<RoomId>,
    /// The node is gone.
    pub(crate) dead: bool,
    pub(crate) down: Option<Down>,
    /// Something may have changed.
    pub(crate) wake: Arc<Notify>,
    pub(crate) delay_ms: u64,
    pub(crate) join_ms: u64,
    pub(crate) history_ms: u64,
    pub(crate) history_late: bool,
    pub(crate) fail_joins: u32,
    pub(crate) fail_history: u32,
    pub(crate) fail_publishes: u32,
    pub(crate) fail_kept: bool,
    pub(crate) lose: u32,
    pub(crate) lose_declared: bool,
    pub(crate) duplicate: u32,
    pub(crate) swap: bool,
    pub(crate) lose_hidden: u32,
    /// Messages that did not reach the node, or not in their place.
    pub(crate) lost: BTreeSet<(RoomId, usize)>,
    /// The last messages of rooms, lost without a word: what comes next shows it.
    unsaid: BTreeMap<RoomId, (u64, u64)>,
    /// Up to where the node has read the log.
    pub(crate) read: u64,
    everything: bool,
    /// What the node keeps of the rooms that it has joined, and looks at first.
    rings: Option<Rings>,
    queue: VecDeque<Queued>,
    /// What the broken link has lost, by room: gaps, and new numberings between them.
    missed: BTreeMap<RoomId, Vec<Event>>,
    missed_sequence: u64,
}

impl Link {
    pub(crate) fn new(setup: &Setup, read: u64) -> Self {
        let positions = if setup.numbers == Numbers::Dense { Positions::Dense } else { Positions::Rising };
        let limits = Limits::new(RING_MESSAGES, Duration::from_secs(600));
        let rings =
            setup.rings.then(|| Rings::new(Feed::Begun, positions, limits, Instant::now().into_std()));
        Self { everything: setup.everything, rings, read, ..Self::default() }
    }

    /// Lets a room's messages come: those after `position`.
    pub(crate) fn join(&mut self, room: &RoomId, position: Position) {
        self.joined.insert(room.clone());
        if let Some(rings) = &mut self.rings {
            rings.begin(room, position, position.offset);
        }
    }

    pub(crate) fn leave(&mut self, room: &RoomId) {
        self.joined.remove(room);
        if let Some(rings) = &mut self.rings {
            rings.end(room);
        }
    }

    /// What the node's own memory has for a member that comes back; `top` is where the room stands.
    pub(crate) fn remembered(
        &mut self,
        room: &RoomId,
        since: Position,
        top: Position,
        limit: usize,
    ) -> Option<Resumed> {
        let rings = self.rings.as_mut().filter(|_| self.queue.is_empty() && self.down.is_none())?;
        rings.after(room, since, top, limit, Instant::now().into_std())
    }

    /// Whether messages of a room go to this node.
    pub(crate) fn hears(&self, room: &RoomId) -> bool {
        !self.dead && (self.joined.contains(room) || (self.everything && !is_hidden(room)))
    }

    /// Sends an event on its way, behind all others.
    pub(crate) fn queue(&mut self, event: Event, sequence: u64) {
        self.queue_message(event, usize::MAX, sequence);
    }

    fn queue_message(&mut self, event: Event, index: usize, sequence: u64) {
        if self.down == Some(Down::Lossy) {
            return self.miss(&event, index, sequence);
        }
        let now = Instant::now();
        let last = self.queue.back().map_or(now, |last| last.due);
        let due = last.max(now + Duration::from_millis(self.delay_ms));
        self.queue.push_back(Queued { due, event, index, sequence });
        self.wake.notify_one();
    }

    /// Sends a message on its way, or does to it what is to go wrong next.
    pub(crate) fn send(&mut self, message: Message, index: usize, sequence: u64, numbers: Numbers) {
        let room = message.envelope.room.clone();
        let offset = message.position.offset;
        let dense = numbers == Numbers::Dense;
        let event = Event::Message(message);
        if is_hidden(&room) {
            if !take_one(&mut self.lose_hidden) {
                self.queue_message(event, index, sequence);
            }
            return;
        }
        if self.down != Some(Down::Lossy) && take_one(&mut self.lose) {
            self.lost.insert((room.clone(), index));
            // A loss that positions do not show has to be declared by whoever reads the log.
            if self.lose_declared || !dense {
                self.unsaid.remove(&room);
                self.queue(Event::Gap { room, from: offset, to: offset + 1 }, sequence);
            } else {
                self.unsaid.entry(room).or_insert((offset, offset)).1 = offset + 1;
            }
            return;
        }
        self.unsaid.remove(&room);
        let twice = dense && take_one(&mut self.duplicate);
        let overtakes = dense && self.down != Some(Down::Lossy) && self.swap && self.may_overtake(&room);
        self.queue_message(event.clone(), index, sequence);
        if twice {
            self.queue_message(event, index, sequence);
        } else if overtakes {
            self.swap = false;
            self.overtake();
        }
    }

    /// The numbering starts anew: what is lost and does not show any more has to be said now.
    pub(crate) fn renumber(&mut self, room: &RoomId, epoch: u64) {
        if let Some((from, to)) = self.unsaid.remove(room) {
            self.queue(Event::Gap { room: room.clone(), from, to }, 0);
        }
        self.queue(Event::Renumbered { room: room.clone(), epoch }, 0);
    }

    fn may_overtake(&self, room: &RoomId) -> bool {
        matches!(&self.queue.back(), Some(Queued { event: Event::Message(message), .. })
            if message.envelope.room == *room)
    }

    fn overtake(&mut self) {
        let (Some(mut last), Some(mut before)) = (self.queue.pop_back(), self.queue.pop_back()) else {
            return;
        };
        std::mem::swap(&mut last.due, &mut before.due);
        if let Event::Message(message) = &before.event {
            self.lost.insert((message.envelope.room.clone(), before.index));
        }
        self.queue.extend([last, before]);
    }

    fn miss(&mut self, event: &Event, index: usize, sequence: u64) {
        self.missed_sequence = self.missed_sequence.max(sequence);
        let (room, from, to) = match event {
            Event::Message(message) => {
                self.lost.insert((message.envelope.room.clone(), index));
                (&message.envelope.room, message.position.offset, message.position.offset + 1)
            }
            Event::Gap { room, from, to } => (room, *from, *to),
            Event::Renumbered { room, .. } => {
                return self.missed.entry(room.clone()).or_default().push(event.clone());
            }
            // The next position shows it.
            Event::Skipped { .. } | Event::Reconnected => return,
        };
        let missed = self.missed.entry(room.clone()).or_default();
        if let Some(Event::Gap { to: end, .. }) = missed.last_mut() {
            *end = to;
        } else {
            missed.push(Event::Gap { room: room.clone(), from, to });
        }
    }

    pub(crate) fn break_off(&mut self, down: Down) {
        if self.down.is_some() {
            return;
        }
        self.down = Some(down);
        if down == Down::Lossy {
            for Queued { event, index, sequence, .. } in std::mem::take(&mut self.queue) {
                self.miss(&event, index, sequence);
            }
        }
    }

    pub(crate) fn come_back(&mut self) {
        if self.down.take().is_none() {
            return;
        }
        let sequence = std::mem::take(&mut self.missed_sequence);
        for event in std::mem::take(&mut self.missed).into_values().flatten() {
            self.queue(event, 0);
        }
        self.queue(Event::Reconnected, sequence);
        self.wake.notify_waiters();
    }

    /// The node goes: nothing reaches it any more.
    pub(crate) fn die(&mut self) {
        self.dead = true;
        self.queue.clear();
        self.wake.notify_one();
        self.wake.notify_waiters();
    }

    /// Messages of a room that is left do not arrive after it is joined again.
    pub(crate) fn forget(&mut self, room: &RoomId) {
        self.queue.retain(
            |queued| !matches!(&queued.event, Event::Message(message) if message.envelope.room == *room),
        );
    }

    /// Everything goes well from now on.
    pub(crate) fn heal(&mut self) {
        (self.delay_ms, self.join_ms, self.history_ms, self.history_late) = (1, 0, 0, false);
        (self.fail_joins, self.fail_history, self.fail_publishes, self.lose_hidden) = (0, 0, 0, 0);
        (self.lose, self.duplicate, self.swap) = (0, 0, false);
        self.come_back();
    }

    /// What is due; else when something will be.
    pub(crate) fn take_due(&mut self, batch: &mut Vec<Event>) -> Option<Instant> {
        if self.down.is_some() {
            return None;
        }
        let now = Instant::now();
        while let Some(first) = self.queue.front() {
            if first.due > now {
                return Some(first.due);
            }
            let Queued { event, sequence, .. } = self.queue.pop_front()?;
            self.read = self.read.max(sequence);
            if let Some(rings) = &mut self.rings {
                rings.note(std::slice::from_ref(&event), now.into_std());
            }
            batch.push(event);
        }
        None
    }
}

/// Counts down. False: it was zero.
pub(crate) fn take_one(left: &mut u32) -> bool {
    let any = *left > 0;
    *left -= u32::from(any);
    any
}
