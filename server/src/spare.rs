//! Buffers of outboxes between two uses: each thread keeps some, so that a write that has to wait its turn costs no allocation,
//! and an idle connection no memory. What a worker of the runtime did not need for a second it gives up when it next wakes.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// Bytes of a new buffer: a few chat messages.
const NEW_BYTES: usize = 1024;
/// A buffer that has grown beyond this is not kept.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a thread keeps.
const THREAD_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Buffers that a thread has not needed for so long are not kept.
const UNUSED_MAX: Duration = Duration::from_secs(1);

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare::new()) };
}

struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Their capacities, summed.
    bytes: usize,
    /// How many of them lay here all the time since `counted_at`.
    unused: usize,
    counted_at: Option<Instant>,
}

/// An empty buffer.
pub(crate) fn take() -> Vec<u8> {
    // A thread that ends has none any more.
    let kept = SPARE.try_with(|spare| spare.borrow_mut().take()).ok().flatten();
    kept.unwrap_or_else(|| Vec::with_capacity(NEW_BYTES))
}

/// Keeps a buffer for its next use, on whichever thread it ends up.
pub(crate) fn give_back(buffer: Vec<u8>) {
    if (NEW_BYTES..=KEPT_BYTES_MAX).contains(&buffer.capacity()) {
        let _ = SPARE.try_with(|spare| spare.borrow_mut().keep(buffer));
    }
}

/// Gives up what this thread did not need for a while. To be called now and then.
pub(crate) fn trim(now: Instant) {
    let _ = SPARE.try_with(|spare| spare.borrow_mut().trim(now));
}

impl Spare {
    const fn new() -> Self {
        Self { buffers: Vec::new(), bytes: 0, unused: 0, counted_at: None }
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop()?;
        self.bytes -= buffer.capacity();
        self.unused = self.unused.min(self.buffers.len());
        Some(buffer)
    }

    fn trim(&mut self, now: Instant) {
        let since = *self.counted_at.get_or_insert(now);
        if now.saturating_duration_since(since) < UNUSED_MAX {
            return;
        }
        self.counted_at = Some(now);
        self.bytes -= self.buffers.drain(..self.unused).map(|buffer| buffer.capacity()).sum::<usize>();
        self.buffers.shrink_to(2 * self.buffers.len());
        self.unused = self.buffers.len();
    }

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.bytes + buffer.capacity();
        if bytes <= THREAD_BYTES_MAX {
            buffer.clear();
            self.bytes = bytes;
            self.buffers.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_taken_again_and_empty() {
        let mut buffer = take();
        buffer.extend_from_slice(&[7; 3_000]);
        let capacity = buffer.capacity();
        give_back(buffer);
        let again = take();
        assert!(again.is_empty() && again.capacity() == capacity);
        give_back(vec![7; 10]);
        assert!(take().capacity() >= NEW_BYTES, "what holds next to nothing is not kept");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        give_back(Vec::with_capacity(KEPT_BYTES_MAX + 1));
        SPARE.with_borrow(|spare| assert!(spare.buffers.is_empty()));
        for _ in 0..2 * THREAD_BYTES_MAX / NEW_BYTES {
            give_back(Vec::with_capacity(NEW_BYTES));
        }
        SPARE.with_borrow(|spare| {
            assert_eq!(spare.bytes, spare.buffers.iter().map(Vec::capacity).sum::<usize>());
            assert!((1..=THREAD_BYTES_MAX).contains(&spare.bytes));
        });
    }

    #[test]
    fn what_was_not_needed_for_a_while_is_given_up() {
        let (mut spare, start) = (Spare::new(), Instant::now());
        spare.trim(start);
        (1..=4).for_each(|size| spare.keep(Vec::with_capacity(size * NEW_BYTES)));
        spare.trim(start + UNUSED_MAX);
        assert_eq!(spare.buffers.len(), 4, "they have come meanwhile");
        let used = spare.take().unwrap();
        spare.keep(used);
        spare.trim(start + UNUSED_MAX * 3 / 2);
        assert_eq!(spare.buffers.len(), 4, "it is not time yet");
        spare.trim(start + 2 * UNUSED_MAX);
        assert_eq!((spare.buffers.len(), spare.bytes), (1, 4 * NEW_BYTES), "the one that was needed stays");
        spare.trim(start + 3 * UNUSED_MAX);
        assert_eq!((spare.buffers.len(), spare.bytes), (0, 0));
    }
}
