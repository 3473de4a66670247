//! Rules for the claims about plans: what they cost and what they suit.

use super::experiments::SWEEP;
use super::rules::{Evidence, Found, Judgement, missing};
use crate::record::{Amplification, ComponentKind, RunRecord};
use crate::report::gather::{Cell, amplification, cpu_us_per_delivery_served, delivery_ms_p99};
use crate::report::holds;
use crate::report::text::{ms, per_s, ratio, share, significant};
use crate::stats::{BLOCKS_MIN, Difference, compare_paired, correct};

/// A p99 counts as equal where the interval of its ratio stays below this.
const EQUIVALENT_RATIO_MAX: f64 = 1.25;

/// Broker writes per publish may be off by this much from a whole number: publishes under way at the window's edges.
const WRITES_TOLERANCE: f64 = 0.05;

pub(super) fn broadcast_multiplies(evidence: &Evidence<'_>) -> Found {
    let Some(broadcast) = evidence.cell("small-rooms", "kafka-broadcast") else {
        return missing("no valid run of kafka-broadcast in small-rooms");
    };
    let Some(writes) = broadcast.median(|run| amplification(run, Amplification::write)) else {
        return missing("the nodes don't report broker writes");
    };
    let nodes = broadcast.runs[0].contender.nodes as f64;
    let disk = evidence.cell("small-rooms", "kafka-keyed").and_then(|keyed| {
        Some(broadcast.median(disk_bytes_per_publish)? / keyed.median(disk_bytes_per_publish)?)
    });
    let disk_text = disk.map_or(String::new(), |disk| {
        format!("; Kafka put {} the bytes of kafka-keyed on disk", ratio(disk))
    });
    let figure = format!("{} writes per publish on {nodes:.0} nodes{disk_text}", significant(writes));
    if (writes / nodes - 1.0).abs() <= WRITES_TOLERANCE {
        (figure, Judgement::Confirmed, "one write per live partition, and a partition per node".to_owned())
    } else if writes > 1.0 + WRITES_TOLERANCE {
        (figure, Judgement::Depends, "it multiplies, but not by the number of nodes".to_owned())
    } else {
        (figure, Judgement::Refuted, "one write per publish".to_owned())
    }
}

fn disk_bytes_per_publish(run: &RunRecord) -> Option<f64> {
    let kafka = run.cost.components.iter().filter(|component| component.kind == ComponentKind::Kafka);
    let bytes: Option<u64> = kafka.map(|component| component.disk_bytes).sum();
    let bytes = bytes.filter(|bytes| *bytes > 0);
    (run.measured.load.sent > 0).then_some(bytes? as f64 / run.measured.load.sent as f64)
}

pub(super) fn broadcast_suits_giant(evidence: &Evidence<'_>) -> Found {
    let (Some(broadcast), Some(keyed)) =
        (evidence.cell("giant-room", "kafka-broadcast"), evidence.cell("giant-room", "kafka-keyed"))
    else {
        return missing("needs valid runs of kafka-broadcast and kafka-keyed in giant-room");
    };
    let latency = against(keyed, broadcast, delivery_ms_p99);
    let cpu = against(keyed, broadcast, cpu_us_per_delivery_served);
    let (Some(latency), Some(cpu)) = (latency, cpu) else {
        return missing("kafka-broadcast and kafka-keyed share no valid block in giant-room");
    };
    let mut family = [latency, cpu];
    correct(&mut family);
    let [latency, cpu] = family;
    let target_us = broadcast.runs[0].scenario.delivery_us_p99_target as f64;
    let p99 = broadcast.median(delivery_ms_p99).unwrap_or(f64::INFINITY);
    let figure = format!(
        "p99 {}, {} of kafka-keyed's; CPU per delivery {} of it",
        ms(p99),
        ratio(latency.ratio.median),
        ratio(cpu.ratio.median)
    );
    let meets = p99 * 1e3 <= target_us && broadcast.kept();
    match () {
        () if !meets => (figure, Judgement::Refuted, "it misses the target or breaks a promise".to_owned()),
        () if latency.call.is_smaller() || (!latency.call.is_larger() && cpu.call.is_smaller()) => {
            (figure, Judgement::Confirmed, "better than plan 2 at the same job".to_owned())
        }
        () if latency.call.is_larger() || cpu.call.is_larger() => (
            figure,
            Judgement::Depends,
            "it meets the target, but so does plan 2, for less: at this size the fan-out to members costs more than the backplane"
                .to_owned(),
        ),
        () => (
            figure,
            Judgement::Depends,
            "it meets the target, with no clear difference from plan 2".to_owned(),
        ),
    }
}

