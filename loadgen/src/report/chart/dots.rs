//! Rows of dots with whiskers on one logarithmic axis: the headline figure.

use super::Key;
use super::axis::Scale;
use super::svg::Svg;
use crate::report::text::{self, ms, significant};
use crate::stats::Interval;

/// A row: one scenario.
#[derive(Debug, Clone)]
pub struct DotRow {
    /// Its name.
    pub name: String,
    /// A second line under it.
    pub note: String,
    /// Drawn as a dashed line; absent when there is none.
    pub target: Option<f64>,
    /// One per contender.
    pub dots: Vec<Dot>,
}

/// A contender in a row.
#[derive(Debug, Clone)]
pub struct Dot {
    /// Which series, an index into the legend.
    pub series: usize,
    /// Where it lies.
    pub interval: Interval,
    /// Drawn hollow: a figure that may not be ranked.
    pub hollow: bool,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 190.0;
const RIGHT: f64 = 30.0;
const LINE: f64 = 15.0;

/// Draws the rows; `legend` names the series.
pub fn dots(title: &str, axis: &str, legend: &[Key], rows: &[DotRow]) -> String {
    let mut svg = Svg::default();
    let top = legend_height(legend) + 30.0;
    let heights: Vec<f64> = rows.iter().map(|row| (row.dots.len() as f64 * LINE + 16.0).max(44.0)).collect();
    let bottom = top + heights.iter().sum::<f64>();
    let values = rows.iter().flat_map(|row| {
        row.target.into_iter().chain(row.dots.iter().flat_map(|dot| [dot.interval.low, dot.interval.high]))
    });
    let scale = Scale::logarithmic(values, (LEFT, WIDTH - RIGHT));
    draw_legend(&mut svg, legend, LEFT);
    for tick in scale.ticks() {
        svg.line("grid", (scale.at(tick), top), (scale.at(tick), bottom));
        svg.text("soft small", "middle", (scale.at(tick), bottom + 16.0), &text::tick(tick));
    }
    svg.text("soft small", "middle", ((LEFT + WIDTH - RIGHT) / 2.0, bottom + 34.0), axis);
    let mut y = top;
    for (row, height) in rows.iter().zip(&heights) {
        draw_row(&mut svg, row, y, *height, &scale, legend);
        y += height;
    }
    svg.line("axis", (0.0, bottom), (WIDTH - RIGHT, bottom));
    svg.finish(WIDTH, bottom + 44.0, title)
}

fn draw_row(svg: &mut Svg, row: &DotRow, y: f64, height: f64, scale: &Scale, legend: &[Key]) {
    svg.line("axis", (0.0, y), (WIDTH - RIGHT, y));
    svg.text("strong", "start", (0.0, y + height / 2.0 - 2.0), &row.name);
    svg.text("soft small", "start", (0.0, y + height / 2.0 + 13.0), &row.note);
    if let Some(target) = row.target {
        svg.line("target", (scale.at(target), y + 2.0), (scale.at(target), y + height - 2.0));
    }
    let start = y + (height - row.dots.len() as f64 * LINE) / 2.0 + LINE / 2.0;
    for (index, dot) in row.dots.iter().enumerate() {
        let y = start + index as f64 * LINE;
        let (low, high) = (scale.at(dot.interval.low), scale.at(dot.interval.high));
        let Some(Key { style, name }) = legend.get(dot.series) else { continue };
        let style = *style;
        if high - low > 1.0 {
            svg.stroke("whisker", style, (low, y), (high, y));
        }
        let title = format!("{name}: {}", ms(dot.interval.median));
        svg.marker(style, (scale.at(dot.interval.median), y), dot.hollow, &title);
        // The value stands right of its whisker, or left of it near the edge.
        let value = significant(dot.interval.median);
        if high < WIDTH - RIGHT - 50.0 {
            svg.label(style, "start", (high + 10.0, y + 4.0), &value);
        } else {
            svg.label(style, "end", (low - 10.0, y + 4.0), &value);
        }
    }
}

const LEGEND_LINE: f64 = 20.0;

fn legend_width(name: &str) -> f64 {
    name.chars().count() as f64 * 7.0 + 34.0
}

/// Height of a legend that wraps within the figure.
pub(super) fn legend_height(legend: &[Key]) -> f64 {
    let mut lines = 1.0;
    let mut x = LEFT;
    for Key { name, .. } in legend {
        if x > LEFT && x + legend_width(name) > WIDTH {
            lines += 1.0;
            x = LEFT;
        }
        x += legend_width(name);
    }
    lines * LEGEND_LINE
}

/// Markers with names, wrapped within the figure.
pub(super) fn draw_legend(svg: &mut Svg, legend: &[Key], left: f64) {
    let (mut x, mut y) = (left, 12.0);
    for Key { style, name } in legend {
        if x > left && x + legend_width(name) > WIDTH {
            x = left;
            y += LEGEND_LINE;
        }
        svg.marker(*style, (x + 6.0, y), false, name);
        svg.text("", "start", (x + 17.0, y + 4.0), name);
        x += legend_width(name);
    }
}
