//! What those who come back have missed. Many come back to one room at once, when a node or a network goes: whoever asks the same
//! while the question waits gets the same answer, reads are limited in number, and the reply is encoded once.
//!
//! Only a read that has *not begun* is shared: an answer holds what came before the question, and live messages are held back for
//! each of those who share it from before that.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use manifold_protocol::{Reply, ReplyBody, SubscribeResult, json};
use manifold_strategies::{BoxFuture, Error, Position, Resumed, RoomId};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Since, late, publications, top};
use crate::epoch;
use crate::frame;
use crate::hub::{Answer, Numbering};
use crate::node::Node;

/// Reads for those who come back that are under way at once, on one node. Each may hold as much as history answers at most.
const READS_AT_ONCE: usize = 16;

/// What somebody who comes back has missed.
#[derive(Debug)]
pub(crate) struct Missed {
    /// Where it stood.
    since: Position,
    /// What came after that.
    pub(crate) answer: Answer,
    /// The reply without its id, made when it is needed.
    reply: OnceLock<Option<Box<[u8]>>>,
}

/// What everybody who asked gets.
type Outcome = Result<Arc<Missed>, Arc<Error>>;
type Read = BoxFuture<'static, Outcome>;
type Question = (RoomId, Since);

/// The reads of a node for those who come back.
#[derive(Debug)]
pub(crate) struct Reads {
    places: Semaphore,
    /// Reads that have not begun.
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Weak: a read that nobody waits for any more is never made.
    reads: HashMap<Question, (u64, WeakShared<Read>)>,
    /// Numbers the reads.
    last: u64,
}

/// A read's place among those that have not begun. Given up when the read begins, or will never. Not to be dropped by who holds the
/// list.
struct Place {
    node: Arc<Node>,
    question: Question,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.node.reads().waiting.lock();
        // Another read may wait in this one's place.
        if waiting.reads.get(&self.question).is_some_and(|(number, _)| *number == self.number) {
            waiting.reads.remove(&self.question);
        }
    }
}

impl Default for Reads {
    fn default() -> Self {
        Self { places: Semaphore::new(READS_AT_ONCE), waiting: Mutex::default() }
    }
}

impl Reads {
    /// The read that answers a question that is asked now.
    fn read(node: &Arc<Node>, question: Question) -> Shared<Read> {
        let mut waiting = node.reads().waiting.lock();
        if let Some(read) = waiting.reads.get(&question).and_then(|(_, read)| read.upgrade()) {
            return read;
        }
        waiting.last += 1;
        let number = waiting.last;
        let place = Place { node: Arc::clone(node), question: question.clone(), number };
        let read = begin(place).boxed().shared();
        let weak = read.downgrade().expect("it was not polled yet");
        waiting.reads.insert(question, (number, weak));
        read
    }
}

/// Reads once there is a place. From the moment that it begins nobody shares it any more.
async fn begin(place: Place) -> Outcome {
    let node = Arc::clone(&place.node);
    let permit = node.reads().places.acquire().await.expect("it is never closed");
    let (room, since) = place.question.clone();
    drop(place);
    let missed = read_after(&node, &room, &since).await;
    drop(permit);
    missed.map(Arc::new).map_err(Arc::new)
}

/// Reads what somebody who comes back to a room has missed. Live messages must be held back for it already.
///
/// # Errors
/// The backplane fails, or takes too long.
pub(crate) async fn read_missed(node: &Arc<Node>, room: &RoomId, since: &Since) -> Outcome {
    let patience = Duration::from_millis(node.config().recovery_timeout_ms);
    let read = Reads::read(node, (room.clone(), since.clone()));
    let missed = tokio::time::timeout(patience, read).await;
    missed.unwrap_or_else(|_elapsed| Err(Arc::new(late("resume"))))
}

async fn read_after(node: &Node, room: &RoomId, since: &Since) -> Result<Missed, Error> {
    node.metrics().count_recovery_read();
    let Some(history) = node.backplane().history() else {
        return Ok(Missed::unknown(Position::default()));
    };
    let Some(position) = since.position(history, room).await? else {
        return Ok(Missed::unknown(top(history, room).await?));
    };
    if since.was_interrupted() {
        return Ok(Missed::unknown(top(history, room).await?));
    }
    let limit = node.config().recovery_messages_max as usize;
    let dense = node.hub().numbering() == Numbering::Dense;
    let resumed = match history.resume(room, position, limit).await? {
        // Who is ahead of the room has a position that will be given out again.
        Resumed::Complete { top, .. }
            if dense && top.epoch == position.epoch && top.offset < position.offset =>
        {
            Resumed::Incomplete { top }
        }
        Resumed::Complete { messages, top } if messages.len() > limit => Resumed::Incomplete { top },
        resumed => resumed,
    };
    Ok(Missed::new(position, resumed))
}

