//! Buffers of outboxes between two uses: each thread keeps some, so that a write that has to wait its turn costs no allocation,
//! and an idle connection no memory.

use std::cell::RefCell;

/// Bytes of a new buffer: a few chat messages.
const NEW_BYTES: usize = 1024;
/// A buffer that has grown beyond this is not kept.
const KEPT_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a thread keeps.
const THREAD_BYTES_MAX: usize = 4 * 1024 * 1024;

thread_local! {
    static SPARE: RefCell<Spare> = const { RefCell::new(Spare { buffers: Vec::new(), bytes: 0 }) };
}

struct Spare {
    buffers: Vec<Vec<u8>>,
    /// Their capacities, summed.
    bytes: usize,
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

impl Spare {
    fn take(&mut self) -> Option<Vec<u8>> {
        let buffer = self.buffers.pop()?;
        self.bytes -= buffer.capacity();
        Some(buffer)
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
}
