//! Number 2: the most that is delivered in time, and how soon all is well again after too much.

use anyhow::Result;

use super::found::Found;
use super::ladder::{Fallen, back_after_s, climb, falls_behind, taken_up};
use super::record::{OFFERED_SHARE_MIN, Row, Target};
use super::rig::{Rig, Taken};
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, MEMORY, NO_HISTORY, Subject};
use super::verdict::OfBlock;
use crate::scenario::Scenario;

const NUMBER: u8 = 2;
/// Deliveries per second.
const RUNGS: [f64; 6] = [250e3, 600e3, 1.0e6, 1.4e6, 1.8e6, 2.4e6];
/// Publishers per room, the rung that is to be reached with them, and whether the floor shows what the machine does.
const CLIMBS: [(f64, usize, bool); 2] = [(1.0, 3, true), (10.0, 2, false)];
/// Members of a room.
const MEMBERS: f64 = 10.0;
/// Slowest hundredth that counts as in time.
const LIMIT_US: u64 = 100_000;
/// Share of a rung that must be delivered.
const DELIVERED_SHARE_MIN: f64 = 0.99;
/// Time in which all must be well again.
const BACK_WITHIN_S: f64 = 2.0;
/// Runs that a climb takes as a rule, for the estimate.
const RUNS_TYPICAL: f64 = 2.2;

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let climb = RUNS_TYPICAL * run_s(&shape("pressure", "pressure", &[])?);
    Ok(f64::from(blocks) * (3.0 * climb + run_s(&shape("overload", "overload", &[])?)) + 3.0)
}

/// What the blocks brought.
#[derive(Debug, Default)]
struct Values {
    climbs: [Climbed; CLIMBS.len()],
    back_s: Vec<f64>,
    closed: Vec<f64>,
    told: Vec<f64>,
}

/// The highest rungs, and what was delivered there at what cost.
#[derive(Debug, Default)]
struct Climbed {
    ours: Vec<OfBlock>,
    floors: Vec<OfBlock>,
    delivered: Vec<f64>,
    cost: Vec<f64>,
}

/// Its lines before anything was measured.
pub(super) fn lines() -> Vec<Row> {
    rows(&Values::default())
}

fn rows(values: &Values) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((publishers, aim, with_floor), climbed) in CLIMBS.into_iter().zip(&values.climbs) {
        let who = format!("{publishers:.0} publisher{} per room", if publishers > 1.0 { "s" } else { "" });
        rows.push(Row::beside(
            NUMBER,
            &format!("most deliveries with p99 ≤ 100 ms, {who}"),
            "deliveries/s",
            Target::AtLeast(RUNGS[aim]),
            if with_floor { "floor, coalescing" } else { "" },
            &climbed.ours,
            &climbed.floors,
        ));
        let shown = |what: &str, unit: &str, values: &[f64]| {
            Row::plain(NUMBER, &format!("{what}, {who}"), unit, Target::Shown, values.to_vec())
        };
        rows.push(shown("really delivered there", "deliveries/s", &climbed.delivered));
        rows.push(shown("server CPU there", "µs per delivery", &climbed.cost));
    }
    let plain = |what: &str, unit: &str, target, values: &[f64]| {
        Row::plain(NUMBER, what, unit, target, values.to_vec())
    };
    let what = "from the load's fall to p99 ≤ 100 ms of all that is due, for good";
    rows.push(plain(what, "s", Target::AtMost(BACK_WITHIN_S), &values.back_s));
    let what = "slow connections closed meanwhile, which came back";
    rows.push(plain(what, "connections", Target::Shown, &values.closed));
    let what = "deliveries that they missed, as they were told";
    rows.push(plain(what, "deliveries", Target::Shown, &values.told));
    rows
}

/// A climb of each subject per block, and one overload.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let mut values = Values::default();
    let outcome = take(rig, found, &mut values);
    found.rows.extend(rows(&values));
    outcome
}

