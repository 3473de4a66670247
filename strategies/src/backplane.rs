//! The contract between a chat node and whatever carries messages between nodes.
//!
//! What lives here: the [`Backplane`] trait, the values that cross it, and the [`Entrance`] through which a
//! strategy hands messages to its node. What does not: any broker, any client protocol, any fan-out.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guarantees::Guarantees;
use crate::stats::Stats;

/// A boxed future that may borrow the backplane. Boxed so that the contract stays object-safe: the strategy is a
/// start-up choice, and every strategy pays the same dispatch.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Carries messages from the node that received them to every node whose members must see them.
///
/// # Calls and order
/// - [`publish`](Self::publish) fixes the message's place **when it is called**, not when its future is polled: a
///   strategy hands the envelope to its ordered send queue before it returns the future, which only awaits the
///   acknowledgement. Two calls from one thread therefore keep their order, and dropping the future does not
///   take the message back. It never blocks: a full queue is [`ErrorKind::Overloaded`](crate::ErrorKind), at once.
/// - [`join`](Self::join) and [`leave`](Self::leave) of *one* room are never called concurrently and alternate
///   (the hub sees to that); of different rooms they may overlap freely. The futures are always driven to their end.
///
/// # Inbound
/// The strategy pushes batches into the [`Entrance`] that it was given at start. The publisher's own node hears its
/// messages through the backplane too, so there is exactly one entrance and one order.
pub trait Backplane: Send + Sync + fmt::Debug + 'static {
    /// What this instance promises under its effective settings. Constant over its life.
    fn guarantees(&self) -> Guarantees;

    /// Sends a message to all members of its room, on every node.
    ///
    /// `Ok` means that [`Guarantees::ack`] was reached. An error with `temporary == true` may be retried with the
    /// same [`MessageId`]; whether that can duplicate is [`Guarantees::idempotent_retry`].
    fn publish(&self, envelope: Envelope) -> BoxFuture<'static, Result<Position>>;

    /// The node has its first member of `room`. `Ok` means *effective*: every message whose `publish` is called
    /// anywhere after this resolves will reach this node. The position is where the room stands now.
    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>>;

    /// The node's last member left `room`. Messages of that room may still arrive for a while.
    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>>;

    /// History and resume, where messages are kept: exactly where [`Guarantees::replay`] is not `None`.
    fn history(&self) -> Option<&dyn History> {
        None
    }

    /// Counters of this instance, for metrics and reports.
    fn stats(&self) -> &Stats;

    /// Why this instance can never work again, although nobody shut it down (another process took its name, the cluster
    /// is full): its node should go down. `None` while it works or recovers by itself, and after a shutdown.
    fn failed(&self) -> Option<Error> {
        None
    }

    /// Flushes what was published, leaves the cluster, and stops every thread and task of the strategy.
    /// Bounded by the deadline in its settings (5 s by default). Later calls fail with `Closed`.
    fn shutdown(&self) -> BoxFuture<'static, Result<()>>;
}

/// Reads back what a room carried. Any node answers for any room, joined or not, and a node that has just started as
/// well as an old one, as far as the strategy's store reaches.
pub trait History: Send + Sync + fmt::Debug {
    /// Everything that came after `since`, for a member that comes back.
    ///
    /// [`Resumed::Complete`] holds every message of the room after `since` that was delivered to this node's entrance, or
    /// acknowledged to a publisher anywhere, before this was *called*; it may hold later ones too. A caller that joins the
    /// room first, holds back what arrives from then on, and drops from it what is in the answer (by message id) or stands at
    /// or before the answer's `top` therefore misses nothing and repeats nothing. At most `limit` messages; where there are more, or any may be missing, or `since`
    /// is of an epoch that nobody can read any more, the answer is [`Resumed::Incomplete`]. Never a guess.
    fn resume(&self, room: &RoomId, since: Position, limit: usize) -> BoxFuture<'static, Result<Resumed>>;

    /// A page of what is kept, for those who read history.
    fn page(&self, room: &RoomId, query: PageQuery) -> BoxFuture<'static, Result<Page>>;

    /// Forgets what is kept of a room; its positions go on, so that who comes back learns that something is missing.
    /// `None`: this strategy cannot.
    fn remove(&self, _room: &RoomId) -> Option<BoxFuture<'static, Result<()>>> {
        None
    }
}

