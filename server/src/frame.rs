//! Frames of the server's own: replies, pings, closes. (Pushes are built in the fan-out.)

use std::cell::RefCell;
use std::sync::LazyLock;

use manifold_protocol::DisconnectCode;
use manifold_protocol::websocket::{CloseCode, ClosePayload, FrameBuilder, Opcode, append_server_frame};

/// The server's ping: an empty reply.
pub(crate) const PING: &[u8] = b"\x81\x02{}";

/// A thread's builder keeps this much memory between replies.
const BUILDER_KEPT_BYTES: usize = 16 * 1024;

thread_local! {
    static BUILDER: RefCell<FrameBuilder> = RefCell::new(FrameBuilder::new());
}

/// Builds a text frame in this thread's builder and lends it to `take`.
pub(crate) fn with_text<R>(build: impl FnOnce(&mut Vec<u8>), take: impl FnOnce(&[u8]) -> R) -> R {
    BUILDER.with_borrow_mut(|builder| {
        builder.clear_within(BUILDER_KEPT_BYTES);
        build(builder.payload_mut());
        take(builder.finish(Opcode::Text))
    })
}

/// A text frame of its own.
pub(crate) fn text(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    with_text(build, <[u8]>::to_vec)
}

/// A frame around a control payload.
pub(crate) fn control(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 2);
    append_server_frame(&mut frame, opcode, payload);
    frame
}

/// A close frame.
pub(crate) fn close(code: CloseCode, reason: &str) -> Vec<u8> {
    control(Opcode::Close, ClosePayload::new(code, reason).as_bytes())
}

/// The close frame that ends a slow consumer's connection.
pub(crate) fn close_slow() -> &'static [u8] {
    static FRAME: LazyLock<Vec<u8>> =
        LazyLock::new(|| close(DisconnectCode::SLOW.into(), DisconnectCode::SLOW.reason()));
    &FRAME
}
