//! What a fault did over time: deliveries per second and latency, with the fault marked.

use super::axis::Scale;
use super::svg::Svg;
use crate::report::text;

/// One run over time.
#[derive(Debug, Clone)]
pub struct Timeline {
    /// Over the figure.
    pub name: String,
    /// Colour.
    pub style: usize,
    /// Per interval: when, deliveries per second, 99th percentile in milliseconds where there was any.
    pub points: Vec<(f64, f64, Option<f64>)>,
    /// When the counted window began.
    pub window_s: f64,
    /// When the last message was sent.
    pub end_s: f64,
    /// What happened.
    pub marks: Vec<Mark>,
}

/// The axes that several timelines share, so that one can be held against another.
#[derive(Debug, Clone, Default)]
pub struct Frame {
    /// Where the clock ends, seconds.
    pub end_s: f64,
    /// Highest rate, deliveries per second.
    pub rate_max: f64,
    /// Lowest and highest 99th percentile, milliseconds.
    pub p99_ms: Option<(f64, f64)>,
}

impl Frame {
    /// The frame in which every one of `runs` fits.
    pub fn around(runs: &[Timeline]) -> Self {
        let mut frame = Self { end_s: 1.0, ..Self::default() };
        for (at_s, rate, p99_ms) in runs.iter().flat_map(|run| &run.points) {
            frame.end_s = frame.end_s.max(*at_s);
            frame.rate_max = frame.rate_max.max(*rate);
            if let Some(p99) = p99_ms {
                let (low, high) = frame.p99_ms.unwrap_or((*p99, *p99));
                frame.p99_ms = Some((low.min(*p99), high.max(*p99)));
            }
        }
        frame
    }
}

/// A fault in a timeline.
#[derive(Debug, Clone)]
pub struct Mark {
    /// When, on the clock of the points.
    pub at_s: f64,
    /// What, in a word or two.
    pub text: String,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANE: f64 = 70.0;
const GAP: f64 = 22.0;

/// Draws two panes over one clock: rate above, latency below.
pub fn timeline(title: &str, run: &Timeline, frame: &Frame) -> String {
    let mut svg = Svg::default();
    let right = WIDTH - RIGHT;
    let x = Scale::exact((0.0, frame.end_s), (LEFT, right));
    let (top, below) = (40.0, 40.0 + PANE + GAP);
    let bottom = below + PANE;
    let rate = Scale::linear([0.0, frame.rate_max], (top + PANE, top));
    let latency =
        Scale::logarithmic(frame.p99_ms.into_iter().flat_map(|(low, high)| [low, high]), (bottom, below));
    svg.rect("var(--grid)", (LEFT, top), (x.at(run.window_s) - LEFT, bottom - top));
    svg.line("target", (x.at(run.end_s), top), (x.at(run.end_s), bottom));
    svg.text("strong", "start", (0.0, 12.0), &run.name);
    for (scale, y, label) in [(&rate, top, "deliveries/s"), (&latency, below, "p99, ms (logarithmic)")] {
        svg.text("soft small", "start", (LEFT, y - 5.0), label);
        let ticks = scale.ticks();
        let every = ticks.len().div_ceil(4).max(1);
        for tick in ticks.into_iter().step_by(every) {
            svg.line("grid", (LEFT, scale.at(tick)), (right, scale.at(tick)));
            svg.text("soft small", "end", (LEFT - 6.0, scale.at(tick) + 4.0), &text::tick(tick));
        }
        svg.line("axis", (LEFT, y + PANE), (right, y + PANE));
    }
    draw_rate(&mut svg, run, &x, &rate, top + PANE);
    // A stretch without deliveries has no latency: the line breaks there.
    for stretch in run.points.split(|point| point.2.is_none()) {
        let line: Vec<(f64, f64)> =
            stretch.iter().filter_map(|point| Some((x.at(point.0), latency.at(point.2?)))).collect();
        svg.path(run.style, &line);
    }
    for mark in &run.marks {
        svg.line("mark", (x.at(mark.at_s), top - 6.0), (x.at(mark.at_s), bottom));
        svg.text("small badtext", "start", (x.at(mark.at_s) + 5.0, top + 6.0), &mark.text);
    }
    for tick in x.ticks() {
        svg.text("soft small", "middle", (x.at(tick), bottom + 16.0), &format!("{tick:.0} s"));
    }
    svg.finish(WIDTH, bottom + 26.0, title)
}

fn draw_rate(svg: &mut Svg, run: &Timeline, x: &Scale, rate: &Scale, floor: f64) {
    let line: Vec<(f64, f64)> = run.points.iter().map(|point| (x.at(point.0), rate.at(point.1))).collect();
    if let (Some(first), Some(last)) = (line.first(), line.last()) {
        let mut area = line.clone();
        area.push((last.0, floor));
        area.push((first.0, floor));
        svg.band(run.style, &area);
    }
    svg.path(run.style, &line);
}
