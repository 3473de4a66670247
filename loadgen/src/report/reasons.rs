//! The words behind a decision: what speaks for a strategy, and what against it.

use super::decide::{Figure, Narrowed, differences};
use super::gather::{Cell, ScenarioTable, cpu_us_per_delivery_served, delivery_ms_p99, lost_share};
use super::text::{count, ms, ratio, share, significant, us, with_interval};
use crate::stats::{Difference, compare_paired};

/// What each kept and broken promise is about, over the valid runs.
pub(super) fn broken<'a>(cell: &Cell<'a>) -> Vec<&'a str> {
    let promises = cell.valid().flat_map(|run| &run.verdict.promises).filter(|promise| !promise.kept);
    let mut about: Vec<&str> = promises.map(|promise| promise.about.as_str()).collect();
    about.sort_unstable();
    about.dedup();
    about
}

/// Every broken promise, with what was seen in the first run that broke it.
pub(super) fn broken_promises(cell: &Cell<'_>) -> String {
    let runs = cell.valid_count();
    let parts = broken(cell).into_iter().map(|about| {
        let found = || {
            let all = cell.valid().flat_map(|run| &run.verdict.promises);
            all.filter(|promise| !promise.kept && promise.about == about)
        };
        let times = if runs > 1 { format!(" in {} of {runs} runs", found().count()) } else { String::new() };
        let first = found().next();
        first.map_or_else(String::new, |promise| {
            format!("{about}{times} ({}; expected: {})", promise.observed, promise.declared)
        })
    });
    format!("broke its promise on {}", parts.collect::<Vec<_>>().join(" and on "))
}

/// What speaks for the best, the most telling first.
pub(super) fn because(narrowed: &Narrowed<'_, '_>, candidates: usize, excluded: Vec<String>) -> Vec<String> {
    let leader = narrowed.best[0];
    let mut parts = Vec::new();
    match narrowed.blocks_shared() {
        Some(shared @ ..2) => {
            parts.push(format!("undecided: {shared} shared {}", if shared == 1 { "block" } else { "blocks" }))
        }
        Some(_) => parts.push("not told apart".to_owned()),
        None => {}
    }
    if narrowed.best.len() > 1 {
        let p99 = level("p99", &narrowed.best, delivery_ms_p99, ms);
        let cpu = level("CPU per delivery", &narrowed.best, cpu_us_per_delivery_served, us);
        match parts.first_mut() {
            Some(first) => first.push_str(&format!(": {p99}")),
            None => parts.push(p99),
        }
        parts.push(cpu);
    } else if let Some(interval) = leader.interval(delivery_ms_p99) {
        parts.push(format!("p99 {}", with_interval(&interval, ms)));
    }
    parts.extend(next(narrowed));
    if candidates == 1 {
        parts.push("the only one that qualifies".to_owned());
    }
    let lost: u64 = narrowed.best.iter().map(|cell| cell.audit().lost()).sum();
    let expected: u64 = narrowed.best.iter().map(|cell| cell.audit().expected).sum();
    parts.push(match lost {
        0 => format!("nothing lost of {} expected deliveries", count(expected)),
        lost => format!("{} of {} expected deliveries lost", count(lost), count(expected)),
    });
    parts.extend(excluded.into_iter().map(|reason| format!("out: {reason}")));
    parts
}

/// The figure of each of several that are level, beside what tells it from the first, or doesn't.
fn level(name: &str, best: &[&Cell<'_>], figure: Figure, unit: fn(f64) -> String) -> String {
    let said = |cell: &Cell<'_>| {
        let median = cell.median(figure).map_or("–".to_owned(), unit);
        format!("{} {median}", cell.label)
    };
    let others = best[1..].iter().zip(differences(best[0], &best[1..], figure)).map(|(cell, difference)| {
        let compared = difference.filter(|difference| difference.ratio.samples > 1);
        let compared = compared.map(|difference| format!(" ({})", versus(&difference)));
        said(cell) + &compared.unwrap_or_default()
    });
    let all: Vec<String> = std::iter::once(said(best[0])).chain(others).collect();
    format!("{name} {}", all.join(", "))
}

/// A ratio with its interval and p.
fn versus(difference: &Difference) -> String {
    let of = &difference.ratio;
    format!(
        "{}, {}–{}, p {}",
        ratio(of.median),
        significant(of.low),
        significant(of.high),
        significant(difference.p)
    )
}

