//! The backplane of one node.

use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::history::RoomHistory;
use super::keeper::Keeper;
use super::publish::{self, Sender};
use super::rooms::Rooms;
use super::settings::{Consume, Settings};
use crate::backplane::{Backplane, BoxFuture, Envelope, History, Position, RoomId};
use crate::clients::kafka::Consumer;
use crate::clients::kafka::fault::{closed, silent, timed_out};
use crate::error::Result;
use crate::guarantees::Guarantees;
use crate::kafka_history::log::Log;
use crate::stats::Stats;

/// A connected node.
pub(super) struct Node {
    pub(super) settings: Settings,
    pub(super) topic: Arc<str>,
    pub(super) rooms: Arc<Rooms>,
    pub(super) producer: Sender,
    pub(super) consumer: Consumer,
    pub(super) keeper: Keeper,
    /// `None` for the counter-example.
    pub(super) history: Option<RoomHistory>,
    pub(super) log: Arc<Log>,
    /// The keeper's thread, until a shutdown takes it.
    pub(super) thread: Mutex<Option<JoinHandle<()>>>,
    pub(super) closed: AtomicBool,
}

impl Backplane for Node {
    fn guarantees(&self) -> Guarantees {
        self.settings.guarantees()
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let partition = self.rooms.partition_of(&envelope.room);
        let sent = match self.consumer.is_silent(&self.topic, partition) {
            true => Err(silent(&format!("{}[{partition}]", self.topic))),
            false => publish::send(&self.producer, &self.rooms, &self.topic, &envelope),
        };
        let (rooms, time_max) = (Arc::clone(&self.rooms), self.settings.publish_timeout());
        match sent {
            Ok(waiting) => Box::pin(async move {
                let written = publish::acknowledged_within(waiting, time_max).await?;
                Ok(publish::position(&rooms, written))
            }),
            Err(error) => Box::pin(ready(Err(error))),
        }
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        if self.closed.load(SeqCst) {
            return Box::pin(ready(Err(closed("join"))));
        }
        let partition = self.rooms.partition_of(room);
        if self.settings.consume != Consume::Demand {
            return Box::pin(ready(Ok(self.rooms.want(room, partition))));
        }
        let waiting = self.keeper.join(partition);
        let (rooms, room) = (Arc::clone(&self.rooms), room.clone());
        Box::pin(async move {
            waiting?.await.unwrap_or_else(|_| Err(closed("join")))?;
            Ok(rooms.want(&room, partition))
        })
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        if let Some(partition) = self.rooms.unwant(room)
            && self.settings.consume == Consume::Demand
        {
            self.keeper.leave(partition);
        }
        Box::pin(ready(Ok(())))
    }

    fn history(&self) -> Option<&dyn History> {
        self.history.as_ref().map(|history| history as &dyn History)
    }

    fn stats(&self) -> &Stats {
        &self.rooms.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.closed.store(true, SeqCst);
        self.keeper.stop();
        let (producer, consumer) = (self.producer.clone(), self.consumer.clone());
        let (deadline, thread) = (self.settings.shutdown_timeout(), self.thread.lock().take());
        let log = Arc::clone(&self.log);
        Box::pin(async move {
            let kept = async {
                if let Some(thread) = thread {
                    // A panic was reported by the panic hook already; the thread is gone either way.
                    let _ = tokio::task::spawn_blocking(move || thread.join()).await;
                }
            };
            let ended =
                async { tokio::join!(producer.close(deadline), consumer.stop(), kept, log.close()).0 };
            let late = |_| Err(timed_out("shutdown", "this node's threads still wait for Kafka"));
            tokio::time::timeout(deadline, ended).await.unwrap_or_else(late)
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The keeper and the reader hold each other; without this they would outlive a node that was never shut down.
        self.keeper.stop();
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaKeyed")
            .field("topic", &self.topic)
            .field("consume", &self.settings.consume)
            .finish_non_exhaustive()
    }
}
