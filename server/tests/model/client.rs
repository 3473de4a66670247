//! A client that behaves as the SDKs do: it subscribes again when it is sent away, comes back with the last position that it saw,
//! and writes down all that it is told.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use manifold_protocol::websocket::{Event, Limits, Opcode, Reader, append_client_frame};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lies::{Liar, Lie};
use crate::record::{Entered, Seen, Sent, Told};
use crate::steps::{Kind, ROOMS};

/// The key that frames are masked with.
const MASK: [u8; 4] = [7, 1, 9, 3];
/// Wait before a subscribe or a publish that failed is tried again.
const RETRY: Duration = Duration::from_millis(15);

/// What a command was about.
#[derive(Clone)]
enum Asked {
    Connect,
    Subscribe { room: usize, since: Option<(String, u64)> },
    Unsubscribe { room: usize },
    Publish { sent: usize },
    Presence { room: usize },
    History { room: usize },
}

struct Connection {
    socket: UnixStream,
    reader: Reader,
    link: usize,
    /// Counts the connections of this client.
    number: usize,
}

/// A client's relation to a room.
#[derive(Default)]
pub(crate) struct Place {
    wanted: Option<Kind>,
    member: bool,
    asking: bool,
    /// Epoch and offset of the last message, where it can come back to it.
    position: Option<(String, u64)>,
    retry_at: Option<Instant>,
    pub(crate) seen: Vec<Seen>,
    /// The clients that are present, and how many, by the last answers.
    pub(crate) present: Option<(Vec<String>, usize)>,
    pub(crate) history: Option<Vec<Told>>,
}

pub(crate) struct Client {
    number: usize,
    connection: Option<Connection>,
    connections: usize,
    pub(crate) id: Option<String>,
    pub(crate) places: [Place; ROOMS.len()],
    pub(crate) sent: Vec<Sent>,
    asked: HashMap<u32, Asked>,
    next_id: u32,
    liar: Liar,
    /// It goes down in the middle of the next recovery.
    breaks_off: bool,
    /// A connection that ended without a goodbye, although its node lived.
    pub(crate) dropped: bool,
}

