//! Reading what other nodes wrote. Any bytes are read or refused; none make this panic.

use std::sync::Arc;

use manifold_protocol::Json;
use manifold_strategies::RoomId;

use super::{
    Body, Chunk, FLAG_AFTER, FLAG_LAST, HEADER_BYTES, Key, MESSAGE_BYTES_MAX, Message, NodeId, OP_JOIN,
    OP_LEAVE, OP_ROOM, Op, Refused, TARGETS_MAX, VERSION,
};
use crate::presence::who::{INFO_BYTES_MAX, USER_BYTES_MAX, Who};

type Result<T> = std::result::Result<T, Refused>;

/// Who sent a message.
pub(in crate::presence) fn sender(message: &[u8]) -> Result<NodeId> {
    let mut rest = Rest(message);
    match rest.u8()? {
        VERSION => {}
        version => return Err(Refused::Version(version)),
    }
    rest.u8()?;
    rest.u64()
}

impl Message {
    /// Reads a message; all of its bytes must be part of it.
    pub(in crate::presence) fn decode(message: &[u8]) -> Result<Self> {
        let from = sender(message)?;
        if message.len() > MESSAGE_BYTES_MAX {
            return Err(Refused::Malformed("longer than any node writes"));
        }
        let mut rest = Rest(&message[HEADER_BYTES..]);
        let body = match message[1] {
            0 => Body::Heartbeat { sequence: rest.u64()?, entries: rest.u64()? },
            1 => Body::Batch { sequence: rest.u64()?, ops: rest.ops()? },
            2 => Body::Request { targets: rest.targets()? },
            3 => Body::Chunk(rest.chunk()?),
            4 => Body::Call,
            5 => Body::Goodbye,
            _ => return Err(Refused::Malformed("an unknown kind")),
        };
        if !rest.0.is_empty() {
            return Err(Refused::Malformed("bytes behind its end"));
        }
        Ok(Self { from, body })
    }
}

/// What of a message is still to be read.
struct Rest<'m>(&'m [u8]);

impl<'m> Rest<'m> {
    fn bytes(&mut self, count: usize) -> Result<&'m [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count).ok_or(Refused::Malformed("cut short"))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk::<N>().ok_or(Refused::Malformed("cut short"))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn u128(&mut self) -> Result<u128> {
        self.array().map(u128::from_be_bytes)
    }

    fn room(&mut self) -> Result<RoomId> {
        let length = self.u8()?;
        if length == 0 {
            return Err(Refused::Malformed("a room without a name"));
        }
        let bytes = self.bytes(length.into())?;
        let name = std::str::from_utf8(bytes).map_err(|_| Refused::Malformed("a room that is not UTF-8"))?;
        Ok(RoomId::new(name))
    }

    fn text(&mut self, bytes_max: usize) -> Result<&'m str> {
        let length = usize::from(self.u16()?);
        if length > bytes_max {
            return Err(Refused::Malformed("a text longer than any node writes"));
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Refused::Malformed("a text that is not UTF-8"))
    }

    fn json(&mut self) -> Result<Box<str>> {
        let text = self.text(INFO_BYTES_MAX)?;
        if !text.is_empty() && Json::parse(text).is_err() {
            return Err(Refused::Malformed("an info that is not JSON"));
        }
        Ok(text.into())
    }

    fn who(&mut self) -> Result<Arc<Who>> {
        let client = self.u128()?;
        let user = self.text(USER_BYTES_MAX)?.into();
        Ok(Arc::new(Who { client, user, conn_info: self.json()?, chan_info: self.json()? }))
    }

    fn ops(&mut self) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        let mut room: Option<RoomId> = None;
        while !self.0.is_empty() {
            let kind = self.u8()?;
            if kind == OP_ROOM {
                room = Some(self.room()?);
                continue;
            }
            let room = room.clone().ok_or(Refused::Malformed("an operation without a room"))?;
            ops.push(match kind {
                OP_JOIN => Op::Join(room, self.who()?),
                OP_LEAVE => Op::Leave(room, self.u128()?),
                _ => return Err(Refused::Malformed("an unknown operation")),
            });
        }
        Ok(ops)
    }

    fn targets(&mut self) -> Result<Vec<NodeId>> {
        if self.0.len() > TARGETS_MAX * 8 {
            return Err(Refused::Malformed("more targets than any node asks"));
        }
        let mut targets = Vec::with_capacity(self.0.len() / 8);
        while !self.0.is_empty() {
            targets.push(self.u64()?);
        }
        Ok(targets)
    }

    fn chunk(&mut self) -> Result<Chunk> {
        let (sequence, snapshot, index) = (self.u64()?, self.u64()?, self.u32()?);
        let flags = self.u8()?;
        if flags & !(FLAG_LAST | FLAG_AFTER) != 0 {
            return Err(Refused::Malformed("unknown flags"));
        }
        let last = flags & FLAG_LAST != 0;
        let after = if flags & FLAG_AFTER != 0 {
            Some(Key { room: self.room()?, client: self.u128()? })
        } else {
            None
        };
        let mut entries = Vec::new();
        let mut end = after.clone();
        for op in self.ops()? {
            let Op::Join(room, who) = op else {
                return Err(Refused::Malformed("a snapshot in which somebody leaves"));
            };
            let key = Key { room: room.clone(), client: who.client };
            if end.as_ref().is_some_and(|end| key <= *end) {
                return Err(Refused::Malformed("a snapshot out of order"));
            }
            end = Some(key);
            entries.push((room, who));
        }
        if entries.is_empty() && !last {
            return Err(Refused::Malformed("a chunk without entries that is not the last"));
        }
        Ok(Chunk { sequence, snapshot, index, after, last, entries })
    }
}
