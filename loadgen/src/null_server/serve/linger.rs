//! Publishes that are carried out late, whatever has become of their connections by then.

use std::time::Instant;

use manifold_protocol::websocket::{self, Opcode};
use manifold_protocol::{Reply, ReplyBody, json};

use super::{Misbehaviour, Server};

/// A publish that is put off.
pub(super) struct Lingering {
    due: Instant,
    /// Whom to answer, and which command: nobody if it was answered, or its connection has ended.
    asker: Option<(u32, u32)>,
    room: u32,
    data: Box<[u8]>,
}

impl Server {
    /// Puts a publish off, if it is one of those that are: true if there is nothing else to do about it.
    pub(super) fn puts_off(&mut self, id: u32, command: u32, room: u32, data: &[u8]) -> bool {
        let (every, by, answers) = match self.settings.misbehaviour {
            Some(Misbehaviour::Linger { every, by }) => (every, by, false),
            Some(Misbehaviour::Postpone { every, by }) => (every, by, true),
            _ => return false,
        };
        if !self.publishes.is_multiple_of(every) {
            return false;
        }
        if answers {
            self.answer(&Reply { id: command, body: ReplyBody::Publish });
        }
        let asker = (!answers).then_some((id, command));
        self.lingering.push(Lingering { due: Instant::now() + by, asker, room, data: data.into() });
        true
    }

    /// A connection has ended, and its number may go to another: what it asked for is done all the same.
    pub(super) fn forget_asker(&mut self, id: u32) {
        for one in self.lingering.iter_mut().filter(|one| one.asker.is_some_and(|(asker, _)| asker == id)) {
            one.asker = None;
        }
    }

    /// Carries out what was put off and is due.
    pub(super) fn carry_out(&mut self) {
        let now = Instant::now();
        let due: Vec<Lingering> = self.lingering.extract_if(.., |one| one.due <= now).collect();
        for one in due {
            self.fan_out(one.room, &one.data);
            let Some((id, command)) = one.asker else { continue };
            let (mut payload, mut frame) = (Vec::new(), Vec::new());
            json::append_reply(&mut payload, &Reply { id: command, body: ReplyBody::Publish });
            websocket::append_server_frame(&mut frame, Opcode::Text, &payload);
            if self.push(id, &frame).is_err() {
                self.drop_session(id);
            }
        }
    }
}
