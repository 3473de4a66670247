//! Number 2: the most that is delivered in time, and how soon all is well again after too much.

use anyhow::Result;

use super::found::Found;
use super::ladder::{back_after_s, climb};
use super::record::{Row, Target, Window};
use super::rig::{Rig, Taken};
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, MEMORY, NO_HISTORY, Subject};
use super::verdict::Metric;

const NUMBER: u8 = 2;
/// Deliveries per second.
const RUNGS: [f64; 6] = [250e3, 600e3, 1.0e6, 1.4e6, 1.8e6, 2.4e6];
/// Publishers per room, the rung that is to be reached with them, and whether the floor shows what the machine does.
const CLIMBS: [(f64, usize, bool); 2] = [(1.0, 3, true), (10.0, 2, false)];
/// Members of a room.
const MEMBERS: f64 = 10.0;
/// Slowest hundredth that counts as in time.
const LIMIT_US: u64 = 100_000;
/// Time in which all must be well again.
const BACK_WITHIN_S: f64 = 2.0;
/// Runs that a climb takes as a rule, for the estimate.
const RUNS_TYPICAL: f64 = 2.2;

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let climb = RUNS_TYPICAL * run_s(&shape("pressure", "pressure", &[])?);
    Ok(f64::from(blocks) * (3.0 * climb + run_s(&shape("overload", "overload", &[])?)) + 3.0)
}

/// A climb of each subject per block, and one overload.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let floor = Subject::floor(&rig.generator, true)?;
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    for (publishers, aim, with_floor) in CLIMBS {
        let mut subjects = vec![&memory];
        subjects.extend(with_floor.then_some(&floor));
        let (mut ours, mut floors, mut cost) = (Vec::new(), Vec::new(), Vec::new());
        for block in rig.blocks() {
            for subject in rig.shuffled(subjects.clone(), "pressure", block) {
                let (best, us) = highest(rig, found, subject, publishers, aim, block)?;
                if subject.name == FLOOR {
                    floors.push(best);
                } else {
                    ours.push(best);
                    cost.extend(us);
                }
            }
        }
        let who = format!("{publishers:.0} publisher{} per room", if publishers > 1.0 { "s" } else { "" });
        let target = Target::AtLeast(RUNGS[aim]);
        let most = Row::plain(
            NUMBER,
            &format!("most deliveries with p99 ≤ 100 ms, {who}"),
            "deliveries/s",
            target,
            ours,
        );
        let reference_name = if with_floor { "floor, coalescing" } else { "" }.to_owned();
        found.rows.push(Row { reference_name, reference: floors, ..most });
        let what = format!("server CPU there, {who}");
        found.rows.push(Row::plain(NUMBER, &what, "µs per delivery", Target::Shown, cost));
    }
    overload(rig, found, &memory)
}

/// The highest rung that a subject holds, 0 for none, and what a delivery costs there.
fn highest(
    rig: &Rig,
    found: &mut Found,
    subject: &Subject,
    publishers: f64,
    aim: usize,
    block: u32,
) -> Result<(f64, Option<f64>)> {
    let metric: Metric = Window::us_per_delivery;
    let mut cost = None;
    let best = climb(&RUNGS, aim, &mut |rung| {
        let name = format!("pressure-{publishers:.0}-{:.0}k", rung / 1e3);
        let overrides = [("traffic.senders_per_room", publishers), ("traffic.rate_per_s", rung / MEMBERS)];
        let scenario = shape("pressure", &name, &overrides)?;
        let what = format!("block {block}, {name}, {}", subject.name);
        rig.progress.note(&what);
        // A rung that fails is an answer, not a window that is missing: it is kept without a note.
        let taken = found.or_note(&what, rig.window(subject, &scenario, block))?;
        let Some(taken) = taken else { return Ok(false) };
        let held = holds(&taken);
        if held {
            cost = metric(&taken.window);
        }
        found.windows.push(taken.window);
        Ok(held)
    })?;
    Ok((best.unwrap_or(0.0), cost))
}

/// In time, whole, and really offered.
fn holds(taken: &Taken) -> bool {
    taken.window.is_usable() && taken.window.delivery_us_p99.is_some_and(|p99| p99 <= LIMIT_US)
}

/// Too much for three seconds: how soon is everything in time again?
fn overload(rig: &Rig, found: &mut Found, memory: &Subject) -> Result<()> {
    let scenario = shape("overload", "overload", &[])?;
    let surge = scenario.traffic.surges.first();
    let fallen_s = scenario.warm_up_s + surge.map_or(0.0, |surge| surge.at_s + surge.for_s);
    let (mut back_s, mut closed) = (Vec::new(), Vec::new());
    for block in rig.blocks() {
        let what = format!("block {block}, overload");
        rig.progress.note(&what);
        let Some(taken) = found.or_note(&what, rig.window(memory, &scenario, block))? else { continue };
        match back_after_s(&taken.measured.series, fallen_s, LIMIT_US) {
            Some(seconds) => back_s.push(seconds),
            None => {
                // Never within the run counts as its whole rest: a missing value would flatter the median.
                back_s.push(scenario.warm_up_s + scenario.duration_s - fallen_s);
                found.note(format!("{what}: not in time again before the run ended"));
            }
        }
        closed.push(taken.measured.load.reconnects as f64);
        found.windows.push(taken.window);
    }
    let what = "from the load's fall to p99 ≤ 100 ms for good";
    found.rows.push(Row::plain(NUMBER, what, "s", Target::AtMost(BACK_WITHIN_S), back_s));
    let what = "slow connections closed meanwhile, which came back";
    found.rows.push(Row::plain(NUMBER, what, "connections", Target::Shown, closed));
    Ok(())
}
