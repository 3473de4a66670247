//! What the null server remembers of a room, and what it gets wrong on purpose when members come back.

use std::collections::VecDeque;

use manifold_protocol::json::Json;
use manifold_protocol::{Publication, SubscribeRequest, SubscribeResult};

use super::Misbehaviour;

/// Every room's epoch: this server never starts over.
const EPOCH: &str = "null";

/// The newest messages of a room.
#[derive(Debug, Default)]
pub(super) struct History {
    messages: VecDeque<(u64, Box<str>)>,
    /// Offset of the newest; 0 before the first.
    top: u64,
}

impl History {
    /// Remembers a message, and forgets the oldest beyond `max`; returns its offset.
    pub(super) fn push(&mut self, data: &[u8], max: usize) -> u64 {
        self.top += 1;
        self.messages.push_back((self.top, String::from_utf8_lossy(data).into()));
        if self.messages.len() > max {
            self.messages.pop_front();
        }
        self.top
    }

    /// Everything after `offset`, if that is all there.
    fn after(&self, offset: u64) -> Option<Vec<(u64, Box<str>)>> {
        let missed = self.top.checked_sub(offset)? as usize;
        let first = self.messages.len().checked_sub(missed)?;
        Some(self.messages.range(first..).cloned().collect())
    }

    /// The newest messages, `count` at most.
    pub(super) fn newest(&self, count: usize) -> Vec<(u64, Box<str>)> {
        self.messages.range(self.messages.len().saturating_sub(count)..).cloned().collect()
    }

    /// What a member gets that joins or comes back.
    pub(super) fn welcome(&self, request: &SubscribeRequest<'_>) -> Welcome {
        let known = request.epoch.is_empty() || request.epoch == EPOCH;
        let missed = if request.recover && known { self.after(request.offset) } else { None };
        Welcome {
            is_kept: true,
            was_recovering: request.recover,
            recovered: missed.is_some(),
            offset: if missed.is_some() { request.offset } else { self.top },
            missed: missed.unwrap_or_default(),
            again: Vec::new(),
        }
    }
}

/// The answer to a member that joins or comes back.
#[derive(Debug, Default)]
pub(super) struct Welcome {
    /// Whether there is a history at all.
    is_kept: bool,
    was_recovering: bool,
    recovered: bool,
    offset: u64,
    missed: Vec<(u64, Box<str>)>,
    /// What comes right behind it, though it should not.
    again: Vec<(u64, Box<str>)>,
}

impl Welcome {
    /// Whether there is something in it that could go wrong.
    pub(super) fn is_spoilable(&self) -> bool {
        self.missed.len() > 1
    }

    /// Does to it what a faulty server would.
    pub(super) fn spoil(&mut self, misbehaviour: Misbehaviour) {
        let middle = self.missed.len() / 2;
        match misbehaviour {
            Misbehaviour::Forget { .. } | Misbehaviour::Cover { .. } => {
                self.missed.remove(middle);
            }
            Misbehaviour::Recur { .. } => self.missed.insert(middle, self.missed[middle].clone()),
            Misbehaviour::Shuffle { .. } => self.missed.swap(middle - 1, middle),
            Misbehaviour::Ignore { .. } => {
                self.refuse();
                self.was_recovering = false;
            }
            _ => {}
        }
    }

    /// Says that what was missed is lost.
    pub(super) fn refuse(&mut self) {
        self.recovered = false;
        self.offset = self.missed.last().map_or(self.offset, |newest| newest.0);
        self.missed.clear();
    }

    /// Says so, and gives messages all the same: with the answer, or behind it.
    pub(super) fn rerun(&mut self, newest: Vec<(u64, Box<str>)>, behind: bool) {
        self.refuse();
        *(if behind { &mut self.again } else { &mut self.missed }) = newest;
    }

    /// What comes right behind the answer.
    pub(super) fn again(&self) -> &[(u64, Box<str>)] {
        &self.again
    }

    pub(super) fn result(&self) -> SubscribeResult<'_> {
        SubscribeResult {
            recoverable: self.is_kept,
            positioned: self.is_kept,
            epoch: if self.is_kept { EPOCH.into() } else { "".into() },
            offset: self.offset,
            recovered: self.recovered,
            was_recovering: self.was_recovering,
            publications: self.missed.iter().map(publication).collect(),
            ..SubscribeResult::default()
        }
    }
}

fn publication((offset, data): &(u64, Box<str>)) -> Publication<'_> {
    Publication { offset: *offset, data: Some(Json::trusted(data)), ..Publication::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(history: &History, offset: u64, epoch: &str) -> (bool, u64, Vec<u64>) {
        let request =
            SubscribeRequest { recover: true, offset, epoch: epoch.into(), ..SubscribeRequest::default() };
        let welcome = history.welcome(&request);
        let offsets = welcome.result().publications.iter().map(|one| one.offset).collect();
        (welcome.recovered, welcome.offset, offsets)
    }

    #[test]
    fn what_is_not_remembered_is_not_claimed() {
        let mut history = History::default();
        assert_eq!(welcome(&history, 0, EPOCH), (true, 0, vec![]));
        for offset in 1..=5 {
            assert_eq!(history.push(b"1", 3), offset);
        }
        assert_eq!(welcome(&history, 5, EPOCH), (true, 5, vec![]));
        assert_eq!(welcome(&history, 2, EPOCH), (true, 2, vec![3, 4, 5]));
        assert_eq!(welcome(&history, 2, ""), (true, 2, vec![3, 4, 5]));
        assert_eq!(welcome(&history, 1, EPOCH), (false, 5, vec![]));
        assert_eq!(welcome(&history, 6, EPOCH), (false, 5, vec![]));
        assert_eq!(welcome(&history, 5, "other"), (false, 5, vec![]));
    }
}
