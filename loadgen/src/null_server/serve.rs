//! The null server's loop: one thread, one epoll.

mod fan_out;
mod linger;

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use manifold_protocol::websocket::{self, Event, Opcode};
use manifold_protocol::{ConnectResult, Error, ErrorCode, Reply, ReplyBody, Request, json};
use rustix::event::Timespec;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::greeting::{greet, publish};
use super::rooms::Rooms;
use super::session::Session;
use super::{Misbehaviour, NullSettings};
use linger::Lingering;

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 128 << 10;
const EVENTS_MAX: usize = 256;
/// Longest wait, so that a stop is seen.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

/// The server.
pub(super) struct Server {
    listener: TcpListener,
    settings: NullSettings,
    stop: Arc<AtomicBool>,
    epoll: OwnedFd,
    sessions: Vec<Option<Session>>,
    free: Vec<u32>,
    rooms: Rooms,
    touched: Vec<u32>,
    /// Frames that are sent late on purpose: when, and to whom.
    late: Vec<(Instant, u32, Vec<u8>)>,
    lingering: Vec<Lingering>,
    buffer: Box<[u8]>,
    replies: Vec<u8>,
    /// The message on its way to the members, or the replies to their client: kept, so that neither costs an allocation.
    frame: Vec<u8>,
    publishes: u64,
    died: bool,
}

