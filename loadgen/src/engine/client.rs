//! One client: what it is a member of, what it has said and waits for. No sockets: bytes to send go into a buffer.

mod hearing;
mod leaving;
mod position;

use std::collections::VecDeque;

use manifold_protocol::SubscribeRequest;

use super::books::{Books, Pending, Unacknowledged};
use super::payload::Stamp;
use super::wire;
use crate::audit::{Closing, OrderTrack};
use crate::schedule::Intent;
use leaving::Leaving;
use position::Position;

/// Where a client stands with a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Out,
    /// Asked to join; not confirmed.
    Joining,
    In,
    /// Asked to leave; not confirmed.
    Leaving,
}

/// A membership in a room.
#[derive(Debug)]
struct Membership {
    room: u32,
    /// First of its audit windows.
    windows: u32,
    standing: Standing,
    /// Command that waits for an answer.
    id: u32,
    order: OrderTrack,
    /// Where it is in the room's history, for clients that recover.
    position: Option<Box<Position>>,
    /// What it is still owed while it leaves.
    leaving: Option<Box<Leaving>>,
}

/// A client across all of its connections.
#[derive(Debug)]
pub(super) struct Client {
    index: u32,
    memberships: Box<[Membership]>,
    pending: VecDeque<Pending>,
    /// Messages that fell due while there was no connection that could take them.
    pub(super) waiting: VecDeque<Intent>,
    next_id: u32,
    connect_id: u32,
    connected: bool,
    pongs: bool,
    /// After how much silence its server counts as gone; `None` where that pings nobody.
    patience_us: Option<u64>,
    /// When its connection last brought something, on the run's clock.
    heard_us: u64,
    /// Has left its rooms for a while (churn).
    pub(super) away: bool,
    /// The scenario makes it read slowly or not at all.
    pub(super) slow: bool,
}

/// What followed from what a server said.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Effects {
    /// It may be fully joined now: something was confirmed.
    pub(super) confirmed: bool,
    /// A join was refused for now: ask again later.
    pub(super) join_later: bool,
}

/// The server broke the protocol, or refused what the client cannot do without.
#[derive(Debug)]
pub(super) struct Refusal(pub(super) String);

