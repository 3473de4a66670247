//! The chat server: WebSocket clients on one side, a pluggable backplane on the other.
//!
//! A tour, from the socket inwards:
//!
//! - `http`: the accept loop, the server API, `/health`, `/metrics`, `/info`, the chat page, and the WebSocket upgrade;
//! - `connection`: one small task per client, which reads frames and runs commands;
//! - `session` and `outbox`: the same client as everybody else sees it, a socket that whoever has something writes to; `spare`
//!   are the buffers that outboxes take turns with;
//! - `hub`: rooms, their members, the interest that they cause, and the fan-out, which is the one
//!   [`Entrance`](manifold_strategies::Entrance) of messages; it also holds messages back for members that come back;
//! - `history`: what a room carried, for those members, for those who ask, and for the server API;
//! - `presence`: who is in which room, on all nodes;
//! - `sweep`: pings and deadlines of all sessions;
//! - [`runtime`]: threads that write what they have kept back before they pause;
//! - [`config`], `metrics`, [`Node`], which ties them together, [`Server`], which runs it, and [`LocalNode`], which runs it without
//!   a listening socket.
//!
//! Nothing here knows a broker: that is the business of `manifold-strategies`.

pub mod config;

mod clock;
mod connection;
mod epoch;
mod frame;
mod history;
mod http;
mod hub;
mod local;
mod logging;
mod metrics;
mod node;
mod outbox;
mod presence;
mod publish;
mod rooms;
mod runtime;
mod server;
mod session;
mod spare;
mod sweep;

pub use local::LocalNode;
pub use logging::init as init_logging;
pub use node::Node;
pub use runtime::runtime;
pub use server::{Server, ServerError};
