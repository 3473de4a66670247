//! Rooms of the null server, and what it does wrong with their deliveries.

use std::collections::HashMap;
use std::time::Duration;

use manifold_protocol::PublicationPrefix;
use manifold_protocol::websocket::{self, FrameBuilder, Opcode};
use manifold_protocol::{Push, PushBody, SubscribeRequest, UnsubscribeCode, json};

use super::Misbehaviour;
use super::history::{History, Welcome};

/// A room.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) channel: String,
    prefix: PublicationPrefix,
    pub(super) members: Vec<u32>,
    history: History,
}

/// All rooms.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    by_channel: HashMap<Box<[u8]>, u32>,
    pub(super) all: Vec<Room>,
    builder: FrameBuilder,
    deliveries: u64,
    /// Messages of each room that are remembered.
    history_max: usize,
    /// Recoveries that brought more than one message.
    recoveries: u64,
}

/// What to do with one delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Send,
    Drop,
    Repeat,
    Hold,
    Late(Duration),
    Echo(Duration),
    AlsoToStranger,
    Damage,
    Gap,
}

impl Rooms {
    pub(super) fn new(history_max: usize) -> Self {
        Self { history_max, ..Self::default() }
    }

    /// What a member gets that joins a room or comes back to it.
    pub(super) fn welcome(
        &mut self,
        room: u32,
        request: &SubscribeRequest<'_>,
        misbehaviour: Option<Misbehaviour>,
    ) -> Welcome {
        if self.history_max == 0 {
            return Welcome::default();
        }
        let mut welcome = self.all[room as usize].history.welcome(request);
        if welcome.is_spoilable() {
            self.recoveries += 1;
            let history = &self.all[room as usize].history;
            let every = match misbehaviour {
                Some(
                    Misbehaviour::Forget { every }
                    | Misbehaviour::Recur { every }
                    | Misbehaviour::Shuffle { every }
                    | Misbehaviour::Ignore { every },
                ) => every,
                Some(Misbehaviour::Cover { after }) if self.recoveries <= after => 1,
                Some(Misbehaviour::Cover { .. }) => {
                    welcome.refuse();
                    return welcome;
                }
                Some(Misbehaviour::Rerun { count }) => {
                    welcome.rerun(history.newest(count as usize), self.recoveries.is_multiple_of(2));
                    return welcome;
                }
                _ => return welcome,
            };
            if self.recoveries.is_multiple_of(every) {
                misbehaviour.into_iter().for_each(|one| welcome.spoil(one));
            }
        }
        welcome
    }

    /// Appends what a faulty server sends right behind its answer to a member.
    pub(super) fn append_again(&self, room: u32, welcome: &Welcome, out: &mut Vec<u8>) {
        for (offset, data) in welcome.again() {
            out.push(b'\n');
            self.all[room as usize].prefix.append(out, data.as_bytes(), b"", *offset, "");
        }
    }

    pub(super) fn find(&self, channel: &[u8]) -> Option<u32> {
        self.by_channel.get(channel).copied()
    }

    pub(super) fn find_or_make(&mut self, channel: &str) -> u32 {
        if let Some(room) = self.find(channel.as_bytes()) {
            return room;
        }
        let room = self.all.len() as u32;
        let prefix = PublicationPrefix::new(channel);
        self.by_channel.insert(channel.as_bytes().into(), room);
        let (channel, history) = (channel.to_owned(), History::default());
        self.all.push(Room { channel, prefix, members: Vec::new(), history });
        room
    }

    /// The frame that every member of `room` gets for a new message.
    #[inline]
    pub(super) fn frame(&mut self, room: u32, data: &[u8]) -> &[u8] {
        let room = &mut self.all[room as usize];
        let offset = if self.history_max > 0 { room.history.push(data, self.history_max) } else { 0 };
        self.builder.clear();
        room.prefix.append(self.builder.payload_mut(), data, b"", offset, "");
        self.builder.finish(Opcode::Text)
    }

    /// The next delivery's fate.
    #[inline]
    pub(super) fn deed(&mut self, misbehaviour: Option<Misbehaviour>) -> Deed {
        let Some(misbehaviour) = misbehaviour else { return Deed::Send };
        self.deliveries += 1;
        let (every, deed) = match misbehaviour {
            Misbehaviour::Drop { every } => (every, Deed::Drop),
            Misbehaviour::Repeat { every } => (every, Deed::Repeat),
            Misbehaviour::Swap { every } => (every, Deed::Hold),
            Misbehaviour::Late { nth, by } if self.deliveries == nth => return Deed::Late(by),
            Misbehaviour::Echo { nth, by } if self.deliveries == nth => return Deed::Echo(by),
            Misbehaviour::Stranger { every } => (every, Deed::AlsoToStranger),
            Misbehaviour::Damage { every } => (every, Deed::Damage),
            Misbehaviour::Gap { every } => (every, Deed::Gap),
            _ => return Deed::Send,
        };
        if self.deliveries.is_multiple_of(every) { deed } else { Deed::Send }
    }

    /// The frame that tells a member of a gap.
    pub(super) fn gap_frame(&self, room: u32) -> Vec<u8> {
        let channel = self.all[room as usize].channel.as_str().into();
        let body = PushBody::Unsubscribe(UnsubscribeCode::INSUFFICIENT_STATE.into());
        let mut payload = Vec::new();
        json::append_push(&mut payload, &Push { id: 0, channel, body });
        let mut frame = Vec::new();
        websocket::append_server_frame(&mut frame, Opcode::Text, &payload);
        frame
    }
}
