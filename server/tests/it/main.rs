//! The server over real sockets, with tokio-tungstenite at the other end.

#![expect(clippy::unwrap_used, reason = "a failed expectation fails the test")]

mod api;
mod basics;
mod busy;
mod comebacks;
mod command_line;
mod commands;
mod descriptors;
mod drain;
mod faults;
mod frames;
mod giant_room;
mod history;
mod interest;
mod limits;
mod neighbours;
mod origin;
mod pings;
mod positions;
mod presence;
mod presence_churn;
mod presence_giant;
mod readme;
mod recovery;
mod recovery_refused;
mod slow_consumer;
mod standing;
mod support;
mod test_backplane;
mod test_history;
#[cfg(feature = "redis-pubsub")]
mod zombie;