/// What [`History::resume`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// Nothing is missing.
    Complete {
        /// In the room's order, oldest first.
        messages: Vec<Message>,
        /// Where the room stands after them, in the numbering that live messages of this node have. Its epoch may differ from
        /// that of `since`: then the positions of `messages` mean nothing to the member, and it goes on from here.
        top: Position,
    },
    /// Something is missing, or may be.
    Incomplete {
        /// Where the room stands.
        top: Position,
    },
}

/// Which messages of a room to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageQuery {
    /// Start after this position (exclusive, in either direction); `None`: at the oldest kept, or at the newest if reversed.
    pub since: Option<Position>,
    /// Messages at most; 0 asks for the top alone.
    pub limit: usize,
    /// Newest first.
    pub reverse: bool,
}

/// Messages of a room, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// In the order that was asked for.
    pub messages: Vec<Message>,
    /// Where the room stands.
    pub top: Position,
    /// `since` is of another epoch than the room: what it asks for is not to be had, and `messages` is empty.
    pub foreign: bool,
}

/// The one entrance of a node: every message reaches local members through it, whichever node it came from.
pub trait Entrance: Send + Sync + 'static {
    /// Takes all events out of `batch`, in order. Synchronous and non-blocking; called from the strategy's own
    /// thread or task, never concurrently *for the same room*. The vector comes back empty, for reuse.
    fn deliver(&self, batch: &mut Vec<Event>);
}

/// What a strategy pushes into the [`Entrance`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A message of a room that this node may have members of.
    Message(Message),
    /// Messages of `room` in `from..to` (offsets, end exclusive) were lost on the way to this node and will not come.
    Gap {
        /// The room that lost messages.
        room: RoomId,
        /// Offset of the first lost message.
        from: u64,
        /// Offset of the first message after the loss.
        to: u64,
    },
    /// Nothing comes at this position, and nothing is missing there: it was used up by another copy of a message that
    /// was delivered before. Only where positions are dense.
    Skipped {
        /// The room.
        room: RoomId,
        /// The position, with an offset above 0.
        position: Position,
    },
    /// The room's numbering starts anew with offset 1 of `epoch`, and nothing was lost in between: positions of the epoch
    /// before can't be compared with what follows. Only where positions are dense; a change of epoch that was not announced
    /// like this may hide a loss.
    Renumbered {
        /// The room.
        room: RoomId,
        /// The epoch of what follows.
        epoch: u64,
    },
    /// The link to the broker broke and is back. Losses, if any, were declared as gaps.
    Reconnected,
}

/// Identifies a message across retries: 128 bits, random unless the publisher supplies a key of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MessageId(pub u128);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The routing unit: what the client protocol calls a channel. 1 to 255 bytes of UTF-8; cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RoomId(Arc<str>);

impl RoomId {
    /// Longest room name in bytes. The client protocol's own limit.
    pub const BYTES_MAX: usize = 255;

    /// Wraps a room name. Length is the caller's to check (the server does, at its edge).
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for RoomId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A message on its way into the backplane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Where it goes.
    pub room: RoomId,
    /// Its identity across retries.
    pub id: MessageId,
    /// When the node received it: microseconds since the Unix epoch, by the publishing node's clock.
    pub published_at_us: u64,
    /// Who sent it, already encoded for the receiving clients; opaque to the backplane, may be empty. At most 4 KiB. The same in all
    /// that come over one connection.
    pub info: Bytes,
    /// The message itself, opaque, 0 to 64 KiB.
    pub payload: Bytes,
}

/// A message on its way out of the backplane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The envelope as it was published.
    pub envelope: Envelope,
    /// Its place in the room. Dense (+1) only where [`Guarantees::positions`] says so. With offset 0 it has none: it is not
    /// ordered among those that have one, and does not count as a hole between them.
    pub position: Position,
}

/// Where a message stands in its room. The default is "none": also what a join resolves with where the room's position
/// cannot be known at the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub struct Position {
    /// Changes whenever numbering restarts; 0 where the strategy has no positions.
    pub epoch: u64,
    /// Counts up within an epoch; the first message has 1, 0 means "nothing yet" or "no positions".
    pub offset: u64,
}
