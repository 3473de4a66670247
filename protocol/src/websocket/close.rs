//! The payload of close frames.

use super::{CONTROL_PAYLOAD_BYTES_MAX, ProtocolError};
use crate::DisconnectCode;

/// Bytes of a close reason at most.
pub const REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// Why a connection is closed, as RFC 6455 numbers it. 3000 and above belong to the layer above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// All is done.
    pub const NORMAL: Self = Self(1000);
    /// The endpoint goes away.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// The peer sent a kind of data that is not taken here.
    pub const UNSUPPORTED: Self = Self(1003);
    /// The peer sent text that is no UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// The peer broke a rule of the application.
    pub const POLICY: Self = Self(1008);
    /// The peer sent a message that is too big.
    pub const TOO_BIG: Self = Self(1009);
    /// The server failed.
    pub const INTERNAL: Self = Self(1011);

    /// Whether the code may stand in a close frame: 1000–1003, 1007–1014 and 3000–4999.
    pub const fn is_sendable(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

impl From<DisconnectCode> for CloseCode {
    /// Disconnect codes are close codes; one that is none (it came from an application) becomes 1011.
    fn from(code: DisconnectCode) -> Self {
        match u16::try_from(code.0).map(Self) {
            Ok(code) if code.is_sendable() => code,
            _ => Self::INTERNAL,
        }
    }
}

/// A received close frame's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CloseFrame<'a> {
    /// Why.
    pub code: CloseCode,
    /// In words, may be empty.
    pub reason: &'a str,
}

impl<'a> CloseFrame<'a> {
    /// Reads a close frame's payload; an empty one is `None`.
    ///
    /// # Errors
    /// One byte, a code that may not be sent, a reason that is no UTF-8.
    pub fn parse(payload: &'a [u8]) -> Result<Option<Self>, ProtocolError> {
        let (code, reason) = match payload {
            [] => return Ok(None),
            [_] => return Err(ProtocolError::BadClosePayload),
            [high, low, reason @ ..] => (CloseCode(u16::from_be_bytes([*high, *low])), reason),
        };
        if !code.is_sendable() {
            return Err(ProtocolError::BadCloseCode(code.0));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::InvalidUtf8)?;
        Ok(Some(Self { code, reason }))
    }
}

/// A close frame's payload to send.
#[derive(Debug, Clone, Copy)]
pub struct ClosePayload {
    bytes: [u8; CONTROL_PAYLOAD_BYTES_MAX],
    len: usize,
}

impl ClosePayload {
    /// Encodes a code and a reason, which is cut at a character boundary where it is over [`REASON_BYTES_MAX`].
    pub fn new(code: CloseCode, reason: &str) -> Self {
        let reason = &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)];
        let mut bytes = [0; CONTROL_PAYLOAD_BYTES_MAX];
        bytes[..2].copy_from_slice(&code.0.to_be_bytes());
        bytes[2..2 + reason.len()].copy_from_slice(reason);
        Self { bytes, len: 2 + reason.len() }
    }

    /// The answer to a received close frame: its code, without the reason; empty where it had none.
    pub fn echo(received: Option<CloseFrame<'_>>) -> Self {
        match received {
            Some(frame) => Self::new(frame.code, ""),
            None => Self { bytes: [0; CONTROL_PAYLOAD_BYTES_MAX], len: 0 },
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl From<DisconnectCode> for ClosePayload {
    fn from(code: DisconnectCode) -> Self {
        Self::new(code.into(), code.reason())
    }
}
