//! Redis Pub/Sub with a dense sequence per room (plan 3): lowest latency, at most once, and every loss is noticed.
//!
//! - One script per message assigns the room's next offset, keeps the message in the room's stream, and publishes,
//!   atomically; see `scripts`.
//! - A node subscribes to the rooms that have local members, and lets go of them some seconds after the last one left.
//! - Messages, confirmations and the tops of rooms arrive over one connection in one order, so a missing message is found
//!   exactly: by the next message, by the heartbeat (a lost *last* message), or when a broken link is back. It is read back
//!   from the stream while the room stands still and the others go on; what the stream has no more is declared as a gap.
//!   See `repair`.
//! - A server that froze is noticed within one and a half times `response_timeout_ms`, and a quiet one is asked for a sign of life.
//!   It has lost nothing yet; the link counts as down until it is heard again, and publishes are refused for so long. For one that
//!   is down, and refuses connections, they wait.
//! - When numbering restarts the room gets a new epoch: Redis lost its data, or was restarted with it, or a failover made a
//!   replica the master, or the same server came back into office after another one, or the room's slot moved. That is declared as an empty gap and
//!   announced, then what is known to be missing of the new epoch. A replica, or a file, may be older than what was acknowledged, and nobody can tell by how much: so nothing
//!   of before can be resumed, and no number is used twice. Redis does not tell a new term of office from the first replica
//!   ever, or from an hour without any: rooms are numbered anew then, too.
//!
//! # What the guarantees mean
//! Publishes that got no reply before the link broke are sent again, and a client may retry with the same message id. Redis
//! remembers ids for `dedup_seconds`: a repeat creates nothing, and gets the position of the first. What comes later, or
//! where no history is kept, is removed on the receiving nodes, within their window of message ids. A message
//! removed there has used up an offset, which is told as skipped: positions stay dense, and nobody takes a retry for a loss.
//!
//! In a cluster the script needs keys of one slot together, which it cannot have while that slot moves: publishes to its
//! rooms are refused for the time being, and joins wait. The rooms in other slots, of the same master too, notice nothing.
//!
//! # What Redis has to allow
//! A user that may not do everything needs, for a namespace `ns`:
//!
//! ```text
//! ~ns* &ns:* +hello +auth +select +ping +info +script|load +evalsha +client|kill +get +mget +set +setrange +exists
//! +expire +del +xadd +xrange +xrevrange +publish +subscribe +unsubscribe
//! ```
//!
//! and besides `+role` behind Sentinels (whose own user needs `+sentinel`), or `+role +cluster|slots +spublish +ssubscribe
//! +sunsubscribe` in a cluster. With `CLIENT KILL` a node ends a connection of its own that it gave up, before it publishes over the next
//! one: what a server that froze still finds in its socket would else be carried out behind what was sent later. Whether it is
//! allowed is tried when a node starts, which fails otherwise.
//!
//! # What can be resumed
//! The last `history_messages` of a room, until `history_minutes` after the last one. An answer is complete only if
//! every offset from the member's place to the room's head is there, all read in one epoch; see `history`.

mod commands;
mod history;
pub(crate) mod lanes;
pub(crate) mod listening;
pub(crate) mod live;
pub(crate) mod publisher;
mod readers;
mod repair;
pub(crate) mod rooms;
mod scripts;
pub(crate) mod sequence;
mod settings;
mod silence;
pub(crate) mod subscriber;
pub(crate) mod wire;
pub(crate) mod work;

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::live::{Live, Setup, closed};
pub use self::settings::Settings;
#[cfg(feature = "hybrid")]
pub(crate) use self::settings::within;
use self::work::{Operation, Publish};

use self::wire::{Inbound, Wire};
use crate::backplane::{
    Backplane, BoxFuture, Entrance, Envelope, Event, History, Message, Page, PageQuery, Position, Resumed,
    RoomId,
};
use crate::clients::redis::Address;
use crate::dedup::DedupWindow;
use crate::envelope::{self, View};
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::stats::Stats;
use crate::strategy::{Needs, Start, Strategy, parse_settings};

