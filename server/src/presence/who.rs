//! Who is in a room: a client as others see it.

use std::borrow::Cow;

use manifold_protocol::{ClientInfo, Json};

use crate::session::{self, Session};

/// Bytes of a user's name in presence at most.
pub(crate) const USER_BYTES_MAX: usize = 1024;
/// Bytes of a client's or a subscription's info in presence at most: as much as its messages carry.
pub(crate) const INFO_BYTES_MAX: usize = 4096;

/// One client's place in one room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Who {
    /// Random bits that name the client, unique in the cluster.
    pub(super) client: u128,
    /// The user, `""` for an anonymous one.
    pub(super) user: Box<str>,
    /// JSON, or empty for none.
    pub(super) conn_info: Box<str>,
    /// JSON, or empty for none.
    pub(super) chan_info: Box<str>,
}

impl Who {
    /// The client of `session`: anonymous, as all are that have no token.
    pub(crate) fn of(session: &Session) -> Self {
        Self { client: session.client(), ..Self::default() }
    }

    /// The client's id as it appears in the protocol.
    pub(super) fn client_id(&self) -> String {
        session::client_id(self.client)
    }

    /// As the protocol shows it; `id` is its [`client_id`](Self::client_id).
    pub(super) fn info<'w>(&'w self, id: &'w str) -> ClientInfo<'w> {
        ClientInfo {
            user: Cow::Borrowed(&self.user),
            client: Cow::Borrowed(id),
            conn_info: json_of(&self.conn_info),
            chan_info: json_of(&self.chan_info),
        }
    }
}

fn json_of(text: &str) -> Option<Json<'_>> {
    (!text.is_empty()).then_some(Json::trusted(text))
}
