//! What a bench leaves behind: the types of `bench.json`, its canonical record.
//!
//! Units are in the names, as in `run.json`: `_us` microseconds, `_s` seconds, `_bytes` bytes, `_per_s` per second.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::counts::Counted;
use crate::record::{Broker, Hardware, Tool};

/// Version of `bench.json`. Raised when a field changes meaning or goes; new optional fields don't raise it.
pub const BENCH_VERSION: u32 = 1;

/// One bench. The content of `bench.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bench {
    /// [`BENCH_VERSION`] when it was written.
    pub bench_version: u32,
    /// When it began, RFC 3339, UTC.
    pub started_at: String,
    /// The command line that reproduces it.
    pub command: String,
    /// Seed of order and load.
    pub seed: u64,
    /// Blocks that were asked for: in each, every subject of a shape has its window. A verdict needs all of them, and at
    /// least five.
    pub blocks: u32,
    /// The numbers of the table that were asked for.
    pub numbers: Vec<u8>,
    /// False when it ended before all of them had their turn.
    pub complete: bool,
    /// The machine.
    pub hardware: Hardware,
    /// The load generator, and what it was built from.
    pub tool: Tool,
    /// Brokers that took part.
    pub brokers: Vec<Broker>,
    /// Where instruction counts come from.
    pub instructions: Instructions,
    /// What one delivery looks like on the wire, by subject.
    pub frames: Vec<FrameShape>,
    /// The table's lines, in order.
    pub rows: Vec<Row>,
    /// Every window that was made, whether a line uses it or not.
    pub windows: Vec<Window>,
    /// Instruction counts of the counted runs.
    pub counted: Vec<Counted>,
    /// What was scaled down, left out or went wrong, and why.
    pub notes: Vec<String>,
}

/// Where instruction counts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Instructions {
    /// The processor's own counters, user and kernel apart.
    Hardware,
    /// Callgrind, in runs of their own: user space alone.
    Callgrind,
    /// Neither was to be had.
    None,
}

/// What a subject sends for one delivery of the small shape.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FrameShape {
    /// Who.
    pub subject: String,
    /// Bytes of payload in it.
    pub payload_bytes: u64,
    /// Bytes of the whole frame, header included.
    pub frame_bytes: u64,
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Which of the numbers it belongs to, 1 to 7.
    pub number: u8,
    /// What was measured.
    pub what: String,
    /// Unit of `ours` and `reference`.
    pub unit: String,
    /// What is to be reached.
    pub target: Target,
    /// Ours, one value per block.
    pub ours: Vec<f64>,
    /// What it is held against: the floor, a bare client; empty where there is none.
    pub reference_name: String,
    /// Its values, of the same blocks and in the same order as the first of `ours`: what of those has none comes last.
    pub reference: Vec<f64>,
}

/// What is to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", content = "bound", rename_all = "kebab-case")]
pub enum Target {
    /// The median over blocks of ours ÷ reference, at most.
    Ratio(f64),
    /// The median over blocks of ours − reference, at most, in the line's unit.
    Excess(f64),
    /// The median of ours, at most.
    AtMost(f64),
    /// The median of ours, at least.
    AtLeast(f64),
    /// Nothing: the line explains another one.
    Shown,
}

/// One subject under one shape for a few seconds. Counts and times cover the counted window alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The load shape.
    pub shape: String,
    /// Who.
    pub subject: String,
    /// The block, from 1.
    pub block: u32,
    /// Length.
    pub window_s: f64,
    /// Connections held.
    pub connections: u64,
    /// Messages sent.
    pub publishes: u64,
    /// Deliveries received.
    pub deliveries: f64,
    /// CPU time of the servers' processes, user and kernel.
    pub server_cpu_s: f64,
    /// CPU time of the brokers' processes; 0 without brokers.
    pub broker_cpu_s: f64,
    /// CPU time of the load generator.
    pub generator_cpu_s: f64,
    /// Times that a thread of the servers gave up its core of its own accord: an upper bound of its wake-ups.
    pub server_sleeps: u64,
    /// Resident memory of the servers when the window closed.
    pub server_resident_bytes: u64,
    /// Instructions of servers and brokers in user space, where the machine counts them.
    pub instructions_user: Option<u64>,
    /// Instructions of the kernel on their behalf, likewise.
    pub instructions_kernel: Option<u64>,
    /// System calls of servers and brokers; in windows of their own, because counting them costs time.
    pub system_calls: Option<u64>,
    /// Median of the delivery latency, intended send to member.
    pub delivery_us_p50: Option<u64>,
    /// 99th percentile of the same.
    pub delivery_us_p99: Option<u64>,
    /// Median of the latency of each message's slowest member.
    pub last_member_us_p50: Option<u64>,
    /// Sent per second of the time that it really took ÷ scheduled per second.
    pub offered_share: f64,
    /// 99th percentile of how late the generator sent.
    pub send_lag_us_p99: Option<u64>,
    /// Share of the window that the generator's busiest thread was on a core.
    pub generator_busy_share: f64,
    /// Whether the audit found nothing lost, doubled, reordered, leaked or damaged.
    pub clean: bool,
}