fn take(rig: &Rig, found: &mut Found, values: &mut Values) -> Result<()> {
    let floor = Subject::floor(&rig.generator, true)?;
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    for ((publishers, aim, with_floor), climbed) in CLIMBS.into_iter().zip(&mut values.climbs) {
        let mut subjects = vec![&memory];
        subjects.extend(with_floor.then_some(&floor));
        for block in rig.blocks() {
            for subject in rig.shuffled(subjects.clone(), "pressure", block) {
                let top = highest(rig, found, subject, publishers, aim, block)?;
                if subject.name == FLOOR {
                    climbed.floors.push((block, top.rung));
                } else {
                    climbed.ours.push((block, top.rung));
                    climbed.delivered.extend(top.delivered_per_s);
                    climbed.cost.extend(top.us);
                }
            }
        }
    }
    overload(rig, found, &memory, values)
}

/// The highest rung that a subject holds.
#[derive(Debug, Default)]
struct Top {
    /// 0 for none.
    rung: f64,
    delivered_per_s: Option<f64>,
    /// What a delivery costs there, microseconds.
    us: Option<f64>,
}

fn highest(
    rig: &Rig,
    found: &mut Found,
    subject: &Subject,
    publishers: f64,
    aim: usize,
    block: u32,
) -> Result<Top> {
    let mut top = Top::default();
    climb(&RUNGS, aim, &mut |rung| {
        let name = format!("pressure-{publishers:.0}-{:.0}k", rung / 1e3);
        let overrides = [("traffic.senders_per_room", publishers), ("traffic.rate_per_s", rung / MEMBERS)];
        let scenario = shape("pressure", &name, &overrides)?;
        let what = format!("block {block}, {name}, {}", subject.name);
        rig.progress.note(&what);
        // A rung that fails is an answer, not a window that is missing: it is kept without a note.
        let taken = found.or_note(&what, rig.window(subject, &scenario, block))?;
        let Some(taken) = taken else { return Ok(false) };
        let held = holds(&taken, rung);
        if held {
            let delivered_per_s = taken.window.deliveries / taken.window.window_s;
            top = Top { rung, delivered_per_s: Some(delivered_per_s), us: taken.window.us_per_delivery() };
        }
        found.windows.push(taken.window);
        Ok(held)
    })?;
    Ok(top)
}

/// In time from beginning to end, whole, without throwing anybody out, and really offered.
fn holds(taken: &Taken, rung: f64) -> bool {
    let (window, measured) = (&taken.window, &taken.measured);
    let end_s = measured.warm_up_s + measured.window_s;
    window.is_usable()
        && window.deliveries >= DELIVERED_SHARE_MIN * rung * window.window_s
        && measured.load.reconnects == 0
        && window.delivery_us_p99.is_some_and(|p99| p99 <= LIMIT_US)
        && !falls_behind(&measured.series, measured.warm_up_s, end_s, LIMIT_US / 2)
}

/// Too much for three seconds: how soon does everything arrive in time again?
fn overload(rig: &Rig, found: &mut Found, memory: &Subject, values: &mut Values) -> Result<()> {
    let scenario = shape("overload", "overload", &[])?;
    let surge_end_s = surge(&scenario).1;
    let fallen = Fallen {
        from_s: surge_end_s,
        to_s: scenario.warm_up_s + scenario.duration_s,
        due_per_s: scenario.traffic.rate_per_s * scenario.rooms.members,
    };
    for block in rig.blocks() {
        let what = format!("block {block}, overload");
        rig.progress.note(&what);
        let Some(taken) = found.or_note(&what, rig.window(memory, &scenario, block))? else { continue };
        if let Some(objection) = objection(&taken, &scenario) {
            found.note(format!("{what}: left out; {objection}"));
        } else {
            let load = &taken.measured.load;
            let back = back_after_s(&taken.measured.series, fallen, LIMIT_US);
            values.back_s.push(back.filter(|_| load.connections_failed == 0).unwrap_or_else(|| {
                // Never within the run counts as its whole rest: a missing value would flatter the median.
                found.note(format!("{what}: not as before when the run ended"));
                fallen.to_s - fallen.from_s
            }));
            values.closed.push(load.reconnects as f64);
            values.told.push(taken.measured.audit.lost_declared as f64);
        }
        found.windows.push(taken.window);
    }
    Ok(())
}

/// When the surge begins and ends, on the run's clock.
fn surge(scenario: &Scenario) -> (f64, f64) {
    let surge = scenario.traffic.surges.first();
    let from_s = scenario.warm_up_s + surge.map_or(0.0, |surge| surge.at_s);
    (from_s, from_s + surge.map_or(0.0, |surge| surge.for_s))
}

