//! Quiet rooms: a last message that was lost shows by nothing that comes after it. So where positions are dense and can be
//! asked for, the position of a room that has been quiet is compared with the backplane's. What two looks in a row find
//! missing is lost, and members with a position are told.
//!
//! This is a second net. Strategies whose broker can lose a message on its way compare their rooms' tops by themselves, many at
//! a time and exactly; those that read a log read it by its offsets and can be late, but not miss the end. Here nothing is known of
//! either, so each room costs one small request per look: their number is bounded, and with more quiet rooms than that a look
//! takes longer to come round. Rooms with traffic, and rooms without positioned members, cost none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use manifold_strategies::{PageQuery, Position};

use super::room::Room;
use super::{Hub, Numbering};

/// Rooms asked about in one round at most.
const ROOMS_PER_ROUND: usize = 512;
/// Rooms asked about at once.
const ROOMS_AT_ONCE: usize = 16;
/// Time for an answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// A room that has positioned members, or had.
struct Watched {
    room: Arc<Room>,
    /// The room's serial number at the last look.
    serial: u64,
    /// Where the backplane said the room stands.
    asked: Option<Position>,
}

/// What a look at a room shows.
enum Look {
    /// Nobody in it has a position.
    Over,
    /// Messages arrive.
    Busy,
    /// None came since the last look.
    Quiet,
}

impl Hub {
    /// Whether rooms' positions are compared with the backplane's.
    pub(super) fn checks_positions(&self) -> bool {
        !self.settings.position_check.is_zero()
            && self.numbering() == Numbering::Dense
            && self.keeps_history()
    }

    /// Looks after quiet rooms for as long as the node lives.
    pub(crate) async fn watch_positions(self: Arc<Self>) {
        if !self.checks_positions() {
            return;
        }
        let mut watched = VecDeque::new();
        loop {
            tokio::time::sleep(self.settings.position_check).await;
            let new = std::mem::take(&mut *self.newly_watched.lock());
            watched.extend(new.into_iter().map(|room| Watched { room, serial: 0, asked: None }));
            let mut quiet = self.take_quiet(&mut watched);
            while !quiet.is_empty() {
                let batch = quiet.split_off(quiet.len().saturating_sub(ROOMS_AT_ONCE));
                let answered = join_all(batch.into_iter().map(|room| self.ask(room))).await;
                watched.extend(answered);
            }
        }
    }

    /// Takes out the rooms to be asked about. Those that have to wait come first the next time.
    fn take_quiet(&self, all: &mut VecDeque<Watched>) -> Vec<Watched> {
        let mut quiet = Vec::new();
        for _ in 0..all.len() {
            let Some(mut watched) = all.pop_front() else { break };
            match self.look_at(&mut watched) {
                Look::Over => {}
                Look::Quiet if quiet.len() < ROOMS_PER_ROUND => quiet.push(watched),
                Look::Quiet | Look::Busy => all.push_back(watched),
            }
        }
        quiet
    }

    fn look_at(&self, watched: &mut Watched) -> Look {
        let mut state = watched.room.lock();
        if !state.members.iter().any(|member| member.positioned) {
            state.watched = false;
            return Look::Over;
        }
        let before = std::mem::replace(&mut watched.serial, state.serial);
        let asked = watched.asked.take();
        if before != state.serial {
            return Look::Busy;
        }
        drop(state);
        if let Some(asked) = asked {
            self.dismiss_behind(&watched.room, asked);
        }
        Look::Quiet
    }

    /// Sends positioned members away if the room has still not come as far as it should have been a look ago. Who enters from now
    /// on stands where it should be. What arrived last stays the measure of what arrives next: what is late and not lost
    /// still has its place, for members without a position.
    fn dismiss_behind(&self, room: &Arc<Room>, asked: Position) {
        let turn = room.turn.lock();
        let mut state = room.lock();
        // Who has come back since an earlier look has what was missing by then, or knows.
        let behind = |stands: Position| stands.epoch == asked.epoch && stands.offset < asked.offset;
        if state.stands().is_some_and(behind) {
            state.missed_to = Some(asked);
            tracing::warn!(room = %room.id, top = ?state.top, ?asked, "the last messages did not arrive");
            self.metrics.count_position_behind();
            let members = state.dismiss_positioned(&room.id, &[]);
            self.note_dismissed(room, members, "the last message is missing");
        }
        drop(turn);
        self.tend_if_unwanted(room, state);
    }

    async fn ask(&self, mut watched: Watched) -> Watched {
        let Some(history) = self.backplane().history() else { return watched };
        let query = PageQuery { since: None, limit: 0, reverse: false };
        let page = history.page(&watched.room.id, query);
        self.metrics.count_position_check();
        match tokio::time::timeout(PATIENCE, page).await {
            Ok(Ok(page)) => watched.asked = Some(page.top),
            Ok(Err(error)) => self.metrics.count_backplane_error(error.kind()),
            Err(_) => self.metrics.count_error("position_check_timeout"),
        }
        watched
    }
}
