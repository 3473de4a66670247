//! What a run returns: load, latencies, audit, series, faults. Filled in by the engine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fault::FaultMark;
use super::histogram::Histogram;
use super::overtaken::Overtaken;
use super::recoveries::Recoveries;

/// Everything that the generator saw in one run.
///
/// `load`, `latencies` and `generator` cover the counted window alone: messages whose *intended* time lies after the
/// warm-up and before the end, wherever their deliveries fall. `audit`, `series` and `faults` cover the whole run,
/// warm-up and drain included: a message lost in the warm-up is lost all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Sent before anything counted.
    pub warm_up_s: f64,
    /// Length of the counted window.
    pub window_s: f64,
    /// Time that the run waited for stragglers after the last send.
    pub drain_s: f64,
    /// What was offered and what was meant to be.
    pub load: Load,
    /// The four latencies and the raw one.
    pub latencies: Latencies,
    /// Every delivery of the whole run accounted for.
    pub audit: Audit,
    /// The same over time, warm-up and drain included.
    pub series: Series,
    /// What was done to the system, and when.
    pub faults: Vec<FaultMark>,
    /// What came of members that were away and asked for what they had missed; absent where clients don't ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recoveries: Option<Recoveries>,
    /// The first messages that came out of their place, each as it came to one member: up to 20 that are in `reordered`,
    /// then up to 20 that are in `late_unknown`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overtaken: Vec<Overtaken>,
    /// The generator's own state.
    pub generator: Generator,
}

/// Offered load.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// Client connections held.
    pub connections: u64,
    /// Rooms.
    pub rooms: u64,
    /// Memberships: sum over rooms of their members.
    pub memberships: u64,
    /// Members of the largest room.
    pub members_max: u64,
    /// Server nodes that connections were spread over at the start.
    pub nodes: u64,
    /// Publishes that the schedule holds within the window.
    pub scheduled: u64,
    /// Of those, written to a socket (late ones included).
    pub sent: u64,
    /// Of those, never written because there was no connection that took them: the servers' doing, not the
    /// generator's. In the latencies they count, once per member, with their age at the end of the run.
    #[serde(default)]
    pub unsent: u64,
    /// Scheduled ÷ window.
    pub target_per_s: f64,
    /// Sent ÷ the time it really took to send them.
    pub offered_per_s: f64,
    /// Deliveries received ÷ window.
    pub delivered_per_s: f64,
    /// Mean payload bytes.
    pub payload_bytes_mean: f64,
    /// Connections that were lost and not regained by the end.
    pub connections_failed: u64,
    /// Clients that the scenario made read slowly or not at all.
    #[serde(default)]
    pub slowed: u64,
    /// Of those, disconnected by the server for it, with code 3008.
    #[serde(default)]
    pub slow_closes: u64,
    /// Times that the scenario made a client send garbage.
    #[serde(default)]
    pub garbled: u64,
    /// Of those, ended by the server.
    #[serde(default)]
    pub garbled_closes: u64,
    /// Reconnects during the run (asked for by the scenario or forced by the server).
    pub reconnects: u64,
}

/// Latencies, in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Latencies {
    /// Intended → written to the socket.
    pub send_lag: Histogram,
    /// Intended → publish reply.
    pub ack: Histogram,
    /// Intended → each member.
    pub delivery: Histogram,
    /// Intended → the slowest member of that message.
    pub last_member: Histogram,
    /// Written → each member: for comparison with tools that ignore their own lag.
    pub delivery_raw: Histogram,
    /// Intended → a member that got it with its recovery: mostly how long it was away. Not in `delivery`; absent where
    /// clients don't recover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovered: Option<Histogram>,
}

/// The audit's columns. Deliveries unless said otherwise.
///
/// `expected == delivered + lost_silent + lost_declared + indeterminate` must hold to the last count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Publishes acknowledged.
    pub acknowledged: u64,
    /// Publishes refused with an error.
    pub refused: u64,
    /// Publishes whose outcome is not known: no reply, or a timeout.
    pub unknown: u64,
    /// Of those, by the scenario's own doing: it broke the connection, or kept the client from reading the reply.
    #[serde(default)]
    pub abandoned: u64,
    /// Acknowledged messages × members joined before and leaving after, plus those at the edges.
    pub expected: u64,
    /// First copies that arrived, late ones included.
    pub delivered: u64,
    /// First copies, in `delivered` unless they were never acknowledged, that came to their member in a later membership than the
    /// one that was owed them: it had been told of a loss, or cut off, and joined again.
    #[serde(default)]
    pub belated: u64,
    /// Expected and never delivered, with the client told of a gap that covers it.
    pub lost_declared: u64,
    /// Expected and never delivered, and nobody said so.
    pub lost_silent: u64,
    /// At the edge of a join, a leave or a lost connection: neither owed nor wrong.
    pub indeterminate: u64,
    /// Copies after the first.
    pub duplicates: u64,
    /// First copies that came after a later message of the same sender and room, though one of the two was sent after the
    /// other was acknowledged, or over the same connection.
    pub reordered: u64,
    /// First copies, never acknowledged, that came after what the client had since sent over another connection: of unknown
    /// outcome when it did so. Not in `reordered`.
    #[serde(default)]
    pub late_unknown: u64,
    /// Copies that reached someone who was not a member.
    pub leaked: u64,
    /// First copies after the deadline (counted in `delivered` too).
    pub late: u64,
    /// First copies of messages that were never acknowledged: lucky, not owed. (What came of members that were away is
    /// in [`Recoveries`].)
    pub recovered: u64,
    /// Payloads that are none of ours or were damaged.
    pub corrupt: u64,
    /// Gap notices that clients were sent.
    pub gaps_declared: u64,
    /// Rooms whose members saw divergent orders.
    pub divergent_rooms: u64,
    /// Rooms with at least two members to compare.
    pub compared_rooms: u64,
    /// Whether conservation closed exactly. False means that the *tool* is broken and the run says nothing.
    pub conserved: bool,
}