/// What the strategy promises with these settings.
pub fn guarantees(settings: &Settings) -> Guarantees {
    Guarantees {
        delivery: Delivery::AtMostOnce,
        ordering: Ordering::PerRoom,
        ack: Ack::Broker,
        interest: Interest::Rooms,
        replay: if settings.keeps_history() { ReplayKind::Memory } else { ReplayKind::None },
        positions: Positions::Dense,
        idempotent_retry: true,
        spans_nodes: true,
        whole_rooms: true,
    }
}

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "redis-pubsub",
    summary: "Redis Pub/Sub per room with a dense sequence and a short history: no log, loss is noticed and declared",
    needs: Needs { kafka: false, redis: true },
    counter_example: false,
    variants: &[],
    settings: |table| {
        let settings = checked(table)?;
        toml::Table::try_from(settings).map_err(|source| {
            Error::new(ErrorKind::Config, "settings", "they cannot be shown").with_source(source)
        })
    },
    guarantees: |table| checked(table).map(|settings| guarantees(&settings)),
    connect: |start| Box::pin(connect(start)),
};

fn checked(table: &toml::Table) -> Result<Settings> {
    let settings: Settings = parse_settings(table)?;
    settings.check()?;
    Ok(settings)
}

async fn connect(start: Start) -> Result<Arc<dyn Backplane>> {
    let settings = checked(&start.settings)?;
    let address = Address::parse(start.redis()?)?;
    let stats = Arc::new(Stats::default());
    // What Redis has sent and this node has not read yet is in socket buffers, where nobody counts it.
    stats.lag_messages.set(-1);
    let wire = Direct {
        entrance: start.entrance,
        stats: Arc::clone(&stats),
        seen: Arc::new(Mutex::new(DedupWindow::new(settings.dedup_messages))),
    };
    let live = Live::start(Setup {
        address,
        namespace: start.namespace,
        node: start.node,
        settings: settings.clone(),
        fail_fast: false,
        connect_retry: start.connect_retry,
        wire: Arc::new(wire),
        stats: Arc::clone(&stats),
    });
    Ok(Arc::new(RedisPubsub { live: live.await?, settings, stats }))
}

/// A running instance.
struct RedisPubsub {
    live: Live,
    settings: Settings,
    stats: Arc<Stats>,
}

impl Backplane for RedisPubsub {
    fn guarantees(&self) -> Guarantees {
        guarantees(&self.settings)
    }

    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let (done, outcome) = oneshot::channel();
        let queued = envelope::check(&envelope).and_then(|()| {
            self.live.publish(Publish {
                envelope,
                operation: Operation::Publish,
                until: Instant::now() + self.settings.publish_timeout(),
                done: Box::new(move |_, outcome| drop(done.send(outcome))),
            })
        });
        if queued.is_ok() {
            self.stats.publishes.add(1);
        }
        Box::pin(async move {
            queued?;
            outcome.await.unwrap_or_else(|_| Err(closed("publish")))
        })
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        self.live.join(room)
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        Box::pin(std::future::ready(self.live.leave(room)))
    }

    fn history(&self) -> Option<&dyn History> {
        if self.settings.keeps_history() { Some(self) } else { None }
    }

    fn stats(&self) -> &Stats {
        &self.stats
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        self.live.shutdown()
    }
}

impl History for RedisPubsub {
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>> {
        self.live.resume(room, since, limit)
    }

    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>> {
        self.live.page(room, query)
    }

    fn remove(&self, room: &RoomId) -> Option<BoxFuture<'static, Result<()>>> {
        Some(self.live.remove(room))
    }
}

impl fmt::Debug for RedisPubsub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPubsub").field("live", &self.live).finish_non_exhaustive()
    }
}

/// The live path as it is: what arrives goes straight to the node.
struct Direct {
    entrance: Arc<dyn Entrance>,
    stats: Arc<Stats>,
    /// One for all lanes: a message may come over a second lane after its slot has moved.
    seen: Arc<Mutex<DedupWindow>>,
}

