//! How a peer can break RFC 6455.

use super::CloseCode;

/// A violation by the peer. The connection is to be failed: send a close frame with [`close_code`](Self::close_code),
/// then close the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A reserved bit is set and no extension was negotiated.
    #[error("reserved bits are set")]
    ReservedBits,
    /// Opcode 3 to 7 or 11 to 15.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// A control frame without the final bit.
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes.
    #[error("control frame over 125 bytes")]
    ControlTooLong,
    /// A payload length in more bytes than it needs, or with the top bit set.
    #[error("payload length not encoded as it should be")]
    BadLength,
    /// A client's frame without a mask.
    #[error("client frame without a mask")]
    Unmasked,
    /// A server's frame with a mask.
    #[error("server frame with a mask")]
    Masked,
    /// A continuation frame while no message is in progress.
    #[error("continuation of no message")]
    NothingToContinue,
    /// A new message while another is in progress.
    #[error("new message inside a fragmented one")]
    ContinuationExpected,
    /// A text message or a close reason that is no UTF-8.
    #[error("text is not UTF-8")]
    InvalidUtf8,
    /// A close frame with one byte of payload.
    #[error("close frame of one byte")]
    BadClosePayload,
    /// A close code that may not be sent.
    #[error("close code {0} may not be sent")]
    BadCloseCode(u16),
    /// A frame over [`Limits::frame_bytes_max`](super::Limits::frame_bytes_max).
    #[error("frame over the limit")]
    FrameTooBig,
    /// A message over [`Limits::message_bytes_max`](super::Limits::message_bytes_max).
    #[error("message over the limit")]
    MessageTooBig,
}

impl ProtocolError {
    /// The code to close with.
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::InvalidUtf8 => CloseCode::INVALID_DATA,
            Self::FrameTooBig | Self::MessageTooBig => CloseCode::TOO_BIG,
            _ => CloseCode::PROTOCOL_ERROR,
        }
    }
}
