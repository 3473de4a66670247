//! The simulated broker as the strategy of real nodes.

use std::cell::RefCell;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use manifold_strategies::guarantees::{Ack, Delivery, Interest, Ordering, Positions, ReplayKind};
use manifold_strategies::{
    Backplane, BoxFuture, Entrance, Envelope, Error, ErrorKind, Guarantees, History, Page, PageQuery,
    Position, Result, Resumed, RoomId, Start, Stats, Strategy, memory,
};
use parking_lot::Mutex;

use crate::broker::{Broker, is_hidden};
use crate::link::{Down, Link, take_one};
use crate::steps::{Numbers, Setup};

thread_local! {
    /// The broker of the case that runs on this thread.
    static BROKER: RefCell<Option<Arc<Mutex<Broker>>>> = const { RefCell::new(None) };
}

/// The simulated broker as a strategy, for those who wrap one. Connects to the broker that was set last on this thread.
pub(crate) static STRATEGY: Strategy =
    Strategy { name: "model", connect: |start| Box::pin(ready(connect(start))), ..memory::STRATEGY };

/// Sets the broker that [`STRATEGY`] connects to.
pub(crate) fn set_broker(broker: &Arc<Mutex<Broker>>) {
    BROKER.set(Some(Arc::clone(broker)));
}

fn connect(start: Start) -> Result<Arc<dyn Backplane>> {
    let broker = BROKER.with_borrow(|broker| broker.as_ref().map(Arc::clone));
    let none = || Error::new(ErrorKind::Config, "connect", "no case runs on this thread");
    Ok(Node::connect(broker.ok_or_else(none)?, start.entrance))
}

/// A node's strategy.
struct Node {
    broker: Arc<Mutex<Broker>>,
    setup: Setup,
    link: usize,
    stats: Stats,
}

impl Node {
    fn connect(broker: Arc<Mutex<Broker>>, entrance: Arc<dyn Entrance>) -> Arc<dyn Backplane> {
        let mut state = broker.lock();
        let (setup, link) = (state.setup, state.links.len());
        let read = state.sequence;
        state.links.push(Link::new(&setup, read));
        drop(state);
        tokio::spawn(deliver(Arc::clone(&broker), link, entrance));
        Arc::new(Self { broker, setup, link, stats: Stats::default() })
    }
}

/// Brings a node what is due, for as long as it lives.
async fn deliver(broker: Arc<Mutex<Broker>>, link: usize, entrance: Arc<dyn Entrance>) {
    let mut batch = Vec::new();
    loop {
        let (due, wake) = {
            let mut broker = broker.lock();
            let link = &mut broker.links[link];
            if link.dead {
                return;
            }
            (link.take_due(&mut batch), Arc::clone(&link.wake))
        };
        if !batch.is_empty() {
            entrance.deliver(&mut batch);
            continue;
        }
        let woken = wake.notified();
        match due {
            // Either will do.
            Some(due) => drop(tokio::time::timeout_at(due, woken).await),
            None => woken.await,
        }
    }
}

fn failure(kind: ErrorKind, operation: &'static str) -> Error {
    Error::new(kind, operation, "as the history has it").with_temporary(kind != ErrorKind::Closed)
}

/// Waits until the link is up. Fails when its node is gone.
async fn up(broker: &Mutex<Broker>, link: usize) -> Result<()> {
    loop {
        let wake = {
            let broker = broker.lock();
            let link = &broker.links[link];
            if link.dead {
                return Err(failure(ErrorKind::Closed, "join"));
            }
            if link.down.is_none() {
                return Ok(());
            }
            Arc::clone(&link.wake)
        };
        // The task that delivers may take the one wake-up there is; the other kind reaches all.
        let _ = tokio::time::timeout(Duration::from_millis(5), wake.notified()).await;
    }
}

