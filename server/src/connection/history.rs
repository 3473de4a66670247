//! `history`: what a room carried, as far as the backplane keeps it.

use std::sync::Arc;

use manifold_protocol::{DisconnectCode, ErrorCode, HistoryRequest, Reply, ReplyBody, json};
use manifold_strategies::Page;

use super::Disconnect;
use super::commands::Client;
use super::pending::Pending;
use crate::frame;
use crate::history;

/// A page that was read, or the reason why not.
pub(super) struct FinishedHistory {
    id: u32,
    outcome: Result<Page, ErrorCode>,
}

impl Client {
    pub(super) fn history(&mut self, id: u32, request: &HistoryRequest<'_>) -> Result<(), Disconnect> {
        if request.channel.is_empty() {
            return Err(DisconnectCode::BAD_REQUEST.into());
        }
        if let Err(code) = self.check_history(request) {
            self.refuse(id, code);
            return Ok(());
        }
        let page = history::read(Arc::clone(&self.node), self.room_id(&request.channel), request.into());
        let read = Box::pin(async move { FinishedHistory { id, outcome: page.await } });
        self.begin_waiting_for(Pending::History(read));
        Ok(())
    }

    fn check_history(&self, request: &HistoryRequest<'_>) -> Result<(), ErrorCode> {
        self.node.rooms().check_name(&request.channel)?;
        if !self.node.hub().keeps_history() {
            return Err(ErrorCode::NOT_AVAILABLE);
        }
        if self.is_full() { Err(ErrorCode::TOO_MANY_REQUESTS) } else { Ok(()) }
    }

    pub(super) fn finish_history(&mut self, finished: FinishedHistory) {
        let FinishedHistory { id, outcome } = finished;
        match outcome.and_then(|page| self.history_reply(id, &page)) {
            Ok(frame) => self.append(&frame),
            Err(code) => self.refuse(id, code),
        }
    }

    /// The frame of a reply that the outbox has space for.
    fn history_reply(&self, id: u32, page: &Page) -> Result<Vec<u8>, ErrorCode> {
        // Asking again would not help.
        let result = history::result(page).ok_or(ErrorCode::NOT_AVAILABLE)?;
        let reply = Reply { id, body: ReplyBody::History(result) };
        let frame = frame::text(|out| json::append_reply(out, &reply));
        if frame.len() > self.reply_bytes_max() {
            // The client asks for less.
            return Err(ErrorCode::LIMIT_EXCEEDED);
        }
        self.session.relieve();
        if self.session.outbox_bytes() + frame.len() > self.reply_bytes_max() {
            return Err(ErrorCode::TOO_MANY_REQUESTS);
        }
        Ok(frame)
    }
}
