//! What a strategy promises: data, not prose, so that tests, the server and reports can all read it.

use serde::{Deserialize, Serialize};

/// One literal per strategy and setting. The conformance suite chooses its cases by it, the server reports it at
/// `/info`, and the load generator compares it with what its audit saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Guarantees {
    /// How often a member receives an acknowledged message when a broker or a link fails. While everything is healthy
    /// every strategy but a counter-example delivers exactly once.
    pub delivery: Delivery,
    /// In which order members see messages. Each publisher's own order is kept in any case, also when a broker fails or
    /// comes back: over one connection, and after an acknowledgement over any. What was not acknowledged when its
    /// publisher went on over another connection may appear behind what it has sent there, and so may a message whose
    /// publish failed, on a node of `kafka-broadcast` that was expelled and reads what it missed in another one's copy.
    pub ordering: Ordering,
    /// What a publisher's acknowledgement means.
    pub ack: Ack,
    /// What a node receives beyond the rooms that it wants.
    pub interest: Interest,
    /// What can be read back.
    pub replay: ReplayKind,
    /// What positions mean, and so what loss can be noticed.
    pub positions: Positions,
    /// A retry with the same message id reaches each member once.
    pub idempotent_retry: bool,
    /// Members on other nodes see the messages.
    pub spans_nodes: bool,
    /// Every member sees every message. False marks a counter-example: a room is split among nodes.
    pub whole_rooms: bool,
}

/// Delivery of acknowledged messages under failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// May be lost; never duplicated.
    AtMostOnce,
    /// Not lost while the log keeps it; may be duplicated.
    AtLeastOnce,
    /// Not lost while the log keeps it; duplicates are removed within a bounded window.
    AtLeastOnceDeduplicated,
}

/// Order as members see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ordering {
    /// All members of a room see one order, on every node.
    PerRoom,
    /// All members of a room see one order while the brokers are healthy. While one of them fails or comes back, each
    /// publisher's messages keep their order, and members on different nodes may interleave publishers differently.
    PerRoomWhileHealthy,
    /// Each publisher's messages keep their order; members on different nodes may interleave publishers differently.
    PerPublisher,
}

impl Ordering {
    /// Whether all members of a room see one order while nothing fails.
    pub fn is_per_room(self) -> bool {
        matches!(self, Self::PerRoom | Self::PerRoomWhileHealthy)
    }
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// This node's memory has it.
    Node,
    /// The broker's memory has it; it was passed to all subscribers.
    Broker,
    /// The broker's log has it, replicated as the topic is configured.
    Log,
}

/// What reaches a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interest {
    /// Only messages of rooms with local members.
    Rooms,
    /// All messages of the partitions in which some local room lies.
    Partitions,
    /// All messages of all rooms.
    Everything,
}

/// What can be read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplayKind {
    /// Nothing.
    None,
    /// The last messages of a room, as many and for as long as the settings say, in a node's or a broker's memory: gone
    /// when that restarts, which changes the epoch.
    Memory,
    /// What the broker's log still holds.
    Log,
}

/// What positions tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Positions {
    /// There are none.
    None,
    /// They rise, with holes: good for resuming and for removing duplicates, not for noticing loss.
    Rising,
    /// They rise by one per room: a lost message shows as a gap, and is declared. A message without a position (offset 0), as
    /// while the broker that numbers them is away, is no part of the numbering.
    Dense,
}
