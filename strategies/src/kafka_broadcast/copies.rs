//! Which copies of the messages there are: the partitions of members and of those who were some, what positions in them are
//! called, and what each of them has.
//!
//! A position names a copy (the partition, whose it was, in which incarnation of the topic) and a place in it. Any node can read
//! any copy, so it can go on from any position.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};

use super::membership::{Departed, Member, View};
use super::record::Incarnation;
use crate::error::Result;
use crate::kafka_history::{numbering, private_numbering, spread};
use crate::ring::Rings;

/// One copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OneCopy {
    pub(super) partition: i32,
    pub(super) owner: Incarnation,
    /// What was published before this time of the broker (ms since the Unix epoch) was not written for it.
    pub(super) joined_ms: i64,
    /// The record of the control log from which on everybody wrote to it, and its append time.
    pub(super) reached: Option<(u64, i64)>,
    /// The record from which on nobody writes to it any more, and its append time; `None` while its owner is a member.
    pub(super) ended: Option<(u64, i64)>,
}

impl OneCopy {
    fn of(member: &Member, ended: Option<(u64, i64)>) -> Option<Self> {
        Some(Self {
            partition: *member.partitions.first()?,
            owner: member.incarnation,
            joined_ms: member.joined_ms,
            reached: member.reached.zip(member.reached_ms),
            ended,
        })
    }

    /// Whether it has everything that was published by those who knew the record at `offset` of the control log.
    fn covers_from(&self, offset: u64) -> bool {
        self.ended.is_none() && self.reached.is_some_and(|(reached, _)| reached <= offset)
    }
}

/// The copies by a prefix of the control log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shown {
    /// Of members, the longest-standing first, then of former members.
    pub(super) copies: Vec<OneCopy>,
    /// Append time of the prefix's last record: it is at least this late by the broker's clock.
    pub(super) appended_ms: i64,
    /// The longest that a message may be under way to one copy when another has it already.
    pub(super) publish_timeout: Duration,
}

impl Shown {
    fn of(view: &View) -> Self {
        let members = view.members().iter().filter_map(|member| OneCopy::of(member, None));
        let departed = view.departed().iter().filter_map(|Departed { member, ended, ended_ms }| {
            OneCopy::of(member, Some((*ended, *ended_ms)))
        });
        let slowest = view.departed().iter().map(|departed| departed.member.publish_timeout_ms).max();
        Self {
            copies: members.chain(departed).collect(),
            appended_ms: view.appended_ms(),
            publish_timeout: view.publish_timeout_max().max(Duration::from_millis(slowest.unwrap_or(0))),
        }
    }
}

impl Shown {
    /// A copy that has everything that the old one may lack, if there is one: this node's own, if that is one.
    pub(super) fn full_copy(&self, old: &OneCopy, own: &OneCopy) -> Option<OneCopy> {
        let Some((ended, _)) = old.ended else { return Some(*old) };
        if own.covers_from(ended) {
            return Some(*own);
        }
        self.copies.iter().find(|copy| copy.covers_from(ended)).copied()
    }

    /// The next owner's copy in the same partition.
    pub(super) fn successor(&self, old: &OneCopy) -> Option<OneCopy> {
        let (_, ended_ms) = old.ended?;
        let same =
            self.copies.iter().filter(|copy| copy.partition == old.partition && copy.owner != old.owner);
        same.filter(|copy| copy.joined_ms >= ended_ms).min_by_key(|copy| copy.joined_ms).copied()
    }
}

/// The copies as this node knows them, and the last messages of the one that it reads.
#[derive(Debug)]
pub(super) struct Copies {
    topic: String,
    numbering: Mutex<Numbering>,
    shown: RwLock<Arc<Shown>>,
    /// `None` where none are kept.
    pub(super) rings: Option<Mutex<Rings>>,
}

#[derive(Debug, Clone, Copy)]
struct Numbering {
    upper: u64,
    mark: Option<u64>,
}

impl Copies {
    /// Of a topic with this mark.
    pub(super) fn new(topic: &str, mark: Option<u64>, rings: Option<Rings>) -> Result<Self> {
        let numbering = Mutex::new(Numbering { upper: numbering(topic, mark)?, mark });
        Ok(Self {
            topic: topic.to_owned(),
            numbering,
            shown: RwLock::default(),
            rings: rings.map(Mutex::new),
        })
    }

