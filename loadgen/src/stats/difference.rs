//! Is one of two contenders better, or is it a tie?

use serde::Serialize;

use super::bootstrap::{Interval, median_difference_interval, median_interval};
use super::rank::{holm, mann_whitney};
use super::{ALPHA, BLOCKS_MIN};

/// Two contenders under one metric, paired by block.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Median over blocks of `b ÷ a`, with its interval. Above 1: `b` is larger.
    pub ratio: Interval,
    /// Mann–Whitney's p, corrected over the family by [`correct`].
    pub p: f64,
    /// What may be said.
    pub call: Call,
}

/// With few blocks, a smaller median ratio than this is not even an indication.
pub const LIKELY_RATIO_MIN: f64 = 1.1;

/// What may be said of two contenders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// `b` is larger: at least [`BLOCKS_MIN`] blocks, the interval excludes 1, and the corrected p is below [`ALPHA`].
    Larger,
    /// `b` is smaller, likewise.
    Smaller,
    /// As `Larger`, from fewer blocks, all of which agree, and by [`LIKELY_RATIO_MIN`]: an indication, no evidence.
    LikelyLarger,
    /// As `Smaller`, likewise.
    LikelySmaller,
    /// Neither.
    Tie,
}

impl Call {
    /// Whether `b` is larger, surely or likely.
    pub fn is_larger(self) -> bool {
        matches!(self, Self::Larger | Self::LikelyLarger)
    }

    /// Whether `b` is smaller, surely or likely.
    pub fn is_smaller(self) -> bool {
        matches!(self, Self::Smaller | Self::LikelySmaller)
    }

    /// Whether the number of blocks allows a statement at all.
    pub fn is_firm(self) -> bool {
        matches!(self, Self::Larger | Self::Smaller)
    }
}

/// Compares `b` with `a`; each pair is one block. `None` without a pair or where a value isn't positive.
///
/// The p-value is uncorrected and the call provisional until [`correct`] has seen the whole family.
pub fn compare_paired(pairs: &[(f64, f64)]) -> Option<Difference> {
    if pairs.iter().any(|(a, b)| *a <= 0.0 || *b <= 0.0) {
        return None;
    }
    let logarithms: Vec<f64> = pairs.iter().map(|(a, b)| (b / a).ln()).collect();
    let interval = median_interval(&logarithms)?;
    let ratio = Interval {
        low: interval.low.exp(),
        median: interval.median.exp(),
        high: interval.high.exp(),
        samples: interval.samples,
    };
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let p = mann_whitney(&a, &b);
    Some(Difference { call: call(&ratio, p, &logarithms), ratio, p })
}

/// Compares `b` with `a` where the runs of one have nothing to do with those of the other: the ratio of medians, its
/// interval from resampling each side. `None` where a side is empty or a value isn't positive.
pub fn compare_unpaired(a: &[f64], b: &[f64]) -> Option<Difference> {
    if a.iter().chain(b).any(|value| *value <= 0.0) {
        return None;
    }
    let logarithms = |values: &[f64]| values.iter().map(|value| value.ln()).collect::<Vec<_>>();
    let ratio = median_difference_interval(&logarithms(a), &logarithms(b))?;
    let ratio = Interval {
        low: ratio.low.exp(),
        median: ratio.median.exp(),
        high: ratio.high.exp(),
        samples: ratio.samples,
    };
    let p = mann_whitney(a, b);
    let extreme = |values: &[f64], pick: fn(f64, f64) -> f64| values.iter().copied().reduce(pick);
    let above = extreme(b, f64::min) > extreme(a, f64::max);
    let below = extreme(b, f64::max) < extreme(a, f64::min);
    let far = ratio.median.ln().abs() >= LIKELY_RATIO_MIN.ln();
    let call = match () {
        () if ratio.samples < 2 || !far && ratio.samples < BLOCKS_MIN => Call::Tie,
        () if ratio.samples < BLOCKS_MIN && above => Call::LikelyLarger,
        () if ratio.samples < BLOCKS_MIN && below => Call::LikelySmaller,
        () if ratio.samples < BLOCKS_MIN || p >= ALPHA => Call::Tie,
        () if ratio.low > 1.0 => Call::Larger,
        () if ratio.high < 1.0 => Call::Smaller,
        () => Call::Tie,
    };
    Some(Difference { ratio, p, call })
}

