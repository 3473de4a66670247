//! The publishing half of a lane: one task, one connection, one order.
//!
//! Publishes are written as soon as they are queued, many in one go under load, without waiting for earlier replies. When
//! the link breaks, those without a reply are sent again, in order, ahead of all later ones; whether the first attempt
//! reached Redis is unknown, so the script, or else the receivers, remove duplicates by message id. Publishes wait for a server
//! that is down, as long as they may; they do not wait for one that is [silent](super::silence).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::lanes::{Lane, Session, Standing};
use super::live::{Shared, closed};
use super::silence::Silence;
use super::subscriber::closed as closed_signal;
use super::work::{Backlog, Operation, Publish, Work, given_up, inherited, outcome, says_elsewhere};
use crate::backplane::{MessageId, Position, RoomId};
use crate::clients::redis::Value;
use crate::clients::redis::connection::{no_answer, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::hash::HashMap;

/// Publishes sent and not yet answered, at most: bounds what an outage leaves unknown.
const IN_FLIGHT_MAX: usize = 4096;
/// How many times the pause after an outage members may take besides to come back.
const COMEBACKS_MAX: u32 = 4;
/// And for how long in all: others who ask meanwhile wait behind them.
const COMEBACKS_TIME_MAX: Duration = Duration::from_secs(1);
/// Publishes taken from the queue in one go.
const BATCH_MAX: usize = 512;

/// The task.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    lane: Arc<Lane>,
    work: mpsc::UnboundedReceiver<Work>,
    backlog: Backlog,
    /// What another lane hands over, and until when it is waited for.
    inheriting: Option<(oneshot::Receiver<Backlog>, Instant)>,
    in_flight: VecDeque<(Work, Instant)>,
    /// The last message of each room among them. Only where what is refused takes another way, which nothing may overtake.
    last_in_flight: HashMap<RoomId, MessageId>,
    /// The room of a message that Redis refused for the time being, until it takes messages again.
    refused: Option<RoomId>,
    body: Vec<u8>,
    standing: Standing,
    /// The lane has no slots any more, and no work.
    retired: bool,
}

/// Why the task stopped serving a connection.
enum End {
    Closing,
    Broken(Error),
}

impl Publisher {
    pub(crate) fn new(shared: Arc<Shared>, lane: Arc<Lane>, work: mpsc::UnboundedReceiver<Work>) -> Self {
        Self {
            standing: Standing::new(&shared),
            shared,
            lane,
            work,
            backlog: VecDeque::new(),
            inheriting: None,
            in_flight: VecDeque::new(),
            last_in_flight: HashMap::default(),
            refused: None,
            body: Vec::new(),
            retired: false,
        }
    }

    /// Runs until the live path closes or the lane retires. `session` is the first connection, if there is one already.
    pub(crate) async fn run(mut self, mut session: Option<Session>) {
        let mut closing = self.shared.closing.subscribe();
        let mut silent_since = None;
        loop {
            let serving = match session.take() {
                Some(session) => session,
                None => match self.reconnect(silent_since).await {
                    Some(session) => session,
                    None => break,
                },
            };
            let end = tokio::select! {
                end = self.serve(serving) => end,
                () = closed_signal(&mut closing) => End::Closing,
            };
            match end {
                End::Closing => break,
                End::Broken(error) => {
                    tracing::warn!(%error, "publishing to Redis is interrupted");
                    self.standing.set(true);
                    let asked_at = self.in_flight.front().map(|(_, sent_at)| *sent_at);
                    silent_since = asked_at.filter(|_| error.kind() == ErrorKind::Timeout);
                    self.last_in_flight.clear();
                    let unknown = self.in_flight.drain(..).map(|(work, _)| (work, true));
                    let later = std::mem::take(&mut self.backlog);
                    self.backlog = unknown.chain(later).collect();
                }
            }
        }
        self.refuse_all();
    }

    /// Sends and receives until the connection breaks.
    async fn serve(&mut self, mut session: Session) -> End {
        let limit = self.shared.settings.response_timeout();
        let mut taken = Vec::with_capacity(BATCH_MAX);
        loop {
            if let Err(error) = self.collect(&mut session) {
                return End::Broken(error);
            }
            if !self.lane.is_present(&session) {
                let problem = "the server is not the master any more that it was";
                return End::Broken(Error::new(ErrorKind::Unreachable, "publish", problem));
            }
            self.send(&mut session);
            if self.retired {
                return End::Closing;
            }
            let room = IN_FLIGHT_MAX.saturating_sub(self.in_flight.len());
            let silent_at = self.in_flight.front().map(|(_, sent_at)| *sent_at + limit);
            tokio::select! {
                received = session.connection.turn() => if let Err(error) = received {
                    return End::Broken(error);
                },
                count = self.work.recv_many(&mut taken, room.min(BATCH_MAX)), if room > 0 => {
                    if count == 0 {
                        return End::Closing;
                    }
                    self.backlog.extend(taken.drain(..).map(|work| (work, false)));
                }
                () = sleep_until(silent_at.unwrap_or_else(Instant::now)), if silent_at.is_some() => {
                    // A node that got no processor for so long finds the answer at hand, even where this task has done much.
                    let turn = tokio::task::unconstrained(session.connection.turn());
                    let received = timeout(Duration::ZERO, turn).await;
                    if let Err(error) = received.unwrap_or_else(|_| Err(no_answer(limit))) {
                        return End::Broken(error);
                    }
                }
                left = inherited(&mut self.inheriting) => self.put_first(left),
            }
        }
    }

