//! Interest: which rooms the backplane brings here.
//!
//! Joins and leaves of one room never overlap and always alternate: one task per room, alive only while there is
//! something to do, makes them one after the other. It is driven to its end whatever becomes of the sessions that caused
//! it. The first subscriber waits for the join; later ones wait for the same one.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use manifold_strategies::ErrorKind;
use tokio::sync::oneshot;

use super::Hub;
use super::room::{Interest, JoinFailed, Room};

/// A place kept for a subscriber between its command and its membership. While it lives, the room stays joined.
#[derive(Debug)]
pub(crate) struct Ticket {
    hub: Arc<Hub>,
    pub(crate) room: Arc<Room>,
}

/// What a subscriber gets at once.
#[derive(Debug)]
pub(crate) enum Reservation {
    /// The room is joined: [`Hub::attach`] may be called.
    Ready(Ticket),
    /// The room is being joined: wait, then attach.
    Waiting(Ticket, oneshot::Receiver<Result<(), JoinFailed>>),
    /// It could not be joined.
    Failed,
}

/// What the task does next.
enum Step {
    Join,
    Linger,
    Leave,
    Rest,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.room.lock();
        state.tickets -= 1;
        // A membership that came of it keeps the room wanted.
        let abandoned = !state.wanted();
        drop(state);
        if abandoned {
            self.hub.tend(&self.room);
        }
    }
}

impl Hub {
    /// Keeps a place in a room, joining it if nobody here is in it yet. Must be called within the runtime.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str) -> Reservation {
        let (ticket, receiver) = loop {
            let room = self.find_or_create(name);
            let mut state = room.lock();
            if state.removed {
                continue;
            }
            state.tickets += 1;
            let receiver = (state.interest != Interest::Joined).then(|| {
                let (sender, receiver) = oneshot::channel();
                state.waiters.push(sender);
                receiver
            });
            drop(state);
            break (Ticket { hub: Arc::clone(self), room }, receiver);
        };
        let Some(mut receiver) = receiver else { return Reservation::Ready(ticket) };
        self.tend(&ticket.room);
        match receiver.try_recv() {
            Ok(Ok(())) => Reservation::Ready(ticket),
            Ok(Err(JoinFailed)) => Reservation::Failed,
            Err(_) => Reservation::Waiting(ticket, receiver),
        }
    }

    /// Sees to it that a task is at work on the room's interest.
    pub(super) fn tend(self: &Arc<Self>, room: &Arc<Room>) {
        {
            let mut state = room.lock();
            if state.driven || state.removed {
                return;
            }
            state.driven = true;
        }
        let mut drive = Box::pin(Arc::clone(self).drive(Arc::clone(room)));
        // A backplane that answers at once needs no task, and its subscriber no second wake-up.
        let _runtime = self.runtime.enter();
        if drive.as_mut().poll(&mut Context::from_waker(Waker::noop())) == Poll::Pending {
            self.runtime.spawn(drive);
        }
    }

    async fn drive(self: Arc<Self>, room: Arc<Room>) {
        let mut lingered = false;
        loop {
            match self.next_step(&room, lingered) {
                Step::Join => {
                    self.join(&room).await;
                    lingered = false;
                }
                Step::Linger => {
                    tokio::time::sleep(self.settings.leave_linger).await;
                    lingered = true;
                }
                Step::Leave => {
                    self.leave(&room).await;
                    lingered = false;
                }
                Step::Rest => return,
            }
        }
    }

    /// Decides under the room's lock, and marks the decision, so that nobody else decides differently.
    fn next_step(&self, room: &Arc<Room>, lingered: bool) -> Step {
        // The shard first, as everywhere: the room may have to leave it.
        let mut shard = self.shard(room.id.as_str()).write();
        let mut state = room.lock();
        match state.interest {
            Interest::Idle if !state.waiters.is_empty() => {
                state.interest = Interest::Joining;
                Step::Join
            }
            Interest::Joined if !state.wanted() && !lingered && !self.settings.leave_linger.is_zero() => {
                Step::Linger
            }
            Interest::Joined if !state.wanted() => {
                state.interest = Interest::Leaving;
                Step::Leave
            }
            _ => {
                state.driven = false;
                if state.interest == Interest::Idle && !state.wanted() {
                    state.removed = true;
                    shard.remove(room.id.as_str());
                }
                Step::Rest
            }
        }
    }

    /// Whatever comes of it, the room is left: a backplane that fails here delivers what nobody wants.
    async fn leave(&self, room: &Room) {
        match self.backplane().leave(&room.id).await {
            Ok(()) => {}
            // The node is going down.
            Err(error) if error.kind() == ErrorKind::Closed => {}
            Err(error) => {
                self.metrics.count_backplane_error(error.kind());
                tracing::warn!(room = %room.id, %error, "the backplane could not leave a room");
            }
        }
        room.lock().interest = Interest::Idle;
    }

    async fn join(&self, room: &Room) {
        let joined = self.backplane().join(&room.id).await;
        if let Err(error) = &joined {
            self.metrics.count_backplane_error(error.kind());
            tracing::warn!(room = %room.id, %error, "the backplane could not join a room");
        }
        let mut state = room.lock();
        let outcome = match joined {
            Ok(position) => {
                state.joined_at(position);
                Ok(())
            }
            Err(_) => {
                state.interest = Interest::Idle;
                Err(JoinFailed)
            }
        };
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        for waiter in waiters {
            // A waiter that is gone gave its ticket back.
            let _ = waiter.send(outcome);
        }
    }
}
