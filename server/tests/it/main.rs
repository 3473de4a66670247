//! The server over real sockets, with tokio-tungstenite at the other end.

mod basics;
mod support;
