//! How long a message took to its slowest member, worked out as deliveries come in.

use std::collections::VecDeque;

/// Messages of one stream that may be under way at once; older ones that never complete are given up.
const OPEN_MAX: usize = 4_096;
const DONE: u32 = u32::MAX;

/// One thread's view of one stream's messages that have not reached all of that thread's members.
#[derive(Debug, Default)]
pub struct LastMember {
    /// Sequence of the front.
    first: u32,
    /// Members reached so far, and the longest latency among them.
    open: VecDeque<(u32, u32)>,
}

impl LastMember {
    /// A member of this thread got message `sequence` after `latency_us`; `members` of them are to get it. Returns the
    /// longest latency when it was the last.
    ///
    /// Members that join or leave while a message is under way may make it complete early or never; messages that
    /// never complete have no slowest member.
    #[inline]
    pub fn reached(&mut self, sequence: u32, latency_us: u32, members: u32) -> Option<u32> {
        if members == 1 {
            return Some(latency_us);
        }
        let place = sequence.checked_sub(self.first)? as usize;
        if place >= self.open.len() {
            self.grow(sequence);
        }
        let place = (sequence - self.first) as usize;
        let (reached, longest_us) = &mut self.open[place];
        if *reached == DONE {
            return None;
        }
        *reached += 1;
        *longest_us = (*longest_us).max(latency_us);
        if *reached < members {
            return None;
        }
        let longest_us = *longest_us;
        *reached = DONE;
        while self.open.front().is_some_and(|front| front.0 == DONE) {
            self.open.pop_front();
            self.first += 1;
        }
        Some(longest_us)
    }

    /// Makes room for `sequence`, which is beyond the end.
    fn grow(&mut self, sequence: u32) {
        let end = self.first + self.open.len() as u32;
        if (sequence - end) as usize >= OPEN_MAX || self.open.is_empty() {
            self.open.clear();
            self.first = sequence;
        }
        while self.first + (self.open.len() as u32) <= sequence {
            if self.open.len() == OPEN_MAX {
                self.open.pop_front();
                self.first += 1;
            }
            self.open.push_back((0, 0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_the_members_completes_a_message() {
        let mut stream = LastMember::default();
        assert_eq!(stream.reached(0, 5, 3), None);
        assert_eq!(stream.reached(1, 7, 3), None);
        assert_eq!(stream.reached(0, 9, 3), None);
        assert_eq!(stream.reached(1, 6, 3), None);
        assert_eq!(stream.reached(1, 2, 3), Some(7));
        assert_eq!(stream.reached(0, 1, 3), Some(9));
        assert!(stream.open.is_empty());
        assert_eq!(stream.reached(1, 1, 3), None, "already complete");
    }

    #[test]
    fn messages_that_never_complete_are_given_up() {
        let mut stream = LastMember::default();
        for sequence in 0..20_000 {
            assert_eq!(stream.reached(sequence, 1, 2), None);
            assert!(stream.open.len() <= OPEN_MAX);
        }
        assert_eq!(stream.reached(19_999, 4, 2), Some(4));
        assert_eq!(stream.reached(3, 4, 2), None);
        assert_eq!(stream.reached(4_000_000_000, 4, 2), None);
        assert_eq!(stream.reached(4_000_000_000, 5, 2), Some(5));
    }
}
