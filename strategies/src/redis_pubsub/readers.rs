//! Connections that read and remove history: beside those of the lanes, so that a large answer holds up no publish and no message.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::history::{Answer, Question};
use super::lanes::{Lane, Session, Use};
use super::live::{Shared, closed};
use crate::backplane::RoomId;
use crate::clients::redis::Value;
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

    /// Waits until everybody has an answer who has asked by now, for `limit` at most. Who asks meanwhile waits for the end of that.
    pub(super) async fn rest(&self, limit: Duration) {
        // All turns at once are had in turn, too.
        let _ = timeout(limit, self.turns.acquire_many(READERS_MAX as u32)).await;
    }

    fn take(&self, lane: &Arc<Lane>) -> Option<Session> {
        let mut idle = self.idle.lock();
        idle.retain(|(of, session)| of.is_present(session));
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

/// What a connection is used for.
enum Errand<'a> {
    Read(&'a Question),
    Remove,
}

impl Shared {
    /// Asks the server that has `room`, in turn, for as long as a publish would be tried.
    pub(super) async fn read(self: &Arc<Self>, room: &RoomId, question: &Question) -> Result<Answer> {
        Answer::read(&self.in_turn(room, &Errand::Read(question)).await?)
    }

    /// Asks the server that has `room` until it answers.
    pub(super) async fn read_until(
        self: &Arc<Self>,
        room: &RoomId,
        question: &Question,
        until: Instant,
    ) -> Result<Answer> {
        Answer::read(&self.insist(room, &Errand::Read(question), until).await?)
    }

    /// Lets the server that has `room` forget what it keeps of it. Its head stays, and counts on.
    pub(super) async fn remove(self: &Arc<Self>, room: &RoomId) -> Result<()> {
        self.in_turn(room, &Errand::Remove).await.map(drop)
    }

    async fn in_turn(self: &Arc<Self>, room: &RoomId, errand: &Errand<'_>) -> Result<Value> {
        let until = self.deadline();
        let Ok(turn) = timeout_at(until, self.readers.turns.acquire()).await else {
            return Err(no_answer(self.settings.publish_timeout()));
        };
        let _turn = turn.map_err(|_| closed("history"))?;
        self.insist(room, errand, until).await
    }

    async fn insist(self: &Arc<Self>, room: &RoomId, errand: &Errand<'_>, until: Instant) -> Result<Value> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Ok(answer) = timeout_at(until, self.attempt(room, errand)).await else {
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

    async fn attempt(self: &Arc<Self>, room: &RoomId, errand: &Errand<'_>) -> Result<Value> {
        let lane = self.lane_of(room);
        let mut session = match self.readers.take(&lane) {
            Some(session) => session,
            None => self.connect(&lane, Use::Read).await?,
        };
        match self.ask(room, errand, &mut session).await {
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

    async fn ask(&self, room: &RoomId, errand: &Errand<'_>, session: &mut Session) -> Result<Value> {
        let (name, stream) = (self.name(room), self.stream(room));
        let limit = self.settings.response_timeout();
        let Errand::Read(question) = errand else {
            return session.connection.call(&[b"DEL", &stream], limit).await;
        };
        let epoch = self.epochs.draw().to_be_bytes();
        let arguments = question.arguments();
        let incarnation = session.incarnation();
        let Session { connection, script, .. } = session;
        let mut command: Vec<&[u8]> = vec![&b"EVALSHA"[..], &script[..], &b"2"[..], &name[..], &stream[..]];
        command.extend([&epoch[..], &self.numbers.room_ttl_s[..], &incarnation[..]]);
        command.extend(arguments.iter().map(Vec::as_slice));
        connection.call(&command, limit).await
    }
}
