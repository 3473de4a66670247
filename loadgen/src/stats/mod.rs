//! The statistics of a campaign, where the *run* is the sample and never the message.
//!
//! Medians with bootstrap intervals, differences paired by block, Mann–Whitney with Holm's correction. Nothing here
//! knows what the numbers mean.

mod bootstrap;
mod difference;
mod rank;

pub use bootstrap::{Interval, median, median_difference_interval, median_interval};
pub use difference::{Call, Difference, LIKELY_RATIO_MIN, compare_paired, compare_unpaired, correct};
pub use rank::{holm, mann_whitney};

/// Chance of calling a difference where there is none, over a whole family of comparisons.
pub const ALPHA: f64 = 0.05;

/// Least number of blocks at which the tests can speak: with fewer, even complete separation stays above [`ALPHA`].
pub const BLOCKS_MIN: usize = 5;
