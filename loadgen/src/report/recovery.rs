//! How a run took a fault: read off its series.

use crate::record::{Deed, FaultMark, Point, RunRecord, Target};
use crate::report::text::percent;
use crate::stats::median;

/// A run counts as recovered once this many intervals in a row are as before.
pub(super) const CALM_INTERVALS: usize = 3;

/// As before: at least this share of the deliveries before the fault…
pub(super) const RATE_SHARE_MIN: f64 = 0.8;

/// …at no more than this multiple of their p99 (or within the target, if that is larger).
pub(super) const LATENCY_FACTOR_MAX: f64 = 2.0;

/// Back for good: how long the end of the load must be as before, seconds…
pub const BACK_S: f64 = 1.5;

/// …with at least this share of the deliveries per publish: one room of twenty that stays silent shows.
const BACK_SHARE_MIN: f64 = 0.96;

/// Something that was done to the system under test, or to its clients.
#[derive(Debug, Clone, PartialEq)]
pub struct Blow {
    /// When it began, in seconds since the load began.
    pub began_s: f64,
    /// In words: `kill -9 n2`, `restart redis`, `cut off 100 % of the clients`.
    pub text: String,
}

/// What was done in a run: faults that struck a process, and clients that the scenario cut off; by time.
pub fn blows(run: &RunRecord) -> Vec<Blow> {
    let struck = run.measured.faults.iter().filter(|mark| !mark.whom.is_empty());
    let struck = struck.map(|mark| Blow { began_s: mark.began_s, text: describe(mark) });
    let cut = cuts(run).map(|(at_s, deed, share)| Blow {
        began_s: run.measured.warm_up_s + at_s,
        text: format!("{deed} {} of the clients", percent(share)),
    });
    let mut blows: Vec<Blow> = struck.chain(cut).collect();
    blows.sort_by(|a, b| a.began_s.total_cmp(&b.began_s));
    blows
}

/// When the scenario ended clients' connections, in seconds of the counted window, how, and of how large a share of them.
fn cuts(run: &RunRecord) -> impl Iterator<Item = (f64, &'static str, f64)> {
    let steps = run.scenario.parameters["clients"].as_array().into_iter().flatten();
    steps.filter_map(|step| {
        let deed = match step["do"].as_str()? {
            "disconnect" => "cut off",
            "half-open" => "leave without a goodbye",
            "garbage" => "send garbage from",
            _ => return None,
        };
        Some((step["at_s"].as_f64()?, deed, step["share"].as_f64()?))
    })
}

/// Whether the load ended as it was before the first blow: nothing refused, as many deliveries per publish, as fast. A run that
/// does not, has not recovered, however long its last silence looks.
pub fn is_back(run: &RunRecord) -> bool {
    let measured = &run.measured;
    let interval_s = measured.series.interval_ms as f64 / 1e3;
    let index = |at_s: f64| (at_s / interval_s).floor().max(0.0) as usize;
    let Some(first) = blows(run).into_iter().next() else { return true };
    let points = &measured.series.points;
    // The last interval of the window is cut short and says nothing.
    let end = index(measured.warm_up_s + measured.window_s).saturating_sub(1).min(points.len());
    let before = points.get(index(measured.warm_up_s)..index(first.began_s).min(end)).unwrap_or_default();
    let last = &points[end.saturating_sub(index(BACK_S))..end];
    let per_publish = |points: &[Point]| {
        let sum = |pick: fn(&Point) -> u64| points.iter().map(pick).sum::<u64>() as f64;
        sum(|point| point.delivered) / sum(|point| point.scheduled).max(1.0)
    };
    let p99_us = |points: &[Point]| {
        median(&points.iter().filter_map(|point| Some(point.delivery_us_p99? as f64)).collect::<Vec<_>>())
    };
    let p99_max =
        (p99_us(before).unwrap_or(0.0) * LATENCY_FACTOR_MAX).max(run.scenario.delivery_us_p99_target as f64);
    // What the warm-up left behind came within the first intervals, too: nobody is owed more than one copy.
    let due = per_publish(before).min(measured.load.members_max as f64);
    last.iter().all(|point| point.failed == 0)
        && per_publish(last) >= due * BACK_SHARE_MIN
        && p99_us(last).is_some_and(|us| us <= p99_max)
}

