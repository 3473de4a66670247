//! What a client hears, and what it makes of it.

use manifold_protocol::{
    Error, ErrorCode, PushBody, Reply, ReplyBody, SubscribeResult, UnsubscribeCode, json,
};

use super::{Client, Effects, Membership, Position, Refusal, Standing};
use crate::audit::{Closing, OrderTrack};
use crate::engine::books::{Books, Pending, Unacknowledged};
use crate::engine::payload::Stamp;
use crate::engine::wire::{self, Line};
use crate::schedule::mix;

impl Client {
    /// Takes a received text frame. Answers go to `out`.
    #[inline]
    pub(in crate::engine) fn take(
        &mut self,
        text: &str,
        now_us: u64,
        books: &mut Books<'_>,
        out: &mut Vec<u8>,
        key: [u8; 4],
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        self.heard_us = now_us;
        let mut rest = text;
        while !rest.is_empty() {
            let (text, after) = match memchr::memchr(b'\n', rest.as_bytes()) {
                Some(end) => (&rest[..end], &rest[end + 1..]),
                None => (rest, ""),
            };
            rest = after;
            match wire::line(text) {
                Line::Publication { channel, stamp } => {
                    self.publication(channel, &stamp, || wire::offset(text), now_us, books);
                }
                Line::Published(id) => {
                    if let Some(pending) = self.answered(id) {
                        books.acknowledged(&pending, self.slow, now_us);
                    }
                }
                Line::Ping if self.pongs => wire::append_frame(out, key, |out| out.extend_from_slice(b"{}")),
                Line::Ping => {}
                Line::Other(text) => self.take_other(text, now_us, books, out, key, effects)?,
            }
        }
        Ok(())
    }

    fn membership(&mut self, room: u32) -> Option<&mut Membership> {
        match &mut self.memberships[..] {
            [only] => (only.room == room).then_some(only),
            many => {
                let place = many.binary_search_by_key(&room, |one| one.room).ok()?;
                Some(&mut many[place])
            }
        }
    }

    /// `offset` is asked for only where the client keeps its position.
    #[inline]
    fn publication(
        &mut self,
        channel: &[u8],
        stamp: &Stamp,
        offset: impl FnOnce() -> Option<u64>,
        now_us: u64,
        books: &mut Books<'_>,
    ) {
        let plan = &books.shared.plan;
        let Some(room) = plan.rooms.get(stamp.room as usize).filter(|_| stamp.run == plan.run) else {
            books.ledger.tally_mut().corrupt += 1;
            return;
        };
        let slow = self.slow;
        let belongs = room.channel.as_bytes() == channel;
        match self.membership(stamp.room) {
            Some(one) if belongs && one.standing == Standing::In => {
                if let Some(position) = &mut one.position {
                    position.offset = offset().unwrap_or(position.offset);
                }
                books.delivered(stamp, one.windows, &mut one.order, slow, now_us);
            }
            Some(one) if belongs && one.standing != Standing::Out => {
                let owed = one.leaving.as_ref().is_some_and(|one| one.is_owed(stamp.sender, stamp.sequence));
                if owed {
                    // Audited, but not waited for: its latency says nothing any more.
                    books.delivered(stamp, one.windows, &mut one.order, true, now_us);
                } else {
                    if books.early(stamp, one.windows) && !slow {
                        books.timed(stamp, now_us);
                    }
                }
            }
            _ => books.ledger.tally_mut().leaked += 1,
        }
    }

    /// The publish that `id` answers. Replies mostly come in order.
    #[inline]
    fn answered(&mut self, id: u32) -> Option<Pending> {
        if self.pending.front()?.id == id {
            return self.pending.pop_front();
        }
        let place = self.pending.iter().position(|pending| pending.id == id)?;
        self.pending.remove(place)
    }

