//! The decision table, computed from the data by the rules below. Nobody writes verdicts by hand.
//!
//! Scenarios without faults alone are decided; what a fault costs is shown for everyone and crowns nobody
//! (`sections`).
//! 1. Floors and counter-examples are no candidates. A candidate without a valid run is *not measured*, and while there
//!    is one, the best of the others is named but nobody wins.
//! 2. A candidate qualifies if it kept every promise, its audit is clean, and its median p99 meets the target. Where the
//!    one-node reference fails likewise, the failure says nothing about backplanes, and the row says so.
//! 3. Of those, the lowest p99 wins. Whoever can't be told from it (paired by block, bootstrap interval, Mann–Whitney
//!    with Holm's correction) is tied with it; who shares fewer than two blocks with it leaves the row undecided.
//! 4. Ties go to the lowest CPU per delivery of nodes and brokers, told apart in the same way; what then is tied, is a tie.

use serde::Serialize;

use super::gather::{Cell, ScenarioTable, cpu_us_per_delivery_served, delivery_ms_p99};
use super::reasons::{because, broken, broken_promises, reasons_against};
use super::text::ms;
use crate::campaign::Failure;
use crate::record::RunRecord;
use crate::stats::{BLOCKS_MIN, Difference, compare_paired, correct};

/// A line of the decision table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decision {
    /// The scenario that stands for the job.
    pub scenario: String,
    /// The job, in the scenario's own words.
    pub job: String,
    /// Which strategy.
    pub outcome: Outcome,
    /// Fewer blocks than a statement needs: an indication.
    pub provisional: bool,
    /// The figures behind it, the most telling first.
    pub because: Vec<String>,
    /// Measured or declared reasons against it, the most telling first.
    pub not_when: Vec<String>,
}

/// What the rules came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "who")]
pub enum Outcome {
    /// One strategy.
    Winner(String),
    /// Several that can't be told apart.
    Tie(Vec<String>),
    /// The best so far, while others have no valid run or there are too few blocks to tell.
    Undecided(Vec<String>),
    /// None qualifies.
    Nobody,
    /// No valid run.
    NotMeasured,
}

pub(super) type Figure = fn(&RunRecord) -> Option<f64>;

/// Decides every scenario without faults, also those of which there are nothing but `failures`.
pub fn decide(tables: &[ScenarioTable<'_>], failures: &[Failure]) -> Vec<Decision> {
    let undisturbed = tables.iter().filter(|table| !table.is_disturbed());
    let mut decisions: Vec<Decision> = undisturbed.map(|table| decide_one(table, tables)).collect();
    for failure in failures.iter().filter(|failure| failure.is_ranked()) {
        let seen = decisions.iter().any(|decision| decision.scenario == failure.scenario)
            || tables.iter().any(|table| table.name == failure.scenario);
        if !seen {
            decisions.push(Decision {
                scenario: failure.scenario.clone(),
                job: failure.stands_for.clone(),
                outcome: Outcome::NotMeasured,
                provisional: true,
                because: vec!["no run could be made: see “Validity”".to_owned()],
                not_when: Vec::new(),
            });
        }
    }
    decisions
}

fn decide_one(table: &ScenarioTable<'_>, all: &[ScenarioTable<'_>]) -> Decision {
    let measured: Vec<&Cell<'_>> = table.contenders().filter(|cell| cell.valid_count() > 0).collect();
    let blocks = measured.iter().map(|cell| cell.valid_count()).min().unwrap_or(0);
    let decision = |outcome, because, not_when| Decision {
        scenario: table.name.clone(),
        job: table.stands_for.clone(),
        outcome,
        provisional: blocks < BLOCKS_MIN,
        because,
        not_when,
    };
    if measured.is_empty() {
        let because = vec!["no valid run: see “Validity”".to_owned()];
        return decision(Outcome::NotMeasured, because, Vec::new());
    }
    let (qualified, excluded) = qualify(&measured, table);
    if qualified.is_empty() {
        return decision(Outcome::Nobody, excluded, Vec::new());
    }
    let narrowed = narrow(&qualified);
    let mut because = because(&narrowed, qualified.len(), excluded);
    let best = &narrowed.best;
    let not_when = best.iter().flat_map(|cell| reasons_against(cell, table, all, best.len() > 1)).collect();
    let labels: Vec<String> = best.iter().map(|cell| cell.label.clone()).collect();
    let unmeasured = unmeasured(table);
    let outcome = match labels.as_slice() {
        _ if !unmeasured.is_empty() || narrowed.blocks_shared().is_some_and(|shared| shared < 2) => {
            Outcome::Undecided(labels)
        }
        [only] => Outcome::Winner(only.clone()),
        _ => Outcome::Tie(labels),
    };
    if !unmeasured.is_empty() {
        because.insert(0, format!("no valid run of {}", unmeasured.join(", ")));
    }
    decision(outcome, because, not_when)
}

/// Candidates without a valid run: invalid ones, failed ones, and those that were not made.
fn unmeasured<'t>(table: &'t ScenarioTable<'_>) -> Vec<&'t str> {
    let invalid = table.contenders().filter(|cell| cell.valid_count() == 0).map(|cell| cell.label.as_str());
    invalid.chain(table.absent.iter().map(String::as_str)).collect()
}

