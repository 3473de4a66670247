//! The decision table, computed from the data by the rules below. Nobody writes verdicts by hand.
//!
//! For a scenario without faults:
//! 1. Floors and counter-examples are no candidates. A candidate without a valid run is *not measured*, and while there
//!    is one, the best of the others is named but nobody wins.
//! 2. A candidate qualifies if it kept every promise, its audit is clean, and its median p99 meets the target.
//! 3. Of those, the lowest p99 wins. Whoever can't be told from it (paired by block, bootstrap interval, Mann–Whitney
//!    with Holm's correction) is tied with it.
//! 4. Ties go to the lowest CPU per delivery of nodes and brokers, told apart in the same way; what then is tied, is a tie.
//!
//! For a scenario with faults: promises kept, then fewest deliveries lost, then the shortest silence, then CPU.

use serde::Serialize;

use super::gather::{Cell, ScenarioTable, cpu_us_per_delivery_served, delivery_ms_p99, silence_ms};
use super::text::{count, ms, ratio, with_interval};
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
    /// The figures behind it.
    pub because: String,
    /// Measured or declared reasons against it.
    pub not_when: String,
}

/// What the rules came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is", content = "who")]
pub enum Outcome {
    /// One strategy.
    Winner(String),
    /// Several that can't be told apart.
    Tie(Vec<String>),
    /// The best of those measured, while others have no valid run.
    Undecided(Vec<String>),
    /// None qualifies.
    Nobody,
    /// No valid run.
    NotMeasured,
}

type Figure = fn(&RunRecord) -> Option<f64>;

/// Decides every scenario, also those of which there are nothing but `failures`.
pub fn decide(tables: &[ScenarioTable<'_>], failures: &[Failure]) -> Vec<Decision> {
    let mut decisions: Vec<Decision> = tables.iter().map(|table| decide_one(table, tables)).collect();
    for failure in failures.iter().filter(|failure| failure.is_ranked()) {
        if decisions.iter().all(|decision| decision.scenario != failure.scenario) {
            decisions.push(Decision {
                scenario: failure.scenario.clone(),
                job: failure.stands_for.clone(),
                outcome: Outcome::NotMeasured,
                provisional: true,
                because: "no run could be made: see “Validity”".to_owned(),
                not_when: String::new(),
            });
        }
    }
    decisions
}

fn decide_one(table: &ScenarioTable<'_>, all: &[ScenarioTable<'_>]) -> Decision {
    let disturbed = table.is_disturbed();
    let measured: Vec<&Cell<'_>> = table
        .contenders()
        .filter(|cell| cell.valid_count() > 0 && (!disturbed || cell.is_disturbed()))
        .collect();
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
        let because = "no valid run: see “Validity”".to_owned();
        return decision(Outcome::NotMeasured, because, String::new());
    }
    let (qualified, excluded) = qualify(&measured, table, disturbed);
    if qualified.is_empty() {
        return decision(Outcome::Nobody, excluded.join("; "), String::new());
    }
    let order: [Figure; 2] =
        [if disturbed { silence_ms } else { delivery_ms_p99 }, cpu_us_per_delivery_served];
    let narrowed = narrow(&qualified, &order);
    let because = because(&narrowed, qualified.len(), &excluded, disturbed);
    let best = narrowed.best;
    let not_when =
        best.iter().map(|cell| reasons_against(cell, table, all, best.len() > 1)).collect::<Vec<_>>();
    let labels: Vec<String> = best.iter().map(|cell| cell.label.clone()).collect();
    let unmeasured = unmeasured(table, disturbed);
    let outcome = match labels.as_slice() {
        _ if !unmeasured.is_empty() => Outcome::Undecided(labels),
        [only] => Outcome::Winner(only.clone()),
        _ => Outcome::Tie(labels),
    };
    let because = match unmeasured.is_empty() {
        true => because,
        false => format!("{because}; no valid run of {}", unmeasured.join(", ")),
    };
    decision(
        outcome,
        because,
        not_when.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; "),
    )
}

