//! Removes duplicates by message id within a bounded window.

use std::collections::{HashSet, VecDeque};

use crate::backplane::MessageId;

/// Remembers the last `capacity` message ids. About 80 bytes per remembered id, allocated as it fills.
#[derive(Debug)]
pub struct DedupWindow {
    capacity: usize,
    seen: HashSet<MessageId>,
    oldest_first: VecDeque<MessageId>,
}

impl DedupWindow {
    /// Default number of ids that a node remembers: over 6 s of 10,000 messages per second, about 5 MiB.
    pub const CAPACITY: usize = 65_536;

    /// A window of `capacity` ids, at least 1.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), seen: HashSet::new(), oldest_first: VecDeque::new() }
    }

    /// Remembers `id`. True if it is new, false if it is a duplicate (which keeps its first place in the window).
    pub fn insert(&mut self, id: MessageId) -> bool {
        if !self.seen.insert(id) {
            return false;
        }
        // Room is made first: one entry beyond the capacity would double the queue's memory for good.
        if self.oldest_first.len() == self.capacity
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.oldest_first.push_back(id);
        true
    }

    /// Whether `id` is within the window.
    pub fn contains(&self, id: MessageId) -> bool {
        self.seen.contains(&id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_full_window_takes_no_more_memory() {
        // A power of two, as the default is: the queue's memory grows in those.
        let capacity = 1024;
        let mut window = DedupWindow::new(capacity);
        for id in 0..3 * capacity as u128 {
            assert!(window.insert(MessageId(id)));
        }
        assert_eq!((window.seen.len(), window.oldest_first.len()), (capacity, capacity));
        assert!(window.oldest_first.capacity() <= capacity, "{}", window.oldest_first.capacity());
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_window(capacity in 1usize..20, ids in proptest::collection::vec(0u128..40, 0..300)) {
            let mut window = DedupWindow::new(capacity);
            let mut naive: Vec<u128> = Vec::new();
            for id in ids {
                let expected = !naive.contains(&id);
                if expected {
                    naive.push(id);
                    if naive.len() > capacity { naive.remove(0); }
                }
                prop_assert_eq!(window.insert(MessageId(id)), expected);
                prop_assert_eq!(window.seen.len(), naive.len());
            }
        }
    }
}