pub(super) fn keyed_writes_once(evidence: &Evidence<'_>) -> Found {
    let writes = evidence
        .cell("small-rooms", "kafka-keyed")
        .and_then(|keyed| keyed.median(|run| amplification(run, Amplification::write)));
    let Some(writes) = writes else {
        return missing("no valid run of kafka-keyed in small-rooms that reports broker writes");
    };
    let figure = format!("{} writes per publish", significant(writes));
    if (writes - 1.0).abs() <= WRITES_TOLERANCE {
        (figure, Judgement::Confirmed, "one record per message".to_owned())
    } else {
        (figure, Judgement::Refuted, "more than one record per message".to_owned())
    }
}

pub(super) fn keyed_overloads(evidence: &Evidence<'_>) -> Found {
    let mut figures = Vec::new();
    // Highest rate that the partition carried, lowest that it did not, and whether the other backplane carried that one.
    let (mut carried, mut failed) = (None, None);
    for (rate, variant) in SWEEP {
        let of = |label| evidence.experiment(variant.name, label);
        let (Some(keyed), Some(redis)) = (of("kafka-keyed"), of("redis-pubsub")) else { continue };
        let p99 = |cell: &Cell<'_>| cell.median(delivery_ms_p99).map_or("–".to_owned(), ms);
        figures.push(format!("{}: p99 {} (Redis {})", per_s(rate as f64), p99(keyed), p99(redis)));
        if carries(keyed) {
            carried = Some(rate);
        } else if failed.is_none() {
            failed = Some((rate, carries(redis)));
        }
    }
    let said = |rate: u64| per_s(rate as f64);
    let (judgement, why) = match (carried, failed) {
        (None, None) => {
            return missing("needs valid runs of the rate sweep in one room (`loadgen claims` or --full)");
        }
        (Some(rate), None) => (
            Judgement::Refuted,
            format!(
                "one partition carried {} of one room within the target, as far as was measured; a giant room's load is the fan-out to its members, and no partition carries that",
                said(rate)
            ),
        ),
        (_, Some((rate, true))) => (
            Judgement::Confirmed,
            format!(
                "from {} on one partition misses the target, and a backplane without partitions does not",
                said(rate)
            ),
        ),
        (_, Some((rate, false))) => (
            Judgement::Depends,
            format!(
                "from {} on both miss the target: it is not the partition that is overloaded",
                said(rate)
            ),
        ),
    };
    (figures.join("; "), judgement, why)
}

fn carries(cell: &Cell<'_>) -> bool {
    cell.valid().all(|run| holds(run, run.scenario.delivery_us_p99_target))
}

