//! A seeded generator whose stream is part of the method: the same seed gives the same load in every version.

/// SplitMix64. Library generators may change their streams between versions; a recorded seed must not.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A stream for `seed`, independent of other `purpose`s under the same seed.
    pub fn new(seed: u64, purpose: u64) -> Self {
        let mut random = Self(seed ^ purpose.wrapping_mul(0xA24B_AED4_963E_E407));
        random.next_u64();
        random
    }

    /// The next 64 bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..`bound`; 0 when `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// Exponential with mean 1: the gap between events of a Poisson process of rate 1.
    #[inline]
    pub fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

/// A bijective mixer of 64 bits, also used as the audit's message hash.
#[inline]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Picks indices with given weights in constant time (Walker's alias method).
#[derive(Debug, Clone)]
pub struct Weighted {
    threshold: Vec<f32>,
    alias: Vec<u32>,
}

impl Weighted {
    /// Prepares the table. Weights need not sum to one. Negative ones count as zero; if all are zero, all are equal.
    pub fn new(weights: &[f64]) -> Self {
        let count = weights.len();
        let sum: f64 = weights.iter().map(|weight| weight.max(0.0)).sum();
        let scale = |weight: f64| if sum > 0.0 { weight.max(0.0) * count as f64 / sum } else { 1.0 };
        let mut share: Vec<f64> = weights.iter().map(|&weight| scale(weight)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..count).partition(|&index| share[index] < 1.0);
        let mut threshold = vec![1.0_f32; count];
        let mut alias: Vec<u32> = (0..count as u32).collect();
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            threshold[poor] = share[poor] as f32;
            alias[poor] = rich as u32;
            share[rich] -= 1.0 - share[poor];
            if share[rich] < 1.0 {
                large.pop();
                small.push(rich);
            }
        }
        Self { threshold, alias }
    }

    /// An index, or 0 when there are none.
    #[inline]
    pub fn pick(&self, random: &mut Random) -> usize {
        let index = random.below(self.threshold.len() as u64) as usize;
        match self.threshold.get(index) {
            Some(&threshold) if random.unit() as f32 >= threshold => self.alias[index] as usize,
            _ => index,
        }
    }
}

/// Zipf weights: the item of rank k (from 0) weighs (k + 1)^-`exponent`.
pub fn zipf(count: usize, exponent: f64) -> impl Iterator<Item = f64> {
    (0..count).map(move |rank| ((rank + 1) as f64).powf(-exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_of_a_seed_never_changes() {
        let mut random = Random::new(7, 1);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        let mut again = Random::new(7, 1);
        assert_eq!(first, (0..3).map(|_| again.next_u64()).collect::<Vec<_>>());
        assert_ne!(first[0], Random::new(7, 2).next_u64());
    }

    #[test]
    fn weights_are_honoured() {
        let weighted = Weighted::new(&[1.0, 0.0, 3.0, 6.0]);
        let mut random = Random::new(1, 1);
        let mut counts = [0_u32; 4];
        for _ in 0..100_000 {
            counts[weighted.pick(&mut random)] += 1;
        }
        assert_eq!(counts[1], 0);
        for (index, expected) in [(0, 10_000_i64), (2, 30_000), (3, 60_000)] {
            assert!((i64::from(counts[index]) - expected).abs() < 1_000, "{counts:?}");
        }
    }

    #[test]
    fn no_weights_pick_the_first() {
        assert_eq!(Weighted::new(&[]).pick(&mut Random::new(1, 1)), 0);
    }
}
