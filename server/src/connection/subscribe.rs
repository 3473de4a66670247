//! `subscribe` and `unsubscribe`.

use std::sync::Arc;
use std::time::Duration;

use manifold_protocol::{DisconnectCode, ErrorCode, ReplyBody, SubscribeRequest, SubscribeResult};
use manifold_strategies::{Position, RoomId};

use super::Disconnect;
use super::commands::Client;
use super::pending::{FinishedJoin, Pending};
use crate::epoch;
use crate::hub::{JoinFailed, Reservation, Room, Ticket};

/// One membership.
pub(super) struct Subscription {
    pub(super) room: Arc<Room>,
    slot: u32,
}

/// A subscribe command that waits for its room.
pub(super) struct Joining {
    room: RoomId,
    /// The client unsubscribed meanwhile, with this command.
    unsubscribe_id: Option<u32>,
}

impl Client {
    pub(super) fn subscribe(&mut self, id: u32, request: &SubscribeRequest<'_>) -> Result<(), Disconnect> {
        let known_delta = request.delta.is_empty() || request.delta == "fossil";
        if request.channel.is_empty() || !known_delta {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        if let Err(code) = self.check_subscribe(request) {
            self.refuse(id, code);
            return Ok(());
        }
        // Loss can be noticed only where positions count up by one.
        let positioned = request.positioned && self.node.hub().dense();
        match self.node.hub().reserve(&request.channel) {
            Reservation::Ready(ticket) => self.attach(id, ticket, positioned),
            Reservation::Failed => self.refuse(id, ErrorCode::INTERNAL),
            Reservation::Waiting(ticket, receiver) => {
                self.joining.push(Joining { room: ticket.room.id.clone(), unsubscribe_id: None });
                let patience = Duration::from_millis(self.node.config().join_timeout_ms);
                let join = Box::pin(async move {
                    let outcome = match tokio::time::timeout(patience, receiver).await {
                        Ok(Ok(outcome)) => outcome,
                        _ => Err(JoinFailed),
                    };
                    FinishedJoin { id, positioned, ticket, outcome }
                });
                self.pending.get_or_insert_default().push(Pending::Join(join));
                // Polled at the next turn, which this asks for.
                self.session.waker().wake();
            }
        }
        Ok(())
    }

    fn check_subscribe(&mut self, request: &SubscribeRequest<'_>) -> Result<(), ErrorCode> {
        self.node.rooms().check_name(&request.channel)?;
        if request.tf.is_some() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if let Some(joining) = self.joining_mut(&request.channel) {
            // Subscribe, unsubscribe, subscribe while the first is still on its way: the client may try again.
            let code = if joining.unsubscribe_id.is_some() {
                ErrorCode::TOO_MANY_REQUESTS
            } else {
                ErrorCode::ALREADY_SUBSCRIBED
            };
            return Err(code);
        }
        if self.is_subscribed(&request.channel) {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        // The room may have sent this client away since.
        let session = &self.session;
        self.subscriptions.retain(|subscription| {
            subscription.room.id.as_str() != request.channel
                && subscription.room.holds(subscription.slot, session)
        });
        if self.subscriptions.len() + self.joining.len()
            >= self.node.config().rooms_per_connection_max as usize
        {
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        Ok(())
    }

    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        let mut of_channel = self.subscriptions.iter().filter(|own| own.room.id.as_str() == channel);
        of_channel.any(|own| own.room.holds(own.slot, &self.session))
    }

    fn joining_mut(&mut self, channel: &str) -> Option<&mut Joining> {
        self.joining.iter_mut().find(|joining| joining.room.as_str() == channel)
    }

    fn attach(&mut self, id: u32, ticket: Ticket, positioned: bool) {
        let (room, slot) = self.node.hub().attach(ticket, &self.session, positioned, |position| {
            self.reply(id, ReplyBody::Subscribe(subscribe_result(position, positioned)));
        });
        self.subscriptions.push(Subscription { room, slot });
    }

    pub(super) fn finish_join(&mut self, join: FinishedJoin) {
        let FinishedJoin { id, positioned, ticket, outcome } = join;
        let index = self.joining.iter().position(|joining| joining.room == ticket.room.id);
        let unsubscribe_id = index.and_then(|index| self.joining.swap_remove(index).unsubscribe_id);
        match (outcome, unsubscribe_id) {
            (Err(JoinFailed), _) => self.refuse(id, ErrorCode::INTERNAL),
            (Ok(()), None) => self.attach(id, ticket, positioned),
            // Here and gone: both commands are answered, in order, and no push comes in between.
            (Ok(()), Some(_)) => self.reply(id, ReplyBody::Subscribe(SubscribeResult::default())),
        }
        if let Some(unsubscribe_id) = unsubscribe_id {
            self.reply(unsubscribe_id, ReplyBody::Unsubscribe);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u32, channel: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        if let Some(joining) = self.joining_mut(channel)
            && joining.unsubscribe_id.is_none()
        {
            joining.unsubscribe_id = Some(id);
            return Ok(());
        }
        match self.subscriptions.iter().position(|own| own.room.id.as_str() == channel) {
            None => self.reply(id, ReplyBody::Unsubscribe),
            Some(index) => {
                let Subscription { room, slot } = self.subscriptions.swap_remove(index);
                let reply = || self.reply(id, ReplyBody::Unsubscribe);
                self.node.hub().detach(&room, slot, &self.session, reply);
            }
        }
        Ok(())
    }

    /// Ends every membership and forgets every command under way.
    pub(super) fn leave_all(&mut self) {
        self.pending = None;
        self.joining = Vec::new();
        for Subscription { room, slot } in std::mem::take(&mut self.subscriptions) {
            self.node.hub().detach(&room, slot, &self.session, || {});
        }
    }
}

fn subscribe_result(position: Position, positioned: bool) -> SubscribeResult<'static> {
    if !positioned {
        return SubscribeResult::default();
    }
    SubscribeResult {
        positioned,
        epoch: epoch::encode(position.epoch).into(),
        offset: position.offset,
        ..SubscribeResult::default()
    }
}