    /// Encodes what waits, as far as the bound on unanswered publishes allows.
    fn send(&mut self, session: &mut Session) {
        let now = Instant::now();
        while self.in_flight.len() < IN_FLIGHT_MAX && self.inheriting.is_none() {
            match self.backlog.pop_front() {
                None => break,
                Some((Work::Inherit(left), _)) => self.inherit(left),
                Some((work, _)) => {
                    if let Work::Publish(publish) = &work {
                        self.encode(publish, session);
                    }
                    self.in_flight.push_back((work, now));
                }
            }
        }
        self.settle();
    }

    /// Waits for what another lane hands over, before anything else is sent.
    fn inherit(&mut self, left: oneshot::Receiver<Backlog>) {
        self.inheriting = Some((left, Instant::now() + self.shared.settings.response_timeout()));
    }

    fn encode(&mut self, publish: &Publish, session: &mut Session) {
        let shared = &self.shared;
        let before = match shared.fail_fast && !matches!(publish.operation, Operation::Announce(_)) {
            true => self.last_in_flight.insert(publish.envelope.room.clone(), publish.envelope.id),
            false => None,
        };
        self.body.clear();
        if publish.operation != Operation::Reserve {
            shared.wire.encode(&publish.envelope, &mut self.body);
        }
        shared.put_publish(publish, before, &self.body, session);
        shared.stats.broker_writes.add(1);
    }

    /// Takes the replies that have arrived.
    fn collect(&mut self, session: &mut Session) -> Result<()> {
        while let Some(reply) = session.connection.received()? {
            if matches!(reply, Value::Push(_)) {
                continue;
            }
            if let Value::Error(message) = &reply
                && says_elsewhere(message)
            {
                // Nothing happened for this publish. The connection is given up, which sends it again in its order.
                return Err(refused(message));
            }
            self.settle();
            if let Value::Error(message) = &reply
                && self.shared.fail_fast
                && refused(message).is_temporary()
            {
                // It takes another way, and so does what follows until that is settled; for a slot that is on its way, too,
                // whose other messages would get through as soon as it has arrived.
                self.refused = match self.in_flight.front() {
                    Some((Work::Publish(publish), _)) => Some(publish.envelope.room.clone()),
                    _ => None,
                };
                return Err(refused(message));
            }
            match self.in_flight.pop_front() {
                Some((Work::Publish(publish), _)) => {
                    let (room, id) = (&publish.envelope.room, publish.envelope.id);
                    if self.last_in_flight.get(room) == Some(&id) {
                        self.last_in_flight.remove(room);
                    }
                    self.finish(publish, outcome(&reply));
                }
                _ => return Err(Error::new(ErrorKind::Corrupt, "publish", "a reply without a command")),
            }
        }
        self.settle();
        Ok(())
    }

    /// Answers those that wait for everything before, if nothing is left before them.
    fn settle(&mut self) {
        while let Some((work, since)) = self.in_flight.pop_front() {
            match work {
                Work::Flush(flushed) => drop(flushed.send(())),
                Work::HandOver { left, .. } => drop(left.send(VecDeque::new())),
                Work::Retire => self.retired = true,
                work => {
                    self.in_flight.push_front((work, since));
                    break;
                }
            }
        }
    }

    fn finish(&self, publish: Publish, outcome: Result<Position>) {
        self.shared.finished(publish.bytes());
        (publish.done)(publish.envelope, outcome);
    }