    /// What positions in a copy are called.
    pub(super) fn epoch(&self, partition: i32, owner: Incarnation) -> u64 {
        let upper = self.numbering.lock().upper;
        (spread(upper ^ owner.0) & !0xffff) | (partition as u64 & 0xffff)
    }

    /// The mark of the topic that positions are about.
    pub(super) fn mark(&self) -> Option<u64> {
        self.numbering.lock().mark
    }

    /// The topic has this mark now. Where it is the same topic whose log became shorter, places were used and will be used
    /// again, which other nodes cannot see: positions mean something to this node alone from then on.
    pub(super) fn renumber(&self, mark: Option<u64>, shorter: bool) -> Result<()> {
        let mut now = self.numbering.lock();
        if mark != now.mark {
            *now = Numbering { upper: numbering(&self.topic, mark)?, mark };
        } else if shorter {
            *now = Numbering { upper: private_numbering()?, mark };
        }
        Ok(())
    }

    /// The reader goes on in a copy from this place: what lies before may have been missed.
    pub(super) fn reads_from(&self, epoch: u64, next: i64) {
        if let Some(rings) = &self.rings {
            rings.lock().reads_from(epoch, u64::try_from(next).unwrap_or(0));
        }
    }

    /// The control log says this.
    pub(super) fn show(&self, view: &View) {
        let shown = Shown::of(view);
        if **self.shown.read() != shown {
            *self.shown.write() = Arc::new(shown);
        }
    }

    /// The copies as of now.
    pub(super) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown.read())
    }

    /// The copy in which positions are called `epoch`.
    pub(super) fn find(&self, shown: &Shown, epoch: u64) -> Option<OneCopy> {
        shown.copies.iter().find(|copy| self.epoch(copy.partition, copy.owner) == epoch).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(partition: i32, owner: u64, reached: u64, ended: Option<u64>) -> OneCopy {
        OneCopy {
            partition,
            owner: Incarnation(owner),
            joined_ms: reached as i64 * 100 - 50,
            reached: Some((reached, reached as i64 * 100)),
            ended: ended.map(|ended| (ended, ended as i64 * 100)),
        }
    }

    #[test]
    fn a_full_copy_was_written_to_before_the_old_one_ended() {
        let (old, own, third) = (copy(0, 1, 1, Some(50)), copy(0, 2, 52, None), copy(1, 3, 20, None));
        let shown = Shown { copies: vec![third, own, old], ..Shown::default() };
        assert_eq!(shown.full_copy(&old, &own), Some(third));
        assert_eq!(shown.full_copy(&old, &third), Some(third));
        assert_eq!(shown.full_copy(&third, &own), Some(third), "its owner is a member");
        let alone = Shown { copies: vec![own, old], ..Shown::default() };
        assert_eq!(alone.full_copy(&old, &own), None, "nobody was there in between");
        let gone = copy(1, 3, 20, Some(60));
        let later = Shown { copies: vec![own, old, gone], ..Shown::default() };
        assert_eq!(later.full_copy(&old, &own), None);
    }

    #[test]
    fn a_partition_goes_to_the_next_owner() {
        let (first, second, third) =
            (copy(0, 1, 1, Some(50)), copy(0, 2, 52, Some(60)), copy(0, 3, 70, None));
        let shown = Shown { copies: vec![third, first, second, copy(1, 4, 55, None)], ..Shown::default() };
        assert_eq!(shown.successor(&first), Some(second));
        assert_eq!(shown.successor(&second), Some(third));
        assert_eq!(shown.successor(&third), None);
    }

    #[test]
    fn a_position_names_topic_partition_and_owner() {
        let copies = Copies::new("t", Some(1), None).unwrap();
        let epoch = copies.epoch(3, Incarnation(9));
        assert_eq!(epoch & 0xffff, 3);
        assert_ne!(epoch, copies.epoch(3, Incarnation(8)));
        assert_eq!(epoch, Copies::new("t", Some(1), None).unwrap().epoch(3, Incarnation(9)));
        copies.renumber(Some(1), false).unwrap();
        assert_eq!(epoch, copies.epoch(3, Incarnation(9)));
        copies.renumber(Some(2), false).unwrap();
        let anew = copies.epoch(3, Incarnation(9));
        assert_ne!(epoch, anew);
        copies.renumber(Some(2), true).unwrap();
        assert_ne!(anew, copies.epoch(3, Incarnation(9)));
        assert_eq!(copies.mark(), Some(2));
    }
}
