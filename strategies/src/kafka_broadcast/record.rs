//! What members write into the control log: one JSON object per record.
//!
//! JSON because the log is read by people with the broker's own tools when something is wrong, and because a handful
//! of records per second and member cost nothing. Every node must interpret the log alike, so a record that a node
//! does not understand is skipped by all nodes of that version alike.

use serde::{Deserialize, Serialize};

use super::membership::View;
use super::settings::PUBLISH_TIMEOUT_MS_MAX;
use crate::error::{Error, ErrorKind, Result};

/// Names one life of a node: random, new for every (re)join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Incarnation(pub(super) u64);

impl Incarnation {
    /// A new random name.
    pub(super) fn random() -> Result<Self> {
        getrandom::u64().map(Self).map_err(|source| {
            Error::new(ErrorKind::Config, "connect", "the system has no random numbers").with_source(source)
        })
    }
}

/// A record of the control log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub(super) enum Record {
    /// A node asks to become a member.
    Join {
        /// The node's name; a member of the same name is superseded.
        node: String,
        /// This life of the node.
        incarnation: Incarnation,
        /// How many partitions it wants to consume.
        hold: u32,
        /// Silence after which it is expelled, in ms of log time.
        lease_ms: u64,
        /// How long its writes may be under way, in ms: a message's copies can lie that far apart.
        #[serde(default = "publish_timeout_ms_max")]
        publish_timeout_ms: u64,
        /// The view that the node had when it asked: an anchor for nodes that start later.
        view: View,
    },
    /// A member is alive and writes by a view that includes every record before offset `through`.
    Beat {
        /// Who.
        incarnation: Incarnation,
        /// Counts this incarnation's beats, so that it recognises which one it reads back.
        sequence: u64,
        /// The acknowledgement: the member's publishes reach everybody who joined before this offset.
        through: u64,
        /// The author's newest view, in the beats of the longest-standing member only: an anchor.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        view: Option<View>,
    },
    /// A member is gone and writes no more.
    Leave {
        /// Who.
        incarnation: Incarnation,
    },
}

/// What is assumed of a member that does not tell.
pub(super) fn publish_timeout_ms_max() -> u64 {
    PUBLISH_TIMEOUT_MS_MAX
}

impl Record {
    /// The record as bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("records hold no map with non-text keys and no failing serializer")
    }

    /// Reads a record.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|source| {
            Error::new(ErrorKind::Corrupt, "read the control log", "a record is not what this version writes")
                .with_source(source)
        })
    }

    /// The author's view, where the record carries one.
    pub(super) fn view(&self) -> Option<&View> {
        match self {
            Self::Join { view, .. } => Some(view),
            Self::Beat { view, .. } => view.as_ref(),
            Self::Leave { .. } => None,
        }
    }
}
