//! What happens to `hybrid` when one of its two brokers fails while messages flow: on real brokers, with real signals.
//!
//! The rule that every test checks: each acknowledged message reaches each member exactly once, in the order of its
//! publisher, whichever path it took. Whoever comes back gets what it missed, or is told that it does not.
#![cfg(feature = "hybrid")]

mod comeback;
#[path = "../conformance/inbox.rs"]
#[allow(dead_code, unreachable_pub)]
mod inbox;
mod node;
#[path = "../redis_faults/pauses.rs"]
mod pauses;

mod both;
mod deleted;
mod failover;
mod log;
mod memory;
mod outages;
mod resume;
