//! The audit: was every message delivered to every member, once, in order, and to nobody else?
//!
//! What lives here: the streaming account of deliveries, its settlement at the end, and the comparison of room
//! orders. Pure: no sockets, no clocks. What does not: who was a member when, which the engine knows.
//!
//! Memory: 16 bytes per (member, sender), 24 per membership for the room's order, and 8 per stretch of missing
//! messages or, once a membership has ended, of received ones, up to 8 million stretches a thread; 32 per message out of
//! its place, up to a million a thread. Nothing is sampled.

mod ledger;
mod order;
mod ranges;
mod settle;
mod window;

pub use ledger::{Closing, Ledger, Tally};
pub use order::{OrderBook, OrderTrack, Stretch};
pub use ranges::Ranges;
pub use settle::{Example, Sent, Settled, Terms, settle};
pub use window::Arrived;

#[cfg(test)]
mod histories;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;
