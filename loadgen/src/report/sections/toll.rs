//! What a failure costs: every strategy beside every other, and no winner.

use crate::record::{ComponentKind, RunRecord};
use crate::report::document::{Block, Entry, Table, Tone};
use crate::report::gather::{Cell, ScenarioTable, lost_share, silence_ms};
use crate::report::recovery::blows;
use crate::report::text::{count, ms, share, significant, with_interval};
use crate::stats::median;

/// A table over all scenarios with a fault, under the decision table.
pub(super) fn section(tables: &[ScenarioTable<'_>]) -> Vec<Block> {
    let labels = contenders(tables);
    let disturbed = tables.iter().filter(|table| table.is_disturbed());
    let rows: Vec<Vec<Entry>> = disturbed.flat_map(|table| rows(table, &labels)).collect();
    if rows.is_empty() {
        return Vec::new();
    }
    let table = Table {
        caption: "Median over all runs, with the worst run in brackets where runs differ; least lost first, which is an order and no verdict. \
                  *Told*: the client was told of the gap. *Silence*: longest of any one room; median over valid runs."
            .to_owned(),
        head: ["Fault", "Strategy", "Struck", "Share lost per run", "Told per run", "Silent per run", "Silence", "Promises", "Runs"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    };
    vec![Block::heading(3, "toll", "What a failure costs"), Block::Table(table)]
}

/// Every strategy that is ranked anywhere.
pub(super) fn contenders<'t>(tables: &'t [ScenarioTable<'_>]) -> Vec<&'t str> {
    let mut labels: Vec<&str> =
        tables.iter().flat_map(ScenarioTable::contenders).map(|cell| cell.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

fn rows(table: &ScenarioTable<'_>, labels: &[&str]) -> Vec<Vec<Entry>> {
    let name = format!("{} (`{}`)", table.stands_for, table.name);
    let mut cells: Vec<&Cell<'_>> = table.contenders().filter(|cell| cell.is_disturbed()).collect();
    let lost = |cell: &Cell<'_>| {
        let audit = cell.audit();
        audit.lost() as f64 / audit.expected.max(1) as f64
    };
    cells.sort_by(|a, b| lost(a).total_cmp(&lost(b)));
    let struck = cells.iter().map(|cell| row(&name, cell));
    let others = labels.iter().filter(|label| cells.iter().all(|cell| cell.label != **label)).map(|label| {
        let absent = table.absent.iter().any(|one| one == label);
        let untouched = || Entry::text("–").toned(Tone::Soft);
        let said = if absent { "not measured".to_owned() } else { not_affected(table) };
        let mut row = vec![Entry::text(&*name), Entry::text(*label).toned(Tone::Strong)];
        row.push(Entry::text(said).toned(Tone::Soft));
        row.extend(std::iter::repeat_with(untouched).take(6));
        row
    });
    struck.chain(others).collect()
}

fn not_affected(table: &ScenarioTable<'_>) -> String {
    let mut marks = table.cells.iter().flat_map(|cell| &cell.runs).flat_map(|run| &run.measured.faults);
    let broker = match marks.find(|mark| !mark.whom.is_empty()).and_then(|mark| mark.fault.to.broker()) {
        Some(ComponentKind::Kafka) => "Kafka",
        Some(ComponentKind::Redis) => "Redis",
        _ => return "not affected".to_owned(),
    };
    format!("not affected: it doesn't use {broker}")
}

fn row(name: &str, cell: &Cell<'_>) -> Vec<Entry> {
    let kept = cell.runs.iter().all(|run| run.verdict.kept);
    let broken = cell.runs.iter().filter(|run| !run.verdict.kept).count();
    let toned = |entry: Entry, none: bool| {
        entry.toned(match (none, kept) {
            (true, _) => Tone::Good,
            (_, true) => Tone::Warn,
            (_, false) => Tone::Bad,
        })
    };
    let audit = cell.audit();
    vec![
        Entry::text(name),
        Entry::text(&*cell.label).toned(Tone::Strong),
        Entry::text(faults(cell)),
        toned(Entry::number(share_lost(cell)), audit.lost() == 0),
        toned(Entry::number(per_run(cell, |run| run.measured.audit.lost_declared)), audit.lost_declared == 0),
        toned(Entry::number(per_run(cell, |run| run.measured.audit.lost_silent)), audit.lost_silent == 0),
        Entry::number(
            cell.interval(silence_ms).map_or("–".to_owned(), |interval| with_interval(&interval, ms)),
        ),
        match kept {
            true => Entry::text("kept").toned(Tone::Good),
            false => Entry::text(format!("broken in {broken} of {} runs", cell.runs.len())).toned(Tone::Bad),
        },
        Entry::number(cell.runs.len().to_string()),
    ]
}

/// What struck it, in words.
pub(super) fn faults(cell: &Cell<'_>) -> String {
    cell.runs.first().map_or_else(String::new, |run| {
        blows(run).into_iter().map(|blow| blow.text).collect::<Vec<_>>().join(", then ")
    })
}

/// A count of deliveries per run: the median, and the worst where it differs.
pub(super) fn per_run(cell: &Cell<'_>, figure: fn(&RunRecord) -> u64) -> String {
    let counts: Vec<u64> = cell.runs.iter().map(|run| figure(run)).collect();
    let worst = counts.iter().copied().max().unwrap_or(0);
    let middle = median(&counts.iter().map(|count| *count as f64).collect::<Vec<_>>()).unwrap_or(0.0);
    let said = if middle.fract() == 0.0 { count(middle as u64) } else { significant(middle) };
    if middle == worst as f64 { said } else { format!("{said} (worst {})", count(worst)) }
}

/// The share of the expected deliveries that a run lost, likewise.
pub(super) fn share_lost(cell: &Cell<'_>) -> String {
    let shares: Vec<f64> = cell.runs.iter().filter_map(|run| lost_share(run)).collect();
    let (Some(middle), Some(worst)) = (median(&shares), shares.iter().copied().reduce(f64::max)) else {
        return "–".to_owned();
    };
    // Shares in parts of a billion: far finer than any run has deliveries.
    let said = |value: f64| share((value * 1e9).ceil() as u64, 1_000_000_000);
    if middle == worst { said(middle) } else { format!("{} (worst {})", said(middle), said(worst)) }
}