    fn take_other(
        &mut self,
        text: &str,
        now_us: u64,
        books: &mut Books<'_>,
        out: &mut Vec<u8>,
        key: [u8; 4],
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        for reply in json::replies(text) {
            let Reply { id, body } = reply.map_err(|error| Refusal(format!("{error} in {text:.200}")))?;
            match body {
                ReplyBody::Connect(connect) if id == self.connect_id => {
                    self.connected = true;
                    self.pongs = connect.pong;
                    let patience_us = books.shared.scenario.pings.patience_ms * 1_000;
                    let ping_us = u64::from(connect.ping) * 1_000_000;
                    self.patience_us = (ping_us > 0).then_some(ping_us + patience_us);
                    effects.confirmed = true;
                }
                ReplyBody::Subscribe(result) => self.joined(id, &result, now_us, books, effects),
                ReplyBody::Unsubscribe => {
                    let left = self.memberships.iter_mut().filter(|one| one.id == id);
                    left.for_each(|one| one.left(books));
                    self.join(books, out, key);
                }
                ReplyBody::Error(error) => self.refused(id, &error, books, effects)?,
                ReplyBody::Publish => {
                    if let Some(pending) = self.answered(id) {
                        books.acknowledged(&pending, self.slow, now_us);
                    }
                }
                ReplyBody::Push(push) => match push.body {
                    PushBody::Publication(publication) => {
                        let data = publication.data.map_or("", json::Json::as_str);
                        let offset = || Some(publication.offset).filter(|offset| *offset > 0);
                        match Stamp::read(data.as_bytes()) {
                            Some(stamp) => {
                                self.publication(push.channel.as_bytes(), &stamp, offset, now_us, books);
                            }
                            None => books.ledger.tally_mut().corrupt += 1,
                        }
                    }
                    PushBody::Unsubscribe(unsubscribe) => {
                        self.unsubscribed(&push.channel, unsubscribe.code, now_us, books);
                        if unsubscribe.code.resubscribe() {
                            self.join(books, out, key);
                        }
                    }
                    _ => {}
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn joined(
        &mut self,
        id: u32,
        result: &SubscribeResult<'_>,
        now_us: u64,
        books: &mut Books<'_>,
        effects: &mut Effects,
    ) {
        let slow = self.slow;
        // Members that were there before the first message can be compared from it on.
        let since = match books.shared.start_us() {
            None => 0,
            Some(_) => mix(u64::from(self.index) << 32 | u64::from(id)),
        };
        let joining = |one: &&mut Membership| one.id == id && one.standing == Standing::Joining;
        if let Some(one) = self.memberships.iter_mut().find(joining) {
            one.standing = Standing::In;
            effects.confirmed = true;
            if one.resume(result, slow, now_us, books) {
                return;
            }
            one.take_missed(result, now_us, books);
            one.give_up(books);
            one.order = OrderTrack::new(since);
            one.position =
                (books.shared.scenario.recover && result.recoverable).then(|| Position::new(result));
            books.opened(one.room, one.windows, slow);
        }
    }

    fn refused(
        &mut self,
        id: u32,
        error: &Error<'_>,
        books: &mut Books<'_>,
        effects: &mut Effects,
    ) -> Result<(), Refusal> {
        if let Some(pending) = self.answered(id) {
            books.shared.note_failure(format_args!("publish refused: {}: {}", error.code, error.message));
            books.not_acknowledged(&pending, Unacknowledged::Refused);
            return Ok(());
        }
        if let Some(one) = self.memberships.iter_mut().find(|one| one.id == id) {
            books.shared.note_failure(format_args!("join refused: {}: {}", error.code, error.message));
            if error.code == ErrorCode::UNRECOVERABLE_POSITION {
                one.give_up(books);
            }
            one.left(books);
            effects.join_later = true;
            return Ok(());
        }
        Err(Refusal(format!("connect refused: {}: {}", error.code, error.message)))
    }

    /// The server ended a membership.
    fn unsubscribed(&mut self, channel: &str, code: UnsubscribeCode, now_us: u64, books: &mut Books<'_>) {
        // From these codes on, the client has missed something and comes back by itself.
        let told = code.resubscribe();
        let rooms = &books.shared.plan.rooms;
        let slow = self.slow;
        let Some(one) = self.memberships.iter_mut().find(|one| rooms[one.room as usize].channel == channel)
        else {
            return;
        };
        let closing = match told {
            true if slow => Closing::Shed,
            true => Closing::Told { at_us: now_us },
            false => Closing::Cut { at_us: now_us },
        };
        if !told || code == UnsubscribeCode::STATE_INVALIDATED {
            one.give_up(books);
        }
        one.interrupt(closing, slow, now_us, books);
        if told {
            books.ledger.tally_mut().gaps += 1;
            books.interval.gaps += 1;
        } else {
            books.shared.note_failure(format_args!("the server ended the subscription to {channel}"));
        }
    }
}
