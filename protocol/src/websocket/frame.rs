//! Writing frames.

use super::header::HEADER_BYTES_MAX;
use super::{Header, Opcode, unmask};

/// Builds frames whose payload is written in place: the header goes into spare bytes in front of it, so the payload is
/// never moved. Reuse one builder per thread.
///
/// ```
/// # use manifold_protocol::websocket::{FrameBuilder, Opcode};
/// let mut builder = FrameBuilder::new();
/// builder.payload_mut().extend_from_slice(b"{}");
/// assert_eq!(builder.finish(Opcode::Text), b"\x81\x02{}");
/// builder.clear();
/// ```
#[derive(Debug, Clone)]
pub struct FrameBuilder {
    /// Spare bytes, then the payload.
    bytes: Vec<u8>,
}

impl Default for FrameBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl FrameBuilder {
    /// An empty payload.
    pub fn new() -> Self {
        Self { bytes: vec![0; HEADER_BYTES_MAX] }
    }

    /// Empties the payload and keeps the memory, unless that is more than `keep_bytes_max`.
    pub fn clear_within(&mut self, keep_bytes_max: usize) {
        self.bytes.truncate(HEADER_BYTES_MAX);
        self.bytes.shrink_to(keep_bytes_max);
    }

    /// Empties the payload and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES_MAX);
    }

    /// The vector to append the payload to. What it holds already (the spare bytes and what was appended before) must
    /// stay.
    pub fn payload_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The payload so far.
    pub fn payload(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES_MAX..]
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_BYTES_MAX
    }

    /// Writes a server's header in front of the payload and returns the frame.
    #[inline]
    pub fn finish(&mut self, opcode: Opcode) -> &[u8] {
        self.finish_with(opcode, None)
    }

    /// Masks the payload with `key` in place, writes a client's header in front of it and returns the frame. Once per
    /// payload.
    #[inline]
    pub fn finish_masked(&mut self, opcode: Opcode, key: [u8; 4]) -> &[u8] {
        unmask(&mut self.bytes[HEADER_BYTES_MAX..], key, 0);
        self.finish_with(opcode, Some(key))
    }

    fn finish_with(&mut self, opcode: Opcode, mask: Option<[u8; 4]>) -> &[u8] {
        let payload_len = (self.bytes.len() - HEADER_BYTES_MAX) as u64;
        let mut header = [0; HEADER_BYTES_MAX];
        let length = Header { fin: true, opcode, mask, payload_len }.write(&mut header);
        let start = HEADER_BYTES_MAX - length;
        self.bytes[start..HEADER_BYTES_MAX].copy_from_slice(&header[..length]);
        &self.bytes[start..]
    }
}

/// Appends a whole server's frame around `payload`.
#[inline]
pub fn append_server_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    append_frame(out, opcode, payload, None);
}

/// Appends a whole client's frame around `payload`, masked with `key` (random, and new for each frame, where the
/// other end or anything between is not trusted).
#[inline]
pub fn append_client_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: [u8; 4]) {
    let start = append_frame(out, opcode, payload, Some(key));
    unmask(&mut out[start..], key, 0);
}

fn append_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> usize {
    let mut header = [0; HEADER_BYTES_MAX];
    let length = Header { fin: true, opcode, mask, payload_len: payload.len() as u64 }.write(&mut header);
    out.reserve(length + payload.len());
    out.extend_from_slice(&header[..length]);
    let start = out.len();
    out.extend_from_slice(payload);
    start
}
