//! Stacked horizontal bars: what a delivery costs, part by part.

use super::axis::Scale;
use super::svg::Svg;
use crate::report::text::{self, significant};

/// One bar.
#[derive(Debug, Clone)]
pub struct Stack {
    /// Its name.
    pub name: String,
    /// Values of the parts, in the order of the legend.
    pub parts: Vec<f64>,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 60.0;
const BAR: f64 = 18.0;
const PITCH: f64 = 28.0;

/// Colours of the parts: quiet ones, as they are no strategies.
const FILLS: [&str; 3] = ["var(--s0)", "var(--s1)", "var(--s2)"];

/// Draws the bars; `parts` names the pieces, three at most.
pub fn stacks(title: &str, axis: &str, parts: &[&str], bars: &[Stack]) -> String {
    let mut svg = Svg::default();
    let mut x = LEFT;
    for (part, fill) in parts.iter().zip(FILLS) {
        svg.rect(fill, (x, 6.0), (12.0, 12.0));
        svg.text("", "start", (x + 18.0, 16.0), part);
        x += part.chars().count() as f64 * 7.0 + 44.0;
    }
    let top = 34.0;
    let bottom = top + bars.len() as f64 * PITCH;
    let scale = Scale::linear(bars.iter().map(|bar| bar.parts.iter().sum()), (LEFT, WIDTH - RIGHT));
    for tick in scale.ticks() {
        svg.line("grid", (scale.at(tick), top), (scale.at(tick), bottom));
        svg.text("soft small", "middle", (scale.at(tick), bottom + 16.0), &text::tick(tick));
    }
    for (index, bar) in bars.iter().enumerate() {
        let y = top + index as f64 * PITCH + (PITCH - BAR) / 2.0;
        svg.text("", "end", (LEFT - 12.0, y + 13.0), &bar.name);
        let mut sum = 0.0;
        for (part, fill) in bar.parts.iter().zip(FILLS) {
            let (from, to) = (scale.at(sum), scale.at(sum + part));
            svg.rect(fill, (from, y), ((to - from).max(0.0), BAR));
            sum += part;
        }
        svg.text("small", "start", (scale.at(sum) + 8.0, y + 13.0), &significant(sum));
    }
    svg.line("axis", (LEFT, top), (LEFT, bottom));
    svg.text("soft small", "middle", ((LEFT + WIDTH - RIGHT) / 2.0, bottom + 34.0), axis);
    svg.finish(WIDTH, bottom + 42.0, title)
}
