//! How an envelope travels through a broker: one compact binary record, the same for every strategy.
//!
//! ```text
//! 0      version (1)
//! 1      flags: bit 0 = a position follows the fixed header
//! 2..18  message id, big-endian
//! 18..26 published_at_us, big-endian
//! 26     room length in bytes (1..=255)
//! 27..29 info length in bytes, big-endian
//! 29..   [epoch u64, offset u64, big-endian]  room  info  payload (the rest)
//! ```
//! The room is in the record itself rather than in a header or key, because record headers allocate and parse per
//! record; [`View`] reads it without allocating, so that a node can skip rooms that nobody here wants.

use bytes::{BufMut, Bytes};

use crate::backplane::{Envelope, MessageId, Position, RoomId};
use crate::error::{Error, ErrorKind, Result};

const VERSION: u8 = 1;
const FLAG_POSITION: u8 = 1;
const FIXED_BYTES: usize = 29;
const POSITION_BYTES: usize = 16;

/// Longest `info` in bytes.
pub const INFO_BYTES_MAX: usize = 4096;
/// Longest payload in bytes; equal to the server's message limit.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Longest record in bytes: what a broker must accept.
pub const RECORD_BYTES_MAX: usize =
    FIXED_BYTES + POSITION_BYTES + RoomId::BYTES_MAX + INFO_BYTES_MAX + PAYLOAD_BYTES_MAX;

/// Refuses what the record cannot carry: an empty or over-long room, an over-long info or payload.
pub fn check(envelope: &Envelope) -> Result<()> {
    let too_large = |what: &str, len: usize, max: usize| {
        Err(Error::new(
            ErrorKind::TooLarge,
            "publish",
            format!("{what} has {len} bytes, at most {max} are carried"),
        ))
    };
    let room = envelope.room.as_str().len();
    if room == 0 {
        return Err(Error::new(ErrorKind::Config, "publish", "the room name is empty"));
    }
    if room > RoomId::BYTES_MAX {
        return too_large("the room name", room, RoomId::BYTES_MAX);
    }
    if envelope.info.len() > INFO_BYTES_MAX {
        return too_large("the publisher info", envelope.info.len(), INFO_BYTES_MAX);
    }
    if envelope.payload.len() > PAYLOAD_BYTES_MAX {
        return too_large("the payload", envelope.payload.len(), PAYLOAD_BYTES_MAX);
    }
    Ok(())
}

/// Appends the record of a [`check`]ed envelope to `out`.
pub fn encode(envelope: &Envelope, position: Option<Position>, out: &mut Vec<u8>) {
    let room = envelope.room.as_str().as_bytes();
    debug_assert!(check(envelope).is_ok(), "callers check first");
    out.reserve(FIXED_BYTES + POSITION_BYTES + room.len() + envelope.info.len() + envelope.payload.len());
    out.put_u8(VERSION);
    out.put_u8(if position.is_some() { FLAG_POSITION } else { 0 });
    out.put_u128(envelope.id.0);
    out.put_u64(envelope.published_at_us);
    out.put_u8(room.len() as u8);
    out.put_u16(envelope.info.len() as u16);
    if let Some(position) = position {
        out.put_u64(position.epoch);
        out.put_u64(position.offset);
    }
    out.put_slice(room);
    out.put_slice(&envelope.info);
    out.put_slice(&envelope.payload);
}

