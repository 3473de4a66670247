//! From an envelope to a record in the room's partition, and back to the publisher.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::oneshot;

use super::partitioner::RoomPartitioner;
use super::rooms::Rooms;
use crate::backplane::{Envelope, Position};
use crate::clients::kafka::fault::{closed, timed_out};
use crate::clients::kafka::{AckSink, Producer, Written};
use crate::envelope;
use crate::error::Result;

/// The node's producer.
pub(super) type Sender = Producer<Ack, RoomPartitioner>;

/// Who waits for a record.
pub(super) enum Ack {
    /// A publisher.
    Publisher(oneshot::Sender<Result<Written>>),
    /// Nobody: the bell.
    Nobody,
}

impl AckSink for Ack {
    fn done(self, outcome: Result<Written>) {
        match self {
            Self::Publisher(waiting) => waiting.done(outcome),
            Self::Nobody => {
                if let Err(error) = outcome {
                    tracing::debug!(%error, "the bell did not ring");
                }
            }
        }
    }
}

thread_local! {
    /// Reused by every publish of a thread: librdkafka copies the record.
    static RECORD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Puts the message into the ordered send queue; its place is fixed when this returns.
pub(super) fn send(
    producer: &Sender,
    rooms: &Rooms,
    topic: &str,
    message: &Envelope,
) -> Result<oneshot::Receiver<Result<Written>>> {
    envelope::check(message)?;
    let (sink, waiting) = oneshot::channel();
    RECORD.with_borrow_mut(|record| {
        record.clear();
        envelope::encode(message, None, record);
        let key = message.room.as_str().as_bytes();
        producer.send(topic, None, Some(key), record, Ack::Publisher(sink)).map_err(|(error, _)| error)
    })?;
    rooms.stats.publishes.add(1);
    rooms.stats.broker_writes.add(1);
    Ok(waiting)
}

/// Waits for the broker's word for so long. The message keeps its place in the send queue, before all that the node is given
/// later.
pub(super) async fn acknowledged_within(
    waiting: oneshot::Receiver<Result<Written>>,
    time_max: Duration,
) -> Result<Written> {
    match tokio::time::timeout(time_max, waiting).await {
        // The producer answers every record, unless it is torn down without a shutdown.
        Ok(answer) => answer.unwrap_or_else(|_| Err(closed("publish"))),
        Err(_) => Err(timed_out("publish", "outcome unknown: retry with the same message id")),
    }
}

/// Where the message stands in its room.
pub(super) fn position(rooms: &Rooms, written: Written) -> Position {
    rooms.position(written.partition, written.offset)
}
