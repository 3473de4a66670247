//! Threats to validity: what a reader must bear in mind.

use crate::record::{Role, RunRecord};
use crate::report::document::Block;
use crate::report::text::count;

/// What may be otherwise elsewhere, or was not seen here.
pub(super) fn section(records: &[RunRecord]) -> Vec<Block> {
    let mut points = Vec::new();
    if let Some(hardware) = records.first().map(|record| &record.setting.hardware) {
        points.push(format!(
            "**One small shared machine.** Generator, nodes and brokers share {} processors{}. Rankings under other ratios of cores to brokers, \
             on real networks, or with replicated brokers may differ; a strategy that needs more processes suffers more here.",
            hardware.cores,
            if hardware.virtual_machine { " of a virtual machine, whose host may take time away" } else { "" }
        ));
    }
    points.push("**Loopback.** No network latency, no loss, no bandwidth limit: what differs here is processing alone.".to_owned());
    points.push("**Short runs.** Seconds, not hours: compaction, page-cache pressure, garbage collection of large heaps and log growth don't show.".to_owned());
    let replicated = |record: &RunRecord| {
        record
            .setting
            .brokers
            .iter()
            .any(|broker| matches!(broker.name.as_str(), "kafka-2" | "redis-replica"))
    };
    points.push(format!(
        "**One broker of each kind**, not replicated{}: an acknowledgement means one log or one memory.",
        if records.iter().any(replicated) {
            ", save in the scenarios that strike one of several"
        } else {
            ""
        }
    ));
    points.extend(warmth(records));
    if let Some(runs) =
        records.iter().filter(|record| record.role == Role::Comparison).map(|record| record.block).max()
    {
        points.push(format!(
            "**{runs} {}.** Rare events (rebalances, long pauses) may not have occurred in any.",
            if runs == 1 { "block" } else { "blocks" }
        ));
    }
    vec![Block::heading(2, "threats", "Threats to validity"), Block::List(points)]
}

/// How warm the JVM brokers really were.
fn warmth(records: &[RunRecord]) -> Option<String> {
    let struck = |record: &RunRecord| {
        record.measured.faults.iter().any(|mark| mark.fault.to.broker().is_some() && !mark.whom.is_empty())
    };
    let least = |struck_too: bool| {
        let runs = records.iter().filter(|record| struck(record) == struck_too);
        let brokers = runs.flat_map(|record| &record.setting.brokers);
        brokers
            .filter(|broker| broker.name.starts_with("kafka"))
            .map(|broker| (broker.age_s, broker.messages_before))
            .reduce(|a, b| (a.0.min(b.0), a.1.min(b.1)))
    };
    let words = |(age_s, messages): (f64, u64)| {
        format!("at least {age_s:.0} s old and had carried {} messages", count(messages))
    };
    let texts = [
        least(false).map(|warm| format!("where none was struck, Kafka was {} when a run began", words(warm))),
        least(true).map(|cold| {
            format!(
                "where a fault strikes a broker it was {}: latencies and silences there include a cold JVM",
                words(cold)
            )
        }),
    ];
    let texts: Vec<String> = texts.into_iter().flatten().collect();
    (!texts.is_empty()).then(|| {
        format!(
            "**Warmth of brokers.** A JVM's tail settles only after some hundred thousand messages; {}.",
            texts.join("; ")
        )
    })
}