impl Backplane for Node {
    fn guarantees(&self) -> Guarantees {
        let dense = self.setup.numbers == Numbers::Dense;
        Guarantees {
            delivery: Delivery::AtMostOnce,
            ordering: Ordering::PerRoom,
            ack: Ack::Broker,
            interest: if self.setup.everything { Interest::Everything } else { Interest::Rooms },
            replay: ReplayKind::Log,
            positions: if dense { Positions::Dense } else { Positions::Rising },
            idempotent_retry: true,
            spans_nodes: true,
            whole_rooms: true,
        }
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let mut broker = self.broker.lock();
        let room = envelope.room.clone();
        let hidden = is_hidden(&room);
        let link = &mut broker.links[self.link];
        if link.dead {
            return Box::pin(ready(Err(failure(ErrorKind::Closed, "publish"))));
        }
        let down = link.down;
        let fails = down.is_some() || (!hidden && take_one(&mut link.fail_publishes));
        let kept = if down.is_some() { down == Some(Down::Waiting) } else { link.fail_kept };
        if fails && !kept {
            return Box::pin(ready(Err(failure(ErrorKind::Overloaded, "publish"))));
        }
        let index = broker.accept(envelope);
        let position = broker.message(&room, index, self.link).position;
        let ack_ms = if hidden { 0 } else { broker.ack_ms };
        Box::pin(async move {
            if ack_ms > 0 {
                tokio::time::sleep(Duration::from_millis(ack_ms)).await;
            }
            if fails { Err(failure(ErrorKind::Timeout, "publish")) } else { Ok(position) }
        })
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        let (broker, link, setup, room) = (Arc::clone(&self.broker), self.link, self.setup, room.clone());
        Box::pin(async move {
            up(&broker, link).await?;
            let early = setup.early_joins.then(|| begin(&broker, link, &room));
            let wait_ms = broker.lock().links[link].join_ms;
            if wait_ms > 0 && !is_hidden(&room) {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            up(&broker, link).await?;
            if !is_hidden(&room) && take_one(&mut broker.lock().links[link].fail_joins) {
                broker.lock().links[link].leave(&room);
                return Err(failure(ErrorKind::Unreachable, "join"));
            }
            // Where positions count up by one, what the room carried meanwhile may be counted in.
            match early {
                Some(position) if setup.numbers != Numbers::Dense => Ok(position),
                Some(_) => Ok(broker.lock().top(&room, link)),
                None => Ok(begin(&broker, link, &room)),
            }
        })
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        let mut broker = self.broker.lock();
        let link = &mut broker.links[self.link];
        link.leave(room);
        if self.setup.numbers != Numbers::Dense && !self.setup.everything {
            link.forget(room);
        }
        Box::pin(ready(Ok(())))
    }

    fn history(&self) -> Option<&dyn History> {
        Some(self)
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.broker.lock().links[self.link].die();
        Box::pin(ready(Ok(())))
    }
}

/// Lets messages of a room come to a link, and says which is the last that does not.
fn begin(broker: &Mutex<Broker>, link: usize, room: &RoomId) -> Position {
    let mut broker = broker.lock();
    let read = broker.links[link].read;
    let reads_on = broker.setup.everything && broker.setup.numbers != Numbers::Dense;
    let position = if reads_on { broker.rising(read, link) } else { broker.top(room, link) };
    broker.links[link].join(room, position);
    position
}

impl Node {
    /// Reads history after the time that it takes.
    fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        read: impl Fn(&mut Broker) -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let (broker, link) = (Arc::clone(&self.broker), self.link);
        let (early, wait_ms, late) = {
            let mut broker = broker.lock();
            let own = &mut broker.links[link];
            let fails = own.dead || own.down.is_some() || take_one(&mut own.fail_history);
            let (wait_ms, late) = (own.history_ms, own.history_late);
            (
                if fails { Err(failure(ErrorKind::Unreachable, operation)) } else { Ok(read(&mut broker)) },
                wait_ms,
                late,
            )
        };
        Box::pin(async move {
            if wait_ms > 0 {
                tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            }
            match early {
                Ok(_) if late => Ok(read(&mut broker.lock())),
                early => early,
            }
        })
    }
}

impl History for Node {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        let (room, link) = (room.clone(), self.link);
        self.read("resume", move |broker| broker.resume(&room, since, limit, link))
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        let (room, link) = (room.clone(), self.link);
        self.read("history", move |broker| broker.page(&room, query, link))
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("link", &self.link).finish_non_exhaustive()
    }
}
