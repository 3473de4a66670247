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
            "Sums over all runs of a row (their number is in the column *Runs*), invalid ones too. *Expected* counts acknowledged messages × members who had joined before and left \
             after; it equals delivered + lost + indeterminate to the last count. What came late is delivered, even if its member had been \
             told of a loss by then. *Told* losses are those that the client was told of; *silent* ones are deceptions. *Late, unknown* are \
             publishes that were never acknowledged and came behind what their client had since sent over another connection. “What a \
             failure costs” has losses per run."
                .to_owned(),
        ),
        Block::Table(columns(tables)),
        Block::heading(3, "guarantees", "Expected and observed"),
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
                Entry::number(cell.runs.len().to_string()),
                Entry::number(count(audit.expected)),
                Entry::number(count(audit.delivered)),
                zero_is_good(audit.lost_declared, kept("delivery")),
                zero_is_good(audit.lost_silent, kept("delivery") && kept("loss is told")),
                zero_is_good(audit.duplicates, kept("duplicates")),
                zero_is_good(audit.reordered, kept("order of a publisher")),
                zero_is_good(audit.late_unknown, kept("order of a publisher")),
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
            "Runs",
            "Expected",
            "Delivered",
            "Lost, told",
            "Lost, silent",
            "Duplicates",
            "Reordered",
            "Late, unknown",
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

/// What a promise's column is called, in the order in which people ask.
const ABOUT: [&str; 9] = [
    "service",
    "delivery",
    "duplicates",
    "order of a publisher",
    "order of a room",
    "membership",
    "loss is told",
    "recovery",
    "payload",
];

/// One row per contender, one column per promise, over all scenarios.
fn promises(tables: &[ScenarioTable<'_>]) -> Table {
    let mut labels: Vec<&str> = Vec::new();
    for cell in tables.iter().flat_map(|table| &table.cells) {
        if !labels.contains(&cell.label.as_str()) {
            labels.push(&cell.label);
        }
    }
    let seen = |about: &&str| {
        let runs = tables.iter().flat_map(|table| &table.cells).flat_map(|cell| &cell.runs);
        runs.flat_map(|run| &run.verdict.promises).any(|promise| promise.about == **about)
    };
    let about: Vec<&str> = ABOUT.into_iter().filter(seen).collect();
    let rows = labels.into_iter().map(|label| {
        let mut row = vec![Entry::text(label).toned(Tone::Strong)];
        row.extend(about.iter().map(|about| promise(label, about, tables)));
        row.push(Entry::text(declared(label, tables)).toned(Tone::Soft));
        row
    });
    let mut head = vec!["Strategy".to_owned()];
    head.extend(about.iter().map(|about| about[..1].to_uppercase() + &about[1..]));
    head.push("As declared at /info".to_owned());
    Table {
        caption: "Expected (from `/info` and the rules of the house: while nothing is broken, exactly once for members only, in the order \
                  of the publisher, whatever is declared) against what the audit saw. *Kept* counts runs; *not promised* was not \
                  expected. A fast figure with a broken promise is not ranked."
            .to_owned(),
        head,
        rows: rows.collect(),
    }
}

/// How often a contender kept a promise, and where it first broke it.
fn promise(label: &str, about: &str, tables: &[ScenarioTable<'_>]) -> Entry {
    let (mut kept, mut runs, mut promised, mut broken) = (0, 0, false, None);
    for table in tables {
        for run in table.cell(label).into_iter().flat_map(|cell| &cell.runs) {
            for promise in run.verdict.promises.iter().filter(|promise| promise.about == about) {
                runs += 1;
                kept += usize::from(promise.kept);
                promised |= promise.declared != "not promised";
                if !promise.kept && broken.is_none() {
                    broken =
                        Some(format!("{}: {}; expected: {}", table.name, promise.observed, promise.declared));
                }
            }
        }
    }
    match broken {
        _ if runs == 0 => Entry::text("–").toned(Tone::Soft),
        Some(broken) => Entry::text(format!("kept in {kept} of {runs}; {broken}")).toned(Tone::Bad),
        None if !promised => Entry::text("not promised").toned(Tone::Soft),
        None => Entry::text(format!("kept in {runs}")).toned(Tone::Good),
    }
}

/// What `/info` answered, as it is.
fn declared(label: &str, tables: &[ScenarioTable<'_>]) -> String {
    let run = tables.iter().find_map(|table| table.cell(label)?.runs.first());
    let guarantees = run.and_then(|run| run.contender.guarantees.as_object());
    guarantees.map_or("–".to_owned(), |guarantees| {
        let said =
            |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let pairs = guarantees.iter().map(|(key, value)| format!("`{key}={}`", said(value)));
        pairs.collect::<Vec<_>>().join(" ")
    })
}
