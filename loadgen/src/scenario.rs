//! A scenario: a load shape, stated in a TOML file. It names no strategy and no address.
//!
//! Unknown keys are errors; every number has bounds. `--set key=value` overrides any key, so that the shipped
//! scenarios, small enough for two cores, scale up.

mod load;

use serde::{Deserialize, Serialize};

use crate::record::Fault;

pub use load::{FAULT_MATRIX, SHIPPED, ScenarioError, shipped};

/// A load shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, as on the command line.
    pub name: String,
    /// The real use that it stands for, in one line.
    pub stands_for: String,
    /// Server nodes that the campaign starts.
    #[serde(default = "default_nodes")]
    pub nodes: u32,
    /// Latency target: the 99th percentile of delivery, milliseconds.
    #[serde(default = "default_target_ms")]
    pub target_ms: u64,
    /// A first copy that takes longer than this is counted as late, milliseconds.
    #[serde(default = "default_deadline_ms")]
    pub deadline_ms: u64,
    /// Length of the counted window, seconds.
    pub duration_s: f64,
    /// Load before anything counts, seconds.
    #[serde(default = "default_warm_up_s")]
    pub warm_up_s: f64,
    /// Longest wait for stragglers after the last send, seconds. The run ends earlier when nothing is missing.
    #[serde(default = "default_drain_s")]
    pub drain_s: f64,
    /// Ask for positioned subscriptions, so that a server that notices loss says so.
    #[serde(default = "yes")]
    pub positioned: bool,
    /// Clients that were cut off come back with their position and ask for what they missed, as the official SDKs do:
    /// all of it is expected, unless the server says that it is lost.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recover: bool,
    /// How many brokers of each kind the campaign starts for it.
    #[serde(default, skip_serializing_if = "BrokerShapes::are_default")]
    pub brokers: BrokerShapes,
    /// Rooms and who is in them.
    pub rooms: Rooms,
    /// Who sends how much.
    pub traffic: Traffic,
    /// Members that come and go.
    #[serde(default)]
    pub churn: Churn,
    /// How clients come back after a lost connection.
    #[serde(default)]
    pub reconnect: Reconnect,
    /// How clients notice that a server is silent.
    #[serde(default, skip_serializing_if = "Pings::are_default")]
    pub pings: Pings,
    /// What is done to clients, and when.
    #[serde(default)]
    pub clients: Vec<ClientStep>,
    /// What is done to the system, and when. A strategy without the component is left alone.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// How many brokers of each kind there are, for strategies that use them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerShapes {
    /// Kafka's.
    pub kafka: KafkaShape,
    /// Redis's.
    pub redis: RedisShape,
}

impl BrokerShapes {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A shape of Kafka.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KafkaShape {
    /// One broker.
    #[default]
    One,
    /// Three, and each message on all of them; two must have it before it counts.
    Three,
}

/// A shape of Redis.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RedisShape {
    /// One server.
    #[default]
    One,
    /// A master, a replica, and three sentinels that put one in the other's place.
    Sentinel,
    /// Three masters that share the hash slots.
    Cluster,
}

/// Rooms and who is in them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rooms {
    /// How many.
    pub count: u32,
    /// Mean number of members.
    pub members: f64,
    /// Zipf exponent of room sizes; 0 makes all alike.
    #[serde(default)]
    pub size_skew: f64,
    /// Fewest members of a room.
    #[serde(default = "default_members_min")]
    pub members_min: u32,
    /// Rooms that one client is a member of.
    #[serde(default = "one")]
    pub per_client: u32,
}

/// Who sends how much.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Messages per second, over all rooms.
    pub rate_per_s: f64,
    /// How they are spread over time.
    #[serde(default)]
    pub arrival: ArrivalKind,
    /// Messages of a burst (with `arrival = "bursts"`).
    #[serde(default = "default_burst_length")]
    pub burst_length: u32,
    /// Milliseconds between the messages of a burst.
    #[serde(default = "default_burst_spacing_ms")]
    pub burst_spacing_ms: u64,
    /// Zipf exponent of the rate over rooms, largest room first; 0 gives each room the same rate.
    #[serde(default)]
    pub room_skew: f64,
    /// Zipf exponent of the rate over the senders of a room.
    #[serde(default)]
    pub sender_skew: f64,
    /// Members of each room that send; fewer where the room is smaller. With `services`, 0.
    #[serde(default)]
    pub senders_per_room: u32,
    /// Connections outside all rooms that send to them: room k is written by service k mod this. 0: members send.
    #[serde(default)]
    pub services: u32,
    /// Payload sizes and their shares.
    pub payload: Vec<PayloadSize>,
    /// Stretches in which the rate is multiplied.
    #[serde(default)]
    pub surges: Vec<SurgeStep>,
}