impl Server {
    pub(super) fn new(
        listener: TcpListener,
        settings: NullSettings,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        Ok(Self {
            listener,
            settings,
            stop,
            epoll,
            sessions: Vec::new(),
            free: Vec::new(),
            rooms: Rooms::new(settings.history),
            touched: Vec::new(),
            late: Vec::new(),
            lingering: Vec::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            replies: Vec::new(),
            frame: Vec::new(),
            publishes: 0,
            died: false,
        })
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        while !self.stop.load(Ordering::Acquire) && !self.died {
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&WAIT)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (data, flags) = (event.data.u64(), event.flags);
                if data == LISTENER {
                    self.accept()?;
                    continue;
                }
                let id = data as u32;
                let outcome = if flags.contains(EventFlags::OUT) { self.flush(id) } else { Ok(()) };
                let outcome = match outcome {
                    Ok(()) if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) => {
                        self.read(id)
                    }
                    other => other,
                };
                if outcome.is_err() {
                    self.drop_session(id);
                }
                if self.died {
                    break;
                }
            }
            self.carry_out();
            self.send_late();
            self.flush_touched();
        }
        Ok(())
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // The peer gave up, or descriptors ran out: the next one may do better.
                Err(_) => return Ok(()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let id = self.free.pop().unwrap_or(self.sessions.len() as u32);
            epoll::add(&self.epoll, &socket, EventData::new_u64(u64::from(id)), EventFlags::IN)?;
            let session = Some(Session::new(socket));
            match self.sessions.get_mut(id as usize) {
                Some(place) => *place = session,
                None => self.sessions.push(session),
            }
        }
    }

    fn drop_session(&mut self, id: u32) {
        let Some(session) = self.sessions.get_mut(id as usize).and_then(Option::take) else { return };
        for room in session.rooms {
            self.rooms.all[room as usize].members.retain(|member| *member != id);
        }
        self.forget_asker(id);
        self.free.push(id);
    }

    #[inline]
    fn session(&mut self, id: u32) -> io::Result<&mut Session> {
        self.sessions.get_mut(id as usize).and_then(Option::as_mut).ok_or(io::ErrorKind::NotConnected.into())
    }

    fn read(&mut self, id: u32) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.read_into(id, &mut buffer);
        self.buffer = buffer;
        outcome
    }

    fn read_into(&mut self, id: u32, buffer: &mut [u8]) -> io::Result<()> {
        let session = self.session(id)?;
        let mut count = match session.read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        if let Some(request) = &mut session.request {
            request.extend_from_slice(&buffer[..count]);
            let Some(rest) = greet(session)? else { return self.flush(id) };
            count = rest.len();
            buffer[..count].copy_from_slice(&rest);
            self.flush(id)?;
        }
        let session = self.session(id)?;
        let mut reader =
            std::mem::replace(&mut session.reader, websocket::Reader::server(Default::default()));
        let mut input = reader.feed(&mut buffer[..count]);
        let outcome = loop {
            match input.next() {
                Ok(Some(Event::Text(text))) => {
                    if let Err(error) = self.take(id, text) {
                        break Err(error);
                    }
                }
                Ok(Some(Event::Close(_))) => break Err(io::ErrorKind::ConnectionReset.into()),
                Ok(Some(_)) => {}
                Ok(None) => break Ok(()),
                Err(_) => break Err(io::ErrorKind::InvalidData.into()),
            }
        };
        self.session(id)?.reader = reader;
        self.reply(id)?;
        outcome
    }

    /// Sends the replies of one read in one frame.
    fn reply(&mut self, id: u32) -> io::Result<()> {
        if self.replies.is_empty() {
            return Ok(());
        }
        let mut frame = std::mem::take(&mut self.frame);
        frame.clear();
        websocket::append_server_frame(&mut frame, Opcode::Text, &self.replies);
        self.replies.clear();
        let outcome = self.push(id, &frame);
        self.frame = frame;
        outcome
    }

    fn take(&mut self, id: u32, text: &str) -> io::Result<()> {
        for line in text.split('\n').filter(|line| !line.is_empty() && *line != "{}") {
            if let Some((command, channel, data)) = publish(line.as_bytes())
                && let Some(room) = self.rooms.find(channel)
            {
                self.publish(id, command, room, data)?;
                continue;
            }
            for command in json::commands(line) {
                let command = command.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                self.command(id, command.id, &command.request)?;
            }
        }
        Ok(())
    }

    fn command(&mut self, id: u32, command: u32, request: &Request<'_>) -> io::Result<()> {
        let body = match request {
            Request::Connect(_) => {
                let (client, ping) = (id.to_string().into(), self.settings.promised_pings_s());
                ReplyBody::Connect(ConnectResult { client, ping, ..ConnectResult::default() })
            }
            Request::Subscribe(subscribe) => {
                let room = self.rooms.find_or_make(&subscribe.channel);
                let session = self.session(id)?;
                if !session.rooms.contains(&room) {
                    session.rooms.push(room);
                    self.rooms.all[room as usize].members.push(id);
                }
                let welcome = self.rooms.welcome(room, subscribe, self.settings.misbehaviour);
                self.answer(&Reply { id: command, body: ReplyBody::Subscribe(welcome.result()) });
                self.rooms.append_again(room, &welcome, &mut self.replies);
                return Ok(());
            }
            Request::Unsubscribe { channel } => {
                if let Some(room) = self.rooms.find(channel.as_bytes()) {
                    self.leave(id, room)?;
                }
                ReplyBody::Unsubscribe
            }
            Request::Publish(publish) => {
                let room = self.rooms.find_or_make(&publish.channel);
                let data = publish.data.map_or("null", json::Json::as_str);
                return self.publish(id, command, room, data.as_bytes());
            }
            _ => ReplyBody::Error(Error::from(ErrorCode::NOT_AVAILABLE)),
        };
        self.answer(&Reply { id: command, body });
        Ok(())
    }

    fn leave(&mut self, id: u32, room: u32) -> io::Result<()> {
        self.session(id)?.rooms.retain(|one| *one != room);
        self.rooms.all[room as usize].members.retain(|member| *member != id);
        Ok(())
    }

    fn answer(&mut self, reply: &Reply<'_>) {
        if !self.replies.is_empty() {
            self.replies.push(b'\n');
        }
        json::append_reply(&mut self.replies, reply);
    }

    fn publish(&mut self, id: u32, command: u32, room: u32, data: &[u8]) -> io::Result<()> {
        self.publishes += 1;
        if self.puts_off(id, command, room, data) {
            return Ok(());
        }
        match self.settings.misbehaviour {
            Some(Misbehaviour::Refuse { every }) if self.publishes.is_multiple_of(every) => {
                let error = Error::from(ErrorCode::INTERNAL);
                self.answer(&Reply { id: command, body: ReplyBody::Error(error) });
                return Ok(());
            }
            Some(Misbehaviour::Stall { after, lasting }) if self.publishes == after => {
                std::thread::sleep(lasting);
            }
            Some(Misbehaviour::Die { after }) if self.publishes == after => {
                self.died = true;
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            _ => {}
        }
        self.fan_out(room, data);
        self.answer(&Reply { id: command, body: ReplyBody::Publish });
        Ok(())
    }

    /// Gives a frame to a session: at once, or at the end of the turn.
    #[inline]
    fn push(&mut self, id: u32, frame: &[u8]) -> io::Result<()> {
        let coalesce = self.settings.coalesce;
        let session = self.session(id)?;
        if coalesce {
            session.append(frame)?;
        } else {
            session.send(frame)?;
        }
        if let Some(held) = session.held.take() {
            session.append(&held)?;
        }
        if session.has_waiting() && !std::mem::replace(&mut session.is_touched, true) {
            self.touched.push(id);
        }
        Ok(())
    }

    fn flush_touched(&mut self) {
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            if let Ok(session) = self.session(id) {
                session.is_touched = false;
            }
            if self.flush(id).is_err() {
                self.drop_session(id);
            }
        }
        self.touched = touched;
    }

    /// Writes what waits, and has epoll say when the socket takes more.
    fn flush(&mut self, id: u32) -> io::Result<()> {
        let session = self.session(id)?;
        let blocked = !session.flush()?;
        if session.ends && !blocked {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if blocked != std::mem::replace(&mut session.is_blocked, blocked) {
            let out = if blocked { EventFlags::OUT } else { EventFlags::empty() };
            let data = EventData::new_u64(u64::from(id));
            let socket = self.sessions[id as usize].as_ref().map(Session::socket);
            socket.map_or(Ok(()), |socket| epoll::modify(&self.epoll, socket, data, EventFlags::IN | out))?;
        }
        Ok(())
    }
}
