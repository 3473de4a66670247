//! One client connection, as everybody but its own task sees it: a socket, an outbox, and a few words of state.
//!
//! The socket is written by whoever has something for the client; it is read by the session's task alone (see
//! [`connection`](crate::connection)).

use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{
    AtomicBool, AtomicU32, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};

use futures_util::task::AtomicWaker;
use manifold_protocol::DisconnectCode;
use parking_lot::Mutex;
use rustix::net::SendFlags;
use tokio::io::unix::AsyncFd;

use crate::frame;
use crate::outbox::{Appended, Outbox, Standing, UNFLUSHED_BYTES_MAX};
use crate::sweep::Appointment;

/// A connection after its WebSocket handshake.
pub(crate) struct Session {
    // What a delivery touches comes first, so that it shares cache lines.
    outbox: Mutex<Outbox>,
    stream: AsyncFd<TcpStream>,
    outbox_bytes_max: usize,
    wake: AtomicWaker,
    /// A close that somebody asked for: its code, 0 = none.
    close_wanted: AtomicU32,
    /// A ping went out and its pong did not come yet.
    awaiting_pong: AtomicBool,
    /// The close took too long: the connection is to end as it is.
    cut: AtomicBool,
    /// When the sweep looks at this session next.
    appointment: Appointment,
    /// Random bits that name the client.
    client: u128,
}

