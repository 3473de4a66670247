//! A scenario: a load shape, stated in a TOML file. It names no strategy and no address.
//!
//! Unknown keys are errors; every number has bounds. `--set key=value` overrides any key, so that the shipped
//! scenarios, small enough for two cores, scale up.

use serde::{Deserialize, Serialize};

use crate::engine::PAYLOAD_BYTES_MIN;
use crate::record::Fault;

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, an unknown key, a missing one, or one of the wrong type.
    #[error("scenario {name}: {message}")]
    Syntax {
        /// Scenario or file name.
        name: String,
        /// What the parser said, with the line.
        message: String,
    },
    /// A value out of bounds.
    #[error("scenario {name}: `{key}` {problem}")]
    Value {
        /// Scenario or file name.
        name: String,
        /// The key, dotted.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// An override that is not `key=value`, or whose key cannot be reached.
    #[error("override `{0}`: expected key=value, with dots for tables, e.g. traffic.rate_per_s=500")]
    Override(String),
    /// No such scenario.
    #[error("no scenario `{name}`: not a file, and not one of {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names of the shipped ones.
        known: String,
    },
    /// The file cannot be read.
    #[error("cannot read scenario {path}: {source}")]
    Read {
        /// Its path.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

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
    /// What is done to clients, and when.
    #[serde(default)]
    pub clients: Vec<ClientStep>,
    /// What is done to the system, and when. A strategy without the component is left alone.
    #[serde(default)]
    pub faults: Vec<Fault>,
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
    /// They read 4 KiB every 50 ms: slower than they are sent to, if they are sent much.
    ReadSlowly,
    /// They stop reading altogether.
    StopReading,
    /// They read again.
    Read,
    /// They leave their node for the one added last (or the next one): what a balancer does after growth.
    Move,
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

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// The shipped scenarios: name and text.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),+];
    };
}

shipped!(
    "small-rooms",
    "giant-room",
    "skewed",
    "whiteboard",
    "ticker",
    "notifications",
    "reconnect-storm",
    "slow-clients",
    "scale-out",
    "node-crash",
    "broker-restart",
    "redis-restart",
);