pub(super) fn redis_better(evidence: &Evidence<'_>) -> Found {
    let mut names = Vec::new();
    let mut family = Vec::new();
    for table in evidence.healthy() {
        let (Some(redis), Some(keyed)) =
            (evidence.cell(&table.name, "redis-pubsub"), evidence.cell(&table.name, "kafka-keyed"))
        else {
            continue;
        };
        let latency = against(keyed, redis, delivery_ms_p99);
        let cpu = against(keyed, redis, cpu_us_per_delivery_served);
        if let (Some(latency), Some(cpu)) = (latency, cpu) {
            names.push(table.name.as_str());
            family.extend([latency, cpu]);
        }
    }
    correct(&mut family);
    let better = family.iter().step_by(2).filter(|latency| latency.call.is_smaller()).count();
    let worse = family.iter().step_by(2).filter(|latency| latency.call.is_larger()).count();
    let lower = family.iter().step_by(2).filter(|latency| latency.ratio.high < 1.0).count();
    let mut figures: Vec<String> = names
        .iter()
        .zip(family.chunks(2))
        .map(|(name, pair)| {
            let [p99, cpu] = [0, 1].map(|index: usize| ratio(pair[index].ratio.median));
            format!("{name}: p99 {p99}, CPU {cpu} of Kafka's")
        })
        .collect();
    if figures.is_empty() {
        return missing("redis-pubsub and kafka-keyed share no valid block");
    }
    let lost =
        |scenario, label| evidence.cell(scenario, label).map(|cell| (cell.audit().lost(), lost_text(cell)));
    let (redis_lost, kafka_lost) =
        (lost("redis-restart", "redis-pubsub"), lost("broker-restart", "kafka-keyed"));
    for (who, lost) in [("Redis", &redis_lost), ("Kafka", &kafka_lost)] {
        figures.push(lost.as_ref().map_or(format!("restart of {who} not measured"), |(_, lost)| {
            format!("restart of {who}: {lost}")
        }));
    }
    let scenarios = figures.len() - 2;
    let (judgement, why) = match redis_lost.map(|(lost, _)| lost) {
        Some(1..) if better > 0 => {
            (Judgement::Depends, "faster while healthy, but what is sent while Redis restarts is gone")
        }
        // Five blocks can't carry a correction over so many comparisons; the intervals of the ratios stand by themselves.
        Some(1..) if lower > 0 && lower * 2 > scenarios => (
            Judgement::Depends,
            "a lower p99 in most healthy scenarios by the interval of its ratio (too few blocks to prove each one after correction), but what is sent while Redis restarts is gone",
        ),
        Some(0) if better == scenarios => {
            (Judgement::Confirmed, "faster everywhere, and nothing was lost when it restarted")
        }
        None if better == scenarios => {
            (Judgement::Depends, "faster everywhere while healthy; what its restart costs was not measured")
        }
        _ if worse == scenarios => (Judgement::Refuted, "slower everywhere"),
        _ => (Judgement::Depends, "it differs by scenario, or the difference is within the noise"),
    };
    (figures.join("; "), judgement, why.to_owned())
}

pub(super) fn hybrid_has_both(evidence: &Evidence<'_>) -> Found {
    let (Some(hybrid), Some(redis)) =
        (evidence.cell("small-rooms", "hybrid"), evidence.cell("small-rooms", "redis-pubsub"))
    else {
        return missing("needs valid runs of hybrid and redis-pubsub in small-rooms");
    };
    let Some(latency) = against(redis, hybrid, delivery_ms_p99) else {
        return missing("hybrid and redis-pubsub share no valid block in small-rooms");
    };
    let mut figure = format!("p99 {} of Redis's", ratio(latency.ratio.median));
    let Some(restart) = evidence.cell("redis-restart", "hybrid") else {
        figure.push_str("; a restart of Redis was not measured");
        return (
            figure,
            Judgement::NotMeasured,
            "the half about memory needs redis-restart (--full)".to_owned(),
        );
    };
    let lost = restart.audit().lost();
    figure.push_str(&format!("; when Redis restarts, {}", lost_text(restart)));
    let slower = latency.call.is_larger();
    let (judgement, why) = match (slower, lost) {
        (false, 0) if latency.ratio.samples < BLOCKS_MIN => (
            Judgement::Depends,
            "nothing lost without Redis; too few blocks to tell its latency from Redis's, which is not the same as being as fast",
        ),
        (false, 0) if latency.ratio.high <= EQUIVALENT_RATIO_MAX => {
            (Judgement::Confirmed, "a p99 as low as Redis's, and nothing lost without it")
        }
        (false, 0) => (
            Judgement::Depends,
            "nothing lost without Redis; its p99 is not proven to be higher than Redis's, and not shown to be as low",
        ),
        (true, 0) => (
            Judgement::Depends,
            "nothing lost, at a higher p99 than Redis alone: three processes more compete for the cores",
        ),
        (false, _) => (
            Judgement::Depends,
            "no clear difference from Redis in latency, but a restart of Redis cost messages",
        ),
        (true, _) => (Judgement::Refuted, "slower than Redis, and a restart of Redis cost messages"),
    };
    (figure, judgement, why.to_owned())
}

/// What a cell lost, as a share of what was expected.
fn lost_text(cell: &Cell<'_>) -> String {
    let (audit, runs) = (cell.audit(), cell.runs.len());
    let word = if runs == 1 { "run" } else { "runs" };
    match audit.lost() {
        0 => format!("nothing lost in {runs} {word}"),
        lost => format!("{} of deliveries lost in {runs} {word}", share(lost, audit.expected)),
    }
}

fn against(a: &Cell<'_>, b: &Cell<'_>, figure: fn(&RunRecord) -> Option<f64>) -> Option<Difference> {
    compare_paired(&a.pairs(b, figure))
}
