//! Commands that wait for the backplane. Their number is bounded; they are polled by the session's task.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use futures_util::stream::{FuturesUnordered, StreamExt};
use manifold_strategies::{BoxFuture, Position, Result};

use super::commands::Client;
use super::history::FinishedHistory;
use super::position::FinishedPosition;
use super::presence::{FinishedPresence, PresenceAnswer};
use super::recover::FinishedRecovery;
use super::subscribe::{Joining, Wish};
use crate::hub::{JoinFailed, Ticket};

/// Commands on their way.
pub(super) struct PendingSet {
    /// One of them never finishes and is never polled again, so that a turn never polls as many as there are. If it did, the set
    /// would wake its own task, lest it starve others: one more turn for each publish, and another worker's wake-up.
    futures: FuturesUnordered<Pending>,
}

impl Default for PendingSet {
    fn default() -> Self {
        let mut futures = FuturesUnordered::new();
        futures.push(Pending::Never);
        let polled = futures.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
        debug_assert!(polled.is_pending());
        Self { futures }
    }
}

impl PendingSet {
    fn len(&self) -> usize {
        self.futures.len() - 1
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.futures.iter().filter(|pending| !matches!(pending, Pending::Never))
    }

    fn push(&self, pending: Pending) {
        self.futures.push(pending);
    }

    /// The next one that has finished. The task is woken when there may be another.
    fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<Finished> {
        match self.futures.poll_next_unpin(cx) {
            Poll::Ready(Some(finished)) => Poll::Ready(finished),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

/// A command on its way.
pub(super) enum Pending {
    Never,
    Publish(PendingPublish),
    Join(Pin<Box<dyn Future<Output = FinishedJoin> + Send>>),
    Position(Pin<Box<dyn Future<Output = FinishedPosition> + Send>>),
    Recovery(Pin<Box<dyn Future<Output = FinishedRecovery> + Send>>),
    History(Pin<Box<dyn Future<Output = FinishedHistory> + Send>>),
    Presence(PresenceAnswer),
}

/// A publish whose acknowledgement has not come.
pub(super) struct PendingPublish {
    pub(super) id: u32,
    pub(super) received_at_us: u64,
    pub(super) outcome: BoxFuture<'static, Result<Position>>,
}

/// A subscribe whose room is joined, or is not going to be.
pub(super) struct FinishedJoin {
    pub(super) id: u32,
    pub(super) wish: Wish,
    pub(super) ticket: Ticket,
    pub(super) outcome: Result<(), JoinFailed>,
}

/// What came of a pending command.
pub(super) enum Finished {
    Publish { id: u32, received_at_us: u64, outcome: Result<Position> },
    Join(FinishedJoin),
    Position(FinishedPosition),
    Recovery(FinishedRecovery),
    History(FinishedHistory),
    Presence(FinishedPresence),
}

impl Future for PendingPublish {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        self.outcome.as_mut().poll(cx).map(|outcome| Finished::Publish {
            id: self.id,
            received_at_us: self.received_at_us,
            outcome,
        })
    }
}

impl Future for Pending {
    type Output = Finished;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        match self.get_mut() {
            Self::Never => Poll::Pending,
            Self::Publish(publish) => Pin::new(publish).poll(cx),
            Self::Join(join) => join.as_mut().poll(cx).map(Finished::Join),
            Self::Position(ask) => ask.as_mut().poll(cx).map(Finished::Position),
            Self::Recovery(recovery) => recovery.as_mut().poll(cx).map(Finished::Recovery),
            Self::History(history) => history.as_mut().poll(cx).map(Finished::History),
            Self::Presence(answer) => answer.as_mut().poll(cx).map(Finished::Presence),
        }
    }
}

impl Client {
    /// Answers what has finished since the last turn.
    pub(super) fn poll_pending(&mut self, cx: &mut Context<'_>) {
        while let Some(pending) = self.pending.as_mut().filter(|pending| !pending.is_empty()) {
            match pending.poll_finished(cx) {
                Poll::Ready(finished @ Finished::Publish { .. }) => self.finish(finished),
                Poll::Ready(finished) => {
                    self.finish(finished);
                    self.drop_empty_set();
                }
                Poll::Pending => return,
            }
        }
    }

    /// Gives the memory of the set back where nothing waits. Between two publishes it stays: a set of its own for each would
    /// cost much of what a publish does.
    pub(super) fn drop_empty_set(&mut self) {
        if !self.is_waiting() {
            self.pending = None;
        }
    }

    /// Keeps a command whose future was not polled yet: that happens at the next turn, which this asks for.
    pub(super) fn begin_waiting_for(&mut self, pending: Pending) {
        self.wait_for(pending);
        self.session.waker().wake();
    }

    /// Keeps a command until the backplane has answered. The task is woken when it has, once the commands that wait were
    /// [polled](Self::poll_pending).
    pub(super) fn wait_for(&mut self, pending: Pending) {
        self.pending.get_or_insert_default().push(pending);
    }

    /// Whether a command waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending.as_ref().is_some_and(|pending| !pending.is_empty())
    }

    /// Whether as many commands wait as may, those behind a join included.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.pending.as_ref().map_or(0, |pending| pending.len());
        let behind: usize = self.joining.iter().map(Joining::commands_behind).sum();
        waiting + behind >= self.node.config().pending_commands_max as usize
    }

    fn finish(&mut self, finished: Finished) {
        match finished {
            Finished::Publish { id, received_at_us, outcome } => {
                self.acknowledge(id, received_at_us, outcome)
            }
            Finished::Join(join) => self.finish_join(join),
            Finished::Position(finished) => self.finish_position(finished),
            Finished::Recovery(recovery) => self.finish_recovery(recovery),
            Finished::History(history) => self.finish_history(history),
            Finished::Presence(answer) => self.finish_presence(answer),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn a_task_is_woken_when_a_command_has_finished_and_not_before() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let mut pending = PendingSet::default();
        assert!(pending.is_empty());
        for round in 0..3 {
            let (done, outcome) = oneshot::channel::<Position>();
            let outcome = Box::pin(async { Ok(outcome.await.expect("a position")) });
            pending.push(Pending::Publish(PendingPublish { id: 1, received_at_us: 0, outcome }));
            for _ in 0..2 {
                assert!(pending.poll_finished(&mut cx).is_pending());
            }
            assert_eq!((pending.len(), wakes.0.load(Relaxed)), (1, round));
            done.send(Position::default()).expect("it waits");
            assert_eq!(wakes.0.load(Relaxed), round + 1);
            let finished = pending.poll_finished(&mut cx);
            assert!(matches!(finished, Poll::Ready(Finished::Publish { id: 1, outcome: Ok(_), .. })));
            assert!(pending.is_empty());
        }
    }
}
