//! What a server sends unasked.

use std::borrow::Cow;

use serde::Deserialize;

use crate::json::{Json, lenient};
use crate::{ClientInfo, ConnectResult, DisconnectCode, Publication, RefreshResult, UnsubscribeCode};

/// A push: `id#1`, `channel#2`, and a body.
#[derive(Debug, Clone, PartialEq)]
pub struct Push<'a> {
    /// Numeric channel, only after compaction was negotiated; else 0.
    pub id: i64,
    /// The channel; empty for pushes about the connection.
    pub channel: Cow<'a, str>,
    /// What happened.
    pub body: PushBody<'a>,
}

/// The body of a [`Push`]. Each variant names its Protobuf field number.
#[derive(Debug, Clone, PartialEq)]
pub enum PushBody<'a> {
    /// `pub#4`.
    Publication(Publication<'a>),
    /// `join#5 { info#1 }`: somebody subscribed.
    Join(ClientInfo<'a>),
    /// `leave#6 { info#1 }`: somebody left.
    Leave(ClientInfo<'a>),
    /// `unsubscribe#7`: the server ended the subscription.
    Unsubscribe(UnsubscribePush<'a>),
    /// `message#8 { data#1 }`: to the connection, of no channel.
    Message {
        /// The message.
        data: Option<Json<'a>>,
    },
    /// `subscribe#9`: a server-side subscription was added.
    Subscribe(SubscribePush<'a>),
    /// `connect#10`: unidirectional transports only.
    Connect(ConnectResult<'a>),
    /// `disconnect#11`: emulated and unidirectional transports only.
    Disconnect(DisconnectPush<'a>),
    /// `refresh#12 { expires#1, ttl#2 }`: the connection's expiry changed.
    Refresh(RefreshResult<'a>),
    /// Something that this crate does not know; clients pass over it.
    Unknown,
}

/// `unsubscribe` push. SDKs need both fields, so both are always written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct UnsubscribePush<'a> {
    /// `code#2`.
    pub code: UnsubscribeCode,
    /// `reason#3`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub reason: Cow<'a, str>,
}

/// `subscribe` push.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct SubscribePush<'a> {
    /// `recoverable#1`.
    pub recoverable: bool,
    /// `epoch#4`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
    /// `offset#5`.
    pub offset: u64,
    /// `positioned#6`.
    pub positioned: bool,
    /// `data#7`.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
}

/// `disconnect` push. Both fields are always written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct DisconnectPush<'a> {
    /// `code#1`.
    pub code: DisconnectCode,
    /// `reason#2`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub reason: Cow<'a, str>,
}

impl From<UnsubscribeCode> for UnsubscribePush<'static> {
    fn from(code: UnsubscribeCode) -> Self {
        Self { code, reason: Cow::Borrowed(code.reason()) }
    }
}

impl From<DisconnectCode> for DisconnectPush<'static> {
    fn from(code: DisconnectCode) -> Self {
        Self { code, reason: Cow::Borrowed(code.reason()) }
    }
}
