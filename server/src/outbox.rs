//! A session's bounded send queue: bytes of whole frames, and who owes them a write.
//!
//! # Who writes
//! Whoever has a frame writes it straight to the socket, if nothing waits before it. Otherwise the frame is appended, and
//! one of two flags says who will write it: `touched`, the thread that holds the session on its list of sessions to
//! flush; `scheduled`, the session's own task, once the socket was full. *A buffer that is not empty has one of them
//! set.* Both are read and changed under the session's outbox lock only, so no wake-up is lost.
//!
//! # The policy for slow consumers
//! A client that does not read fills first the kernel's buffers, then this outbox up to its limit (1 MiB by default).
//! The append that would pass the limit turns the outbox [`Slow`](Standing::Slow): everything unsent is thrown away at once, except
//! the rest of a frame that is half on the wire, and a close frame 3008 "slow" is put behind it. From there on
//! appends are no-ops: the room never waits for it and never pays for it again. The task gives the client five
//! seconds to read that far, then cuts the connection. A client that reads again sees 3008 and reconnects.
//!
//! One answer that the client asked for may go beyond the limit: until it is written, the limit is higher by its length.
//!
//! # Whose memory
//! An outbox that is empty owns none: the first frame takes a buffer from those that lie [spare](crate::spare) in the thread,
//! and the last byte that leaves gives it back.

use crate::spare;

/// Of what is held back from a client that reads, this much at most: a burst must not look like a slow consumer.
pub(crate) const UNFLUSHED_BYTES_MAX: usize = 32 * 1024;

/// Frames on their way to one client.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that finish a frame whose start is already on the wire.
    partial: usize,
    /// Bytes beyond the limit, for a large answer that is being written.
    extra: usize,
    /// The session's own task owes a write.
    pub(crate) scheduled: bool,
    /// A thread has the session on its list of sessions to flush.
    pub(crate) touched: bool,
    pub(crate) standing: Standing,
}

/// What may still be added.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Anything.
    #[default]
    Open,
    /// Nothing: a close frame is the last one.
    Closing,
    /// Nothing: the client read too slowly, and the close frame says so.
    Slow,
    /// Nothing: the socket failed.
    Broken,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Appended {
    /// It is in the buffer, or was not wanted any more.
    Done,
    /// It would have passed the limit: the outbox is slow now.
    Overflow,
}

