//! What a thread has to do at which time: its part of the schedule, the scenario's steps, timers of connections.

use std::cmp::Ordering;

use super::plan::seconds_us;
use super::shared::Shared;
use crate::schedule::{Intent, Schedule};

/// Longest time from starting to connect to being joined.
const JOIN_TIMEOUT_US: u64 = 10_000_000;

/// Something that a connection has to do later. The heap yields the earliest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timer {
    /// When, on the engine's clock.
    pub(super) at_us: u64,
    pub(super) local: u32,
    /// Of the connection that it was made for; a timer of an earlier one is void.
    pub(super) generation: u32,
    pub(super) what: What,
}

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Connect again.
    Reconnect,
    /// Give up if it is not live by now.
    Timeout,
    /// Read a little.
    SlowRead,
    /// Go elsewhere if nothing has come for too long.
    Silence,
    /// Ask to join again.
    Join,
    /// Come back to the rooms that it left.
    Return,
}

impl Timer {
    pub(super) fn timeout(now_us: u64, local: u32, generation: u32) -> Self {
        Self { at_us: now_us + JOIN_TIMEOUT_US, local, generation, what: What::Timeout }
    }

    pub(super) fn silence(at_us: u64, local: u32, generation: u32) -> Self {
        Self { at_us, local, generation, what: What::Silence }
    }

    pub(super) fn slow_read(at_us: u64, local: u32, generation: u32) -> Self {
        Self { at_us, local, generation, what: What::SlowRead }
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.local).cmp(&(self.at_us, self.local))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A thread's part of what is planned.
#[derive(Debug)]
pub(super) struct Agenda {
    /// When the schedule starts, on the engine's clock.
    pub(super) start_us: Option<u64>,
    /// The counted window, on the run's clock.
    pub(super) window_us: (u64, u64),
    schedule: Schedule,
    /// The thread's next message.
    next: Option<Intent>,
    /// Thread of each stream: 0 or 1 for "mine".
    mine: Vec<bool>,
    /// The scenario's steps for clients: when (run's clock) and which, last first.
    pub(super) steps: Vec<(u64, usize)>,
    /// Next time that a client of this thread leaves, on the run's clock.
    pub(super) churn_us: f64,
    /// Clients (local) that churn picks from.
    pub(super) churners: Vec<u32>,
}

impl Agenda {
    pub(super) fn new(shared: &Shared, thread: usize) -> Self {
        let (plan, scenario) = (&shared.plan, &shared.scenario);
        let warm_up_us = seconds_us(scenario.warm_up_s);
        let mut steps: Vec<(u64, usize)> = scenario
            .clients
            .iter()
            .enumerate()
            .map(|(index, step)| (warm_up_us + seconds_us(step.at_s), index))
            .collect();
        steps.sort_unstable_by_key(|&(at_us, index)| std::cmp::Reverse((at_us, index)));
        let members = |senders: bool| -> Vec<u32> {
            (thread..plan.clients.len())
                .step_by(plan.threads)
                .filter(|&client| !plan.clients[client].rooms.is_empty())
                .filter(|&client| senders || !plan.clients[client].sends)
                .map(|client| (client / plan.threads) as u32)
                .collect()
        };
        // People who are away cannot send, so churn leaves senders alone, unless everybody sends.
        let churners = Some(members(false)).filter(|some| !some.is_empty()).unwrap_or_else(|| members(true));
        let mut agenda = Self {
            start_us: None,
            window_us: (warm_up_us, warm_up_us + seconds_us(scenario.duration_s)),
            schedule: Schedule::new(shared.shape.clone()),
            next: None,
            mine: plan.streams.iter().map(|stream| plan.thread_of(stream.client) == thread).collect(),
            steps,
            churn_us: 0.0,
            churners,
        };
        agenda.advance();
        agenda
    }

    fn advance(&mut self) {
        let mine = &self.mine;
        self.next = self.schedule.find(|intent| mine[intent.stream as usize]);
    }

    /// The next message, if it is due.
    #[inline]
    pub(super) fn take_due(&mut self, now_us: u64) -> Option<Intent> {
        let start_us = self.start_us?;
        let intent = self.next.filter(|intent| start_us + intent.at_us <= now_us)?;
        self.advance();
        Some(intent)
    }

    /// When the next message is due, on the engine's clock.
    #[inline]
    pub(super) fn due_us(&self) -> Option<u64> {
        Some(self.start_us? + self.next?.at_us)
    }

    /// Whether the thread has nothing more to send.
    pub(super) fn is_over(&self, now_us: u64) -> bool {
        self.start_us.is_some_and(|start_us| now_us >= start_us + self.window_us.1) && self.next.is_none()
    }
}
