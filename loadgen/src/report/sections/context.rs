//! What a reader needs in order to believe it: method, environment, validity, raw data.

use std::collections::{BTreeMap, BTreeSet};

use super::threats;
use crate::campaign::Failure;
use crate::record::{Role, RunRecord};
use crate::report::document::{Block, Entry, Table, Tone};
use crate::report::text::{bytes, count, ms, per_s, percent};
use crate::stats::{ALPHA, BLOCKS_MIN};

pub(super) fn section(records: &[RunRecord], paths: &[String], failures: &[Failure]) -> Vec<Block> {
    let mut blocks = method(records);
    blocks.extend(environment(records));
    blocks.extend(validity(records));
    blocks.extend(failed(failures));
    blocks.extend(threats::section(records));
    blocks.extend(raw(records, paths));
    blocks
}

fn method(records: &[RunRecord]) -> Vec<Block> {
    let commands: BTreeSet<String> = records.iter().map(reproduce).collect();
    let mut points = vec![
        "**Load.** Open loop: each message has an intended send time on a seeded, precomputed schedule. Latency runs from *intended*, so a \
         stall shows in full (no coordinated omission). Every delivery is timed and audited; nothing is sampled."
            .to_owned(),
        "**Blocks.** Each block runs every strategy once per scenario in a seeded random order, with topics and keys of its own and freshly \
         started nodes. Brokers stay up across runs, and Kafka is warmed before anything counts, except where a fault strikes a broker: those \
         runs have brokers of their own, not warmed (“Threats to validity” has the ages)."
            .to_owned(),
        format!(
            "**Statistics.** The run is the sample. Medians with bootstrap intervals (95 %), or with the range below {BLOCKS_MIN} runs; differences paired by block: median ratio with \
             interval, Mann–Whitney corrected by Holm's method at {ALPHA}. Whatever can't be told apart is a tie. Fewer than {BLOCKS_MIN} blocks \
             give an indication at most."
        ),
        "**Decision rule.** Candidates kept every promise, have a clean audit and meet the p99 target. The lowest p99 wins; who can't \
         be told from it is tied with it; ties go to the lower CPU per delivery of nodes and brokers; what is tied then is a tie. Fewer than two \
         shared blocks leave it undecided. The one-node reference and counter-examples are no candidates."
            .to_owned(),
        "**Faults.** Nobody wins a scenario with a fault: “What a failure costs” shows what each strategy lost, told and silent, beside those \
         that the fault can't touch. Elsewhere a strategy is said to lose more than another only where the other lost nothing, or where \
         the shares lost, paired by block, differ by the rules above."
            .to_owned(),
    ];
    if let Some(rules) = records.first().map(|record| record.validity.rules) {
        points.push(format!(
            "**Validity.** A run counts only if it offered at least {} of its target, send lag p99 stayed within {} of the latency target, no \
             generator thread was on a core or waiting for one for more than {} of the time, at least {} deliveries lie beyond p99, the audit's \
             columns add up, and what the scenario is for took place. Deeper percentiles with fewer samples beyond them are shown as a dash. An invalid \
             run is repeated once at the end of its block; both are kept and listed.",
            percent(rules.offered_share_min),
            percent(rules.send_lag_share_max),
            percent(rules.busy_share_max),
            rules.samples_beyond_min
        ));
    }
    let mut blocks = vec![Block::heading(2, "method", "Method"), Block::List(points)];
    if !commands.is_empty() {
        let text = commands.into_iter().collect::<Vec<_>>().join("\n");
        blocks.push(Block::Verbatim { summary: "Commands that reproduce the runs".to_owned(), text });
    }
    blocks.push(Block::Table(scenarios(records)));
    blocks
}

/// A run's command with the commit that it ran at; it names its own seed where that was given.
fn reproduce(record: &RunRecord) -> String {
    let tool = &record.setting.tool;
    let dirty = if tool.dirty { ", with uncommitted changes" } else { "" };
    format!("{}  # at commit {}{dirty}", record.command, tool.commit)
}

