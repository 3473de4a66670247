//! One clock for all sessions: pings, missing pongs, late `connect`s, and closes that drag on.
//!
//! A wheel of ticks in place of a timer per connection: each session lies in the slot of the tick at which it is to be
//! looked at next. One word per session holds that tick and what it is for; whoever changes the word puts the session
//! into the slot that belongs to it, and entries that disagree with their session's word are stale and skipped.
//!
//! A wheel that turns late shows how long whoever has something to do waits here: that is when a node is overloaded.
//!
//! Where the wheel did not turn for a second, this process stood still: it was frozen, or had no processor. Then clients get
//! their time again, and those who read their sockets learn that what lies there may be old.

use std::future::Future;
use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed,
    Ordering::Release,
};
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_protocol::DisconnectCode;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::frame;
use crate::hub::flush_thread;
use crate::session::Session;

const TICK_MS: u64 = 50;
/// Resolution of all deadlines.
const TICK: Duration = Duration::from_millis(TICK_MS);
/// Ticks that the wheel reaches ahead: 204 s. Every deadline lies within (see the bounds of the settings).
const SLOTS: usize = 4096;

/// Ticks that come late at once after this process was frozen: what clients said meanwhile has not been read.
const STALL_TICKS: u64 = 20;

/// Ticks after a standstill in which what is read first may have been sent during it. Later it was sent since.
const THAW_TICKS: u64 = 20;

/// What a session's next look is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Due {
    /// `connect` should have come.
    Connect,
    /// A ping is to be sent.
    Ping,
    /// The pong should have come.
    Pong,
    /// The close should be over.
    Closed,
}

/// A session's word: when it is looked at, and what for.
#[derive(Debug)]
pub(crate) struct Appointment(AtomicU64);

impl Appointment {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn encode(tick: u64, due: Due) -> u64 {
        tick << 2 | due as u64
    }

    fn decode(word: u64) -> (u64, Due) {
        let due = [Due::Connect, Due::Ping, Due::Pong, Due::Closed][(word & 3) as usize];
        (word >> 2, due)
    }
}

/// Deadlines, from the settings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    pub(crate) connect: Duration,
    pub(crate) ping_interval: Duration,
    pub(crate) pong: Duration,
    pub(crate) close: Duration,
    /// A tick that comes so late, for the second time in a row, shows that this node cannot keep up; one that is less than half as
    /// late, that it can again. Zero: it is never asked.
    pub(crate) overload: Duration,
}

/// The wheel.
pub(crate) struct Sweep {
    slots: Box<[Mutex<Vec<Weak<Session>>>]>,
    start: Instant,
    /// Ticks that were swept.
    swept: AtomicU64,
    /// Standstills that are over.
    thaws: AtomicU32,
    /// The tick at which the last of them was over.
    thawed_at: AtomicU64,
    overloaded: AtomicBool,
    deadlines: Deadlines,
}

