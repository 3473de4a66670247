//! What a run cost, component by component, from `/proc` and from the nodes' own counters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Cost within the counted window.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// Each process that took part, generator included.
    pub components: Vec<ComponentCost>,
    /// Processes that took part and could not be read at an edge of the window: their cost is not known, hence not that
    /// of their kind either.
    #[serde(default)]
    pub unmeasured: Vec<Unmeasured>,
    /// Copies made on the way; absent where a server doesn't say, or didn't at an edge of the window.
    pub amplification: Option<Amplification>,
}

impl Cost {
    /// CPU seconds of all components of a kind.
    pub fn cpu_s(&self, kind: ComponentKind) -> f64 {
        self.components
            .iter()
            .filter(|component| component.kind == kind)
            .map(|component| component.cpu_s)
            .sum()
    }

    /// Whether every process of a kind that took part was measured, and there was one.
    pub fn is_known(&self, kind: ComponentKind) -> bool {
        self.components.iter().any(|one| one.kind == kind)
            && self.unmeasured.iter().all(|one| one.kind != kind)
    }

    /// Peak resident bytes of all components of a kind.
    pub fn rss_bytes(&self, kind: ComponentKind) -> u64 {
        self.components.iter().filter(|component| component.kind == kind).map(|one| one.rss_bytes_max).sum()
    }
}

/// A process whose cost is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unmeasured {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComponentCost {
    /// Its name: `n1`, `kafka-1`, `redis`, `loadgen`.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// CPU time, user and kernel, within the window. A process that was restarted counts what its incarnations used.
    pub cpu_s: f64,
    /// Peak resident memory.
    pub rss_bytes_max: u64,
    /// Bytes written through `write` and its like (files, and sockets unless `send` is used), from `/proc/PID/io`;
    /// absent where the kernel doesn't tell.
    pub written_bytes: Option<u64>,
    /// Bytes read, likewise.
    pub read_bytes: Option<u64>,
    /// Bytes that went towards a disk.
    pub disk_bytes: Option<u64>,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentKind {
    /// A chat node.
    Node,
    /// A Kafka broker.
    Kafka,
    /// A Redis server.
    Redis,
    /// The load generator.
    Generator,
}

/// Counters of all nodes together, within the window.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Amplification {
    /// Envelopes that nodes decoded.
    pub envelopes_received: u64,
    /// Envelopes that some member of the node wanted.
    pub envelopes_wanted: u64,
    /// Publishes that nodes passed to their backplane.
    pub publishes: u64,
    /// Records or commands written to a broker for them.
    pub broker_writes: u64,
    /// Duplicates that nodes removed before they reached a member.
    pub duplicates_removed: u64,
    /// Messages that nodes declared lost.
    pub gap_messages: u64,
    /// Largest consumer lag seen, in messages; absent where unknown.
    pub lag_messages_max: Option<u64>,
}

impl Amplification {
    /// Envelopes decoded ÷ wanted.
    pub fn read(&self) -> Option<f64> {
        (self.envelopes_wanted > 0).then(|| self.envelopes_received as f64 / self.envelopes_wanted as f64)
    }

    /// Broker writes ÷ publishes.
    pub fn write(&self) -> Option<f64> {
        (self.publishes > 0).then(|| self.broker_writes as f64 / self.publishes as f64)
    }
}
