//! A session's own task: it reads the socket, runs the commands, and writes only what others could not.
//!
//! The future is written by hand: it keeps nothing but what a connection needs while it is idle. There is no read buffer of its
//! own (one per thread, used within a poll), no timer (the [sweep](crate::sweep) has them), no channel.

mod commands;
mod history;
mod pending;
mod position;
mod presence;
mod publish;
mod rate;
mod recover;
mod subscribe;

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::net::TcpStream;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use manifold_protocol::DisconnectCode;
use manifold_protocol::websocket::{CloseCode, ClosePayload, Event, Limits, Opcode, Reader, parse_header};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::time::Sleep;

use crate::frame;
use crate::hub::Cork;
use crate::node::Admission;
use crate::outbox::Standing;
use crate::session::Session;
use commands::Client;
pub(crate) use publish::reply_code;

/// Bytes read at once, into the thread's buffer.
const READ_BYTES: usize = 64 * 1024;
/// Full reads in one turn before other tasks get theirs.
const READS_PER_TURN: usize = 2;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into_boxed_slice());
}

/// Why the server ends a connection: what its close frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disconnect {
    pub(crate) code: CloseCode,
    pub(crate) reason: String,
}

impl From<DisconnectCode> for Disconnect {
    fn from(code: DisconnectCode) -> Self {
        Self { code: code.into(), reason: code.reason().to_owned() }
    }
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// The node goes down: nothing is read any more, and what the backplane has accepted is still answered.
    Draining,
    /// Our close frame is the last in the outbox; the peer's is awaited.
    Closing,
    /// Both sides have said goodbye; what waits is still to be written.
    Closed,
}

/// The task of one session.
pub(crate) struct Connection {
    reader: Reader,
    phase: Phase,
    /// Bytes that came in one packet with the handshake.
    first: Vec<u8>,
    /// Until when the last answers of the backplane are awaited.
    last_answers: Option<Pin<Box<Sleep>>>,
    /// Standstills of this process that were reckoned with.
    thaws: u32,
    client: Client,
}