/// Time from each blow until things were as before, in seconds; `None` if they never were within the run. The state before is
/// that of the counted window up to the first blow.
pub fn recoveries(run: &RunRecord) -> Vec<Option<f64>> {
    let measured = &run.measured;
    let interval_s = measured.series.interval_ms as f64 / 1e3;
    let index = |at_s: f64| (at_s / interval_s).floor().max(0.0) as usize;
    let blows = blows(run);
    let Some(first) = blows.first() else { return Vec::new() };
    let points = &measured.series.points;
    let before = points.get(index(measured.warm_up_s)..index(first.began_s)).unwrap_or_default();
    let rate_before =
        median(&before.iter().map(|point| point.delivered as f64).collect::<Vec<_>>()).unwrap_or(0.0);
    let p99s: Vec<f64> =
        before.iter().filter_map(|point| point.delivery_us_p99).map(|us| us as f64).collect();
    let p99_max =
        (median(&p99s).unwrap_or(0.0) * LATENCY_FACTOR_MAX).max(run.scenario.delivery_us_p99_target as f64);
    // The last interval of the window is cut short and says nothing.
    let end = index(measured.warm_up_s + measured.window_s).saturating_sub(1).min(points.len());
    blows
        .iter()
        .map(|blow| {
            let start = (index(blow.began_s) + 1).min(end);
            let calm = |at: usize| {
                points[at..at + CALM_INTERVALS].iter().all(|point| {
                    point.delivered as f64 >= rate_before * RATE_SHARE_MIN
                        && point.delivery_us_p99.is_some_and(|us| us as f64 <= p99_max)
                })
            };
            let back = (start..end.saturating_sub(CALM_INTERVALS - 1)).find(|at| calm(*at));
            back.map(|at| (at as f64 * interval_s - blow.began_s).max(0.0))
        })
        .collect()
}

/// A fault in words: `kill n2`, `restart redis`.
fn describe(mark: &FaultMark) -> String {
    let deed = match mark.fault.deed {
        Deed::Kill => "kill -9",
        Deed::Stop => "stop",
        Deed::Continue => "continue",
        Deed::Restart => "restart",
        Deed::Add => "add",
        Deed::Drain => "drain",
        Deed::Roll => "restart in turn",
        Deed::Stall => "stall",
        Deed::Cut => "cut",
        Deed::Slow => "slow down",
        Deed::Mend => "mend",
        Deed::Launch => "launch",
        Deed::Await => "wait for",
        Deed::Grow => "double the partitions of",
        Deed::Delete => "delete",
        Deed::Exhaust => "use up",
        Deed::Relieve => "give back",
        Deed::Migrate => "move",
    };
    let target = match mark.fault.to {
        Target::Node => "node",
        Target::Kafka => "Kafka",
        Target::Redis => "Redis",
        Target::Nodes => "all nodes",
        Target::KafkaLeader => "Kafka's leader",
        Target::KafkaMajority => "most of Kafka",
        Target::RedisMaster => "Redis's master",
        Target::KafkaLink => "the link to Kafka",
        Target::RedisLink => "the link to Redis",
        Target::KafkaTopics => "Kafka's topics",
        Target::KafkaDisk => "Kafka's disk",
        Target::NodeFiles => "a node's file descriptors",
        Target::RedisMemory => "Redis's memory",
        Target::RedisBuffers => "Redis's output buffers",
        Target::RedisSlots => "hash slots",
    };
    if mark.whom.is_empty() { format!("{deed} {target}") } else { format!("{deed} {}", mark.whom) }
}
