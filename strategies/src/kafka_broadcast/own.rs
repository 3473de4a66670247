//! One life of this node: what it asked, what signs of life it sent, which of them came back.

use std::collections::VecDeque;
use std::time::Instant;

use super::record::Incarnation;
use crate::error::Result;

/// Signs of life that may be unconfirmed before the oldest are forgotten.
const SENT_MAX: usize = 64;

/// This life of the node.
pub(super) struct Own {
    pub(super) incarnation: Incarnation,
    /// When the `Join` was sent.
    pub(super) asked: Instant,
    /// Signs of life that were sent and not read back, oldest first. 0 is the `Join`.
    sent: VecDeque<(u64, Instant)>,
    next_sequence: u64,
    /// Its `Join` was read back.
    pub(super) admitted: bool,
    /// The writer writes by a view that includes every record before this offset.
    pub(super) through: u64,
    /// What of it the others were told.
    pub(super) told: u64,
    /// When the newest sign of life that was read back had been sent.
    pub(super) confirmed: Option<Instant>,
}

impl Own {
    pub(super) fn new() -> Result<Self> {
        let asked = Instant::now();
        Ok(Self {
            incarnation: Incarnation::random()?,
            asked,
            sent: VecDeque::from([(0, asked)]),
            next_sequence: 1,
            admitted: false,
            through: 0,
            told: 0,
            confirmed: None,
        })
    }

    /// Takes note that a sign of life is sent now; returns its number.
    pub(super) fn send(&mut self) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((sequence, Instant::now()));
        self.told = self.through;
        sequence
    }

    /// A sign of life came back: it proves membership as of when it was sent, and supersedes those before it.
    pub(super) fn confirm(&mut self, sequence: u64) {
        while let Some(&(oldest, sent)) = self.sent.front().filter(|(oldest, _)| *oldest <= sequence) {
            if oldest == sequence {
                self.confirmed = Some(sent);
            }
            self.sent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_counts_from_when_the_sign_of_life_was_sent() {
        let mut own = Own::new().unwrap();
        assert_eq!(own.confirmed, None);
        own.confirm(0);
        assert_eq!(own.confirmed, Some(own.asked));
        let (first, second) = (own.send(), own.send());
        own.confirm(second);
        let confirmed = own.confirmed;
        assert!(confirmed >= Some(own.asked));
        own.confirm(first);
        assert_eq!(own.confirmed, confirmed, "an overtaken one changes nothing");
    }

    #[test]
    fn what_is_never_confirmed_is_forgotten() {
        let mut own = Own::new().unwrap();
        for _ in 0..1_000 {
            own.send();
        }
        assert_eq!(own.sent.len(), SENT_MAX);
    }
}
