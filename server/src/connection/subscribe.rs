//! `subscribe` and `unsubscribe`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use manifold_protocol::{DisconnectCode, ErrorCode, ReplyBody, SubscribeRequest, SubscribeResult};
use manifold_strategies::{Position, RoomId};

use super::Disconnect;
use super::commands::Client;
use super::pending::{FinishedJoin, Pending};
use super::publish::Publish;
use crate::epoch;
use crate::hub::{JoinFailed, Reservation, Room, Ticket, UNFLUSHED_BYTES_MAX};

/// One membership.
pub(super) struct Subscription {
    pub(super) room: Arc<Room>,
    slot: u32,
}

/// A subscribe command that waits for its room.
pub(super) struct Joining {
    room: RoomId,
    /// What the client sent for this room since. Commands take effect in the order in which they were sent.
    behind: VecDeque<Behind>,
}

/// A checked command that waits behind a join.
pub(super) enum Behind {
    Subscribe { id: u32, positioned: bool },
    Unsubscribe { id: u32 },
    Publish(Publish),
}

impl Joining {
    /// The caller has seen to it that there is space.
    pub(super) fn put_behind(&mut self, command: Behind) {
        self.behind.push_back(command);
    }

    pub(super) fn commands_behind(&self) -> usize {
        self.behind.len()
    }
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
        if self.joining_mut(&request.channel).is_some() {
            self.put_behind(id, &request.channel, Behind::Subscribe { id, positioned });
        } else {
            self.join(id, &request.channel, positioned);
        }
        Ok(())
    }

    fn check_subscribe(&self, request: &SubscribeRequest<'_>) -> Result<(), ErrorCode> {
        self.node.rooms().check_name(&request.channel)?;
        if request.tf.is_some() {
            return Err(ErrorCode::BAD_REQUEST);
        }
        if !request.token.is_empty() {
            // No key is configured that it could be verified with.
            return Err(ErrorCode::PERMISSION_DENIED);
        }
        Ok(())
    }

    fn join(&mut self, id: u32, channel: &str, positioned: bool) {
        if let Err(code) = self.check_place(channel) {
            self.refuse(id, code);
            return;
        }
        match self.node.hub().reserve(channel) {
            Reservation::Ready(ticket) => self.attach(id, ticket, positioned),
            Reservation::Failed => self.refuse(id, ErrorCode::INTERNAL),
            Reservation::Waiting(ticket, receiver) => {
                self.joining.push(Joining { room: ticket.room.id.clone(), behind: VecDeque::new() });
                let patience = Duration::from_millis(self.node.config().join_timeout_ms);
                let join = Box::pin(async move {
                    let outcome = match tokio::time::timeout(patience, receiver).await {
                        Ok(Ok(outcome)) => outcome,
                        _ => Err(JoinFailed),
                    };
                    FinishedJoin { id, positioned, ticket, outcome }
                });
                self.wait_for(Pending::Join(join));
                // Polled at the next turn, which this asks for.
                self.session.waker().wake();
            }
        }
    }

    /// Whether there is a place for one more membership.
    fn check_place(&mut self, channel: &str) -> Result<(), ErrorCode> {
        if self.is_subscribed(channel) {
            return Err(ErrorCode::ALREADY_SUBSCRIBED);
        }
        // The room may have sent this client away since.
        let session = &self.session;
        self.subscriptions.retain(|subscription| {
            subscription.room.id.as_str() != channel && subscription.room.holds(subscription.slot, session)
        });
        if self.subscriptions.len() + self.joining.len()
            >= self.node.config().rooms_per_connection_max as usize
        {
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        Ok(())
    }

    /// Lets a command wait for the room that is being joined.
    fn put_behind(&mut self, id: u32, channel: &str, command: Behind) {
        if self.is_full() {
            self.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
        } else if let Some(joining) = self.joining_mut(channel) {
            joining.put_behind(command);
        }
    }

    pub(super) fn is_subscribed(&self, channel: &str) -> bool {
        let mut of_channel = self.subscriptions.iter().filter(|own| own.room.id.as_str() == channel);
        of_channel.any(|own| own.room.holds(own.slot, &self.session))
    }

    pub(super) fn joining_mut(&mut self, channel: &str) -> Option<&mut Joining> {
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
        let room = ticket.room.id.clone();
        let index = self.joining.iter().position(|joining| joining.room == room);
        let behind = index.map(|index| self.joining.swap_remove(index).behind);
        match outcome {
            Ok(()) => self.attach(id, ticket, positioned),
            Err(JoinFailed) => self.refuse(id, ErrorCode::INTERNAL),
        }
        self.run_behind(room.as_str(), behind.unwrap_or_default());
    }

    /// Runs what waited behind a join, up to the next join.
    fn run_behind(&mut self, channel: &str, mut behind: VecDeque<Behind>) {
        while let Some(command) = behind.pop_front() {
            match command {
                Behind::Subscribe { id, positioned } => self.join(id, channel, positioned),
                Behind::Unsubscribe { id } => self.leave(id, channel),
                Behind::Publish(message) => self.hand_over(channel, message),
            }
            if let Some(joining) = self.joining_mut(channel) {
                joining.behind = behind;
                return;
            }
            // A long turn must not make its own client look slow.
            self.session.relieve(UNFLUSHED_BYTES_MAX);
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u32, channel: &str) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        if self.joining_mut(channel).is_some() {
            self.put_behind(id, channel, Behind::Unsubscribe { id });
        } else {
            self.leave(id, channel);
        }
        Ok(())
    }

    fn leave(&mut self, id: u32, channel: &str) {
        match self.subscriptions.iter().position(|own| own.room.id.as_str() == channel) {
            None => self.reply(id, ReplyBody::Unsubscribe),
            Some(index) => {
                let Subscription { room, slot } = self.subscriptions.swap_remove(index);
                let reply = || self.reply(id, ReplyBody::Unsubscribe);
                self.node.hub().detach(&room, slot, &self.session, reply);
            }
        }
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
