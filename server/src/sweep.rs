//! One clock for all sessions: pings, missing pongs, late `connect`s, and closes that drag on.
//!
//! A wheel of ticks in place of a timer per connection: each session lies in the slot of the tick at which it is to be
//! looked at next. One word per session holds that tick and what it is for; whoever changes the word puts the session
//! into the slot that belongs to it, and entries that disagree with their session's word are stale and skipped.

use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::Duration;

use manifold_protocol::DisconnectCode;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::frame;
use crate::session::Session;

/// Resolution of all deadlines.
const TICK: Duration = Duration::from_millis(50);
/// Ticks that the wheel reaches ahead: 204 s. Every deadline lies within (see the bounds of the settings).
const SLOTS: usize = 4096;

/// Ticks that come late at once after this process was frozen: what clients said meanwhile has not been read.
const STALL_TICKS: u64 = 20;

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
}

/// The wheel.
pub(crate) struct Sweep {
    slots: Box<[Mutex<Vec<Weak<Session>>>]>,
    start: Instant,
    /// Ticks that were swept.
    swept: AtomicU64,
    deadlines: Deadlines,
}

impl Sweep {
    pub(crate) fn new(deadlines: Deadlines) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Mutex::default()).collect(),
            start: Instant::now(),
            swept: AtomicU64::new(0),
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

    /// Turns the wheel for as long as the node lives.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            interval.tick().await;
            let now = self.tick_now();
            let stalled = now - self.swept.load(Relaxed) > STALL_TICKS;
            for tick in self.swept.load(Relaxed) + 1..=now {
                let entries = std::mem::take(&mut *self.slots[slot_of(tick)].lock());
                for session in entries.iter().filter_map(Weak::upgrade) {
                    self.look_at(&session, tick, stalled);
                }
            }
            self.swept.store(now, Relaxed);
        }
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
        u64::try_from(self.start.elapsed().as_nanos() / TICK.as_nanos()).unwrap_or(u64::MAX)
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
