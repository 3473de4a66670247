//! A backplane that misbehaves on purpose, to prove that the tests which judge strategies can fail.
//!
//! It wraps any strategy: the [`Fault`] acts on what the strategy delivers, or on what it answers. Everything is
//! deterministic: a fault hits every [`Fault::EVERY`]th event.

mod history;

use std::collections::HashSet;
use std::fmt;
use std::future::{pending, ready};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::backplane::{
    Backplane, BoxFuture, Entrance, Envelope, Event, History, Message, MessageId, Position, RoomId,
};
use crate::error::{Error, Result};
use crate::guarantees::Guarantees;
use crate::stats::Stats;
use crate::strategy::{Start, Strategy};

use history::FaultyHistory;

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Every 7th message is lost.
    Drop,
    /// Every 7th message is delivered twice.
    Duplicate,
    /// Every 7th message changes places with the next.
    Swap,
    /// As `Swap`, but at other messages on each node: members disagree.
    Diverge,
    /// Every 7th message is delivered to a room that never asked for it as well.
    Leak,
    /// Every payload arrives one byte shorter; an empty one arrives as one byte.
    Corrupt,
    /// Every 7th publish is acknowledged and not sent.
    FalseAck,
    /// The first message after a join is lost: the join resolved before it was effective.
    EarlyJoin,
    /// `leave` succeeds and the messages keep coming.
    DeafLeave,
    /// Every position repeats the one before.
    StuckPosition,
    /// Every 7th message leaves the position before it unused, and nobody is told.
    SilentSkip,
    /// `shutdown` never ends.
    EndlessShutdown,
    /// Publishing goes on after `shutdown`.
    OpenAfterShutdown,
    /// Every publish gets a new message id, so that a retry is a second message.
    FreshId,
    /// A message that is too large is cut and accepted.
    Lenient,
    /// Settings are not looked at.
    LenientSettings,
    /// Every answer of history lacks the message in its middle.
    ForgetHistory,
    /// Every answer of history repeats its first message at the end.
    RepeatHistory,
    /// In every answer of history the first two messages change places.
    SwapHistory,
    /// Every answer of history lacks its last message: it was read too early.
    StaleHistory,
    /// History has only what was delivered to this node.
    OwnHistory,
    /// What history cannot tell is told as complete.
    BoastfulHistory,
    /// History looks at no limit.
    BoundlessHistory,
    /// History begins one position too early.
    InclusiveHistory,
    /// History is always read forwards.
    OneWayHistory,
    /// Pages of history do not say where the room stands.
    ToplessHistory,
    /// Removing history removes nothing.
    KeptHistory,
}

impl Fault {
    /// Every how many events a fault strikes.
    pub const EVERY: u64 = 7;
}

/// Starts `strategy` with `fault` between it and the node.
pub async fn connect(strategy: &Strategy, start: Start, fault: Fault) -> Result<Faulty> {
    let node_number = start.node.bytes().last().map_or(0, u64::from) % 5;
    let every = if fault == Fault::Diverge { Fault::EVERY + node_number } else { Fault::EVERY };
    let inner = Arc::clone(&start.entrance);
    let entrance = Arc::new(FaultyEntrance { fault, every, inner, state: Mutex::default() });
    let mut start = Start { entrance: Arc::clone(&entrance) as Arc<dyn Entrance>, ..start };
    if fault == Fault::LenientSettings {
        start.settings.clear();
    }
    let inner = (strategy.connect)(start).await?;
    let history = FaultyHistory { fault, inner: Arc::clone(&inner), entrance: Arc::clone(&entrance) };
    Ok(Faulty { fault, inner, entrance, history, published: Mutex::new(0) })
}

/// A misbehaving backplane.
pub struct Faulty {
    fault: Fault,
    inner: Arc<dyn Backplane>,
    entrance: Arc<FaultyEntrance>,
    history: FaultyHistory,
    published: Mutex<u64>,
}

impl Backplane for Faulty {
    fn guarantees(&self) -> Guarantees {
        self.inner.guarantees()
    }