impl Wire for Direct {
    fn encode(&self, envelope: &Envelope, out: &mut Vec<u8>) {
        envelope::encode(envelope, None, out);
    }

    fn read<'a>(&self, body: &'a [u8]) -> Result<View<'a>> {
        View::parse(body)
    }

    fn in_order(&self) -> bool {
        true
    }

    fn inbound(&self) -> Box<dyn Inbound> {
        Box::new(DirectInbound {
            entrance: Arc::clone(&self.entrance),
            stats: Arc::clone(&self.stats),
            seen: Arc::clone(&self.seen),
            batch: Vec::new(),
        })
    }
}

struct DirectInbound {
    entrance: Arc<dyn Entrance>,
    stats: Arc<Stats>,
    seen: Arc<Mutex<DedupWindow>>,
    batch: Vec<Event>,
}

impl Inbound for DirectInbound {
    fn message(&mut self, room: &RoomId, position: Position, body: &[u8], wanted: bool) {
        let view = match View::parse(body) {
            Ok(view) if view.room == room.as_str() => view,
            _ => return self.stats.corrupt.add(1),
        };
        if wanted {
            self.stats.envelopes_wanted.add(1);
        }
        if !self.seen.lock().insert(view.id) {
            self.stats.duplicates_removed.add(1);
            return self.batch.push(Event::Skipped { room: room.clone(), position });
        }
        self.batch.push(Event::Message(Message { envelope: view.to_envelope(), position }));
    }

    fn renumbered(&mut self, room: &RoomId, epoch: u64) {
        // Something of the epoch before may be lost; nobody knows how much. Members that come back for that find the room in its
        // new epoch, and are not sent away once more by the first message of it.
        self.stats.gaps.add(1);
        self.batch.push(Event::Gap { room: room.clone(), from: 1, to: 1 });
        self.batch.push(Event::Renumbered { room: room.clone(), epoch });
    }

    fn missing(&mut self, room: &RoomId, _epoch: u64, from: u64, to: u64) {
        if from == to {
            return;
        }
        self.stats.gaps.add(1);
        self.stats.gap_messages.add(to - from);
        self.batch.push(Event::Gap { room: room.clone(), from, to });
    }

    fn reconnected(&mut self) {
        self.batch.push(Event::Reconnected);
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.entrance.deliver(&mut self.batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backplane::MessageId;

    struct Inbox(Mutex<Vec<Event>>);

    impl Entrance for Inbox {
        fn deliver(&self, batch: &mut Vec<Event>) {
            self.0.lock().append(batch);
        }
    }

    fn direct() -> (Direct, Arc<Inbox>) {
        let inbox = Arc::new(Inbox(Mutex::default()));
        let wire = Direct {
            entrance: Arc::clone(&inbox) as Arc<_>,
            stats: Arc::default(),
            seen: Arc::new(Mutex::new(DedupWindow::new(8))),
        };
        (wire, inbox)
    }

    #[test]
    fn a_message_that_comes_over_two_lanes_is_delivered_once() {
        let (wire, inbox) = direct();
        let room = RoomId::new("room");
        let envelope = Envelope {
            room: room.clone(),
            id: MessageId(7),
            published_at_us: 1,
            info: bytes::Bytes::new(),
            payload: bytes::Bytes::new(),
        };
        let mut body = Vec::new();
        wire.encode(&envelope, &mut body);
        for (offset, mut lane) in (1..).zip([wire.inbound(), wire.inbound()]) {
            lane.message(&room, Position { epoch: 1, offset }, &body, true);
            lane.flush();
        }
        let events = inbox.0.lock().clone();
        let skipped = Event::Skipped { room, position: Position { epoch: 1, offset: 2 } };
        assert!(matches!(&events[..], [Event::Message(_), second] if *second == skipped), "{events:?}");
        assert_eq!(wire.stats.duplicates_removed.get(), 1);
    }
}