fn scenarios(records: &[RunRecord]) -> Table {
    let mut seen: BTreeMap<(&str, &str), &RunRecord> = BTreeMap::new();
    for record in records.iter().filter(|record| record.role == Role::Comparison) {
        // Figures of the load come from a contender: the floor has fewer nodes.
        let entry = seen.entry((&record.scenario.name, &record.scenario.digest)).or_insert(record);
        if entry.contender.floor && !record.contender.floor {
            *entry = record;
        }
    }
    let rows = seen.into_values().map(|record| {
        let load = &record.measured.load;
        vec![
            Entry::text(&*record.scenario.name).toned(Tone::Strong),
            Entry::number(count(load.nodes)),
            Entry::number(count(load.rooms)),
            Entry::number(count(load.members_max)),
            Entry::number(count(load.connections)),
            Entry::number(per_s(load.target_per_s)),
            Entry::number(per_s(load.delivered_per_s)),
            Entry::number(bytes(load.payload_bytes_mean as u64)),
            Entry::number(format!("{:.0} s + {:.1} s", record.measured.window_s, record.measured.warm_up_s)),
            Entry::number(ms(record.scenario.delivery_us_p99_target as f64 / 1e3)),
        ]
    });
    Table {
        caption: "Scenarios as they ran.".to_owned(),
        head: [
            "Scenario",
            "Nodes",
            "Rooms",
            "Largest room",
            "Connections",
            "Publishes",
            "Deliveries",
            "Payload",
            "Counted + warm-up",
            "p99 target",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn environment(records: &[RunRecord]) -> Vec<Block> {
    let Some(first) = records.first() else { return Vec::new() };
    let (hardware, tool) = (&first.setting.hardware, &first.setting.tool);
    let steal = records.iter().map(|record| record.setting.hardware.steal_share).fold(0.0, f64::max);
    let mut points = vec![
        format!(
            "**Machine.** {}, {} logical processors, {}{}.",
            hardware.cpu,
            hardware.cores,
            bytes(hardware.memory_bytes),
            if hardware.virtual_machine { ", a virtual machine" } else { "" }
        ),
        format!(
            "**System.** {}, kernel {}. CPU time stolen by the host: at most {} in a run.",
            hardware.os,
            hardware.kernel,
            percent(steal)
        ),
        format!(
            "**Load generator.** {} ({} build), commit `{}`{}.",
            tool.version,
            tool.profile,
            tool.commit,
            if tool.dirty { " with uncommitted changes" } else { "" }
        ),
    ];
    let servers: BTreeSet<String> = records
        .iter()
        .filter(|record| record.role != Role::Null)
        .map(|record| format!("{} (commit `{}`)", record.contender.version, record.contender.commit))
        .collect();
    if !servers.is_empty() {
        points.push(format!("**Server.** {}.", servers.into_iter().collect::<Vec<_>>().join(", ")));
    }
    let mut blocks = vec![Block::heading(2, "environment", "Environment")];
    let mut configurations: BTreeMap<&str, BTreeMap<Vec<&str>, String>> = BTreeMap::new();
    for broker in records.iter().flat_map(|record| &record.setting.brokers) {
        let known = configurations.entry(&broker.name).or_insert_with(|| {
            points.push(format!("**{}.** {}.", broker.name, broker.version));
            BTreeMap::new()
        });
        known
            .entry(essence(&broker.configuration))
            .or_insert_with(|| format!("{}\n\n{}", broker.command, broker.configuration));
    }
    blocks.push(Block::List(points));
    for (name, variants) in configurations {
        let of = variants.len();
        for (text, number) in variants.into_values().zip(1..) {
            let which = if of > 1 { format!(" ({number} of {of} that were used)") } else { String::new() };
            let summary = format!("{name}: command line and configuration{which}");
            blocks.push(Block::Verbatim { summary, text });
        }
    }
    blocks.extend(common(records));
    blocks.push(Block::Table(settings(records)));
    blocks
}

/// The lines of a configuration that are the same in every run: those with addresses and folders never are.
fn essence(configuration: &str) -> Vec<&str> {
    configuration.lines().filter(|line| !line.contains("127.0.0.1") && !line.contains('/')).collect()
}

/// Settings that name a run's own places and say nothing of the strategy.
const PLACES: [&str; 5] = ["kafka", "listen", "namespace", "node", "redis"];

/// One run of each contender, for its settings.
fn contenders(records: &[RunRecord]) -> Vec<&RunRecord> {
    let mut seen: BTreeMap<&str, &RunRecord> = BTreeMap::new();
    for record in records.iter().filter(|record| record.role != Role::Null) {
        seen.entry(&record.contender.label).or_insert(record);
    }
    seen.into_values().collect()
}

/// A contender's settings as `key=value`, but for places.
fn pairs(record: &RunRecord) -> BTreeSet<String> {
    let object = record.contender.settings.as_object().into_iter().flatten();
    let kept = object.filter(|(key, _)| !PLACES.contains(&key.as_str()));
    kept.map(|(key, value)| format!("`{key}={value}`")).collect()
}

/// The settings that all contenders have in common.
fn shared(contenders: &[&RunRecord]) -> BTreeSet<String> {
    let all = contenders.iter().map(|record| pairs(record));
    all.reduce(|a, b| a.intersection(&b).cloned().collect()).unwrap_or_default()
}

fn common(records: &[RunRecord]) -> Option<Block> {
    let shared = shared(&contenders(records));
    let text = shared.into_iter().collect::<Vec<_>>().join(" ");
    (!text.is_empty()).then(|| Block::Text(format!("Settings that every strategy ran with: {text}.")))
}

fn settings(records: &[RunRecord]) -> Table {
    let contenders = contenders(records);
    let shared = shared(&contenders);
    let rows = contenders.iter().map(|record| {
        let contender = &record.contender;
        let own: Vec<String> = pairs(record).difference(&shared).cloned().collect();
        vec![
            Entry::text(&*contender.label).toned(Tone::Strong),
            Entry::text(&*contender.summary),
            Entry::number(contender.nodes.to_string()),
            Entry::text(if own.is_empty() { "–".to_owned() } else { own.join(" ") }),
        ]
    });
    Table {
        caption: "Strategies with the effective settings of their own, from `/info`; addresses and names of single runs are left out."
            .to_owned(),
        head: ["Strategy", "How", "Nodes", "Settings"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

fn validity(records: &[RunRecord]) -> Vec<Block> {
    let mut blocks = vec![Block::heading(2, "validity", "Validity")];
    for record in records.iter().filter(|record| record.role == Role::Null) {
        blocks.push(null_run(record));
    }
    if records.iter().all(|record| record.role != Role::Null) {
        blocks.push(Block::Note(
            Tone::Warn,
            "No null run: the generator's own share of the latencies is not known.".to_owned(),
        ));
    }
    let invalid: Vec<&RunRecord> = records.iter().filter(|record| !record.validity.valid).collect();
    if invalid.is_empty() {
        blocks.push(Block::Text(format!(
            "All {} runs passed the validity gates.",
            count(records.len() as u64)
        )));
        return blocks;
    }
    let rows = invalid.iter().flat_map(|record| {
        record.validity.objections.iter().map(|objection| {
            vec![
                Entry::text(&*record.scenario.name),
                Entry::text(&*record.contender.label).toned(Tone::Strong),
                Entry::number(record.block.to_string()),
                Entry::text(&*objection.found).toned(Tone::Bad),
                Entry::text(&*objection.remedy),
            ]
        })
    });
    blocks.push(Block::Table(Table {
        caption: format!(
            "{} of {} runs are invalid: listed here, kept in the raw data, never ranked.",
            invalid.len(),
            records.len()
        ),
        head: ["Scenario", "Strategy", "Block", "Reason", "Remedy"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }));
    blocks
}

fn failed(failures: &[Failure]) -> Option<Block> {
    let rows = failures.iter().map(|failure| {
        vec![
            Entry::text(&*failure.scenario),
            Entry::text(&*failure.label).toned(Tone::Strong),
            Entry::number(failure.block.to_string()),
            Entry::text(&*failure.error).toned(Tone::Bad),
        ]
    });
    let table = Table {
        caption: "Runs that could not be made. They count as not measured.".to_owned(),
        head: ["Scenario", "Strategy", "Block", "Why"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    };
    (!failures.is_empty()).then_some(Block::Table(table))
}

fn null_run(record: &RunRecord) -> Block {
    let measured = &record.measured;
    let quantile = |quantile| {
        measured.latencies.delivery.quantile_us(quantile).map_or("–".to_owned(), |us| ms(us as f64 / 1e3))
    };
    let text = format!(
        "**Null run** (a server that only echoes, no backplane): {} deliveries per second at {} busy, delivery p50 {}, p99 {}, send lag p99 {}. \
         That is the generator's own share of every latency in {} at {}. Other scenarios load the generator otherwise; \
         whether it could follow is judged in each run by its send lag and its busiest thread. The generator's ceiling was not measured here \
          (`cargo run --release -p manifold-loadgen --example ceiling` measures that).",
        count(measured.load.delivered_per_s.round() as u64),
        percent(measured.generator.busy_share_max),
        quantile(0.5),
        quantile(0.99),
        measured.latencies.send_lag.quantile_us(0.99).map_or("–".to_owned(), |us| ms(us as f64 / 1e3)),
        record.scenario.name,
        per_s(measured.load.target_per_s),
    );
    Block::Note(if record.validity.valid { Tone::Good } else { Tone::Bad }, text)
}

fn raw(records: &[RunRecord], paths: &[String]) -> Vec<Block> {
    let rows = records.iter().zip(paths).map(|(record, path)| {
        vec![
            Entry::text(&*record.scenario.name),
            Entry::text(&*record.contender.label),
            Entry::number(record.block.to_string()),
            Entry::number(record.seed.to_string()),
            Entry::text(format!("[{path}]({path})")),
        ]
    });
    let table = Table {
        caption: "Each `run.json` holds the whole distribution, series, audit and configuration; `loadgen report` renders this page again from them."
            .to_owned(),
        head: ["Scenario", "Strategy", "Block", "Seed", "Record"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    };
    vec![Block::heading(2, "raw", "Raw data"), Block::Table(table)]
}
