//! Scales: from values to pixels, and which ticks to draw.

/// A scale from a range of values to a range of pixels.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    logarithmic: bool,
    values: (f64, f64),
    pixels: (f64, f64),
}

impl Scale {
    /// A logarithmic scale that covers the positive ones of `values`, widened to "nice" ends.
    pub fn logarithmic(values: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let (low, high) = extent(values.into_iter().filter(|value| *value > 0.0)).unwrap_or((0.1, 10.0));
        Self { logarithmic: true, values: (step_below(low), step_above(high)), pixels }
    }

    /// A linear scale from zero.
    pub fn linear(values: impl IntoIterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let high = extent(values).map_or(1.0, |(_, high)| high).max(f64::MIN_POSITIVE);
        let tick = linear_tick(high);
        Self { logarithmic: false, values: (0.0, (high / tick).ceil() * tick), pixels }
    }

    /// A linear scale over exactly these values.
    pub fn exact(values: (f64, f64), pixels: (f64, f64)) -> Self {
        Self { logarithmic: false, values, pixels }
    }

    /// Where a value lies; values outside go to the nearer end.
    pub fn at(&self, value: f64) -> f64 {
        let map = |value: f64| if self.logarithmic { value.max(f64::MIN_POSITIVE).ln() } else { value };
        let (low, high) = (map(self.values.0), map(self.values.1));
        let share = if high > low { ((map(value) - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    /// Values at which to draw a line and a number.
    pub fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.values;
        if !self.logarithmic {
            let tick = linear_tick(high - low);
            let first = (low / tick).ceil() as i64;
            return (first..)
                .map(|step| step as f64 * tick)
                .take_while(|value| *value <= high * 1.000_1)
                .collect();
        }
        let decades = (high / low).log10();
        let steps: &[f64] = match () {
            () if decades > 3.0 => &[1.0],
            () if decades > 1.2 => &[1.0, 3.0],
            () => &[1.0, 2.0, 5.0],
        };
        let first = low.log10().floor() as i32;
        let last = high.log10().ceil() as i32;
        (first..=last)
            .flat_map(|exponent| steps.iter().map(move |step| step * 10_f64.powi(exponent)))
            .filter(|value| *value >= low * 0.999 && *value <= high * 1.001)
            .collect()
    }
}

fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    values.into_iter().filter(|value| value.is_finite()).fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

fn step_below(value: f64) -> f64 {
    let decade = 10_f64.powf((value * 0.9).log10().floor());
    [5.0, 2.0, 1.0].into_iter().map(|step| step * decade).find(|step| *step <= value * 0.9).unwrap_or(decade)
}

fn step_above(value: f64) -> f64 {
    let decade = 10_f64.powf((value * 1.1).log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|step| step * decade)
        .find(|step| *step >= value * 1.1)
        .unwrap_or(decade * 10.0)
}

/// A step of 1, 2 or 5 that gives four to eight ticks.
fn linear_tick(span: f64) -> f64 {
    let rough = (span / 5.0).max(f64::MIN_POSITIVE);
    let decade = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * decade).find(|step| *step >= rough).unwrap_or(decade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_map_ends_to_ends_and_clamp() {
        let scale = Scale::logarithmic([0.5, 40.0], (100.0, 500.0));
        assert!(scale.at(0.5) > 100.0 && scale.at(40.0) < 500.0);
        assert_eq!(scale.at(0.0), 100.0);
        assert_eq!(scale.at(1e9), 500.0);
        let scale = Scale::linear([3.0, 47.0], (0.0, 50.0));
        assert!((scale.at(25.0) - 25.0).abs() < 1e-9);
        assert_eq!(scale.ticks(), [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]);
    }

    #[test]
    fn ticks_are_few_and_inside() {
        for (low, high) in [(0.04, 0.09), (0.1, 3_000.0), (1.0, 7.0), (5.0, 5.0)] {
            let ticks = Scale::logarithmic([low, high], (0.0, 1.0)).ticks();
            assert!((2..=9).contains(&ticks.len()), "{low}..{high}: {ticks:?}");
        }
    }

    #[test]
    fn nothing_to_show_is_still_a_scale() {
        assert!(!Scale::logarithmic([], (0.0, 1.0)).ticks().is_empty());
        assert!(!Scale::linear([], (0.0, 1.0)).ticks().is_empty());
    }
}
