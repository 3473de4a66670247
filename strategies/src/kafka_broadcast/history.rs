//! History of rooms: out of this node's memory, else out of the copies in the log.
//!
//! A position names a copy and a place in it. Who stands in the copy that this node reads is answered from memory or from that
//! copy; who comes from another node, from several (`cross`). Either way nothing of the answer is on its way to the
//! entrance any more: this node's reader has come to where its copy ended when it was asked.
//!
//! # When an answer is incomplete
//! - The copy is unknown: of another incarnation of the topic, or its owner is gone for longer than anybody remembers.
//! - The log no longer holds the next record, or not all that has to be looked at around it.
//! - More messages than asked for were missed, or more records would have to be read than one read may.
//! - The old copy's owner is gone, and no member was there all the time since.
//! - The times at which messages were appended do not say enough: see `cross`.
//! - What the member has already did not come to this node's copy in time: it would come once more.
//!
//! One message can escape: published before this node was a member, by a node that did not write to it yet, and acknowledged
//! after this node was asked. That is what a member that subscribes at this moment misses, too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::copies::{Copies, OneCopy, Shown};
use super::cross::{Doubt, Parts, Rules};
use super::places::Places;
use super::reader::Standstill;
use super::reading::CLOCK_SLACK;
use super::status::Status;
use crate::backplane::{BoxFuture, Envelope, History, Message, Page, PageQuery, Position, Resumed, RoomId};
use crate::clients::kafka::Incarnations;
use crate::clients::kafka::fault::timed_out;
use crate::error::{Error, Result};
use crate::kafka_history::log::{Bounds, Found, Keep, Log, Wanted};
use crate::kafka_history::page::Place;

/// Messages that a copy may have of a room beyond those that another one has too, and those that are asked for.
pub(super) const EXTRA_MESSAGES: usize = 1_000;

/// How soon is looked again whether this node's copy has what another one has; twice as long each time.
const EARLY_PAUSE: Duration = Duration::from_millis(20);
const EARLY_PAUSE_MAX: Duration = Duration::from_millis(320);

/// The history of a node's rooms. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct RoomHistory {
    pub(super) log: Arc<Log>,
    pub(super) incarnations: Arc<Incarnations>,
    pub(super) copies: Arc<Copies>,
    pub(super) places: Arc<Places>,
    pub(super) standstill: Arc<Standstill>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) join_timeout: Duration,
}

/// The copy that this node reads, and where it ended when this node was asked: all before was delivered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    pub(super) partition: i32,
    pub(super) epoch: u64,
    pub(super) end: i64,
    /// Positions are those of the topic as it is now.
    pub(super) sound: bool,
}

impl Standing {
    pub(super) fn top(&self) -> Position {
        at(self.epoch, self.end - 1)
    }
}

/// What can be said to a member that comes from another copy.
enum Crossed {
    Missed(Vec<Envelope>),
    /// A message may still come to one of the copies, and decides.
    Early,
}

/// What a member that comes from another copy wants.
struct Asked<'a> {
    room: &'a RoomId,
    since: Position,
    limit: usize,
    /// Everything that was appended after this time is in the log for sure.
    kept_ms: i64,
}

impl Asked<'_> {
    /// Whether a partition that begins at `start`, read from `from` on, where lies what was appended at `since_ms`, may lack
    /// something that the log no longer holds.
    fn is_cut(&self, from: i64, start: i64, since_ms: i64) -> bool {
        start > 0 && from <= start && since_ms < self.kept_ms
    }
}

