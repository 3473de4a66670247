//! Drives chat servers with an open-loop load, audits every delivery, and says what it found.
//!
//! A black box: it speaks the client protocol and reads the servers' info and metrics endpoints. It knows no strategy.

pub mod audit;
pub mod bench;
pub mod campaign;
pub mod claims;
pub mod cli;
pub mod diff;
pub mod engine;
pub mod latency;
pub mod null_server;
pub mod probe;
pub mod record;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod soak;
pub mod stats;
pub mod surroundings;