impl Scenario {
    /// Loads a shipped scenario by name, or a file by path (anything with a `/` or ending in `.toml`), with overrides.
    ///
    /// # Errors
    /// Unknown name, unreadable file, or what [`Scenario::parse`] refuses.
    pub fn load(name: &str, overrides: &[String]) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = SHIPPED.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text, overrides);
        }
        if !name.contains('/') && !name.ends_with(".toml") {
            let known = SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return Err(ScenarioError::Unknown { name: name.to_owned(), known });
        }
        let text = std::fs::read_to_string(name)
            .map_err(|source| ScenarioError::Read { path: name.to_owned(), source })?;
        Self::parse(name, &text, overrides)
    }

    /// Parses a scenario, applies `key=value` overrides (values are TOML; bare words are taken as strings), checks
    /// all bounds.
    ///
    /// # Errors
    /// Syntax, unknown or missing keys, values out of bounds.
    pub fn parse(name: &str, text: &str, overrides: &[String]) -> Result<Self, ScenarioError> {
        let syntax = |message: String| ScenarioError::Syntax { name: name.to_owned(), message };
        // Parsed as a scenario first, so that an error can point at its line.
        let plain: Self = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
        let scenario = if overrides.is_empty() {
            plain
        } else {
            let mut table: toml::Table = toml::from_str(text).map_err(|error| syntax(error.to_string()))?;
            overrides.iter().try_for_each(|one| set(&mut table, one))?;
            table.try_into().map_err(|error: toml::de::Error| syntax(error.to_string()))?
        };
        scenario.check(name)?;
        Ok(scenario)
    }

    fn check(&self, name: &str) -> Result<(), ScenarioError> {
        let within = |key: &'static str, value: f64, low: f64, high: f64| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let problem = format!("is {value}, must be within {low} and {high}");
            Err(ScenarioError::Value { name: name.to_owned(), key, problem })
        };
        within("nodes", f64::from(self.nodes), 1.0, 64.0)?;
        within("target_ms", self.target_ms as f64, 1.0, 60_000.0)?;
        within("deadline_ms", self.deadline_ms as f64, 1.0, 60_000.0)?;
        within("duration_s", self.duration_s, 0.1, 86_400.0)?;
        within("warm_up_s", self.warm_up_s, 0.0, 3_600.0)?;
        within("drain_s", self.drain_s, 0.1, 600.0)?;
        within("rooms.count", f64::from(self.rooms.count), 1.0, 1e6)?;
        within("rooms.members", self.rooms.members, 1.0, 1e6)?;
        within("rooms.size_skew", self.rooms.size_skew, 0.0, 3.0)?;
        within("rooms.members_min", f64::from(self.rooms.members_min), 1.0, self.rooms.members)?;
        within("rooms.per_client", f64::from(self.rooms.per_client), 1.0, 128.0)?;
        within("traffic.rate_per_s", self.traffic.rate_per_s, 0.001, 1e7)?;
        within("traffic.burst_length", f64::from(self.traffic.burst_length), 1.0, 1e6)?;
        within("traffic.burst_spacing_ms", self.traffic.burst_spacing_ms as f64, 0.0, 60_000.0)?;
        within("traffic.room_skew", self.traffic.room_skew, 0.0, 3.0)?;
        within("traffic.sender_skew", self.traffic.sender_skew, 0.0, 3.0)?;
        within("traffic.payload (number of sizes)", self.traffic.payload.len() as f64, 1.0, 64.0)?;
        for size in &self.traffic.payload {
            within("traffic.payload.bytes", size.bytes as f64, PAYLOAD_BYTES_MIN as f64, 65_000.0)?;
            within("traffic.payload.share", size.share, 0.0, 1e9)?;
        }
        for surge in &self.traffic.surges {
            within("traffic.surges.factor", surge.factor, 0.001, 1_000.0)?;
        }
        within("churn.share_per_min", self.churn.share_per_min, 0.0, 60.0)?;
        within("reconnect.max_ms", self.reconnect.max_ms as f64, self.reconnect.min_ms as f64, 600_000.0)?;
        for step in &self.clients {
            within("clients.share", step.share, 0.0, 1.0)?;
            within("clients.at_s", step.at_s, 0.0, self.duration_s)?;
        }
        for fault in &self.faults {
            within("faults.at_s", fault.at_s, 0.0, self.duration_s)?;
        }
        let (members, services) = (self.traffic.senders_per_room, self.traffic.services);
        if (members == 0) == (services == 0) {
            let problem = "must be above 0 unless `traffic.services` is, and not both".to_owned();
            return Err(ScenarioError::Value {
                name: name.to_owned(),
                key: "traffic.senders_per_room",
                problem,
            });
        }
        Ok(())
    }
}

fn set(table: &mut toml::Table, assignment: &str) -> Result<(), ScenarioError> {
    let wrong = || ScenarioError::Override(assignment.to_owned());
    let (key, value) = assignment.split_once('=').ok_or_else(wrong)?;
    let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let (path, last) = key.rsplit_once('.').map_or((None, key), |(path, last)| (Some(path), last));
    let mut at = table;
    for part in path.into_iter().flat_map(|path| path.split('.')) {
        at = at
            .entry(part)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()))
            .as_table_mut()
            .ok_or_else(wrong)?;
    }
    // `rate_per_s=500` means the float, as it would in the file's author's mind.
    let value = match (at.get(last), value) {
        (Some(toml::Value::Float(_)), toml::Value::Integer(whole)) => toml::Value::Float(whole as f64),
        (_, value) => value,
    };
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
#[path = "scenario/tests.rs"]
mod tests;
