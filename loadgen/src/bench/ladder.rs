//! The ladder of rates, and how soon all is well again below it.

use anyhow::Result;

use crate::record::{Point, Series};

/// Share of what is due that must arrive for all to be well: of a single interval, in which chance may send a little less, and
/// of all the rest.
const INTERVAL_SHARE_MIN: f64 = 0.9;
const REST_SHARE_MIN: f64 = 0.99;

/// The highest rung that holds, searched from `start`: up while rungs hold, else down until one does. `None` if none does.
///
/// # Errors
/// Those of `holds`.
pub(super) fn climb(
    rungs: &[f64],
    start: usize,
    holds: &mut impl FnMut(f64) -> Result<bool>,
) -> Result<Option<f64>> {
    let mut best = None;
    for rung in &rungs[start.min(rungs.len())..] {
        if !holds(*rung)? {
            break;
        }
        best = Some(*rung);
    }
    if best.is_some() {
        return Ok(best);
    }
    for rung in rungs[..start.min(rungs.len())].iter().rev() {
        if holds(*rung)? {
            return Ok(Some(*rung));
        }
    }
    Ok(None)
}

/// The load after its fall: times on the run's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fallen {
    /// When it fell.
    pub(super) from_s: f64,
    /// When it ended.
    pub(super) to_s: f64,
    /// Deliveries that are due.
    pub(super) due_per_s: f64,
}

/// Seconds from the fall of the load until what is due arrives, with its 99th percentile within `limit_us`, and goes on to do
/// so until the load ends; `None` if it never does. As fine as the series' intervals.
pub(super) fn back_after_s(series: &Series, fallen: Fallen, limit_us: u64) -> Option<f64> {
    let interval_s = series.interval_ms as f64 / 1e3;
    let first = (fallen.from_s / interval_s).round() as usize;
    let end = (fallen.to_s / interval_s).round() as usize;
    let after = series.points.get(first..end)?;
    let due = fallen.due_per_s * interval_s;
    let is_well = |point: &Point| {
        point.delivery_us_p99.is_some_and(|p99| p99 <= limit_us)
            && point.delivered as f64 >= INTERVAL_SHARE_MIN * due
    };
    let well = after.iter().rposition(|point| !is_well(point)).map_or(0, |ill| ill + 1);
    let rest = &after[well..];
    let delivered: u64 = rest.iter().map(|point| point.delivered).sum();
    let is_whole = !rest.is_empty() && delivered as f64 >= REST_SHARE_MIN * due * rest.len() as f64;
    is_whole.then(|| ((first + well) as f64 * interval_s - fallen.from_s).max(0.0))
}

/// The worst 99th percentile of the intervals that touch a stretch of the run's clock, microseconds.
pub(super) fn worst_p99_us(series: &Series, from_s: f64, to_s: f64) -> Option<u64> {
    touching(series, from_s, to_s)?.iter().filter_map(|point| point.delivery_us_p99).max()
}

/// Messages that the generator got to in a stretch of the run's clock, one interval more for what came at its very end: all
/// that was due, or it fell behind.
pub(super) fn taken_up(series: &Series, from_s: f64, to_s: f64) -> u64 {
    let interval_s = series.interval_ms as f64 / 1e3;
    let points = touching(series, from_s, to_s + interval_s).unwrap_or_default();
    points.iter().map(|point| point.scheduled).sum()
}

/// Whether a backlog grows: the last of the intervals that touch a stretch is over twice as late as the first that lies within
/// it, and so late that it matters.
pub(super) fn falls_behind(series: &Series, from_s: f64, to_s: f64, matters_us: u64) -> bool {
    let interval_s = series.interval_ms as f64 / 1e3;
    let within_s = (from_s / interval_s).ceil() * interval_s;
    let points = touching(series, within_s, to_s).unwrap_or_default();
    let p99 = |point: Option<&Point>| point.and_then(|point| point.delivery_us_p99);
    let ends = p99(points.first()).zip(p99(points.last()));
    ends.is_some_and(|(first, last)| last > 2 * first && last > matters_us)
}

