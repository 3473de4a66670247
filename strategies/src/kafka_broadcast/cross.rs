//! What a member missed that comes from another node: put together from several copies.
//!
//! The copies of a message lie in different partitions, appended up to `slack` apart (the longest publish timeout, and what
//! brokers' clocks may differ by). The member has what lies before its place in the **old** copy. A **full** copy has
//! everything that the old one may lack: the old one itself while its owner is a member, else one that everybody wrote to
//! before anybody ceased to write to the old one. The node goes on with its **own** copy, and only with what lies behind the
//! end that was read. From the old copy comes what follows the member's place, from the other two what the old one has not.
//! Most of that was published when nobody wrote to the old one any more, or is on its way there, and comes behind. But a write
//! may also have failed in the old copy while later ones did not: what lies before a message of the same sender in another
//! copy comes before it here too (`weave`). Where the member has something of that later already, it cannot get the earlier
//! one any more. While the old copy's owner is a member, such a message was not acknowledged, and is left out once its write
//! can no longer be on its way.
//!
//! Two things have to be told from the times at which messages were appended:
//! - A message that the old copy lacks may have been published before its owner was a member: then it is none of those that
//!   the member missed. Where times do not decide, nobody can know, and the answer is that something may be missing.
//! - A message that the own copy lacks may still be on its way there, or may never have been written to it, because this node
//!   has only just become a member. Where times do not decide it is in the answer: whoever asked drops it by its id should it
//!   come all the same, for [`PATIENCE_MS`] at least. Where it may take longer, the answer is again that something may be
//!   missing.
//!
//! And what the member has already may be on its way to the own copy too. It would come as something new, so there is no answer
//! until it is there.

mod weave;

use std::collections::HashSet;

pub(super) use self::weave::Doubt;
use self::weave::{Answer, Lacking};
use super::copies::OneCopy;
use crate::backplane::{Envelope, MessageId};
use crate::kafka_history::log::{Found, Located};

/// How long those who ask for history drop what comes a second time, in ms.
const PATIENCE_MS: i64 = 30_000;

/// What is known of the copies, in ms since the Unix epoch by the brokers' clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// It was at least this late when the copies were read.
    pub(super) now_ms: i64,
    /// The furthest apart that the copies of one message may be appended.
    pub(super) slack_ms: i64,
    /// What brokers' clocks may differ by.
    pub(super) skew_ms: i64,
    /// When the old copy's owner joined, and when everybody wrote to it.
    pub(super) old: (i64, i64),
    /// The same of the copy that this node reads.
    pub(super) own: (i64, i64),
    /// The old copy's owner is a member: nothing is acknowledged that was to be written there and was not.
    pub(super) old_counts: bool,
}

/// What was read of each copy. `full` is `None` where it is one of the others.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) old: Found,
    pub(super) full: Option<Found>,
    pub(super) own: Found,
}

/// What a place in time says of a message and a copy.
#[derive(Debug, PartialEq, Eq)]
enum Written {
    /// It was published before anybody wrote to this copy.
    Never,
    /// It was written to this copy, or will be.
    Surely,
    Unknown,
}

impl Rules {
    /// Of these copies, if everybody came to write to both.
    pub(super) fn of(now_ms: i64, slack_ms: i64, skew_ms: i64, old: &OneCopy, own: &OneCopy) -> Option<Self> {
        let times = |copy: &OneCopy| Some((copy.joined_ms, copy.reached?.1));
        let old_counts = old.ended.is_none();
        Some(Self { now_ms, slack_ms, skew_ms, old: times(old)?, own: times(own)?, old_counts })
    }

    /// Whether a message appended elsewhere at this time was written to a copy whose owner joined, and was reached, then.
    fn written(&self, appended_ms: i64, (joined_ms, reached_ms): (i64, i64)) -> Written {
        if appended_ms < joined_ms - self.skew_ms {
            Written::Never
        } else if appended_ms > reached_ms + self.slack_ms {
            Written::Surely
        } else {
            Written::Unknown
        }
    }

    /// Whether something that the member has may still come to the own copy, or to the old one something that the own one has
    /// and nobody could tell whether the member missed.
    pub(super) fn is_early(&self, Parts { old, own, .. }: &Parts) -> bool {
        let to_old = own.messages.iter().any(|message| {
            let is_recent = message.appended_ms + self.slack_ms >= self.now_ms;
            is_recent
                && !old.ids.contains(&message.envelope.id)
                && self.written(message.appended_ms, self.old) == Written::Unknown
        });
        to_old
            || old.before.iter().any(|&(id, appended_ms)| {
                let is_recent = appended_ms + self.slack_ms >= self.now_ms;
                is_recent && !own.ids.contains(&id) && self.written(appended_ms, self.own) != Written::Never
            })
    }

