//! History of rooms: out of this node's memory, else out of the room's partition in the log.
//!
//! # Why nothing is missing and nothing comes twice
//! First the broker is asked where the partition ends: whatever was delivered or acknowledged before the call lies before that.
//! Then this node's reader must have come that far too, so that no message of the answer is still on its way to the entrance.
//! What a publisher's retry wrote a second time is dropped by its id, also when the first copy lies a little before the place
//! from which is read.
//!
//! # When an answer is incomplete
//! The position is of another incarnation of the topic or lies beyond the log's end, the log no longer holds the next record,
//! there are more messages than asked for, or more records than one read may scan.

use std::sync::Arc;
use std::time::Instant;

use super::keeper::Keeper;
use super::rooms::Rooms;
use crate::backplane::{BoxFuture, History, Message, Page, PageQuery, Position, Resumed, RoomId};
use crate::clients::kafka::Incarnations;
use crate::clients::kafka::fault::timed_out;
use crate::error::Result;
use crate::kafka_history::log::{Bounds, Found, Located, Log};
use crate::kafka_history::page::Place;

/// The history of a node's rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct RoomHistory {
    rooms: Arc<Rooms>,
    log: Arc<Log>,
    incarnations: Arc<Incarnations>,
    keeper: Keeper,
    /// The node reads every partition, not only those of rooms that it wants.
    follows_all: bool,
}

/// Where a room stands.
struct Standing {
    partition: i32,
    /// The numbering of its messages.
    epoch: u64,
    /// Where its partition ended when this was called.
    end: i64,
    /// How far this node has delivered, if it reads the partition: at least to `end`.
    delivered: Option<i64>,
    /// The numbering is that of the topic as it is now, and its log has not become shorter.
    sound: bool,
}

impl Standing {
    fn top(&self) -> Position {
        self.at(self.end - 1)
    }

    fn at(&self, offset: i64) -> Position {
        Position { epoch: self.epoch, offset: u64::try_from(offset + 1).unwrap_or(0) }
    }

    /// The offset to be read next by who stands at `since`; `None` if that is no place in this log. Who names no
    /// epoch can only stand before the first message: any other place is one in a numbering that nobody knows.
    fn next(&self, since: Position) -> Option<i64> {
        let next = i64::try_from(since.offset).ok()?;
        let is_here = since.epoch == self.epoch || (since.epoch == 0 && since.offset == 0);
        (self.sound && is_here && next <= self.end).then_some(next)
    }
}

impl RoomHistory {
    pub(super) fn new(
        rooms: Arc<Rooms>,
        log: Arc<Log>,
        incarnations: Arc<Incarnations>,
        keeper: Keeper,
        follows_all: bool,
    ) -> Self {
        Self { rooms, log, incarnations, keeper, follows_all }
    }

    async fn standing(&self, room: &RoomId) -> Result<Standing> {
        let partition = self.rooms.partition_of(room);
        let (epoch, mark) = (self.rooms.epoch(partition), self.rooms.mark(partition));
        let follows = self.follows_all || self.rooms.wants(room);
        let before = if follows { self.rooms.delivered(partition) } else { 0 };
        let end = self.log.end(partition).await?;
        let is_same = self.incarnations.now_within(self.log.limits().time).await? == mark;
        if !is_same && self.rooms.mark(partition) == mark {
            // The topic was created anew, and the reader has not come across it.
            self.keeper.repair();
        }
        let sound = is_same && end >= before;
        let mut delivered = None;
        if follows && sound {
            let waited =
                tokio::time::timeout(self.log.limits().time, self.rooms.has_delivered(partition, end));
            waited.await.map_err(|_| {
                timed_out("history", "this node has not read all of the room's partition yet")
            })?;
            delivered = Some(self.rooms.delivered(partition));
        }
        // The keeper may have changed it meanwhile.
        let sound = sound && epoch == self.rooms.epoch(partition);
        Ok(Standing { partition, epoch, end, delivered, sound })
    }

