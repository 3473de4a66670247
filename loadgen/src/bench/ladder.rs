//! The ladder of rates, and how soon all is well again below it.

use anyhow::Result;

use crate::record::Series;

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

/// Seconds from `fallen_s` (on the run's clock: when the load fell) until the 99th percentile of what arrives is within
/// `limit_us` and stays there; `None` if it never is. As fine as the series' intervals.
pub(super) fn back_after_s(series: &Series, fallen_s: f64, limit_us: u64) -> Option<f64> {
    let interval_s = series.interval_ms as f64 / 1e3;
    let first = (fallen_s / interval_s).round() as usize;
    let after = series.points.get(first..).filter(|points| !points.is_empty())?;
    let is_late = |p99: Option<u64>| p99.is_some_and(|p99| p99 > limit_us);
    let late = after.iter().rposition(|point| is_late(point.delivery_us_p99));
    let well = late.map_or(0, |late| late + 1);
    // What follows must show that all is well: intervals without deliveries show nothing.
    let heard = after[well..].iter().any(|point| point.delivered > 0);
    heard.then(|| (first + well) as f64 * interval_s - fallen_s).map(|seconds| seconds.max(0.0))
}

/// The worst 99th percentile of the intervals that touch a stretch of the run's clock, microseconds.
pub(super) fn worst_p99_us(series: &Series, from_s: f64, to_s: f64) -> Option<u64> {
    let interval_s = series.interval_ms as f64 / 1e3;
    let first = (from_s.max(0.0) / interval_s).floor() as usize;
    let end = (to_s.max(0.0) / interval_s).ceil() as usize;
    let points = series.points.get(first..end.min(series.points.len()))?;
    points.iter().filter_map(|point| point.delivery_us_p99).max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Point;

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
            delivered: u64::from(p99.is_some()),
            delivery_us_p99: p99.map(|ms| ms * 1_000),
            ..Point::default()
        };
        Series { interval_ms: 250, points: p99s_ms.iter().map(point).collect() }
    }

    #[test]
    fn back_is_when_it_stays_back() {
        let up_and_down = [Some(5), Some(900), Some(900), Some(50), Some(300), Some(40), Some(5), None];
        let series = series(&up_and_down);
        // The load fell at 0.5 s; the last late interval ends at 1.25 s.
        assert_eq!(back_after_s(&series, 0.5, 100_000), Some(0.75));
        assert_eq!(back_after_s(&series, 1.25, 100_000), Some(0.0));
        assert_eq!(back_after_s(&series, 9.0, 100_000), None);
        assert_eq!(back_after_s(&self::series(&[Some(900), Some(900)]), 0.0, 100_000), None);
        assert_eq!(
            back_after_s(&self::series(&[Some(900), None]), 0.0, 100_000),
            None,
            "silence is no recovery"
        );
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
