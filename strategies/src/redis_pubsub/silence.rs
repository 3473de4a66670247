//! How long a server that takes connections, or that packets vanish on the way to, has said nothing.
//!
//! A server that is down refuses connections: publishes wait for it, since it is on its way back, or another one takes its place.
//! One that is silent may stay so for long, and nobody knows what became of what it was sent. Publishes do not wait for it
//! any longer than it takes to be sure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::lanes::{Lane, Session, Use};
use super::live::Shared;
use crate::backplane::RoomId;
use crate::error::{ErrorKind, Result};

/// Since when a lane's server is silent, as its publisher knows.
pub(super) struct Silence {
    since: watch::Sender<Option<Instant>>,
    /// After how long publishes are answered.
    patience: Duration,
}

impl Silence {
    /// `since` is when the oldest command was sent that the last connection did not answer, if it was given up for that.
    pub(super) fn new(shared: &Shared, since: Option<Instant>) -> Self {
        // Time for another connection to prove the contrary, as the subscriber gives it, too.
        let patience = shared.settings.response_timeout() * 3 / 2;
        Self { since: watch::Sender::new(since), patience }
    }

    /// When publishes need not wait any longer, as things stand.
    pub(super) fn ends_waiting(&self) -> Option<Instant> {
        self.since.borrow().map(|since| since + self.patience)
    }

    /// Tells of every change.
    pub(super) fn watch(&self) -> watch::Receiver<Option<Instant>> {
        self.since.subscribe()
    }

    /// Opens connections until one stands to a server that takes messages, for the room too that one was `refused` of.
    pub(super) async fn open(
        &self,
        shared: &Arc<Shared>,
        lane: &Arc<Lane>,
        refused: Option<&RoomId>,
    ) -> Session {
        loop {
            let asked = Instant::now();
            let opened = open(shared, lane, refused).await;
            let silent = match &opened {
                Ok(_) => false,
                Err(error) => error.kind() == ErrorKind::Timeout,
            };
            self.since.send_if_modified(|since| {
                let before = *since;
                *since = if silent { since.or(Some(asked)) } else { None };
                *since != before
            });
            match opened {
                Ok(session) => return session,
                Err(error) => tracing::debug!(%error, "cannot publish to Redis yet"),
            }
            sleep(shared.settings.reconnect_delay()).await;
        }
    }
}

async fn open(shared: &Arc<Shared>, lane: &Arc<Lane>, refused: Option<&RoomId>) -> Result<Session> {
    let mut session = shared.connect(lane, Use::Publish).await?;
    if let Some(room) = refused.filter(|room| Arc::ptr_eq(&shared.lane_of(room), lane)) {
        shared.ask_room(room, &mut session).await?;
    }
    Ok(session)
}
