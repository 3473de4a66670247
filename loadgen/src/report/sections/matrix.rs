//! The fault matrix: every fault beside every strategy, with what was aimed at; and declared beside observed.

use std::collections::BTreeMap;

use super::aims::{Aim, aim, gap_ms, members_back_ms};
use super::toll::{contenders, per_run};
use crate::campaign::{Entrant, Excluded, excluded};
use crate::record::{ComponentKind, Gate, Promise, Recoveries, RunRecord};
use crate::report::document::{Block, Entry, Table, Tone};
use crate::report::gather::{Cell, ScenarioTable};
use crate::report::recovery::{blows, is_back};
use crate::report::text::{count, ms, percent, with_interval};
use crate::stats::{Interval, median_interval};

/// The promises that are shown beside what was seen.
const ABOUT: [(&str, &str); 6] = [
    ("delivery", "Delivery"),
    ("loss is told", "Loss is told"),
    ("duplicates", "Duplicates"),
    ("order of a publisher", "Order of a publisher"),
    ("order of a room", "Order of a room"),
    ("recovery", "Recovery"),
];

/// Scenarios in which something is broken, or clients are, while clients recover: rows of the matrix.
fn rows<'t, 'r>(tables: &'t [ScenarioTable<'r>]) -> Vec<&'t ScenarioTable<'r>> {
    let recovers = |run: &&RunRecord| run.measured.recoveries.is_some() && !blows(run).is_empty();
    tables
        .iter()
        .filter(|table| {
            table.cells.iter().flat_map(|cell| cell.runs.iter().copied()).any(|run| recovers(&run))
        })
        .collect()
}

