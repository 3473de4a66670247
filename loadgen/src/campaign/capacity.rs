//! Capacity: the highest rate that holds, by a bracketed search; then the knee, from a quarter of it to a little beyond.

use anyhow::Result;

use super::plan::{Cell, Entrant, mix};
use crate::record::{Role, RunRecord};
use crate::report::holds;
use crate::scenario::Scenario;

/// The search ends once the bracket is this narrow.
const BRACKET_RATIO: f64 = 1.15;

/// Doublings before the search gives up on finding a rate that doesn't hold.
const DOUBLINGS_MAX: u32 = 8;

/// Shares of capacity at which the knee is drawn.
const KNEE: [f64; 6] = [0.25, 0.5, 0.7, 0.85, 0.95, 1.05];

/// Makes runs at given rates: the seam between the search and the campaign.
pub trait AtRate {
    /// Makes (or finds) the run of a cell.
    ///
    /// # Errors
    /// The person wants to stop, or results can't be written. A run that can't be made is `None`.
    fn run(&mut self, cell: Cell) -> Result<Option<RunRecord>>;
}

/// Searches one contender's capacity in a scenario; `None` where not even a fraction of the scenario's own rate holds.
///
/// # Errors
/// See [`AtRate::run`].
pub fn search(
    runs: &mut impl AtRate,
    scenario: &Scenario,
    entrant: &Entrant,
    seed: u64,
) -> Result<Option<f64>> {
    let mut step = |rate: f64, attempt: u32| -> Result<bool> {
        let record = runs.run(at_rate(scenario, entrant, seed, rate, Role::Capacity, attempt))?;
        Ok(record.is_some_and(|record| holds(&record, record.scenario.delivery_us_p99_target)))
    };
    bracket(scenario.traffic.rate_per_s, &mut step)
}

/// The highest rate at which `holds` says yes, to within [`BRACKET_RATIO`]. A rate holds if two runs of at most three say
/// so: neither one unlucky run nor one lucky run may decide.
fn bracket(start: f64, holds: &mut impl FnMut(f64, u32) -> Result<bool>) -> Result<Option<f64>> {
    let mut mostly = |rate: f64| -> Result<bool> {
        let (first, second) = (holds(rate, 1)?, holds(rate, 2)?);
        if first == second { Ok(first) } else { holds(rate, 3) }
    };
    let mut good = None;
    let mut bad = None;
    let mut rate = start;
    for _ in 0..DOUBLINGS_MAX {
        if mostly(rate)? {
            good = Some(rate);
            if bad.is_some() {
                break;
            }
            rate *= 2.0;
        } else {
            bad = Some(rate);
            if good.is_some() {
                break;
            }
            rate /= 2.0;
        }
    }
    let (Some(mut low), Some(mut high)) = (good, bad) else { return Ok(good) };
    while high / low > BRACKET_RATIO {
        // The geometric middle, in whole messages: the same search asks for the same cells again.
        let middle = (low * high).sqrt().round();
        if middle <= low || middle >= high {
            // No whole message lies between them.
            break;
        }
        if mostly(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(low))
}

/// The cells of a knee sweep.
pub fn knee(scenario: &Scenario, entrant: &Entrant, seed: u64, capacity: f64, repeats: u32) -> Vec<Cell> {
    (1..=repeats)
        .flat_map(|repeat| {
            KNEE.iter().map(move |share| {
                let rate = (capacity * share).round().max(1.0);
                at_rate(scenario, entrant, seed, rate, Role::Knee, repeat)
            })
        })
        .collect()
}

fn at_rate(scenario: &Scenario, entrant: &Entrant, seed: u64, rate: f64, role: Role, attempt: u32) -> Cell {
    let mut scenario = scenario.clone();
    scenario.traffic.rate_per_s = rate;
    Cell {
        role,
        seed: mix(seed, &format!("{}/{rate}", scenario.name), attempt),
        nodes: if entrant.is_floor() { 1 } else { scenario.nodes as usize },
        scenario,
        entrant: entrant.clone(),
        block: attempt,
        attempt: 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(start: f64, limit: f64) -> (Option<f64>, u32) {
        let mut steps = 0;
        let capacity = bracket(start, &mut |rate, _| {
            steps += 1;
            Ok(rate <= limit)
        });
        (capacity.unwrap(), steps)
    }

    #[test]
    fn the_search_brackets_from_either_side() {
        for (start, limit) in [(1_000.0, 5_300.0), (1_000.0, 1_000.0), (8_000.0, 700.0), (500.0, 40_000.0)] {
            let (capacity, steps) = found(start, limit);
            let capacity = capacity.unwrap();
            assert!(
                capacity <= limit && capacity * BRACKET_RATIO >= limit * 0.99,
                "{start} {limit}: {capacity}"
            );
            assert!(steps <= 48, "{steps} steps");
        }
    }

    #[test]
    fn what_never_holds_has_no_capacity_and_what_always_does_ends() {
        assert_eq!(found(1_000.0, 0.0).0, None);
        assert_eq!(found(1.0, f64::INFINITY).0, Some(128.0));
    }

    #[test]
    fn a_bracket_without_a_whole_message_in_it_ends() {
        assert_eq!(found(1.0, 1.0).0, Some(1.0));
        assert_eq!(found(3.0, 2.9).0, Some(2.0));
    }

    #[test]
    fn one_lucky_run_in_three_holds_nothing() {
        let lucky = bracket(1_000.0, &mut |rate, attempt| Ok(rate <= 4_000.0 || attempt == 2));
        assert!(lucky.unwrap().unwrap() <= 4_000.0);
    }

    #[test]
    fn one_unlucky_run_is_asked_again() {
        let mut unlucky = true;
        let capacity = bracket(1_000.0, &mut |rate, _| Ok(rate <= 4_000.0 && !std::mem::take(&mut unlucky)));
        assert!(capacity.unwrap().unwrap() >= 3_400.0);
    }
}
