//! What the log tells to who comes back, with what Redis kept where the log lacks a position.

use std::collections::{HashMap, HashSet};

use super::{Asked, RoomHistory, Verdict};
use crate::backplane::{MessageId, Page, PageQuery, Position, RoomId};
use crate::error::Result;
use crate::hybrid::order::Order;
use crate::kafka_history::log::{Found, Keep, Wanted};

/// Records that are read first when a position is looked for; ten times as many at each further attempt.
const FIRST_RECORDS: i64 = 1_000;
/// Messages before a position among which it is looked for a missing one.
const BEFORE_MESSAGES: usize = 10_000;

impl RoomHistory {
    /// What the log tells up to `end`.
    pub(super) async fn logged(&self, asked: &Asked, end: i64) -> Result<Verdict> {
        let start = self.log.bounds(asked.partition).await?.start;
        let keep = Keep::Behind(asked.since, asked.limit);
        let Some((found, from)) = self.search(&asked.room, asked.partition, keep, start, end).await? else {
            return Ok(Verdict::Never);
        };
        let margin_ms = self.margin_ms();
        // Then the log does not hold all that its partition ever had, even if it begins at 0.
        let cut = start > 0 || self.paths.log.life.is_anew();
        let (found, seen_before_ms) = match found.divide.anchor_ms {
            Some(anchor_ms) => {
                let before_ms = anchor_ms.saturating_sub(margin_ms);
                let before_ms = self.paths.recall(|kept, _| kept.trusted_before_ms(before_ms));
                let look = self.log.at_time(asked.partition, before_ms).await?;
                let gone = look <= start && cut;
                if gone || end - look > self.log.limits().records {
                    return Ok(Verdict::Never);
                }
                let found = if look < from { self.read(asked, keep, look, end).await? } else { Some(found) };
                let Some(found) = found else { return Ok(Verdict::Never) };
                (found, before_ms)
            }
            // Nothing ever came before the first position of an epoch, so everything there is must be looked at.
            None if asked.since.offset == 0 && from == 0 && !cut => (found, i64::MIN),
            None => return Ok(Verdict::Never),
        };
        let unsure = found.divide.unsure_ms.is_some_and(|unsure_ms| unsure_ms >= seen_before_ms);
        if unsure || found.more {
            return Ok(Verdict::Never);
        }
        let other = found.divide.other_ms.is_some_and(|other_ms| other_ms >= seen_before_ms);
        let mut order = Order::new(Some(asked.since), found.messages);
        if let Some(anchor_ms) = found.divide.anchor_ms
            && !self.take_out_seen(asked, &mut order, anchor_ms, start, end).await?
        {
            return Ok(Verdict::Never);
        }
        let present = asked.stands.map(|stands| stands.at);
        let lacks = self.keeps_stream && order.lacks(asked.since, present);
        if lacks && !self.fill(asked, &mut order, &found.ids).await {
            return Ok(Verdict::NotYet);
        }
        let Some(unlogged) = &asked.unlogged else { return Ok(Verdict::Never) };
        if !unlogged.iter().all(|id| found.ids.contains(id) || order.holds(*id)) {
            // It was shown, and must not be missing; whether the log takes it will show.
            return Ok(Verdict::NotYet);
        }
        Ok(asked.verdict(order, other))
    }

    /// Looks what Redis kept at positions that the log lacks. False if this node has yet to deliver what is there.
    async fn fill(&self, asked: &Asked, order: &mut Order, logged: &HashSet<MessageId>) -> bool {
        let query = PageQuery { since: None, limit: usize::MAX, reverse: false };
        // Without the stream there is a hole, and that is all.
        let Ok(page) = self.live.page(&asked.room, query).await else { return true };
        let Some(filled) = order.fill(asked.since, page.messages, logged) else { return true };
        // A copy without a position would come after the answer, and be new to its member.
        let delivered = self.paths.stands(&asked.room);
        delivered.is_none_or(|at| at.epoch != filled.epoch || at.offset >= filled.offset)
    }

    async fn read(&self, asked: &Asked, keep: Keep, from: i64, end: i64) -> Result<Option<Found>> {
        let (room, partition) = (asked.room.clone(), asked.partition);
        self.log.read(Wanted { room, partition, look: from, from, to: end, keep }).await
    }

