//! How a publish is written for Redis: which script, with which keys and arguments.

use std::time::SystemTime;

use super::lanes::Session;
use super::live::Shared;
use super::sequence::head;
use super::settings::Settings;
use super::work::{Operation, Publish};
use crate::backplane::{MessageId, RoomId};
use crate::clients::redis::resp::put_command;
use crate::clients::redis::topology::{slot, tag};
use crate::error::Result;

/// Marks the key of a room's history. Together with what follows no namespace, room or id can be mistaken for another: a
/// namespace has no such character, and a head's key has a colon behind it.
const STREAM_MARK: u8 = b'!';
/// Marks the key of a message id.
const ID_MARK: u8 = b'#';
/// Terms in the time that something lives. More would cost more, fewer would keep things longer than was asked for.
const TERMS: u64 = 8;
/// Longest tag that puts a key into a slot, with its braces.
const TAG_BYTES_MAX: usize = 5;

/// Numbers that every script call takes, as Redis reads them.
pub(super) struct Numbers {
    /// Seconds that a head lives.
    pub(super) room_ttl_s: Vec<u8>,
    /// Seconds of a term, after which what expires is kept alive again.
    term_s: u64,
    /// What scripts that keep history take beside; nothing if none is kept.
    keeping: Option<Keeping>,
}

struct Keeping {
    messages: Vec<u8>,
    seconds: Vec<u8>,
    dedup_seconds: Vec<u8>,
}

impl Numbers {
    pub(super) fn new(settings: &Settings) -> Self {
        let text = |number: u64| number.to_string().into_bytes();
        // Without the head nothing of the history could be read.
        let history_s = settings.history().as_secs().min(settings.room_ttl_s);
        let term_s = if settings.keeps_history() { history_s } else { settings.room_ttl_s } / TERMS;
        let keeping = settings.keeps_history().then(|| Keeping {
            messages: text(settings.history_messages as u64),
            seconds: text(history_s + term_s),
            dedup_seconds: text(settings.dedup_seconds),
        });
        Self { room_ttl_s: text(settings.room_ttl_s + term_s), term_s, keeping }
    }

    /// The term that it is now, as scripts take it.
    fn term(&self) -> [u8; 4] {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        // Only whether two are the same counts.
        ((now.as_secs() / self.term_s) as u32).to_be_bytes()
    }
}

impl Shared {
    /// Appends the command for a publish to what the session sends. It comes to nothing if the message `before` it did. That
    /// takes a history to tell: where none is kept, nothing is known of it, and the message goes its way.
    pub(super) fn put_publish(
        &self,
        publish: &Publish,
        before: Option<MessageId>,
        body: &[u8],
        session: &mut Session,
    ) {
        match publish.operation {
            Operation::Publish | Operation::Reserve => self.put_next(publish, before, body, session),
            Operation::Announce(position) => {
                self.put_announcement(&publish.envelope.room, &head(position), body, session);
            }
        }
    }

    /// A message that gets the next position.
    fn put_next(&self, publish: &Publish, before: Option<MessageId>, body: &[u8], session: &mut Session) {
        let room = &publish.envelope.room;
        let verb: &[u8] = if publish.operation == Operation::Reserve { b"" } else { self.verb() };
        let epoch = self.epochs.draw().to_be_bytes();
        let ttl = &self.numbers.room_ttl_s;
        let (name, term) = (self.name(room), self.numbers.term());
        let incarnation = &session.incarnation()[..];
        let Session { connection, script, .. } = session;
        let script = &script[..];
        if let Some(Keeping { messages, seconds, dedup_seconds }) = &self.numbers.keeping {
            let (stream, id) = (self.stream(room), self.id_key(room, publish.envelope.id));
            let before = before.map(|id| self.id_key(room, id));
            let keys: &[u8] = if before.is_some() { b"4" } else { b"3" };
            let mut command: Vec<&[u8]> = Vec::with_capacity(16);
            command.extend([&b"EVALSHA"[..], script, keys, &name, &stream, &id]);
            command.extend(before.as_deref());
            command.extend([body, &epoch, ttl, verb, incarnation, &term, messages, seconds, dedup_seconds]);
            put_command(connection.outbox(), &command);
        } else {
            let command: [&[u8]; 10] =
                [b"EVALSHA", script, b"1", &name, body, &epoch, ttl, verb, incarnation, &term];
            put_command(connection.outbox(), &command);
        }
    }

