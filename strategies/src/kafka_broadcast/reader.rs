//! From the records of this node's partitions to the node's entrance.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use tokio::sync::Notify;

use super::places::Places;
use super::rooms::Rooms;
use crate::backplane::{Entrance, Envelope, Event, Message, Position};
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
    /// The message in a record, if it is wanted here and new.
    fn wanted(&mut self, record: &Record<'_>) -> Option<Envelope> {
        self.stats.envelopes_received.add(1);
        let view = match envelope::View::parse(record.payload) {
            Ok(view) => view,
            Err(error) => {
                self.stats.corrupt.add(1);
                tracing::warn!(partition = record.partition, offset = record.offset, %error, "record skipped");
                return None;
            }
        };
        let room = self.rooms.read().get(view.room)?.clone();
        self.stats.envelopes_wanted.add(1);
        if let Some(seen) = &mut self.seen
            && !seen.insert(view.id)
        {
            self.stats.duplicates_removed.add(1);
            return None;
        }
        // One allocation for info and payload together; the room's name is shared with the set.
        let mut bytes = Vec::with_capacity(view.info.len() + view.payload.len());
        bytes.extend_from_slice(view.info);
        bytes.extend_from_slice(view.payload);
        let mut info = Bytes::from(bytes);
        let payload = info.split_off(view.info.len());
        Some(Envelope { room, id: view.id, published_at_us: view.published_at_us, info, payload })
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
        // An empty record is a node's own, to see whether it reads.
        if record.payload.is_empty() {
            return;
        }
        if let Some(envelope) = self.wanted(record) {
            self.batch.push(Event::Message(Message { envelope, position: Position::default() }));
        }
    }

    fn batch_end(&mut self) {
        if !self.batch.is_empty() {
            self.entrance.deliver(&mut self.batch);
        }
        for (partition, next) in self.reached.drain(..) {
            self.places.pass(partition, next);
        }
    }

    fn link(&mut self, change: Link) {
        match change {
            Link::Broken => {}
            Link::Restored => {
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