/// The position of the message at an offset.
pub(super) fn at(epoch: u64, offset: i64) -> Position {
    Position { epoch, offset: u64::try_from(offset + 1).unwrap_or(0) }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn moved() -> Error {
    timed_out("history", "this node is changing to another partition")
}

impl RoomHistory {
    pub(super) async fn standing(&self) -> Result<Standing> {
        super::effective(self.status.clone(), self.join_timeout, "history").await?;
        let (partition, now) = self.places.current().ok_or_else(moved)?;
        let (mark, end) = (self.copies.mark(), self.log.end(partition).await?);
        let delivered = i64::try_from(now.offset).unwrap_or(i64::MAX);
        let is_same = self.incarnations.now_within(self.log.limits().time).await? == mark;
        if !is_same && self.copies.mark() == mark {
            // The topic was created anew, and the reader has not come across it.
            self.standstill.raise();
        }
        let sound = is_same && end >= delivered;
        let standing = Standing { partition, epoch: now.epoch, end, sound };
        if sound {
            self.arrived(&standing, end).await?;
        }
        Ok(standing)
    }

    /// Waits until the entrance has everything before `end`.
    async fn arrived(&self, standing: &Standing, end: i64) -> Result<()> {
        let passed = self.places.has_passed(standing.partition, standing.epoch, end);
        match tokio::time::timeout(self.log.limits().time, passed).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(moved()),
            Err(_) => Err(timed_out("history", "this node has not read all of its partition yet")),
        }
    }

    async fn resumed(self, room: RoomId, since: Position, limit: usize) -> Result<Resumed> {
        let (begun, mut pause) = (Instant::now(), EARLY_PAUSE);
        loop {
            let (top, resumed) = self.resumed_now(&room, since, limit).await?;
            if let Some(resumed) = resumed {
                return Ok(resumed);
            }
            if begun.elapsed() + pause > self.log.limits().time {
                return Ok(Resumed::Incomplete { top });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(EARLY_PAUSE_MAX);
        }
    }

    /// Where the copy ends, and the answer by that; `None` if it is too early for one.
    async fn resumed_now(
        &self,
        room: &RoomId,
        since: Position,
        limit: usize,
    ) -> Result<(Position, Option<Resumed>)> {
        // Before anything is asked for: whoever is a member by this is one of those that the answers are about.
        let shown = self.copies.shown();
        let standing = self.standing().await?;
        let top = standing.top();
        let missed = if !standing.sound {
            None
        } else if since.epoch == standing.epoch {
            if let Some(resumed) = self.remembered(room, since, &standing, limit) {
                return Ok((top, Some(self.delivered(&standing, resumed).await?)));
            }
            let found = self.followed(room, since, &standing, &shown, limit).await?;
            found.map(|found| messages(found, standing.epoch))
        } else {
            match self.crossed(room, since, &standing, &shown, limit).await? {
                Some(Crossed::Early) => return Ok((top, None)),
                Some(Crossed::Missed(missed)) => Some(missed.into_iter().map(unplaced).collect()),
                None => None,
            }
        };
        // What arrives from here on may otherwise be of another copy than the answer reckons with.
        if self.places.current().is_none_or(|(_, now)| now.epoch != standing.epoch) {
            return Err(moved());
        }
        let resumed = match missed {
            Some(messages) => Resumed::Complete { messages, top },
            None => Resumed::Incomplete { top },
        };
        Ok((top, Some(resumed)))
    }

    fn remembered(
        &self,
        room: &RoomId,
        since: Position,
        standing: &Standing,
        limit: usize,
    ) -> Option<Resumed> {
        let (_, stands) = self.places.current().filter(|(_, now)| now.epoch == standing.epoch)?;
        self.copies.rings.as_ref()?.lock().after(room, since, stands, limit, Instant::now())
    }

    /// The same answer, once the entrance has all of it: the rings have a message a little before.
    async fn delivered(&self, standing: &Standing, resumed: Resumed) -> Result<Resumed> {
        if let Resumed::Complete { messages, .. } = &resumed
            && let Some(last) = messages.last()
        {
            self.arrived(standing, i64::try_from(last.position.offset).unwrap_or(i64::MAX)).await?;
        }
        Ok(resumed)
    }

    /// What came after a place in the copy that this node reads.
    async fn followed(
        &self,
        room: &RoomId,
        since: Position,
        standing: &Standing,
        shown: &Shown,
        limit: usize,
    ) -> Result<Option<Found>> {
        let (from, to) = (i64::try_from(since.offset).unwrap_or(i64::MAX), standing.end);
        if from == to {
            return Ok(Some(Found::default()));
        }
        let records_max = self.log.limits().records;
        let Bounds { start, .. } = self.log.bounds(standing.partition).await?;
        if from < start || from > to || to - from > records_max {
            return Ok(None);
        }
        // What lies before was written for another owner: its members saw that, and these did not.
        let Some(own) = self.copies.find(shown, standing.epoch) else { return Ok(None) };
        let partition = standing.partition;
        let first = self.log.at_time(partition, own.joined_ms).await?;
        let reach = start.max(first.min(from)).max(to - records_max);
        let place = Place { room: room.clone(), partition, reach, end: to };
        let found = place.since(&self.log, from, limit).await?;
        Ok(found.filter(|found| !found.more))
    }

    /// What came after a place in another copy.
    async fn crossed(
        &self,
        room: &RoomId,
        since: Position,
        standing: &Standing,
        shown: &Shown,
        limit: usize,
    ) -> Result<Option<Crossed>> {
        let own = self.copies.find(shown, standing.epoch);
        let (Some(own), Some(old)) = (own, self.copies.find(shown, since.epoch)) else { return Ok(None) };
        let Some(full) = shown.full_copy(&old, &own) else { return Ok(None) };
        let slack_ms = ms(shown.publish_timeout + CLOCK_SLACK);
        let skew_ms = if self.log.is_of_one_clock().await? { 0 } else { ms(CLOCK_SLACK) };
        let now_ms = shown.appended_ms;
        let Some(rules) = Rules::of(now_ms, slack_ms, skew_ms, &old, &own) else { return Ok(None) };
        let kept = self.incarnations.kept().await?;
        // Everything that was appended after this is in the log.
        let kept_ms = kept.map_or(i64::MAX, |kept| now_ms.saturating_add(slack_ms).saturating_sub(ms(kept)));

        // What the old copy lacks was appended to others after this.
        let lacks_ms = old.ended.map_or(now_ms, |(_, ended_ms)| now_ms.min(ended_ms)) - slack_ms;
        // What is on its way to the own copy was appended to others at most `slack_ms` ago, so itself after this.
        let recent_ms = now_ms - 2 * slack_ms;
        let own_ms = if full == own { lacks_ms.min(recent_ms) } else { recent_ms };
        let apart = full != own && full != old;
        let first_ms = if apart { own_ms.min(lacks_ms) } else { own_ms };

        let asked = Asked { room, since, limit, kept_ms };
        let Some(from_old) = self.old_part(&asked, shown, &old, first_ms - slack_ms).await? else {
            return Ok(None);
        };
        let most = limit.saturating_add(from_old.ids.len()).saturating_add(EXTRA_MESSAGES);
        let from_full = if apart {
            let end = self.log.end(full.partition).await?;
            let Some(found) = self.part(&asked, &full, lacks_ms, end, most).await? else { return Ok(None) };
            Some(found)
        } else {
            None
        };
        let Some(from_own) = self.part(&asked, &own, own_ms, standing.end, most).await? else {
            return Ok(None);
        };
        let parts = Parts { old: from_old, full: from_full, own: from_own };
        if rules.is_early(&parts) {
            return Ok(Some(Crossed::Early));
        }
        Ok(match rules.merge(parts) {
            Ok(missed) => (missed.len() <= limit).then_some(Crossed::Missed(missed)),
            Err(Doubt::Early) => Some(Crossed::Early),
            Err(Doubt::Lasting) => None,
        })
    }

    /// The room's messages in the old copy from the member's place on, and the ids of those before it since `look_ms`.
    async fn old_part(
        &self,
        asked: &Asked<'_>,
        shown: &Shown,
        old: &OneCopy,
        look_ms: i64,
    ) -> Result<Option<Found>> {
        let (partition, from) = (old.partition, i64::try_from(asked.since.offset).unwrap_or(i64::MAX));
        let Bounds { start, end } = self.log.bounds(partition).await?;
        // Another owner's messages are not the continuation of these; full copies have them.
        let to = match shown.successor(old) {
            Some(next) => self.log.at_time(partition, next.joined_ms).await?.min(end),
            None => end,
        };
        let look = self.log.at_time(partition, look_ms).await?;
        if from < start || from > to || asked.is_cut(look, start, look_ms) {
            return Ok(None);
        }
        let (room, keep) = (asked.room.clone(), Keep::First(asked.limit));
        let wanted = Wanted { room, partition, look: look.min(from), from, to, keep };
        Ok(self.log.read(wanted).await?.filter(|found| !found.more))
    }

    /// The room's messages in a copy since a time.
    async fn part(
        &self,
        asked: &Asked<'_>,
        copy: &OneCopy,
        since_ms: i64,
        to: i64,
        most: usize,
    ) -> Result<Option<Found>> {
        let partition = copy.partition;
        let from = self.log.at_time(partition, since_ms).await?;
        let Bounds { start, .. } = self.log.bounds(partition).await?;
        if asked.is_cut(from, start, since_ms) {
            return Ok(None);
        }
        let (room, keep) = (asked.room.clone(), Keep::First(most));
        let wanted = Wanted { room, partition, look: from, from, to, keep };
        Ok(self.log.read(wanted).await?.filter(|found| !found.more))
    }
}

pub(super) fn messages(found: Found, epoch: u64) -> Vec<Message> {
    let placed = found.messages.into_iter();
    placed.map(|m| Message { position: at(epoch, m.offset), envelope: m.envelope }).collect()
}

/// A message of several copies has no place in one numbering.
fn unplaced(envelope: Envelope) -> Message {
    Message { envelope, position: Position::default() }
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
    fn a_trimmed_log_is_noticed() {
        let room = RoomId::new("r");
        let asked = Asked { room: &room, since: Position::default(), limit: 1, kept_ms: 1_000 };
        assert!(!asked.is_cut(0, 0, 500), "nothing was ever removed");
        assert!(asked.is_cut(5, 5, 500));
        assert!(!asked.is_cut(6, 5, 500), "what lies before is still there");
        assert!(!asked.is_cut(5, 5, 1_500), "what was removed is older");
    }
}