/// The intervals that touch a stretch of the run's clock.
fn touching(series: &Series, from_s: f64, to_s: f64) -> Option<&[Point]> {
    let interval_s = series.interval_ms as f64 / 1e3;
    let first = (from_s.max(0.0) / interval_s).floor() as usize;
    let end = (to_s.max(0.0) / interval_s).ceil() as usize;
    series.points.get(first..end.min(series.points.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    const RUNGS: [f64; 5] = [250e3, 600e3, 1.0e6, 1.4e6, 1.8e6];

    fn found(start: usize, limit: f64) -> (Option<f64>, usize) {
        let mut asked = 0;
        let best = climb(&RUNGS, start, &mut |rung| {
            asked += 1;
            Ok(rung <= limit)
        });
        (best.unwrap(), asked)
    }

    #[test]
    fn the_ladder_is_climbed_from_the_middle_either_way() {
        assert_eq!(found(3, 1.5e6), (Some(1.4e6), 2));
        assert_eq!(found(3, 9.9e6), (Some(1.8e6), 2));
        assert_eq!(found(3, 0.7e6), (Some(600e3), 3));
        assert_eq!(found(3, 1.0), (None, 4));
        assert_eq!(found(0, 1.0), (None, 1));
        let failed = climb(&RUNGS, 3, &mut |_| anyhow::bail!("no server"));
        assert!(failed.is_err());
    }

    fn series(p99s_ms: &[Option<u64>]) -> Series {
        let point = |p99: &Option<u64>| Point {
            scheduled: 10,
            delivered: if p99.is_some() { 100 } else { 0 },
            delivery_us_p99: p99.map(|ms| ms * 1_000),
            ..Point::default()
        };
        Series { interval_ms: 250, points: p99s_ms.iter().map(point).collect() }
    }

    #[test]
    fn back_is_when_it_stays_back() {
        let up_and_down = [Some(5), Some(900), Some(900), Some(50), Some(300), Some(40), Some(5), None];
        let up_and_down = series(&up_and_down);
        // 100 deliveries are due in each quarter of a second; the last quarter is the drain.
        let back = |series: &Series, from_s: f64, to_s: f64| {
            back_after_s(series, Fallen { from_s, to_s, due_per_s: 400.0 }, 100_000)
        };
        // The load fell at 0.5 s; the last late interval ends at 1.25 s.
        assert_eq!(back(&up_and_down, 0.5, 1.75), Some(0.75));
        assert_eq!(back(&up_and_down, 1.25, 1.75), Some(0.0));
        assert_eq!(back(&up_and_down, 0.5, 2.0), None, "silence is no recovery");
        assert_eq!(back(&up_and_down, 9.0, 9.5), None);
        assert_eq!(back(&series(&[Some(900), Some(900)]), 0.0, 0.5), None);
    }

    #[test]
    fn a_few_in_time_are_no_recovery() {
        let fallen = Fallen { from_s: 0.25, to_s: 1.0, due_per_s: 400.0 };
        let mut series = series(&[Some(900), Some(5), Some(5), Some(5)]);
        assert_eq!(back_after_s(&series, fallen, 100_000), Some(0.0));
        series.points[2].delivered = 1;
        assert_eq!(back_after_s(&series, fallen, 100_000), Some(0.5));
        series.points[3].delivered = 95;
        assert_eq!(back_after_s(&series, fallen, 100_000), None, "one in twenty is still missing");
    }

    #[test]
    fn a_backlog_that_grows_is_seen() {
        let grown = |p99s_ms: &[Option<u64>]| falls_behind(&series(p99s_ms), 0.3, 0.9, 50_000);
        assert!(grown(&[Some(1), Some(90), Some(40), Some(85)]), "the second begins before the stretch");
        assert!(!grown(&[Some(1), Some(90), Some(40), Some(75)]));
        assert!(!grown(&[Some(1), Some(1), Some(4), Some(45)]), "that is nothing");
        assert!(!grown(&[Some(1), Some(1)]));
    }

    #[test]
    fn what_the_generator_got_to_is_counted() {
        let series = series(&[Some(1), Some(1), Some(1), Some(1), Some(1)]);
        assert_eq!(taken_up(&series, 0.25, 0.75), 30);
        assert_eq!(taken_up(&series, 9.0, 9.5), 0);
    }

    #[test]
    fn the_worst_interval_is_of_the_stretch() {
        let series = series(&[Some(900), Some(5), Some(70), None, Some(800)]);
        assert_eq!(worst_p99_us(&series, 0.3, 0.9), Some(70_000));
        assert_eq!(worst_p99_us(&series, 0.0, 0.1), Some(900_000));
        assert_eq!(worst_p99_us(&series, 0.75, 0.9), None);
        assert_eq!(worst_p99_us(&series, 5.0, 6.0), None);
    }
}
