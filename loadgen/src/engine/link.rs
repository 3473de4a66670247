//! One connection's socket: connecting, the handshake, writing what the socket takes.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::OwnedFd;

use manifold_protocol::websocket::{Limits, Reader, handshake};
use rustix::event::epoll::{self, EventData, EventFlags};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::shared::Node;

/// Largest message that a server may send: replies and pushes may share a frame.
const LIMITS: Limits = Limits { frame_bytes_max: 4 << 20, message_bytes_max: 4 << 20 };
/// An output buffer that grew beyond this is given back once it is empty.
const KEEP_BYTES_MAX: usize = 1_024;
/// Receive buffer of a client that reads slowly.
const SLOW_BUFFER_BYTES: usize = 32 << 10;
/// Clients per source address: a loopback address has some 28,000 ports to one destination by default.
const CLIENTS_PER_SOURCE: u32 = 20_000;

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is none; it may come.
    Down,
    /// The kernel is connecting.
    Connecting,
    /// The handshake was sent.
    Upgrading(Box<Upgrading>),
    /// Frames flow.
    Open,
    /// The server wants this client never again.
    Gone,
}

/// A handshake under way.
#[derive(Debug)]
pub(super) struct Upgrading {
    key: [u8; 24],
    response: Vec<u8>,
}

/// How a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    AtOnce,
    Slowly,
    Stopped,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    socket: Option<TcpStream>,
    pub(super) stage: Stage,
    pub(super) reader: Reader,
    /// Bytes to write; those before `written` are done.
    pub(super) out: Vec<u8>,
    written: usize,
    /// Tells events of a closed socket from those of its successor.
    pub(super) generation: u32,
    /// Node that it is connected, or tries to connect, to; until it does, counted round.
    pub(super) node: usize,
    pub(super) reading: Reading,
    interest: EventFlags,
}

impl Link {
    pub(super) fn new(node: usize) -> Self {
        Self {
            socket: None,
            stage: Stage::Down,
            reader: Reader::client(LIMITS),
            out: Vec::new(),
            written: 0,
            generation: 0,
            node,
            reading: Reading::AtOnce,
            interest: EventFlags::empty(),
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// Whether everything was written, so that the next message would leave at once.
    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Starts to connect.
    pub(super) fn connect(
        &mut self,
        node: &Node,
        client: u32,
        epoll: &OwnedFd,
        local: u32,
    ) -> io::Result<()> {
        self.generation = self.generation.wrapping_add(1);
        let socket = Socket::new(Domain::for_address(node.address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let (SocketAddr::V4(to), source @ 1..) = (node.address, client / CLIENTS_PER_SOURCE)
            && to.ip().is_loopback()
        {
            let source = Ipv4Addr::new(127, 0, (source >> 8) as u8, (source & 0xFF) as u8);
            socket.bind(&SocketAddrV4::new(source, 0).into())?;
        }
        match socket.connect(&node.address.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        let socket = TcpStream::from(socket);
        self.interest = EventFlags::OUT;
        epoll::add(epoll, &socket, self.event_data(local), self.interest)?;
        self.socket = Some(socket);
        self.stage = Stage::Connecting;
        Ok(())
    }

    fn event_data(&self, local: u32) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(local))
    }

    /// The kernel has connected, or failed to: sends the handshake.
    pub(super) fn upgrade(&mut self, node: &Node, random: [u8; 16]) -> io::Result<()> {
        if let Some(error) = self.socket.as_ref().and_then(|socket| socket.take_error().transpose()) {
            return Err(error.unwrap_or_else(|error| error));
        }
        let key = handshake::client_key(random);
        handshake::append_request(&mut self.out, &node.host, &node.path, &key, &[]);
        self.stage = Stage::Upgrading(Box::new(Upgrading { key, response: Vec::new() }));
        Ok(())
    }

    /// Takes bytes of the handshake's answer. `Some`: it is complete, and these bytes after it are frames.
    pub(super) fn upgraded(&mut self, bytes: &[u8]) -> Result<Option<Vec<u8>>, handshake::HandshakeError> {
        let Stage::Upgrading(upgrading) = &mut self.stage else { return Ok(None) };
        upgrading.response.extend_from_slice(bytes);
        let Some(length) = handshake::check_response(&upgrading.response, &upgrading.key)? else {
            return Ok(None);
        };
        let rest = upgrading.response.split_off(length);
        self.stage = Stage::Open;
        self.reader = Reader::client(LIMITS);
        Ok(Some(rest))
    }

    /// From now on it reads slowly or not at all. Like a phone on a bad link it holds little for itself: what it doesn't
    /// read waits on the server's side.
    pub(super) fn read_less(&mut self, reading: Reading) {
        self.reading = reading;
        if let Some(socket) = &self.socket {
            // Where the kernel refuses, its own larger buffer fills first.
            let _ = SockRef::from(socket).set_recv_buffer_size(SLOW_BUFFER_BYTES);
        }
    }

    /// Reads what has come, at most `buffer`. `WouldBlock` when nothing has.
    #[inline]
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.socket {
            Some(socket) => socket.read(buffer),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes what the socket takes. True when all is written.
    #[inline]
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else {
            self.out.clear();
            return Ok(true);
        };
        while self.written < self.out.len() {
            match socket.write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        self.out.clear();
        if self.out.capacity() > KEEP_BYTES_MAX {
            self.out = Vec::new();
        }
        Ok(true)
    }

    /// Tells epoll what the connection waits for, where that has changed.
    #[inline]
    pub(super) fn watch(&mut self, epoll: &OwnedFd, local: u32) -> io::Result<()> {
        let mut interest = EventFlags::RDHUP;
        if self.reading == Reading::AtOnce {
            interest |= EventFlags::IN;
        }
        if matches!(self.stage, Stage::Connecting) || !self.out.is_empty() {
            interest |= EventFlags::OUT;
        }
        if let Some(socket) = self.socket.as_ref().filter(|_| interest != self.interest) {
            epoll::modify(epoll, socket, self.event_data(local), interest)?;
            self.interest = interest;
        }
        Ok(())
    }

    /// Gives the socket away, open as it is.
    pub(super) fn abandon(&mut self, epoll: &OwnedFd) -> Option<TcpStream> {
        let socket = self.socket.take()?;
        // A socket that the kernel keeps watching is closed instead: it would wake the thread for ever.
        epoll::delete(epoll, &socket).ok()?;
        Some(socket)
    }

    /// Drops the socket and whatever was on its way.
    pub(super) fn close(&mut self, stage: Stage) {
        self.socket = None;
        self.stage = stage;
        self.out = Vec::new();
        self.written = 0;
        self.reader = Reader::client(LIMITS);
        self.reading = Reading::AtOnce;
    }
}
