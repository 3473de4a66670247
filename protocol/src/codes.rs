//! The protocol's numeric codes, with the texts that go on the wire and what a client does on seeing them.

use std::fmt;

use serde::Deserialize;

/// Why a command failed. The connection stays open. Codes 400 to 1999 are free for applications.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct ErrorCode(pub u32);

/// Why the server closed a connection: sent as WebSocket close code and reason. Codes 4000 to 4999 are free for
/// applications; below 3000 it was the transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct DisconnectCode(pub u32);

/// Why the server ended a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Deserialize)]
#[serde(transparent)]
pub struct UnsubscribeCode(pub u32);

/// Declares the constants of a code type and the text lookup over them.
macro_rules! codes {
    ($type:ident, $text:ident, $text_doc:literal: $($(#[$doc:meta])* $name:ident = $code:literal, $words:literal;)*) => {
        impl $type {
            $($(#[$doc])* pub const $name: Self = Self($code);)*

            #[doc = $text_doc]
            pub const fn $text(self) -> &'static str {
                match self.0 {
                    $($code => $words,)*
                    _ => "",
                }
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.$text() {
                    "" => write!(f, "{}", self.0),
                    text => write!(f, "{} ({text})", self.0),
                }
            }
        }
    };
}

codes! { ErrorCode, message, "The message of a code that the protocol defines; empty for others.":
    /// The server failed; worth another try.
    INTERNAL = 100, "internal server error";
    /// The connection may not do anything yet.
    UNAUTHORIZED = 101, "unauthorized";
    /// The channel's namespace does not exist.
    UNKNOWN_CHANNEL = 102, "unknown channel";
    /// Not allowed for this connection.
    PERMISSION_DENIED = 103, "permission denied";
    /// No such method.
    METHOD_NOT_FOUND = 104, "method not found";
    /// The connection is subscribed to that channel.
    ALREADY_SUBSCRIBED = 105, "already subscribed";
    /// One of the server's limits is reached.
    LIMIT_EXCEEDED = 106, "limit exceeded";
    /// The request breaks the protocol in a way that does not cost the connection.
    BAD_REQUEST = 107, "bad request";
    /// The feature is switched off.
    NOT_AVAILABLE = 108, "not available";
    /// The token's time is over; the client fetches another.
    TOKEN_EXPIRED = 109, "token expired";
    /// The connection's or subscription's time is over.
    EXPIRED = 110, "expired";
    /// Slow down and try again.
    TOO_MANY_REQUESTS = 111, "too many requests";
    /// The position is of another epoch or was trimmed away.
    UNRECOVERABLE_POSITION = 112, "unrecoverable position";
    /// The pages of a listing changed underneath; worth another try.
    CONCURRENT_PAGINATION = 113, "concurrent pagination";
}

impl ErrorCode {
    /// Whether the reply carries `temporary: true`, which tells the client to try again by itself.
    pub const fn temporary(self) -> bool {
        matches!(self, Self::INTERNAL | Self::TOO_MANY_REQUESTS | Self::CONCURRENT_PAGINATION)
    }
}

codes! { DisconnectCode, reason, "The reason text of a code that the protocol defines; empty for others.":
    /// The connection ended without a close frame. Never sent.
    CONNECTION_CLOSED = 3000, "connection closed";
    /// The node goes down; another one takes over.
    SHUTDOWN = 3001, "shutdown";
    /// The server failed.
    SERVER_ERROR = 3004, "internal server error";
    /// The connection's time is over.
    EXPIRED = 3005, "connection expired";
    /// A server-side subscription's time is over.
    SUBSCRIPTION_EXPIRED = 3006, "subscription expired";
    /// The client reads too slowly: its outbox overflowed.
    SLOW = 3008, "slow";
    /// Writing to the connection failed.
    WRITE_ERROR = 3009, "write error";
    /// A server-side subscription lost messages.
    INSUFFICIENT_STATE = 3010, "insufficient state";
    /// The server wants the client to come again.
    FORCE_RECONNECT = 3011, "force reconnect";
    /// The client left a ping unanswered.
    NO_PONG = 3012, "no pong";
    /// The client asks too much.
    TOO_MANY_REQUESTS = 3013, "too many requests";
    /// The client is to drop its token and its positions and come again.
    STATE_INVALIDATED = 3014, "state invalidated";
    /// The token is wrong in a way that another try does not mend.
    INVALID_TOKEN = 3500, "invalid token";
    /// The client broke the protocol.
    BAD_REQUEST = 3501, "bad request";
    /// The client did not send `connect` in time.
    STALE = 3502, "stale";
    /// The server wants the client gone.
    FORCE_NO_RECONNECT = 3503, "force disconnect";
    /// The server holds as many connections as it may.
    CONNECTION_LIMIT = 3504, "connection limit";
    /// The connection is in as many channels as it may be.
    CHANNEL_LIMIT = 3505, "channel limit";
    /// The payload cannot be carried in this framing.
    INAPPROPRIATE_PROTOCOL = 3506, "inappropriate protocol";
    /// Not allowed for this connection.
    PERMISSION_DENIED = 3507, "permission denied";
    /// The feature is switched off.
    NOT_AVAILABLE = 3508, "not available";
    /// The client caused too many errors.
    TOO_MANY_ERRORS = 3509, "too many errors";
}

impl DisconnectCode {
    /// Whether a client comes back after this code: always, except after 3500–3999 and 4500–4999.
    ///
    /// Transport code 1009 (message too big) is the one on which SDKs differ: centrifuge-js stays away.
    pub const fn reconnect(self) -> bool {
        !matches!(self.0, 3500..=3999 | 4500..=4999)
    }
}

codes! { UnsubscribeCode, reason, "The reason text of a code that the protocol defines; empty for others.":
    /// The server ended the subscription for good.
    SERVER = 2000, "server unsubscribe";
    /// The subscription lost messages.
    INSUFFICIENT_STATE = 2500, "insufficient state";
    /// The subscription's time is over.
    EXPIRED = 2501, "subscription expired";
    /// The client is to drop the position and subscribe anew.
    STATE_INVALIDATED = 2502, "state invalidated";
}

impl UnsubscribeCode {
    /// Whether a client subscribes again by itself: from 2500 on.
    pub const fn resubscribe(self) -> bool {
        self.0 >= 2500
    }
}
