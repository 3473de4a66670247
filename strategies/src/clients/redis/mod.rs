//! A small Redis client: addresses, RESP3, connections, and who serves which slot.
//!
//! Why not a ready-made client: a chat node needs three things of its connection that the general ones give away.
//! - *One order of messages and replies.* Under RESP3 a connection may subscribe **and** ask. A reply then stands
//!   exactly where the server wrote it among the pushed messages, so "what is the room's top?" has an exact answer
//!   without a grace period. General clients hand replies and pushes out through different doors.
//! - *Memory bounded by TCP.* Messages go from the socket's buffer to the node's entrance in one step. A slow node stops
//!   reading, Redis' own output limit cuts it off, and the gap is found and declared. General clients put an unbounded
//!   queue in between.
//! - *An outage that shows.* Publishing resumes only after the subscriptions are back. Clients that reconnect
//!   by themselves send their backlog before the other side listens again.
//!
//! What does not live here: rooms, sequences, or any policy of a strategy.

pub mod address;
pub mod connection;
pub mod resp;
pub mod topology;

pub use address::{Address, Kind};
pub use connection::Connection;
pub use resp::Value;
