//! Connections that read history: beside those of the lanes, so that a large answer holds up no publish and no message.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::history::{Answer, Question};
use super::lanes::{Lane, Session, Use};
use super::live::{Shared, closed};
use crate::backplane::RoomId;
use crate::clients::redis::connection::no_answer;
use crate::error::Result;

/// Questions asked at a time; the others wait. So many that a crowd that comes back is answered at the server's pace, so few
/// that its other clients are heard in between.
const READERS_MAX: usize = 8;
/// Attempts where nobody waits for a server that is away: a connection at hand may have broken while it was idle.
const ATTEMPTS_MAX_FAILING_FAST: u32 = 2;

/// The connections at hand, and the turns.
pub(super) struct Readers {
    turns: Semaphore,
    /// Most recently used last. Those of lanes that ended go first when there are too many.
    idle: Mutex<Vec<(Arc<Lane>, Session)>>,
}

impl Readers {
    pub(super) fn new() -> Self {
        Self { turns: Semaphore::new(READERS_MAX), idle: Mutex::default() }
    }

    /// Closes what is at hand; later questions fail.
    pub(super) fn close(&self) {
        self.turns.close();
        self.idle.lock().clear();
    }

    fn take(&self, lane: &Arc<Lane>) -> Option<Session> {
        let mut idle = self.idle.lock();
        let at = idle.iter().rposition(|(of, _)| Arc::ptr_eq(of, lane))?;
        Some(idle.remove(at).1)
    }

    fn give_back(&self, lane: Arc<Lane>, session: Session) {
        let mut idle = self.idle.lock();
        if self.turns.is_closed() {
            return;
        }
        if idle.len() >= READERS_MAX {
            idle.remove(0);
        }
        idle.push((lane, session));
    }

    /// The lane's server does not answer as it should, so neither will it over other connections.
    fn forget(&self, lane: &Arc<Lane>) {
        self.idle.lock().retain(|(of, _)| !Arc::ptr_eq(of, lane));
    }
}

impl Shared {
    /// Asks the server that has `room`, in turn, for as long as a publish would be tried.
    pub(super) async fn read(self: &Arc<Self>, room: &RoomId, question: &Question) -> Result<Answer> {
        let until = self.deadline();
        let Ok(turn) = timeout_at(until, self.readers.turns.acquire()).await else {
            return Err(no_answer(self.settings.publish_timeout()));
        };
        let _turn = turn.map_err(|_| closed("history"))?;
        self.read_until(room, question, until).await
    }

    /// Asks the server that has `room` until it answers.
    pub(super) async fn read_until(
        self: &Arc<Self>,
        room: &RoomId,
        question: &Question,
        until: Instant,
    ) -> Result<Answer> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Ok(answer) = timeout_at(until, self.try_to_read(room, question)).await else {
                return Err(no_answer(self.settings.publish_timeout()));
            };
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let last = self.fail_fast && attempts >= ATTEMPTS_MAX_FAILING_FAST;
            if last || !error.is_temporary() || self.readers.turns.is_closed() || Instant::now() >= until {
                return Err(error);
            }
            tracing::debug!(%error, "history cannot be read yet");
            sleep(self.settings.reconnect_delay()).await;
        }
    }

    async fn try_to_read(self: &Arc<Self>, room: &RoomId, question: &Question) -> Result<Answer> {
        let lane = self.lane_of(room);
        let mut session = match self.readers.take(&lane) {
            Some(session) => session,
            None => self.connect(&lane, Use::Read).await?,
        };
        match self.ask(room, question, &mut session).await {
            Ok(answer) => {
                self.readers.give_back(lane, session);
                Ok(answer)
            }
            Err(error) => {
                self.readers.forget(&lane);
                Err(error)
            }
        }
    }

    async fn ask(&self, room: &RoomId, question: &Question, session: &mut Session) -> Result<Answer> {
        let (name, stream) = (self.name(room), self.stream(room));
        let epoch = self.epochs.draw().to_be_bytes();
        let arguments = question.arguments();
        let Session { connection, script, incarnation, .. } = session;
        let mut command: Vec<&[u8]> = vec![&b"EVALSHA"[..], &script[..], &b"2"[..], &name[..], &stream[..]];
        command.extend([&epoch[..], &self.numbers.room_ttl_s[..], &incarnation[..]]);
        command.extend(arguments.iter().map(Vec::as_slice));
        Answer::read(&connection.call(&command, self.settings.response_timeout()).await?)
    }
}