/// Corrects the p-values of a family of comparisons by Holm's method and settles the calls.
pub fn correct(family: &mut [Difference]) {
    let corrected = holm(&family.iter().map(|difference| difference.p).collect::<Vec<_>>());
    for (difference, p) in family.iter_mut().zip(corrected) {
        difference.p = p;
        if difference.call.is_firm() && p >= ALPHA {
            difference.call = Call::Tie;
        }
    }
}

fn call(ratio: &Interval, p: f64, logarithms: &[f64]) -> Call {
    let far = ratio.median.ln().abs() >= LIKELY_RATIO_MIN.ln();
    let agree = |sign: f64| far && logarithms.iter().all(|value| value * sign > 0.0);
    if logarithms.len() < BLOCKS_MIN {
        // One run has no spread to compare with.
        return match logarithms.len() {
            0 | 1 => Call::Tie,
            _ if agree(1.0) => Call::LikelyLarger,
            _ if agree(-1.0) => Call::LikelySmaller,
            _ => Call::Tie,
        };
    }
    match () {
        () if p >= ALPHA => Call::Tie,
        () if ratio.low > 1.0 => Call::Larger,
        () if ratio.high < 1.0 => Call::Smaller,
        () => Call::Tie,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_clear_blocks_make_a_difference() {
        let pairs = [(1.0, 2.0), (1.1, 2.1), (0.9, 1.9), (1.2, 2.2), (1.0, 2.05)];
        let difference = compare_paired(&pairs).unwrap();
        assert_eq!(difference.call, Call::Larger);
        assert!(difference.ratio.median > 1.8 && difference.ratio.low > 1.0);
        let reversed: Vec<_> = pairs.iter().map(|(a, b)| (*b, *a)).collect();
        assert_eq!(compare_paired(&reversed).unwrap().call, Call::Smaller);
    }

    #[test]
    fn overlap_is_a_tie() {
        let pairs = [(1.0, 1.1), (1.1, 1.0), (0.9, 1.05), (1.2, 1.0), (1.0, 1.0)];
        assert_eq!(compare_paired(&pairs).unwrap().call, Call::Tie);
    }

    #[test]
    fn few_blocks_are_an_indication_and_one_is_nothing() {
        assert_eq!(compare_paired(&[(1.0, 2.0), (1.0, 3.0)]).unwrap().call, Call::LikelyLarger);
        assert_eq!(compare_paired(&[(1.0, 2.0), (3.0, 1.0)]).unwrap().call, Call::Tie);
        assert_eq!(compare_paired(&[(1.0, 1.02), (1.0, 1.03)]).unwrap().call, Call::Tie);
        assert_eq!(compare_paired(&[(1.0, 2.0)]).unwrap().call, Call::Tie);
        assert_eq!(compare_paired(&[]), None);
        assert_eq!(compare_paired(&[(0.0, 2.0)]), None);
    }

    #[test]
    fn unpaired_sides_are_told_apart_when_they_are_apart() {
        let a = [1.0, 1.1, 0.9, 1.05, 0.95];
        let twice: Vec<f64> = a.iter().map(|value| value * 2.0).collect();
        assert_eq!(compare_unpaired(&a, &twice).unwrap().call, Call::Larger);
        assert_eq!(compare_unpaired(&twice, &a).unwrap().call, Call::Smaller);
        assert_eq!(compare_unpaired(&a, &a).unwrap().call, Call::Tie);
        assert_eq!(compare_unpaired(&a[..2], &twice[..2]).unwrap().call, Call::LikelyLarger);
        assert_eq!(compare_unpaired(&a[..1], &twice[..1]).unwrap().call, Call::Tie);
        assert_eq!(compare_unpaired(&[], &a), None);
    }

    #[test]
    fn a_large_family_takes_back_what_one_comparison_gave() {
        let pairs = [(1.0, 2.0), (1.1, 2.1), (0.9, 1.9), (1.2, 2.2), (1.0, 2.05)];
        let clear = compare_paired(&pairs).unwrap();
        let mut family = vec![clear; 7];
        correct(&mut family);
        assert!(family.iter().all(|difference| difference.call == Call::Tie), "7 × 0.0079 is above 0.05");
        let mut family = family[..1].to_vec();
        family[0] = compare_paired(&pairs).unwrap();
        correct(&mut family);
        assert_eq!(family[0].call, Call::Larger);
    }
}
