//! The parts of a report, answer first.

mod aims;
mod answer;
mod audit;
mod context;
mod cost;
mod faults;
mod latency;
mod matrix;
mod threats;
mod toll;

use super::chart::{Key, Standing};
use super::decide::decide;
use super::document::Block;
use super::gather::{ScenarioTable, by_scenario, tables};
use crate::campaign::Failure;
use crate::claims::judge_claims;
use crate::record::{Role, RunRecord};

pub(super) use answer::{BRIEF, decision_table, lead, provisional};
pub use latency::holds;
pub(super) use matrix::tables_of;

/// Every section, in the order in which people ask.
pub(super) fn all(records: &[RunRecord], paths: &[String], failures: &[Failure]) -> Vec<Block> {
    let tables = tables(records, failures);
    let (knees, searches) = (by_scenario(records, Role::Knee), by_scenario(records, Role::Capacity));
    let keys = keys(tables.iter().chain(&knees));
    let decisions = decide(&tables, failures);
    let mut blocks = Vec::new();
    blocks.extend(answer::section(records, &tables, &keys, &decisions));
    blocks.extend(toll::section(&tables));
    blocks.extend(latency::section(&tables, &knees, &searches, &keys));
    blocks.extend(audit::section(&tables));
    blocks.extend(cost::section(&tables));
    blocks.extend(matrix::section(&tables));
    blocks.extend(faults::section(&tables, &keys));
    blocks.extend(answer::claims(&judge_claims(records)));
    blocks.extend(context::section(records, paths, failures));
    blocks
}

/// One key per contender, the same in every figure.
fn keys<'t>(tables: impl Iterator<Item = &'t ScenarioTable<'t>>) -> Vec<Key> {
    let mut seen: Vec<(&str, Standing)> = Vec::new();
    for cell in tables.flat_map(|table| &table.cells) {
        let standing = match () {
            () if cell.is_floor() => Standing::Floor,
            () if cell.is_counter_example() => Standing::CounterExample,
            () => Standing::Contender,
        };
        if seen.iter().all(|(label, _)| *label != cell.label) {
            seen.push((&cell.label, standing));
        }
    }
    let rank = |standing: Standing| match standing {
        Standing::Contender => 0,
        Standing::Floor => 1,
        Standing::CounterExample => 2,
    };
    seen.sort_by_key(|(label, standing)| (rank(*standing), *label));
    let mut keys = Key::assign(seen.iter().copied());
    for (key, (_, standing)) in keys.iter_mut().zip(&seen) {
        if *standing == Standing::Floor {
            key.name.push_str(" (one node)");
        }
    }
    keys
}

/// The index of a contender's key.
fn key_of(keys: &[Key], label: &str) -> Option<usize> {
    keys.iter().position(|key| key.name == label || key.name.strip_suffix(" (one node)") == Some(label))
}
