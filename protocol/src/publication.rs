//! What subscribers receive, and the encoder for the one push that runs per message.

use std::borrow::Cow;

use serde::Deserialize;

use crate::Pairs;
use crate::json::{self, Json, lenient};

/// A message in a channel. Fields 11 to 13, 15 and 16 of the schema are not used.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct Publication<'a> {
    /// `data#4`.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub data: Option<Json<'a>>,
    /// `info#5`: who published it; absent when no client did.
    #[serde(borrow)]
    pub info: Option<ClientInfo<'a>>,
    /// `offset#6`: counts up by one within an epoch from 1; 0 where the channel has no positions.
    #[serde(deserialize_with = "lenient::value")]
    pub offset: u64,
    /// `tags#7`.
    #[serde(borrow, deserialize_with = "lenient::text_pairs")]
    pub tags: Pairs<'a, Cow<'a, str>>,
    /// `delta#8`: `data` is a difference to the publication before.
    #[serde(deserialize_with = "lenient::value")]
    pub delta: bool,
    /// `time#9`: milliseconds since the Unix epoch.
    #[serde(deserialize_with = "lenient::value")]
    pub time: i64,
    /// `channel#10`: set in wildcard subscriptions alone.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub channel: Cow<'a, str>,
    /// `epoch#14`.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub epoch: Cow<'a, str>,
}

/// A connection, as others see it. `user` and `client` are always written.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default)]
pub struct ClientInfo<'a> {
    /// `user#1`: empty for an anonymous connection.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub user: Cow<'a, str>,
    /// `client#2`: the connection's id.
    #[serde(borrow, deserialize_with = "lenient::text")]
    pub client: Cow<'a, str>,
    /// `conn_info#3`: from the connection token.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub conn_info: Option<Json<'a>>,
    /// `chan_info#4`: from the subscription token.
    #[serde(borrow, deserialize_with = "lenient::present")]
    pub chan_info: Option<Json<'a>>,
}

/// The constant front of a channel's publication pushes, encoded once per channel:
/// `{"push":{"channel":"…","pub":{"data":`.
///
/// ```
/// # use manifold_protocol::PublicationPrefix;
/// let prefix = PublicationPrefix::new("chat:a");
/// let mut out = Vec::new();
/// prefix.append(&mut out, b"[1]", br#"{"user":"","client":"ca06"}"#, 7, "");
/// assert_eq!(out, br#"{"push":{"channel":"chat:a","pub":{"data":[1],"info":{"user":"","client":"ca06"},"offset":7}}}"#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicationPrefix(Box<[u8]>);

impl PublicationPrefix {
    /// Encodes the front for `channel`.
    pub fn new(channel: &str) -> Self {
        let mut bytes = Vec::with_capacity(channel.len() + 40);
        bytes.extend_from_slice(b"{\"push\":{\"channel\":");
        json::append_string(&mut bytes, channel);
        bytes.extend_from_slice(b",\"pub\":{\"data\":");
        Self(bytes.into_boxed_slice())
    }

    /// Bytes that [`append`](Self::append) adds at most for a payload and info of these sizes and a short epoch.
    pub fn len_max(&self, data_bytes: usize, info_bytes: usize) -> usize {
        self.0.len() + data_bytes + info_bytes + 80
    }

    /// Appends the whole push.
    ///
    /// `data` and `info` must be JSON texts (`info` an encoded [`ClientInfo`], or empty for none): they go out as
    /// they are, save raw newlines, which would break the framing. `offset` 0 and an empty `epoch` are omitted.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>, data: &[u8], info: &[u8], offset: u64, epoch: &str) {
        out.reserve(self.len_max(data.len(), info.len()));
        out.extend_from_slice(&self.0);
        json::append_raw(out, data);
        if !info.is_empty() {
            out.extend_from_slice(b",\"info\":");
            json::append_raw(out, info);
        }
        if offset != 0 {
            out.extend_from_slice(b",\"offset\":");
            json::append_u64(out, offset);
        }
        if !epoch.is_empty() {
            out.extend_from_slice(b",\"epoch\":");
            json::append_string(out, epoch);
        }
        out.extend_from_slice(b"}}}");
    }
}
