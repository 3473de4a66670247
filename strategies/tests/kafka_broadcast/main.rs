//! What is particular to `kafka-broadcast`, on a real broker: ownership of partitions through join, leave, crash and
//! expulsion, writes that reach some partitions only, and history across the copies. What every strategy must do is in the conformance suite.
#![cfg(feature = "kafka-broadcast")]

mod apart;
mod brokers;
mod crash;
mod faults;
mod hold;
mod membership;
mod node;
mod resume;
mod stopped;
mod topics;
