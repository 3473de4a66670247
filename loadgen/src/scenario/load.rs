//! From text to a checked scenario: the shipped ones, files, overrides, bounds.

use super::Scenario;
use crate::engine::PAYLOAD_BYTES_MIN;

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

macro_rules! scenarios {
    ($(#[$doc:meta])* $list:ident: $($name:literal),+ $(,)?) => {
        $(#[$doc])*
        pub const $list: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../scenarios/", $name, ".toml")))),+];
    };
}

scenarios!(
    /// The shipped scenarios that strategies are compared in: name and text.
    SHIPPED:
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

scenarios!(
    /// Further shipped scenarios, which break things: who recovers, how soon, and what is lost.
    FAULT_MATRIX:
    "tunnel",
    "mass-reconnect",
    "bad-guests",
    "node-drain",
    "rolling-restart",
    "node-frozen",
    "node-files-exhausted",
    "log-absent",
    "log-frozen",
    "log-leader-killed",
    "log-majority-killed",
    "log-link-stalled",
    "log-link-cut",
    "log-link-slow",
    "log-growth",
    "log-deleted",
    "log-disk-full",
    "memory-frozen",
    "memory-master-killed",
    "memory-link-stalled",
    "memory-link-cut",
    "memory-link-slow",
    "memory-slots-moved",
    "memory-buffers-full",
    "memory-full",
);

/// Every shipped scenario: name and text.
pub fn shipped() -> impl Iterator<Item = (&'static str, &'static str)> {
    SHIPPED.iter().chain(FAULT_MATRIX).copied()
}

impl Scenario {
    /// Loads a shipped scenario by name, or a file by path (anything with a `/` or ending in `.toml`), with overrides.
    ///
    /// # Errors
    /// Unknown name, unreadable file, or what [`Scenario::parse`] refuses.
    pub fn load(name: &str, overrides: &[String]) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = shipped().find(|(known, _)| *known == name) {
            return Self::parse(name, text, overrides);
        }
        if !name.contains('/') && !name.ends_with(".toml") {
            let known = shipped().map(|(name, _)| name).collect::<Vec<_>>().join(", ");
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

    /// Whether its timeline needs links between nodes and brokers that can be made bad.
    pub fn needs_links(&self) -> bool {
        self.faults.iter().any(|fault| fault.to.is_link())
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
        if self.pings.every_ms > 0 {
            // The protocol names whole seconds.
            within("pings.every_ms", self.pings.every_ms as f64, 1_000.0, 180_000.0)?;
        }
        within("pings.patience_ms", self.pings.patience_ms as f64, 100.0, 600_000.0)?;
        for step in &self.clients {
            within("clients.share", step.share, 0.0, 1.0)?;
            within("clients.at_s", step.at_s, 0.0, self.duration_s)?;
        }
        for fault in &self.faults {
            within("faults.at_s", fault.at_s, 0.0, self.duration_s)?;
            if !fault.deed.suits(fault.to) {
                let problem = format!("cannot {:?} {:?}", fault.deed, fault.to);
                return Err(ScenarioError::Value { name: name.to_owned(), key: "faults", problem });
            }
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
