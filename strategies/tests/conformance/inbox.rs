//! What a node's entrance received, and how tests wait for it: for the event, with a deadline.

use std::time::Duration;

use anyhow::{Result, bail};
use manifold_strategies::{Entrance, Event, Message};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How long nothing may arrive until a case believes that nothing more will: longer than the slowest second path
/// that a strategy has (the hybrid's log, read every 100 ms).
const QUIET: Duration = Duration::from_millis(400);

/// An entrance that keeps everything.
pub struct Inbox {
    deadline: Duration,
    events: Mutex<Vec<Event>>,
    arrived: Notify,
}

impl Entrance for Inbox {
    fn deliver(&self, batch: &mut Vec<Event>) {
        self.events.lock().append(batch);
        self.arrived.notify_waiters();
    }
}

impl Inbox {
    /// An empty inbox whose waits end after `deadline`.
    pub fn new(deadline: Duration) -> Self {
        Self { deadline, events: Mutex::default(), arrived: Notify::new() }
    }

    /// Messages of `room` so far, in order of arrival.
    pub fn of(&self, room: &str) -> Vec<Message> {
        let wanted = |event: &Event| match event {
            Event::Message(message) if message.envelope.room.as_str() == room => Some(message.clone()),
            _ => None,
        };
        self.events.lock().iter().filter_map(wanted).collect()
    }

    /// Payloads of `room` so far, as text.
    pub fn texts(&self, room: &str) -> Vec<String> {
        self.of(room).iter().map(|m| String::from_utf8_lossy(&m.envelope.payload).into_owned()).collect()
    }

    /// Every event so far.
    pub fn all(&self) -> Vec<Event> {
        self.events.lock().clone()
    }

    fn len(&self) -> usize {
        self.events.lock().len()
    }

    /// Waits until `room` has at least `count` messages.
    pub async fn wait_for(&self, room: &str, count: usize) -> Result<()> {
        self.wait_until(&format!("{count} messages of {room:?}"), || self.of(room).len() >= count).await
    }

    /// Waits until `done` holds; it is asked again after each arrival.
    pub async fn wait_until(&self, what: &str, done: impl Fn() -> bool) -> Result<()> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let arrived = self.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            if done() {
                return Ok(());
            }
            if timeout_at(deadline, arrived).await.is_err() {
                bail!("waited {:?} for {what}; {} events had arrived", self.deadline, self.len());
            }
        }
    }

    /// Waits until nothing has arrived for a while.
    pub async fn quiet(&self) -> Result<()> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let arrived = self.arrived.notified();
            match tokio::time::timeout(QUIET, arrived).await {
                Err(_) => return Ok(()),
                Ok(()) if Instant::now() > deadline => bail!("messages kept coming for {:?}", self.deadline),
                Ok(()) => {}
            }
        }
    }
}