/// Who comes next, by the figure that decided.
fn next(narrowed: &Narrowed<'_, '_>) -> Option<String> {
    let by_cpu = narrowed.figures == 2;
    let by: Figure = if by_cpu { cpu_us_per_delivery_served } else { delivery_ms_p99 };
    let (cell, difference) = narrowed
        .beaten
        .iter()
        .zip(differences(narrowed.best[0], &narrowed.beaten, by))
        .filter_map(|(cell, difference)| Some((cell, difference?)))
        .min_by(|a, b| a.1.ratio.median.total_cmp(&b.1.ratio.median))?;
    let times = ratio(difference.ratio.median);
    Some(match by_cpu {
        true => {
            format!("{}: no clear difference in p99, but it needs {times} the CPU per delivery", cell.label)
        }
        false => format!("next is {} with {times} that p99", cell.label),
    })
}

/// What speaks against a strategy elsewhere: measured failures first, then what it declares, then its price. What holds
/// for every contender, or for the one-node reference as well, tells no strategy from another and is left out.
pub(super) fn reasons_against(
    cell: &Cell<'_>,
    here: &ScenarioTable<'_>,
    all: &[ScenarioTable<'_>],
    name_it: bool,
) -> Vec<String> {
    let mut reasons: Vec<String> = all
        .iter()
        .filter(|table| table.name != here.name)
        .filter_map(|table| measured_against(table.cell(&cell.label)?, table))
        .collect();
    reasons.extend(declared_against(cell, here));
    reasons.extend(cheaper(cell, here));
    if name_it {
        for reason in &mut reasons {
            *reason = format!("{}: {reason}", cell.label);
        }
    }
    reasons
}

fn measured_against(there: &Cell<'_>, table: &ScenarioTable<'_>) -> Option<String> {
    if there.valid_count() == 0 {
        return None;
    }
    let rivals = || table.contenders().filter(|other| other.valid_count() > 0);
    if table.is_disturbed() {
        let least =
            rivals().filter(|other| loses_more(there, other)).min_by_key(|other| other.audit().lost())?;
        let (mine, theirs) = (there.audit(), least.audit());
        let told = if mine.lost_silent == 0 { ", all told" } else { "" };
        return Some(format!(
            "{}: {} of deliveries lost{told} ({}: {})",
            table.name,
            share(mine.lost(), mine.expected),
            least.label,
            if theirs.lost() == 0 { "none".to_owned() } else { share(theirs.lost(), theirs.expected) }
        ));
    }
    let floor = table.cells.iter().find(|other| other.is_floor());
    let all_and_floor = || rivals().chain(floor);
    let misses =
        |cell: &Cell<'_>| cell.median(delivery_ms_p99).is_some_and(|p99| p99 * 1e3 > table.target_us as f64);
    if !there.kept() {
        let floor_too =
            floor.is_some_and(|floor| broken(there).iter().all(|one| broken(floor).contains(one)));
        let distinguishes = !floor_too && rivals().any(Cell::kept);
        return distinguishes.then(|| format!("{}: it {}", table.name, broken_promises(there)));
    }
    let distinguishes = misses(there) && all_and_floor().any(|other| !misses(other));
    distinguishes.then(|| {
        let p99 = there.median(delivery_ms_p99).map_or_else(String::new, ms);
        format!("{}: p99 {p99} misses the target", table.name)
    })
}

/// Whether `cell` loses more than `other`: some against none exactly, otherwise paired by block.
fn loses_more(cell: &Cell<'_>, other: &Cell<'_>) -> bool {
    match (cell.audit().lost(), other.audit().lost()) {
        (0, _) => false,
        (_, 0) => true,
        _ => compare_paired(&other.pairs(cell, lost_share)).is_some_and(|one| one.call.is_larger()),
    }
}

fn declared_against(cell: &Cell<'_>, here: &ScenarioTable<'_>) -> Option<String> {
    let may_lose = |cell: &Cell<'_>| {
        let guarantees = cell.runs.first().map(|run| &run.contender.guarantees);
        let delivery = guarantees.and_then(|guarantees| guarantees.get("delivery"));
        delivery.and_then(serde_json::Value::as_str) == Some("at-most-once")
    };
    let distinguishes = may_lose(cell) && here.contenders().any(|other| !may_lose(other));
    distinguishes.then(|| "no message may be lost when a broker fails (it declares at most once)".to_owned())
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
    Some(format!("CPU is scarce ({} needs {} of this one’s)", found.0.label, ratio(found.1.ratio.median)))
}
