//! What a server answers.

use std::borrow::Cow;

use serde::Deserialize;

use crate::json::{Json, lenient};
use crate::{ClientInfo, ErrorCode, Pairs, Publication, Push};

/// One reply: `id#1` of the command (0, absent, in pushes and pings) and a body.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reply<'a> {
    /// The command's id.
    pub id: u32,
    /// The answer.
    pub body: ReplyBody<'a>,
}

/// The body of a [`Reply`]. Each variant names its Protobuf field number. A result is always written, if only `{}`.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ReplyBody<'a> {
    /// Nothing: the empty reply `{}` is the server's ping.
    #[default]
    Ping,
    /// `error#2`.
    Error(Error<'a>),
    /// `push#4`.
    Push(Push<'a>),
    /// `connect#5`.
    Connect(ConnectResult<'a>),
    /// `subscribe#6`.
    Subscribe(SubscribeResult<'a>),
    /// `unsubscribe#7`.
    Unsubscribe,
    /// `publish#8`.
    Publish,
    /// `presence#9`.
    Presence(PresenceResult<'a>),
    /// `presence_stats#10`.
    PresenceStats(PresenceStatsResult),
    /// `history#11`.
    History(HistoryResult<'a>),
    /// `ping#12`: in the schema only, never sent.
    PingResult,
    /// `rpc#13 { data#1 }`.
    Rpc {
        /// The method's result.
        data: Option<Json<'a>>,
    },
    /// `refresh#14`.
    Refresh(RefreshResult<'a>),
    /// `sub_refresh#15 { expires#1, ttl#2 }`.
    SubRefresh {
        /// Whether the subscription ends unless refreshed.
        expires: bool,
        /// When, in seconds from now.
        ttl: u32,
    },
}

/// A failed command.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Error<'a> {
    /// `code#1`.
    pub code: ErrorCode,
    /// `message#2`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub message: Cow<'a, str>,
    /// `temporary#3`: the client tries again by itself.
    #[serde(deserialize_with = "lenient::value")]
    pub temporary: bool,
}

impl From<ErrorCode> for Error<'static> {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: Cow::Borrowed(code.message()), temporary: code.temporary() }
    }
}

/// Result of `connect`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ConnectResult<'a> {
    /// `client#1`: a new UUID per connection.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub client: Cow<'a, str>,
    /// `version#2` of the server.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub version: Cow<'a, str>,
    /// `expires#3`: the client must refresh its token.
    #[serde(deserialize_with = "lenient::value")]
    pub expires: bool,
    /// `ttl#4`: seconds until then.
    #[serde(deserialize_with = "lenient::value")]
    pub ttl: u32,
    /// `data#5`: for the application.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `subs#6`: server-side subscriptions by channel.
    #[serde(borrow, deserialize_with = "lenient::pairs")]
    pub subs: Pairs<'a, SubscribeResult<'a>>,
    /// `ping#7`: seconds between the server's pings; 0 for none.
    #[serde(deserialize_with = "lenient::value")]
    pub ping: u32,
    /// `pong#8`: the server expects its pings answered.
    #[serde(deserialize_with = "lenient::value")]
    pub pong: bool,
    /// `session#9`: emulated and unidirectional transports.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub session: Cow<'a, str>,
    /// `node#10`: emulated transports.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub node: Cow<'a, str>,
    /// `time#11`: the server's clock, milliseconds since the Unix epoch.
    #[serde(deserialize_with = "lenient::value")]
    pub time: i64,
}

/// Result of `subscribe`. Fields 15 to 19 of the schema are not used.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SubscribeResult<'a> {
    /// `expires#1`.
    #[serde(deserialize_with = "lenient::value")]
    pub expires: bool,
    /// `ttl#2`, seconds.
    #[serde(deserialize_with = "lenient::value")]
    pub ttl: u32,
    /// `recoverable#3`.
    #[serde(deserialize_with = "lenient::value")]
    pub recoverable: bool,
    /// `epoch#6`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
    /// `publications#7`: what was missed, ascending.
    #[serde(borrow, deserialize_with = "lenient::list")]
    pub publications: Vec<Publication<'a>>,
    /// `recovered#8`.
    #[serde(deserialize_with = "lenient::value")]
    pub recovered: bool,
    /// `offset#9`.
    #[serde(deserialize_with = "lenient::value")]
    pub offset: u64,
    /// `positioned#10`.
    #[serde(deserialize_with = "lenient::value")]
    pub positioned: bool,
    /// `data#11`: for the application.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `was_recovering#12`.
    #[serde(deserialize_with = "lenient::value")]
    pub was_recovering: bool,
    /// `delta#13`.
    #[serde(deserialize_with = "lenient::value")]
    pub delta: bool,
    /// `id#14`: numeric channel id.
    #[serde(deserialize_with = "lenient::value")]
    pub id: i64,
}

/// Result of `presence`: `presence#1`, always written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct PresenceResult<'a> {
    /// Who is there, by client id.
    #[serde(borrow, deserialize_with = "lenient::pairs")]
    pub presence: Pairs<'a, ClientInfo<'a>>,
}

/// Result of `presence_stats`. Both fields are always written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct PresenceStatsResult {
    /// `num_clients#1`.
    #[serde(deserialize_with = "lenient::value")]
    pub num_clients: u32,
    /// `num_users#2`: distinct user ids.
    #[serde(deserialize_with = "lenient::value")]
    pub num_users: u32,
}

/// Result of `history`. All fields are always written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct HistoryResult<'a> {
    /// `publications#1`.
    #[serde(borrow, deserialize_with = "lenient::list")]
    pub publications: Vec<Publication<'a>>,
    /// `epoch#2`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
    /// `offset#3`: the current top.
    #[serde(deserialize_with = "lenient::value")]
    pub offset: u64,
}

/// Result of `refresh`, and body of the `refresh` push (where `expires#1`, `ttl#2`).
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct RefreshResult<'a> {
    /// `client#1`: unset by servers.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub client: Cow<'a, str>,
    /// `version#2`: unset by servers.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub version: Cow<'a, str>,
    /// `expires#3`.
    #[serde(deserialize_with = "lenient::value")]
    pub expires: bool,
    /// `ttl#4`, seconds.
    #[serde(deserialize_with = "lenient::value")]
    pub ttl: u32,
}