    /// Looks for a position in ever larger parts of the log before `end`. Returns what was found, and from where on it was read;
    /// `None` if that took too long.
    pub(super) async fn search(
        &self,
        room: &RoomId,
        partition: i32,
        keep: Keep,
        start: i64,
        end: i64,
    ) -> Result<Option<(Found, i64)>> {
        let reach = start.max(end - self.log.limits().records);
        let mut records = FIRST_RECORDS;
        loop {
            let from = (end - records).max(reach);
            let wanted = Wanted { room: room.clone(), partition, look: from, from, to: end, keep };
            let Some(found) = self.log.read(wanted).await? else { return Ok(None) };
            if found.divide.anchor_ms.is_some() || from >= end || from == reach {
                return Ok(Some((found, from)));
            }
            records = records.saturating_mul(10);
        }
    }

    /// Takes out of an answer what its member has seen at a position that no record tells: its publisher lost the link before it
    /// learned the position, and appended the message without one. False if it cannot be known whether there is such a one.
    async fn take_out_seen(
        &self,
        asked: &Asked,
        order: &mut Order,
        anchor_ms: i64,
        start: i64,
        end: i64,
    ) -> Result<bool> {
        let margin_ms = self.margin_ms();
        // What was appended later had its position later, if it had one.
        let doubtful = order.unplaced_before(anchor_ms.saturating_add(margin_ms));
        let Some(first_ms) = doubtful.iter().map(|(_, appended_ms)| *appended_ms).min() else {
            return Ok(true);
        };
        let reach = start.max(end - self.log.limits().records);
        let Some(found) = self.read(asked, Keep::Before(asked.since, BEFORE_MESSAGES), reach, end).await?
        else {
            return Ok(false);
        };
        let before =
            found.messages.iter().filter_map(|message| Some((message.position?, message.appended_ms)));
        let logged: HashMap<u64, i64> = before
            .filter(|(at, _)| at.epoch == asked.since.epoch)
            .map(|(at, appended_ms)| (at.offset, appended_ms))
            .collect();
        if is_whole_before(asked.since.offset, &logged, first_ms.saturating_sub(margin_ms)) {
            return Ok(true);
        }
        // A position is missing that one of them may have had. Redis may know.
        let query = PageQuery { since: None, limit: usize::MAX, reverse: false };
        let kept = match self.keeps_stream {
            true => self.live.page(&asked.room, query).await.unwrap_or_default(),
            false => Page::default(),
        };
        let place: HashMap<MessageId, Position> =
            kept.messages.iter().map(|message| (message.envelope.id, message.position)).collect();
        for (id, _) in doubtful {
            match place.get(&id) {
                Some(at) if at.epoch != asked.since.epoch || at.offset > asked.since.offset => {}
                Some(_) => order.take_out(id),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// As long as anything may be on its way.
    fn margin_ms(&self) -> i64 {
        i64::try_from(self.margin.as_millis()).unwrap_or(i64::MAX)
    }
}

/// Whether every position before `offset` that may have been assigned since a time is `logged` (offset to when it was appended).
fn is_whole_before(offset: u64, logged: &HashMap<u64, i64>, since_ms: i64) -> bool {
    for before in (1..offset).rev() {
        match logged.get(&before) {
            None => return false,
            // Appended after it was assigned, and all before it were assigned earlier.
            Some(appended_ms) if *appended_ms < since_ms => return true,
            Some(_) => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_whole_back_to_an_old_one_or_the_first() {
        let logged = |offsets: &[(u64, i64)]| offsets.iter().copied().collect::<HashMap<_, _>>();
        assert!(is_whole_before(1, &logged(&[]), 100));
        assert!(is_whole_before(3, &logged(&[(2, 110), (1, 105)]), 100), "back to the first");
        assert!(is_whole_before(9, &logged(&[(8, 110), (7, 99)]), 100), "back to an old one");
        assert!(!is_whole_before(9, &logged(&[(8, 110), (6, 99)]), 100), "7 is missing");
        assert!(!is_whole_before(9, &logged(&[(8, 110)]), 100), "it is not known how old 7 is");
    }
}