    /// Fails for as long as Redis refuses for the time being to keep anything for `room`: for want of memory, or because its
    /// slot is on its way, which a publish meets by a key that is not there yet. Nothing is kept by it.
    pub(super) async fn ask_room(&self, room: &RoomId, session: &mut Session) -> Result<()> {
        let head = self.name(room);
        let mut questions: Vec<Vec<&[u8]>> = vec![vec![b"SETRANGE", &head, b"0", b""]];
        let new = self.id_key(room, MessageId(self.epochs.draw().into()));
        if self.sharded() && self.settings.keeps_history() {
            questions.push(vec![b"EXISTS", &head, &new]);
        }
        for question in questions {
            match session.connection.call(&question, self.opening.timeout).await {
                Err(error) if error.is_temporary() => return Err(error),
                // Whatever else is wrong, publishes are told.
                _ => {}
            }
        }
        Ok(())
    }

    /// A message that has its position.
    fn put_announcement(&self, room: &RoomId, head: &[u8], body: &[u8], session: &mut Session) {
        let (name, verb) = (self.name(room), self.verb());
        let Session { connection, announce, .. } = session;
        let announce = &announce[..];
        if let Some(Keeping { messages, seconds, .. }) = &self.numbers.keeping {
            let stream = self.stream(room);
            let command: [&[u8]; 10] =
                [b"EVALSHA", announce, b"2", &name, &stream, head, body, verb, messages, seconds];
            put_command(connection.outbox(), &command);
        } else {
            let command: [&[u8]; 7] = [b"EVALSHA", announce, b"1", &name, head, body, verb];
            put_command(connection.outbox(), &command);
        }
    }

    fn verb(&self) -> &'static [u8] {
        if self.sharded() { b"SPUBLISH" } else { b"PUBLISH" }
    }

    /// The key of a room's history.
    pub(super) fn stream(&self, room: &RoomId) -> Vec<u8> {
        self.beside(STREAM_MARK, room, &[])
    }

    /// The key of a message id in a room.
    fn id_key(&self, room: &RoomId, id: MessageId) -> Vec<u8> {
        self.beside(ID_MARK, room, &id.0.to_be_bytes())
    }

    /// A key in the slot of the room's head, whatever braces the room's name contains.
    fn beside(&self, mark: u8, room: &RoomId, end: &[u8]) -> Vec<u8> {
        let (namespace, name) = (self.namespace(), room.as_str());
        let mut key = Vec::with_capacity(namespace.len() + 1 + TAG_BYTES_MAX + name.len() + end.len());
        key.extend_from_slice(namespace.as_bytes());
        key.push(mark);
        if self.sharded() {
            key.push(b'{');
            key.extend_from_slice(tag(slot(&self.name(room))).as_bytes());
            key.push(b'}');
        }
        key.extend_from_slice(name.as_bytes());
        key.extend_from_slice(end);
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_lives_no_longer_than_its_room() {
        let seconds = |settings: Settings| Numbers::new(&settings).keeping.map(|keeping| keeping.seconds);
        assert_eq!(seconds(Settings::default()), Some(b"675".to_vec()), "a term more");
        let short_lived = Settings { room_ttl_s: 60, ..Settings::default() };
        assert_eq!(seconds(short_lived), Some(b"67".to_vec()));
        assert_eq!(seconds(Settings { history_messages: 0, ..Settings::default() }), None);
    }

    #[test]
    fn a_tag_has_room() {
        let longest = (0..crate::clients::redis::topology::SLOTS).map(|number| tag(number).len()).max();
        assert_eq!(longest, Some(TAG_BYTES_MAX - 2));
    }
}
