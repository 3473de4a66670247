//! From windows to lines, and from lines to verdicts: ratios within a block, medians and ranges over blocks.

use super::record::{Bench, Row, Target, Window};
use crate::stats::median;

/// A verdict needs at least so many blocks.
const BLOCKS_MIN: u32 = 5;

/// A value, and the block that it is of.
pub(super) type OfBlock = (u32, f64);

/// A median and between which values it lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Median.
    pub median: f64,
    /// Smallest.
    pub low: f64,
    /// Largest.
    pub high: f64,
    /// Values.
    pub samples: usize,
}

/// What became of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Reached.
    Met,
    /// Not reached.
    Missed,
    /// There is no figure, or it lacks blocks that could change the verdict: the notes say why.
    Unknown,
    /// There was no target.
    Shown,
}

impl Verdict {
    /// As tables say it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "missed",
            Self::Unknown => "not measured",
            Self::Shown => "–",
        }
    }
}

impl Spread {
    /// Of some values; `None` of nothing.
    pub fn of(values: &[f64]) -> Option<Self> {
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        Some(Self { median: median(values)?, low, high, samples: values.len() })
    }
}

impl Row {
    /// A line without a reference.
    pub(super) fn plain(number: u8, what: &str, unit: &str, target: Target, ours: Vec<f64>) -> Self {
        Self {
            number,
            what: what.to_owned(),
            unit: unit.to_owned(),
            target,
            ours,
            reference_name: String::new(),
            reference: Vec::new(),
        }
    }

    /// A line of pairs: ours and its reference, block by block.
    pub(super) fn paired(
        number: u8,
        what: &str,
        unit: &str,
        target: Target,
        reference_name: &str,
        pairs: &[(f64, f64)],
    ) -> Self {
        let (ours, reference) = pairs.iter().copied().unzip();
        let reference_name = reference_name.to_owned();
        Self { reference_name, reference, ..Self::plain(number, what, unit, target, ours) }
    }

    /// A line that stands for itself, with a reference beside it from those of its blocks that have one.
    pub(super) fn beside(
        number: u8,
        what: &str,
        unit: &str,
        target: Target,
        reference_name: &str,
        ours: &[OfBlock],
        reference: &[OfBlock],
    ) -> Self {
        let is_alone = |block: u32| !reference.iter().any(|(other, _)| *other == block);
        let alone = ours.iter().filter(|(block, _)| is_alone(*block)).map(|(_, value)| *value);
        let mut row = Self::paired(number, what, unit, target, reference_name, &joined(ours, reference));
        row.ours.extend(alone);
        row
    }

    /// The lines of a target that is set for a size: one, where that size fits here; else the target's without a figure, and
    /// beside it, as an explanation, what was measured at the size that fits.
    pub(super) fn of_size(wanted: u64, had: u64, line: impl Fn(u64) -> Self) -> Vec<Self> {
        if wanted == had {
            return vec![line(had)];
        }
        let unmeasured = Self { ours: Vec::new(), reference: Vec::new(), ..line(wanted) };
        vec![unmeasured, Self { target: Target::Shown, ..line(had) }]
    }

    /// The figure that is held against the target, block by block: a ratio, a difference, or ours itself.
    pub fn figures(&self) -> Vec<f64> {
        match self.target {
            Target::Excess(_) => {
                self.ours.iter().zip(&self.reference).map(|(ours, reference)| ours - reference).collect()
            }
            Target::AtMost(_) | Target::AtLeast(_) => self.ours.clone(),
            Target::Ratio(_) | Target::Shown => self.ratios(),
        }
    }

    /// Ours ÷ the reference, block by block.
    fn ratios(&self) -> Vec<f64> {
        let pairs = self.ours.iter().zip(&self.reference);
        pairs.filter(|(_, reference)| **reference > 0.0).map(|(ours, reference)| ours / reference).collect()
    }

    /// Ours ÷ the reference, in one.
    pub fn ratio(&self) -> Option<Spread> {
        Spread::of(&self.ratios())
    }

    /// The figures in one.
    pub fn figure(&self) -> Option<Spread> {
        Spread::of(&self.figures())
    }