/// How messages are spread over time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArrivalKind {
    /// Evenly.
    Constant,
    /// As independent senders do.
    #[default]
    Poisson,
    /// In bursts of one sender each.
    Bursts,
}

/// A payload size and how often it occurs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadSize {
    /// Bytes of JSON.
    pub bytes: usize,
    /// Weight among the sizes.
    #[serde(default = "unit")]
    pub share: f64,
}

/// A stretch in which the rate is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SurgeStep {
    /// Seconds after the warm-up.
    pub at_s: f64,
    /// For how long, seconds.
    pub for_s: f64,
    /// Factor on the rate.
    pub factor: f64,
}

/// Members that come and go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Share of the members that leaves their rooms per minute, 0 to 60. Each comes back after `away_s`.
    pub share_per_min: f64,
    /// Seconds that they stay away.
    #[serde(default = "unit")]
    pub away_s: f64,
}

/// How clients come back: exponential backoff with full jitter, as the official SDKs do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reconnect {
    /// First upper bound of the wait, milliseconds.
    pub min_ms: u64,
    /// Last upper bound, milliseconds.
    pub max_ms: u64,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { min_ms: 500, max_ms: 20_000 }
    }
}

/// How clients notice that a server is silent: it says how often it pings, and whoever hears nothing at all for that long and
/// a while goes elsewhere, as the official SDKs do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pings {
    /// Time between the pings of servers that a campaign starts, milliseconds; 0 leaves it to them.
    pub every_ms: u64,
    /// How much longer than a server's own word a client waits, milliseconds.
    pub patience_ms: u64,
}

impl Default for Pings {
    fn default() -> Self {
        Self { every_ms: 0, patience_ms: 10_000 }
    }
}

impl Pings {
    fn are_default(&self) -> bool {
        *self == Self::default()
    }

    /// What a server has to be told on its command line.
    pub fn server_arguments(&self) -> Vec<String> {
        if self.every_ms == 0 {
            return Vec::new();
        }
        // Clients answer at once; a server that waits longer for it than from ping to ping refuses to start.
        [("--ping-interval-ms", self.every_ms), ("--pong-timeout-ms", self.every_ms - self.every_ms / 4)]
            .into_iter()
            .flat_map(|(flag, ms)| [flag.to_owned(), ms.to_string()])
            .collect()
    }
}

/// Something done to a share of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientStep {
    /// Seconds after the warm-up.
    pub at_s: f64,
    /// What.
    #[serde(rename = "do")]
    pub deed: ClientDeed,
    /// Share of the clients, 0 to 1; which ones is up to the seed.
    pub share: f64,
}

/// What is done to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClientDeed {
    /// Their connections break, all at once; they come back with backoff.
    Disconnect,
    /// They vanish without a word, as a phone does that changes networks: the old connection stays open, unread and
    /// unanswered, until the server finds out; they come back with backoff on a new one.
    HalfOpen,
    /// They send bytes that break the protocol, each in one of several ways, and come back once they are thrown out.
    Garbage,
    /// They read 4 KiB every 50 ms: slower than they are sent to, if they are sent much.
    ReadSlowly,
    /// They stop reading altogether.
    StopReading,
    /// They read again.
    Read,
    /// They leave their node for the one added last (or the next one): what a balancer does after growth.
    Move,
}

/// A key that is off leaves no trace, so that the content addresses of older results stay what they are.
const fn is_false(value: &bool) -> bool {
    !*value
}
const fn yes() -> bool {
    true
}
const fn one() -> u32 {
    1
}
const fn unit() -> f64 {
    1.0
}
const fn default_nodes() -> u32 {
    2
}
const fn default_target_ms() -> u64 {
    100
}
const fn default_deadline_ms() -> u64 {
    5_000
}
const fn default_warm_up_s() -> f64 {
    3.0
}
const fn default_drain_s() -> f64 {
    5.0
}
const fn default_members_min() -> u32 {
    2
}
const fn default_burst_length() -> u32 {
    10
}
const fn default_burst_spacing_ms() -> u64 {
    33
}

#[cfg(test)]
mod tests;
