//! Messages of rooms out of a slice of a partition.
//!
//! When a node comes up, or another one dies, thousands of clients come back at once, and their rooms lie in few partitions.
//! So whoever wants a partition waits until a slice may be read, and all who wait by then share one scan.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::divide::Divide;
pub(crate) use super::divide::Keep;
use super::questions::{Question, Questions, again};
use crate::backplane::{Envelope, MessageId, Position, RoomId};
use crate::clients::kafka::fault::closed;
use crate::clients::kafka::{Cluster, Record, Slice, SliceEnd, SliceSink, Slices};
use crate::envelope::View;
use crate::error::{Error, Result};

/// Bounds of one read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScanLimits {
    /// Records, of all rooms.
    pub(crate) records: i64,
    /// Time, once it is this read's turn.
    pub(crate) time: Duration,
}

/// What to read of one room: its messages in `from..to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) room: RoomId,
    pub(crate) partition: i32,
    /// Where to begin looking, at most `from`: a message that lies there already is not found again behind it.
    pub(crate) look: i64,
    pub(crate) from: i64,
    pub(crate) to: i64,
    pub(crate) keep: Keep,
}

/// A message and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) offset: i64,
    /// When the broker appended it, ms since the Unix epoch.
    pub(crate) appended_ms: i64,
    /// The position that its publisher gave it, if any.
    #[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
    pub(crate) position: Option<Position>,
    pub(crate) envelope: Envelope,
}

/// What was found. Complete, unless there were `more`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// In their order; each message once.
    pub(crate) messages: VecDeque<Located>,
    /// There were more than were to be kept.
    pub(crate) more: bool,
    /// Ids of all messages of the room in `look..to`.
    pub(crate) ids: HashSet<MessageId>,
    /// Of those in `look..from`, and when the broker appended each, ms since the Unix epoch.
    #[cfg_attr(not(feature = "kafka-broadcast"), allow(dead_code))]
    pub(crate) before: Vec<(MessageId, i64)>,
    /// Where a position divides what is kept: what was seen of it.
    pub(crate) divide: Divide,
}

/// What a partition holds: offsets `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) start: i64,
    pub(crate) end: i64,
}

/// The log of one topic.
#[derive(Debug)]
pub(crate) struct Log {
    questions: Arc<Questions>,
    topic: String,
    slices: Slices,
    limits: ScanLimits,
    /// By partition, those who wait for the next scan.
    waiting: Mutex<HashMap<i32, Vec<Request>>>,
}

impl Log {
    pub(crate) fn new(cluster: Cluster, topic: String, limits: ScanLimits) -> Self {
        let slices = Slices::new(cluster.connection().clone());
        let questions = Arc::new(Questions::new(cluster, topic.clone()));
        Self { questions, topic, slices, limits, waiting: Mutex::default() }
    }

    pub(crate) fn limits(&self) -> ScanLimits {
        self.limits
    }

