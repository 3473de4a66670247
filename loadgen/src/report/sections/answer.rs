//! The answer: decision table, headline figure, claims.

use crate::claims::{ClaimRow, Judgement};
use crate::record::{Role, RunRecord};
use crate::report::chart::{Dot, DotRow, Key, dots};
use crate::report::decide::{Decision, Outcome};
use crate::report::document::{Block, Entry, Figure, Table, Tone};
use crate::report::gather::{Cell, ScenarioTable, delivery_ms_p99};
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
        "{} runs, {} expected deliveries, each one audited; {invalid} runs invalid. {} cores of one {}, {}; commit `{}`{}.",
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
    blocks.extend(provisional(records, decisions).map(|note| Block::Note(Tone::Warn, note)));
    if decisions.is_empty() {
        blocks.push(Block::Text("No comparison was run: nothing to decide.".to_owned()));
        return blocks;
    }
    blocks.push(Block::Table(decision_table(decisions, FULL)));
    if tables.iter().flat_map(ScenarioTable::contenders).all(no_history) {
        blocks.push(Block::Text(
            "With none of these strategies can clients fetch history from the server yet, so no row speaks for or against one by its \
             memory."
                .to_owned(),
        ));
    }
    if let Some(figure) = headline(tables, keys) {
        blocks.push(Block::Figure(figure));
    }
    blocks
}

/// What stands over decisions from too few blocks.
pub(in crate::report) fn provisional(records: &[RunRecord], decisions: &[Decision]) -> Option<String> {
    let compared = records.iter().filter(|record| record.role == Role::Comparison);
    let blocks_seen = compared.map(|record| record.block).max().unwrap_or(0);
    decisions.iter().any(|decision| decision.provisional).then(|| {
        format!(
            "**An indication, not evidence.** Up to {blocks_seen} {} run; a statement needs {BLOCKS_MIN}. Rows from fewer are marked \
             *provisional*: there, one strategy is put before another only if every one of at least two blocks agrees.",
            if blocks_seen == 1 { "block was" } else { "blocks were" }
        )
    })
}

fn no_history(cell: &Cell<'_>) -> bool {
    let replay = |run: &&RunRecord| {
        run.contender.guarantees.get("replay").and_then(|value| value.as_str()) == Some("none")
    };
    cell.runs.iter().all(replay)
}

/// How many facts a decision shows: for and against.
pub(in crate::report) type Extent = (usize, usize);
/// For the report.
const FULL: Extent = (usize::MAX, usize::MAX);
/// For the README.
pub(in crate::report) const BRIEF: Extent = (2, 1);

/// “job → strategy → because → not when”.
pub(in crate::report) fn decision_table(decisions: &[Decision], (facts, reasons): Extent) -> Table {
    let rows = decisions.iter().map(|decision| {
        let (who, tone) = match &decision.outcome {
            Outcome::Winner(label) => (label.clone(), Tone::Strong),
            Outcome::Tie(labels) => (format!("tie: {}", labels.join(", ")), Tone::Strong),
            Outcome::Undecided(labels) => {
                (format!("undecided; best so far: {}", labels.join(", ")), Tone::Warn)
            }
            Outcome::Nobody => ("none qualifies".to_owned(), Tone::Bad),
            Outcome::NotMeasured => ("not measured".to_owned(), Tone::Soft),
        };
        let who =
            if decision.provisional && tone == Tone::Strong { format!("{who} (provisional)") } else { who };
        let first = |all: &[String], most: usize| all[..all.len().min(most)].join("; ");
        vec![
            Entry::text(format!("{} (`{}`)", decision.job, decision.scenario)),
            Entry::text(who).toned(tone),
            Entry::text(first(&decision.because, facts)),
            Entry::text(match (&decision.outcome, decision.not_when.is_empty()) {
                (Outcome::Nobody | Outcome::NotMeasured, _) => "–".to_owned(),
                (_, true) => "nothing measured against it".to_owned(),
                (_, false) => first(&decision.not_when, reasons),
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
    let samples = || dots.iter().map(|dot| dot.interval.samples);
    let runs = match (samples().min().unwrap_or(0), samples().max().unwrap_or(0)) {
        (1, 1) => "1 run each".to_owned(),
        (least, most) if least == most => format!("{most} runs each"),
        (least, most) => format!("{least}–{most} runs"),
    };
    let target_ms = table.target_us as f64 / 1e3;
    DotRow {
        name: table.name.clone(),
        note: format!("{runs}, target {}", ms(target_ms)),
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
        "Latency from intended send to each member; whiskers: {}; dashed: target; hollow: broke a promise. In words, median p99 per strategy, best first. {}.{}",
        spread(tables),
        lines.collect::<Vec<_>>().join(". "),
        slow_floor(tables)
    )
}

/// What an interval is: the range where there are too few runs for more.
pub(super) fn spread(tables: &[ScenarioTable<'_>]) -> String {
    let cells = tables.iter().flat_map(|table| &table.cells).filter(|cell| !cell.is_counter_example());
    let runs: Vec<usize> = cells.map(Cell::valid_count).filter(|count| *count > 0).collect();
    let (least, most) = (runs.iter().min().copied().unwrap_or(0), runs.iter().max().copied().unwrap_or(0));
    match () {
        () if most < 2 => "none, as one run has no spread".to_owned(),
        () if most < BLOCKS_MIN => format!("range of {most} runs"),
        () if least < BLOCKS_MIN => {
            format!("95 % interval over runs, or the range where there are fewer than {BLOCKS_MIN}")
        }
        () => "95 % interval over runs".to_owned(),
    }
}

/// Says where the one-node reference is slower than a contender, which surprises.
fn slow_floor(tables: &[ScenarioTable<'_>]) -> String {
    let slower = tables.iter().filter(|table| !table.is_disturbed()).filter(|table| {
        let floor = table.cells.iter().find(|cell| cell.is_floor());
        let floor = floor.and_then(|cell| cell.median(delivery_ms_p99));
        let best = table.contenders().filter_map(|cell| cell.median(delivery_ms_p99)).reduce(f64::min);
        floor.zip(best).is_some_and(|(floor, best)| floor > best)
    });
    let names: Vec<&str> = slower.map(|table| table.name.as_str()).collect();
    match names.is_empty() {
        true => String::new(),
        false => format!(
            " The one-node reference is slower than a contender in {}: there one node does all the fan-out that the others share.",
            names.join(", ")
        ),
    }
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
            Entry::text(if row.figure.is_empty() { "–" } else { &*row.figure }),
            Entry::number(if row.blocks == 0 { "–".to_owned() } else { row.blocks.to_string() }),
            Entry::text(match row.is_provisional() {
                true => format!("{} (provisional)", row.judgement.as_str()),
                false => row.judgement.as_str().to_owned(),
            })
            .toned(tone),
            Entry::text(&*row.why),
        ]
    });
    let table = Table {
        caption:
            "Claims of the write-up “Chat on Kafka: four plans and a stress test”, none of which it measured. *Blocks*: the fewest that a \
             comparison in the row rests on; fewer than five make its verdict provisional. Comparisons of a claim are corrected as one \
             family by Holm's method."
                .to_owned(),
        head: ["#", "Claim", "Experiment", "Figure", "Blocks", "Verdict", "Why"].map(str::to_owned).to_vec(),
        rows: entries.collect(),
    };
    vec![Block::heading(2, "claims", "Claims, tested"), Block::Table(table)]
}
