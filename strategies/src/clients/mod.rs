//! Thin wrappers over the brokers' client libraries: connecting, error mapping, administration, lag.
//!
//! What does not live here: rooms, envelopes, strategies.

#[cfg(any(feature = "kafka-broadcast", feature = "kafka-keyed", feature = "hybrid"))]
pub mod kafka;
#[cfg(any(feature = "redis-pubsub", feature = "hybrid"))]
pub mod redis;
