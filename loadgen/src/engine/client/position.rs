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
    /// Since when.
    at_us: u64,
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
    pub(super) fn interrupt(&mut self, closing: Closing, slow: bool, now_us: u64, books: &mut Books<'_>) {
        if self.standing == Standing::In {
            match &mut self.position {
                // A slow client's backlog is not owed to it: it starts anew.
                Some(position) if !slow && closing != Closing::Drained => {
                    let ends = books.suspended(self.room, slow);
                    position.away = Some(Away { ends, at_us: now_us, closing });
                }
                _ => {
                    books.closed(self.room, self.windows, slow, closing);
                    self.position = None;
                }
            }
        }
        self.left(books);
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

    /// The server let the member in, and its windows go on: it says that the member missed nothing but what comes with the
    /// reply; or it says nothing, as if it had not been asked, and then whatever is missing is lost in silence.
    /// `false`: the member was not away, or the server says that something is lost.
    pub(super) fn resume(
        &mut self,
        result: &SubscribeResult<'_>,
        slow: bool,
        now_us: u64,
        books: &mut Books<'_>,
    ) -> bool {
        let Some(away) = self.position.as_ref().and_then(|position| position.away.as_ref()) else {
            return false;
        };
        let told = result.was_recovering || matches!(away.closing, Closing::Told { .. });
        if !result.recovered && told {
            return false;
        }
        if result.recovered {
            books.resumed(self.room, self.windows, now_us);
        }
        books.readers[self.room as usize] += u32::from(!slow);
        self.take_missed(result, now_us, books);
        let mut position = Position::new(result);
        let mut offsets = result.publications.iter().map(|publication| publication.offset);
        position.offset = offsets.rfind(|offset| *offset > 0).unwrap_or(position.offset);
        self.position = result.recoverable.then_some(position);
        true
    }

    /// The publications of a reply, whatever else it says: even a member that is told of a loss must get none twice.
    pub(super) fn take_missed(&mut self, result: &SubscribeResult<'_>, now_us: u64, books: &mut Books<'_>) {
        for publication in &result.publications {
            let data = publication.data.map_or("", manifold_protocol::json::Json::as_str);
            match Stamp::read(data.as_bytes()) {
                Some(stamp) if stamp.run != books.shared.plan.run => books.ledger.tally_mut().corrupt += 1,
                Some(stamp) if stamp.room != self.room => books.ledger.tally_mut().leaked += 1,
                Some(stamp) if self.is_away() => {
                    books.recovered(&stamp, self.windows, &mut self.order, now_us);
                }
                Some(stamp) => {
                    if books.early(&stamp, self.windows) {
                        books.timed_recovery(&stamp, now_us);
                    }
                }
                None => books.ledger.tally_mut().corrupt += 1,
            }
        }
    }

    /// What was missed is lost, and the member was told.
    pub(super) fn give_up(&mut self, books: &mut Books<'_>) {
        if let Some(away) = self.position.take().and_then(|position| position.away) {
            books.unrecovered(self.room, self.windows, away.at_us);
        }
    }

    /// The run is over and the member never came back.
    pub(super) fn expire(&mut self, books: &mut Books<'_>) {
        if let Some(away) = self.position.as_mut().and_then(|position| position.away.take()) {
            books.sums.recoveries.never += 1;
            books.ended(self.room, self.windows, &away.ends, away.closing);
        }
    }
}
