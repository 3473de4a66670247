//! Every delivery accounted for, and what was declared beside what was observed.

use crate::report::document::{Block, Entry, Table, Tone};
use crate::report::gather::{Cell, ScenarioTable};
use crate::report::text::count;

pub(super) fn section(tables: &[ScenarioTable<'_>]) -> Vec<Block> {
    if tables.is_empty() {
        return Vec::new();
    }
    vec![
        Block::heading(2, "audit", "Audit: every delivery accounted for"),
        Block::Text(
            "Summed over all runs, invalid ones too. *Expected* counts acknowledged messages × members who had joined before and left \
             after; it equals delivered + lost + indeterminate to the last count. *Declared* losses are those that the client was told of; \
             *silent* ones are deceptions."
                .to_owned(),
        ),
        Block::Table(columns(tables)),
        Block::heading(3, "guarantees", "Declared and observed"),
        Block::Table(promises(tables)),
    ]
}

fn columns(tables: &[ScenarioTable<'_>]) -> Table {
    let zero_is_good = |value: u64, expected: bool| {
        let tone = match (value, expected) {
            (0, _) => Tone::Soft,
            (_, true) => Tone::Warn,
            (_, false) => Tone::Bad,
        };
        Entry::number(count(value)).toned(tone)
    };
    let mut rows = Vec::new();
    for table in tables {
        for cell in &table.cells {
            let audit = cell.audit();
            // A figure is bad where it breaks a promise, and worth a look where it doesn't.
            let kept = |about: &str| {
                let promises = cell.runs.iter().flat_map(|run| &run.verdict.promises);
                promises.filter(|promise| promise.about == about).all(|promise| promise.kept)
            };
            rows.push(vec![
                Entry::text(&*table.name),
                Entry::text(&*cell.label).toned(Tone::Strong),
                Entry::number(count(audit.expected)),
                Entry::number(count(audit.delivered)),
                zero_is_good(audit.lost_declared, kept("delivery")),
                zero_is_good(audit.lost_silent, kept("delivery") && kept("loss is told")),
                zero_is_good(audit.duplicates, kept("duplicates")),
                zero_is_good(audit.reordered, kept("order of a publisher")),
                zero_is_good(audit.leaked, false),
                zero_is_good(audit.divergent_rooms, kept("order of a room")),
                zero_is_good(audit.late, true),
                Entry::number(count(audit.indeterminate)).toned(Tone::Soft),
                Entry::number(count(audit.refused + audit.unknown)).toned(Tone::Soft),
                result(cell),
            ]);
        }
    }
    Table {
        caption: String::new(),
        head: [
            "Scenario",
            "Strategy",
            "Expected",
            "Delivered",
            "Lost, declared",
            "Lost, silent",
            "Twice",
            "Reordered",
            "Leaked",
            "Divergent rooms",
            "Late",
            "Indeterminate",
            "Not acknowledged",
            "Result",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    }
}

fn result(cell: &Cell<'_>) -> Entry {
    let audit = cell.audit();
    let kept = cell.runs.iter().all(|run| run.verdict.kept);
    match () {
        () if !audit.conserved => Entry::text("audit broken").toned(Tone::Bad),
        () if cell.is_counter_example() && !kept => Entry::text("fails, as declared").toned(Tone::Bad),
        () if !kept => Entry::text("promise broken").toned(Tone::Bad),
        () if audit.is_clean() => Entry::text("clean").toned(Tone::Good),
        () => Entry::text("as promised").toned(Tone::Warn),
    }
}

/// One row per contender and promise, over all scenarios; what held everywhere is said once.
fn promises(tables: &[ScenarioTable<'_>]) -> Table {
    let mut rows = Vec::new();
    let mut labels: Vec<&str> = Vec::new();
    for cell in tables.iter().flat_map(|table| &table.cells) {
        if !labels.contains(&cell.label.as_str()) {
            labels.push(&cell.label);
        }
    }
    for label in labels {
        rows.extend(promises_of(label, tables));
    }
    Table {
        caption: "What each strategy declares at `/info`, beside what the audit saw. A fast figure with a broken promise is not ranked."
            .to_owned(),
        head: ["Strategy", "About", "Declared", "Observed", "Kept"].map(str::to_owned).to_vec(),
        rows,
    }
}

fn promises_of(label: &str, tables: &[ScenarioTable<'_>]) -> Vec<Vec<Entry>> {
    // (about, declared) → runs that kept it, runs in all, the first observation that broke it.
    let mut seen: Vec<(&str, &str, usize, usize, Option<String>)> = Vec::new();
    for table in tables {
        for run in table.cell(label).into_iter().flat_map(|cell| &cell.runs) {
            for promise in &run.verdict.promises {
                let place = seen.iter().position(|row| row.0 == promise.about && row.1 == promise.declared);
                let row = match place {
                    Some(place) => &mut seen[place],
                    None => {
                        seen.push((&promise.about, &promise.declared, 0, 0, None));
                        let last = seen.len() - 1;
                        &mut seen[last]
                    }
                };
                row.2 += usize::from(promise.kept);
                row.3 += 1;
                if !promise.kept && row.4.is_none() {
                    row.4 = Some(format!("{}: {}", table.name, promise.observed));
                }
            }
        }
    }
    seen.sort_by_key(|row| row.0);
    seen.into_iter()
        .map(|(about, declared, kept, runs, broken)| {
            let all = kept == runs;
            vec![
                Entry::text(label).toned(Tone::Strong),
                Entry::text(about),
                Entry::text(declared),
                Entry::text(broken.unwrap_or_else(|| "agrees in every run".to_owned())),
                Entry::text(format!("{kept} of {runs} runs")).toned(if all { Tone::Good } else { Tone::Bad }),
            ]
        })
        .collect()
}
