//! From records to what people read: `REPORT.md`, `report.html`, the terminal table.
//!
//! Everything here is a pure function of the records: no clock, no files, no randomness without a fixed seed. A report
//! can be rendered again from `run.json` alone and comes out the same to the byte.

pub mod chart;
pub mod decide;
pub mod document;
pub mod gather;
pub mod html;
pub mod markdown;
mod reasons;
pub mod recovery;
mod sections;
mod terminal;
pub mod text;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use crate::campaign::Failure;
use crate::record::RunRecord;
use document::{Block, Figure};

pub use sections::holds;
pub use terminal::{Style, single, terminal};

/// A rendered report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// `REPORT.md`.
    pub markdown: String,
    /// `report.html`: one file, no network.
    pub html: String,
    /// Figures for `figures/NAME.svg`, which `REPORT.md` refers to.
    pub figures: Vec<(String, String)>,
    /// The sentence under the title.
    pub lead: String,
    /// What stands over a decision table from too few blocks.
    pub note: Option<String>,
    /// The fault matrix, and declared beside observed, as Markdown; empty where no faults were run.
    pub fault_matrix: String,
    /// The decision table alone, in brief, as Markdown, for the README.
    pub decision_table: String,
}

/// Renders records. `paths` gives the file of each record relative to the report, in the same order, for the links to raw data;
/// `failures` are runs that could not be made.
pub fn render(records: &[RunRecord], paths: &[String], failures: &[Failure]) -> Rendered {
    let title = "Which backplane for which chat?";
    let blocks = sections::all(records, paths, failures);
    let figures = blocks.iter().filter_map(|block| match block {
        Block::Figure(Figure { id, svg, .. }) => Some((id.clone(), chart::standalone(svg))),
        _ => None,
    });
    let lead = sections::lead(records);
    let tables = gather::tables(records, failures);
    let fault_matrix =
        sections::tables_of(&tables).map_or_else(String::new, |(summary, [matrix, observed])| {
            format!(
                "{summary}\n\n{}\n{}",
                markdown::markdown_table(&matrix),
                markdown::markdown_table(&observed)
            )
        });
    let decisions = decide::decide(&tables, failures);
    let mut with_lead = vec![Block::Text(lead.clone())];
    with_lead.extend(blocks.iter().cloned());
    Rendered {
        markdown: markdown::markdown(title, &with_lead),
        figures: figures.collect(),
        html: html::html(title, &lead, &blocks),
        fault_matrix,
        lead,
        note: sections::provisional(records, &decisions),
        decision_table: markdown::markdown_table(&sections::decision_table(&decisions, sections::BRIEF)),
    }
}