    /// Where the partition ends now: whatever was delivered or acknowledged before this call lies before.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn end(&self, partition: i32) -> Result<i64> {
        self.questions.ask(Question::End(partition)).await
    }

    /// What the partition holds now.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn bounds(&self, partition: i32) -> Result<Bounds> {
        let start = self.questions.ask(Question::Start(partition)).await?;
        Ok(Bounds { start, end: self.end(partition).await? })
    }

    /// The first record of a partition that was not appended before a time (ms since the Unix epoch), or its end.
    ///
    /// # Errors
    /// When the broker does not answer.
    pub(crate) async fn at_time(&self, partition: i32, time_ms: i64) -> Result<i64> {
        self.questions.ask(Question::AtTime(partition, time_ms)).await
    }

    /// Whether all times in the log are of one broker's clock, as the cluster is now.
    ///
    /// # Errors
    /// When the broker does not answer.
    #[cfg_attr(not(feature = "kafka-broadcast"), allow(dead_code))]
    pub(crate) async fn is_of_one_clock(&self) -> Result<bool> {
        Ok(self.questions.ask(Question::OneBroker).await? == 1)
    }

    /// Reads what is wanted; `None` if that is more than a read may scan, takes longer than it may, or is no longer in the log.
    ///
    /// # Errors
    /// When the broker does not answer or refuses.
    pub(crate) async fn read(self: &Arc<Self>, wanted: Wanted) -> Result<Option<Found>> {
        if wanted.look >= wanted.to {
            return Ok(Some(Found::default()));
        }
        if wanted.to - wanted.look > self.limits.records {
            return Ok(None);
        }
        let (answer, waiting) = oneshot::channel();
        let partition = wanted.partition;
        let is_first = {
            let mut queues = self.waiting.lock();
            let queue = queues.entry(partition).or_default();
            queue.push(Request { wanted, found: Found::default(), answer });
            queue.len() == 1
        };
        if is_first {
            tokio::spawn(Arc::clone(self).scan(partition));
        }
        waiting.await.unwrap_or_else(|_| Err(closed("history")))
    }

    /// Reads once for all who wait for this partition when it is their turn.
    async fn scan(self: Arc<Self>, partition: i32) {
        let turn = self.slices.turn().await;
        let requests = self.waiting.lock().remove(&partition).unwrap_or_default();
        let turn = match turn {
            Ok(turn) => turn,
            Err(error) => return refuse(requests, &error),
        };
        let from = requests.iter().map(|request| request.wanted.look).min();
        let to = requests.iter().map(|request| request.wanted.to).max();
        let (Some(from), Some(to)) = (from, to) else { return };
        let slice = Slice { topic: self.topic.clone(), partition, from, to, time_max: self.limits.time };
        match turn.read(slice, Scan::new(requests)).await {
            Ok((Ok(end), scan)) => scan.answer(end),
            Ok((Err(error), scan)) => refuse(scan.requests, &error),
            // The runtime is shutting down: those who wait see their channels close.
            Err(error) => tracing::debug!(%error, partition, "history could not be read"),
        }
    }

    /// Ends what waits for work.
    pub(crate) async fn close(&self) {
        self.questions.close();
        self.slices.close().await;
    }
}

fn refuse(requests: Vec<Request>, error: &Error) {
    for request in requests {
        // Whoever waits no longer needs no answer.
        let _ = request.answer.send(Err(again(error)));
    }
}

/// One who waits.
#[derive(Debug)]
struct Request {
    wanted: Wanted,
    found: Found,
    answer: oneshot::Sender<Result<Option<Found>>>,
}

impl Request {
    /// Takes a message of the room.
    fn take(&mut self, message: &Located) {
        let Wanted { look, from, to, keep, .. } = self.wanted;
        if !(look..to).contains(&message.offset) {
            return;
        }
        let (found, place) = (&mut self.found, keep.place());
        if place.is_some() && message.position == place {
            found.divide.anchor_ms.get_or_insert(message.appended_ms);
        }
        if !found.ids.insert(message.envelope.id) {
            return;
        }
        if message.offset < from {
            return found.before.push((message.envelope.id, message.appended_ms));
        }
        if place.is_some_and(|place| !found.divide.keeps(keep, place, message)) {
            return;
        }
        let full = found.messages.len() >= keep.most();
        found.more |= full;
        if !full || keep.is_last() {
            found.messages.push_back(message.clone());
        }
        if full && keep.is_last() {
            found.messages.pop_front();
        }
    }

    /// Whether nothing that lies at `next` or beyond changes the answer.
    fn is_served(&self, next: i64) -> bool {
        next >= self.wanted.to || (self.found.more && !self.wanted.keep.is_last())
    }
}

/// A scan for several.
struct Scan {
    by_room: HashMap<RoomId, Vec<usize>>,
    requests: Vec<Request>,
    /// The offset after the last record.
    next: i64,
    /// Records so far.
    records: u64,
}

/// How often a scan looks whether everybody is served, in records.
const LOOK_EVERY: u64 = 256;

impl Scan {
    fn new(requests: Vec<Request>) -> Self {
        let mut by_room: HashMap<RoomId, Vec<usize>> = HashMap::new();
        for (index, request) in requests.iter().enumerate() {
            by_room.entry(request.wanted.room.clone()).or_default().push(index);
        }
        Self { by_room, requests, next: i64::MIN, records: 0 }
    }

    fn answer(self, end: SliceEnd) {
        for request in self.requests {
            let served = end == SliceEnd::Whole || request.is_served(self.next);
            // Whoever waits no longer needs no answer.
            let _ = request.answer.send(Ok(served.then_some(request.found)));
        }
    }
}

