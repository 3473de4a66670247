//! Publishing through the server API.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use manifold_protocol::{ErrorCode, json};
use manifold_strategies::{Envelope, MessageId, RoomId};
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::clock::unix_us;
use crate::connection::reply_code;
use crate::epoch;
use crate::hub::Numbering;
use crate::node::Node;

/// A message of the API.
pub(crate) struct ApiPublish<'a> {
    /// JSON.
    pub(crate) data: &'a str,
    /// Requests with the same key and room are the same message; empty for none.
    pub(crate) idempotency_key: &'a str,
}

/// Publishes at once; the future waits for the acknowledgement and yields the API's result.
pub(crate) fn publish(
    node: &Arc<Node>,
    channel: &str,
    message: &ApiPublish<'_>,
) -> impl Future<Output = Result<Value, ErrorCode>> + use<> {
    let node = Arc::clone(node);
    let received_at_us = unix_us();
    let started =
        envelope(&node, channel, message, received_at_us).map(|envelope| node.backplane().publish(envelope));
    async move {
        match started?.await {
            Ok(position) => {
                node.metrics().observe_publish(unix_us().saturating_sub(received_at_us));
                let numbered = node.hub().numbering() != Numbering::None;
                Ok(if numbered && position.offset > 0 {
                    json!({ "offset": position.offset, "epoch": epoch::encode(position.epoch) })
                } else {
                    json!({})
                })
            }
            Err(error) => {
                node.metrics().count_backplane_error(error.kind());
                tracing::debug!(%error, "a publish of the API failed");
                Err(reply_code(error.kind()))
            }
        }
    }
}

fn envelope(
    node: &Node,
    channel: &str,
    message: &ApiPublish<'_>,
    published_at_us: u64,
) -> Result<Envelope, ErrorCode> {
    node.rooms().check_form(channel)?;
    let mut payload = Vec::with_capacity(message.data.len());
    json::append_raw(&mut payload, message.data.as_bytes());
    if payload.len() > node.config().message_bytes_max as usize {
        return Err(ErrorCode::LIMIT_EXCEEDED);
    }
    let id = match message.idempotency_key {
        "" => node.next_message_id(),
        key => idempotent_id(channel, key),
    };
    Ok(Envelope {
        room: RoomId::new(channel),
        id,
        published_at_us,
        info: Bytes::new(),
        payload: payload.into(),
    })
}

/// The same for the same room and key on every node, today and after an update.
pub(crate) fn idempotent_id(channel: &str, key: &str) -> MessageId {
    let mut hash = Xxh3::new();
    hash.update(&(channel.len() as u64).to_le_bytes());
    hash.update(channel.as_bytes());
    hash.update(key.as_bytes());
    MessageId(hash.digest128())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_depend_on_room_and_key() {
        assert_eq!(idempotent_id("a", "k"), idempotent_id("a", "k"));
        assert_ne!(idempotent_id("a", "k"), idempotent_id("a", "l"));
        assert_ne!(idempotent_id("a", "bk"), idempotent_id("ab", "k"));
        // Nodes of different versions must agree.
        assert_eq!(format!("{:?}", idempotent_id("room", "key")), "eaa8324526ad5d63f9c9a86fbb1c249e");
    }
}