impl Sweep {
    pub(crate) fn new(deadlines: Deadlines) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            start: Instant::now(),
            swept: AtomicU64::new(0),
            thaws: AtomicU32::new(0),
            thawed_at: AtomicU64::new(0),
            overloaded: AtomicBool::new(false),
            deadlines,
        }
    }

    /// A new session has to `connect` in time.
    pub(crate) fn expect_connect(&self, session: &Arc<Session>) {
        self.reschedule(session, Due::Connect, self.deadlines.connect);
    }

    /// A session has connected: its pings begin after a random part of the interval, so that clients that came
    /// together are not pinged together.
    pub(crate) fn begin_pings(&self, session: &Arc<Session>, random: u32) {
        let half = self.deadlines.ping_interval / 2;
        let first = half + half.mul_f64(f64::from(random) / f64::from(u32::MAX));
        self.reschedule(session, Due::Ping, first);
    }

    /// A session is closing; it has so much time to get there.
    pub(crate) fn expect_closed(&self, session: &Arc<Session>) {
        self.reschedule(session, Due::Closed, self.deadlines.close);
    }

    /// Every live session. One that is being looked at this moment may be missing.
    pub(crate) fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions = Vec::new();
        for (index, slot) in self.slots.iter().enumerate() {
            let live = slot.lock().iter().filter_map(Weak::upgrade).collect::<Vec<_>>();
            sessions.extend(live.into_iter().filter(|session| {
                let (tick, _) = Appointment::decode(session.appointment().0.load(Relaxed));
                slot_of(tick) == index
            }));
        }
        sessions
    }

    /// Turns the wheel for as long as the node lives. What was before this call is no standstill.
    pub(crate) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        self.swept.store(self.tick_now(), Release);
        async move {
            let mut interval = tokio::time::interval(TICK);
            interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
            let mut late_before = false;
            loop {
                let late = interval.tick().await.elapsed();
                self.note_lateness(late, &mut late_before);
                // What this worker keeps back does not wait for the looks at everybody.
                flush_thread();
                // After a standstill there is a lot to do at once, and that is no overload either.
                late_before &= !self.turn();
            }
        }
    }

    /// Whether this node cannot keep up with what it is asked to do.
    pub(crate) fn is_overloaded(&self) -> bool {
        self.overloaded.load(Relaxed)
    }

    /// Once is no overload: the whole process may have stood still.
    fn note_lateness(&self, late: Duration, late_before: &mut bool) {
        let limit = self.deadlines.overload;
        let too_late = !limit.is_zero() && late >= limit;
        if too_late && *late_before && !self.overloaded.swap(true, Relaxed) {
            tracing::warn!(late_ms = late.as_millis(), "overloaded: publishes are refused for now");
        }
        if late < limit / 2 && self.overloaded.swap(false, Relaxed) {
            tracing::info!("publishes are taken again");
        }
        *late_before = too_late;
    }

    /// Looks at everybody whose time has come. True: the wheel had stood still.
    fn turn(&self) -> bool {
        let now = self.tick_now();
        let swept = self.swept.load(Relaxed);
        let stalled = is_standstill(now, swept);
        if stalled {
            tracing::warn!(for_ms = (now - swept) * TICK_MS, "this process stood still");
            self.thawed_at.store(now, Relaxed);
            self.thaws.fetch_add(1, Relaxed);
        }
        for tick in swept + 1..=now {
            let entries = std::mem::take(&mut *self.slots[slot_of(tick)].lock());
            for session in entries.iter().filter_map(Weak::upgrade) {
                self.look_at(&session, tick, stalled);
            }
        }
        // Whoever finds the wheel turned finds the thaw as well.
        self.swept.store(now, Release);
        stalled
    }

    /// Standstills that are over, for [`may_be_old`](Self::may_be_old).
    pub(crate) fn thaws(&self) -> u32 {
        self.thaws.load(Relaxed)
    }

    /// Whether what waits in a session's socket may have been sent while this process stood still. `reckoned` are the
    /// [`thaws`](Self::thaws) that its task has reckoned with: each counts once, and for a second.
    pub(crate) fn may_be_old(&self, reckoned: &mut u32) -> bool {
        // The task may run before the wheel turns.
        if is_standstill(self.tick_now(), self.swept.load(Acquire)) {
            return true;
        }
        let thaws = self.thaws();
        if *reckoned == thaws {
            return false;
        }
        *reckoned = thaws;
        self.tick_now().saturating_sub(self.thawed_at.load(Relaxed)) <= THAW_TICKS
    }

    fn look_at(&self, session: &Arc<Session>, now: u64, stalled: bool) {
        let word = session.appointment().0.load(Acquire);
        let (tick, due) = Appointment::decode(word);
        if tick != now {
            if tick > now && slot_of(tick) == slot_of(now) {
                // Of a later round: this one is long behind, after this process was frozen.
                self.slots[slot_of(tick)].lock().push(Arc::downgrade(session));
            }
            return;
        }
        let next = match due {
            // It may have done its part while this process could not see it.
            Due::Connect if stalled => (Due::Connect, self.deadlines.connect),
            Due::Pong if stalled => (Due::Pong, self.deadlines.pong),
            Due::Connect => return session.request_close(DisconnectCode::STALE),
            Due::Pong if session.is_awaiting_pong() => return session.request_close(DisconnectCode::NO_PONG),
            Due::Closed => return session.cut(),
            Due::Pong => (Due::Ping, self.deadlines.ping_interval - self.deadlines.pong),
            Due::Ping => (Due::Pong, self.deadlines.pong),
        };
        // The session may have begun to close since: then this look is void.
        if self.replace(session, word, next.0, next.1) && due == Due::Ping {
            session.expect_pong();
            session.send(frame::PING);
        }
    }

    fn reschedule(&self, session: &Arc<Session>, due: Due, after: Duration) {
        while !self.replace(session, session.appointment().0.load(Acquire), due, after) {}
    }

    fn replace(&self, session: &Arc<Session>, word: u64, due: Due, after: Duration) -> bool {
        let ticks = after.as_nanos().div_ceil(TICK.as_nanos());
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX).clamp(1, SLOTS as u64 - 2);
        // Behind what was swept a slot would have to wait for the wheel to come round.
        let tick = self.tick_now().max(self.swept.load(Relaxed)) + 1 + ticks;
        let new = Appointment::encode(tick, due);
        if session.appointment().0.compare_exchange(word, new, AcqRel, Relaxed).is_err() {
            return false;
        }
        self.slots[slot_of(tick)].lock().push(Arc::downgrade(session));
        true
    }

    fn tick_now(&self) -> u64 {
        // Asked before every read of a socket: no wide division.
        let passed = self.start.elapsed();
        passed.as_secs() * (1000 / TICK_MS) + u64::from(passed.subsec_millis()) / TICK_MS
    }
}