impl Client {
    pub(crate) fn new(number: usize, lie: Option<Lie>) -> Self {
        Self {
            number,
            connection: None,
            connections: 0,
            id: None,
            places: Default::default(),
            sent: Vec::new(),
            asked: HashMap::new(),
            next_id: 0,
            liar: Liar::new(lie),
            breaks_off: false,
            dropped: false,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// The link of the node that it is connected to.
    pub(crate) fn link(&self) -> Option<usize> {
        self.connection.as_ref().map(|connection| connection.link)
    }

    pub(crate) fn is_member(&self, room: usize) -> bool {
        self.places[room].member
    }

    /// Takes a connection to the node with this link, and says what it wants.
    pub(crate) fn connect(&mut self, socket: UnixStream, link: usize) {
        socket.set_nonblocking(true).expect("a socket");
        self.connections += 1;
        let reader = Reader::client(Limits { frame_bytes_max: 1 << 24, message_bytes_max: 1 << 24 });
        self.connection = Some(Connection { socket, reader, link, number: self.connections });
        self.ask(Asked::Connect, |_| json!({ "connect": {} }));
        for room in 0..ROOMS.len() {
            self.places[room].retry_at = None;
            self.enter(room);
        }
    }

    pub(crate) fn disconnect(&mut self) {
        if self.connection.take().is_none() {
            return;
        }
        self.asked.clear();
        self.id = None;
        for place in &mut self.places {
            (place.member, place.asking) = (false, false);
            place.seen.push(Seen::Cut);
        }
    }

    pub(crate) fn subscribe(&mut self, room: usize, kind: Kind) {
        let place = &mut self.places[room];
        if place.wanted.is_some() {
            return;
        }
        place.wanted = Some(kind);
        if kind != Kind::Recoverable {
            place.position = None;
        }
        self.enter(room);
    }

    fn enter(&mut self, room: usize) {
        let place = &mut self.places[room];
        let Some(kind) = place.wanted else { return };
        if self.connection.is_none() || place.asking || place.member {
            return;
        }
        place.asking = true;
        let since = place.position.clone();
        let mut request = json!({ "channel": ROOMS[room] });
        match kind {
            Kind::Plain => {}
            Kind::Positioned => request["positioned"] = true.into(),
            Kind::Recoverable => request["recoverable"] = true.into(),
        }
        if let Some((epoch, offset)) = &since {
            request["recover"] = true.into();
            request["epoch"] = epoch.as_str().into();
            request["offset"] = (*offset).into();
        }
        self.ask(Asked::Subscribe { room, since }, |_| json!({ "subscribe": request }));
    }

    pub(crate) fn unsubscribe(&mut self, room: usize) {
        let place = &mut self.places[room];
        if place.wanted.take().is_some() && (place.member || place.asking) {
            self.ask(Asked::Unsubscribe { room }, |_| json!({ "unsubscribe": { "channel": ROOMS[room] } }));
        }
    }

    pub(crate) fn publish(&mut self, room: usize, tag: u64, keyed: bool) {
        let Some(connection) = &self.connection else { return };
        let connection = connection.number;
        self.sent.push(Sent { tag, room, keyed, connection, acknowledged: false });
        self.send(self.sent.len() - 1);
    }

    fn send(&mut self, sent: usize) {
        let Sent { tag, room, keyed, .. } = self.sent[sent];
        let mut request = json!({ "channel": ROOMS[room], "data": tag });
        if keyed {
            request["idempotency_key"] = format!("key {tag}").into();
        }
        self.ask(Asked::Publish { sent }, |_| json!({ "publish": request }));
    }

    /// Publishes its last message with a key in each room again.
    pub(crate) fn repeat(&mut self) {
        if self.connection.is_none() {
            return;
        }
        for room in 0..ROOMS.len() {
            let last = self.sent.iter().rposition(|sent| sent.keyed && sent.room == room);
            last.into_iter().for_each(|sent| self.send(sent));
        }
    }

    /// Asks who is in each room, and what it carried.
    pub(crate) fn inquire(&mut self) {
        for (room, channel) in ROOMS.into_iter().enumerate() {
            self.ask(Asked::Presence { room }, |_| json!({ "presence": { "channel": channel } }));
            self.ask(Asked::Presence { room }, |_| json!({ "presence_stats": { "channel": channel } }));
            self.ask(Asked::History { room }, |_| json!({ "history": { "channel": channel, "limit": -1 } }));
        }
    }

    fn ask(&mut self, asked: Asked, command: impl FnOnce(&Self) -> Value) {
        self.next_id += 1;
        let mut command = command(self);
        command["id"] = self.next_id.into();
        let mut frame = Vec::new();
        append_client_frame(&mut frame, Opcode::Text, command.to_string().as_bytes(), MASK);
        if let Some(connection) = &mut self.connection {
            self.asked.insert(self.next_id, asked);
            // A connection that has ended shows when it is read.
            let _ = connection.socket.write_all(&frame);
        }
    }

    /// Reads all there is. `stands` says how many messages each room has accepted by now.
    pub(crate) fn pump(&mut self, stands: [usize; ROOMS.len()], node_lives: bool) {
        while let Some(mut connection) = self.connection.take() {
            let mut buffer = [0; 16 * 1024];
            match connection.socket.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    let (lines, ended) = read_lines(&mut connection.reader, &mut buffer[..count]);
                    self.connection = Some(connection);
                    for line in &lines {
                        self.take(line, stands);
                        if self.connection.is_none() {
                            break;
                        }
                    }
                    if ended {
                        self.disconnect();
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.connection = Some(connection);
                    break;
                }
                _ => {
                    self.connection = Some(connection);
                    self.disconnect();
                    self.dropped |= node_lives;
                }
            }
        }
        for room in 0..ROOMS.len() {
            if self.places[room].retry_at.is_some_and(|at| at <= Instant::now()) {
                self.places[room].retry_at = None;
                self.enter(room);
            }
        }
    }

    fn take(&mut self, message: &Value, stands: [usize; ROOMS.len()]) {
        if let Some(push) = message.get("push") {
            let channel = push["channel"].as_str().unwrap_or_default();
            let room = ROOMS.iter().position(|room| *room == channel).expect("a room that it knows");
            if let Some(publication) = push.get("pub") {
                for told in self.liar.live(Told::read(publication)) {
                    self.places[room].got(told);
                }
            } else if let Some(unsubscribed) = push.get("unsubscribe")
                && !self.liar.hushes()
            {
                self.sent_away(room, unsubscribed["code"].as_u64().unwrap_or_default());
            }
            return;
        }
        let Some(id) = message["id"].as_u64() else { return };
        let asked = u32::try_from(id).ok().and_then(|id| self.asked.remove(&id));
        if let Some(asked) = asked {
            self.answered(asked, message, stands);
        }
    }

    fn sent_away(&mut self, room: usize, code: u64) {
        let place = &mut self.places[room];
        place.member = false;
        place.seen.push(Seen::SentAway(code));
        place.retry_at = place.wanted.map(|_| Instant::now() + RETRY);
    }

    fn answered(&mut self, asked: Asked, message: &Value, stands: [usize; ROOMS.len()]) {
        let failed = message.get("error").is_some();
        match asked {
            Asked::Connect => self.id = message["connect"]["client"].as_str().map(str::to_owned),
            Asked::Subscribe { room, .. } if failed => {
                let place = &mut self.places[room];
                place.asking = false;
                place.retry_at = place.wanted.map(|_| Instant::now() + RETRY);
            }
            Asked::Subscribe { room, since } => {
                self.entered(room, since, &message["subscribe"], stands[room])
            }
            Asked::Unsubscribe { room } => {
                let place = &mut self.places[room];
                place.member = false;
                place.seen.push(Seen::Left);
                place.retry_at = place.wanted.map(|_| Instant::now() + RETRY);
            }
            Asked::Publish { sent } => self.sent[sent].acknowledged |= !failed || self.liar.acknowledges(),
            Asked::Presence { room } => {
                let present = self.places[room].present.get_or_insert_default();
                if let Some(clients) = message["presence"]["presence"].as_object() {
                    present.0 = self.liar.presence(clients.keys().cloned().collect());
                } else if let Some(count) = message["presence_stats"]["num_clients"].as_u64() {
                    present.1 = usize::try_from(count).expect("a few");
                }
            }
            Asked::History { room } => {
                self.places[room].history = Some(Told::read_all(&message["history"]["publications"]));
            }
        }
    }

    fn entered(&mut self, room: usize, since: Option<(String, u64)>, result: &Value, stands: usize) {
        let flag = |name: &str| result[name].as_bool().unwrap_or_default();
        let link = self.link().expect("who is answered is connected");
        let mut entered = Entered {
            link,
            positioned: flag("positioned"),
            came_back: since.is_some(),
            recovered: flag("recovered"),
            epoch: result["epoch"].as_str().unwrap_or_default().to_owned(),
            offset: result["offset"].as_u64().unwrap_or_default(),
            missed: Told::read_all(&result["publications"]),
            stands,
        };
        self.liar.recovery(&mut entered);
        let breaks_off = self.breaks_off && !entered.missed.is_empty();
        if breaks_off {
            self.breaks_off = false;
            entered.missed.truncate(entered.missed.len() / 2);
        }
        let place = &mut self.places[room];
        (place.member, place.asking) = (true, false);
        if flag("recoverable") {
            place.position = Some((entered.epoch.clone(), entered.offset));
            entered.missed.iter().for_each(|told| told.advance(&mut place.position));
        }
        place.seen.push(Seen::Entered(entered));
        if breaks_off {
            self.disconnect();
        }
    }

    pub(crate) fn break_off(&mut self, breaks_off: bool) {
        self.breaks_off = breaks_off;
    }

    /// A number that differs from connection to connection.
    pub(crate) fn name_next(&self) -> u128 {
        (self.number as u128 + 1) << 96 | (self.connections as u128 + 1)
    }
}

impl Place {
    fn got(&mut self, told: Told) {
        told.advance(&mut self.position);
        self.seen.push(Seen::Got(told));
    }
}

/// The messages in what was read, and whether the server said goodbye.
fn read_lines(reader: &mut Reader, bytes: &mut [u8]) -> (Vec<Value>, bool) {
    let mut lines = Vec::new();
    let mut input = reader.feed(bytes);
    while let Some(event) = input.next().expect("frames of the RFC") {
        match event {
            Event::Text(text) => {
                lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
            }
            Event::Close(_) => return (lines, true),
            Event::Binary(_) | Event::Ping(_) | Event::Pong(_) => {}
        }
    }
    (lines, false)
}