/// Candidates without a valid run: invalid ones, failed ones, and those that were not made.
fn unmeasured<'t>(table: &'t ScenarioTable<'_>, disturbed: bool) -> Vec<&'t str> {
    let concerned = table.contenders().filter(|cell| !disturbed || cell.is_disturbed());
    let invalid = concerned.filter(|cell| cell.valid_count() == 0).map(|cell| cell.label.as_str());
    invalid.chain(table.absent.iter().map(String::as_str)).collect()
}

/// Splits into those that qualify and the reasons against the others.
fn qualify<'c, 'a>(
    measured: &[&'c Cell<'a>],
    table: &ScenarioTable<'_>,
    disturbed: bool,
) -> (Vec<&'c Cell<'a>>, Vec<String>) {
    let kept = || measured.iter().filter(|cell| cell.kept());
    let (mut qualified, mut excluded) = (Vec::new(), Vec::new());
    for &cell in measured {
        let audit = cell.audit();
        let p99_ms = cell.median(delivery_ms_p99).unwrap_or(f64::INFINITY);
        let target_ms = table.target_us as f64 / 1e3;
        let objection = match () {
            () if !cell.kept() => Some(broken_promises(cell)),
            () if disturbed && kept().any(|other| loses_more(cell, other)) => {
                Some(format!("lost {} deliveries", count(audit.lost())))
            }
            () if disturbed => None,
            () if !audit.is_clean() => Some("its audit is not clean".to_owned()),
            () if p99_ms > target_ms => {
                Some(format!("p99 {} misses the target of {}", ms(p99_ms), ms(target_ms)))
            }
            () => None,
        };
        match objection {
            Some(objection) => excluded.push(format!("{}: {objection}", cell.label)),
            None => qualified.push(cell),
        }
    }
    (qualified, excluded)
}

/// Whether `cell` lost more per run than `other`; exactly, because one delivery more is one too many.
fn loses_more(cell: &Cell<'_>, other: &Cell<'_>) -> bool {
    let weighed =
        |one: &Cell<'_>, by: &Cell<'_>| u128::from(one.audit().lost()) * by.runs.len().max(1) as u128;
    weighed(cell, other) > weighed(other, cell)
}

fn broken_promises(cell: &Cell<'_>) -> String {
    let broken = cell.valid().flat_map(|run| &run.verdict.promises).find(|promise| !promise.kept);
    broken.map_or_else(String::new, |promise| {
        format!(
            "broke its promise on {} ({}; declared: {})",
            promise.about, promise.observed, promise.declared
        )
    })
}

/// Who is left once the figures have been applied in turn.
struct Narrowed<'c, 'a> {
    /// The lowest, and whoever can't be told from it.
    best: Vec<&'c Cell<'a>>,
    /// Those whom the last figure put out: they had been level with the best in every figure before it.
    beaten: Vec<&'c Cell<'a>>,
    /// How many figures it took; 0 when there was but one to begin with.
    figures: usize,
}