    /// Whether to answer with a message that the own copy lacks; `None` if nobody knows.
    fn belongs(&self, message: &Located) -> Option<bool> {
        if message.appended_ms + self.slack_ms < self.now_ms {
            // It would be there by now.
            return Some(true);
        }
        match self.written(message.appended_ms, self.own) {
            Written::Never => Some(true),
            // It comes by itself, or its publisher learns that it does not.
            Written::Surely => Some(false),
            Written::Unknown => (self.slack_ms <= PATIENCE_MS).then_some(true),
        }
    }

    /// What to do with a message of another copy that the old one lacks. `there`: what the own copy has.
    fn lacking(&self, message: &Located, there: &HashSet<MessageId>) -> Result<Lacking, Doubt> {
        match self.written(message.appended_ms, self.old) {
            Written::Never => return Ok(Lacking::Left),
            Written::Surely => {}
            Written::Unknown => return Err(Doubt::Lasting),
        }
        if !there.contains(&message.envelope.id) && !self.belongs(message).ok_or(Doubt::Lasting)? {
            return Ok(Lacking::Left);
        }
        let is_recent = message.appended_ms + self.slack_ms >= self.now_ms;
        let unclear = if is_recent { Doubt::Early } else { Doubt::Lasting };
        let or = if self.old_counts && !is_recent { Ok(()) } else { Err(unclear) };
        Ok(Lacking::Missed { or, unclear })
    }

