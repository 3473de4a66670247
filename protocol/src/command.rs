//! What a client sends.

use std::borrow::Cow;

use serde::Deserialize;

use crate::json::{Json, lenient};
use crate::{Pairs, Publication};

/// One command: `id#1` and a request.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Command<'a> {
    /// Chosen by the client, positive, repeated in the reply; 0 (absent) only for `send` and pong.
    pub id: u32,
    /// What is asked.
    pub request: Request<'a>,
}

/// The request of a [`Command`]. Each variant names its Protobuf field number.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Request<'a> {
    /// No request at all: the empty command `{}`, which answers a ping.
    #[default]
    Pong,
    /// `connect#4`: must come first, and once.
    Connect(ConnectRequest<'a>),
    /// `subscribe#5`.
    Subscribe(SubscribeRequest<'a>),
    /// `unsubscribe#6 { channel#1 }`.
    Unsubscribe {
        /// The channel to leave.
        channel: Cow<'a, str>,
    },
    /// `publish#7`.
    Publish(PublishRequest<'a>),
    /// `presence#8 { channel#1 }`.
    Presence {
        /// The channel asked about.
        channel: Cow<'a, str>,
    },
    /// `presence_stats#9 { channel#1 }`.
    PresenceStats {
        /// The channel asked about.
        channel: Cow<'a, str>,
    },
    /// `history#10`.
    History(HistoryRequest<'a>),
    /// `ping#11`: in the schema only. A server closes the connection with 3501.
    Ping,
    /// `send#12 { data#1 }`: never answered.
    Send {
        /// The message.
        data: Option<Json<'a>>,
    },
    /// `rpc#13`.
    Rpc(RpcRequest<'a>),
    /// `refresh#14 { token#1 }`.
    Refresh {
        /// The new connection token.
        token: Cow<'a, str>,
    },
    /// `sub_refresh#15`.
    SubRefresh(SubRefreshRequest<'a>),
}

/// `connect`. Fields 7 to 9 of the schema are not used.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ConnectRequest<'a> {
    /// `token#1`: a JWT, empty for an anonymous connection.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub token: Cow<'a, str>,
    /// `data#2`: for the application.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `subs#3`: server-side subscriptions that the client wishes for, by channel.
    #[serde(borrow, deserialize_with = "lenient::pairs")]
    pub subs: Pairs<'a, SubscribeRequest<'a>>,
    /// `name#4` of the client library.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub name: Cow<'a, str>,
    /// `version#5` of the application.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub version: Cow<'a, str>,
    /// `headers#6`: emulated HTTP headers.
    #[serde(borrow, deserialize_with = "lenient::text_pairs")]
    pub headers: Pairs<'a, Cow<'a, str>>,
}

/// `subscribe`. Fields 15 to 19 of the schema are not used.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeRequest<'a> {
    /// `channel#1`: required; empty only as a value of [`ConnectRequest::subs`].
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub channel: Cow<'a, str>,
    /// `token#2`: a subscription JWT.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub token: Cow<'a, str>,
    /// `recover#3`: resume after `offset` of `epoch`.
    #[serde(deserialize_with = "lenient::value")]
    pub recover: bool,
    /// `epoch#6`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
    /// `offset#7`: the last one seen.
    #[serde(deserialize_with = "lenient::value")]
    pub offset: u64,
    /// `data#8`: for the application.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `positioned#9`: a wish to be told of loss.
    #[serde(deserialize_with = "lenient::value")]
    pub positioned: bool,
    /// `recoverable#10`: a wish to resume after a broken connection.
    #[serde(deserialize_with = "lenient::value")]
    pub recoverable: bool,
    /// `join_leave#11`: a wish to see who comes and goes.
    #[serde(deserialize_with = "lenient::value")]
    pub join_leave: bool,
    /// `delta#12`: empty or `fossil`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub delta: Cow<'a, str>,
    /// `tf#13`: a tag filter, kept as it came (`op#1 key#2 cmp#3 val#4 vals#5 nodes#6`).
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub tf: Option<Json<'a>>,
    /// `flag#14`.
    #[serde(deserialize_with = "lenient::value")]
    pub flag: SubscribeFlags,
}

/// Bits of [`SubscribeRequest::flag`]. Servers may ignore them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct SubscribeFlags(pub i64);

impl SubscribeFlags {
    /// The client understands numeric channel ids in pushes.
    pub const fn numeric_ids(self) -> bool {
        self.0 & 1 != 0
    }

    /// The client wants error 112 in place of `recovered: false`.
    pub const fn error_when_unrecoverable(self) -> bool {
        self.0 & 2 != 0
    }
}

/// `publish`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct PublishRequest<'a> {
    /// `channel#1`: required.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub channel: Cow<'a, str>,
    /// `data#2`: required; a server answers its absence with error 107.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `idempotency_key`: repeats of a publish under the same key are the same message. An addition of Manifold's, in the JSON
    /// framing alone; other servers pass over it.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub idempotency_key: Cow<'a, str>,
}

/// `history`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct HistoryRequest<'a> {
    /// `channel#1`: required.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub channel: Cow<'a, str>,
    /// `limit#7`: 0 asks for the top position alone, a negative number for as many as the server gives.
    #[serde(deserialize_with = "lenient::value")]
    pub limit: i32,
    /// `since#8`: exclusive, in either direction.
    #[serde(borrow)]
    pub since: Option<StreamPosition<'a>>,
    /// `reverse#9`: newest first.
    #[serde(deserialize_with = "lenient::value")]
    pub reverse: bool,
}

/// A place in a channel's history.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct StreamPosition<'a> {
    /// `offset#1`: see [`Publication::offset`].
    #[serde(deserialize_with = "lenient::value")]
    pub offset: u64,
    /// `epoch#2`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
}

/// `rpc`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RpcRequest<'a> {
    /// `data#1`.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `method#2`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub method: Cow<'a, str>,
}

/// `sub_refresh`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SubRefreshRequest<'a> {
    /// `channel#1`: required.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub channel: Cow<'a, str>,
    /// `token#2`: the new subscription token.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub token: Cow<'a, str>,
}

impl<'a> From<&Publication<'a>> for StreamPosition<'a> {
    fn from(publication: &Publication<'a>) -> Self {
        Self { offset: publication.offset, epoch: publication.epoch.clone() }
    }
}
