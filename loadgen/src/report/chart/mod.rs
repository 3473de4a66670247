//! Figures as SVG, drawn here so that a report needs no network and no script.
//!
//! Colours come from CSS variables, so one drawing serves light, dark and print; a strategy is told apart by colour
//! *and* marker shape *and* its name at the line. Every figure has a title that says what to see in it.

pub mod axis;
pub mod curves;
pub mod dots;
pub mod stack;
pub mod svg;
pub mod timeline;

pub use curves::{Curve, CurveAxes, curves};
pub use dots::{Dot, DotRow, dots};
pub use stack::{Stack, stacks};
pub(super) use svg::escape;
pub use svg::{STYLE, standalone};
pub use timeline::{Frame, Mark, Timeline, timeline};

/// A series of a figure: who, and in which colour and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Colour and marker, an index into [`STYLE`]'s series colours.
    pub style: usize,
    /// The name in legends and at lines.
    pub name: String,
}

impl Key {
    /// Keys for contenders in the order given; floors and counter-examples have styles of their own, so that they
    /// look alike in every report.
    pub fn assign<'a>(contenders: impl IntoIterator<Item = (&'a str, Standing)>) -> Vec<Self> {
        const STYLES: [usize; 6] = [0, 1, 2, 3, 6, 7];
        let mut next = 0;
        contenders
            .into_iter()
            .map(|(name, standing)| {
                let style = match standing {
                    Standing::Floor => 4,
                    Standing::CounterExample => 5,
                    Standing::Contender => {
                        next += 1;
                        STYLES[(next - 1) % STYLES.len()]
                    }
                };
                Self { style, name: name.to_owned() }
            })
            .collect()
    }
}

/// How a strategy stands in a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Ranked.
    Contender,
    /// On one node: what a backplane can't be faster than.
    Floor,
    /// There to show a mistake.
    CounterExample,
}