impl Session {
    /// Takes over a socket in non-blocking mode. Must be called within the runtime.
    ///
    /// # Errors
    /// When the runtime cannot watch the socket.
    pub(crate) fn new(stream: TcpStream, client: u128, outbox_bytes_max: usize) -> io::Result<Self> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; what that asks for, a TcpStream gives: it owns its file"
        )]
        let stream = AsyncFd::new(stream)?;
        Ok(Self {
            outbox: Mutex::default(),
            stream,
            outbox_bytes_max,
            wake: AtomicWaker::new(),
            close_wanted: AtomicU32::new(0),
            awaiting_pong: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            appointment: Appointment::new(),
            client,
        })
    }

    /// A number that differs from client to client.
    pub(crate) fn random(&self) -> u32 {
        (self.client >> 96) as u32
    }

    /// The random bits that name the client.
    pub(crate) fn client(&self) -> u128 {
        self.client
    }

    /// The client's id as it appears in the protocol.
    pub(crate) fn client_id(&self) -> String {
        client_id(self.client)
    }

    /// Writes whole frames now if nothing waits before them, else puts them behind what waits.
    pub(crate) fn send(&self, frames: &[u8]) {
        let mut outbox = self.outbox.lock();
        if !outbox.is_empty() || outbox.touched || outbox.scheduled || outbox.standing != Standing::Open {
            self.append_locked(&mut outbox, frames);
            self.relieve_locked(&mut outbox);
            return;
        }
        match self.send_raw(frames) {
            Ok(sent) if sent == frames.len() => {}
            Ok(sent) => {
                outbox.keep_rest(frames, sent);
                self.schedule(&mut outbox);
            }
            Err(error) if would_block(&error) => {
                if self.append_locked(&mut outbox, frames) == Appended::Done {
                    self.schedule(&mut outbox);
                }
            }
            Err(_) => self.fail(&mut outbox),
        }
    }

    /// Puts whole frames into the outbox. True: the caller owes a [`flush`](Self::flush).
    #[must_use]
    pub(crate) fn append(&self, frames: &[u8]) -> bool {
        let mut outbox = self.outbox.lock();
        if outbox.standing != Standing::Open {
            return false;
        }
        self.append_locked(&mut outbox, frames);
        let newly_touched = !outbox.touched && !outbox.scheduled;
        outbox.touched |= newly_touched;
        self.relieve_locked(&mut outbox);
        newly_touched
    }

    /// Begins the session's own turn: holds back direct writes until it [settles](Self::settle) or [defers](Self::defer), so that what
    /// follows leaves in one write.
    pub(crate) fn hold(&self) -> Standing {
        let mut outbox = self.outbox.lock();
        outbox.touched = true;
        outbox.standing
    }

    /// Ends the session's own turn: writes what waits. Says whether the task owes a write, and what may still be added.
    pub(crate) fn settle(&self) -> (bool, Standing) {
        let mut outbox = self.outbox.lock();
        self.flush_locked(&mut outbox);
        (outbox.scheduled, outbox.standing)
    }

    /// Ends the session's own turn, and leaves what waits to a later [`flush`](Self::flush), which the caller then owes. False:
    /// nothing may wait, and it has to [settle](Self::settle).
    #[must_use]
    pub(crate) fn defer(&self) -> bool {
        let mut outbox = self.outbox.lock();
        // A large answer leaves at once: another one may be asked for.
        let may_wait = !outbox.is_empty()
            && outbox.len() <= UNFLUSHED_BYTES_MAX
            && !outbox.has_answer()
            && !outbox.scheduled
            && outbox.standing == Standing::Open;
        outbox.touched |= may_wait;
        may_wait
    }

    /// Writes what waits if it is much. Direct writes stay held back.
    pub(crate) fn relieve(&self) {
        self.relieve_locked(&mut self.outbox.lock());
    }

    fn relieve_locked(&self, outbox: &mut Outbox) {
        if outbox.len() > UNFLUSHED_BYTES_MAX && !outbox.scheduled && !self.write_waiting(outbox) {
            self.schedule(outbox);
        }
    }

    /// Pays what `append` owes: writes what waits, unless the session's task has taken over.
    pub(crate) fn flush(&self) {
        self.flush_locked(&mut self.outbox.lock());
    }

    fn flush_locked(&self, outbox: &mut Outbox) {
        outbox.touched = false;
        if !outbox.scheduled && !outbox.is_empty() && !self.write_waiting(outbox) {
            self.schedule(outbox);
        }
    }

    /// The task's own flush, which it owes once `scheduled` is set. Says whether it still owes one, because the socket is full, and
    /// what may still be added.
    pub(crate) fn flush_scheduled(&self) -> (bool, Standing) {
        let mut outbox = self.outbox.lock();
        outbox.scheduled = !(outbox.is_empty() || self.write_waiting(&mut outbox));
        (outbox.scheduled, outbox.standing)
    }

    /// Puts a close frame behind everything that waits.
    pub(crate) fn append_close(&self, frame: &[u8]) {
        let mut outbox = self.outbox.lock();
        outbox.append_close(frame);
        outbox.scheduled = true;
    }

    /// Bytes that wait for the client to read.
    pub(crate) fn outbox_bytes(&self) -> usize {
        self.outbox.lock().len()
    }

    /// Puts one large answer behind what waits, beyond the outbox's limit if need be. False: another one is still being
    /// written. Only for the session's own turn, which [holds](Self::hold) it and will settle.
    #[must_use]
    pub(crate) fn append_answer(&self, frame: &[u8]) -> bool {
        self.outbox.lock().append_answer(frame)
    }

    /// Whether a large answer is still being written.
    pub(crate) fn has_answer(&self) -> bool {
        self.outbox.lock().has_answer()
    }

    /// Asks the task to close with `code`. The first wish counts.
    pub(crate) fn request_close(&self, code: DisconnectCode) {
        if self.close_wanted.compare_exchange(0, code.0, AcqRel, Relaxed).is_ok() {
            self.wake.wake();
        }
    }

    /// The close that somebody asked for.
    pub(crate) fn close_wanted(&self) -> Option<DisconnectCode> {
        Some(DisconnectCode(self.close_wanted.load(Acquire))).filter(|code| code.0 != 0)
    }

    pub(crate) fn stream(&self) -> &AsyncFd<TcpStream> {
        &self.stream
    }

    pub(crate) fn waker(&self) -> &AtomicWaker {
        &self.wake
    }

    /// Notes that a ping leaves.
    pub(crate) fn expect_pong(&self) {
        self.awaiting_pong.store(true, Relaxed);
    }

    /// Whether a pong is outstanding.
    pub(crate) fn is_awaiting_pong(&self) -> bool {
        self.awaiting_pong.load(Relaxed)
    }

    /// Takes a pong. False: none was outstanding.
    pub(crate) fn take_pong(&self) -> bool {
        self.awaiting_pong.swap(false, Relaxed)
    }

    pub(crate) fn appointment(&self) -> &Appointment {
        &self.appointment
    }

    /// Ends the connection without further ado.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Release);
        self.wake.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Acquire)
    }

    fn append_locked(&self, outbox: &mut Outbox, frames: &[u8]) -> Appended {
        // What was held back until now does not make a client slow.
        let held_back = !outbox.scheduled && !outbox.is_empty();
        if held_back && outbox.len() + frames.len() > self.outbox_bytes_max && !self.write_waiting(outbox) {
            self.schedule(outbox);
        }
        let appended = outbox.append(frames, self.outbox_bytes_max, frame::close_slow());
        if appended == Appended::Overflow {
            self.schedule(outbox);
        }
        appended
    }

    /// True: nothing waits any more (or ever will).
    fn write_waiting(&self, outbox: &mut Outbox) -> bool {
        match self.send_raw(outbox.bytes()) {
            Ok(sent) => {
                outbox.consume(sent);
                outbox.is_empty()
            }
            Err(error) if would_block(&error) => false,
            Err(_) => {
                self.fail(outbox);
                true
            }
        }
    }

    fn send_raw(&self, bytes: &[u8]) -> rustix::io::Result<usize> {
        // Interrupted calls are not retried forever: the kernel does not interrupt a call that never waits.
        rustix::net::send(self.stream.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
    }

    fn schedule(&self, outbox: &mut Outbox) {
        outbox.scheduled = true;
        self.wake.wake();
    }

    fn fail(&self, outbox: &mut Outbox) {
        outbox.fail();
        self.wake.wake();
    }
}

/// The client that random bits name, as it appears in the protocol: a version 4 UUID.
pub(crate) fn client_id(client: u128) -> String {
    let bits = (client & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn would_block(error: &rustix::io::Errno) -> bool {
    matches!(*error, rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("client", &self.client_id()).finish_non_exhaustive()
    }
}
