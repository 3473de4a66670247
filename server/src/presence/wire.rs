//! What nodes say to each other about presence: one compact binary message per envelope of the control room.
//!
//! ```text
//! 0      version (1)
//! 1      kind
//! 2..10  the sending node, big-endian as all numbers
//! 10..   heartbeat: sequence u64, entries u64        batch: sequence u64, operations
//!        request:   targets u64…                     call, goodbye: nothing
//!        chunk:     sequence u64, snapshot u64, index u32, flags u8 (bit 0 = last, bit 1 = a key follows),
//!                   [room (length u8, bytes), client u128], operations
//! ```
//! An operation is a byte and what it needs: 0 names the room of those that follow (length u8, bytes), 1 is a client that
//! came (client u128, then user, conn_info and chan_info, each length u16 and bytes), 2 one that left (client u128).
//!
//! Whatever this version does not write is refused, never guessed at. A node of another version is one that is not there.

mod read;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::BufMut;
use manifold_strategies::RoomId;

use super::table::{Key, NodeId};
use super::who::{INFO_BYTES_MAX, USER_BYTES_MAX, Who};
pub(super) use read::sender;

const VERSION: u8 = 1;
const HEADER_BYTES: usize = 10;
/// Bytes of a message at most.
pub(super) const MESSAGE_BYTES_MAX: usize = 32 * 1024;
/// Nodes that one request asks at most.
pub(super) const TARGETS_MAX: usize = 1024;

const FLAG_LAST: u8 = 1;
const FLAG_AFTER: u8 = 2;

const OP_ROOM: u8 = 0;
const OP_JOIN: u8 = 1;
const OP_LEAVE: u8 = 2;

/// A message, and who sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) from: NodeId,
    pub(super) body: Body,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// The sender lives; so many batches it has sent, and so many entries it has after them.
    Heartbeat { sequence: u64, entries: u64 },
    /// Who came and went at the sender, in order.
    Batch { sequence: u64, ops: Vec<Op> },
    /// These nodes are to send a snapshot.
    Request { targets: Vec<NodeId> },
    /// A part of the sender's snapshot.
    Chunk(Chunk),
    /// All nodes are to send a heartbeat.
    Call,
    /// The sender goes, and so do all its entries.
    Goodbye,
}

/// Somebody came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Join(RoomId, Arc<Who>),
    Leave(RoomId, u128),
}

/// All that a node has in a range of its entries, as of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chunk {
    /// The sender's last batch before it.
    pub(super) sequence: u64,
    /// Numbers the snapshots of a node.
    pub(super) snapshot: u64,
    /// Numbers the chunks of a snapshot, from 0.
    pub(super) index: u32,
    /// The range begins behind this entry.
    pub(super) after: Option<Key>,
    /// The range has no end: this is the last chunk.
    pub(super) last: bool,
    /// In ascending order; the range ends with the last of them.
    pub(super) entries: Vec<(RoomId, Arc<Who>)>,
}

/// Why a message is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("it has version {0}: was it written by a newer node?")]
    Version(u8),
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
}

impl Message {
    /// Writes a message.
    pub(super) fn encode(from: NodeId, body: &Body) -> Vec<u8> {
        let kind = match body {
            Body::Heartbeat { .. } => 0,
            Body::Batch { .. } => 1,
            Body::Request { .. } => 2,
            Body::Chunk(_) => 3,
            Body::Call => 4,
            Body::Goodbye => 5,
        };
        let mut out = Vec::with_capacity(64);
        out.put_u8(VERSION);
        out.put_u8(kind);
        out.put_u64(from);
        match body {
            Body::Heartbeat { sequence, entries } => {
                out.put_u64(*sequence);
                out.put_u64(*entries);
            }
            Body::Batch { sequence, ops } => {
                out.put_u64(*sequence);
                let mut room = None;
                ops.iter().for_each(|op| append_op(&mut out, &mut room, op.room(), op.who_or_client()));
            }
            Body::Request { targets } => targets.iter().for_each(|target| out.put_u64(*target)),
            Body::Chunk(chunk) => append_chunk(&mut out, chunk),
            Body::Call | Body::Goodbye => {}
        }
        out
    }
}

