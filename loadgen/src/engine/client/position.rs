//! Where a member left off, for clients that recover what they missed.

use manifold_protocol::{SubscribeRequest, SubscribeResult};

use super::{Membership, Standing};
use crate::audit::Closing;
use crate::engine::books::Books;
use crate::engine::payload::Stamp;

/// A place in a room's history.
#[derive(Debug)]
pub(super) struct Position {
    epoch: Box<str>,
    /// Of the last publication that had one.
    pub(super) offset: u64,
    away: Option<Away>,
}

/// The member was cut off and means to come back; its windows stay open.
#[derive(Debug)]
struct Away {
    /// By sender: what had been sent by then.
    ends: Box<[u32]>,
    /// How its windows end if it never comes back.
    closing: Closing,
}

impl Position {
    /// The place that a server named when it let the member in.
    pub(super) fn new(result: &SubscribeResult<'_>) -> Box<Self> {
        Box::new(Self { epoch: Box::from(&*result.epoch), offset: result.offset, away: None })
    }
}

impl Membership {
    /// The member is cut off. Whoever has a position keeps its windows and may come back; else they end here.
    pub(super) fn interrupt(&mut self, closing: Closing, slow: bool, books: &mut Books<'_>) {
        if self.standing == Standing::In {
            match &mut self.position {
                // A slow client's backlog is not owed to it: it starts anew.
                Some(position) if !slow && closing != Closing::Drained => {
                    position.away = Some(Away { ends: books.suspended(self.room), closing });
                }
                _ => {
                    books.closed(self.room, self.windows, slow, closing);
                    self.position = None;
                }
            }
        }
        self.end();
    }

    /// Whether it is cut off and means to come back.
    pub(super) fn is_away(&self) -> bool {
        self.position.as_ref().is_some_and(|position| position.away.is_some())
    }

    /// Adds to a request to join where the member left off.
    pub(super) fn since<'a>(&'a self, request: SubscribeRequest<'a>) -> SubscribeRequest<'a> {
        match &self.position {
            Some(position) => SubscribeRequest {
                recover: true,
                epoch: (&*position.epoch).into(),
                offset: position.offset,
                ..request
            },
            None => request,
        }
    }

    /// The server let the member in and says that it missed nothing but what comes with the reply: its windows go on.
    /// `false`: it was not away, or the server doesn't say so.
    pub(super) fn resume(
        &mut self,
        result: &SubscribeResult<'_>,
        slow: bool,
        now_us: u64,
        books: &mut Books<'_>,
    ) -> bool {
        if !self.is_away() || !result.recovered {
            return false;
        }
        books.resumed(self.room, self.windows, slow);
        let mut position = Position::new(result);
        for publication in &result.publications {
            position.offset = if publication.offset > 0 { publication.offset } else { position.offset };
            let data = publication.data.map_or("", manifold_protocol::json::Json::as_str);
            match Stamp::read(data.as_bytes()) {
                Some(stamp) if stamp.run != books.shared.plan.run => books.ledger.tally_mut().corrupt += 1,
                Some(stamp) if stamp.room != self.room => books.ledger.tally_mut().leaked += 1,
                Some(stamp) => books.recovered(&stamp, self.windows, &mut self.order, now_us),
                None => books.ledger.tally_mut().corrupt += 1,
            }
        }
        self.position = result.recoverable.then_some(position);
        true
    }

    /// What was missed is lost, and the member was told.
    pub(super) fn give_up(&mut self, books: &mut Books<'_>) {
        if self.is_away() {
            books.unrecovered(self.room, self.windows);
        }
        self.position = None;
    }

    /// The run is over and the member never came back.
    pub(super) fn expire(&mut self, books: &mut Books<'_>) {
        if let Some(away) = self.position.as_mut().and_then(|position| position.away.take()) {
            books.expired(self.room, self.windows, &away.ends, away.closing);
        }
    }
}
