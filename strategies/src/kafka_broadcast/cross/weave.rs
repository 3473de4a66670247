//! Messages that one copy has and another lacks, put among those of the other.
//!
//! A write that fails, while the same message is written elsewhere and the next ones are written everywhere, leaves a hole in one
//! copy. Whoever goes on from that copy must not get the message behind those of the same sender that lie behind it in a copy
//! without the hole. Copies show different senders interleaved differently, so neighbours say nothing: what counts is each
//! sender's own sequence. Messages with the same `info` are taken for one sender's. So are those without any, which is more
//! than an order of several senders has to keep: where the copies contradict each other there, nothing is claimed.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use crate::backplane::{Envelope, MessageId};
use crate::kafka_history::log::Located;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Doubt {
    /// There may be one soon.
    Early,
    /// Something may be missing, or come twice, or out of order.
    Lasting,
}

/// What is to be done with a message that the answer lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// It is no part of it.
    Left,
    /// It belongs to it. If it could only come behind what followed it, `or` says whether it may be left out: whether
    /// that was not acknowledged.
    Missed { or: Result<(), Doubt>, unclear: Doubt },
}

/// What a member missed, in an order that keeps each sender's.
#[derive(Debug)]
pub(super) struct Answer {
    /// What it has already.
    had: HashSet<MessageId>,
    /// What follows. `None` marks the place of a message that comes by itself.
    places: Vec<(MessageId, Option<Envelope>)>,
}

impl Answer {
    pub(super) fn new(had: impl Iterator<Item = MessageId>) -> Self {
        Self { had: had.collect(), places: Vec::new() }
    }

    pub(super) fn push(&mut self, id: MessageId, envelope: Option<Envelope>) {
        self.places.push((id, envelope));
    }

    /// Puts in what another copy has besides. Nothing of a sender comes behind what followed it there.
    pub(super) fn weave(
        &mut self,
        copy: VecDeque<Located>,
        lacking: impl Fn(&Located) -> Result<Lacking, Doubt>,
    ) -> Result<(), Doubt> {
        let at: HashMap<MessageId, usize> =
            self.places.iter().enumerate().map(|(index, &(id, _))| (id, index)).collect();
        // From the back, by sender: the foremost place of what follows, or `None` if the member has something of that already.
        let mut follows: HashMap<&[u8], Option<usize>> = HashMap::new();
        let mut before = vec![None; copy.len()];
        for (message, before) in copy.iter().zip(&mut before).rev() {
            let (id, sender) = (message.envelope.id, &message.envelope.info[..]);
            if self.had.contains(&id) {
                follows.insert(sender, None);
            } else if let Some(&index) = at.get(&id) {
                let foremost = follows.entry(sender).or_insert(Some(index));
                *foremost = (*foremost).min(Some(index));
            } else if let Lacking::Missed { or, unclear } = lacking(message)? {
                match follows.get(sender).copied().unwrap_or(Some(self.places.len())) {
                    Some(index) => *before = Some((index, unclear)),
                    None => or?,
                }
            }
        }
        // From the front: nothing of a sender comes before what it followed, either.
        let mut preceded: HashMap<&[u8], usize> = HashMap::new();
        for (message, before) in copy.iter().zip(&before) {
            let sender = &message.envelope.info[..];
            if let Some(&index) = at.get(&message.envelope.id) {
                let hindmost = preceded.entry(sender).or_insert(index);
                *hindmost = (*hindmost).max(index);
            } else if let Some((index, unclear)) = before
                && preceded.get(sender).is_some_and(|hindmost| hindmost >= index)
            {
                return Err(*unclear);
            }
        }
        self.insert(copy.into_iter().zip(before).filter_map(|(message, before)| Some((before?.0, message))));
        Ok(())
    }

    /// Puts messages before the places with these indices, in their order.
    fn insert(&mut self, messages: impl Iterator<Item = (usize, Located)>) {
        let mut by_index: BTreeMap<usize, Vec<Located>> = BTreeMap::new();
        messages.for_each(|(index, message)| by_index.entry(index).or_default().push(message));
        // From the back, so that the indices hold.
        for (index, messages) in by_index.into_iter().rev() {
            let placed = messages.into_iter().map(|message| (message.envelope.id, Some(message.envelope)));
            self.places.splice(index..index, placed);
        }
    }

    pub(super) fn messages(self) -> Vec<Envelope> {
        self.places.into_iter().filter_map(|(_, envelope)| envelope).collect()
    }
}
