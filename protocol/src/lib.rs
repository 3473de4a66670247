//! What a chat server and its clients say to each other, as bytes: the Centrifugo client protocol in its JSON
//! framing, and the RFC 6455 WebSocket frames that carry it.
//!
//! What lives here: the protocol's [types](Command) with their codes, the [`json`] codec for both directions, and the
//! [`websocket`] frame codec and handshake for both roles. What does not: sockets, timers, tasks, policy. Everything
//! is a function from bytes to values or back, so a server, a load generator, a test and a fuzzer share it.
//!
//! # Shape
//! * Decoded values borrow from the input ([`Json`], `Cow<str>`); a string is copied only when it holds escapes.
//! * A field that equals its zero value is absent, as in Protobuf, whose field numbers each type's docs give.
//! * Encoding appends to a `Vec<u8>` and allocates nothing besides that vector's growth.
//!
//! ```
//! use manifold_protocol::{Reply, ReplyBody, Request, json, websocket};
//!
//! let mut reader = websocket::Reader::server(websocket::Limits::default());
//! let mut bytes = Vec::new();
//! websocket::append_client_frame(&mut bytes, websocket::Opcode::Text, br#"{"id":1,"publish":{"channel":"a","data":7}}"#, [1, 2, 3, 4]);
//!
//! let mut input = reader.feed(&mut bytes);
//! while let Some(event) = input.next()? {
//!     let websocket::Event::Text(frame) = event else { continue };
//!     for command in json::commands(frame) {
//!         let command = command?;
//!         assert!(matches!(&command.request, Request::Publish(publish) if publish.channel == "a"));
//!         let mut out = websocket::FrameBuilder::new();
//!         json::append_reply(out.payload_mut(), &Reply { id: command.id, body: ReplyBody::Publish });
//!         assert_eq!(&out.finish(websocket::Opcode::Text)[2..], br#"{"id":1,"publish":{}}"#);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod codes;
mod command;
pub mod json;
mod publication;
mod push;
mod reply;
pub mod websocket;

pub use codes::{DisconnectCode, ErrorCode, UnsubscribeCode};
pub use command::{
    Command, ConnectRequest, HistoryRequest, Request, RpcRequest, StreamPosition, SubRefreshRequest,
    SubscribeRequest,
};
pub use command::{PublishRequest, SubscribeFlags};
pub use json::Json;
pub use publication::{ClientInfo, Publication, PublicationPrefix};
pub use push::{DisconnectPush, Push, PushBody, SubscribePush, UnsubscribePush};
pub use reply::{
    ConnectResult, Error, HistoryResult, PresenceResult, PresenceStatsResult, RefreshResult, Reply,
    ReplyBody, SubscribeResult,
};

/// A map as it stood in the frame: pairs in order of appearance. A key that appears twice is there twice.
pub type Pairs<'a, V> = Vec<(std::borrow::Cow<'a, str>, V)>;