    async fn resumed(self, room: RoomId, since: Position, limit: usize) -> Result<Resumed> {
        let standing = self.standing(&room).await?;
        let top = standing.top();
        let Some(from) = standing.next(since) else { return Ok(Resumed::Incomplete { top }) };
        if let (Some(rings), Some(delivered)) = (&self.rooms.rings, standing.delivered) {
            let since = standing.at(from - 1);
            let held = rings.lock().after(&room, since, standing.at(delivered - 1), limit, Instant::now());
            if let Some(resumed) = held {
                return self.arrived(standing.partition, resumed).await;
            }
        }
        match self.missed(&room, &standing, from, limit).await? {
            Some(found) if !found.more && self.rooms.epoch(standing.partition) == standing.epoch => {
                Ok(Resumed::Complete { messages: messages(found, &standing), top })
            }
            _ => Ok(Resumed::Incomplete { top }),
        }
    }

    /// The same answer, once the entrance has all of it: the rings have a message a little before.
    async fn arrived(&self, partition: i32, resumed: Resumed) -> Result<Resumed> {
        if let Resumed::Complete { messages, .. } = &resumed
            && let Some(last) = messages.last()
        {
            let next = i64::try_from(last.position.offset).unwrap_or(i64::MAX);
            let waited =
                tokio::time::timeout(self.log.limits().time, self.rooms.has_delivered(partition, next));
            waited.await.map_err(|_| timed_out("history", "this node stands still"))?;
        }
        Ok(resumed)
    }

    /// The room's messages from an offset on, if they can be read.
    async fn missed(
        &self,
        room: &RoomId,
        standing: &Standing,
        from: i64,
        limit: usize,
    ) -> Result<Option<Found>> {
        let to = standing.end;
        if from == to {
            return Ok(Some(Found::default()));
        }
        let records_max = self.log.limits().records;
        let Bounds { start, .. } = self.log.bounds(standing.partition).await?;
        if from < start || to - from > records_max {
            return Ok(None);
        }
        let (partition, reach) = (standing.partition, start.max(to - records_max));
        Place { room: room.clone(), partition, reach, end: to }.since(&self.log, from, limit).await
    }

    async fn paged(self, room: RoomId, query: PageQuery) -> Result<Page> {
        let standing = self.standing(&room).await?;
        let top = standing.top();
        let next = query.since.map(|since| standing.next(since));
        let foreign = next.is_some_and(|next| next.is_none());
        if foreign || query.limit == 0 {
            return Ok(Page { messages: Vec::new(), top, foreign });
        }
        if !standing.sound {
            return Err(timed_out(
                "history",
                "the log became shorter, and this node has yet to read it anew",
            ));
        }
        if let (Some(rings), Some(delivered)) = (&self.rooms.rings, standing.delivered) {
            let since = next.flatten().map(|next| standing.at(next - 1));
            let query = PageQuery { since, ..query };
            let held = rings.lock().page(&room, query, standing.at(delivered - 1), Instant::now());
            if held.whole {
                return Ok(held.page);
            }
        }
        let Bounds { start, .. } = self.log.bounds(standing.partition).await?;
        let reach = start.max(standing.end - self.log.limits().records);
        let place = Place { room, partition: standing.partition, reach, end: standing.end };
        let found = match query.reverse {
            true => place.newest(&self.log, next.flatten(), query.limit).await?,
            false => place.oldest(&self.log, next.flatten(), query.limit).await?,
        };
        let mut messages = messages(found, &standing);
        if query.reverse {
            messages.reverse();
        }
        Ok(Page { messages, top, foreign: false })
    }
}

fn messages(found: Found, standing: &Standing) -> Vec<Message> {
    let message =
        |located: Located| Message { position: standing.at(located.offset), envelope: located.envelope };
    found.messages.into_iter().map(message).collect()
}

impl History for RoomHistory {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        Box::pin(self.clone().resumed(room.clone(), since, limit))
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        Box::pin(self.clone().paged(room.clone(), query))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_of_this_log_or_none() {
        let mut standing = Standing { partition: 3, epoch: 7, end: 10, delivered: None, sound: true };
        let next = |standing: &Standing, epoch, offset| standing.next(Position { epoch, offset });
        assert_eq!(standing.top(), Position { epoch: 7, offset: 10 });
        assert_eq!(next(&standing, 7, 4), Some(4));
        assert_eq!(next(&standing, 0, 0), Some(0));
        assert_eq!(next(&standing, 0, 10), None, "of which numbering?");
        assert_eq!(next(&standing, 7, 11), None, "beyond the end");
        assert_eq!(next(&standing, 8, 4), None, "another incarnation");
        standing.sound = false;
        assert_eq!(next(&standing, 7, 4), None);
    }
}
