//! Who was measured, and where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScenarioRecord {
    /// Its name, e.g. `small-rooms`.
    pub name: String,
    /// The real use that it stands for, in one line.
    pub stands_for: String,
    /// Digest of its effective parameters: two runs compare only where it is equal.
    pub digest: String,
    /// The latency target for the 99th percentile of delivery.
    pub delivery_us_p99_target: u64,
    /// Its effective parameters, overrides applied.
    pub parameters: serde_json::Value,
}

/// The strategy under test, as its servers describe it at `/info`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contender {
    /// Strategy name, e.g. `kafka-keyed`; for a server that doesn't say, `unknown`.
    pub strategy: String,
    /// The strategy with the options that differ from its defaults, e.g. `kafka-keyed consume=demand`: what reports
    /// group by.
    pub label: String,
    /// One line for people.
    pub summary: String,
    /// True for a strategy that exists to show a mistake.
    pub counter_example: bool,
    /// What it promises, as declared.
    pub guarantees: serde_json::Value,
    /// Effective settings, secrets masked.
    pub settings: serde_json::Value,
    /// Options given on its command line, `key=value`.
    pub options: Vec<String>,
    /// Nodes at the start.
    pub nodes: u64,
    /// Version of the server.
    pub version: String,
    /// Commit that the server was built from.
    pub commit: String,
    /// True where it runs on one node while the others run on several: the floor, not a contender.
    pub floor: bool,
}

/// Where the run took place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The machine.
    pub hardware: Hardware,
    /// Brokers that ran beside the nodes.
    pub brokers: Vec<Broker>,
    /// The load generator itself.
    pub tool: Tool,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hardware {
    /// CPU model.
    pub cpu: String,
    /// Logical processors that this process may use.
    pub cores: u64,
    /// Physical memory.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Operating system.
    pub os: String,
    /// Whether it looks like a virtual machine.
    pub virtual_machine: bool,
    /// Load average over a minute when the run began.
    pub load_average_1m: f64,
    /// Share of CPU time stolen by the host during the run, 0 to 1.
    pub steal_share: f64,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Broker {
    /// Process name, e.g. `kafka-1`.
    pub name: String,
    /// Product and version, as far as it tells.
    pub version: String,
    /// Command line that started it.
    pub command: String,
    /// Its configuration, as text.
    pub configuration: String,
    /// Age when the run began.
    pub age_s: f64,
    /// Messages that it had carried before, warm-up included.
    pub messages_before: u64,
    /// Whether it was given from outside rather than started by us.
    pub given: bool,
}

/// The load generator.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tool {
    /// Its version.
    pub version: String,
    /// Commit at which the checkout it was built from stood when the run began.
    pub commit: String,
    /// Digest of the programs that made the run, generator and servers; empty where that is not known.
    #[serde(default)]
    pub build: String,
    /// Whether that checkout had uncommitted changes to code.
    pub dirty: bool,
    /// Build profile: `release` or `debug`.
    pub profile: String,
}