impl std::fmt::Debug for Sweep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweep").field("deadlines", &self.deadlines).finish_non_exhaustive()
    }
}

fn slot_of(tick: u64) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("a slot's index is small")
}

/// Whether the wheel is so late that this process cannot have run.
fn is_standstill(now: u64, swept: u64) -> bool {
    // The wheel may have turned since `now` was read.
    now.saturating_sub(swept) > STALL_TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLOAD: Duration = Duration::from_millis(250);

    fn sweep() -> Sweep {
        let second = Duration::from_secs(1);
        Sweep::new(Deadlines {
            connect: second,
            ping_interval: second,
            pong: second,
            close: second,
            overload: OVERLOAD,
        })
    }

    /// Lets time pass, and turns the wheel at every tick.
    async fn pass(sweep: &Sweep, ticks: u64) {
        for _ in 0..ticks {
            tokio::time::advance(TICK).await;
            sweep.turn();
        }
    }

    #[test]
    fn a_node_is_overloaded_from_the_second_late_tick_to_the_first_that_is_not() {
        let (mut sweep, mut before) = (sweep(), false);
        let mut note = |late_ms| {
            sweep.note_lateness(Duration::from_millis(late_ms), &mut before);
            sweep.is_overloaded()
        };
        assert!(!note(10_000), "it stood still");
        assert!(!note(0) && !note(300) && !note(200) && !note(300), "now and then");
        assert!(note(300) && note(150), "still late");
        assert!(!note(20));
        sweep.deadlines.overload = Duration::ZERO;
        let mut before = false;
        for _ in 0..3 {
            sweep.note_lateness(OVERLOAD, &mut before);
        }
        assert!(!sweep.is_overloaded(), "it is not asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_standstill_counts_once_for_each_task_and_for_a_second() {
        let sweep = sweep();
        let (mut early, mut late) = (sweep.thaws(), sweep.thaws());
        pass(&sweep, 100).await;
        assert!(!sweep.may_be_old(&mut early), "time has passed, nothing else");
        tokio::time::advance(TICK * 30).await;
        for _ in 0..2 {
            assert!(sweep.may_be_old(&mut early), "the wheel has not turned yet");
        }
        sweep.turn();
        assert!(sweep.may_be_old(&mut early));
        assert!(!sweep.may_be_old(&mut early), "once");
        pass(&sweep, THAW_TICKS + 1).await;
        assert!(!sweep.may_be_old(&mut late), "what comes by now was sent since");
        tokio::time::advance(TICK * 30).await;
        sweep.turn();
        assert!(sweep.may_be_old(&mut early) && sweep.may_be_old(&mut late), "another one");
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_before_the_wheel_turns_is_no_standstill() {
        let sweep = Arc::new(sweep());
        tokio::time::advance(TICK * 100).await;
        let mut reckoned = sweep.thaws();
        let running = Arc::clone(&sweep).run();
        assert!(!sweep.may_be_old(&mut reckoned));
        drop(running);
        sweep.turn();
        assert!(!sweep.may_be_old(&mut reckoned));
    }
}
