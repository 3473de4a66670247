//! Thin wrappers over librdkafka: what every Kafka strategy needs, and nothing that only one of them does.
//!
//! - [`connection`]: addresses, measured client settings, extra properties (TLS, SASL).
//! - [`cluster`]: topic administration and offset queries, through a client of its own.
//! - [`producer`]: ordered, non-blocking sends with an acknowledgement per record.
//! - [`consumer`]: one dedicated thread that reads explicitly assigned partitions and hands over batches.
//! - [`group`]: membership in a consumer group, with offsets named by the strategy.
//! - [`health`]: lag and link state.
//! - [`incarnation`]: telling a topic from one that was created anew under its name.
//! - `progress`: noticing that a consumer stands still although the log goes on.
//! - [`repair`]: reading on where the log no longer holds the next offset.
//! - [`mod@slice`]: reading a bounded part of one partition, once.
//! - [`fault`]: the mapping of librdkafka's errors to [`Error`](crate::Error).
//!
//! What does not live here: partitioning, envelopes, rooms.

pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod fault;
pub mod group;
pub mod health;
pub mod incarnation;
pub mod producer;
mod progress;
pub mod repair;
pub mod slice;

pub use cluster::{Cluster, TopicSpec};
pub use connection::{
    ClientProperties, Compression, Connection, ConsumerSettings, GroupSettings, ProducerSettings,
};
pub use consumer::{Consumer, Link, Record, RecordSink};
pub use group::GroupHook;
pub use incarnation::Incarnations;
pub use producer::{AckSink, Producer, Written};
pub use repair::{ReadTo, Resume};
pub use slice::{Slice, SliceEnd, SliceSink, Slices};
