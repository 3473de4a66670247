//! What a thread has delivered and not yet written.
//!
//! Deliveries are appended to the members' outboxes, and each touched session is written to once, when the batch ends: a batch of
//! the backplane, or what one read of a socket brought (under a [`Cork`]).
//!
//! A worker of the runtime that has been busy for a while goes further: it keeps what it delivered until it runs out of work, or
//! for a few milliseconds, whichever is first. Then one write carries what several publishers had to say, and the replies to the
//! session's own commands with it. That is where the cost of a delivery falls as the load rises. A worker that pauses now and then
//! writes at once, so a quiet node waits for nothing.

use std::cell::RefCell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use manifold_protocol::websocket::FrameBuilder;

use crate::outbox::Standing;
use crate::session::Session;
use crate::spare;

/// Write at the latest when this much was appended by one thread, summed over the members. Each session has a
/// [bound of its own](crate::outbox::UNFLUSHED_BYTES_MAX).
const THREAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Write at the latest when so many sessions wait: some 20 ms of writes, in which the thread does nothing else.
const TOUCHED_MAX: usize = 4096;
/// A worker that has not paused for so long is busy.
const BUSY_AFTER: Duration = Duration::from_millis(1);
/// A busy worker keeps what it delivered for so long at most.
const WAIT_MAX: Duration = Duration::from_millis(10);

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

/// What a delivering thread reuses.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) frame: FrameBuilder,
    /// The same message without a position, where a room has members whose position is void.
    pub(super) unplaced: FrameBuilder,
    touched: Vec<Arc<Session>>,
    appended_bytes: usize,
    corked: bool,
    /// Under a cork: no further delivery will follow.
    last: bool,
    /// This batch may wait for the next one.
    deferring: bool,
    shift: Shift,
}

/// How long a worker of the runtime has been at work. Other threads have none, and keep nothing back.
#[derive(Debug, Default)]
struct Shift {
    began: Option<Instant>,
    /// Since when something is kept back.
    keeps_since: Option<Instant>,
}

impl Shift {
    /// Whether what is delivered from `now` on may be kept back.
    fn is_busy(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let Some(began) = self.began else { return false };
        let now = now();
        let busy = now.saturating_duration_since(began) >= BUSY_AFTER;
        if busy {
            self.keeps_since.get_or_insert(now);
        }
        busy
    }

    /// Whether what is kept back may wait still.
    fn may_wait(&self, now: Instant) -> bool {
        self.keeps_since.is_some_and(|since| now.saturating_duration_since(since) < WAIT_MAX)
    }
}

impl Scratch {
    /// Runs `deliver` with this thread's scratch.
    pub(super) fn with<T>(deliver: impl FnOnce(&mut Self) -> T) -> T {
        SCRATCH.with_borrow_mut(deliver)
    }

    /// Begins a batch, unless a cork holds several together.
    pub(super) fn begin_batch(&mut self) {
        if !self.corked {
            if self.touched.is_empty() {
                self.shift.keeps_since = None;
            }
            self.deferring = self.shift.is_busy(Instant::now);
        }
    }

    pub(super) fn end_batch(&mut self) {
        if !self.corked {
            self.flush_unless_deferring();
        }
    }

    /// Whether a delivery may be written straight to the sockets, where it is the last one of its batch: the common case of a quiet
    /// room then costs no copy and wakes nobody.
    pub(super) fn is_alone(&self, last: bool) -> bool {
        last && !self.deferring && (!self.corked || self.last) && self.touched.is_empty()
    }

    /// The parts that a delivery needs at the same time: frames to fill, and the list of who has to be written to.
    pub(super) fn parts(&mut self) -> (&mut FrameBuilder, &mut FrameBuilder, Touched<'_>) {
        let touched = Touched { sessions: &mut self.touched, bytes: &mut self.appended_bytes };
        (&mut self.frame, &mut self.unplaced, touched)
    }

    /// Writes where too much waits, or has waited for long enough.
    pub(super) fn relieve(&mut self) {
        let much = self.appended_bytes > THREAD_BYTES_MAX || self.touched.len() > TOUCHED_MAX;
        if !self.deferring {
            if much {
                self.flush();
            }
            return;
        }
        let now = Instant::now();
        if much || !self.shift.may_wait(now) {
            self.flush();
            // The batch goes on.
            self.shift.keeps_since = Some(now);
        }
    }

    fn flush_unless_deferring(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        if !self.deferring || !self.shift.may_wait(Instant::now()) {
            self.flush();
        }
    }

    pub(super) fn flush(&mut self) {
        self.appended_bytes = 0;
        self.shift.keeps_since = None;
        for session in self.touched.drain(..) {
            session.flush();
        }
    }
}

/// Who has to be written to.
pub(super) struct Touched<'s> {
    sessions: &'s mut Vec<Arc<Session>>,
    bytes: &'s mut usize,
}

impl Touched<'_> {
    /// Puts a frame behind what waits for a member.
    pub(super) fn append(&mut self, session: &Arc<Session>, frame: &[u8]) {
        if session.append(frame) {
            self.sessions.push(Arc::clone(session));
        }
        *self.bytes += frame.len();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The thread ends: nobody else knows of what it kept back.
        self.flush();
    }
}

/// While it lives, deliveries on this thread are appended, and written when it ends. It cannot leave its thread, and so cannot be
/// held across an await.
pub(crate) struct Cork(PhantomData<*const ()>);

impl Cork {
    pub(crate) fn new() -> Self {
        Scratch::with(|scratch| {
            debug_assert!(!scratch.corked, "corks do not nest");
            scratch.begin_batch();
            scratch.corked = true;
            scratch.last = false;
        });
        Self(PhantomData)
    }