impl Client {
    pub(super) fn new(index: u32, books: &mut Books<'_>) -> Self {
        let plan = &books.shared.plan;
        let memberships = plan.clients[index as usize]
            .rooms
            .iter()
            .map(|&room| Membership {
                room,
                windows: books.ledger.allocate(plan.rooms[room as usize].streams),
                standing: Standing::Out,
                id: 0,
                order: OrderTrack::new(0),
                position: None,
                leaving: None,
            })
            .collect();
        Self {
            index,
            memberships,
            pending: VecDeque::new(),
            waiting: VecDeque::new(),
            next_id: 1,
            connect_id: 0,
            connected: false,
            pongs: false,
            patience_us: None,
            heard_us: 0,
            away: false,
            slow: false,
        }
    }

    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        id
    }

    /// Connected, and in all of its rooms (or away from them on purpose).
    pub(super) fn is_live(&self) -> bool {
        self.connected && (self.away || self.memberships.iter().all(|one| one.standing == Standing::In))
    }

    /// For how much longer silence is no reason to go, at `now_us` on the run's clock. `None`: it would never be, since the
    /// server pings nobody, or since the client is slow to read on purpose.
    pub(super) fn patience_us(&self, now_us: u64) -> Option<u64> {
        let patience_us = self.patience_us.filter(|_| self.connected && !self.slow)?;
        Some((self.heard_us + patience_us).saturating_sub(now_us))
    }

    /// The first frame of a connection: connect and all joins at once, as the browser SDK does.
    pub(super) fn greet(&mut self, books: &Books<'_>, out: &mut Vec<u8>, key: [u8; 4]) {
        self.connect_id = self.take_id();
        let id = self.connect_id;
        wire::append_frame(out, key, |out| {
            wire::append_connect(out, id);
            if !self.away {
                self.ask_to_join(books, out);
            }
        });
    }

    /// Asks to join the rooms that it is out of.
    pub(super) fn join(&mut self, books: &Books<'_>, out: &mut Vec<u8>, key: [u8; 4]) {
        if self.connected && !self.away && self.memberships.iter().any(|one| one.standing == Standing::Out) {
            wire::append_frame(out, key, |out| self.ask_to_join(books, out));
        }
    }

    fn ask_to_join(&mut self, books: &Books<'_>, out: &mut Vec<u8>) {
        let scenario = &books.shared.scenario;
        for place in 0..self.memberships.len() {
            if self.memberships[place].standing == Standing::Out {
                let id = self.take_id();
                let membership = &mut self.memberships[place];
                membership.standing = Standing::Joining;
                membership.id = id;
                separate(out);
                let channel = &books.shared.plan.rooms[membership.room as usize].channel;
                let request = SubscribeRequest {
                    channel: channel.into(),
                    positioned: scenario.positioned,
                    recoverable: scenario.recover,
                    ..SubscribeRequest::default()
                };
                wire::append_subscribe(out, id, membership.since(request));
            }
        }
    }

    /// Leaves all rooms, on purpose; its server had the chance to deliver until `spoke_us`.
    pub(super) fn leave(&mut self, books: &mut Books<'_>, spoke_us: u64, out: &mut Vec<u8>, key: [u8; 4]) {
        self.away = true;
        let Self { memberships, next_id, slow, .. } = self;
        if !memberships.iter().any(|one| one.standing == Standing::In) {
            return;
        }
        wire::append_frame(out, key, |out| {
            for membership in memberships.iter_mut().filter(|one| one.standing == Standing::In) {
                membership.start_to_leave(*slow, spoke_us, books);
                membership.id = *next_id;
                *next_id = next_id.wrapping_add(1).max(1);
                separate(out);
                let channel = &books.shared.plan.rooms[membership.room as usize].channel;
                wire::append_unsubscribe(out, membership.id, channel);
            }
        });
    }

    /// Publishes a message of the schedule. Times are on the run's clock.
    #[inline]
    pub(super) fn publish(
        &mut self,
        intent: &Intent,
        now_us: u64,
        books: &mut Books<'_>,
        out: &mut Vec<u8>,
        key: [u8; 4],
    ) {
        let shared = books.shared;
        let stream = &shared.plan.streams[intent.stream as usize];
        let room = &shared.plan.rooms[stream.room as usize];
        let bytes = shared.scenario.traffic.payload[intent.size as usize].bytes;
        let id = self.take_id();
        let sequence = books.send(intent, self.connect_id, now_us, bytes);
        let stamp = Stamp {
            run: shared.plan.run,
            room: stream.room,
            sender: intent.stream - room.first_stream,
            sequence,
            intended_us: intent.at_us,
            lag_us: now_us.saturating_sub(intent.at_us),
        };
        wire::append_frame(out, key, |out| wire::append_publish(out, id, &room.channel, &stamp, bytes));
        let (stream, intended_us) = (intent.stream, intent.at_us);
        self.pending.push_back(Pending { id, stream, sequence, intended_us, sent_us: now_us });
    }

    /// The connection is gone.
    pub(super) fn lost(&mut self, closing: Closing, now_us: u64, books: &mut Books<'_>) {
        self.connected = false;
        let slow = self.slow;
        // Whether it was told, or cut off because it did not read the goodbye either, or the run ended first: what waited
        // for a client that was made slow is not owed to it.
        let closing = if slow { Closing::Shed } else { closing };
        for one in &mut self.memberships {
            one.interrupt(closing, slow, now_us, books);
        }
        let unanswered = if slow { Unacknowledged::Abandoned } else { Unacknowledged::Unknown };
        self.forget_pending(unanswered, books);
        // The next connection reads at once.
        self.slow = false;
    }

    /// The server wants positions dropped: whatever was missed is not asked for.
    pub(super) fn forget_positions(&mut self, books: &mut Books<'_>) {
        self.memberships.iter_mut().for_each(|one| one.give_up(books));
    }

    /// Publishes without an answer get none any more.
    pub(super) fn forget_pending(&mut self, how: Unacknowledged, books: &mut Books<'_>) {
        for pending in std::mem::take(&mut self.pending) {
            books.not_acknowledged(&pending, how);
        }
    }

    /// From now on its latencies say nothing about the server.
    pub(super) fn slow_down(&mut self, books: &mut Books<'_>) {
        if !std::mem::replace(&mut self.slow, true) {
            books.sums.slowed += 1;
            for one in self.memberships.iter().filter(|one| one.standing == Standing::In) {
                books.readers[one.room as usize] -= 1;
            }
        }
    }

    /// What it still waits for while the run drains: see [`Books::lacking`]. Publishes without an answer count as
    /// tails, and so do rooms that it is cut off from and means to come back to.
    pub(super) fn lacking(&self, books: &Books<'_>) -> (u64, u64) {
        let away = self.memberships.iter().filter(|one| one.is_away()).count();
        let unsent = (self.pending.len() + self.waiting.len() + away) as u64;
        self.memberships.iter().filter(|one| one.standing == Standing::In).fold(
            (unsent, 0),
            |(tails, holes), one| {
                let (tail, hole) = books.lacking(one.room, one.windows);
                (tails + tail, holes + hole)
            },
        )
    }

    /// The run is over: the last stretches of order, and every window, are closed.
    pub(super) fn settle(&mut self, now_us: u64, books: &mut Books<'_>) {
        for intent in std::mem::take(&mut self.waiting) {
            books.never_sent(&intent, now_us);
        }
        for one in &mut self.memberships {
            if one.standing == Standing::In {
                books.interval.stretches.extend(one.order.finish(one.room));
            }
            one.expire(books);
        }
        self.lost(Closing::Drained, now_us, books);
    }
}

impl Membership {
    fn end(&mut self) {
        self.standing = Standing::Out;
        self.id = 0;
    }
}

/// Puts a newline between two commands of one frame.
fn separate(out: &mut Vec<u8>) {
    // A frame under construction ends in its reserved header (zeros) or in the command before.
    if out.last() == Some(&b'}') {
        out.push(b'\n');
    }
}
