//! What the live path asks of the strategy that uses it.

use crate::backplane::{BoxFuture, Envelope, Position, RoomId};
use crate::envelope::View;
use crate::error::Result;

/// What a strategy makes of the live path.
pub(crate) trait Wire: Send + Sync + 'static {
    /// Appends what is published for `envelope`.
    fn encode(&self, envelope: &Envelope, out: &mut Vec<u8>);
    /// Reads what [`encode`](Self::encode) wrote, out of a room's history.
    fn read<'a>(&self, body: &'a [u8]) -> Result<View<'a>>;
    /// Takes what arrives on one lane.
    fn inbound(&self) -> Box<dyn Inbound>;
    /// Whether messages come in the order of their positions while numbering goes on. Then numbers that come again, where
    /// numbering went back, are given an epoch of this node's own.
    fn in_order(&self) -> bool {
        false
    }
    /// Awaited after an outage before publishing resumes, while publishes wait in the queue.
    fn before_resume(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Takes what arrives on a lane, in order.
pub(crate) trait Inbound: Send {
    /// A message, as [`Wire::encode`] wrote it. `wanted` says whether the room has local members.
    fn message(&mut self, room: &RoomId, position: Position, body: &[u8], wanted: bool);
    /// The room's numbering began anew with `epoch`; what the one before ended with is not known. What is missing of the new
    /// one is told next.
    fn renumbered(&mut self, _room: &RoomId, _epoch: u64) {}
    /// Offsets that did not arrive and will not; none, behind a change of epoch of which nothing is known to be missing.
    fn missing(&mut self, room: &RoomId, epoch: u64, from: u64, to: u64);
    /// The room stands here, and messages follow from here on. Told when a subscription is effective.
    fn top(&mut self, _room: &RoomId, _position: Position) {}
    /// The link broke.
    fn interrupted(&mut self) {}
    /// The link broke and is back; what was missed has been told.
    fn reconnected(&mut self);
    /// Nothing more is at hand: pass on what was collected.
    fn flush(&mut self);
}