    /// Whether the target was reached: by the median of at least `needed` blocks. With fewer it is missed if it would be so
    /// even with the best in their place, and else not known.
    pub fn verdict(&self, needed: usize) -> Verdict {
        let (bound, best) = match self.target {
            Target::Ratio(bound) | Target::Excess(bound) | Target::AtMost(bound) => {
                (bound, f64::NEG_INFINITY)
            }
            Target::AtLeast(bound) => (bound, f64::INFINITY),
            Target::Shown => return Verdict::Shown,
        };
        let mut figures = self.figures();
        let is_whole = figures.len() >= needed.max(1);
        figures.resize(figures.len().max(needed), best);
        let Some(median) = median(&figures) else { return Verdict::Unknown };
        let reached = if best > 0.0 { median >= bound } else { median <= bound };
        match (reached, is_whole) {
            (false, _) => Verdict::Missed,
            (true, true) => Verdict::Met,
            (true, false) => Verdict::Unknown,
        }
    }
}

impl Bench {
    /// What became of one of its lines: every block that was ordered must be in it, and at least five.
    pub fn verdict(&self, row: &Row) -> Verdict {
        row.verdict(self.blocks.max(BLOCKS_MIN) as usize)
    }
}

/// What a figure is made from.
pub(super) type Metric = fn(&Window) -> Option<f64>;

/// Values of two things from the blocks that have both: ours first.
pub(super) fn joined(ours: &[OfBlock], reference: &[OfBlock]) -> Vec<(f64, f64)> {
    let reference_of = |block: u32| reference.iter().find(|(other, _)| *other == block);
    ours.iter().filter_map(|(block, value)| Some((*value, reference_of(*block)?.1))).collect()
}

/// A figure of one subject under one shape, by block, of windows that may be used.
fn by_block(windows: &[Window], shape: &str, subject: &str, metric: Metric) -> Vec<OfBlock> {
    let fitting = windows.iter().filter(|one| one.shape == shape && one.subject == subject);
    fitting.filter(|one| one.is_usable()).filter_map(|one| Some((one.block, metric(one)?))).collect()
}

/// Figures of two subjects from the blocks in which both have one: ours first.
pub(super) fn pairs(
    windows: &[Window],
    shape: &str,
    ours: &str,
    reference: &str,
    metric: Metric,
) -> Vec<(f64, f64)> {
    joined(&by_block(windows, shape, ours, metric), &by_block(windows, shape, reference, metric))
}

