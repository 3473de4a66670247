//! Mann–Whitney's rank test, exact for the few runs that a campaign has, and Holm's correction.

/// Above this many samples in all the normal approximation is as good as the exact count.
const EXACT_MAX: usize = 50;

/// Two-sided p-value of "both samples come from one distribution". 1 when either is empty. Ties share their rank; the
/// exact distribution is conditional on them.
pub fn mann_whitney(a: &[f64], b: &[f64]) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    let doubled = doubled_ranks(a, b);
    let observed: usize = doubled[..a.len()].iter().sum();
    if doubled.len() <= EXACT_MAX {
        exact(&doubled, a.len(), observed)
    } else {
        normal(&doubled, a.len(), observed)
    }
}

/// Twice the mid-rank of each value, `a` first: whole numbers even where values tie.
fn doubled_ranks(a: &[f64], b: &[f64]) -> Vec<usize> {
    let all: Vec<f64> = a.iter().chain(b).copied().collect();
    all.iter()
        .map(|value| {
            let below = all.iter().filter(|other| *other < value).count();
            let equal = all.iter().filter(|other| *other == value).count();
            2 * below + equal + 1
        })
        .collect()
}

/// Counts, of all ways to choose `chosen` of the ranks, those whose sum is at least as far from the middle as what was observed.
fn exact(doubled: &[usize], chosen: usize, observed: usize) -> f64 {
    let total: usize = doubled.iter().sum();
    let mut ways = vec![vec![0.0_f64; total + 1]; chosen + 1];
    ways[0][0] = 1.0;
    for &rank in doubled {
        for taken in (1..=chosen).rev() {
            for sum in (rank..=total).rev() {
                ways[taken][sum] += ways[taken - 1][sum - rank];
            }
        }
    }
    // Distances from the middle are compared as whole numbers: the middle is chosen ÷ all × total.
    let distance = |sum: usize| (sum * doubled.len()).abs_diff(chosen * total);
    let (mut as_far, mut all) = (0.0, 0.0);
    for (sum, count) in ways[chosen].iter().enumerate() {
        all += count;
        if distance(sum) >= distance(observed) {
            as_far += count;
        }
    }
    as_far / all
}

fn normal(doubled: &[usize], chosen: usize, observed: usize) -> f64 {
    let (n, m) = (chosen as f64, (doubled.len() - chosen) as f64);
    let mean = doubled.iter().sum::<usize>() as f64 / doubled.len() as f64;
    let spread = doubled.iter().map(|&rank| (rank as f64 - mean).powi(2)).sum::<f64>() / (n + m - 1.0);
    let sigma = (n * m / (n + m) * spread).sqrt();
    if sigma == 0.0 {
        return 1.0;
    }
    // Doubled ranks move in steps of two, so half a step is one.
    let z = ((observed as f64 - n * mean).abs() - 1.0).max(0.0) / sigma;
    (2.0 * upper_tail(z)).min(1.0)
}

/// P(Z > z) of the standard normal for z ≥ 0, to 1e-7 (Abramowitz and Stegun 26.2.17).
fn upper_tail(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z);
    let polynomial = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    (-z * z / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt() * polynomial
}

/// Holm's step-down correction: the same family-wide error as Bonferroni's, with more power. Keeps the order.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut corrected = vec![0.0; p_values.len()];
    let mut floor = 0.0_f64;
    for (step, &index) in order.iter().enumerate() {
        floor = floor.max(p_values[index] * (p_values.len() - step) as f64).min(1.0);
        corrected[index] = floor;
    }
    corrected
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        // Complete separation, 5 against 5: 2 of the 252 ways.
        let p = mann_whitney(&[1.0, 2.0, 3.0, 4.0, 5.0], &[6.0, 7.0, 8.0, 9.0, 10.0]);
        assert!((p - 2.0 / 252.0).abs() < 1e-12);
        // 3 against 3 can't be significant: 2 of 20.
        assert!((mann_whitney(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]) - 0.1).abs() < 1e-12);
        // R: wilcox.test(c(0.80,0.83,1.89,1.04,1.45,1.38,1.91,1.64,0.73,1.46), c(1.15,0.88,0.90,0.74,1.21)) p = 0.2544
        let a = [0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46];
        let p = mann_whitney(&a, &[1.15, 0.88, 0.90, 0.74, 1.21]);
        assert!((p - 0.2544).abs() < 1e-4, "{p}");
        assert!((mann_whitney(&[1.0; 4], &[1.0; 4]) - 1.0).abs() < 1e-12);
        assert_eq!(mann_whitney(&[], &[1.0]), 1.0);
    }

    #[test]
    fn normal_tail() {
        assert!((upper_tail(1.959_964) - 0.025).abs() < 1e-6);
        assert!((upper_tail(0.0) - 0.5).abs() < 1e-6);
    }

    #[test]
    fn holm_by_hand() {
        let corrected = holm(&[0.01, 0.04, 0.03, 0.005]);
        let expected = [0.03, 0.06, 0.06, 0.02];
        assert!(corrected.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{corrected:?}");
        assert_eq!(holm(&[0.9, 0.8]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }

    /// Enumerates every way to choose.
    fn oracle(a: &[f64], b: &[f64]) -> f64 {
        let doubled = doubled_ranks(a, b);
        let (count, total) = (doubled.len(), doubled.iter().sum::<usize>());
        let distance = |sum: usize| (sum * count).abs_diff(a.len() * total);
        let observed = distance(doubled[..a.len()].iter().sum());
        let (mut far, mut all) = (0, 0);
        for mask in 0_u32..1 << count {
            if mask.count_ones() as usize == a.len() {
                let sum = (0..count).filter(|i| mask >> i & 1 == 1).map(|i| doubled[i]).sum();
                all += 1;
                far += usize::from(distance(sum) >= observed);
            }
        }
        f64::from(u32::try_from(far).unwrap()) / f64::from(all)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_enumeration_with_and_without_ties(
            a in prop::collection::vec(0_u8..6, 1..6),
            b in prop::collection::vec(0_u8..6, 1..6),
        ) {
            let (a, b): (Vec<f64>, Vec<f64>) =
                (a.into_iter().map(f64::from).collect(), b.into_iter().map(f64::from).collect());
            prop_assert!((mann_whitney(&a, &b) - oracle(&a, &b)).abs() < 1e-9);
        }

        #[test]
        fn approximation_meets_the_exact_count(a in prop::collection::vec(0.0..1.0, 20), b in prop::collection::vec(0.1..1.2, 20)) {
            let doubled = doubled_ranks(&a, &b);
            let observed = doubled[..a.len()].iter().sum();
            prop_assert!((exact(&doubled, 20, observed) - normal(&doubled, 20, observed)).abs() < 0.01);
        }
    }
}
