//! What rooms carried: out of this node's memory, else Redis's stream where that can be trusted, else the log. Why the answers
//! are right is told in the strategy's documentation.

mod logged;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::kept::{LAG_MAX, now_us};
use super::order::{Order, Told};
use super::paths::Paths;
use super::settings::Settings;
use crate::backplane::{BoxFuture, History, Message, MessageId, Page, PageQuery, Position, Resumed, RoomId};
use crate::clients::kafka::fault::timed_out;
use crate::error::{Error, Result};
use crate::kafka_history::log::{Keep, Log, Wanted};
use crate::kafka_history::page::Place;
use crate::redis_pubsub::live::{Live, closed};

/// Messages that a page reads beyond its end.
const SLACK: usize = 64;
/// Messages among which the last position is looked for.
const NEWEST_MESSAGES: usize = 100;
/// Pause before it is looked again for records that are on their way into the log.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// The history of a node's rooms. Cheap to clone.
#[derive(Clone)]
pub(super) struct RoomHistory {
    paths: Arc<Paths>,
    live: Arc<Live>,
    log: Arc<Log>,
    /// A record whose position was assigned is appended by then, if ever, and has reached every node.
    margin: Duration,
    heal_timeout: Duration,
    keeps_stream: bool,
    closed: Arc<AtomicBool>,
}

/// What is asked of a room.
struct Asked {
    room: RoomId,
    partition: i32,
    since: Position,
    limit: usize,
    /// Where the partition ended at the call: what was acknowledged before lies before.
    end: i64,
    /// What this node had delivered behind `since` without having read its record; `None` if it does not remember all of that.
    unlogged: Option<Vec<MessageId>>,
    /// Where the room stood then.
    stands: Option<Stands>,
}

/// Where a room stands.
#[derive(Debug, Clone, Copy)]
struct Stands {
    at: Position,
    /// This node delivered everything up to there. Otherwise it is what Redis says, and may have been assigned only.
    delivered: bool,
}

/// What the log tells.
enum Verdict {
    Resumed(Resumed),
    /// Something is on its way into the log.
    NotYet,
    /// It cannot be told.
    Never,
}

impl RoomHistory {
    pub(super) fn new(paths: Arc<Paths>, live: Arc<Live>, settings: &Settings) -> Self {
        let log = Log::new(paths.log.cluster.clone(), paths.log.topic.clone(), settings.scan());
        Self {
            paths,
            live,
            log: Arc::new(log),
            margin: settings.publish_timeout() + LAG_MAX,
            heal_timeout: settings.heal_timeout(),
            keeps_stream: settings.history_messages > 0,
            closed: Arc::default(),
        }
    }

    /// Refuses whoever asks from now on.
    pub(super) fn refuse(&self) {
        self.closed.store(true, SeqCst);
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(SeqCst) { Err(closed("history")) } else { Ok(()) }
    }

    /// Ends what waits for work.
    pub(super) async fn close(&self) {
        self.log.close().await;
    }

    async fn resumed(self, room: RoomId, since: Position, limit: usize) -> Result<Resumed> {
        self.check_open()?;
        let partition = self.paths.log.partition_of(&room);
        let before = self.paths.next_of(partition);
        let end = self.log.end(partition).await?;
        let is_same = self.paths.log.life.is_same().await?;
        if !is_same {
            self.paths.displaced();
        }
        if !is_same || end < before {
            // The topic was created anew or cut short, and nobody knows what went with it.
            return Ok(self.incomplete(&room, None).await);
        }
        self.settled(&room, partition, end).await?;
        if let Some(resumed) = self.paths.recall(|kept, now| kept.after(&room, since, limit, now)) {
            return Ok(resumed);
        }
        let (delivered, unlogged) = (self.paths.stands(&room), self.paths.unlogged(&room, since));
        if let Some(resumed) = self.streamed(&room, partition, since, limit, delivered).await {
            return Ok(resumed);
        }
        let stands = self.stands(&room, delivered).await;
        let asked = Asked { room, partition, since, limit, end, unlogged, stands };
        let (until, mut end) = (Instant::now() + self.heal_timeout, end);
        loop {
            match self.logged(&asked, end).await? {
                Verdict::Resumed(resumed) => {
                    // What the answer has beyond the question arrives here, too: before the answer, while it is held back.
                    if end > asked.end {
                        self.settled(&asked.room, partition, end).await?;
                    }
                    return Ok(resumed);
                }
                Verdict::NotYet if Instant::now() < until => sleep(RETRY_PAUSE).await,
                _ => return Ok(self.incomplete(&asked.room, asked.stands).await),
            }
            end = self.log.end(partition).await?;
        }
    }

