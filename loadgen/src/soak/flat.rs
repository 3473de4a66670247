//! Whether memory and descriptors of a process stay flat.
//!
//! The rule: of the samples of one incarnation, by time, the first third is growing up and doesn't count; the median of
//! the last third must not exceed that of the middle third by more than a share and a fixed slack. Medians, because a
//! wave of reconnecting clients is a peak and no leak. Descriptors, which clients come with and go with, are moreover compared
//! where there are no clients: before the load and after it.

use serde::{Deserialize, Serialize};

use crate::stats::median;

/// Growth of memory, last third over the middle one, that counts as flat.
pub(super) const RSS_GROWTH_MAX: f64 = 1.05;
/// Growth of descriptors: how many clients a node has depends on who was there when they came.
pub(super) const FILES_GROWTH_MAX: f64 = 1.1;
/// Bytes of memory that may come on top.
pub(super) const RSS_SLACK_BYTES: u64 = 2 << 20;
/// Descriptors that may come on top.
pub(super) const FILES_SLACK: u64 = 16;
/// Descriptors that a node may have more at rest after the load than before: connections to brokers that are opened when first
/// needed, and kept for a while. Two readers of Kafka's log with 8 descriptors each (a socket or two, and a pipe per broker
/// thread), and 8 readers of Redis's streams: those are the bounds of a node's caches.
pub(super) const REST_SLACK: u64 = 2 * 8 + 8;
/// Samples that an incarnation needs to be judged.
pub(super) const SAMPLES_MIN: usize = 12;
/// Share of the soak that an incarnation must have lived to be judged.
pub(super) const LIFE_SHARE_MIN: f64 = 0.25;

/// A look at a process.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Look {
    /// Seconds since the soak began.
    pub at_s: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open descriptors.
    pub files: u64,
}

/// Medians of the middle and the last third of a life.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thirds {
    /// Of the middle third.
    pub middle: f64,
    /// Of the last third.
    pub last: f64,
    /// Whether the last is no more than the rule allows over the middle.
    pub flat: bool,
}

impl Thirds {
    fn of(values: &[f64], growth_max: f64, slack: u64) -> Option<Self> {
        let third = values.len() / 3;
        let middle = median(values.get(third..2 * third)?)?;
        let last = median(values.get(2 * third..)?)?;
        Some(Self { middle, last, flat: last <= middle * growth_max + slack as f64 })
    }
}

/// Memory of a life that was long enough to be judged.
pub(super) fn memory(looks: &[Look], soak_s: f64) -> Option<Thirds> {
    let values: Vec<f64> = long_enough(looks, soak_s)?.iter().map(|look| look.rss_bytes as f64).collect();
    Thirds::of(&values, RSS_GROWTH_MAX, RSS_SLACK_BYTES)
}

/// Descriptors, likewise.
pub(super) fn files(looks: &[Look], soak_s: f64) -> Option<Thirds> {
    let values: Vec<f64> = long_enough(looks, soak_s)?.iter().map(|look| look.files as f64).collect();
    Thirds::of(&values, FILES_GROWTH_MAX, FILES_SLACK)
}

fn long_enough(looks: &[Look], soak_s: f64) -> Option<&[Look]> {
    let (first, last) = (looks.first()?, looks.last()?);
    let lived = last.at_s - first.at_s >= soak_s * LIFE_SHARE_MIN;
    (lived && looks.len() >= SAMPLES_MIN).then_some(looks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(rss_mib: impl Fn(usize) -> f64, files: impl Fn(usize) -> u64) -> Vec<Look> {
        let look = |index| Look {
            at_s: index as f64 * 10.0,
            rss_bytes: (rss_mib(index) * 1_048_576.0) as u64,
            files: files(index),
        };
        (0..120).map(look).collect()
    }

    #[test]
    fn growing_up_and_waves_are_flat() {
        let looks = life(
            |index| 60.0 - 40.0 / (index as f64 + 1.0) + (index % 7) as f64,
            |index| 80 + (index % 5) as u64 * 20,
        );
        assert!(memory(&looks, 1_200.0).unwrap().flat && files(&looks, 1_200.0).unwrap().flat);
        let spike = life(|index| if index > 110 { 300.0 } else { 50.0 }, |_| 80);
        assert!(memory(&spike, 1_200.0).unwrap().flat, "a wave at the end is a peak");
    }

    #[test]
    fn a_leak_is_seen() {
        // 12 KiB a second: 4.7 MiB from the middle of one third to that of the next.
        let looks = life(|index| 20.0 + index as f64 * 0.117, |index| 80 + index as u64);
        let thirds = memory(&looks, 1_200.0).unwrap();
        assert!(!thirds.flat && thirds.last < thirds.middle + 5.0 * 1_048_576.0, "{thirds:?}");
        assert!(!files(&looks, 1_200.0).unwrap().flat);
    }

    #[test]
    fn what_is_full_within_the_first_third_is_flat_and_what_grows_with_each_trouble_is_not() {
        // A table that doubles at 80 s and again at 160 s, and one that grows by 1.5 MiB each 100 s.
        let full = life(|index| 24.0 + 2.0 * (index.min(16) / 8) as f64, |_| 80);
        assert!(memory(&full, 1_200.0).unwrap().flat);
        let grows = life(|index| 24.0 + 1.5 * (index / 10) as f64, |_| 80);
        assert!(!memory(&grows, 1_200.0).unwrap().flat);
    }

    #[test]
    fn a_short_life_is_not_judged() {
        let looks = life(|_| 40.0, |_| 80);
        assert!(memory(&looks[..25], 1_200.0).is_none(), "less than a quarter of the soak");
        assert!(memory(&looks[..8], 80.0).is_none(), "too few samples");
        assert!(memory(&[], 1.0).is_none());
    }
}
