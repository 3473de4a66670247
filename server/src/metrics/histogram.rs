//! A latency histogram of atomic cells.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets in microseconds; one more holds what is above.
pub(super) const BOUNDS_US: [u64; 20] = [
    50, 100, 200, 300, 500, 750, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 5_000_000, 10_000_000,
];

/// Counts by latency.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram read out, or several added up.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Totals {
    pub(super) sum_us: u64,
    pub(super) buckets: [u64; BOUNDS_US.len() + 1],
}

impl Histogram {
    /// Counts `weight` observations of `value_us`.
    #[inline]
    pub(super) fn observe(&self, value_us: u64, weight: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < value_us);
        self.buckets[bucket].fetch_add(weight, Relaxed);
        self.sum_us.fetch_add(value_us.saturating_mul(weight), Relaxed);
    }
}

impl Totals {
    pub(super) fn add(&mut self, histogram: &Histogram) {
        self.sum_us = self.sum_us.saturating_add(histogram.sum_us.load(Relaxed));
        for (total, bucket) in self.buckets.iter_mut().zip(&histogram.buckets) {
            *total += bucket.load(Relaxed);
        }
    }

    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::default();
        histogram.observe(50, 1);
        histogram.observe(51, 2);
        histogram.observe(20_000_000, 3);
        let mut totals = Totals::default();
        totals.add(&histogram);
        assert_eq!(totals.buckets[0], 1);
        assert_eq!(totals.buckets[1], 2);
        assert_eq!(totals.buckets[BOUNDS_US.len()], 3);
        assert_eq!(totals.count(), 6);
        assert_eq!(totals.sum_us, 50 + 102 + 60_000_000);
    }
}
