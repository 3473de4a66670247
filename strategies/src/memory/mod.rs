//! The reference: one node, no broker. It is the floor that every other strategy is compared with, and the contract
//! at its plainest.
//!
//! A publish is delivered inside the call, under the room's lock, so offsets and deliveries have one order. Rooms
//! without members keep no state: their messages go nowhere, and a room that is joined again starts a new epoch.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};

use parking_lot::{Mutex, RwLock};
use serde::Deserialize;

use crate::backplane::{Backplane, BoxFuture, Entrance, Envelope, Event, Message, Position, RoomId};
use crate::dedup::DedupWindow;
use crate::envelope;
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::stats::Stats;
use crate::strategy::{Needs, Start, Strategy, parse_settings};

/// What the memory backplane promises.
pub const GUARANTEES: Guarantees = Guarantees {
    delivery: Delivery::AtMostOnce,
    ordering: Ordering::PerRoom,
    ack: Ack::Node,
    interest: Interest::Rooms,
    replay: ReplayKind::None,
    positions: Positions::Dense,
    idempotent_retry: true,
    spans_nodes: false,
    whole_rooms: true,
};

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "memory",
    summary: "One node's memory, no broker: the reference and the floor",
    needs: Needs { kafka: false, redis: false },
    counter_example: false,
    variants: &[],
    settings: |table| parse_settings::<Settings>(table).map(|Settings {}| toml::Table::new()),
    guarantees: |table| parse_settings::<Settings>(table).map(|Settings {}| GUARANTEES),
    connect: |start| Box::pin(ready(connect(start))),
};

/// The memory backplane has no settings.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

fn connect(start: Start) -> Result<Arc<dyn Backplane>> {
    parse_settings::<Settings>(&start.settings)?;
    Ok(Arc::new(Memory::new(start.entrance)))
}

/// A backplane within one process.
pub struct Memory {
    entrance: Arc<dyn Entrance>,
    rooms: RwLock<HashMap<RoomId, Arc<Mutex<Room>>>>,
    next_epoch: AtomicU64,
    closed: AtomicBool,
    stats: Stats,
}

/// Message ids that a room remembers: enough for a publisher that retries, at most 20 KiB per busy room.
const REMEMBERED_IDS: usize = 256;

/// A joined room, and the batch buffer that its deliveries reuse.
struct Room {
    position: Position,
    seen: DedupWindow,
    batch: Vec<Event>,
}

impl Memory {
    /// A backplane that delivers to `entrance`.
    pub fn new(entrance: Arc<dyn Entrance>) -> Self {
        Self {
            entrance,
            rooms: RwLock::default(),
            next_epoch: AtomicU64::new(1),
            closed: AtomicBool::new(false),
            stats: Stats::default(),
        }
    }

    fn check_open(&self, operation: &'static str) -> Result<()> {
        if self.closed.load(SeqCst) {
            return Err(Error::new(ErrorKind::Closed, operation, "the backplane was shut down"));
        }
        Ok(())
    }

    fn publish_now(&self, envelope: Envelope) -> Result<Position> {
        self.check_open("publish")?;
        envelope::check(&envelope)?;
        self.stats.publishes.add(1);
        let room = self.rooms.read().get(&envelope.room).cloned();
        let Some(room) = room else { return Ok(Position::default()) };
        let mut room = room.lock();
        if !room.seen.insert(envelope.id) {
            self.stats.duplicates_removed.add(1);
            return Ok(room.position);
        }
        room.position.offset += 1;
        let position = room.position;
        self.stats.envelopes_received.add(1);
        self.stats.envelopes_wanted.add(1);
        room.batch.push(Event::Message(Message { envelope, position }));
        self.entrance.deliver(&mut room.batch);
        Ok(position)
    }

    fn join_now(&self, room: &RoomId) -> Result<Position> {
        self.check_open("join")?;
        let mut rooms = self.rooms.write();
        let room = rooms.entry(room.clone()).or_insert_with(|| {
            let epoch = self.next_epoch.fetch_add(1, Relaxed);
            let position = Position { epoch, offset: 0 };
            Arc::new(Mutex::new(Room { position, seen: DedupWindow::new(REMEMBERED_IDS), batch: Vec::new() }))
        });
        Ok(room.lock().position)
    }
}

impl Backplane for Memory {
    fn guarantees(&self) -> Guarantees {
        GUARANTEES
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        Box::pin(ready(self.publish_now(envelope)))
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        Box::pin(ready(self.join_now(room)))
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        self.rooms.write().remove(room);
        Box::pin(ready(Ok(())))
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.store(true, SeqCst);
        Box::pin(ready(Ok(())))
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("rooms", &self.rooms.read().len()).finish_non_exhaustive()
    }
}
