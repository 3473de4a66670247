//! From the records of this node's partitions to the node's entrance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::Notify;

use super::copies::Copies;
use super::places::Places;
use super::rooms::Rooms;
use crate::backplane::{Entrance, Envelope, Event, Message, Position, RoomId};
use crate::clients::kafka::{Link, Record, RecordSink};
use crate::dedup::DedupWindow;
use crate::envelope;
use crate::stats::Stats;

/// Decodes, skips rooms that nobody here is in, removes duplicates, delivers in batches.
pub(super) struct Reader {
    pub(super) entrance: Arc<dyn Entrance>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) stats: Arc<Stats>,
    /// `None` where duplicates are wanted, to be seen.
    pub(super) seen: Option<DedupWindow>,
    pub(super) standstill: Arc<Standstill>,
    pub(super) places: Arc<Places>,
    pub(super) copies: Arc<Copies>,
    /// Messages have positions.
    pub(super) positions: bool,
    /// When the batch at hand began.
    pub(super) now: Option<Instant>,
    pub(super) batch: Vec<Event>,
    /// Places reached by the batch at hand, per partition.
    pub(super) reached: Vec<(i32, i64)>,
}

/// Raised when the log no longer holds what the reader wants to read next.
#[derive(Debug, Default)]
pub(super) struct Standstill {
    raised: AtomicBool,
    changed: Notify,
}

impl Standstill {
    pub(super) fn raise(&self) {
        self.raised.store(true, Relaxed);
        self.changed.notify_one();
    }

    /// Resolves when it is raised. May resolve once too often.
    pub(super) async fn raised(&self) {
        self.changed.notified().await;
    }

    /// Whether it was raised since the last call.
    pub(super) fn take(&self) -> bool {
        self.raised.swap(false, Relaxed)
    }
}

impl Reader {
    /// The message in a record, if it is wanted here and new. Others are kept only.
    fn wanted(&mut self, record: &Record<'_>) -> Option<Message> {
        self.stats.envelopes_received.add(1);
        let view = match envelope::View::parse(record.payload) {
            Ok(view) => view,
            Err(error) => {
                self.stats.corrupt.add(1);
                tracing::warn!(partition = record.partition, offset = record.offset, %error, "record skipped");
                return None;
            }
        };
        let room = self.rooms.read().get(view.room).cloned();
        let (wanted, kept) = (room.is_some(), self.copies.rings.is_some());
        if !wanted && !kept {
            return None;
        }
        self.stats.envelopes_wanted.add(u64::from(wanted));
        if let Some(seen) = &mut self.seen
            && !seen.insert(view.id)
        {
            self.stats.duplicates_removed.add(u64::from(wanted));
            return None;
        }
        self.stats
            .gap_messages_repaired
            .add(u64::from(wanted && self.places.had_missed(record.timestamp_ms)));
        let room = room.unwrap_or_else(|| RoomId::new(view.room));
        // One allocation for info and payload together; the room's name is shared with the set.
        let mut bytes = Vec::with_capacity(view.info.len() + view.payload.len());
        bytes.extend_from_slice(view.info);
        bytes.extend_from_slice(view.payload);
        let mut info = Bytes::from(bytes);
        let payload = info.split_off(view.info.len());
        let envelope = Envelope { room, id: view.id, published_at_us: view.published_at_us, info, payload };
        let position = match self.positions {
            true => self.places.position(record.partition, record.offset),
            false => Position::default(),
        };
        let message = Message { envelope, position };
        if let Some(rings) = &self.copies.rings {
            // Before it is delivered, so that the rings never have less than members saw.
            rings.lock().push(&message, *self.now.get_or_insert_with(Instant::now));
        }
        wanted.then_some(message)
    }

    /// Declares a loss in every room that is wanted here: everything that came before may have had holes. Done by this thread,
    /// because a gap has its place among the messages of a room.
    fn declare_loss(&mut self, record: &Record<'_>) {
        self.batch.push(Event::Reconnected);
        if !self.positions {
            return;
        }
        let to = self.places.position(record.partition, record.offset).offset;
        let rooms: Vec<RoomId> = self.rooms.read().iter().cloned().collect();
        self.batch.extend(rooms.into_iter().map(|room| Event::Gap { room, from: 1, to }));
    }
}

impl RecordSink for Reader {
    fn record(&mut self, record: &Record<'_>) {
        if self.places.beyond(record.partition, record.offset) {
            return;
        }
        match self.reached.iter_mut().find(|(partition, _)| *partition == record.partition) {
            Some((_, next)) => *next = record.offset + 1,
            None => self.reached.push((record.partition, record.offset + 1)),
        }
        if self.places.take_loss() {
            self.declare_loss(record);
        }
        // An empty record is a node's own, to see whether it reads.
        if record.payload.is_empty() {
            return;
        }
        if let Some(message) = self.wanted(record) {
            self.batch.push(Event::Message(message));
        }
    }

    fn batch_end(&mut self) {
        if !self.batch.is_empty() {
            self.entrance.deliver(&mut self.batch);
        }
        self.now = None;
        for (partition, next) in self.reached.drain(..) {
            self.places.pass(partition, next);
        }
    }

    fn link(&mut self, change: Link) {
        match change {
            Link::Broken => self.stats.links_down.add(1),
            Link::Restored => {
                self.stats.links_down.add(-1);
                self.stats.reconnects.add(1);
                self.batch.push(Event::Reconnected);
                self.batch_end();
            }
            Link::OutOfRange => self.standstill.raise(),
        }
    }

    fn lag(&mut self, messages: i64) {
        self.stats.lag_messages.set(messages);
    }
}