impl Connection {
    /// Opens a session on a socket in non-blocking mode that has its WebSocket handshake behind it. `client` are random bits
    /// that name it. Must be called within the runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn open(
        admission: Admission,
        stream: TcpStream,
        client: u128,
        first: Vec<u8>,
    ) -> io::Result<Self> {
        let node = Arc::clone(admission.node());
        let outbox_bytes_max = usize::try_from(node.config().outbox_bytes_max).unwrap_or(usize::MAX);
        let session = Arc::new(Session::new(stream, client, outbox_bytes_max)?);
        node.metrics().count_accepted();
        node.sweep().expect_connect(&session);
        if node.is_draining() {
            session.request_close(DisconnectCode::SHUTDOWN);
        }
        Ok(Self::new(admission, session, first))
    }

    fn new(admission: Admission, session: Arc<Session>, first: Vec<u8>) -> Self {
        let message_bytes_max = admission.node().config().message_bytes_max;
        let limits = Limits { frame_bytes_max: message_bytes_max, message_bytes_max };
        let thaws = admission.node().sweep().thaws();
        Self {
            reader: Reader::server(limits),
            phase: Phase::Open,
            first,
            last_answers: None,
            thaws,
            client: Client::new(admission, session),
        }
    }

    /// One turn: everything that can be done without waiting. Ready: the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        // What waits behind a join, or came with the handshake, is not in the socket any more.
        let old = (self.client.is_waiting() || !self.first.is_empty()) && self.may_be_old();
        if old && self.was_left() {
            return Poll::Ready(());
        }
        if self.phase == Phase::Open {
            match self.client.session().close_wanted() {
                Some(DisconnectCode::SHUTDOWN) => self.phase = Phase::Draining,
                Some(code) => self.close(code.into()),
                None => self.client.poll_pending(cx),
            }
        }
        if self.phase == Phase::Draining {
            ready!(self.drain(cx));
        }
        if !self.first.is_empty() {
            let mut first = std::mem::take(&mut self.first);
            self.take_bytes(&mut first, old, cx);
        }
        READ_BUFFER.with_borrow_mut(|buffer| self.read(buffer, old, cx))
    }

    /// Answers the commands under way, as far as the backplane does so in time, then says goodbye.
    fn drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_pending(cx);
        if self.client.is_waiting() {
            let patience = Duration::from_millis(self.client.node().config().shutdown_timeout_ms);
            let deadline = self.last_answers.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
            ready!(deadline.as_mut().poll(cx));
        }
        self.last_answers = None;
        self.close(DisconnectCode::SHUTDOWN.into());
        Poll::Ready(())
    }

    /// Whether there is nobody to talk to any more. Notes on the way that the client turned out to be slow.
    fn is_over(&mut self) -> bool {
        let session = self.client.session();
        if session.is_cut() {
            return true;
        }
        match session.standing() {
            Standing::Broken => true,
            Standing::Slow if matches!(self.phase, Phase::Open | Phase::Draining) => {
                // The close frame is in the outbox already.
                self.begin_closing(DisconnectCode::SLOW.into());
                false
            }
            _ => false,
        }
    }

    /// Whether what is still to be carried out may have been sent while this process stood still. If its sender has left since,
    /// it goes on elsewhere: carried out now, this would come behind what it has sent there.
    fn may_be_old(&mut self) -> bool {
        self.client.node().sweep().may_be_old(&mut self.thaws)
    }

    fn was_left(&self) -> bool {
        let session = self.client.session();
        let left = has_hung_up(session.stream().get_ref());
        if left {
            tracing::debug!(client = %session.client_id(), "it hung up while this process stood still");
        }
        left
    }

    /// Reads and carries out. `old`: what is read may be [old](Self::may_be_old).
    fn read(&mut self, buffer: &mut [u8], mut old: bool, cx: &mut Context<'_>) -> Poll<()> {
        let mut full_reads = 0;
        loop {
            let session = Arc::clone(self.client.session());
            let Ok(mut readiness) = ready!(session.stream().poll_read_ready(cx)) else {
                return Poll::Ready(());
            };
            old |= self.may_be_old();
            if old && self.was_left() {
                return Poll::Ready(());
            }
            match rustix::net::recv(session.stream().get_ref(), &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Poll::Ready(()),
                Ok((count, _)) => {
                    // A short read emptied the socket: what comes later raises a new event.
                    let short = count < buffer.len();
                    if short {
                        readiness.clear_ready();
                    }
                    self.take_bytes(&mut buffer[..count], old, cx);
                    full_reads += usize::from(!short);
                    if full_reads == READS_PER_TURN {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
                Err(Errno::AGAIN) => readiness.clear_ready(),
                Err(Errno::INTR) => {}
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    fn take_bytes(&mut self, bytes: &mut [u8], old: bool, cx: &mut Context<'_>) {
        if self.phase == Phase::Closed {
            return;
        }
        // Who waited in vain for an answer may have closed in order, and left the socket open for ours.
        let left = old && self.reader.pending_bytes() == 0 && says_goodbye(bytes);
        self.client.expect_single_frame(self.reader.pending_bytes() == 0 && is_one_frame(bytes));
        let mut ending = None;
        let mut input = self.reader.feed(bytes);
        loop {
            match input.next() {
                Ok(None) => break,
                Ok(Some(Event::Close(frame))) => {
                    let echo = frame::control(Opcode::Close, ClosePayload::echo(frame).as_bytes());
                    self.client.session().append_close(&echo);
                    self.phase = Phase::Closed;
                    // What waits before it may take a while; a client that does not read it is cut off.
                    self.client.node().sweep().expect_closed(self.client.session());
                    self.client.leave_all();
                    return;
                }
                Ok(Some(_)) if left || self.phase != Phase::Open => {}
                Ok(Some(event)) => {
                    if let Err(disconnect) = self.client.take_event(event, cx) {
                        ending = Some(disconnect);
                        break;
                    }
                }
                Err(error) => {
                    ending = Some(Disconnect { code: error.close_code(), reason: error.to_string() });
                    break;
                }
            }
        }
        let fragments = self.reader.take_fragments();
        let ending = ending.or_else(|| self.client.charge_fragments(fragments).err());
        if let Some(disconnect) = ending
            && self.phase == Phase::Open
        {
            tracing::debug!(client = %self.client.session().client_id(), ?disconnect, "closing");
            self.close(disconnect);
        }
    }

    fn close(&mut self, disconnect: Disconnect) {
        self.client.session().append_close(&frame::close(disconnect.code, &disconnect.reason));
        self.begin_closing(disconnect.code);
    }

    fn begin_closing(&mut self, code: CloseCode) {
        self.phase = Phase::Closing;
        self.client.node().metrics().count_close(code.0);
        self.client.node().sweep().expect_closed(self.client.session());
        self.client.leave_all();
    }

    /// Writes what is owed. Ready: all is written and no more will come.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let session = Arc::clone(self.client.session());
        while session.is_scheduled() {
            // Readiness first, then the attempt: clearing it afterwards cannot swallow an event in between.
            let Ok(mut readiness) = ready!(session.stream().poll_write_ready(cx)) else {
                return Poll::Ready(());
            };
            if !session.flush_scheduled() {
                readiness.clear_ready();
            }
        }
        let over = self.phase == Phase::Closed || session.standing() == Standing::Broken;
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Future for Connection {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let session = Arc::clone(this.client.session());
        session.waker().register(cx.waker());
        // Replies and the client's own pushes leave together, after those of everybody else.
        session.hold();
        let cork = Cork::new();
        let turn = this.turn(cx);
        drop(cork);
        session.flush();
        if turn.is_ready() { Poll::Ready(()) } else { this.write(cx) }
    }
}

/// Whether `bytes` are exactly one frame.
fn is_one_frame(bytes: &[u8]) -> bool {
    match parse_header(bytes) {
        Ok(Some((header, length))) => header.fin && header.payload_len == (bytes.len() - length) as u64,
        _ => false,
    }
}

/// Whether a close frame is among the frames that `bytes` begin with.
fn says_goodbye(mut bytes: &[u8]) -> bool {
    while let Ok(Some((header, length))) = parse_header(bytes) {
        if header.opcode == Opcode::Close {
            return true;
        }
        let Ok(payload) = usize::try_from(header.payload_len) else { return false };
        let Some(rest) = bytes.get(length.saturating_add(payload)..) else { return false };
        bytes = rest;
    }
    false
}

/// Whether the peer has closed the connection, or its half of it, even where bytes that it sent before are unread.
fn has_hung_up(stream: &TcpStream) -> bool {
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut looked = [PollFd::new(stream, gone)];
    // It looks, and does not wait. Where it cannot, the read finds out.
    rustix::event::poll(&mut looked, Some(&Timespec::default())).is_ok()
        && looked[0].revents().intersects(gone)
}

#[cfg(test)]
mod tests {
    use manifold_protocol::websocket::append_client_frame;

    use super::*;

    #[test]
    fn a_goodbye_is_found_behind_whole_frames() {
        let mut bytes = Vec::new();
        for (opcode, length) in [(Opcode::Text, 3), (Opcode::Ping, 0), (Opcode::Text, 70_000)] {
            append_client_frame(&mut bytes, opcode, &vec![0x88; length], [0; 4]);
        }
        assert!(!says_goodbye(&bytes) && !says_goodbye(&bytes[..1_000]) && !says_goodbye(&[]));
        append_client_frame(&mut bytes, Opcode::Close, &[3, 232], [0; 4]);
        assert!(says_goodbye(&bytes));
        append_client_frame(&mut bytes, Opcode::Text, b"late", [0; 4]);
        assert!(says_goodbye(&bytes));
    }
}