impl Audit {
    /// Losses of both kinds.
    pub fn lost(&self) -> u64 {
        self.lost_declared + self.lost_silent
    }

    /// Whether the columns add up.
    pub fn closes(&self) -> bool {
        self.expected == self.delivered + self.lost() + self.indeterminate
    }

    /// Nothing lost, duplicated, out of its place (excused or not), leaked or damaged.
    pub fn is_clean(&self) -> bool {
        self.conserved
            && self.closes()
            && self.lost() == 0
            && self.duplicates == 0
            && self.reordered == 0
            && self.late_unknown == 0
            && self.leaked == 0
            && self.corrupt == 0
    }
}

impl Measured {
    /// Whether a fault struck a component that the strategy uses.
    pub fn is_disturbed(&self) -> bool {
        self.faults.iter().any(|mark| !mark.whom.is_empty())
    }

    /// Publishes that the servers refused, did not answer or could not be given, as a share of all.
    pub fn unserved_share(&self) -> f64 {
        let (audit, unsent) = (&self.audit, self.load.unsent);
        let unserved = audit.refused + audit.unknown.saturating_sub(audit.abandoned) + unsent;
        unserved as f64 / (audit.acknowledged + audit.refused + audit.unknown + unsent).max(1) as f64
    }
}

/// Figures over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Length of an interval (1,000 unless the scenario has faults; then shorter).
    pub interval_ms: u64,
    /// One per interval, from the first intended send to the end of the drain, without holes.
    pub points: Vec<Point>,
}

/// One interval of the series.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Publishes intended in this interval.
    pub scheduled: u64,
    /// Publishes written in this interval.
    pub sent: u64,
    /// Publishes refused or timed out in this interval.
    pub failed: u64,
    /// Copies that arrived in this interval.
    pub delivered: u64,
    /// Of messages intended in this interval: deliveries lost in the end, declared or not.
    pub lost: u64,
    /// Gap notices in this interval.
    pub gaps: u64,
    /// Connections open at its end.
    pub connections: u64,
    /// Delivery latency of what arrived in this interval; absent when nothing did.
    pub delivery_us_p50: Option<u64>,
    /// 99th percentile of the same.
    pub delivery_us_p99: Option<u64>,
    /// Longest of the same.
    pub delivery_us_max: Option<u64>,
}

/// State of the generator, for the validity gates.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Threads that drive connections.
    pub threads: u64,
    /// Share of wall time that the busiest of them was on a core, 0 to 1.
    pub busy_share_max: f64,
    /// Share of wall time that the same thread was ready to run and waited for a core, 0 to 1: what it received then
    /// looks later than it was. 0 where the kernel doesn't tell.
    #[serde(default)]
    pub queued_share_max: f64,
    /// CPU time, user and kernel, within the window.
    pub cpu_s: f64,
    /// Of that, in user space.
    pub cpu_user_s: f64,
    /// Peak resident memory of the process.
    pub rss_bytes_max: u64,
}

/// Where a run stands, for progress displays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Opening connections and joining rooms.
    Connect,
    /// Sending, not counting.
    WarmUp,
    /// Counting.
    Window,
    /// Waiting for stragglers.
    Drain,
}

/// A glance at a running run, about once a second. Provisional: loss is known only after the drain.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Live {
    /// What it does now.
    pub phase: Phase,
    /// Since the first intended send (or, while connecting, since the start).
    pub elapsed_s: f64,
    /// Planned length, warm-up and drain included.
    pub total_s: f64,
    /// Publishes per second over the last interval.
    pub sent_per_s: f64,
    /// Deliveries per second over the last interval.
    pub delivered_per_s: f64,
    /// 99th percentile of delivery over the last interval.
    pub delivery_us_p99: Option<u64>,
    /// Deliveries missing by now.
    pub lost: u64,
    /// Connections open.
    pub connections: u64,
}
