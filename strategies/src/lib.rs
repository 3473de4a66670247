//! Every way in which Manifold carries messages between its nodes.
//!
//! [`Backplane`] is the contract, [`Guarantees`] what an implementation promises, [`REGISTRY`] the list of them.
//! Nothing outside this crate names a broker's client library.

pub mod backplane;
pub mod clients;
pub mod dedup;
pub mod envelope;
pub mod error;
pub mod faulty;
pub mod guarantees;
mod hash;
#[cfg(feature = "hybrid")]
pub mod hybrid;
#[cfg(feature = "kafka-broadcast")]
pub mod kafka_broadcast;
#[cfg(any(feature = "kafka-broadcast", feature = "kafka-keyed"))]
mod kafka_history;
#[cfg(feature = "kafka-keyed")]
pub mod kafka_keyed;
pub mod memory;
#[cfg(feature = "redis-pubsub")]
pub mod redis_pubsub;
pub mod ring;
pub mod stats;
pub mod strategy;

pub use backplane::{
    Backplane, BoxFuture, Entrance, Envelope, Event, History, Message, MessageId, Page, PageQuery, Position,
    Resumed, RoomId,
};
pub use error::{Error, ErrorKind, Result};
pub use guarantees::Guarantees;
pub use stats::Stats;
pub use strategy::{Needs, Start, Strategy, Variant};

/// Every strategy, by the name given on the command line.
pub static REGISTRY: &[Strategy] = &[
    memory::STRATEGY,
    #[cfg(feature = "kafka-broadcast")]
    kafka_broadcast::STRATEGY,
    #[cfg(feature = "kafka-keyed")]
    kafka_keyed::STRATEGY,
    #[cfg(feature = "kafka-keyed")]
    kafka_keyed::SHARED_GROUP,
    #[cfg(feature = "redis-pubsub")]
    redis_pubsub::STRATEGY,
    #[cfg(feature = "hybrid")]
    hybrid::STRATEGY,
];

/// Finds a strategy by name.
pub fn find(name: &str) -> Option<&'static Strategy> {
    REGISTRY.iter().find(|strategy| strategy.name == name)
}