impl Missed {
    fn new(since: Position, resumed: Resumed) -> Self {
        Self { since, answer: Answer::new(resumed), reply: OnceLock::new() }
    }

    /// Nobody knows what came after a position that was never given out.
    fn unknown(top: Position) -> Self {
        Self::new(Position::default(), Resumed::Incomplete { top })
    }

    /// Messages that were missed, as far as that is known.
    pub(crate) fn len(&self) -> usize {
        match self.answer.resumed() {
            Resumed::Complete { messages, .. } => messages.len(),
            Resumed::Incomplete { .. } => 0,
        }
    }

    /// Whether nothing is missing.
    pub(crate) fn is_complete(&self) -> bool {
        matches!(self.answer.resumed(), Resumed::Complete { .. })
    }

    /// Whether all of it is what this server writes.
    pub(crate) fn is_readable(&self) -> bool {
        self.reply.get_or_init(|| self.encode()).is_some()
    }

    /// The frame of the reply to a client that missed nothing else. `None`: something is missing, or a message is not what this
    /// server writes.
    pub(crate) fn reply(&self, id: u32) -> Option<Vec<u8>> {
        let rest = self.reply.get_or_init(|| self.encode()).as_deref()?;
        Some(frame::text(|out| {
            out.extend_from_slice(b"{\"id\":");
            json::append_u64(out, id.into());
            out.push(b',');
            out.extend_from_slice(rest);
        }))
    }

    /// The reply, from its second member on.
    fn encode(&self) -> Option<Box<[u8]>> {
        let Resumed::Complete { messages, top } = self.answer.resumed() else { return None };
        let same = self.since.epoch == top.epoch;
        let mut publications = publications(messages, same.then_some(top.epoch))?;
        let (epoch, offset) = match publications.last_mut() {
            _ if same => (epoch::encode(top.epoch), self.since.offset),
            // In another numbering the client goes on from the room's position; offsets of the one it knows would lead it astray.
            Some(last) => {
                last.offset = if top.offset > 0 { top.offset } else { epoch::OFFSET_AT_ZERO };
                (epoch::encode_handed_over(top.epoch), 0)
            }
            None => (epoch::encode(top.epoch), top.offset),
        };
        let result = SubscribeResult {
            recoverable: true,
            positioned: true,
            epoch: epoch.into(),
            offset,
            publications,
            recovered: true,
            was_recovering: true,
            ..SubscribeResult::default()
        };
        let mut text = Vec::new();
        // Without an id, which would come first.
        json::append_reply(&mut text, &Reply { id: 0, body: ReplyBody::Subscribe(result) });
        text.get(1..).map(Box::from)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use manifold_strategies::{Envelope, Message, MessageId};

    use super::*;

    #[test]
    fn replies_to_many_differ_in_their_ids_alone() {
        let envelope = Envelope {
            room: RoomId::new("a"),
            id: MessageId(1),
            published_at_us: 0,
            info: Bytes::new(),
            payload: Bytes::from_static(b"[1e400]"),
        };
        let top = Position { epoch: 77, offset: 3 };
        let messages = vec![Message { envelope, position: top }];
        let missed = Missed::new(Position { offset: 2, ..top }, Resumed::Complete { messages, top });
        for id in [1, 4_000_000_000] {
            let frame = missed.reply(id).expect("nothing is missing");
            let text = std::str::from_utf8(&frame[4..]).expect("text");
            let expected = format!(
                "{{\"id\":{id},\"subscribe\":{{\"recoverable\":true,\"epoch\":\"25\",\"publications\":\
                 [{{\"data\":[1e400],\"offset\":3}}],\"recovered\":true,\"offset\":2,\"positioned\":true,\
                 \"was_recovering\":true}}}}"
            );
            assert_eq!(text, expected);
        }
        assert!(Missed::unknown(top).reply(1).is_none());
    }
}
