//! The document as Markdown.

use std::fmt::Write as _;

use super::document::{Block, Entry, Table, Tone};

/// Renders blocks; figures become links to files under `figures/`.
pub fn markdown(title: &str, blocks: &[Block]) -> String {
    let mut out = format!("# {title}\n");
    for block in blocks {
        out.push('\n');
        match block {
            Block::Heading { level, text, .. } => {
                let _ = writeln!(out, "{} {text}", "#".repeat(usize::from(*level)));
            }
            Block::Text(text) => {
                let _ = writeln!(out, "{text}");
            }
            Block::Note(_, text) => {
                let _ = writeln!(out, "> {text}");
            }
            Block::List(points) => {
                for point in points {
                    let _ = writeln!(out, "- {point}");
                }
            }
            Block::Table(table) => out.push_str(&markdown_table(table)),
            Block::Figure(figure) => {
                let _ = writeln!(out, "![{}](figures/{}.svg)\n\n{}", figure.title, figure.id, figure.reading);
            }
            Block::Verbatim { summary, text } => {
                let _ = writeln!(
                    out,
                    "<details><summary>{summary}</summary>\n\n```\n{}\n```\n\n</details>",
                    text.trim_end()
                );
            }
        }
    }
    out
}

/// A table by itself: the README embeds the decision table.
pub fn markdown_table(table: &Table) -> String {
    let mut out = String::new();
    if !table.caption.is_empty() {
        let _ = writeln!(out, "*{}*\n", table.caption);
    }
    let _ = writeln!(out, "| {} |", table.head.join(" | "));
    let numeric =
        |column: usize| table.rows.iter().filter_map(|row| row.get(column)).any(|entry| entry.number);
    let rule: Vec<&str> =
        (0..table.head.len()).map(|column| if numeric(column) { "---:" } else { "---" }).collect();
    let _ = writeln!(out, "| {} |", rule.join(" | "));
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(cell).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

fn cell(entry: &Entry) -> String {
    let text = entry.text.replace('|', "\\|").replace('\n', "<br>");
    match entry.tone {
        Tone::Strong | Tone::Bad if !text.is_empty() => format!("**{text}**"),
        _ => text,
    }
}
