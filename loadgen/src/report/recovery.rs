//! How a run took a fault: read off its series.

use crate::record::{Deed, FaultMark, Measured, Target};
use crate::stats::median;

/// A run counts as recovered once this many intervals in a row are as before.
pub(super) const CALM_INTERVALS: usize = 3;

/// As before: at least this share of the deliveries before the fault…
pub(super) const RATE_SHARE_MIN: f64 = 0.8;

/// …at no more than this multiple of their p99 (or within the target, if that is larger).
pub(super) const LATENCY_FACTOR_MAX: f64 = 2.0;

/// What came of one fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Time from the fault until things were as before; `None` if they never were within the run.
    pub recovered_s: Option<f64>,
    /// Longest silence of any one room, milliseconds.
    pub silence_ms: f64,
}

/// Judges each fault that struck. The state before is that of the counted window up to the first fault.
pub fn recoveries(measured: &Measured, target_us: u64) -> Vec<(FaultMark, Recovery)> {
    let interval_s = measured.series.interval_ms as f64 / 1e3;
    let index = |at_s: f64| (at_s / interval_s).floor().max(0.0) as usize;
    let struck: Vec<&FaultMark> = measured.faults.iter().filter(|mark| !mark.whom.is_empty()).collect();
    let Some(first) = struck.first() else { return Vec::new() };
    let points = &measured.series.points;
    let before = points.get(index(measured.warm_up_s)..index(first.began_s)).unwrap_or_default();
    let rate_before =
        median(&before.iter().map(|point| point.delivered as f64).collect::<Vec<_>>()).unwrap_or(0.0);
    let p99s: Vec<f64> =
        before.iter().filter_map(|point| point.delivery_us_p99).map(|us| us as f64).collect();
    let p99_max = (median(&p99s).unwrap_or(0.0) * LATENCY_FACTOR_MAX).max(target_us as f64);
    // The last interval of the window is cut short and says nothing.
    let end = index(measured.warm_up_s + measured.window_s).saturating_sub(1).min(points.len());
    struck
        .into_iter()
        .map(|mark| {
            let start = (index(mark.began_s) + 1).min(end);
            let calm = |at: usize| {
                points[at..at + CALM_INTERVALS].iter().all(|point| {
                    point.delivered as f64 >= rate_before * RATE_SHARE_MIN
                        && point.delivery_us_p99.is_some_and(|us| us as f64 <= p99_max)
                })
            };
            let back = (start..end.saturating_sub(CALM_INTERVALS - 1)).find(|at| calm(*at));
            let recovered_s = back.map(|at| (at as f64 * interval_s - mark.began_s).max(0.0));
            (mark.clone(), Recovery { recovered_s, silence_ms: mark.longest_silence_ms() })
        })
        .collect()
}

/// A fault in words: `kill n2`, `restart redis`.
pub fn describe(mark: &FaultMark) -> String {
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
    };
    if mark.whom.is_empty() { format!("{deed} {target}") } else { format!("{deed} {}", mark.whom) }
}