/// The floor first, then everybody who is ranked.
fn columns<'t>(tables: &'t [ScenarioTable<'_>]) -> Vec<&'t str> {
    let floors = tables.iter().flat_map(|table| &table.cells).filter(|cell| cell.is_floor());
    let mut labels: Vec<&str> = floors.map(|cell| cell.label.as_str()).collect();
    labels.sort_unstable();
    labels.dedup();
    labels.extend(contenders(tables));
    labels
}

pub(super) fn section(tables: &[ScenarioTable<'_>]) -> Vec<Block> {
    let rows = rows(tables);
    if rows.is_empty() {
        return Vec::new();
    }
    vec![
        Block::heading(2, "matrix", "Fault matrix"),
        Block::Text(summary(&rows)),
        Block::Table(matrix(&rows, &columns(tables))),
        Block::heading(3, "observed", "Declared and observed"),
        Block::Table(observed(&rows)),
    ]
}

/// Both tables by themselves, for a document that embeds them; `None` where no fault matrix was run.
pub(in crate::report) fn tables_of(tables: &[ScenarioTable<'_>]) -> Option<(String, [Table; 2])> {
    let rows = rows(tables);
    (!rows.is_empty()).then(|| (summary(&rows), [matrix(&rows, &columns(tables)), observed(&rows)]))
}

fn summary(rows: &[&ScenarioTable<'_>]) -> String {
    let cells: Vec<&Cell<'_>> =
        rows.iter().flat_map(|table| &table.cells).filter(|cell| !cell.is_counter_example()).collect();
    let number = |test: &dyn Fn(&Cell<'_>) -> bool| cells.iter().filter(|cell| test(cell)).count();
    let aims: Vec<bool> = rows
        .iter()
        .flat_map(|table| table.cells.iter().map(move |cell| (table, cell)))
        .filter_map(|(table, cell)| aimed(&table.name, cell).map(|(_, met)| met))
        .collect();
    let absent: usize = rows.iter().map(|table| table.absent.len()).sum();
    let mut text = format!(
        "**{} faults, {} cells.** Lost in silence: {} cells. Duplicates: {} cells. A promise broken: {} cells. Ended otherwise than it began: {} cells. Targets met: {} of {}.",
        rows.len(),
        cells.len(),
        number(&|cell| cell.audit().lost_silent > 0),
        number(&|cell| cell.audit().duplicates > 0),
        number(&|cell| cell.runs.iter().any(|run| !run.verdict.kept)),
        number(&|cell| stranded(cell).is_some()),
        aims.iter().filter(|met| **met).count(),
        aims.len()
    );
    if absent > 0 {
        text.push_str(&format!(" **{absent} cells could not be measured.**"));
    }
    text
}

fn matrix(rows: &[&ScenarioTable<'_>], columns: &[&str]) -> Table {
    let body = rows.iter().map(|table| {
        let mut row = vec![Entry::text(format!("`{}`\n{}", table.name, table.stands_for))];
        row.extend(columns.iter().map(|label| match table.cell(label) {
            Some(cell) => entry(&table.name, cell),
            None => Entry::text(not_applicable(table, label)).toned(Tone::Soft),
        }));
        row
    });
    Table {
        caption: "Each cell: the *gap*, longest time in which nobody received anything that was due (*room*: any one room), median over runs with the range, *never over* and *never as before* where the load ended otherwise than it began (something refused, fewer deliveries per publish, or slower), *never back* what had no connection or room again by then, beside what is aimed \
                  at, if anything is; deliveries lost in silence and told, gap notices; duplicates; publishes refused, and those whose outcome the publisher does not know; members that were away and \
                  got everything, of those that asked, and when the last of them had it."
            .to_owned(),
        head: std::iter::once("Fault").chain(columns.iter().copied()).map(str::to_owned).collect(),
        rows: body.collect(),
    }
}

fn entry(scenario: &str, cell: &Cell<'_>) -> Entry {
    let over_runs = |figure: &dyn Fn(&RunRecord) -> Option<f64>| -> Option<Interval> {
        median_interval(&cell.runs.iter().filter_map(|run| figure(run)).collect::<Vec<_>>())
    };
    let struck = cell.runs.iter().any(|run| run.measured.is_disturbed());
    let said = |room: bool| {
        // The median of those that came back would hide those that did not.
        let all = cell.runs.iter().all(|run| gap_ms(run, room).is_some());
        match over_runs(&|run| gap_ms(run, room)).filter(|_| all) {
            Some(interval) => with_interval(&interval, ms),
            None => if struck { "never over" } else { "–" }.to_owned(),
        }
    };
    let mut lines = vec![format!("gap {}, room {}", said(false), said(true))];
    let stranded = stranded(cell);
    lines.extend(stranded.clone());
    let aim = aimed(scenario, cell);
    lines.extend(aim.as_ref().map(|(said, _)| said.clone()));
    lines.push(format!(
        "silent {}, told {} in {} notices",
        per_run(cell, |run| run.measured.audit.lost_silent),
        per_run(cell, |run| run.measured.audit.lost_declared),
        per_run(cell, |run| run.measured.audit.gaps_declared)
    ));
    lines.push(format!("duplicates {}", per_run(cell, |run| run.measured.audit.duplicates)));
    lines.push(format!(
        "refused {}, unknown {}",
        per_run(cell, |run| run.measured.audit.refused + run.measured.load.unsent),
        per_run(cell, |run| run.measured.audit.unknown)
    ));
    lines.push(recovered(cell));
    let audit = cell.audit();
    let broken = cell.runs.iter().any(|run| !run.verdict.kept) || audit.lost_silent + audit.duplicates > 0;
    if broken {
        lines.push("promise broken".to_owned());
    }
    let purposeless = purposeless(cell);
    lines.extend(purposeless.clone());
    let doubtful = purposeless.is_some() || aim.is_some_and(|(_, met)| !met) || loses_what_it_keeps(cell);
    Entry::text(lines.join("\n")).toned(match (broken || stranded.is_some(), doubtful) {
        (true, _) => Tone::Bad,
        (false, false) => Tone::Good,
        (false, true) => Tone::Warn,
    })
}

/// What had not come back when the load ended, in words.
fn stranded(cell: &Cell<'_>) -> Option<String> {
    let sum = |figure: fn(&RunRecord) -> u64| cell.runs.iter().map(|run| figure(run)).sum::<u64>();
    let members = sum(|run| run.measured.recoveries.map_or(0, |recoveries| recoveries.never));
    let clients = sum(|run| run.measured.load.connections_failed);
    let mut said = Vec::new();
    if cell.runs.iter().any(|run| !is_back(run)) {
        said.push("never as before".to_owned());
    }
    if members + clients > 0 {
        said.push(format!("never back: {} members, {} connections", count(members), count(clients)));
    }
    (!said.is_empty()).then(|| said.join("; "))
}

/// Why a run does not show what its scenario is for.
fn purposeless(cell: &Cell<'_>) -> Option<String> {
    let objections = cell.runs.iter().flat_map(|run| &run.validity.objections);
    let found = objections.filter(|one| one.gate == Gate::Purpose).map(|one| one.found.as_str()).next()?;
    Some(format!("not as meant: {found}"))
}

/// A strategy with a log that cannot tell returning members what they missed keeps its word, and is no good all the same.
fn loses_what_it_keeps(cell: &Cell<'_>) -> bool {
    cell.runs.iter().any(|run| {
        run.contender.guarantees["delivery"] == "at-least-once"
            && run.measured.recoveries.is_some_and(|recoveries| recoveries.incomplete > 0)
    })
}

/// What was aimed at, in words with what came of it, and whether it was met in the median run.
fn aimed(scenario: &str, cell: &Cell<'_>) -> Option<(String, bool)> {
    let aims: Vec<Aim> = cell.runs.iter().filter_map(|run| aim(scenario, run)).collect();
    let first = aims.first()?;
    let figures: Vec<f64> = aims.iter().filter_map(|aim| aim.reached_ms).collect();
    let reached = median_interval(&figures).filter(|_| figures.len() == aims.len());
    let met = aims.iter().filter(|aim| aim.is_met()).count() * 2 > aims.len();
    let verdict = if met { "met" } else { "**missed**" };
    let figure = reached.map_or("never".to_owned(), |interval| with_interval(&interval, ms));
    Some((format!("{} {figure}, aim ≤ {}: {verdict}", first.what, ms(first.limit_ms)), met))
}

fn recovered(cell: &Cell<'_>) -> String {
    let mut sum = Recoveries::default();
    cell.runs.iter().filter_map(|run| run.measured.recoveries.as_ref()).for_each(|one| sum.add(one));
    match sum.answered() + sum.never {
        0 => "nobody was away".to_owned(),
        asked => {
            let mut said = format!("recovered {} of {}", count(sum.complete), count(asked));
            if sum.incomplete > 0 {
                let share = percent(sum.incomplete as f64 / asked as f64);
                said.push_str(&format!(", {share} told that it could not be"));
            }
            let back: Vec<f64> = cell.runs.iter().filter_map(|run| members_back_ms(run)).collect();
            if let Some(interval) = median_interval(&back) {
                said.push_str(&format!("; the last after {}", with_interval(&interval, ms)));
            }
            said
        }
    }
}

fn not_applicable(table: &ScenarioTable<'_>, label: &str) -> String {
    if table.absent.iter().any(|one| one == label) {
        return "not measured".to_owned();
    }
    let mut words = label.split_whitespace().map(str::to_owned);
    let entrant = Entrant { strategy: words.next().unwrap_or_default(), options: words.collect() };
    let run = table.cells.iter().flat_map(|cell| &cell.runs).next();
    let faults = run.into_iter().flat_map(|run| &run.measured.faults).map(|mark| mark.fault.clone());
    match excluded(&entrant, &faults.collect::<Vec<_>>()) {
        Some(Excluded::NoBroker(ComponentKind::Kafka)) => "n/a: uses no Kafka",
        Some(Excluded::NoBroker(_)) => "n/a: uses no Redis",
        Some(Excluded::OneNode) => "n/a: one node, and the fault needs another",
        None => "not measured",
    }
    .to_owned()
}

/// One line per strategy and fault: every promise beside what was seen.
fn observed(rows: &[&ScenarioTable<'_>]) -> Table {
    let mut lines: BTreeMap<(&str, usize), Vec<Entry>> = BTreeMap::new();
    for (place, table) in rows.iter().enumerate() {
        for cell in table.cells.iter().filter(|cell| !cell.is_counter_example()) {
            // The worst run stands for its cell.
            let Some(run) = cell.runs.iter().min_by_key(|run| (run.verdict.kept, clean(run))) else {
                continue;
            };
            let mut line =
                vec![Entry::text(&*cell.label).toned(Tone::Strong), Entry::text(format!("`{}`", table.name))];
            line.extend(ABOUT.iter().map(|(about, _)| beside(run, about)));
            line.push(match cell.runs.iter().filter(|run| !run.verdict.kept).count() {
                0 => Entry::text("kept").toned(Tone::Good),
                broken => Entry::text(format!("broken in {broken} of {}", cell.runs.len())).toned(Tone::Bad),
            });
            lines.insert((&cell.label, place), line);
        }
    }
    let head =
        ["Strategy", "Fault"].into_iter().chain(ABOUT.iter().map(|(_, head)| *head)).chain(["Verdict"]);
    Table {
        caption:
            "Declared, and after the colon what was seen in the worst run of each strategy under each fault."
                .to_owned(),
        head: head.map(str::to_owned).collect(),
        rows: lines.into_values().collect(),
    }
}

fn clean(run: &RunRecord) -> bool {
    run.measured.audit.lost() == 0
}

fn beside(run: &RunRecord, about: &str) -> Entry {
    let promise: Option<&Promise> = run.verdict.promises.iter().find(|promise| promise.about == about);
    promise.map_or_else(
        || Entry::text("–").toned(Tone::Soft),
        |promise| {
            let text = format!("{}: {}", promise.declared, promise.observed);
            Entry::text(text).toned(if promise.kept { Tone::Plain } else { Tone::Bad })
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::gather::tables;
    use crate::report::markdown::markdown_table;
    use crate::report::sample::Sample;

    fn recovering(strategy: &'static str, scenario: &'static str, block: u32, silent: u64) -> RunRecord {
        let mut run = Sample { fault: true, ..Sample::new(strategy, scenario, block, 0.3) }.record();
        run.measured.recoveries = Some(Recoveries { complete: 7, incomplete: 1, ..Recoveries::default() });
        run.measured.audit.lost_silent = silent;
        run
    }

    #[test]
    fn every_fault_meets_every_strategy_and_silence_stands_out() {
        let records = [
            recovering("kafka-keyed", "broker-restart", 1, 0),
            recovering("kafka-keyed", "broker-restart", 2, 3),
            recovering("hybrid", "broker-restart", 1, 0),
            recovering("redis-pubsub", "redis-restart", 1, 0),
        ];
        let (summary, [matrix, observed]) = tables_of(&tables(&records, &[])).unwrap();
        assert!(summary.contains("2 faults, 3 cells.** Lost in silence: 1 cells"), "{summary}");
        let text = markdown_table(&matrix);
        assert!(text.contains("silent 1.50 (worst 3)") && text.contains("promise broken"), "{text}");
        assert!(text.contains("n/a: uses no Kafka") && text.contains("recovered 14 of 16"), "{text}");
        assert!(text.contains("aim ≤ 5.00 s: met") && text.contains("not measured"), "{text}");
        let text = markdown_table(&observed);
        assert!(text.contains("| **hybrid** | `broker-restart` |") && text.contains(": 0 of "), "{text}");
    }

    #[test]
    fn without_clients_that_recover_there_is_no_matrix() {
        let plain = [Sample { fault: true, ..Sample::new("hybrid", "broker-restart", 1, 0.3) }.record()];
        assert!(tables_of(&tables(&plain, &[])).is_none() && section(&tables(&plain, &[])).is_empty());
    }
}