/// Why a run of too much says nothing. Throwing slow connections out is the policy, and whoever is thrown out is told: what is
/// lost to them is no blemish. What is lost without a word is.
fn objection(taken: &Taken, scenario: &Scenario) -> Option<String> {
    let (audit, series) = (&taken.measured.audit, &taken.measured.series);
    let (from_s, to_s) = surge(scenario);
    let factor = scenario.traffic.surges.first().map_or(1.0, |surge| surge.factor);
    let after_s = series.interval_ms as f64 / 1e3;
    let due = scenario.traffic.rate_per_s * ((to_s - from_s) * factor + after_s);
    let share = taken_up(series, from_s, to_s) as f64 / due;
    if share < OFFERED_SHARE_MIN {
        return Some(format!(
            "the generator sent {:.1} % of the surge while it lasted: that is another load",
            share * 100.0
        ));
    }
    let blemishes = audit.lost_silent + audit.duplicates + audit.reordered + audit.leaked + audit.corrupt;
    (blemishes > 0 || !audit.conserved || !audit.closes()).then(|| {
        format!(
            "{} lost without a word, {} doubled, {} reordered, {} leaked",
            audit.lost_silent, audit.duplicates, audit.reordered, audit.leaked
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::record::Window;
    use super::*;
    use crate::record::{Point, Series};
    use crate::report::sample::Sample;

    /// A rung of 250,000 for four seconds, as it should be.
    fn taken() -> Taken {
        let mut measured = Sample::new("memory", "steady", 1, 5.0).record().measured;
        let point = Point { delivery_us_p99: Some(60_000), ..Point::default() };
        measured.series = Series { interval_ms: 1_000, points: vec![point; 8] };
        (measured.warm_up_s, measured.window_s, measured.load.reconnects) = (1.0, 4.0, 0);
        let window = Window {
            deliveries: 1e6,
            window_s: 4.0,
            delivery_us_p99: Some(90_000),
            offered_share: 1.0,
            clean: true,
            ..Window::default()
        };
        Taken { window, measured }
    }

    fn holds_if(change: impl Fn(&mut Taken)) -> bool {
        let mut taken = taken();
        change(&mut taken);
        holds(&taken, 250e3)
    }

    #[test]
    fn a_rung_is_held_whole_in_time_and_by_everybody() {
        assert!(holds_if(|_| ()));
        assert!(!holds_if(|taken| taken.window.deliveries = 0.98e6));
        assert!(!holds_if(|taken| taken.window.delivery_us_p99 = Some(100_001)));
        assert!(!holds_if(|taken| taken.window.offered_share = 0.98));
        assert!(!holds_if(|taken| taken.measured.load.reconnects = 1));
        assert!(!holds_if(|taken| taken.measured.series.points[4].delivery_us_p99 = Some(130_000)));
    }

    #[test]
    fn a_surge_counts_if_it_was_one_and_what_was_lost_was_told() {
        let scenario = shape("overload", "overload", &[]).unwrap();
        let (from_s, to_s) = surge(&scenario);
        let mut taken = taken();
        // Quarters of a second of 280,000 messages/s.
        let points = vec![Point { scheduled: 70_000, ..Point::default() }; 40];
        taken.measured.series = Series { interval_ms: 250, points };
        assert_eq!((from_s, to_s), (3.5, 6.5));
        taken.measured.audit.lost_declared += 5;
        taken.measured.audit.expected += 5;
        assert_eq!(objection(&taken, &scenario), None, "those who were thrown out were told");
        taken.measured.audit.lost_silent += 5;
        taken.measured.audit.expected += 5;
        assert!(objection(&taken, &scenario).unwrap().starts_with("5 lost without a word"));
        for point in &mut taken.measured.series.points {
            point.scheduled = 60_000;
        }
        assert!(objection(&taken, &scenario).unwrap().contains("of the surge while it lasted"));
    }

    #[test]
    fn every_target_has_its_line() {
        let lines = lines();
        let targets: Vec<_> = lines.iter().filter(|row| row.target != Target::Shown).collect();
        assert_eq!(targets.len(), 3);
        assert!(targets.iter().all(|row| row.number == NUMBER && row.ours.is_empty()));
    }
}
