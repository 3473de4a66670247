//! The answer: decision table, headline figure, claims.

use crate::claims::{ClaimRow, Judgement};
use crate::record::RunRecord;
use crate::report::chart::{Dot, DotRow, Key, dots};
use crate::report::decide::{Decision, Outcome};
use crate::report::document::{Block, Entry, Figure, Table, Tone};
use crate::report::gather::{ScenarioTable, delivery_ms_p99};
use crate::report::text::{count, ms};
use crate::stats::BLOCKS_MIN;

use super::key_of;

/// One sentence under the title.
pub(in crate::report) fn lead(records: &[RunRecord]) -> String {
    let deliveries: u64 = records.iter().map(|record| record.measured.audit.expected).sum();
    let invalid = records.iter().filter(|record| !record.validity.valid).count();
    let Some(first) = records.iter().min_by_key(|record| &record.started_at) else {
        return "No runs.".to_owned();
    };
    format!(
        "{} runs, {} deliveries, each one audited; {invalid} runs invalid. {} cores of one {}, {}; commit `{}`{}.",
        count(records.len() as u64),
        count(deliveries),
        first.setting.hardware.cores,
        if first.setting.hardware.virtual_machine { "virtual machine" } else { "machine" },
        first.started_at.get(..10).unwrap_or(&first.started_at),
        first.setting.tool.commit,
        if first.setting.tool.dirty { " with uncommitted changes" } else { "" }
    )
}

/// Decision table and headline figure.
pub(super) fn section(
    records: &[RunRecord],
    tables: &[ScenarioTable<'_>],
    keys: &[Key],
    decisions: &[Decision],
) -> Vec<Block> {
    let mut blocks = vec![Block::heading(2, "answer", "Which strategy for which job")];
    if decisions.iter().any(|decision| decision.provisional) {
        let blocks_seen = records.iter().map(|record| record.block).max().unwrap_or(0);
        blocks.push(Block::Note(
            Tone::Warn,
            format!(
                "**An indication, not evidence.** Up to {blocks_seen} blocks were run; a statement needs {BLOCKS_MIN}. Rows from fewer are \
                 marked *provisional*: there, one strategy is put before another only if every block agrees."
            ),
        ));
    }
    if decisions.is_empty() {
        blocks.push(Block::Text("No comparison was run: nothing to decide.".to_owned()));
        return blocks;
    }
    blocks.push(Block::Table(decision_table(decisions)));
    if let Some(figure) = headline(tables, keys) {
        blocks.push(Block::Figure(figure));
    }
    blocks
}

/// “job → strategy → because → not when”.
pub(in crate::report) fn decision_table(decisions: &[Decision]) -> Table {
    let rows = decisions.iter().map(|decision| {
        let (who, tone) = match &decision.outcome {
            Outcome::Winner(label) => (label.clone(), Tone::Strong),
            Outcome::Tie(labels) => (format!("tie: {}", labels.join(", ")), Tone::Strong),
            Outcome::Undecided(labels) => {
                (format!("undecided; best of those measured: {}", labels.join(", ")), Tone::Warn)
            }
            Outcome::Nobody => ("none qualifies".to_owned(), Tone::Bad),
            Outcome::NotMeasured => ("not measured".to_owned(), Tone::Soft),
        };
        let who =
            if decision.provisional && tone == Tone::Strong { format!("{who} (provisional)") } else { who };
        vec![
            Entry::text(format!("{} (`{}`)", decision.job, decision.scenario)),
            Entry::text(who).toned(tone),
            Entry::text(&*decision.because),
            Entry::text(if decision.not_when.is_empty() {
                "nothing measured against it"
            } else {
                &*decision.not_when
            }),
        ]
    });
    Table {
        caption: String::new(),
        head: ["Job", "Strategy", "Because", "Not when"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

fn headline(tables: &[ScenarioTable<'_>], keys: &[Key]) -> Option<Figure> {
    let rows: Vec<DotRow> =
        tables.iter().filter(|table| !table.is_disturbed()).map(|table| row(table, keys)).collect();
    if rows.iter().all(|row| row.dots.is_empty()) {
        return None;
    }
    let title = "Delivery latency p99 by job and strategy; further left is better";
    // Counter-examples lose messages: their latency is no achievement and stays out of the figure.
    let legend: Vec<Key> = keys.iter().filter(|key| key.style != 5).cloned().collect();
    Some(Figure {
        id: "headline".to_owned(),
        title: title.to_owned(),
        svg: dots(title, "delivery p99, ms (logarithmic)", &legend, &rows),
        reading: reading(tables),
    })
}

fn row(table: &ScenarioTable<'_>, keys: &[Key]) -> DotRow {
    let mut dots: Vec<Dot> = table
        .cells
        .iter()
        .filter(|cell| !cell.is_counter_example())
        .filter_map(|cell| {
            let interval = cell.interval(delivery_ms_p99)?;
            Some(Dot { series: key_of(keys, &cell.label)?, interval, hollow: !cell.kept() })
        })
        .collect();
    dots.sort_by_key(|dot| dot.series);
    let runs = dots.iter().map(|dot| dot.interval.samples).max().unwrap_or(0);
    let target_ms = table.target_us as f64 / 1e3;
    DotRow {
        name: table.name.clone(),
        note: format!("{runs} runs each, target {}", ms(target_ms)),
        target: Some(target_ms),
        dots,
    }
}

fn reading(tables: &[ScenarioTable<'_>]) -> String {
    let lines = tables.iter().filter(|table| !table.is_disturbed()).map(|table| {
        let mut values: Vec<(f64, &str)> = table
            .cells
            .iter()
            .filter(|cell| !cell.is_counter_example())
            .filter_map(|cell| Some((cell.median(delivery_ms_p99)?, cell.label.as_str())))
            .collect();
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
        let values: Vec<String> =
            values.iter().map(|(value, label)| format!("{label} {}", ms(*value))).collect();
        format!("{}: {}", table.name, values.join(", "))
    });
    format!(
        "Latency from intended send to each member; whiskers: 95 % interval over runs; dashed: target; hollow: broke a promise. In words, median p99 per strategy, best first. {}.",
        lines.collect::<Vec<_>>().join(". ")
    )
}

/// The table of claims.
pub(super) fn claims(rows: &[ClaimRow]) -> Vec<Block> {
    let entries = rows.iter().map(|row| {
        let tone = match row.judgement {
            Judgement::Confirmed => Tone::Good,
            Judgement::Refuted => Tone::Bad,
            Judgement::Depends => Tone::Warn,
            Judgement::NotMeasured => Tone::Soft,
        };
        vec![
            Entry::number(row.number.to_string()),
            Entry::text(row.claim),
            Entry::text(row.experiment),
            Entry::text(&*row.figure),
            Entry::text(row.judgement.as_str()).toned(tone),
            Entry::text(&*row.why),
        ]
    });
    let table = Table {
        caption:
            "Claims of the write-up “Chat on Kafka: four plans and a stress test”, none of which it measured."
                .to_owned(),
        head: ["#", "Claim", "Experiment", "Figure", "Verdict", "Why"].map(str::to_owned).to_vec(),
        rows: entries.collect(),
    };
    vec![Block::heading(2, "claims", "Claims, tested"), Block::Table(table)]
}
