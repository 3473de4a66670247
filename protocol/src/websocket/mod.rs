//! RFC 6455 frames and handshake, for both roles, without I/O.
//!
//! [`Reader`] turns received bytes into events: give it each read's bytes with [`Reader::feed`] and take the events
//! out of the returned [`Input`]. A whole, unfragmented message is unmasked in place and borrowed from those bytes;
//! only what is split over reads or fragments is copied. It keeps no buffer while nothing is split, so one read
//! buffer per thread serves any number of connections.
//!
//! To write, [`FrameBuilder`] puts the header in front of a payload that was built in place (once per message, then
//! shared by all members of a room), and the `append_…` functions frame bytes that exist already.
//!
//! Extensions (compression) are not spoken: none is offered, so reserved bits are errors.

mod close;
mod error;
mod frame;
pub mod handshake;
mod header;
mod mask;
mod reader;

pub use close::{CloseCode, CloseFrame, ClosePayload, REASON_BYTES_MAX};
pub use error::ProtocolError;
pub use frame::{FrameBuilder, append_client_frame, append_server_frame};
pub use header::{CONTROL_PAYLOAD_BYTES_MAX, Header, Opcode, SERVER_HEADER_BYTES_MAX, parse_header};
pub use mask::unmask;
pub use reader::{Event, Input, Limits, Reader, Role};
