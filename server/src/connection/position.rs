//! Subscribers that want a position in a room of which this node does not know where it stands: the backplane is asked.

use std::sync::Arc;
use std::time::Duration;

use manifold_strategies::Position;

use super::commands::Client;
use super::pending::Pending;
use super::subscribe::{Joining, Wish};
use crate::history;
use crate::hub::Ticket;

/// A subscriber, and where its room stands, if anybody knows.
pub(super) struct FinishedPosition {
    id: u32,
    wish: Wish,
    ticket: Ticket,
    position: Option<Position>,
}

impl Client {
    /// Asks where a room stands. Until that is known, the subscriber's commands for this room wait.
    pub(super) fn ask_position(&mut self, id: u32, ticket: Ticket, wish: Wish) {
        let room = ticket.room.id.clone();
        self.joining.push(Joining::new(room.clone()));
        let node = Arc::clone(&self.node);
        let ask = Box::pin(async move {
            let patience = Duration::from_millis(node.config().join_timeout_ms);
            let position = tokio::time::timeout(patience, history::position(&node, &room)).await;
            FinishedPosition { id, wish, ticket, position: position.ok().flatten() }
        });
        self.begin_waiting_for(Pending::Position(ask));
    }

    pub(super) fn finish_position(&mut self, finished: FinishedPosition) {
        let FinishedPosition { id, wish, ticket, position } = finished;
        let room = ticket.room.id.clone();
        let behind = self.take_behind(&room);
        self.attach(id, ticket, &wish, position);
        self.run_behind(room.as_str(), behind);
    }
}
