//! `publish`: handed to the backplane in the order of the commands, answered when the backplane has answered.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use manifold_protocol::{DisconnectCode, ErrorCode, PublishRequest, ReplyBody};
use manifold_strategies::{Envelope, ErrorKind, MessageId, Position, Result as BackplaneResult, RoomId};

use super::Disconnect;
use super::commands::Client;
use super::pending::{Pending, PendingPublish};
use super::subscribe::Behind;
use crate::clock::unix_us;
use crate::publish::idempotent_id;

/// A message that a client sent, checked.
pub(super) struct Publish {
    id: u32,
    received_at_us: u64,
    payload: Bytes,
    /// From the client's idempotency key; absent without one.
    message_id: Option<MessageId>,
}

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
        let data = match self.check_publish(request) {
            Ok(data) => data,
            Err(code) => {
                self.refuse(id, code);
                return Ok(());
            }
        };
        let key = &*request.idempotency_key;
        let message = Publish {
            id,
            received_at_us: unix_us(),
            payload: Bytes::copy_from_slice(data.as_bytes()),
            message_id: (!key.is_empty()).then(|| idempotent_id(&request.channel, key)),
        };
        match self.joining_mut(&request.channel) {
            Some(joining) => joining.put_behind(Behind::Publish(message)),
            None => {
                self.hand_over(&request.channel, message);
                // What waits is woken only after it was polled.
                self.poll_pending(cx);
            }
        }
        Ok(())
    }

    fn check_publish<'r>(&self, request: &PublishRequest<'r>) -> Result<&'r str, ErrorCode> {
        self.node.rooms().check_name(&request.channel)?;
        let data = request.data.ok_or(ErrorCode::BAD_REQUEST)?.as_str();
        if self.is_full() {
            return Err(ErrorCode::TOO_MANY_REQUESTS);
        }
        // Now rather than after those that wait already: nobody is served sooner by waiting longer.
        if self.node.sweep().is_overloaded() {
            self.node.metrics().count_error("overloaded");
            return Err(ErrorCode::TOO_MANY_REQUESTS);
        }
        Ok(data)
    }

    /// Publishes, if this client may by now.
    pub(super) fn hand_over(&mut self, channel: &str, message: Publish) {
        let Publish { id, received_at_us, payload, message_id } = message;
        if self.node.config().publish_requires_subscription && !self.is_subscribed(channel) {
            self.refuse(id, ErrorCode::PERMISSION_DENIED);
            return;
        }
        let envelope = Envelope {
            room: self.room_id(channel),
            id: message_id.unwrap_or_else(|| self.node.next_message_id()),
            published_at_us: received_at_us,
            info: self.info(),
            payload,
        };
        // The call fixes the message's place; the future only waits for the acknowledgement.
        let mut outcome = self.node.backplane().publish(envelope);
        match Pin::new(&mut outcome).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => self.acknowledge(id, received_at_us, outcome),
            Poll::Pending => {
                self.wait_for(Pending::Publish(PendingPublish { id, received_at_us, outcome }));
            }
        }
    }

    /// The room's id, without an allocation where somebody here is in the room.
    pub(super) fn room_id(&self, channel: &str) -> RoomId {
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
