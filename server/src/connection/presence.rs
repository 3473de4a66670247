//! `presence` and `presence_stats`: who is in a room, in the whole cluster.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use manifold_protocol::websocket::{Opcode, append_server_frame};
use manifold_protocol::{DisconnectCode, ErrorCode, ReplyBody};

use super::Disconnect;
use super::commands::Client;
use super::pending::Pending;
use super::subscribe::Behind;
use crate::presence::{self, TooLong};

/// Answers up to this size are replies like any other.
const ORDINARY_BYTES_MAX: usize = 32 * 1024;

/// An answer that is being written, page by page.
pub(super) type PresenceAnswer = Pin<Box<dyn Future<Output = FinishedPresence> + Send>>;

/// An answer to a `presence` command.
pub(super) struct FinishedPresence {
    id: u32,
    answer: Result<Vec<u8>, TooLong>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// Who is there.
    Clients,
    /// How many are.
    Stats,
}

impl Client {
    pub(super) fn presence(&mut self, id: u32, channel: &str, question: Question) -> Result<(), Disconnect> {
        if channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        let checked = self.node.rooms().check_name(channel);
        match checked {
            Err(code) => self.refuse(id, code),
            Ok(()) if self.joining_mut(channel).is_some() => {
                self.put_behind(id, channel, Behind::Presence { id, question });
            }
            Ok(()) => self.tell_presence(id, channel, question),
        }
        Ok(())
    }

    pub(super) fn tell_presence(&mut self, id: u32, channel: &str, question: Question) {
        let Some(presence) = self.node.hub().presence().map(Arc::clone) else {
            self.refuse(id, ErrorCode::NOT_AVAILABLE);
            return;
        };
        if question == Question::Stats {
            self.reply(id, ReplyBody::PresenceStats(presence.stats(channel)));
            return;
        }
        // A large answer takes memory and work: one at a time, and none for a client that has not read the last one.
        if self.is_full() || self.is_telling_presence() || self.session.has_answer() {
            self.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
            return;
        }
        let outbox_bytes_max = usize::try_from(self.node.config().outbox_bytes_max).unwrap_or(usize::MAX);
        let bytes_max = outbox_bytes_max.saturating_mul(2);
        let room = channel.to_owned();
        let mut answer: PresenceAnswer = Box::pin(async move {
            FinishedPresence { id, answer: presence::reply(&presence, id, &room, bytes_max).await }
        });
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(finished) => self.finish_presence(finished),
            // What it waits for is its next turn.
            Poll::Pending => self.begin_waiting_for(Pending::Presence(answer)),
        }
    }

    fn is_telling_presence(&self) -> bool {
        let mut pending = self.pending.iter().flat_map(|pending| pending.iter());
        pending.any(|pending| matches!(pending, Pending::Presence(_)))
    }

    pub(super) fn finish_presence(&mut self, finished: FinishedPresence) {
        let FinishedPresence { id, answer } = finished;
        let Ok(text) = answer else {
            self.refuse(id, ErrorCode::LIMIT_EXCEEDED);
            return;
        };
        let mut frame = Vec::with_capacity(text.len() + 16);
        append_server_frame(&mut frame, Opcode::Text, &text);
        if frame.len() <= ORDINARY_BYTES_MAX {
            self.append(&frame);
        } else if !self.session.append_answer(&frame) {
            // The client has not read the last one.
            self.refuse(id, ErrorCode::TOO_MANY_REQUESTS);
        }
    }
}
