//! `subscribe` and `unsubscribe`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use manifold_protocol::{DisconnectCode, ErrorCode, ReplyBody, SubscribeRequest, SubscribeResult};
use manifold_strategies::{Position, RoomId};

use super::Disconnect;
use super::commands::Client;
use super::pending::{FinishedJoin, Pending};
use super::presence::Question;
use super::publish::Publish;
use crate::epoch;
use crate::history::Since;
use crate::hub::{Grant, JoinFailed, Numbering, Reservation, Room, Ticket};

/// One membership.
pub(super) struct Subscription {
    pub(super) room: Arc<Room>,
    pub(super) slot: u32,
}

/// What a subscriber wishes for, as far as this node can grant it.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) grant: Grant,
    /// It comes back, and was here so far.
    pub(super) recover: Option<Since>,
    /// An error rather than a subscription that cannot recover.
    pub(super) must_recover: bool,
}

/// A subscribe command that waits for its room, or for what it missed there.
pub(super) struct Joining {
    room: RoomId,
    /// What the client sent for this room since. Commands take effect in the order in which they were sent.
    behind: VecDeque<Behind>,
}

/// A checked command that waits behind a join.
pub(super) enum Behind {
    Subscribe { id: u32, wish: Wish },
    Unsubscribe { id: u32 },
    Publish(Publish),
    Presence { id: u32, question: Question },
}

impl Joining {
    pub(super) fn new(room: RoomId) -> Self {
        Self { room, behind: VecDeque::new() }
    }

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
        let wish = self.wish(request);
        if self.joining_mut(&request.channel).is_some() {
            self.put_behind(id, &request.channel, Behind::Subscribe { id, wish });
        } else {
            self.join(id, &request.channel, wish);
        }
        Ok(())
    }

    fn wish(&self, request: &SubscribeRequest<'_>) -> Wish {
        let hub = self.node.hub();
        // Who comes back with a position wants to do so again.
        let recoverable = (request.recoverable || request.recover) && hub.keeps_history();
        // Loss can be noticed where positions count up by one, and is declared where what is kept has a position.
        let positioned = recoverable || (request.positioned && hub.numbering() != Numbering::None);
        let since = || Since { offset: request.offset, epoch: Box::from(&*request.epoch) };
        Wish {
            grant: Grant {
                positioned,
                recoverable,
                join_leave: request.join_leave && hub.presence().is_some(),
            },
            recover: request.recover.then(since),
            must_recover: request.flag.error_when_unrecoverable(),
        }
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

    fn join(&mut self, id: u32, channel: &str, wish: Wish) {
        if let Err(code) = self.check_place(channel) {
            self.refuse(id, code);
            return;
        }
        match self.node.hub().reserve(channel) {
            Reservation::Ready(ticket) => self.enter(id, ticket, wish),
            Reservation::Failed => self.refuse(id, ErrorCode::INTERNAL),
            Reservation::Waiting(ticket, receiver) => {
                self.joining.push(Joining::new(ticket.room.id.clone()));
                let patience = Duration::from_millis(self.node.config().join_timeout_ms);
                let join = Box::pin(async move {
                    let outcome = match tokio::time::timeout(patience, receiver).await {
                        Ok(Ok(outcome)) => outcome,
                        _ => Err(JoinFailed),
                    };
                    FinishedJoin { id, wish, ticket, outcome }
                });
                self.begin_waiting_for(Pending::Join(join));
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
    pub(super) fn put_behind(&mut self, id: u32, channel: &str, command: Behind) {
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

    /// Makes a member of a subscriber whose room is joined, unless it comes back: then what it missed has to be read first.
    fn enter(&mut self, id: u32, ticket: Ticket, wish: Wish) {
        match &wish.recover {
            Some(since) if wish.grant.recoverable => {
                let since = since.clone();
                self.recover(id, ticket, Wish { recover: None, ..wish }, since);
                return;
            }
            // Nothing is kept.
            Some(_) if wish.must_recover => {
                self.refuse(id, ErrorCode::UNRECOVERABLE_POSITION);
                return;
            }
            _ => {}
        }
        if wish.grant.positioned && !self.node.hub().knows_position(&ticket.room) {
            self.ask_position(id, ticket, wish);
        } else {
            self.attach(id, ticket, &wish, None);
        }
    }

    /// Makes a member of a subscriber; `asked` is where the room stands if only the backplane knew.
    pub(super) fn attach(&mut self, id: u32, ticket: Ticket, wish: &Wish, asked: Option<Position>) {
        let was_recovering = wish.recover.is_some();
        let hub = self.node.hub();
        let (room, slot) = hub.attach(ticket, &self.session, wish.grant, asked, |position, grant| {
            let result = SubscribeResult { was_recovering, ..subscribe_result(position, grant) };
            self.reply(id, ReplyBody::Subscribe(result));
        });
        self.subscriptions.push(Subscription { room, slot });
    }

    pub(super) fn finish_join(&mut self, join: FinishedJoin) {
        let FinishedJoin { id, wish, ticket, outcome } = join;
        let room = ticket.room.id.clone();
        let behind = self.take_behind(&room);
        match outcome {
            Ok(()) => self.enter(id, ticket, wish),
            Err(JoinFailed) => self.refuse(id, ErrorCode::INTERNAL),
        }
        self.run_behind(room.as_str(), behind);
    }

    /// Ends the wait for a room, and takes what waited behind it.
    pub(super) fn take_behind(&mut self, room: &RoomId) -> VecDeque<Behind> {
        let index = self.joining.iter().position(|joining| joining.room == *room);
        index.map(|index| self.joining.swap_remove(index).behind).unwrap_or_default()
    }

    /// Runs what waited behind a subscribe command, up to the next one that has to wait.
    pub(super) fn run_behind(&mut self, channel: &str, mut behind: VecDeque<Behind>) {
        loop {
            if let Some(joining) = self.joining_mut(channel) {
                joining.behind = behind;
                return;
            }
            let Some(command) = behind.pop_front() else { return };
            match command {
                Behind::Subscribe { id, wish } => self.join(id, channel, wish),
                Behind::Unsubscribe { id } => self.leave(id, channel),
                Behind::Publish(message) => self.hand_over(channel, message),
                Behind::Presence { id, question } => self.tell_presence(id, channel, question),
            }
            // A long turn must not make its own client look slow.
            self.session.relieve();
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

pub(super) fn subscribe_result(position: Position, grant: Grant) -> SubscribeResult<'static> {
    if !grant.positioned {
        return SubscribeResult::default();
    }
    SubscribeResult {
        recoverable: grant.recoverable,
        positioned: grant.positioned,
        epoch: epoch::encode(position.epoch).into(),
        offset: position.offset,
        ..SubscribeResult::default()
    }
}