/// A subject's figure under one shape over that under another, by block, from the blocks that have both.
pub(super) fn growth(
    windows: &[Window],
    subject: &str,
    from: &str,
    to: &str,
    metric: Metric,
) -> Vec<OfBlock> {
    let before = by_block(windows, from, subject, metric);
    by_block(windows, to, subject, metric)
        .into_iter()
        .filter_map(|(block, value)| {
            let (_, first) = before.iter().find(|(other, _)| *other == block)?;
            (*first > 0.0).then(|| (block, value / first))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_taken_within_a_block() {
        // The machine is twice as slow in the second block: the ratios do not know.
        let windows = [
            Window::sound("floor", "small", 1, 3.0),
            Window::sound("memory", "small", 1, 3.6),
            Window::sound("memory", "small", 2, 7.2),
            Window::sound("floor", "small", 2, 6.0),
            Window::sound("memory", "small", 3, 9.9),
            Window::sound("memory", "big", 1, 99.0),
        ];
        let pairs = pairs(&windows, "small", "memory", "floor", Window::us_per_delivery);
        assert_eq!(pairs.len(), 2, "a block without the floor has no ratio");
        let row = Row::paired(1, "delivery", "µs", Target::Ratio(1.2001), "floor", &pairs);
        let figure = row.figure().unwrap();
        assert!((figure.median - 1.2).abs() < 1e-9 && (figure.high - figure.low).abs() < 1e-9);
        assert_eq!((figure.samples, row.verdict(2)), (2, Verdict::Met));
    }

    #[test]
    fn a_window_that_may_not_be_used_is_left_out() {
        let mut windows = [Window::sound("floor", "small", 1, 3.0), Window::sound("memory", "small", 1, 3.6)];
        windows[1].clean = false;
        assert!(pairs(&windows, "small", "memory", "floor", Window::us_per_delivery).is_empty());
    }

    #[test]
    fn growth_is_against_the_same_block() {
        let windows = [
            Window::sound("memory", "100", 1, 2.0),
            Window::sound("memory", "20000", 1, 2.2),
            Window::sound("memory", "100", 2, 4.0),
            Window::sound("memory", "20000", 2, 4.0),
        ];
        let grown = growth(&windows, "memory", "100", "20000", Window::us_per_delivery);
        assert!((grown[0].1 - 1.1).abs() < 1e-9 && (grown[1].1 - 1.0).abs() < 1e-9);
        assert_eq!((grown[0].0, grown[1].0), (1, 2));
    }

    #[test]
    fn verdicts_follow_the_median() {
        let plain = |target, ours: &[f64]| Row::plain(2, "x", "/s", target, ours.to_vec()).verdict(1);
        assert_eq!(plain(Target::AtLeast(10.0), &[9.0, 10.0, 11.0]), Verdict::Met);
        assert_eq!(plain(Target::AtLeast(10.0), &[9.0, 9.0, 11.0]), Verdict::Missed);
        assert_eq!(plain(Target::AtMost(10.0), &[9.0, 10.0, 99.0]), Verdict::Met);
        assert_eq!(plain(Target::AtMost(10.0), &[]), Verdict::Unknown);
        assert_eq!(plain(Target::Shown, &[]), Verdict::Shown);
        let excess = Row::paired(3, "p50", "ms", Target::Excess(0.3), "bare", &[(0.5, 0.1), (0.4, 0.2)]);
        assert!((excess.figure().unwrap().median - 0.3).abs() < 1e-9);
        let ratio =
            Row::paired(1, "x", "µs", Target::Ratio(1.05), "floor", &[(1.2, 1.0), (1.0, 1.0), (1.1, 1.0)]);
        assert_eq!(ratio.verdict(3), Verdict::Missed);
    }

    #[test]
    fn too_few_blocks_are_no_success_and_may_be_a_failure() {
        let at_most =
            |ours: &[f64]| Row::plain(4, "x", "KiB", Target::AtMost(10.0), ours.to_vec()).verdict(5);
        assert_eq!(
            at_most(&[1.0, 1.0, 1.0, 1.0]),
            Verdict::Unknown,
            "the fifth could not change it, but is owed"
        );
        assert_eq!(at_most(&[1.0, 1.0, 1.0, 99.0, 99.0]), Verdict::Met);
        assert_eq!(at_most(&[99.0, 99.0]), Verdict::Unknown);
        assert_eq!(at_most(&[99.0, 99.0, 99.0]), Verdict::Missed, "whatever the others had brought");
        let at_least =
            |ours: &[f64]| Row::plain(2, "x", "/s", Target::AtLeast(10.0), ours.to_vec()).verdict(5);
        assert_eq!(at_least(&[11.0]), Verdict::Unknown);
        assert_eq!(at_least(&[9.0, 9.0, 9.0, 11.0]), Verdict::Missed);
    }

    #[test]
    fn what_stands_beside_is_of_the_same_block() {
        let (ours, floor) = ([(1, 2.0), (2, 9.0), (3, 6.0)], [(3, 3.0), (1, 1.0)]);
        let row = Row::beside(4, "idle", "KiB", Target::AtMost(6.0), "floor", &ours, &floor);
        assert_eq!((row.ours.as_slice(), row.reference.as_slice()), (&[2.0, 6.0, 9.0][..], &[1.0, 3.0][..]));
        assert_eq!(row.verdict(3), Verdict::Met);
        let ratio = row.ratio().unwrap();
        assert!((ratio.median - 2.0).abs() < 1e-9 && ratio.samples == 2);
    }

    #[test]
    fn a_size_that_does_not_fit_leaves_its_target_open() {
        let line =
            |size: u64| Row::plain(5, &format!("{size} members"), "ms", Target::AtMost(9.0), vec![1.0]);
        assert_eq!(Row::of_size(100, 100, line), [line(100)]);
        let [target, shown] = <[Row; 2]>::try_from(Row::of_size(200, 100, line)).unwrap();
        assert_eq!((target.what.as_str(), target.verdict(1)), ("200 members", Verdict::Unknown));
        assert_eq!((shown.what.as_str(), shown.verdict(1)), ("100 members", Verdict::Shown));
        assert_eq!(shown.ours, [1.0]);
    }

    #[test]
    fn a_spread_has_the_ends_of_its_values() {
        let spread = Spread::of(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((spread.low, spread.median, spread.high, spread.samples), (1.0, 2.0, 3.0, 3));
        assert_eq!(Spread::of(&[]), None);
    }
}
