//! One subscribed connection: what was asked over it, and what its values mean.
//!
//! Subscriptions, their confirmations, messages and questions for the top of a room share one connection and therefore
//! one order. A top that arrives between two messages was read between them, so comparing it is exact: whatever it counts
//! and has not arrived, is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::lanes::Session;
use super::live::Shared;
use super::repair::Repairs;
use super::rooms::{Room, Rooms};
use super::sequence::{HEAD_BYTES, KEPT_HEAD_BYTES, Top, head, split_head};
use super::wire::Inbound;
use super::work::{says_elsewhere, says_moving};
use crate::backplane::{Position, RoomId};
use crate::clients::redis::Value;
use crate::clients::redis::connection::refused;
use crate::clients::redis::resp::{put_argument, put_command, put_command_header};
use crate::error::{Error, ErrorKind, Result};

/// Rooms named in one command. Larger commands would hold up the other clients of the server.
const ROOMS_PER_COMMAND: usize = 256;

/// What the next reply answers.
#[derive(Debug)]
enum Asked {
    /// Confirmations of these subscriptions, one push each, or one refusal for all.
    Subscribe { rooms: Vec<RoomId>, confirmed: usize },
    /// As many pushes.
    Unsubscribe(usize),
    /// The top of a room, from the script that keeps it alive.
    Top(RoomId),
    /// The tops of these rooms, only read.
    Tops(Vec<RoomId>),
    /// The end of what was asked when the connection was new.
    Complete,
    /// Whether anybody is there.
    Ping,
    /// Whether it is still the master that it was.
    Life,
}

/// What arrives is entered here.
pub(super) struct Books<'a> {
    pub(super) rooms: &'a mut Rooms,
    pub(super) repairs: &'a mut Repairs,
    pub(super) inbound: &'a mut dyn Inbound,
}

/// A subscribed connection.
pub(super) struct Listening {
    shared: Arc<Shared>,
    session: Session,
    asked: VecDeque<Asked>,
    complete: bool,
    /// A room's numbering began anew: by whom, and why?
    in_doubt: bool,
    heard_at: Instant,
    /// When the oldest unanswered question was asked.
    waiting_since: Option<Instant>,
    beat_at: Instant,
    refresh_at: Instant,
}

impl Listening {
    pub(super) fn new(shared: &Arc<Shared>, session: Session) -> Self {
        let now = Instant::now();
        Self {
            shared: Arc::clone(shared),
            session,
            asked: VecDeque::new(),
            complete: false,
            in_doubt: false,
            heard_at: now,
            waiting_since: None,
            beat_at: now + shared.settings.heartbeat(),
            refresh_at: now + refresh_interval(shared),
        }
    }

    /// Sends and receives until something arrived.
    pub(super) async fn turn(&mut self) -> Result<()> {
        self.session.connection.turn().await?;
        self.heard_at = Instant::now();
        self.waiting_since = self.waiting_since.map(|_| self.heard_at);
        Ok(())
    }

    /// A question is unanswered, and nothing at all has arrived, for too long.
    pub(super) fn is_silent(&self) -> bool {
        self.waiting_since.is_some_and(|since| since.elapsed() > self.shared.settings.response_timeout())
    }

    /// True once, when everything asked on the new connection is answered.
    pub(super) fn take_complete(&mut self) -> bool {
        std::mem::take(&mut self.complete)
    }

    /// Subscribes all rooms on a new connection, and compares their tops.
    pub(super) fn subscribe_all(&mut self, rooms: &mut Rooms) {
        let names: Vec<RoomId> = rooms.names().cloned().collect();
        self.subscribe(&names, rooms);
        put_command(self.session.connection.outbox(), &[b"PING"]);
        self.ask(Asked::Complete);
    }

    /// Subscribes rooms in batches, each followed by the question for their tops.
    pub(super) fn subscribe(&mut self, joined: &[RoomId], rooms: &mut Rooms) {
        // In a cluster one command names channels of one slot only.
        let (verb, together): (&[u8], _) =
            if self.shared.sharded() { (b"SSUBSCRIBE", 1) } else { (b"SUBSCRIBE", ROOMS_PER_COMMAND) };
        for batch in joined.chunks(together) {
            self.put_rooms(verb, batch);
            self.ask(Asked::Subscribe { rooms: batch.to_vec(), confirmed: 0 });
            for room in batch {
                let seen = rooms.get_mut(room.as_str()).and_then(|entry| entry.place.get());
                self.ask_top(room.clone(), seen);
            }
        }
    }

    /// Unsubscribes rooms in batches.
    pub(super) fn unsubscribe(&mut self, left: &[RoomId]) {
        let (verb, together): (&[u8], _) =
            if self.shared.sharded() { (b"SUNSUBSCRIBE", 1) } else { (b"UNSUBSCRIBE", ROOMS_PER_COMMAND) };
        for batch in left.chunks(together) {
            self.put_rooms(verb, batch);
            self.ask(Asked::Unsubscribe(batch.len()));
        }
    }

