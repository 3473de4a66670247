//! Evidence: messages that came out of their place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A first copy that came to a member after a later message of the same sender and room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Overtaken {
    /// The room.
    pub room: String,
    /// Which of the room's senders.
    pub sender: u32,
    /// Its number in the sender's messages to the room, from 0.
    pub sequence: u32,
    /// The number of the first later one that the member had already.
    pub by: u32,
    /// When it came, from the first intended send.
    pub at_ms: u64,
    /// How its publish was answered.
    pub answer: Answer,
    /// On which of the connections over which its sender wrote to the room it was sent, counted from 1.
    pub connection: u32,
    /// On which of them the later one was sent.
    pub by_connection: u32,
    /// Whether it came with a member's recovery.
    pub recovering: bool,
    /// Whether it is in `late_unknown`; if not, it is in `reordered`.
    pub excused: bool,
}

/// How a publish was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was accepted.
    Acknowledged,
    /// With an error.
    Refused,
    /// Not at all.
    None,
}
