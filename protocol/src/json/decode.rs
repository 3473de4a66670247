//! From a text message to commands or replies.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use super::{Json, lenient};
use crate::{ClientInfo, Command, Push, PushBody, Reply, ReplyBody, Request};

/// Why a frame is not a sequence of commands or replies. A server closes with
/// [`DisconnectCode::BAD_REQUEST`](crate::DisconnectCode::BAD_REQUEST).
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// There was nothing in the frame, or nothing but white space.
    #[error("the frame holds no message")]
    Empty,
    /// It is no JSON, or not of the protocol's shape.
    #[error("malformed message: {0}")]
    Malformed(#[source] serde_json::Error),
}

/// The messages of one frame, decoded one at a time. Ends after the first error.
#[derive(Debug, Clone)]
pub struct Messages<'a, T> {
    rest: Option<&'a str>,
    found: bool,
    kind: PhantomData<fn() -> T>,
}

/// Decodes the commands of a client's frame. A frame without any yields [`DecodeError::Empty`].
pub fn commands(frame: &str) -> Messages<'_, Command<'_>> {
    Messages { rest: Some(frame), found: false, kind: PhantomData }
}

/// Decodes the replies of a server's frame. A frame without any yields [`DecodeError::Empty`].
pub fn replies(frame: &str) -> Messages<'_, Reply<'_>> {
    Messages { rest: Some(frame), found: false, kind: PhantomData }
}

impl<'a, T: Deserialize<'a>> Iterator for Messages<'a, T> {
    type Item = Result<T, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(rest) = self.rest {
            let line = match memchr::memchr(b'\n', rest.as_bytes()) {
                Some(end) => {
                    self.rest = Some(&rest[end + 1..]);
                    &rest[..end]
                }
                None => {
                    self.rest = None;
                    rest
                }
            };
            if line.trim_ascii().is_empty() {
                continue;
            }
            self.found = true;
            let decoded = serde_json::from_str(line).map_err(DecodeError::Malformed);
            if decoded.is_err() {
                self.rest = None;
            }
            return Some(decoded);
        }
        if std::mem::replace(&mut self.found, true) { None } else { Some(Err(DecodeError::Empty)) }
    }
}

/// A message with nothing but a channel.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OfChannel<'a> {
    #[serde(borrow, deserialize_with = "lenient::text")]
    channel: Cow<'a, str>,
}

/// A message with nothing but data.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OfData<'a> {
    #[serde(borrow, deserialize_with = "lenient::present")]
    data: Option<Json<'a>>,
}

/// A message with nothing but a token.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OfToken<'a> {
    #[serde(borrow, deserialize_with = "lenient::text")]
    token: Cow<'a, str>,
}

/// A message with nothing but a client's info.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OfInfo<'a> {
    #[serde(borrow, deserialize_with = "lenient::value")]
    info: ClientInfo<'a>,
}

/// An expiry.
#[derive(serde::Deserialize, Default)]
#[serde(default)]
struct OfExpiry {
    #[serde(deserialize_with = "lenient::value")]
    expires: bool,
    #[serde(deserialize_with = "lenient::value")]
    ttl: u32,
}

/// A body: an object or `null`. Derived decoders alone would take an array of fields, too.
struct Body<T>(Option<T>);

