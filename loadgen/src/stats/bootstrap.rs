//! Medians and their bootstrap intervals.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde::Serialize;

/// Resamples per interval: enough that its ends don't move in the digits that reports print.
const RESAMPLES: usize = 2_000;

/// Fixed, so that a report rendered again from the same records is the same to the byte.
const SEED: u64 = 0x6d61_6e69_666f_6c64;

/// A median with its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Interval {
    /// 2.5th percentile of the bootstrapped medians.
    pub low: f64,
    /// The sample's median.
    pub median: f64,
    /// 97.5th percentile of the bootstrapped medians.
    pub high: f64,
    /// Samples. With one, the interval is a point and says nothing of the spread.
    pub samples: usize,
}

/// The median; the mean of the middle two where their number is even. `None` of nothing.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The median with a percentile-bootstrap interval. `None` of nothing.
pub fn median_interval(samples: &[f64]) -> Option<Interval> {
    let center = median(samples)?;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut resample = vec![0.0; samples.len()];
    let mut medians: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            resample.fill_with(|| samples[rng.random_range(0..samples.len())]);
            median(&resample)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    let at = |quantile: f64| medians[(quantile * (medians.len() - 1) as f64).round() as usize];
    Some(Interval { low: at(0.025), median: center, high: at(0.975), samples: samples.len() })
}

/// Difference of two medians, `b - a`, each side resampled. `samples` is that of the smaller side.
pub fn median_difference_interval(a: &[f64], b: &[f64]) -> Option<Interval> {
    let center = median(b)? - median(a)?;
    let mut rng = SmallRng::seed_from_u64(SEED);
    let mut draw = |samples: &[f64]| {
        let resample: Vec<f64> =
            (0..samples.len()).map(|_| samples[rng.random_range(0..samples.len())]).collect();
        median(&resample)
    };
    let mut differences: Vec<f64> = (0..RESAMPLES).filter_map(|_| Some(-draw(a)? + draw(b)?)).collect();
    differences.sort_by(f64::total_cmp);
    let at = |quantile: f64| differences[(quantile * (differences.len() - 1) as f64).round() as usize];
    Some(Interval { low: at(0.025), median: center, high: at(0.975), samples: a.len().min(b.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_none() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn an_interval_contains_its_median_and_stays_within_the_sample() {
        let samples = [5.0, 1.0, 4.0, 2.0, 3.0];
        let interval = median_interval(&samples).unwrap();
        assert_eq!(interval.median, 3.0);
        // P(median of a resample = 1) = P(at least 3 of 5 draws are the smallest) = 5.8 %, hence above 2.5 %.
        assert_eq!((interval.low, interval.high), (1.0, 5.0));
    }

    #[test]
    fn an_interval_narrows_with_samples_and_covers_the_true_median_about_as_often_as_it_says() {
        let mut rng = SmallRng::seed_from_u64(7);
        let (mut covered, mut widths) = (0, [0.0; 2]);
        for _ in 0..200 {
            let small: Vec<f64> = (0..9).map(|_| rng.random::<f64>()).collect();
            let large: Vec<f64> = (0..81).map(|_| rng.random::<f64>()).collect();
            let (small, large) = (median_interval(&small).unwrap(), median_interval(&large).unwrap());
            covered += usize::from(large.low <= 0.5 && 0.5 <= large.high);
            widths[0] += small.high - small.low;
            widths[1] += large.high - large.low;
        }
        assert!((180..=200).contains(&covered), "{covered} of 200 intervals cover the median");
        assert!(widths[1] < widths[0] / 2.0);
    }

    #[test]
    fn one_sample_is_a_point() {
        let interval = median_interval(&[7.0]).unwrap();
        assert_eq!((interval.low, interval.high, interval.samples), (7.0, 7.0, 1));
    }
}