#[cfg(test)]
impl Window {
    /// One that may be used, with a million deliveries.
    pub(super) fn sound(subject: &str, shape: &str, block: u32, server_cpu_s: f64) -> Self {
        Self {
            shape: shape.into(),
            subject: subject.into(),
            block,
            deliveries: 1e6,
            server_cpu_s,
            offered_share: 1.0,
            clean: true,
            ..Self::default()
        }
    }
}

impl Window {
    /// A cost per delivery; `None` without deliveries.
    fn per_delivery(&self, cost: f64) -> Option<f64> {
        (self.deliveries > 0.0).then(|| cost / self.deliveries)
    }

    /// Server and broker CPU per delivery, microseconds.
    pub fn us_per_delivery(&self) -> Option<f64> {
        self.per_delivery((self.server_cpu_s + self.broker_cpu_s) * 1e6)
    }

    /// Server and broker CPU ÷ generator CPU: what a machine whose speed wanders leaves alone.
    pub fn over_generator(&self) -> Option<f64> {
        (self.generator_cpu_s > 0.0).then(|| (self.server_cpu_s + self.broker_cpu_s) / self.generator_cpu_s)
    }

    /// Instructions per delivery, user and kernel.
    pub fn instructions_per_delivery(&self) -> Option<f64> {
        self.per_delivery((self.instructions_user? + self.instructions_kernel?) as f64)
    }

    /// Instructions per delivery in user space.
    pub fn user_instructions_per_delivery(&self) -> Option<f64> {
        self.per_delivery(self.instructions_user? as f64)
    }

    /// System calls per delivery.
    pub fn calls_per_delivery(&self) -> Option<f64> {
        self.per_delivery(self.system_calls? as f64)
    }

    /// Voluntary context switches per delivery.
    pub fn sleeps_per_delivery(&self) -> Option<f64> {
        self.per_delivery(self.server_sleeps as f64)
    }

    /// Server CPU per publish, microseconds.
    pub fn us_per_publish(&self) -> Option<f64> {
        (self.publishes > 0).then(|| self.server_cpu_s * 1e6 / self.publishes as f64)
    }

    /// Whether a figure may be made of it: nothing went wrong, and the load was what it was to be, when it was to be.
    pub fn is_usable(&self) -> bool {
        let lag_us_max = LAG_SHARE_MAX * self.window_s * 1e6;
        self.clean
            && self.offered_share >= OFFERED_SHARE_MIN
            && self.send_lag_us_p99.is_none_or(|us| us as f64 <= lag_us_max)
    }
}

/// A window in which less than this was sent of what was to be sent measures another load.
pub(super) const OFFERED_SHARE_MIN: f64 = 0.99;
/// What is sent late is received late, in part after the window, where nobody counts what it costs: at most so much of a
/// window may the slowest hundredth be late.
const LAG_SHARE_MAX: f64 = 0.02;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_per_delivery_and_brokers_count() {
        let window = Window {
            deliveries: 1_000.0,
            publishes: 100,
            server_cpu_s: 0.003,
            broker_cpu_s: 0.001,
            generator_cpu_s: 0.002,
            instructions_user: Some(500_000),
            ..Window::default()
        };
        assert!((window.us_per_delivery().unwrap() - 4.0).abs() < 1e-9);
        assert!((window.us_per_publish().unwrap() - 30.0).abs() < 1e-9);
        assert_eq!(window.over_generator(), Some(2.0));
        assert_eq!(window.user_instructions_per_delivery(), Some(500.0));
        assert_eq!(window.instructions_per_delivery(), None, "the kernel's share is not known");
        assert_eq!(Window::default().us_per_delivery(), None);
    }

    #[test]
    fn a_window_with_less_load_than_asked_for_is_no_figure() {
        let window = Window { clean: true, offered_share: 0.995, window_s: 2.0, ..Window::default() };
        assert!(window.is_usable());
        assert!(Window { send_lag_us_p99: Some(40_000), ..window.clone() }.is_usable());
        assert!(!Window { send_lag_us_p99: Some(40_001), ..window.clone() }.is_usable());
        assert!(!Window { offered_share: 0.9, ..window.clone() }.is_usable());
        assert!(!Window { clean: false, ..window }.is_usable());
    }
}
