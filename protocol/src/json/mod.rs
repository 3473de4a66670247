//! The JSON framing: a WebSocket text message holds one or more JSON objects separated by newlines, in both
//! directions. Application data is embedded JSON and passes through verbatim, save raw newlines.
//!
//! Decode with [`commands`] (server) and [`replies`] (client); encode with [`append_command`], [`append_reply`] and,
//! for the push that runs per message, [`PublicationPrefix`](crate::PublicationPrefix). To put several objects into one
//! frame, push a `b'\n'` between them.

mod decode;
mod encode;
pub(crate) mod lenient;
mod object;

use std::fmt;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

pub use decode::{DecodeError, Messages, commands, replies};
pub use encode::{append_client_info, append_command, append_history_result, append_push, append_reply};
pub use object::{append_raw, append_string, append_u64};

/// A JSON text, as it stood in the frame or as the application gave it. Never parsed further by this crate.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// The literal `null`, which is not the same as absent data.
    pub const NULL: Json<'static> = Json("null");

    /// Checks that `text` is one JSON value and wraps it, without surrounding white space.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] where it is not.
    pub fn parse(text: &'a str) -> Result<Self, DecodeError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(DecodeError::Malformed)?;
        Ok(Self(raw.get()))
    }

    /// Wraps a text that the caller knows to be one JSON value. Anything else would corrupt the frame around it.
    pub const fn trusted(text: &'a str) -> Self {
        Self(text)
    }

    /// The text.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// Reads the value into a type of the application's.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`] where the value has another shape.
    pub fn decode<T: Deserialize<'a>>(self) -> Result<T, DecodeError> {
        serde_json::from_str(self.0).map_err(DecodeError::Malformed)
    }
}

impl fmt::Debug for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self(raw.get()))
    }
}