impl Outbox {
    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer
    }

    /// Adds whole frames behind everything else, within `limit` bytes; `close_slow` is the frame that replaces them
    /// when they do not fit.
    pub(crate) fn append(&mut self, frames: &[u8], limit: usize, close_slow: &[u8]) -> Appended {
        if self.standing != Standing::Open {
            return Appended::Done;
        }
        if self.buffer.len() + frames.len() > limit + self.extra {
            self.standing = Standing::Slow;
            self.cut(close_slow);
            return Appended::Overflow;
        }
        self.put(frames);
        Appended::Done
    }

    /// Adds a whole frame, however long it is. False: another one that was added like this has not been written yet.
    pub(crate) fn append_answer(&mut self, frame: &[u8]) -> bool {
        if self.extra > 0 {
            return false;
        }
        if self.standing == Standing::Open {
            self.extra = frame.len();
            self.put(frame);
        }
        true
    }

    /// Whether a frame that was added like this has not been written yet.
    pub(crate) fn has_answer(&self) -> bool {
        self.extra > 0
    }

    /// Adds the last frame. What waits before it will be sent first.
    pub(crate) fn append_close(&mut self, frame: &[u8]) {
        if self.standing == Standing::Open {
            self.standing = Standing::Closing;
            self.put(frame);
        }
    }

    /// Adds the rest of `frames`, of which the socket took the first `sent` bytes. The buffer was empty.
    pub(crate) fn keep_rest(&mut self, frames: &[u8], sent: usize) {
        debug_assert!(self.buffer.is_empty());
        self.partial = unfinished_bytes(frames, 0, sent);
        self.put(&frames[sent..]);
    }

    fn put(&mut self, bytes: &[u8]) {
        if self.buffer.capacity() == 0 {
            self.buffer = spare::take();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The socket took the first `sent` bytes.
    pub(crate) fn consume(&mut self, sent: usize) {
        if sent == self.buffer.len() {
            self.clear();
            return;
        }
        self.partial = unfinished_bytes(&self.buffer, self.partial, sent);
        self.buffer.drain(..sent);
    }

    /// The socket failed: nothing more will be sent.
    pub(crate) fn fail(&mut self) {
        self.standing = Standing::Broken;
        self.clear();
    }

    fn clear(&mut self) {
        self.partial = 0;
        self.extra = 0;
        spare::give_back(std::mem::take(&mut self.buffer));
    }

    /// Throws away all whole frames and puts `last` behind what is half on the wire.
    fn cut(&mut self, last: &[u8]) {
        let mut kept = Vec::with_capacity(self.partial + last.len());
        kept.extend_from_slice(&self.buffer[..self.partial]);
        kept.extend_from_slice(last);
        self.buffer = kept;
    }
}

/// How many bytes after `sent` belong to a frame that began before it. `bytes` starts with `partial` bytes that finish
/// an earlier frame; whole, unmasked frames follow.
fn unfinished_bytes(bytes: &[u8], partial: usize, sent: usize) -> usize {
    let mut boundary = partial;
    while boundary < sent {
        boundary += frame_bytes(&bytes[boundary..]);
    }
    boundary - sent
}

/// Length of the unmasked frame, header included, that `bytes` starts with.
fn frame_bytes(bytes: &[u8]) -> usize {
    match bytes[1] {
        126 => 4 + usize::from(u16::from_be_bytes([bytes[2], bytes[3]])),
        127 => {
            let length: [u8; 8] = bytes[2..10].try_into().expect("eight bytes were taken");
            10 + usize::try_from(u64::from_be_bytes(length))
                .expect("a frame in memory fits the address space")
        }
        length => 2 + usize::from(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A text frame with `length` bytes of payload.
    fn frame(length: usize) -> Vec<u8> {
        let mut bytes = vec![0x81];
        if length < 126 {
            bytes.push(u8::try_from(length).unwrap());
        } else if length < 65_536 {
            bytes.push(126);
            bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
        } else {
            bytes.push(127);
            bytes.extend_from_slice(&u64::try_from(length).unwrap().to_be_bytes());
        }
        bytes.resize(bytes.len() + length, b'x');
        bytes
    }

    #[test]
    fn a_frame_cut_at_any_byte_is_finished_before_the_close_frame() {
        for length in [0, 1, 125, 126, 300, 65_535, 65_536] {
            let frames = [frame(3), frame(length), frame(7)].concat();
            let step = (frames.len() / 500).max(1);
            for sent in (1..frames.len()).step_by(step) {
                let mut outbox = Outbox::default();
                outbox.keep_rest(&frames, sent);
                let rest = frames.len() - sent;
                assert_eq!(outbox.append(&frame(10), rest + 12, b"close"), Appended::Done);
                assert_eq!(outbox.append(&[0x81, 0], rest + 12, b"close"), Appended::Overflow);
                let on_the_wire = [&frames[..sent], outbox.bytes()].concat();
                let whole = on_the_wire.strip_suffix(b"close").unwrap();
                let boundaries = [0, 5, 5 + frame(length).len(), frames.len()];
                assert!(boundaries.contains(&whole.len()), "cut inside a frame: {sent} of {}", frames.len());
                assert!(frames.starts_with(whole));
            }
        }
    }

    #[test]
    fn consuming_in_steps_keeps_the_boundary() {
        let frames = [frame(3), frame(200), frame(7)].concat();
        for first in 1..frames.len() {
            for second in 1..frames.len() - first {
                let mut outbox = Outbox::default();
                outbox.append(&frames, 10_000, b"");
                outbox.consume(first);
                outbox.consume(second);
                assert_eq!(outbox.partial, unfinished_bytes(&frames, 0, first + second));
                assert_eq!(outbox.len(), frames.len() - first - second);
            }
        }
    }

    #[test]
    fn a_large_answer_raises_the_limit_until_it_is_written() {
        let mut outbox = Outbox::default();
        outbox.append(&frame(8), 20, b"slow");
        assert!(outbox.append_answer(&frame(100)) && !outbox.append_answer(&frame(1)));
        assert_eq!(outbox.append(&frame(8), 20, b"slow"), Appended::Done);
        let more = outbox.append(&frame(0), 20, b"slow");
        assert_eq!(more, Appended::Overflow, "the answer's bytes are not for others");
        let mut outbox = Outbox::default();
        assert!(outbox.append_answer(&frame(100)));
        outbox.consume(50);
        assert!(!outbox.append_answer(&frame(100)));
        outbox.consume(52);
        assert!(outbox.append_answer(&frame(100)), "it is written");
    }

    #[test]
    fn nothing_is_added_after_the_end() {
        let mut outbox = Outbox::default();
        outbox.append_close(b"bye");
        assert_eq!(outbox.append(b"late", 100, b""), Appended::Done);
        assert_eq!(outbox.bytes(), b"bye");
        outbox.fail();
        outbox.append_close(b"late");
        assert!(outbox.is_empty());
    }

    #[test]
    fn an_empty_outbox_owns_no_memory() {
        let mut outbox = Outbox::default();
        for bytes in [1, 4096] {
            outbox.append(&vec![0; bytes], 10_000, b"");
            outbox.consume(bytes);
            assert_eq!(outbox.buffer.capacity(), 0);
        }
    }
}
