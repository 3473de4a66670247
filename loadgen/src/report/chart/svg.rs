//! The few shapes that the figures are made of.

use std::fmt::Write as _;

/// Colours of figures and of the page around them: light, dark and print. The series colours keep at least 3:1
/// against both backgrounds and stay apart for the common kinds of colour blindness.
pub const STYLE: &str = "\
:root{--ink:#1b1f24;--soft:#59636e;--rule:#d1d9e0;--grid:#e8ecf0;--paper:#fff;--card:#f6f8fa;\
--s0:#0969da;--s1:#bc4c00;--s2:#1a7f37;--s3:#8250df;--s4:#59636e;--s5:#bf3989;--s6:#0a7d86;--s7:#7d5a00;--bad:#cf222e;--good:#1a7f37;--warn:#9a6700}\
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--soft:#9198a1;--rule:#3d444d;--grid:#262c36;--paper:#0d1117;--card:#151b23;\
--s0:#58a6ff;--s1:#f0883e;--s2:#56d364;--s3:#bc8cff;--s4:#9198a1;--s5:#ff7bbf;--s6:#39c5cf;--s7:#d4a72c;--bad:#ff7b72;--good:#56d364;--warn:#e3b341}}\
@media print{:root{--ink:#000;--soft:#444;--rule:#999;--grid:#ddd;--paper:#fff;--card:#fff;\
--s0:#0969da;--s1:#bc4c00;--s2:#1a7f37;--s3:#8250df;--s4:#59636e;--s5:#bf3989;--s6:#0a7d86;--s7:#7d5a00;--bad:#cf222e;--good:#1a7f37;--warn:#9a6700}}\
.fig text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--ink)}\
.fig .soft{fill:var(--soft)}.fig .strong{font-weight:600}.fig .small{font-size:11px}\
.fig .grid{stroke:var(--grid);stroke-width:1}.fig .axis{stroke:var(--rule);stroke-width:1}\
.fig .target{stroke:var(--bad);stroke-width:1.2;stroke-dasharray:4 3}.fig .mark{stroke:var(--bad);stroke-width:1.5}\
.fig .line{fill:none;stroke-width:2;stroke-linejoin:round}.fig .band{opacity:.16;stroke:none}.fig .whisker{stroke-width:2}\
.fig .badtext{fill:var(--bad)}";

/// Collects shapes; all coordinates are pixels of the view box.
#[derive(Debug, Default)]
pub(super) struct Svg {
    body: String,
}

impl Svg {
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<line class="{class}" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    /// A line in a series' colour.
    pub(super) fn stroke(&mut self, class: &str, style: usize, from: (f64, f64), to: (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<line class="{class}" style="stroke:var(--s{style})" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
            from.0, from.1, to.0, to.1
        );
    }

    /// Text; `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, class: &str, anchor: &str, at: (f64, f64), text: &str) {
        let _ = write!(
            self.body,
            r#"<text class="{class}" text-anchor="{anchor}" x="{:.1}" y="{:.1}">{}</text>"#,
            at.0,
            at.1,
            escape(text)
        );
    }

    /// Text in a series' colour.
    pub(super) fn label(&mut self, style: usize, anchor: &str, at: (f64, f64), text: &str) {
        let _ = write!(
            self.body,
            r#"<text class="small" style="fill:var(--s{style})" text-anchor="{anchor}" x="{:.1}" y="{:.1}">{}</text>"#,
            at.0,
            at.1,
            escape(text)
        );
    }

    pub(super) fn rect(&mut self, fill: &str, at: (f64, f64), size: (f64, f64)) {
        let _ = write!(
            self.body,
            r#"<rect style="fill:{fill}" x="{:.1}" y="{:.1}" width="{:.1}" height="{:.1}"/>"#,
            at.0, at.1, size.0, size.1
        );
    }

    /// An open path through points.
    pub(super) fn path(&mut self, style: usize, points: &[(f64, f64)]) {
        if points.len() > 1 {
            let _ = write!(
                self.body,
                r#"<path class="line" style="stroke:var(--s{style})" d="{}"/>"#,
                path_data(points)
            );
        }
    }

    /// A closed, faint area through points.
    pub(super) fn band(&mut self, style: usize, points: &[(f64, f64)]) {
        if points.len() > 2 {
            let _ = write!(
                self.body,
                r#"<path class="band" style="fill:var(--s{style})" d="{}Z"/>"#,
                path_data(points)
            );
        }
    }

    /// A series' marker: its shape differs as well as its colour. Hollow when the figure may not be ranked.
    pub(super) fn marker(&mut self, style: usize, at: (f64, f64), hollow: bool, title: &str) {
        let (x, y) = at;
        let shape = match style {
            0 | 6 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="5""#),
            1 | 7 => format!(r#"<rect x="{:.1}" y="{:.1}" width="9" height="9""#, x - 4.5, y - 4.5),
            2 => format!(r#"<path d="M{x:.1} {:.1}l5.8 10h-11.6Z""#, y - 6.0),
            3 => format!(r#"<path d="M{x:.1} {:.1}l6 6l-6 6l-6 -6Z""#, y - 6.0),
            4 => format!(r#"<path d="M{:.1} {:.1}h10v4h-10Z""#, x - 5.0, y - 2.0),
            _ => format!(r#"<path d="M{x:.1} {:.1}l5.8 -10h-11.6Z""#, y + 6.0),
        };
        let fill = if hollow { "var(--paper)".to_owned() } else { format!("var(--s{style})") };
        let _ = write!(
            self.body,
            r#"{shape} style="fill:{fill};stroke:var(--s{style});stroke-width:1.5"><title>{}</title>{}"#,
            escape(title),
            match style {
                0 | 6 => "</circle>",
                1 | 7 => "</rect>",
                _ => "</path>",
            }
        );
    }

    /// The finished figure. `title` is read by screen readers; the view box makes it scale with its container.
    pub(super) fn finish(self, width: f64, height: f64, title: &str) -> String {
        format!(
            r#"<svg class="fig" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0} {height:.0}" width="{width:.0}" role="img" aria-label="{0}"><title>{0}</title>{1}</svg>"#,
            escape(title),
            self.body
        )
    }
}

fn path_data(points: &[(f64, f64)]) -> String {
    let mut data = String::new();
    for (index, (x, y)) in points.iter().enumerate() {
        let _ = write!(data, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    data
}

/// Text safe between tags and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A figure as a file of its own: brings its colours along and paints its background.
pub fn standalone(figure: &str) -> String {
    let open = figure.find('>').map_or(0, |end| end + 1);
    let (head, rest) = figure.split_at(open);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{head}<style>{STYLE}</style>\
         <rect width=\"100%\" height=\"100%\" style=\"fill:var(--paper)\"/>{rest}\n"
    )
}