/// Keeps the lowest by each figure in turn until one is left.
fn narrow<'c, 'a>(cells: &[&'c Cell<'a>], order: &[Figure]) -> Narrowed<'c, 'a> {
    let mut narrowed = Narrowed { best: cells.to_vec(), beaten: Vec::new(), figures: 0 };
    for figure in order {
        if narrowed.best.len() < 2 {
            break;
        }
        narrowed.figures += 1;
        let best = lowest(&narrowed.best, *figure);
        let left = |cell: &&Cell<'_>| best.iter().all(|one| one.label != cell.label);
        narrowed.beaten = narrowed.best.iter().copied().filter(left).collect();
        narrowed.best = best;
    }
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

fn because(narrowed: &Narrowed<'_, '_>, candidates: usize, excluded: &[String], disturbed: bool) -> String {
    let leader = narrowed.best[0];
    let mut parts = Vec::new();
    let figure: Figure = if disturbed { silence_ms } else { delivery_ms_p99 };
    let name = if disturbed { "silence after the fault" } else { "p99" };
    if let Some(interval) = leader.interval(figure) {
        parts.push(format!("{name} {}", with_interval(&interval, ms)));
    }
    let by_cpu = narrowed.figures == 2;
    let by: Figure = if by_cpu { cpu_us_per_delivery_served } else { figure };
    let next = narrowed
        .beaten
        .iter()
        .zip(differences(leader, &narrowed.beaten, by))
        .filter_map(|(cell, difference)| Some((cell, difference?)))
        .min_by(|a, b| a.1.ratio.median.total_cmp(&b.1.ratio.median));
    match next {
        Some((cell, difference)) if by_cpu => parts.push(format!(
            "{} can't be told from it in {name}, but needs {} the CPU per delivery",
            cell.label,
            ratio(difference.ratio.median)
        )),
        Some((cell, difference)) => {
            parts.push(format!("next is {} with {} that", cell.label, ratio(difference.ratio.median)));
        }
        None if narrowed.best.len() > 1 => parts.push("intervals overlap in latency and in CPU".to_owned()),
        None if candidates == 1 => parts.push("the only one that qualifies".to_owned()),
        None => {}
    }
    let audit = leader.audit();
    parts.push(match audit.lost() {
        0 => format!("nothing lost of {} deliveries", count(audit.expected)),
        lost => format!("{} of {} deliveries lost", count(lost), count(audit.expected)),
    });
    parts.extend(excluded.iter().map(|reason| format!("out: {reason}")));
    parts.join("; ")
}

/// What speaks against a strategy elsewhere: measured failures first, then what it declares, then its price.
fn reasons_against(
    cell: &Cell<'_>,
    here: &ScenarioTable<'_>,
    all: &[ScenarioTable<'_>],
    name_it: bool,
) -> String {
    let mut reasons = Vec::new();
    for table in all.iter().filter(|table| table.name != here.name) {
        let Some(there) = table.cell(&cell.label).filter(|there| there.valid_count() > 0) else { continue };
        let (audit, p99_ms) = (there.audit(), there.median(delivery_ms_p99).unwrap_or(0.0));
        if table.is_disturbed() {
            if audit.lost() > 0 {
                let told = if audit.lost_silent == 0 { ", all of them declared" } else { "" };
                reasons.push(format!("{}: it lost {} deliveries{told}", table.name, count(audit.lost())));
            }
        } else if !there.kept() {
            reasons.push(format!("{}: it {}", table.name, broken_promises(there)));
        } else if p99_ms * 1e3 > table.target_us as f64 {
            reasons.push(format!("{}: p99 {} misses the target", table.name, ms(p99_ms)));
        }
    }
    reasons.extend(declared_against(cell));
    if let Some(cheaper) = cheaper(cell, here) {
        reasons.push(cheaper);
    }
    match (reasons.is_empty(), name_it) {
        (true, _) => String::new(),
        (false, true) => format!("{}: {}", cell.label, reasons.join(", ")),
        (false, false) => reasons.join("; "),
    }
}

fn declared_against(cell: &Cell<'_>) -> Option<String> {
    let guarantees = &cell.runs.first()?.contender.guarantees;
    let is = |key: &str, value: &str| guarantees.get(key).and_then(serde_json::Value::as_str) == Some(value);
    let mut declared = Vec::new();
    if is("replay", "none") {
        declared.push("history must survive (it keeps no log)");
    }
    if is("delivery", "at-most-once") && is("replay", "none") {
        declared.push("no message may be lost when a broker fails (at most once)");
    }
    (!declared.is_empty()).then(|| declared.join("; "))
}

/// Another contender that does the same job for clearly less CPU.
fn cheaper(cell: &Cell<'_>, here: &ScenarioTable<'_>) -> Option<String> {
    let others: Vec<&Cell<'_>> =
        here.contenders().filter(|other| other.label != cell.label && other.kept()).collect();
    let found = others
        .iter()
        .zip(differences(cell, &others, cpu_us_per_delivery_served))
        .filter_map(|(other, difference)| Some((other, difference?)))
        .filter(|(_, difference)| difference.call.is_smaller() && difference.ratio.median < 0.75)
        .min_by(|a, b| a.1.ratio.median.total_cmp(&b.1.ratio.median))?;
    Some(format!("CPU is scarce ({} needs {} of it)", found.0.label, ratio(found.1.ratio.median)))
}