    /// The messages that the member missed, in an order that keeps each publisher's.
    pub(super) fn merge(&self, parts: Parts) -> Result<Vec<Envelope>, Doubt> {
        let Parts { old, full, own } = parts;
        let mut answer = Answer::new(old.before.iter().map(|&(id, _)| id));
        for message in old.messages {
            let id = message.envelope.id;
            let comes = own.ids.contains(&id) || self.belongs(&message).ok_or(Doubt::Lasting)?;
            answer.push(id, comes.then_some(message.envelope));
        }
        for copy in full.into_iter().map(|full| full.messages).chain([own.messages]) {
            answer.weave(copy, |message| self.lacking(message, &own.ids))?;
        }
        Ok(answer.messages())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::RoomId;
    use bytes::Bytes;

    /// Two old members; it is second 100.
    const RULES: Rules = Rules {
        now_ms: 100_000,
        slack_ms: 7_000,
        skew_ms: 0,
        old: (10_000, 11_000),
        own: (20_000, 21_000),
        old_counts: true,
    };

    /// Messages by id and time in ms, and ids of others that lie before them.
    fn found(messages: &[(u128, i64)], before: &[u128]) -> Found {
        let of_one: Vec<_> = messages.iter().map(|&(id, appended_ms)| (id, appended_ms, "")).collect();
        found_of(&of_one, before)
    }

    /// The same with their senders.
    fn found_of(messages: &[(u128, i64, &'static str)], before: &[u128]) -> Found {
        let located = |&(id, appended_ms, sender): &(u128, i64, &'static str)| Located {
            offset: 0,
            appended_ms,
            position: None,
            envelope: Envelope {
                room: RoomId::new("r"),
                id: MessageId(id),
                published_at_us: 0,
                info: Bytes::from_static(sender.as_bytes()),
                payload: Bytes::new(),
            },
        };
        let ids = messages.iter().map(|&(id, ..)| id).chain(before.iter().copied()).map(MessageId).collect();
        let before = before.iter().map(|&id| (MessageId(id), 0)).collect();
        Found {
            messages: messages.iter().map(located).collect(),
            more: false,
            ids,
            before,
            ..Found::default()
        }
    }

    fn answer(rules: Rules, old: Found, full: Option<Found>, own: Found) -> Result<Vec<u128>, Doubt> {
        let merged = rules.merge(Parts { old, full, own })?;
        Ok(merged.into_iter().map(|envelope| envelope.id.0).collect())
    }

    fn merge(rules: Rules, old: Found, full: Option<Found>, own: Found) -> Option<Vec<u128>> {
        answer(rules, old, full, own).ok()
    }

    #[test]
    fn what_the_old_copy_lacks_comes_after_what_it_has() {
        let old = found(&[(3, 99_000), (4, 99_100)], &[1, 2]);
        let own = found(&[(2, 98_000), (4, 99_050), (3, 99_060), (5, 99_200)], &[]);
        assert_eq!(merge(RULES, old, None, own), Some(vec![3, 4, 5]));
    }

    #[test]
    fn what_the_own_copy_lacks_is_left_to_come_unless_it_would_be_there() {
        let old = found(&[(3, 80_000), (4, 99_900)], &[]);
        assert_eq!(merge(RULES, old, None, Found::default()), Some(vec![3]));
    }

    #[test]
    fn a_node_that_just_started_answers_for_what_was_published_before() {
        let rules = Rules { own: (99_500, 99_800), ..RULES };
        let old = || found(&[(3, 99_000), (4, 99_400)], &[]);
        assert_eq!(merge(rules, old(), None, Found::default()), Some(vec![3, 4]));
        // Published while it joined: on its way there or not, nobody knows.
        let while_it_joined = || found(&[(3, 99_000), (4, 99_600)], &[]);
        assert_eq!(merge(rules, while_it_joined(), None, Found::default()), Some(vec![3, 4]));
        let slow = Rules { slack_ms: 31_000, ..rules };
        assert_eq!(
            merge(slow, while_it_joined(), None, Found::default()),
            None,
            "it may come later than expected"
        );
        assert_eq!(merge(rules, old(), None, found(&[(5, 99_900)], &[])), Some(vec![3, 4, 5]));
    }

    #[test]
    fn a_full_copy_fills_in_for_an_old_one_that_ended() {
        let full = found(&[(2, 90_000), (3, 91_000), (4, 92_000)], &[]);
        let own = found(&[(5, 99_900)], &[]);
        assert_eq!(merge(RULES, found(&[(3, 91_000)], &[2]), Some(full), own), Some(vec![3, 4, 5]));
    }

    #[test]
    fn what_the_member_has_must_have_come_to_the_own_copy_too() {
        let old = |appended_ms| Found { before: vec![(MessageId(1), appended_ms)], ..found(&[], &[1]) };
        let is_early = |rules: Rules, old, own| rules.is_early(&Parts { old, full: None, own });
        assert!(is_early(RULES, old(99_000), Found::default()));
        assert!(!is_early(RULES, old(99_000), found(&[(1, 99_500)], &[])), "it is there");
        assert!(!is_early(RULES, old(92_000), Found::default()), "it would be there by now");
        let just_started = Rules { own: (99_500, 99_800), ..RULES };
        assert!(!is_early(just_started, old(99_000), Found::default()), "nobody wrote it there");
        assert!(is_early(just_started, old(99_600), Found::default()), "nobody knows");
        let just_started = Rules { old: (99_500, 99_800), ..RULES };
        assert!(
            is_early(just_started, Found::default(), found(&[(1, 99_900)], &[])),
            "it may come to the old one"
        );
    }

    #[test]
    fn what_was_published_before_the_old_owner_joined_was_not_missed() {
        let rules = Rules { old: (99_000, 99_300), ..RULES };
        assert_eq!(merge(rules, Found::default(), None, found(&[(1, 98_000)], &[])), Some(vec![]));
        assert_eq!(merge(rules, Found::default(), None, found(&[(1, 99_100)], &[])), None);
    }

    #[test]
    fn what_one_copy_lacks_comes_before_what_followed_it_in_the_other() {
        // Other senders are interleaved differently in each copy.
        let old =
            || found_of(&[(20, 90_000, "b"), (2, 90_100, "a"), (3, 90_200, "a"), (21, 90_300, "b")], &[9]);
        let own = found_of(
            &[
                (1, 90_000, "a"),
                (2, 90_100, "a"),
                (20, 90_100, "b"),
                (4, 90_150, "c"),
                (21, 90_200, "b"),
                (3, 90_300, "a"),
            ],
            &[],
        );
        assert_eq!(answer(RULES, old(), None, own), Ok(vec![20, 1, 2, 3, 21, 4]));
        // Two that failed in a row, and one later; the same out of a copy that stands in for the old one.
        let full = || {
            found_of(
                &[(1, 90_000, "a"), (5, 90_010, "a"), (2, 90_100, "a"), (6, 90_200, "a"), (3, 90_300, "a")],
                &[],
            )
        };
        assert_eq!(answer(RULES, old(), None, full()), Ok(vec![20, 1, 5, 2, 6, 3, 21]));
        let ended = Rules { old_counts: false, ..RULES };
        let own = found_of(&[(2, 90_100, "a"), (7, 90_250, "a"), (3, 90_300, "a")], &[]);
        assert_eq!(answer(ended, old(), Some(full()), own), Ok(vec![20, 1, 5, 2, 6, 7, 3, 21]));
    }

    #[test]
    fn what_the_member_cannot_get_in_order_is_left_out_if_it_was_not_acknowledged() {
        let old = || found_of(&[(3, 90_200, "a")], &[2]);
        let own = |appended_ms| {
            found_of(
                &[(1, appended_ms, "a"), (2, appended_ms, "a"), (4, appended_ms, "b"), (3, appended_ms, "a")],
                &[],
            )
        };
        assert_eq!(answer(RULES, old(), None, own(90_000)), Ok(vec![3, 4]));
        assert_eq!(
            answer(RULES, old(), None, own(95_000)),
            Err(Doubt::Early),
            "it may be on its way to the old copy"
        );
        let ended = Rules { old_counts: false, ..RULES };
        assert_eq!(
            answer(ended, old(), None, own(90_000)),
            Err(Doubt::Lasting),
            "it may have been acknowledged"
        );
    }

    #[test]
    fn where_copies_contradict_each_other_nothing_is_claimed() {
        let old = || found(&[(2, 90_000), (1, 90_100)], &[]);
        let own = |appended_ms| found(&[(1, appended_ms), (3, appended_ms), (2, appended_ms)], &[]);
        assert_eq!(answer(RULES, old(), None, own(90_000)), Err(Doubt::Lasting));
        assert_eq!(answer(RULES, old(), None, own(99_900)), Err(Doubt::Early));
    }
}
