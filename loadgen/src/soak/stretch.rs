//! The load of a soak over time, thin enough to be kept: a stretch of ten seconds at a time.

use serde::{Deserialize, Serialize};

use crate::record::{Point, Series};

/// Length of a stretch, seconds.
const STRETCH_S: u64 = 10;

/// What happened within ten seconds of a soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretch {
    /// When it began, seconds from the first intended send.
    pub at_s: u64,
    /// Publishes that were due.
    pub scheduled: u64,
    /// Publishes written.
    pub sent: u64,
    /// Publishes of which it became known that they were refused or stay without an answer.
    pub failed: u64,
    /// Deliveries.
    pub delivered: u64,
    /// Gap notices.
    pub gaps: u64,
    /// Fewest clients that were connected and in their rooms at once.
    pub connections_min: u64,
}

/// The stretches of a series.
pub(super) fn stretches(series: &Series) -> Vec<Stretch> {
    let interval_ms = series.interval_ms.max(1);
    let length = usize::try_from((STRETCH_S * 1_000).div_ceil(interval_ms)).unwrap_or(usize::MAX);
    let stretch = |(place, points): (usize, &[Point])| {
        let sum = |pick: fn(&Point) -> u64| points.iter().map(pick).sum();
        Stretch {
            at_s: (place * length) as u64 * interval_ms / 1_000,
            scheduled: sum(|point| point.scheduled),
            sent: sum(|point| point.sent),
            failed: sum(|point| point.failed),
            delivered: sum(|point| point.delivered),
            gaps: sum(|point| point.gaps),
            connections_min: points.iter().map(|point| point.connections).min().unwrap_or(0),
        }
    };
    series.points.chunks(length).enumerate().map(stretch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_add_up_and_keep_the_lowest_number_of_connections() {
        let point = |place: u64| Point {
            scheduled: 25,
            delivered: 150,
            connections: if place == 50 { 7 } else { 120 },
            ..Point::default()
        };
        let series = Series { interval_ms: 250, points: (0..90).map(point).collect() };
        let stretches = stretches(&series);
        let seen: Vec<_> =
            stretches.iter().map(|one| (one.at_s, one.scheduled, one.connections_min)).collect();
        assert_eq!(seen, [(0, 1_000, 120), (10, 1_000, 7), (20, 250, 120)]);
        assert_eq!(stretches.iter().map(|one| one.delivered).sum::<u64>(), 90 * 150);
    }
}
