//! What happens to a record on its way from the consumer to the node's entrance. Runs on the consumer's thread.

use std::sync::Arc;
use std::time::Instant;

use super::bell::Heard;
use super::keeper::Keeper;
use super::rooms::{Rooms, Verdict};
use crate::backplane::{Entrance, Envelope, Event, Message, RoomId};
use crate::clients::kafka::{Link, Record, RecordSink};
use crate::dedup::DedupWindow;
use crate::envelope::View;
use crate::hash::HashMap;
use bytes::Bytes;

/// Decodes, filters and delivers.
pub(super) struct Reader {
    topic: String,
    heard: Heard,
    rooms: Arc<Rooms>,
    entrance: Arc<dyn Entrance>,
    keeper: Keeper,
    seen: DedupWindow,
    batch: Vec<Event>,
    /// How far the batch at hand goes, by partition.
    reached: Vec<(i32, i64)>,
    /// When the batch at hand began.
    now: Option<Instant>,
    /// By partition: which of its numberings was declared last. Empty as long as no log began anew.
    numberings: HashMap<i32, u64>,
}

impl Reader {
    pub(super) fn new(
        topic: String,
        heard: Heard,
        rooms: Arc<Rooms>,
        entrance: Arc<dyn Entrance>,
        keeper: Keeper,
        dedup_messages: usize,
    ) -> Self {
        Self {
            topic,
            heard,
            rooms,
            entrance,
            keeper,
            seen: DedupWindow::new(dedup_messages),
            batch: Vec::new(),
            reached: Vec::new(),
            now: None,
            numberings: HashMap::default(),
        }
    }

    /// A record of the rooms' topic, in place.
    fn message(&mut self, record: &Record<'_>) {
        let view = match View::parse(record.payload) {
            Ok(view) => view,
            Err(error) => {
                self.rooms.stats.corrupt.add(1);
                tracing::warn!(%error, partition = record.partition, offset = record.offset, "skipping a record");
                // Its offset counts as read all the same.
                let note = |_: &HashMap<RoomId, i32>, verdict: Verdict| verdict;
                if self.rooms.note(record.partition, record.offset, record.timestamp_ms, note)
                    != Verdict::Stale
                {
                    self.reach(record.partition, record.offset);
                }
                return;
            }
        };
        let rooms = Arc::clone(&self.rooms);
        let (verdict, found, position) =
            rooms.note(record.partition, record.offset, record.timestamp_ms, |wanted, verdict| {
                let found = wanted.get_key_value(view.room).map(|(room, lies_in)| (room.clone(), *lies_in));
                // The numbering cannot change in between.
                (verdict, found, rooms.position(record.partition, record.offset))
            });
        match verdict {
            Verdict::Stale => return,
            Verdict::Next => self.declare_numbering(record.partition, record.offset),
            Verdict::After(expected) => self.gap(record.partition, expected, record.offset),
        }
        self.reach(record.partition, record.offset);
        rooms.stats.envelopes_received.add(1);
        let wanted = found.is_some();
        if found.as_ref().is_some_and(|(_, lies_in)| *lies_in != record.partition) {
            tracing::error!(
                room = view.room,
                "a node with other `partitions` or `overrides` published this room: its order is lost"
            );
        }
        if !wanted && rooms.rings.is_none() {
            return;
        }
        if !self.seen.insert(view.id) {
            rooms.stats.duplicates_removed.add(u64::from(wanted));
            return;
        }
        let (info, payload) = copy(view.info, view.payload);
        let room = found.map_or_else(|| RoomId::new(view.room), |(room, _)| room);
        let envelope = Envelope { room, id: view.id, published_at_us: view.published_at_us, info, payload };
        let message = Message { envelope, position };
        if rooms.rings.is_some() {
            // Before it is delivered, so that the rings never have less than members saw.
            rooms.keep(&message, *self.now.get_or_insert_with(Instant::now));
        }
        if wanted {
            rooms.stats.envelopes_wanted.add(1);
            self.batch.push(Event::Message(message));
        }
    }

    /// The batch at hand goes as far as this record.
    fn reach(&mut self, partition: i32, offset: i64) {
        match self.reached.iter_mut().find(|(of, _)| *of == partition) {
            Some((_, next)) => *next = offset + 1,
            None => self.reached.push((partition, offset + 1)),
        }
    }

    /// The first record after the log began anew: how much of it was lost before cannot be known.
    fn declare_numbering(&mut self, partition: i32, offset: i64) {
        let restarts = self.rooms.restarts(partition);
        if restarts == 0 || self.numberings.insert(partition, restarts) == Some(restarts) {
            return;
        }
        let to = self.rooms.position(partition, offset).offset;
        for room in self.rooms.wanted_in(partition) {
            self.rooms.stats.gaps.add(1);
            self.batch.push(Event::Gap { room, from: 1, to });
        }
    }

    /// Records `from..to` of a partition are gone: retention overtook this node, or a broker lost them.
    fn gap(&mut self, partition: i32, from: i64, to: i64) {
        tracing::warn!(partition, from, to, "records were lost before they could be read");
        self.rooms.keeps_from(partition, to);
        self.rooms.stats.gap_messages.add((to - from).unsigned_abs());
        for room in self.rooms.wanted_in(partition) {
            self.rooms.stats.gaps.add(1);
            let (from, to) =
                (self.rooms.position(partition, from).offset, self.rooms.position(partition, to).offset);
            self.batch.push(Event::Gap { room, from, to });
        }
    }
}

/// Copies both out of the fetch buffer, which must not be pinned, in one allocation.
fn copy(info: &[u8], payload: &[u8]) -> (Bytes, Bytes) {
    let mut bytes = Vec::with_capacity(info.len() + payload.len());
    bytes.extend_from_slice(info);
    bytes.extend_from_slice(payload);
    let mut info_bytes = Bytes::from(bytes);
    let payload = info_bytes.split_off(info.len());
    (info_bytes, payload)
}

impl RecordSink for Reader {
    fn record(&mut self, record: &Record<'_>) {
        if record.topic == self.topic {
            self.message(record);
        } else {
            // Only the bell is read beside the rooms, and its records have done their work by arriving.
            self.heard.note(record.partition);
        }
    }

    fn batch_end(&mut self) {
        if !self.batch.is_empty() {
            self.entrance.deliver(&mut self.batch);
            self.batch.clear();
        }
        self.now = None;
        if !self.reached.is_empty() {
            self.rooms.deliver(self.reached.drain(..));
        }
    }

    fn link(&mut self, change: Link) {
        match change {
            Link::Broken => self.rooms.stats.links_down.set(1),
            Link::Restored => {
                self.rooms.stats.links_down.set(0);
                self.rooms.stats.reconnects.add(1);
                self.batch.push(Event::Reconnected);
                self.batch_end();
            }
            Link::OutOfRange => self.keeper.repair(),
        }
    }

    fn lag(&mut self, messages: i64) {
        self.rooms.stats.lag_messages.set(messages);
    }
}
