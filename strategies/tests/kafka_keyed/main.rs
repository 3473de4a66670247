//! The keyed strategy on a real broker: what the conformance suite cannot ask of every strategy. Consume modes, the
//! cost of a join, reserved partitions, history, and what happens when the broker dies, freezes or forgets.

// The modules of a test binary have no outside: `pub` here means "for the other modules".
#![allow(unreachable_pub)]

mod brokers;
mod consume;
mod demand;
mod faults;
mod harness;
mod latency;
mod many;
mod outages;
mod resume;
mod start;
mod topics;
