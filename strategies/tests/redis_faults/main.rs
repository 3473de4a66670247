//! What happens to `redis-pubsub` when links break and servers die: on real servers, with real signals.
//!
//! The rule that every test checks: per room, what was delivered and what was declared as a gap together are everything
//! that Redis numbered, each once and in order. Loss may happen, silence about it may not.
#![cfg(feature = "redis-pubsub")]

#[path = "../conformance/inbox.rs"]
#[allow(dead_code, unreachable_pub)]
mod inbox;
mod node;
mod pauses;

mod cluster;
mod history;
mod memory_limit;
mod order;
mod outages;
mod repair;
mod silence;