    /// Once per heartbeat: asks for the tops of all rooms, or just for a sign of life.
    pub(super) fn beat(&mut self, now: Instant, rooms: &Rooms) {
        if now < self.beat_at {
            if self.asked.is_empty() && now - self.heard_at > quiet_max(&self.shared) {
                put_command(self.session.connection.outbox(), &[b"PING"]);
                self.ask(Asked::Ping);
            }
            return;
        }
        self.beat_at = now + self.shared.settings.heartbeat();
        let names: Vec<RoomId> = rooms.names().cloned().collect();
        self.ask_life();
        if now >= self.refresh_at {
            self.refresh_at = now + refresh_interval(&self.shared);
            for room in names {
                self.ask_top(room, None);
            }
        } else {
            let together = if self.shared.sharded() { 1 } else { ROOMS_PER_COMMAND };
            for batch in names.chunks(together) {
                self.put_rooms(b"MGET", batch);
                self.ask(Asked::Tops(batch.to_vec()));
            }
        }
    }

    fn put_rooms(&mut self, verb: &[u8], rooms: &[RoomId]) {
        let out = self.session.connection.outbox();
        put_command_header(out, rooms.len() + 1);
        put_argument(out, verb);
        for room in rooms {
            put_argument(out, &self.shared.name(room));
        }
    }

    fn ask_top(&mut self, room: RoomId, seen: Option<Position>) {
        let epoch = self.shared.epochs.draw().to_be_bytes();
        let seen = seen.map(head);
        let seen: &[u8] = seen.as_ref().map_or(&[], |head| head);
        let name = self.shared.name(&room);
        let ttl = &self.shared.numbers.room_ttl_s;
        let incarnation = self.session.incarnation();
        let Session { connection, script, .. } = &mut self.session;
        let command: [&[u8]; 8] = [b"EVALSHA", script, b"1", &name, &epoch, ttl, seen, &incarnation];
        put_command(connection.outbox(), &command);
        self.ask(Asked::Top(room));
    }

    fn ask_life(&mut self) {
        put_command(self.session.connection.outbox(), &[b"INFO", b"replication"]);
        self.ask(Asked::Life);
    }

    fn ask(&mut self, asked: Asked) {
        self.asked.push_back(asked);
        self.waiting_since.get_or_insert_with(Instant::now);
    }

    /// Takes what has arrived.
    pub(super) fn collect(&mut self, books: &mut Books<'_>) -> Result<()> {
        while let Some(value) = self.session.connection.received()? {
            match value {
                Value::Push(parts) => self.pushed(&parts, books)?,
                reply => self.replied(&reply, books)?,
            }
        }
        if std::mem::take(&mut self.in_doubt) {
            self.ask_life();
        }
        if self.asked.is_empty() {
            self.waiting_since = None;
        }
        Ok(())
    }