/// A record read in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// The message's identity.
    pub id: MessageId,
    /// When it was published, microseconds since the Unix epoch.
    pub published_at_us: u64,
    /// Its position, if the record carries one.
    pub position: Option<Position>,
    /// Its room.
    pub room: &'a str,
    /// The publisher's info.
    pub info: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> View<'a> {
    /// Reads a record. Any bytes that [`encode`] did not write are an error of kind `Corrupt`, never a panic.
    pub fn parse(record: &'a [u8]) -> Result<Self> {
        let (fixed, rest) =
            record.split_first_chunk::<FIXED_BYTES>().ok_or_else(|| corrupt("is too short"))?;
        if fixed[0] != VERSION {
            return Err(corrupt("has an unknown version: was it written by a newer node?"));
        }
        let (position, rest) = match fixed[1] {
            0 => (None, rest),
            FLAG_POSITION => {
                let (bytes, rest) =
                    rest.split_first_chunk::<POSITION_BYTES>().ok_or_else(|| corrupt("is cut short"))?;
                let (epoch, offset) = bytes.split_at(8);
                (Some(Position { epoch: be_u64(epoch), offset: be_u64(offset) }), rest)
            }
            _ => return Err(corrupt("has unknown flags: was it written by a newer node?")),
        };
        let room_len = usize::from(fixed[26]);
        let info_len = usize::from(u16::from_be_bytes([fixed[27], fixed[28]]));
        if room_len == 0 || rest.len() < room_len + info_len {
            return Err(corrupt("is cut short"));
        }
        let (room, rest) = rest.split_at(room_len);
        let (info, payload) = rest.split_at(info_len);
        if info_len > INFO_BYTES_MAX || payload.len() > PAYLOAD_BYTES_MAX {
            return Err(corrupt("is larger than any node writes"));
        }
        Ok(Self {
            id: MessageId((u128::from(be_u64(&fixed[2..10])) << 64) | u128::from(be_u64(&fixed[10..18]))),
            published_at_us: be_u64(&fixed[18..26]),
            position,
            room: std::str::from_utf8(room)
                .map_err(|source| corrupt("has a room that is not UTF-8").with_source(source))?,
            info,
            payload,
        })
    }

    /// An envelope of its own: one allocation for the room, one copy for info and payload together.
    pub fn to_envelope(&self) -> Envelope {
        let mut bytes = Vec::with_capacity(self.info.len() + self.payload.len());
        bytes.extend_from_slice(self.info);
        bytes.extend_from_slice(self.payload);
        let mut info = Bytes::from(bytes);
        let payload = info.split_off(self.info.len());
        Envelope {
            room: RoomId::new(self.room),
            id: self.id,
            published_at_us: self.published_at_us,
            info,
            payload,
        }
    }
}

fn be_u64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte))
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "decode", format!("a record {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_comes_back_as_it_was(
            room in "\\PC{1,60}", id: u128, at: u64, position in proptest::option::of(any::<(u64, u64)>()),
            info in proptest::collection::vec(any::<u8>(), 0..100), payload in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let envelope = Envelope {
                room: RoomId::new(room), id: MessageId(id), published_at_us: at, info: info.into(), payload: payload.into(),
            };
            prop_assume!(check(&envelope).is_ok());
            let position = position.map(|(epoch, offset)| Position { epoch, offset });
            let mut record = Vec::new();
            encode(&envelope, position, &mut record);
            let view = View::parse(&record).unwrap();
            prop_assert_eq!(view.position, position);
            prop_assert_eq!(view.to_envelope(), envelope);
        }

        #[test]
        fn any_bytes_are_read_or_refused(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = View::parse(&record);
        }

        #[test]
        fn a_changed_or_cut_record_never_panics(cut in 0usize..80, at in 0usize..80, byte: u8) {
            let envelope = Envelope {
                room: RoomId::new("room"), id: MessageId(7), published_at_us: 1, info: Bytes::from_static(b"{}"),
                payload: Bytes::from_static(b"0123456789"),
            };
            let mut record = Vec::new();
            encode(&envelope, Some(Position { epoch: 1, offset: 2 }), &mut record);
            if let Some(place) = record.get_mut(at) { *place = byte; }
            record.truncate(record.len().saturating_sub(cut));
            let _ = View::parse(&record);
        }
    }

    #[test]
    fn limits_are_checked() {
        let envelope = |room: &str, payload: usize| Envelope {
            room: RoomId::new(room),
            id: MessageId(0),
            published_at_us: 0,
            info: Bytes::new(),
            payload: vec![0; payload].into(),
        };
        assert!(check(&envelope("r", PAYLOAD_BYTES_MAX)).is_ok());
        assert_eq!(check(&envelope("r", PAYLOAD_BYTES_MAX + 1)).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(check(&envelope(&"r".repeat(256), 0)).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(check(&envelope("", 0)).unwrap_err().kind(), ErrorKind::Config);
    }
}
