//! What a lane's publisher is asked for, and how replies are read.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::lanes::Lane;
use super::sequence::split_head;
use crate::backplane::{Envelope, Position};
use crate::clients::redis::Value;
use crate::clients::redis::connection::refused;
use crate::error::{Error, ErrorKind, Result};

/// Called with the outcome of a publish.
pub(crate) type Done = Box<dyn FnOnce(Envelope, Result<Position>) + Send>;

/// A publish on its way.
pub(crate) struct Publish {
    pub(crate) envelope: Envelope,
    pub(crate) operation: Operation,
    /// When to give up.
    pub(crate) until: Instant,
    pub(crate) done: Done,
}

/// What to do for a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "hybrid"), allow(dead_code))]
pub(crate) enum Operation {
    /// Assign the next position and publish, in one step.
    Publish,
    /// Only assign the next position.
    Reserve,
    /// Publish under a position that was reserved.
    Announce(Position),
}

impl Publish {
    /// What it counts against the queue's bound: roughly its size on the heap.
    pub(crate) fn bytes(&self) -> usize {
        256 + self.envelope.room.as_str().len() + self.envelope.info.len() + self.envelope.payload.len()
    }
}

/// What the task is asked for.
pub(crate) enum Work {
    Publish(Publish),
    /// Tell when everything before has its outcome.
    Flush(oneshot::Sender<()>),
    /// Slots now belong to lane `to`: hand it what was queued before and has no outcome.
    HandOver {
        to: Arc<Lane>,
        left: oneshot::Sender<Backlog>,
    },
    /// Slots come from another lane: what it hands over goes first.
    Inherit(oneshot::Receiver<Backlog>),
    /// The lane has no slots any more, and nothing comes after this: end when everything before has its outcome.
    Retire,
}

/// What is to be sent, in order. True for what was sent before and may have arrived.
pub(crate) type Backlog = VecDeque<(Work, bool)>;

/// Resolves with what another lane hands over, or with nothing if that takes too long.
pub(super) async fn inherited(inheriting: &mut Option<(oneshot::Receiver<Backlog>, Instant)>) -> Backlog {
    match inheriting {
        Some((left, until)) => match timeout_at(*until, left).await {
            Ok(Ok(backlog)) => backlog,
            _ => VecDeque::new(),
        },
        None => std::future::pending().await,
    }
}

pub(super) fn outcome(reply: &Value) -> Result<Position> {
    match reply {
        Value::Text(head) => split_head(head)
            .map(|(position, _)| position)
            .ok_or_else(|| Error::new(ErrorKind::Corrupt, "publish", "Redis returned no position")),
        Value::Error(message) => Err(refused(message)),
        _ => Err(Error::new(ErrorKind::Corrupt, "publish", "Redis returned no position")),
    }
}

/// Refusals that say: not here, or nothing at all for now.
pub(super) fn says_elsewhere(message: &[u8]) -> bool {
    let codes: [&[u8]; 8] = [
        b"NOSCRIPT",
        b"MOVED",
        b"CLUSTERDOWN",
        b"READONLY",
        b"LOADING",
        b"MASTERDOWN",
        b"NOREPLICAS",
        b"UNBLOCKED",
    ];
    codes.contains(&code(message))
}

/// Refusals because the slot is on its way to another server: its keys are partly here, partly there. Nothing happened, and
/// nothing will until the slot has arrived, which may take long. The server's other slots are none the worse.
pub(super) fn says_moving(message: &[u8]) -> bool {
    matches!(code(message), b"ASK" | b"TRYAGAIN")
}

fn code(message: &[u8]) -> &[u8] {
    message.split(|byte| *byte == b' ').next().unwrap_or_default()
}

pub(super) fn given_up(sent: bool) -> Error {
    match sent {
        true => Error::new(
            ErrorKind::Timeout,
            "publish",
            "the link to Redis broke before it answered; the message may have been delivered",
        ),
        false => Error::new(
            ErrorKind::Unreachable,
            "publish",
            "no link to Redis, or it does not answer; the message was not sent",
        ),
    }
}