    fn publish(&self, mut envelope: Envelope) -> BoxFuture<'static, Result<Position>> {
        let mut published = self.published.lock();
        *published += 1;
        if self.fault == Fault::FalseAck && published.is_multiple_of(Fault::EVERY) {
            return Box::pin(ready(Ok(Position::default())));
        }
        match self.fault {
            Fault::FreshId => envelope.id = MessageId(u128::from(*published)),
            Fault::Lenient => {
                envelope.room = RoomId::new(&envelope.room.as_str()[..1]);
                envelope.payload.truncate(1);
            }
            _ => {}
        }
        self.inner.publish(envelope)
    }

    fn join(&self, room: &RoomId) -> BoxFuture<'static, Result<Position>> {
        self.entrance.state.lock().just_joined.push(room.clone());
        self.inner.join(room)
    }

    fn leave(&self, room: &RoomId) -> BoxFuture<'static, Result<()>> {
        if self.fault == Fault::DeafLeave {
            return Box::pin(ready(Ok(())));
        }
        self.inner.leave(room)
    }

    fn history(&self) -> Option<&dyn History> {
        self.inner.history().map(|_| &self.history as &dyn History)
    }

    fn stats(&self) -> &Stats {
        self.inner.stats()
    }

    fn failed(&self) -> Option<Error> {
        self.inner.failed()
    }

    fn shutdown(&self) -> BoxFuture<'static, Result<()>> {
        match self.fault {
            Fault::EndlessShutdown => Box::pin(pending()),
            Fault::OpenAfterShutdown => Box::pin(ready(Ok(()))),
            _ => self.inner.shutdown(),
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty")
            .field("fault", &self.fault)
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

struct FaultyEntrance {
    fault: Fault,
    every: u64,
    inner: Arc<dyn Entrance>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: u64,
    held: Option<Message>,
    just_joined: Vec<RoomId>,
    last: Position,
    /// What history may know; only with [`Fault::OwnHistory`].
    delivered: HashSet<MessageId>,
}

impl Entrance for FaultyEntrance {
    fn deliver(&self, batch: &mut Vec<Event>) {
        let mut state = self.state.lock();
        let mut spoiled = Vec::with_capacity(batch.len() + 1);
        for event in batch.drain(..) {
            match event {
                Event::Message(message) => self.spoil(&mut state, message, &mut spoiled),
                other => spoiled.push(other),
            }
        }
        self.inner.deliver(&mut spoiled);
    }
}

impl FaultyEntrance {
    fn spoil(&self, state: &mut State, mut message: Message, out: &mut Vec<Event>) {
        state.messages += 1;
        let strikes = state.messages.is_multiple_of(self.every);
        if let Some(held) = state.held.take() {
            out.extend([Event::Message(message), Event::Message(held)]);
            return;
        }
        match self.fault {
            Fault::Drop if strikes => return,
            Fault::Duplicate if strikes => out.push(Event::Message(message.clone())),
            Fault::Swap | Fault::Diverge if strikes => {
                state.held = Some(message);
                return;
            }
            Fault::Leak if strikes => {
                let mut leaked = message.clone();
                leaked.envelope.room = RoomId::new("nobody-asked-for-this");
                out.push(Event::Message(leaked));
            }
            Fault::Corrupt => {
                let payload = &mut message.envelope.payload;
                *payload = if payload.is_empty() { Bytes::from_static(b"?") } else { payload.slice(1..) };
            }
            Fault::EarlyJoin => {
                if let Some(at) = state.just_joined.iter().position(|room| *room == message.envelope.room) {
                    state.just_joined.swap_remove(at);
                    return;
                }
            }
            Fault::StuckPosition => {
                if state.last == Position::default() {
                    state.last = message.position;
                }
                message.position = state.last;
            }
            Fault::OwnHistory => {
                state.delivered.insert(message.envelope.id);
            }
            Fault::SilentSkip => message.position.offset += state.messages / self.every,
            _ => {}
        }
        out.push(Event::Message(message));
    }
}