impl SliceSink for Scan {
    fn record(&mut self, record: &Record<'_>) -> ControlFlow<()> {
        self.next = record.offset + 1;
        // What cannot be read was not delivered either, and counted then.
        if let Ok(view) = View::parse(record.payload)
            && let Some((room, indices)) = self.by_room.get_key_value(view.room)
        {
            // Copied once, and shared by all who want it.
            let mut envelope = view.to_envelope();
            envelope.room = room.clone();
            let (offset, appended_ms) = (record.offset, record.timestamp_ms.unwrap_or(0));
            let message = Located { offset, appended_ms, position: view.position, envelope };
            indices.iter().for_each(|&index| self.requests[index].take(&message));
        }
        self.records += 1;
        let next = self.next;
        if self.records.is_multiple_of(LOOK_EVERY)
            && self.requests.iter().all(|request| request.is_served(next))
        {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn request(look: i64, from: i64, to: i64, keep: Keep) -> Request {
        let wanted = Wanted { room: RoomId::new("r"), partition: 0, look, from, to, keep };
        Request { wanted, found: Found::default(), answer: oneshot::channel().0 }
    }

    fn offsets(request: &Request) -> Vec<i64> {
        request.found.messages.iter().map(|message| message.offset).collect()
    }

    /// Feeds records `0..` whose messages have these ids, all of one room but where the id is 0.
    fn scan(requests: Vec<Request>, ids: &[u128]) -> Scan {
        let mut scan = Scan::new(requests);
        for (offset, &id) in (0_i64..).zip(ids) {
            let envelope = Envelope {
                room: RoomId::new(if id == 0 { "another" } else { "r" }),
                id: MessageId(id),
                published_at_us: 0,
                info: Bytes::new(),
                payload: Bytes::from_static(b"x"),
            };
            let mut payload = Vec::new();
            crate::envelope::encode(&envelope, None, &mut payload);
            let record =
                Record { topic: "t", partition: 0, offset, timestamp_ms: Some(7), payload: &payload };
            assert!(scan.record(&record).is_continue());
        }
        scan
    }

    #[test]
    fn a_room_is_read_out_of_others_and_each_message_once() {
        let requests = vec![
            request(0, 2, 8, Keep::First(9)),
            request(2, 2, 8, Keep::First(2)),
            request(0, 0, 7, Keep::Last(2)),
        ];
        //                       0  1  2  3  4  5  6  7
        let scan = scan(requests, &[1, 2, 0, 3, 1, 4, 3, 5]);
        assert_eq!(offsets(&scan.requests[0]), [3, 5, 7], "1 lies before, 3 comes twice");
        assert!(!scan.requests[0].found.more);
        assert_eq!((offsets(&scan.requests[1]), scan.requests[1].found.more), (vec![3, 4], true));
        assert_eq!((offsets(&scan.requests[2]), scan.requests[2].found.more), (vec![3, 5], true));
        assert_eq!(scan.requests[0].found.ids.len(), 5);
        assert_eq!(scan.requests[0].found.before, [(MessageId(1), 7), (MessageId(2), 7)]);
    }

    #[test]
    fn a_position_divides_what_was_before_from_what_came_behind() {
        let place = Position { epoch: 7, offset: 2 };
        let (mut behind, mut before) =
            (request(0, 0, 9, Keep::Behind(place, 9)), request(0, 0, 9, Keep::Before(place, 2)));
        let records = [(6, 5), (7, 1), (0, 0), (7, 3), (7, 2), (0, 0), (7, 4), (8, 1)];
        for (offset, (epoch, at)) in (0_i64..).zip(records) {
            let position = (at > 0).then_some(Position { epoch, offset: at });
            let envelope = Envelope {
                room: RoomId::new("r"),
                id: MessageId(offset as u128 + 1),
                published_at_us: 0,
                info: Bytes::new(),
                payload: Bytes::new(),
            };
            let message = Located { offset, appended_ms: offset, position, envelope };
            behind.take(&message);
            before.take(&message);
        }
        assert_eq!(offsets(&behind), [3, 5, 6, 7]);
        assert_eq!(offsets(&before), [1, 2], "the last two");
        let divide = Divide { anchor_ms: Some(4), passed: true, unsure_ms: Some(2), other_ms: Some(0) };
        assert_eq!(behind.found.divide, divide);
    }

    #[test]
    fn who_has_enough_is_served_by_half_a_scan() {
        let ids: Vec<u128> = (1..=3).collect();
        let scan = scan(vec![request(0, 0, 9, Keep::First(2)), request(0, 0, 9, Keep::First(5))], &ids);
        assert!(scan.requests[0].is_served(scan.next));
        assert!(!scan.requests[1].is_served(scan.next));
        assert!(scan.requests[1].is_served(9));
    }
}
