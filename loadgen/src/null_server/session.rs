//! One connection of the null server.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use manifold_protocol::websocket::{Limits, Reader};

/// Bytes that may wait for a connection; beyond, it is dropped.
const OUTBOX_BYTES_MAX: usize = 32 << 20;
/// An outbox that grew beyond this is given back once it is empty.
const KEEP_BYTES_MAX: usize = 64 << 10;

/// A connection.
#[derive(Debug)]
pub(super) struct Session {
    socket: TcpStream,
    pub(super) reader: Reader,
    /// The request's bytes, until the handshake is done.
    pub(super) request: Option<Vec<u8>>,
    out: Vec<u8>,
    written: usize,
    /// Rooms that it is in.
    pub(super) rooms: Vec<u32>,
    /// Waits to be flushed at the end of the turn.
    pub(super) is_touched: bool,
    /// Waits for the socket to take more.
    pub(super) is_blocked: bool,
    /// A frame that was held back, to come after the next one.
    pub(super) held: Option<Vec<u8>>,
    /// An HTTP answer was given: close once it is written.
    pub(super) ends: bool,
}

impl Session {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            reader: Reader::server(Limits::default()),
            request: Some(Vec::new()),
            out: Vec::new(),
            written: 0,
            rooms: Vec::new(),
            is_touched: false,
            is_blocked: false,
            held: None,
            ends: false,
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.read(buffer)
    }

    /// Puts bytes behind those that wait.
    #[inline]
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.out.len() - self.written + bytes.len() > OUTBOX_BYTES_MAX {
            return Err(io::Error::other("outbox full"));
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes bytes at once where nothing waits, and keeps what the socket doesn't take.
    #[inline]
    pub(super) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.out.is_empty() {
            return self.append(bytes);
        }
        match self.socket.write(bytes) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(count) => self.append(&bytes[count..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.append(bytes),
            Err(error) => Err(error),
        }
    }

    /// Writes what waits. True when nothing waits any more.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while self.written < self.out.len() {
            match self.socket.write(&self.out[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > KEEP_BYTES_MAX {
            self.out = Vec::new();
        }
        Ok(true)
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.out.is_empty()
    }
}
