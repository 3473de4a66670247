//! A subscribe command of a client that comes back: what it missed is read, while the room holds live messages back for it. Then
//! it gets the one and the other in one go, or is told that it cannot recover.

use std::sync::Arc;

use manifold_protocol::{ErrorCode, ReplyBody, SubscribeResult};
use manifold_strategies::Error;

use super::commands::Client;
use super::pending::Pending;
use super::subscribe::{Joining, Subscription, Wish, subscribe_result};
use crate::history::{self, Missed, Since};
use crate::hub::{Ending, Recovery, Ticket};
use crate::metrics::RecoveryOutcome;

/// A client that comes back, and what history had for it.
pub(super) struct FinishedRecovery {
    id: u32,
    wish: Wish,
    recovery: Recovery,
    missed: Result<Arc<Missed>, Arc<Error>>,
}

impl Client {
    /// Reads what a client that stood at `since` has missed. Until that is there, its commands for this room wait.
    pub(super) fn recover(&mut self, id: u32, ticket: Ticket, wish: Wish, since: Since) {
        let recovery = self.node.hub().begin_recovery(ticket);
        let room = recovery.room().id.clone();
        self.joining.push(Joining::new(room.clone()));
        let node = Arc::clone(&self.node);
        let read = Box::pin(async move {
            let missed = history::read_missed(&node, &room, &since).await;
            FinishedRecovery { id, wish, recovery, missed }
        });
        self.begin_waiting_for(Pending::Recovery(read));
    }

    pub(super) fn finish_recovery(&mut self, finished: FinishedRecovery) {
        let FinishedRecovery { id, wish, recovery, missed } = finished;
        let room = recovery.room().id.clone();
        let behind = self.take_behind(&room);
        match missed {
            Ok(missed) => self.come_back(id, &wish, recovery, &missed),
            Err(error) => {
                drop(recovery);
                tracing::debug!(%room, %error, "history could not be read for a client that came back");
                self.node.metrics().count_backplane_error(error.kind());
                self.node.metrics().count_recovery(RecoveryOutcome::Failed, 0);
                // Temporary: the client tries again by itself.
                self.refuse(id, ErrorCode::INTERNAL);
            }
        }
        self.run_behind(room.as_str(), behind);
    }

    fn come_back(&mut self, id: u32, wish: &Wish, recovery: Recovery, missed: &Missed) {
        let bytes_max = self.reply_bytes_max();
        let reply = missed.reply(id).filter(|reply| reply.len() <= bytes_max);
        let unfit = match (&reply, missed.is_complete()) {
            (None, true) if missed.is_readable() => Some(RecoveryOutcome::TooLarge),
            (None, true) => Some(RecoveryOutcome::Unreadable),
            _ => None,
        };
        // A long turn must not make its own client look slow.
        self.session.relieve();
        let (session, answer) = (&self.session, &missed.answer);
        let entered =
            self.node.hub().finish_recovery(recovery, session, wish.grant, answer, unfit, |ending| {
                match ending {
                    Ending::Complete { held } => {
                        self.welcome_back(id, reply.as_deref().unwrap_or_default(), &held, missed.len())
                    }
                    Ending::Incomplete { top, grant, outcome } => {
                        let result = SubscribeResult { was_recovering: true, ..subscribe_result(top, grant) };
                        self.welcome_anew(id, wish, result, outcome)
                    }
                }
            });
        self.subscriptions.extend(entered.map(|(room, slot)| Subscription { room, slot }));
    }

    /// Gives a client everything that it missed. False: it cannot take that in now, and is to try again.
    fn welcome_back(&self, id: u32, reply: &[u8], held: &[u8], publications: usize) -> bool {
        let waiting = (self.session.outbox_bytes() + reply.len() + held.len()) as u64;
        if waiting > self.node.config().outbox_bytes_max {
            self.node.metrics().count_recovery(RecoveryOutcome::Busy, 0);
            self.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
            return false;
        }
        self.node.metrics().count_recovery(RecoveryOutcome::Recovered, publications);
        self.append(reply);
        if !held.is_empty() {
            self.append(held);
        }
        true
    }

    /// Tells a client that it cannot recover. False: it does not want to be here then.
    fn welcome_anew(
        &self,
        id: u32,
        wish: &Wish,
        result: SubscribeResult<'_>,
        outcome: RecoveryOutcome,
    ) -> bool {
        self.node.metrics().count_recovery(outcome, 0);
        if wish.must_recover {
            self.refuse(id, ErrorCode::UNRECOVERABLE_POSITION);
            return false;
        }
        self.reply(id, ReplyBody::Subscribe(result));
        true
    }

    /// Bytes of a reply at most: it has to find a place in the outbox, and so have a few pushes.
    pub(super) fn reply_bytes_max(&self) -> usize {
        let bytes = self.node.config().outbox_bytes_max / 4 * 3;
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}
