//! Pages of history. They come from this node's own copy where that has all that was ever kept of the room, so that a page's
//! positions are those of live messages; else from the copy that goes back furthest, so that a node that has just started
//! answers as well as an old one.

use std::time::Instant;

use super::copies::{OneCopy, Shown};
use super::history::{EXTRA_MESSAGES, RoomHistory, Standing, at, messages, moved};
use super::reading::CLOCK_SLACK;
use crate::backplane::{Page, PageQuery, Position, RoomId};
use crate::error::Result;
use crate::kafka_history::log::{Bounds, Found, Keep, Wanted};
use crate::kafka_history::page::{LOOK_BACK_RECORDS, Place};

/// A copy, and the time (ms since the Unix epoch) at which what it has to tell begins.
#[derive(Debug, Clone, Copy)]
struct Source {
    copy: OneCopy,
    from_ms: i64,
}

impl RoomHistory {
    pub(super) async fn paged(self, room: RoomId, query: PageQuery) -> Result<Page> {
        let shown = self.copies.shown();
        let standing = self.standing().await?;
        if !standing.sound {
            return Err(moved());
        }
        let top = standing.top();
        let foreign = Page { messages: Vec::new(), top, foreign: true };
        let named = query.since.filter(|since| since.epoch != 0);
        let source = match named {
            Some(since) => self.source_of(&shown, since),
            None if query.since.is_some_and(|since| since.offset > 0) => None,
            None if query.limit == 0 => return Ok(Page { foreign: false, ..foreign }),
            None => self.fullest(&shown, &standing, &room).await?,
        };
        match source {
            Some(source) => self.page_of(source, &shown, &standing, room, query).await,
            None => Ok(foreign),
        }
    }

    fn source_of(&self, shown: &Shown, since: Position) -> Option<Source> {
        let copy = self.copies.find(shown, since.epoch)?;
        Some(Source { copy, from_ms: copy.reached?.1 })
    }

    /// Where to read a room from its beginning, or from its end.
    async fn fullest(&self, shown: &Shown, standing: &Standing, room: &RoomId) -> Result<Option<Source>> {
        let eldest = shown.copies.iter().find_map(|&copy| Some(Source { copy, from_ms: copy.reached?.1 }));
        let own = self.copies.find(shown, standing.epoch);
        let (Some(eldest), Some(own)) = (eldest, own) else { return Ok(eldest) };
        if own == eldest.copy || !self.has_all_of(shown, standing, room, own, eldest).await? {
            return Ok(Some(eldest));
        }
        Ok(Some(Source { copy: own, from_ms: own.joined_ms }))
    }

    /// Whether the own copy has what the eldest has of a room from the time before everybody wrote to the own one, as far as one
    /// small read can tell.
    async fn has_all_of(
        &self,
        shown: &Shown,
        standing: &Standing,
        room: &RoomId,
        own: OneCopy,
        eldest: Source,
    ) -> Result<bool> {
        let Some((_, reached_ms)) = own.reached else { return Ok(false) };
        // A write that began before that may have been appended a while after it.
        let slack = shown.publish_timeout + CLOCK_SLACK;
        let settled_ms = reached_ms + i64::try_from(slack.as_millis()).unwrap_or(i64::MAX / 2);
        let partition = eldest.copy.partition;
        let from = self.log.at_time(partition, eldest.from_ms).await?;
        let to = self.log.at_time(partition, settled_ms).await?;
        let Some(elder) = self.small_part(room, partition, from, to).await? else { return Ok(false) };
        if elder.ids.is_empty() {
            return Ok(true);
        }
        let from = self.log.at_time(own.partition, own.joined_ms).await?;
        let ours = self.small_part(room, own.partition, from, standing.end).await?;
        Ok(ours.is_some_and(|ours| elder.ids.is_subset(&ours.ids)))
    }

    /// A room's messages in a part of a partition, if that is a small one.
    async fn small_part(&self, room: &RoomId, partition: i32, from: i64, to: i64) -> Result<Option<Found>> {
        if to - from > LOOK_BACK_RECORDS {
            return Ok(None);
        }
        let (room, keep) = (room.clone(), Keep::First(EXTRA_MESSAGES));
        let wanted = Wanted { room, partition, look: from, from, to, keep };
        Ok(self.log.read(wanted).await?.filter(|found| !found.more))
    }

    async fn page_of(
        &self,
        source: Source,
        shown: &Shown,
        standing: &Standing,
        room: RoomId,
        query: PageQuery,
    ) -> Result<Page> {
        let Source { copy, from_ms } = source;
        let partition = copy.partition;
        let epoch = self.copies.epoch(partition, copy.owner);
        let is_own = epoch == standing.epoch;
        let Bounds { start, end } = self.log.bounds(partition).await?;
        let end = match shown.successor(&copy) {
            _ if is_own => standing.end,
            Some(next) => self.log.at_time(partition, next.joined_ms).await?.min(end),
            None => end,
        };
        let top = at(epoch, end - 1);
        let next = query.since.map(|since| i64::try_from(since.offset).unwrap_or(i64::MAX));
        if next.is_some_and(|next| next > end) {
            return Ok(Page { messages: Vec::new(), top, foreign: true });
        }
        if query.limit == 0 {
            return Ok(Page { messages: Vec::new(), top, foreign: false });
        }
        if is_own && let Some(rings) = &self.copies.rings {
            let since = next.map(|next| at(epoch, next - 1));
            let held = rings.lock().page(&room, PageQuery { since, ..query }, top, Instant::now());
            if held.whole {
                return Ok(held.page);
            }
        }
        let whole_from = self.log.at_time(partition, from_ms).await?;
        // Who was given a place before that by an earlier page goes on there.
        let whole_from = whole_from.min(end).min(next.unwrap_or(end));
        let reach = start.max(end - self.log.limits().records).max(whole_from);
        let place = Place { room, partition, reach, end };
        let found = match query.reverse {
            true => place.newest(&self.log, next, query.limit).await?,
            false => place.oldest(&self.log, next, query.limit).await?,
        };
        let mut messages = messages(found, epoch);
        if query.reverse {
            messages.reverse();
        }
        Ok(Page { messages, top, foreign: false })
    }
}