    /// Waits until this node has delivered what the room has up to `end`.
    async fn settled(&self, room: &RoomId, partition: i32, end: i64) -> Result<()> {
        if self.paths.settled(room, partition, end, self.log.limits().time).await {
            return Ok(());
        }
        Err(timed_out("resume", "this node has not read all of the room's partition yet"))
    }

    async fn incomplete(&self, room: &RoomId, stands: Option<Stands>) -> Resumed {
        let stands = match stands {
            None => self.stands(room, self.paths.stands(room)).await,
            stands => stands,
        };
        Resumed::Incomplete { top: stands.map_or_else(Position::default, |stands| stands.at) }
    }

    /// Where a room stands; `None` if that is not known now.
    async fn stands(&self, room: &RoomId, delivered: Option<Position>) -> Option<Stands> {
        if let Some(at) = delivered {
            return Some(Stands { at, delivered: true });
        }
        let query = PageQuery { since: None, limit: 0, reverse: false };
        let head = self.live.page(room, query).await.ok()?;
        Some(Stands { at: head.top, delivered: false })
    }

    /// What Redis kept after `since`, if nothing can have gone by the log alone since then.
    async fn streamed(
        &self,
        room: &RoomId,
        partition: i32,
        since: Position,
        limit: usize,
        delivered: Option<Position>,
    ) -> Option<Resumed> {
        let foreign = delivered.is_some_and(|at| at.epoch != since.epoch);
        let partition = partition as usize;
        let settled = |published_us| self.paths.recall(|kept, _| kept.is_settled(partition, published_us));
        if !self.keeps_stream || since.offset == 0 || foreign || !settled(now_us()) {
            return None;
        }
        // With the message that the member saw last, which says when that was.
        let before = Position { offset: since.offset - 1, ..since };
        let read = self.live.resume(room, before, limit.saturating_add(1)).await;
        let Ok(Resumed::Complete { mut messages, top }) = read else { return None };
        let seen = messages.first().filter(|message| message.position == since)?;
        let reaches = delivered.is_none_or(|at| at.offset <= top.offset);
        if !reaches || !settled(seen.envelope.published_at_us) {
            return None;
        }
        messages.remove(0);
        Some(Resumed::Complete { messages, top })
    }

    async fn paged(self, room: RoomId, query: PageQuery) -> Result<Page> {
        self.check_open()?;
        let partition = self.paths.log.partition_of(&room);
        let end = match self.log.end(partition).await {
            Ok(end) => end,
            Err(error) => return self.streamed_page(&room, query, error).await,
        };
        // A room that does not come to rest in time has a page all the same.
        self.paths.settled(&room, partition, end, self.log.limits().time).await;
        if let Some(page) = self.paths.recall(|kept, now| kept.page(&room, query, now)) {
            return Ok(page);
        }
        let top = match self.stands(&room, self.paths.stands(&room)).await {
            Some(stands) => stands.at,
            None => self.logged_top(&room, partition, end).await?,
        };
        let foreign = query.since.is_some_and(|since| top.epoch != 0 && top.epoch != since.epoch);
        if foreign || query.limit == 0 {
            return Ok(Page { messages: Vec::new(), top, foreign });
        }
        let mut messages = match self.logged_page(&room, partition, query, end).await {
            Ok(messages) => messages,
            Err(error) => return self.streamed_page(&room, query, error).await,
        };
        // More may have come since.
        let further = newest(&messages).filter(|at| at.epoch == top.epoch && at.offset > top.offset);
        let top = further.unwrap_or(top);
        if query.reverse {
            messages.reverse();
        }
        messages.truncate(query.limit);
        Ok(Page { messages, top, foreign: false })
    }