    fn pushed(&mut self, parts: &[Value], books: &mut Books<'_>) -> Result<()> {
        let [Value::Text(kind), Value::Text(channel), rest] = parts else { return Ok(()) };
        let Some(name) = self.shared.room_of(channel) else { return Ok(()) };
        match (&kind[..], rest) {
            (b"message" | b"smessage", Value::Text(message)) => {
                if let Some(room) = books.rooms.get_mut(name) {
                    self.message(room, message, books.repairs, books.inbound);
                }
            }
            (b"subscribe" | b"ssubscribe", _) => self.confirmed(name, books.rooms),
            (b"unsubscribe" | b"sunsubscribe", _) => {
                if books.rooms.get_mut(name).is_some_and(|room| room.confirmed) {
                    return Err(Error::new(ErrorKind::Broker, "subscribe", "Redis ended a subscription"));
                }
                if let Some(Asked::Unsubscribe(left)) = self.asked.front_mut() {
                    *left -= 1;
                    if *left == 0 {
                        self.asked.pop_front();
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn message(&mut self, room: &mut Room, message: &[u8], repairs: &mut Repairs, inbound: &mut dyn Inbound) {
        self.shared.stats.envelopes_received.add(1);
        // Published before the join was effective; the top that is on its way counts it.
        let Some(last) = room.place.get() else { return };
        let Some((position, body)) = split_head(message) else {
            return self.shared.stats.corrupt.add(1);
        };
        self.in_doubt |= position.epoch != last.epoch;
        repairs.message(room, position, body, inbound);
    }

    fn confirmed(&mut self, name: &str, rooms: &mut Rooms) {
        let Some(Asked::Subscribe { rooms: asked, confirmed }) = self.asked.front_mut() else { return };
        *confirmed += 1;
        if *confirmed == asked.len() {
            self.asked.pop_front();
        }
        if let Some(room) = rooms.get_mut(name) {
            room.confirmed = true;
        }
    }

    fn replied(&mut self, reply: &Value, books: &mut Books<'_>) -> Result<()> {
        let asked = self.asked.pop_front().ok_or_else(|| corrupt("a reply without a question"))?;
        match (asked, reply) {
            (Asked::Subscribe { rooms: refused_rooms, .. }, Value::Error(message)) => {
                let error = refused(message);
                if error.is_temporary() || message.starts_with(b"ERR") {
                    return Err(error);
                }
                for room in refused_rooms {
                    self.refuse(&room, message, books.rooms);
                }
                Ok(())
            }
            (Asked::Top(room), Value::Error(message)) if !says_elsewhere(message) => {
                self.top_refused(room, message, books.rooms);
                Ok(())
            }
            // Asked again with the next beat.
            (Asked::Tops(_), Value::Error(message)) if says_moving(message) => Ok(()),
            (_, Value::Error(message)) => Err(refused(message)),
            (Asked::Top(room), Value::Text(top)) => {
                self.compare(&room, Some(top), books);
                Ok(())
            }
            (Asked::Tops(asked), Value::Array(tops)) if asked.len() == tops.len() => {
                for (room, top) in asked.iter().zip(tops) {
                    // One whose top was refused has nothing to be compared: it is asked for by the script, which writes it.
                    let known = is_known(books.rooms, room);
                    self.compare(room, top.text().filter(|_| known).map(|top| &top[..]), books);
                }
                Ok(())
            }
            (Asked::Complete, Value::Text(_)) => {
                self.complete = true;
                Ok(())
            }
            (Asked::Ping, Value::Text(_)) => Ok(()),
            (Asked::Life, Value::Text(info)) if self.session.life.goes_on(info) => Ok(()),
            (Asked::Life, Value::Text(_)) => Err(Error::new(
                ErrorKind::Unreachable,
                "listen",
                "the server is not the master any more that it was",
            )),
            _ => Err(corrupt("a reply that does not fit its question")),
        }
    }

    /// Compares the top of a room with what arrived, and tells whoever waits for the join.
    fn compare(&mut self, id: &RoomId, top: Option<&[u8]>, books: &mut Books<'_>) {
        let Books { rooms, repairs, inbound } = books;
        let Some(room) = rooms.get_mut(id.as_str()) else { return };
        // An unconfirmed room was joined again after the question; its own question follows.
        if !room.confirmed {
            return;
        }
        let unknown = room.place.get().is_none();
        let top = top
            .filter(|top| top.len() == HEAD_BYTES || KEPT_HEAD_BYTES.contains(&top.len()))
            .and_then(split_head);
        let known = top.map(|(top, _)| repairs.top(room, top, *inbound));
        if matches!(known, Some(Top::Behind) | None) {
            // Redis lost the room's head or part of it: make sure that numbering starts anew.
            let (id, seen) = (room.id.clone(), room.place.get());
            self.ask_top(id, seen);
            return;
        }
        if let Some(position) = room.place.shown() {
            if unknown {
                inbound.top(&room.id, position);
            }
            if let Some((waiter, _)) = room.waiter.take() {
                let _ = waiter.send(Ok(position));
            }
        }
    }

    /// A room's head cannot be written, perhaps for want of memory, or because its slot is on its way. That ends no other
    /// room's subscription.
    fn top_refused(&mut self, id: RoomId, message: &[u8], rooms: &mut Rooms) {
        if is_known(rooms, &id) {
            return;
        }
        let error = refused(message);
        if self.shared.fail_fast && error.is_temporary() {
            // The room does without for now; its top is asked for with every beat.
            if let Some((waiter, _)) = rooms.get_mut(id.as_str()).and_then(|room| room.waiter.take()) {
                let _ = waiter.send(Err(error));
            }
        } else if !says_moving(message) {
            self.refuse(&id, message, rooms);
            self.unsubscribe(&[id]);
        }
    }

    fn refuse(&mut self, id: &RoomId, message: &[u8], rooms: &mut Rooms) {
        if let Some((waiter, _)) = rooms.remove(id).and_then(|room| room.waiter) {
            let _ = waiter.send(Err(refused(message)));
        }
    }
}

/// Whether it is known where the room stands.
fn is_known(rooms: &mut Rooms, id: &RoomId) -> bool {
    rooms.get_mut(id.as_str()).is_some_and(|room| room.place.get().is_some())
}

/// How often rooms with members are kept from expiring.
fn refresh_interval(shared: &Shared) -> std::time::Duration {
    std::time::Duration::from_secs(shared.settings.room_ttl_s) / 3
}

/// After how long without a sign of life one is asked for: so that a server that froze is noticed before it counts as silent
/// for that long and a half.
fn quiet_max(shared: &Shared) -> std::time::Duration {
    shared.settings.response_timeout() / 2
}

fn corrupt(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, "listen", format!("Redis sent {what}"))
}

#[cfg(test)]
#[path = "listening_tests.rs"]
mod tests;
