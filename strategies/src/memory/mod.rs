//! The reference: one node, no broker. It is the floor that every other strategy is compared with, and the contract
//! at its plainest.
//!
//! A publish is delivered inside the call, under the room's lock, so offsets, history and deliveries have one order. A room
//! keeps its numbering and its last messages for `history_minutes` after its last message and after its last member, whichever
//! comes later; after that, or once all rooms together cost too much, it is forgotten, and starts a new epoch. What became
//! too old is dropped by whatever call comes next; no thread or timer waits for it.

mod node;
mod settings;
#[cfg(test)]
mod tests;

use std::future::ready;
use std::sync::Arc;

use crate::backplane::Backplane;
use crate::error::Result;
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::strategy::{Needs, Start, Strategy};

pub use node::Memory;
pub use settings::Settings;

/// What the memory backplane promises with its default settings.
pub const GUARANTEES: Guarantees = Guarantees {
    delivery: Delivery::AtMostOnce,
    ordering: Ordering::PerRoom,
    ack: Ack::Node,
    interest: Interest::Rooms,
    replay: ReplayKind::Memory,
    positions: Positions::Dense,
    idempotent_retry: true,
    spans_nodes: false,
    whole_rooms: true,
};

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "memory",
    summary: "One node's memory, no broker: the reference and the floor",
    needs: Needs { kafka: false, redis: false },
    counter_example: false,
    variants: &[],
    settings: |table| Settings::parse(table)?.effective(),
    guarantees: |table| Ok(Settings::parse(table)?.guarantees()),
    connect: |start| Box::pin(ready(connect(start))),
};

fn connect(start: Start) -> Result<Arc<dyn Backplane>> {
    let settings = Settings::parse(&start.settings)?;
    Ok(Arc::new(Memory::start(start.entrance, settings)?))
}
