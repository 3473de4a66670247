//! The task that moves presence: what others said into the table, what changed here out to them, and what changed at all to
//! the members that wish to see it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use manifold_strategies::{Envelope, ErrorKind, MessageId, RoomId};

use super::pushes::Pushes;
use super::wire::{self, Message};
use super::{Presence, ROOM};
use crate::clock::unix_us;
use crate::hub::Hub;

/// Time for the last words of a node that goes.
const GOODBYE_PATIENCE: Duration = Duration::from_secs(1);

impl Presence {
    /// Runs for as long as the node lives. The hub's backplane must have been set.
    pub(crate) async fn run(self: Arc<Self>, hub: Arc<Hub>) {
        let guarantees = hub.backplane().guarantees();
        let enters = guarantees.spans_nodes && guarantees.whole_rooms;
        let enter = async {
            if enters {
                self.enter_cluster(&hub).await;
            }
        };
        // Until the others can be heard, who comes and goes here is shown here.
        tokio::join!(enter, self.gossip(&hub));
    }

    async fn gossip(&self, hub: &Hub) {
        let mut pushes = Pushes::default();
        loop {
            self.wait(pushes.is_empty()).await;
            self.read_inbox().await;
            while self.state.lock().clear_out() {
                tokio::task::yield_now().await;
            }
            self.flush(hub, &mut pushes).await;
        }
    }

    /// Tells the others that this node goes, once [`run`](Self::run) has ended.
    pub(crate) async fn say_goodbye(&self, hub: &Hub) {
        let words = self.state.lock().goodbye();
        for message in words {
            let said = hub.backplane().publish(self.envelope(message));
            if !matches!(tokio::time::timeout(GOODBYE_PATIENCE, said).await, Ok(Ok(_))) {
                tracing::debug!("the others will notice by its silence that this node is gone");
            }
        }
    }

    async fn enter_cluster(&self, hub: &Hub) {
        let room = RoomId::new(ROOM);
        let pause = Duration::from_millis(self.timing.heartbeat_ms);
        while let Err(error) = hub.backplane().join(&room).await {
            if error.kind() == ErrorKind::Closed {
                return;
            }
            self.metrics.count_backplane_error(error.kind());
            tracing::warn!(%error, "presence knows of this node alone until its room can be joined");
            tokio::time::sleep(pause).await;
        }
        self.state.lock().enter();
        self.wake.notify_one();
    }

    /// Waits until there is something to do.
    async fn wait(&self, all_shown: bool) {
        let due_ms = {
            let state = self.state.lock();
            if all_shown { state.due_ms() } else { state.flush_due_ms() }
        };
        let woken = self.wake.notified();
        if due_ms == u64::MAX {
            return woken.await;
        }
        // Either will do.
        let _ = tokio::time::timeout_at(self.started + Duration::from_millis(due_ms), woken).await;
    }

    async fn read_inbox(&self) {
        loop {
            let Some(bytes) = self.inbox.lock().pop() else { return };
            self.read(&bytes);
            tokio::task::yield_now().await;
        }
    }

    fn read(&self, bytes: &[u8]) {
        let now_ms = self.now_ms();
        if wire::sender(bytes) == Ok(self.me) {
            self.state.lock().hear_echo(now_ms);
            return;
        }
        match Message::decode(bytes) {
            Ok(message) => {
                if !self.state.lock().take(message, now_ms) {
                    self.metrics.count_error("presence_too_many_nodes");
                }
            }
            Err(error) => {
                self.metrics.count_error("presence_refused");
                tracing::debug!(%error, "a message of presence is refused");
            }
        }
    }

    /// Sends and shows what there is, if it is time.
    async fn flush(&self, hub: &Hub, pushes: &mut Pushes) {
        let flushed = {
            let mut state = self.state.lock();
            state.flush(self.now_ms()).map(|messages| (messages, state.table.take_changes()))
        };
        let Some((messages, (changes, lost))) = flushed else { return };
        for message in messages {
            self.send(hub, message);
        }
        let lost = lost + pushes.add(changes, |room| hub.shows_arrivals(room));
        if lost > 0 {
            self.metrics.count_error("presence_pushes_lost");
            tracing::warn!(lost, "more clients came and went than can be shown");
        }
        for (room, frame) in pushes.next_frames() {
            hub.show_arrivals(&room, &frame).await;
        }
    }

    /// Publishes without waiting for the acknowledgement: what is lost shows in the numbers of what follows.
    fn send(&self, hub: &Hub, message: Vec<u8>) {
        let mut outcome = hub.backplane().publish(self.envelope(message));
        let outcome = outcome.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        if let Poll::Ready(Err(error)) = outcome {
            self.metrics.count_backplane_error(error.kind());
            tracing::debug!(%error, "a message of presence was not sent");
        }
    }

    fn envelope(&self, message: Vec<u8>) -> Envelope {
        let count = self.sent.fetch_add(1, Relaxed);
        Envelope {
            room: RoomId::new(ROOM),
            id: MessageId(u128::from(self.me) << 64 | u128::from(count)),
            published_at_us: unix_us(),
            info: Bytes::new(),
            payload: message.into(),
        }
    }

    /// Milliseconds since this began.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
