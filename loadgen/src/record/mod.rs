//! What a run leaves behind: the types of `run.json`, its canonical and append-only record.
//!
//! What lives here: data, its checked-in JSON schema, and the rules that read nothing but the record (validity,
//! verdict). What does not: how any of it is measured (`engine`, `audit`) or shown (`report`).
//!
//! Who fills what: a run returns [`Measured`]; the campaign adds who was measured ([`Contender`]), where
//! ([`Setting`]), at what cost ([`Cost`]) and judges it ([`Validity`], [`Verdict`]).
//!
//! Units are in the names: `_us` microseconds, `_ms` milliseconds, `_s` seconds, `_bytes` bytes, `_per_s` per second;
//! counts have none. Times within a run are measured from its first intended send, warm-up included, so that a
//! series shows the warm-up with the rest.

mod cost;
mod fault;
mod histogram;
mod judge;
mod measured;
mod overtaken;
mod recoveries;
#[cfg(test)]
mod schema_tests;
mod setting;

pub use cost::{Amplification, ComponentCost, ComponentKind, Cost, Unmeasured};
pub use fault::{Deed, Fault, FaultMark, FaultOutcome, Target};
pub use histogram::{Histogram, HistogramError};
pub use judge::{Gate, Objection, Promise, Rules, Validity, Verdict, judge};
pub use measured::{Audit, Generator, Latencies, Live, Load, Measured, Phase, Point, Series};
pub use overtaken::{Answer, Overtaken};
pub use recoveries::Recoveries;
pub use setting::{Broker, Contender, Hardware, ScenarioRecord, Setting, Tool};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Version of `run.json`. Raised when a field changes meaning or goes; new optional fields don't raise it.
pub const SCHEMA_VERSION: u32 = 1;

/// One run: a scenario, a strategy, a seed. The content of `run.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// [`SCHEMA_VERSION`] when it was written.
    pub schema_version: u32,
    /// Content address of the cell: a digest of everything that was asked for. An interrupted campaign runs only
    /// the cells that have no record yet.
    pub cell: String,
    /// Which campaign it belongs to: a digest of the campaign's plan; empty for a single run.
    pub campaign: String,
    /// When the run began, RFC 3339, UTC.
    pub started_at: String,
    /// The command line that reproduces this run.
    pub command: String,
    /// Seed of schedule, payloads and skew.
    pub seed: u64,
    /// The randomised block that it ran in, from 1; 0 outside blocks (null run, capacity search, single runs).
    pub block: u32,
    /// What the run is for.
    pub role: Role,
    /// What was asked for.
    pub scenario: ScenarioRecord,
    /// Who was measured.
    pub contender: Contender,
    /// Where, and beside which brokers.
    pub setting: Setting,
    /// What the generator saw.
    pub measured: Measured,
    /// What it cost, component by component.
    pub cost: Cost,
    /// Whether the figures may be used, and why not.
    pub validity: Validity,
    /// What the audit says of the strategy.
    pub verdict: Verdict,
}

/// What a run is for. Only [`Role::Comparison`] runs are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Against a server that just echoes: the generator's ceiling and noise floor.
    Null,
    /// One cell of a randomised block.
    Comparison,
    /// A step of the search for the highest rate that holds.
    Capacity,
    /// A point of the curve from 0.25 to 1.05 of capacity.
    Knee,
    /// An experiment for one of the claims.
    Claim,
    /// A single run that somebody asked for.
    Single,
}
