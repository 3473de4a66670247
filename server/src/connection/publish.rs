//! `publish`: handed to the backplane in the order of the commands, answered when the backplane has answered.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use manifold_protocol::{DisconnectCode, ErrorCode, PublishRequest, ReplyBody};
use manifold_strategies::{Envelope, ErrorKind, Position, Result as BackplaneResult, RoomId};

use super::Disconnect;
use super::commands::Client;
use super::pending::{Pending, PendingPublish};
use crate::clock::unix_us;

impl Client {
    pub(super) fn publish(
        &mut self,
        id: u32,
        request: &PublishRequest<'_>,
        cx: &mut Context<'_>,
    ) -> Result<(), Disconnect> {
        if request.channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        match self.check_publish(request) {
            Ok(data) => self.hand_over(id, &request.channel, data, cx),
            Err(code) => self.refuse(id, code),
        }
        Ok(())
    }

    fn check_publish<'r>(&self, request: &PublishRequest<'r>) -> Result<&'r str, ErrorCode> {
        self.node.rooms().check_name(&request.channel)?;
        let data = request.data.ok_or(ErrorCode::BAD_REQUEST)?.as_str();
        if self.node.config().publish_requires_subscription && !self.is_subscribed(&request.channel) {
            return Err(ErrorCode::PERMISSION_DENIED);
        }
        if self.pending_len() >= self.node.config().pending_commands_max as usize {
            return Err(ErrorCode::TOO_MANY_REQUESTS);
        }
        Ok(data)
    }

    fn hand_over(&mut self, id: u32, channel: &str, data: &str, cx: &mut Context<'_>) {
        let received_at_us = unix_us();
        let envelope = Envelope {
            room: self.room_id(channel),
            id: self.node.next_message_id(),
            published_at_us: received_at_us,
            info: self.info(),
            payload: Bytes::copy_from_slice(data.as_bytes()),
        };
        // The call fixes the message's place; the future only waits for the acknowledgement.
        let mut outcome = self.node.backplane().publish(envelope);
        match Pin::new(&mut outcome).poll(cx) {
            Poll::Ready(outcome) => self.acknowledge(id, received_at_us, outcome),
            Poll::Pending => {
                self.wait_for(Pending::Publish(PendingPublish { id, received_at_us, outcome }), cx);
            }
        }
    }

    /// The room's id, without an allocation where somebody here is in the room.
    fn room_id(&self, channel: &str) -> RoomId {
        let own = self.subscriptions.iter().find(|subscription| subscription.room.id.as_str() == channel);
        match own {
            Some(subscription) => subscription.room.id.clone(),
            None => {
                self.node.hub().find(channel).map_or_else(|| RoomId::new(channel), |room| room.id.clone())
            }
        }
    }

    pub(super) fn acknowledge(&mut self, id: u32, received_at_us: u64, outcome: BackplaneResult<Position>) {
        match outcome {
            Ok(_) => {
                self.node.metrics().observe_publish(unix_us().saturating_sub(received_at_us));
                self.reply(id, ReplyBody::Publish);
            }
            Err(error) => {
                self.node.metrics().count_backplane_error(error.kind());
                tracing::debug!(%error, "a publish failed");
                self.refuse(id, reply_code(error.kind()));
            }
        }
    }
}

/// What a client is told when the backplane fails.
pub(crate) fn reply_code(kind: ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::Overloaded => ErrorCode::TOO_MANY_REQUESTS,
        ErrorKind::TooLarge => ErrorCode::LIMIT_EXCEEDED,
        _ => ErrorCode::INTERNAL,
    }
}