    /// Says whether what follows is the last delivery under this thread's cork: then it may be written at once.
    pub(crate) fn expect_last(last: bool) {
        Scratch::with(|scratch| scratch.last = last);
    }

    /// Ends a session's own turn: what the others got is written first, then what waits for itself, unless this worker keeps both
    /// back. Says whether the session's task owes a write, and what may still be added.
    pub(crate) fn end_turn_of(self, session: &Arc<Session>) -> (bool, Standing) {
        let deferred = Scratch::with(|scratch| {
            let deferred = scratch.deferring && session.defer();
            if deferred {
                scratch.touched.push(Arc::clone(session));
                scratch.relieve();
            }
            deferred
        });
        drop(self);
        if deferred { (false, Standing::Open) } else { session.settle() }
    }
}

impl Drop for Cork {
    fn drop(&mut self) {
        Scratch::with(|scratch| {
            scratch.corked = false;
            scratch.end_batch();
        });
    }
}

/// Writes what this thread keeps back: before a worker pauses.
pub(crate) fn flush_thread() {
    Scratch::with(Scratch::flush);
}

/// Lets others run on this worker, who may wait for what it keeps back: it does not pause in between.
pub(crate) async fn yield_worker() {
    flush_thread();
    tokio::task::yield_now().await;
}

/// A worker of the runtime begins to work: only those keep something back, because only those call
/// [`flush_thread`] when they run out of work.
pub(crate) fn begin_shift() {
    let now = Instant::now();
    Scratch::with(|scratch| scratch.shift.began = Some(now));
    spare::trim(now);
}

/// A worker of the runtime ends.
pub(crate) fn end_shift() {
    Scratch::with(|scratch| {
        scratch.shift.began = None;
        scratch.flush();
    });
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn only_a_worker_without_a_pause_keeps_something_back() {
        let now = Instant::now();
        let mut shift = Shift::default();
        assert!(!shift.is_busy(|| now), "no worker");
        shift.began = Some(now);
        assert!(!shift.is_busy(|| now), "it has just begun");
        assert!(shift.is_busy(|| now + BUSY_AFTER));
    }

    #[test]
    fn what_is_kept_back_waits_for_a_bounded_time() {
        let now = Instant::now();
        let mut shift = Shift { began: now.checked_sub(BUSY_AFTER), keeps_since: None };
        assert!(!shift.may_wait(now), "nothing is kept back");
        assert!(shift.is_busy(|| now) && shift.is_busy(|| now + WAIT_MAX / 2));
        assert!(shift.may_wait(now + WAIT_MAX / 2) && !shift.may_wait(now + WAIT_MAX));
    }

    /// A session, and the client's end of it.
    fn session() -> (Arc<Session>, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.set_nonblocking(true).unwrap();
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Arc::new(Session::new(stream, 1, 64 * 1024).unwrap()), client)
    }

    /// What the client has got by now.
    fn got(client: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let _ = client.read_to_end(&mut bytes);
        String::from_utf8(bytes).unwrap()
    }

    fn append(session: &Arc<Session>, text: &str) {
        Scratch::with(|scratch| scratch.parts().2.append(session, text.as_bytes()));
    }

    #[tokio::test]
    async fn a_busy_worker_writes_when_it_pauses_and_replies_leave_behind_pushes() {
        let (session, mut client) = session();
        // This thread never pauses, for all it knows.
        Scratch::with(|scratch| scratch.shift.began = Instant::now().checked_sub(BUSY_AFTER));
        let cork = Cork::new();
        append(&session, "push");
        drop(cork);
        session.send(b" reply");
        assert_eq!(got(&mut client), "", "it waits for more");
        flush_thread();
        assert_eq!(got(&mut client), "push reply");
        end_shift();
        let cork = Cork::new();
        append(&session, "later");
        drop(cork);
        assert_eq!(got(&mut client), "later", "no worker keeps anything back");
    }

    #[test]
    fn workers_of_the_runtime_keep_back_what_they_deliver_until_they_pause() {
        let runtime = crate::runtime(1).unwrap();
        let busy = || async {
            let (session, mut client) = session();
            // The worker pauses, and then is busy.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let began = Instant::now();
            while began.elapsed() < 2 * BUSY_AFTER {
                std::hint::spin_loop();
            }
            let cork = Cork::new();
            append(&session, "push");
            drop(cork);
            (session, got(&mut client), client)
        };
        // On a machine that others use, the worker may be stopped for so long that nothing is kept.
        let kept = std::iter::repeat_with(|| runtime.block_on(runtime.spawn(busy())).unwrap());
        let (session, _, mut client) = kept.take(100).find(|(_, before, _)| before.is_empty()).unwrap();
        client.set_nonblocking(false).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = [0; 4];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"push");
        drop(session);
    }

    #[tokio::test]
    async fn what_waited_too_long_leaves_with_the_next_batch() {
        let (session, mut client) = session();
        Scratch::with(|scratch| scratch.shift.began = Instant::now().checked_sub(BUSY_AFTER));
        let cork = Cork::new();
        append(&session, "1");
        drop(cork);
        Scratch::with(|scratch| scratch.shift.keeps_since = Instant::now().checked_sub(WAIT_MAX));
        drop(Cork::new());
        assert_eq!(got(&mut client), "1");
        end_shift();
    }

    #[tokio::test]
    async fn what_is_held_back_does_not_make_a_client_slow() {
        let (session, mut client) = session();
        let cork = Cork::new();
        for _ in 0..40 {
            append(&session, &"x".repeat(4 * 1024));
        }
        drop(cork);
        assert_eq!(session.outbox_bytes(), 0, "it reads");
        let mut length = 0;
        while length < 160 * 1024 {
            length += got(&mut client).len();
        }
    }
}
