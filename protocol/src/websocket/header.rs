//! Frame headers.

use super::ProtocolError;

/// Bytes of payload that a control frame may carry.
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Bytes of the longest header without a mask.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

/// Bytes of the longest header: two, a 64-bit length, a mask key.
pub(super) const HEADER_BYTES_MAX: usize = 14;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    /// Goes on with the message in progress.
    Continuation = 0,
    /// Starts a text message.
    Text = 1,
    /// Starts a binary message.
    Binary = 2,
    /// Starts or answers the close handshake.
    Close = 8,
    /// Asks for a pong.
    Ping = 9,
    /// Answers a ping, or comes unasked.
    Pong = 10,
}

impl Opcode {
    /// Whether it is close, ping or pong.
    pub const fn is_control(self) -> bool {
        self as u8 >= 8
    }
}

/// A parsed frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Last frame of its message.
    pub fin: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The key, in a client's frame.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub payload_len: u64,
}

/// Parses the header at the front of `bytes`: `None` while it is incomplete, else the header and its length.
///
/// # Errors
/// What a header alone can violate: reserved bits, unknown opcode, fragmented or long control frame, bad length.
#[inline]
pub fn parse_header(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProtocolError> {
    let [first, rest @ ..] = bytes else { return Ok(None) };
    if first & 0x70 != 0 {
        return Err(ProtocolError::ReservedBits);
    }
    let fin = first & 0x80 != 0;
    let opcode = match first & 0x0f {
        0 => Opcode::Continuation,
        1 => Opcode::Text,
        2 => Opcode::Binary,
        8 => Opcode::Close,
        9 => Opcode::Ping,
        10 => Opcode::Pong,
        other => return Err(ProtocolError::UnknownOpcode(other)),
    };
    if opcode.is_control() && !fin {
        return Err(ProtocolError::FragmentedControl);
    }
    let [second, rest @ ..] = rest else { return Ok(None) };
    let (payload_len, rest, length_bytes) = match second & 0x7f {
        _ if opcode.is_control() && second & 0x7f > 125 => return Err(ProtocolError::ControlTooLong),
        126 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from(u16::from_be_bytes(*length)), rest, 2)
        }
        127 => {
            let Some((length, rest)) = rest.split_first_chunk() else { return Ok(None) };
            (u64::from_be_bytes(*length), rest, 8)
        }
        short => (u64::from(short), rest, 0),
    };
    let least = [0, 0, 126, 0, 0, 0, 0, 0, 1 << 16][length_bytes];
    if payload_len < least || payload_len > i64::MAX as u64 {
        return Err(ProtocolError::BadLength);
    }
    if second & 0x80 == 0 {
        return Ok(Some((Header { fin, opcode, mask: None, payload_len }, 2 + length_bytes)));
    }
    let Some((key, _)) = rest.split_first_chunk() else { return Ok(None) };
    Ok(Some((Header { fin, opcode, mask: Some(*key), payload_len }, 6 + length_bytes)))
}

impl Header {
    /// Writes the header to the front of `out` and returns its length: 2, 4 or 10, and 4 more with a mask.
    #[inline]
    pub fn write(&self, out: &mut [u8; HEADER_BYTES_MAX]) -> usize {
        out[0] = if self.fin { 0x80 } else { 0 } | self.opcode as u8;
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let end = match self.payload_len {
            short @ 0..126 => {
                out[1] = masked | short as u8;
                2
            }
            medium @ 126..0x1_0000 => {
                out[1] = masked | 126;
                out[2..4].copy_from_slice(&(medium as u16).to_be_bytes());
                4
            }
            long => {
                out[1] = masked | 127;
                out[2..10].copy_from_slice(&long.to_be_bytes());
                10
            }
        };
        match self.mask {
            None => end,
            Some(key) => {
                out[end..end + 4].copy_from_slice(&key);
                end + 4
            }
        }
    }
}
