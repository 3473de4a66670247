//! Whether all was as before at the end of a soak. The audit cannot tell: where nothing is acknowledged nothing is owed.

use super::timeline::HEALTHY_S;
use crate::record::{Measured, Point};
use crate::report::text::{count, percent};

/// The end is judged in stretches of this length, seconds: a pause in it must not be averaged away.
const STRETCH_S: f64 = 5.0;
/// Deliveries per publish, and publishes written of those that were due, at least this share of what they were before the first
/// trouble.
const SHARE_MIN: f64 = 0.96;
/// A stretch with fewer publishes says nothing by itself.
const PUBLISHES_MIN: u64 = 50;

#[derive(Debug, Default, Clone, Copy)]
struct Sum {
    scheduled: u64,
    sent: u64,
    failed: u64,
    delivered: u64,
    gaps: u64,
}

impl Sum {
    fn of(points: &[Point]) -> Self {
        points.iter().fold(Self::default(), |sum, point| Self {
            scheduled: sum.scheduled + point.scheduled,
            sent: sum.sent + point.sent,
            failed: sum.failed + point.failed,
            delivered: sum.delivered + point.delivered,
            gaps: sum.gaps + point.gaps,
        })
    }

    fn per_publish(self) -> f64 {
        self.delivered as f64 / self.scheduled.max(1) as f64
    }
}

/// What stands against the end of a soak with faults.
pub(super) fn problems(measured: &Measured) -> Vec<String> {
    let struck = || measured.faults.iter().filter(|mark| !mark.whom.is_empty());
    let first_s = struck().map(|mark| mark.began_s).fold(f64::INFINITY, f64::min);
    if !first_s.is_finite() {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let end_s = measured.warm_up_s + measured.window_s;
    let last_s = struck().map(|mark| mark.ended_s).fold(0.0, f64::max);
    if last_s > end_s - HEALTHY_S {
        problems.push(format!(
            "the last trouble was over {:.0} s before the end of the load, {HEALTHY_S:.0} s are needed to see what is left of it",
            end_s - last_s
        ));
    }
    let points = &measured.series.points;
    let interval_s = measured.series.interval_ms.max(1) as f64 / 1e3;
    let index = |at_s: f64| ((at_s / interval_s).floor().max(0.0) as usize).min(points.len());
    let before = Sum::of(&points[..index(first_s)]);
    // The last interval of the load is cut short.
    let end = index(end_s).saturating_sub(1);
    let last = &points[index(end_s - HEALTHY_S).min(end)..end];
    if before.delivered == 0 || last.is_empty() {
        problems
            .push("nothing shows that it was healthy before the first trouble and after the last".to_owned());
        return problems;
    }
    let all = Sum::of(last);
    if all.failed + all.gaps > 0 {
        problems.push(format!(
            "in the last {HEALTHY_S:.0} s of the load, after all troubles, {} publishes failed and {} gaps were told",
            count(all.failed),
            count(all.gaps)
        ));
    }
    problems.extend(lacking(last, before, interval_s, end_s));
    problems
}

/// What the end of the load lacks of what was due in it.
fn lacking(last: &[Point], before: Sum, interval_s: f64, end_s: f64) -> Option<String> {
    let share = |points: &[Point]| {
        let sum = Sum::of(points);
        let sent = sum.sent as f64 / sum.scheduled.max(1) as f64;
        sent.min(sum.per_publish() / before.per_publish())
    };
    let whole = share(last);
    if whole < SHARE_MIN {
        return Some(format!(
            "it never recovered: in the last {HEALTHY_S:.0} s of the load {} of the deliveries that were due came",
            percent(whole)
        ));
    }
    let length = ((STRETCH_S / interval_s) as usize).max(1);
    let stretches =
        last.chunks(length).enumerate().filter(|(_, one)| Sum::of(one).scheduled >= PUBLISHES_MIN);
    let shares =
        stretches.map(|(place, one)| ((last.len() - place * length) as f64 * interval_s, share(one)));
    let (before_end_s, worst) = shares.min_by(|one, other| one.1.total_cmp(&other.1))?;
    (worst < SHARE_MIN).then(|| {
        format!(
            "a pause after all troubles: in the {STRETCH_S:.0} s from {:.0} s on {} of the deliveries that were due came in time",
            end_s - before_end_s,
            percent(worst)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Series;
    use crate::report::sample::Sample;

    fn soaked(change: impl Fn(usize, &mut Point)) -> Measured {
        let mut measured =
            Sample { fault: true, ..Sample::new("hybrid", "broker-restart", 1, 0.3) }.record().measured;
        measured.warm_up_s = 3.0;
        measured.window_s = 97.0;
        for mark in &mut measured.faults {
            (mark.began_s, mark.ended_s) = (20.0, 40.0);
        }
        let points = (0..440).map(|place| {
            let mut point = Point { scheduled: 25, sent: 25, delivered: 150, ..Point::default() };
            if (80..170).contains(&place) {
                (point.failed, point.delivered) = (25, 0);
            }
            change(place, &mut point);
            point
        });
        measured.series = Series { interval_ms: 250, points: points.collect() };
        measured
    }

    #[test]
    fn what_recovers_is_healthy_at_the_end() {
        assert_eq!(problems(&soaked(|_, _| {})), Vec::<String>::new());
    }

    #[test]
    fn what_never_recovers_fails() {
        let refused = soaked(|place, point| {
            if place > 80 {
                (point.failed, point.delivered) = (25, 0);
            }
        });
        let said = problems(&refused).join("; ");
        assert!(said.contains("publishes failed") && said.contains("never recovered"), "{said}");
        let one_room_of_twenty =
            soaked(|place, point| point.delivered -= if place > 80 { point.delivered / 20 } else { 0 });
        assert!(problems(&one_room_of_twenty).join("").contains("never recovered"));
        let pause = soaked(|place, point| {
            if (360..363).contains(&place) {
                point.delivered = 0;
            }
        });
        let said = problems(&pause).join("");
        assert!(said.contains("in the 5 s from 90 s on") && said.contains("85.0 %"), "{said}");
        let mut late = soaked(|_, _| {});
        late.faults[0].ended_s = 90.0;
        assert!(problems(&late).join("").contains("was over 10 s before"));
    }
}