struct BodyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BodyVisitor<T> {
    type Value = Body<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Body<T>, E> {
        Ok(Body(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Body<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(|body| Body(Some(body)))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Body<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BodyVisitor(PhantomData))
    }
}

/// Reads the value of a key whose `null` means "absent" and builds the variant from it.
fn variant<'de, A, T, V>(map: &mut A, build: impl FnOnce(T) -> V) -> Result<Option<V>, A::Error>
where
    A: MapAccess<'de>,
    T: Deserialize<'de>,
{
    Ok(map.next_value::<Body<T>>()?.0.map(build))
}

/// Puts `new` into a slot that may be filled once: a message has exactly one body.
fn fill<V, E: serde::de::Error>(slot: &mut Option<V>, new: Option<V>) -> Result<(), E> {
    if new.is_some() && slot.is_some() {
        return Err(E::custom("more than one body in a message"));
    }
    if new.is_some() {
        *slot = new;
    }
    Ok(())
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Id,
    Error,
    Push,
    Connect,
    Subscribe,
    Unsubscribe,
    Publish,
    Presence,
    PresenceStats,
    History,
    Ping,
    Send,
    Rpc,
    Refresh,
    SubRefresh,
    #[serde(other)]
    Unknown,
}

struct CommandVisitor;

impl<'de> Visitor<'de> for CommandVisitor {
    type Value = Command<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a command")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Command<'de>, A::Error> {
        let mut id = 0;
        let mut request = None;
        let mut unknown = false;
        while let Some(key) = map.next_key::<Key>()? {
            let map = &mut map;
            let new = match key {
                Key::Id => {
                    id = map.next_value::<Option<u32>>()?.unwrap_or_default();
                    None
                }
                Key::Connect => variant(map, Request::Connect)?,
                Key::Subscribe => variant(map, Request::Subscribe)?,
                Key::Unsubscribe => {
                    variant(map, |of: OfChannel<'de>| Request::Unsubscribe { channel: of.channel })?
                }
                Key::Publish => variant(map, Request::Publish)?,
                Key::Presence => {
                    variant(map, |of: OfChannel<'de>| Request::Presence { channel: of.channel })?
                }
                Key::PresenceStats => {
                    variant(map, |of: OfChannel<'de>| Request::PresenceStats { channel: of.channel })?
                }
                Key::History => variant(map, Request::History)?,
                Key::Ping => variant(map, |_: IgnoredAny| Request::Ping)?,
                Key::Send => variant(map, |of: OfData<'de>| Request::Send { data: of.data })?,
                Key::Rpc => variant(map, Request::Rpc)?,
                Key::Refresh => variant(map, |of: OfToken<'de>| Request::Refresh { token: of.token })?,
                Key::SubRefresh => variant(map, Request::SubRefresh)?,
                Key::Error | Key::Push | Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    unknown = true;
                    None
                }
            };
            fill(&mut request, new)?;
        }
        match request {
            // `{}` alone is a pong; an id or a foreign key without a request is a command that nobody knows.
            None if id != 0 || unknown => Err(A::Error::custom("a command without a known request")),
            request => Ok(Command { id, request: request.unwrap_or_default() }),
        }
    }
}

struct ReplyVisitor;

impl<'de> Visitor<'de> for ReplyVisitor {
    type Value = Reply<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reply")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Reply<'de>, A::Error> {
        let mut id = 0;
        let mut body = None;
        while let Some(key) = map.next_key::<Key>()? {
            let map = &mut map;
            let new = match key {
                Key::Id => {
                    id = map.next_value::<Option<u32>>()?.unwrap_or_default();
                    None
                }
                Key::Error => variant(map, ReplyBody::Error)?,
                Key::Push => variant(map, ReplyBody::Push)?,
                Key::Connect => variant(map, ReplyBody::Connect)?,
                Key::Subscribe => variant(map, ReplyBody::Subscribe)?,
                Key::Unsubscribe => variant(map, |_: IgnoredAny| ReplyBody::Unsubscribe)?,
                Key::Publish => variant(map, |_: IgnoredAny| ReplyBody::Publish)?,
                Key::Presence => variant(map, ReplyBody::Presence)?,
                Key::PresenceStats => variant(map, ReplyBody::PresenceStats)?,
                Key::History => variant(map, ReplyBody::History)?,
                Key::Ping => variant(map, |_: IgnoredAny| ReplyBody::PingResult)?,
                Key::Rpc => variant(map, |of: OfData<'de>| ReplyBody::Rpc { data: of.data })?,
                Key::Refresh => variant(map, ReplyBody::Refresh)?,
                Key::SubRefresh => {
                    variant(map, |of: OfExpiry| ReplyBody::SubRefresh { expires: of.expires, ttl: of.ttl })?
                }
                Key::Send | Key::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            fill(&mut body, new)?;
        }
        Ok(Reply { id, body: body.unwrap_or_default() })
    }
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum PushKey {
    Id,
    Channel,
    Pub,
    Join,
    Leave,
    Unsubscribe,
    Message,
    Subscribe,
    Connect,
    Disconnect,
    Refresh,
    #[serde(other)]
    Unknown,
}

struct PushVisitor;

impl<'de> Visitor<'de> for PushVisitor {
    type Value = Push<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a push")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Push<'de>, A::Error> {
        let mut id = 0;
        let mut channel = Cow::Borrowed("");
        let mut body = None;
        while let Some(key) = map.next_key::<PushKey>()? {
            let map = &mut map;
            let new = match key {
                PushKey::Id => {
                    id = map.next_value::<Option<i64>>()?.unwrap_or_default();
                    None
                }
                PushKey::Channel => {
                    channel = map.next_value::<lenient::Text<'de>>()?.0;
                    None
                }
                PushKey::Pub => variant(map, PushBody::Publication)?,
                PushKey::Join => variant(map, |of: OfInfo<'de>| PushBody::Join(of.info))?,
                PushKey::Leave => variant(map, |of: OfInfo<'de>| PushBody::Leave(of.info))?,
                PushKey::Unsubscribe => variant(map, PushBody::Unsubscribe)?,
                PushKey::Message => variant(map, |of: OfData<'de>| PushBody::Message { data: of.data })?,
                PushKey::Subscribe => variant(map, PushBody::Subscribe)?,
                PushKey::Connect => variant(map, PushBody::Connect)?,
                PushKey::Disconnect => variant(map, PushBody::Disconnect)?,
                PushKey::Refresh => variant(map, PushBody::Refresh)?,
                PushKey::Unknown => {
                    map.next_value::<IgnoredAny>()?;
                    None
                }
            };
            fill(&mut body, new)?;
        }
        Ok(Push { id, channel, body: body.unwrap_or(PushBody::Unknown) })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Command<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(CommandVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Reply<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ReplyVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Push<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PushVisitor)
    }
}