impl Op {
    fn room(&self) -> &RoomId {
        match self {
            Self::Join(room, _) | Self::Leave(room, _) => room,
        }
    }

    fn who_or_client(&self) -> Result<&Who, u128> {
        match self {
            Self::Join(_, who) => Ok(who),
            Self::Leave(_, client) => Err(*client),
        }
    }

    /// Bytes that it takes at most.
    fn bytes_max(&self) -> usize {
        let who = match self {
            Self::Join(_, who) => who_bytes(who),
            Self::Leave(..) => 17,
        };
        2 + self.room().as_str().len() + who
    }
}

fn who_bytes(who: &Who) -> usize {
    17 + 6 + who.user.len() + who.conn_info.len() + who.chan_info.len()
}

/// Counts how much fits into a message.
#[derive(Debug)]
pub(super) struct Space(usize);

impl Space {
    /// Of a batch.
    pub(super) fn of_batch() -> Self {
        Self(MESSAGE_BYTES_MAX - HEADER_BYTES - 8)
    }

    /// Of a chunk behind `after`.
    pub(super) fn of_chunk(after: Option<&Key>) -> Self {
        let after = after.map_or(0, |key| 1 + key.room.as_str().len() + 16);
        Self(MESSAGE_BYTES_MAX - HEADER_BYTES - 21 - after)
    }

    /// Takes the space of an operation, if it is there.
    pub(super) fn take(&mut self, op: &Op) -> bool {
        self.take_bytes(op.bytes_max())
    }

    /// Takes the space of an entry, if it is there.
    pub(super) fn take_entry(&mut self, room: &RoomId, who: &Who) -> bool {
        self.take_bytes(2 + room.as_str().len() + who_bytes(who))
    }

    fn take_bytes(&mut self, bytes: usize) -> bool {
        match self.0.checked_sub(bytes) {
            Some(left) => {
                self.0 = left;
                true
            }
            None => false,
        }
    }
}

fn append_chunk(out: &mut Vec<u8>, chunk: &Chunk) {
    out.put_u64(chunk.sequence);
    out.put_u64(chunk.snapshot);
    out.put_u32(chunk.index);
    let last = if chunk.last { FLAG_LAST } else { 0 };
    out.put_u8(last | if chunk.after.is_some() { FLAG_AFTER } else { 0 });
    if let Some(after) = &chunk.after {
        append_room(out, &after.room);
        out.put_u128(after.client);
    }
    let mut room = None;
    for (of, who) in &chunk.entries {
        append_op(out, &mut room, of, Ok(who));
    }
}

fn append_op<'o>(out: &mut Vec<u8>, room: &mut Option<&'o RoomId>, of: &'o RoomId, what: Result<&Who, u128>) {
    if *room != Some(of) {
        out.put_u8(OP_ROOM);
        append_room(out, of);
        *room = Some(of);
    }
    match what {
        Ok(who) => {
            out.put_u8(OP_JOIN);
            out.put_u128(who.client);
            append_text(out, &who.user, USER_BYTES_MAX);
            append_text(out, &who.conn_info, INFO_BYTES_MAX);
            append_text(out, &who.chan_info, INFO_BYTES_MAX);
        }
        Err(client) => {
            out.put_u8(OP_LEAVE);
            out.put_u128(client);
        }
    }
}

fn append_room(out: &mut Vec<u8>, room: &RoomId) {
    let bytes = room.as_str().as_bytes();
    out.put_u8(u8::try_from(bytes.len()).expect("the hub's rooms have at most 255 bytes"));
    out.put_slice(bytes);
}

fn append_text(out: &mut Vec<u8>, text: &str, bytes_max: usize) {
    debug_assert!(text.len() <= bytes_max, "presence takes none longer");
    out.put_u16(u16::try_from(text.len()).expect("presence takes none longer"));
    out.put_slice(text.as_bytes());
}