    /// The last position of a room that the log tells: without Redis, and without members here, nothing else does.
    async fn logged_top(&self, room: &RoomId, partition: i32, end: i64) -> Result<Position> {
        let query = PageQuery { since: None, limit: NEWEST_MESSAGES, reverse: true };
        Ok(newest(&self.logged_page(room, partition, query, end).await?).unwrap_or_default())
    }

    /// A page out of the log, oldest first.
    async fn logged_page(
        &self,
        room: &RoomId,
        partition: i32,
        query: PageQuery,
        end: i64,
    ) -> Result<Vec<Message>> {
        let start = self.log.bounds(partition).await?.start;
        let reach = start.max(end - self.log.limits().records);
        let place = Place { room: room.clone(), partition, reach, end };
        // Records may lie in another order than their messages: the end of a page is cut off when it is in order.
        let limit = query.limit.saturating_add(SLACK);
        let found = match query.since {
            None if query.reverse => place.newest(&self.log, None, limit).await?,
            None => place.oldest(&self.log, None, limit).await?,
            Some(since) => {
                let keep =
                    if query.reverse { Keep::Before(since, limit) } else { Keep::Behind(since, limit) };
                // What lies before a position may lie before what it is found in.
                let (room_id, look) = (room.clone(), reach);
                let wanted = Wanted { room: room_id, partition, look, from: look, to: end, keep };
                let found = match query.reverse {
                    true => self.log.read(wanted).await?,
                    false => self.search(room, partition, keep, start, end).await?.map(|(found, _)| found),
                };
                found.ok_or_else(|| timed_out("history", "the log could not be read in time"))?
            }
        };
        let since = query.since.filter(|_| !query.reverse);
        Ok(Order::new(since, found.messages).all())
    }

    /// A page of what Redis keeps, where the log cannot be read: it lacks what went by the log alone.
    async fn streamed_page(&self, room: &RoomId, query: PageQuery, error: Error) -> Result<Page> {
        if !self.keeps_stream {
            return Err(error);
        }
        self.live.page(room, query).await.map_err(|_| error)
    }
}

/// The last position among messages that are in their order.
fn newest(messages: &[Message]) -> Option<Position> {
    messages.iter().rev().map(|message| message.position).find(|at| at.offset > 0)
}

impl Asked {
    /// What becomes of what the log has behind `since`. `other`: it may have had another epoch right before.
    fn verdict(&self, order: Order, other: bool) -> Verdict {
        let present = self.stands.map(|stands| stands.at);
        let (starts_anew, known) = match present {
            Some(at) => (at.offset == 0 && !order.knows(at.epoch), order.knows(at.epoch)),
            None if other => return Verdict::Never,
            None => (false, true),
        };
        let Some(Told { messages, top }) = order.up_to_a_hole(self.since, self.end) else {
            return Verdict::NotYet;
        };
        if self.since.offset == 0 && messages.is_empty() && present != Some(self.since) {
            // Whether anything came after, nobody can tell: the epoch has left no record.
            return Verdict::Never;
        }
        let behind = self.stands.is_some_and(|Stands { at, delivered }| {
            at.epoch != top.epoch || (delivered && at.offset > top.offset)
        });
        if messages.len() > self.limit {
            return Verdict::Never;
        }
        match present {
            Some(at) if starts_anew => Verdict::Resumed(Resumed::Complete { messages, top: at }),
            _ if !known || behind => Verdict::NotYet,
            _ => Verdict::Resumed(Resumed::Complete { messages, top }),
        }
    }
}

impl History for RoomHistory {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        Box::pin(self.clone().resumed(room.clone(), since, limit))
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        Box::pin(self.clone().paged(room.clone(), query))
    }
}

impl fmt::Debug for RoomHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomHistory").field("log", &self.log).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