    /// Opens a connection again, subscriptions first. `None` when the live path closes or the lane retires.
    async fn reconnect(&mut self, silent_since: Option<Instant>) -> Option<Session> {
        let (shared, lane) = (Arc::clone(&self.shared), Arc::clone(&self.lane));
        let mut closing = shared.closing.subscribe();
        let refused = self.refused.take();
        let silence = Silence::new(&shared, silent_since);
        let mut changes = silence.watch();
        let listened = async {
            let session = silence.open(&shared, &lane, refused.as_ref()).await;
            let mut listening = lane.listening.subscribe();
            loop {
                // The sender lives as long as the lane, which this task holds.
                let _ = listening.wait_for(|listening| *listening).await;
                let delay = shared.settings.resume_delay();
                sleep(delay).await;
                if !shared.fail_fast {
                    // Members who were told of the outage are coming back: what waits to be published is for them, too.
                    shared.readers.rest((COMEBACKS_MAX * delay).min(COMEBACKS_TIME_MAX)).await;
                }
                if *listening.borrow() {
                    break session;
                }
            }
        };
        self.forward();
        let session = {
            tokio::pin!(listened);
            loop {
                let refuses = silence.ends_waiting();
                let expires = self.expire(shared.fail_fast || refuses.is_some_and(|at| at <= Instant::now()));
                let look_at = expires.into_iter().chain(refuses.filter(|_| expires.is_some())).min();
                if self.retired {
                    return None;
                }
                tokio::select! {
                    session = &mut listened => break session,
                    () = closed_signal(&mut closing) => return None,
                    work = self.work.recv() => {
                        self.backlog.push_back((work?, false));
                        if let Some((Work::HandOver { .. }, _)) = self.backlog.back() {
                            self.forward();
                        }
                    }
                    left = inherited(&mut self.inheriting) => self.put_first(left),
                    _ = changes.changed() => {}
                    () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {}
                }
            }
        };
        tokio::select! {
            () = shared.wire.before_resume() => {}
            () = closed_signal(&mut closing) => return None,
        }
        tracing::info!("publishing to Redis resumes");
        self.standing.set(false);
        Some(session)
    }

    fn put_first(&mut self, left: Backlog) {
        self.inheriting = None;
        left.into_iter().rev().for_each(|entry| self.backlog.push_front(entry));
    }

    /// Fails publishes whose time is up, or all of them where nothing is waited for. Returns when the next one's time is up.
    fn expire(&mut self, all: bool) -> Option<Instant> {
        let now = Instant::now();
        // All publishes have the same time to wait, so the first in order is the first to expire.
        loop {
            match self.backlog.pop_front()? {
                (Work::Publish(publish), sent) if all || publish.until <= now => {
                    self.finish(publish, Err(given_up(sent)));
                }
                (Work::Publish(publish), sent) => {
                    let until = publish.until;
                    self.backlog.push_front((Work::Publish(publish), sent));
                    return Some(until);
                }
                (Work::Flush(flushed), _) => drop(flushed.send(())),
                (Work::HandOver { left, .. }, _) => drop(left.send(VecDeque::new())),
                (Work::Inherit(left), _) => self.inherit(left),
                (Work::Retire, _) => self.retired = true,
            }
        }
    }

    /// Hands publishes whose slot has moved to the lane that serves it now, where that lane waits for them.
    fn forward(&mut self) {
        if !self.backlog.iter().any(|(work, _)| matches!(work, Work::HandOver { .. })) {
            return;
        }
        let mut moved: Vec<(Arc<Lane>, Backlog)> = Vec::new();
        for (work, sent) in std::mem::take(&mut self.backlog) {
            match work {
                Work::Publish(publish) => {
                    let lane = self.shared.lane_of(&publish.envelope.room);
                    let entry = (Work::Publish(publish), sent);
                    if Arc::ptr_eq(&lane, &self.lane) {
                        self.backlog.push_back(entry);
                    } else if let Some((_, waiting)) = moved.iter_mut().find(|(to, _)| Arc::ptr_eq(to, &lane))
                    {
                        waiting.push_back(entry);
                    } else {
                        moved.push((lane, VecDeque::from([entry])));
                    }
                }
                Work::HandOver { to, left } => {
                    let waiting = moved.iter().position(|(lane, _)| Arc::ptr_eq(lane, &to));
                    let waiting = waiting.map(|at| moved.swap_remove(at).1).unwrap_or_default();
                    if let Err(refused) = left.send(waiting) {
                        self.refuse(refused);
                    }
                }
                work => self.backlog.push_back((work, sent)),
            }
        }
        for (_, waiting) in moved {
            self.refuse(waiting);
        }
    }

    /// Fails what cannot be sent any more.
    fn refuse(&mut self, entries: Backlog) {
        for (work, sent) in entries {
            if let Work::Publish(publish) = work {
                self.finish(publish, Err(if sent { given_up(true) } else { closed("publish") }));
            }
        }
    }

    /// The lane ends: nothing is left without an outcome.
    fn refuse_all(&mut self) {
        self.work.close();
        let mut left: Backlog = self.in_flight.drain(..).map(|(work, _)| (work, true)).collect();
        left.append(&mut self.backlog);
        while let Ok(work) = self.work.try_recv() {
            left.push_back((work, false));
        }
        self.refuse(left);
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
