//! Lines over a common axis: percentile plots and throughput-versus-latency curves.

use super::Key;
use super::axis::Scale;
use super::dots::{draw_legend, legend_height};
use super::svg::Svg;
use crate::report::text;

/// One contender's line.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Which series, an index into the legend.
    pub series: usize,
    /// Points from left to right: x, low, middle, high. Where low equals high no band is drawn.
    pub points: Vec<(f64, f64, f64, f64)>,
    /// Marks beside the line: runs that count for nothing but are not hidden.
    pub hollow: Vec<(f64, f64)>,
    /// Whether to mark the points.
    pub markers: bool,
}

/// What the axes say.
#[derive(Debug, Clone)]
pub struct CurveAxes {
    /// Under the horizontal axis.
    pub x: String,
    /// Over the vertical axis.
    pub y: String,
    /// Horizontal ticks and what they say; empty for a linear scale with numbers of its own.
    pub x_ticks: Vec<(f64, String)>,
    /// A limit on the vertical axis.
    pub target: Option<f64>,
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 130.0;

/// Draws the curves over a logarithmic vertical axis.
pub fn curves(title: &str, axes: &CurveAxes, legend: &[Key], curves: &[Curve]) -> String {
    let mut svg = Svg::default();
    let top = legend_height(legend) + 26.0;
    let bottom = top + HEIGHT;
    let right = WIDTH - RIGHT;
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let hollow = || curves.iter().flat_map(|curve| curve.hollow.iter());
    let heights = points().flat_map(|point| [point.1, point.3]).chain(hollow().map(|point| point.1));
    let y = Scale::logarithmic(heights.chain(axes.target), (bottom, top));
    let x = if axes.x_ticks.is_empty() {
        Scale::linear(points().map(|point| point.0).chain(hollow().map(|point| point.0)), (LEFT, right))
    } else {
        let ends = (axes.x_ticks[0].0, axes.x_ticks[axes.x_ticks.len() - 1].0);
        Scale::exact(ends, (LEFT, right))
    };
    draw_legend(&mut svg, legend, LEFT);
    svg.text("soft small", "start", (4.0, top - 8.0), &axes.y);
    for tick in y.ticks() {
        svg.line("grid", (LEFT, y.at(tick)), (right, y.at(tick)));
        svg.text("soft small", "end", (LEFT - 8.0, y.at(tick) + 4.0), &text::tick(tick));
    }
    draw_x(&mut svg, axes, &x, (top, bottom));
    if let Some(target) = axes.target {
        svg.line("target", (LEFT, y.at(target)), (right, y.at(target)));
        svg.text("small badtext", "start", (LEFT + 6.0, y.at(target) - 5.0), "target");
    }
    for curve in curves {
        if let Some(key) = legend.get(curve.series) {
            draw_curve(&mut svg, curve, key.style, &x, &y);
        }
    }
    draw_names(&mut svg, legend, curves, &x, &y);
    svg.line("axis", (LEFT, bottom), (right, bottom));
    svg.finish(WIDTH, bottom + 42.0, title)
}

fn draw_x(svg: &mut Svg, axes: &CurveAxes, x: &Scale, (top, bottom): (f64, f64)) {
    let own: Vec<(f64, String)> = x.ticks().into_iter().map(|tick| (tick, text::tick(tick))).collect();
    for (tick, text) in if axes.x_ticks.is_empty() { &own } else { &axes.x_ticks } {
        svg.line("grid", (x.at(*tick), top), (x.at(*tick), bottom));
        svg.text("soft small", "middle", (x.at(*tick), bottom + 16.0), text);
    }
    svg.text("soft small", "middle", ((LEFT + WIDTH - RIGHT) / 2.0, bottom + 34.0), &axes.x);
}

fn draw_curve(svg: &mut Svg, curve: &Curve, style: usize, x: &Scale, y: &Scale) {
    let spread = curve.points.iter().any(|point| point.3 > point.1);
    if spread {
        let upper = curve.points.iter().map(|point| (x.at(point.0), y.at(point.3)));
        let lower = curve.points.iter().rev().map(|point| (x.at(point.0), y.at(point.1)));
        svg.band(style, &upper.chain(lower).collect::<Vec<_>>());
    }
    let middle: Vec<(f64, f64)> = curve.points.iter().map(|point| (x.at(point.0), y.at(point.2))).collect();
    if middle.len() > 1 {
        svg.path(style, &middle);
    }
    for point in &curve.hollow {
        svg.marker(style, (x.at(point.0), y.at(point.1)), true, "invalid run");
    }
    if curve.markers {
        for at in middle {
            svg.marker(style, at, false, "");
        }
    }
}

/// Names at the right ends of the lines, moved apart where they would overlap.
fn draw_names(svg: &mut Svg, legend: &[Key], curves: &[Curve], x: &Scale, y: &Scale) {
    let mut ends: Vec<(f64, f64, usize)> = curves
        .iter()
        .filter_map(|curve| curve.points.last().map(|last| (y.at(last.2) + 4.0, x.at(last.0), curve.series)))
        .collect();
    ends.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut floor = f64::NEG_INFINITY;
    for (at, end, series) in ends {
        let at = at.max(floor);
        floor = at + 13.0;
        if let Some(Key { style, name }) = legend.get(series) {
            svg.label(*style, "start", (end + 10.0, at), name);
        }
    }
}