/// Splits into those that qualify and the reasons against the others.
fn qualify<'c, 'a>(measured: &[&'c Cell<'a>], table: &ScenarioTable<'_>) -> (Vec<&'c Cell<'a>>, Vec<String>) {
    let floor = table.cells.iter().find(|cell| cell.is_floor() && cell.valid_count() > 0);
    let target_ms = table.target_us as f64 / 1e3;
    let p99_ms = |cell: &Cell<'_>| cell.median(delivery_ms_p99).unwrap_or(f64::INFINITY);
    let (mut qualified, mut excluded) = (Vec::new(), Vec::new());
    // Whether the one-node reference fails in every way in which a candidate does.
    let mut floor_too = true;
    for &cell in measured {
        let (objection, likewise) = match () {
            () if !cell.kept() => {
                let too = floor.is_some_and(|floor| {
                    let there = broken(floor);
                    broken(cell).iter().all(|about| there.contains(about))
                });
                (broken_promises(cell), too)
            }
            () if !cell.audit().is_clean() => {
                let too = floor.is_some_and(|floor| !floor.audit().is_clean());
                ("its audit is not clean".to_owned(), too)
            }
            () if p99_ms(cell) > target_ms => {
                let too = floor.is_some_and(|floor| p99_ms(floor) > target_ms);
                (format!("p99 {} misses the target of {}", ms(p99_ms(cell)), ms(target_ms)), too)
            }
            () => {
                qualified.push(cell);
                continue;
            }
        };
        floor_too &= likewise;
        excluded.push(format!("{}: {objection}", cell.label));
    }
    if !excluded.is_empty() && floor_too {
        let note = "the one-node reference fails too: says nothing about backplanes";
        excluded.insert(0, note.to_owned());
    }
    (qualified, excluded)
}

/// Who is left once the figures have been applied in turn.
pub(super) struct Narrowed<'c, 'a> {
    /// The lowest, and whoever can't be told from it; the lowest first.
    pub(super) best: Vec<&'c Cell<'a>>,
    /// Those whom the last figure put out: they had been level with the best in every figure before it.
    pub(super) beaten: Vec<&'c Cell<'a>>,
    /// How many figures it took; 0 when there was but one to begin with.
    pub(super) figures: usize,
}

impl Narrowed<'_, '_> {
    /// The fewest blocks that one of the best shares with the lowest; `None` where there is but one.
    pub(super) fn blocks_shared(&self) -> Option<usize> {
        let (leader, others) = self.best.split_first()?;
        others.iter().map(|other| leader.pairs(other, delivery_ms_p99).len()).min()
    }
}

/// Keeps the lowest by each figure in turn until one is left.
fn narrow<'c, 'a>(cells: &[&'c Cell<'a>]) -> Narrowed<'c, 'a> {
    let order: [Figure; 2] = [delivery_ms_p99, cpu_us_per_delivery_served];
    let mut narrowed = Narrowed { best: cells.to_vec(), beaten: Vec::new(), figures: 0 };
    for figure in order {
        if narrowed.best.len() < 2 {
            break;
        }
        narrowed.figures += 1;
        let best = lowest(&narrowed.best, figure);
        let left = |cell: &&Cell<'_>| best.iter().all(|one| one.label != cell.label);
        narrowed.beaten = narrowed.best.iter().copied().filter(left).collect();
        narrowed.best = best;
    }
    // Among those that are level the order means nothing; readers expect the lower latency first.
    let p99 = |cell: &Cell<'_>| cell.median(delivery_ms_p99).unwrap_or(f64::INFINITY);
    narrowed.best.sort_by(|a, b| p99(a).total_cmp(&p99(b)));
    narrowed
}

/// The lowest median and whoever can't be told from it.
fn lowest<'c, 'a>(cells: &[&'c Cell<'a>], figure: Figure) -> Vec<&'c Cell<'a>> {
    let known = cells.iter().filter_map(|cell| Some((*cell, cell.median(figure)?)));
    let Some((leader, _)) = known.min_by(|a, b| a.1.total_cmp(&b.1)) else {
        return cells.to_vec();
    };
    let others: Vec<&Cell<'_>> = cells.iter().copied().filter(|cell| cell.label != leader.label).collect();
    let differences = differences(leader, &others, figure);
    let tied = others
        .into_iter()
        .zip(differences)
        .filter(|(_, difference)| difference.as_ref().is_none_or(|difference| !difference.call.is_larger()));
    std::iter::once(leader).chain(tied.map(|(cell, _)| cell)).collect()
}

/// Each of `others` against `leader`, corrected as one family; `None` where they share no block.
pub(super) fn differences(
    leader: &Cell<'_>,
    others: &[&Cell<'_>],
    figure: Figure,
) -> Vec<Option<Difference>> {
    let raw: Vec<Option<Difference>> =
        others.iter().map(|other| compare_paired(&leader.pairs(other, figure))).collect();
    let mut family: Vec<Difference> = raw.iter().flatten().cloned().collect();
    correct(&mut family);
    let mut corrected = family.into_iter();
    raw.into_iter().map(|difference| difference.and_then(|_| corrected.next())).collect()
}
