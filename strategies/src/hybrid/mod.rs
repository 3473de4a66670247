//! Redis carries the live message, Kafka holds the durable log, one sequence joins them (plan 4).
//!
//! placeholder
mod line;
mod log;
mod merge;
mod node;
mod paths;
pub mod settings;

use tokio::sync::oneshot;

pub use settings::{First, Settings};

use crate::backplane::Position;
use crate::error::Result;
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::strategy::{Needs, Strategy, Variant};

/// Tells a publisher.
type Outcome = oneshot::Sender<Result<Position>>;

/// What the strategy promises, whichever path comes first.
pub const GUARANTEES: Guarantees = Guarantees {
    delivery: Delivery::AtLeastOnceDeduplicated,
    ordering: Ordering::PerRoom,
    ack: Ack::Log,
    interest: Interest::Everything,
    replay: ReplayKind::None,
    positions: Positions::Dense,
    idempotent_retry: true,
    spans_nodes: true,
    whole_rooms: true,
};

/// The registry line.
pub const STRATEGY: Strategy = Strategy {
    name: "hybrid",
    summary: "Redis for the live message, Kafka for the log, one sequence: Redis' speed, Kafka's safety",
    needs: Needs { kafka: true, redis: true },
    counter_example: false,
    variants: &[Variant { name: "durable-first", settings: "first = \"durable\"" }],
    settings: |table| Settings::parse(table)?.effective(),
    guarantees: |table| Settings::parse(table).map(|_| GUARANTEES),
    connect: |start| {
        Box::pin(async move {
            let settings = Settings::parse(&start.settings)?;
            node::connect(start, settings).await
        })
    },
};
