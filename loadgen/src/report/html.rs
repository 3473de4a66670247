//! The document as one HTML file: no script, no network, light and dark, wide and narrow, printable.

use std::fmt::Write as _;

use super::chart::STYLE;
use super::document::{Block, Entry, Figure, Table, Tone};

const PAGE_STYLE: &str = include_str!("page.css");

/// Renders blocks into a page that stands alone.
pub fn html(title: &str, lead: &str, blocks: &[Block]) -> String {
    let mut body = String::new();
    for block in blocks {
        render(&mut body, block);
    }
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
         <style>{STYLE}\n{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n<header><h1>{title}</h1>\
         <p class=\"lead\">{}</p></header>\n{}{body}</main>\n</body>\n</html>\n",
        inline(lead),
        contents(blocks),
    )
}

fn contents(blocks: &[Block]) -> String {
    let mut links = String::new();
    for block in blocks {
        if let Block::Heading { level: 2, id, text } = block {
            let _ = write!(links, "<a href=\"#{id}\">{}</a>", escape(text));
        }
    }
    format!("<nav aria-label=\"Contents\">{links}</nav>\n")
}

fn render(out: &mut String, block: &Block) {
    let _ = match block {
        Block::Heading { level, id, text } => {
            writeln!(out, "<h{level} id=\"{id}\">{}</h{level}>", escape(text))
        }
        Block::Text(text) => writeln!(out, "<p>{}</p>", inline(text)),
        Block::Note(tone, text) => {
            writeln!(out, "<p class=\"note {}\" role=\"note\">{}</p>", class(*tone), inline(text))
        }
        Block::List(points) => {
            let items: String = points.iter().map(|point| format!("<li>{}</li>", inline(point))).collect();
            writeln!(out, "<ul>{items}</ul>")
        }
        Block::Table(table) => {
            render_table(out, table);
            Ok(())
        }
        Block::Figure(figure) => {
            render_figure(out, figure);
            Ok(())
        }
        Block::Verbatim { summary, text } => writeln!(
            out,
            "<details><summary>{}</summary><pre>{}</pre></details>",
            escape(summary),
            escape(text.trim_end())
        ),
    };
}

fn render_table(out: &mut String, table: &Table) {
    let _ = write!(out, "<div class=\"scroll\" tabindex=\"0\"><table>");
    if !table.caption.is_empty() {
        let _ = write!(out, "<caption>{}</caption>", inline(&table.caption));
    }
    let heads: String =
        table.head.iter().map(|head| format!("<th scope=\"col\">{}</th>", inline(head))).collect();
    let _ = write!(out, "<thead><tr>{heads}</tr></thead><tbody>");
    for row in &table.rows {
        let cells: String =
            row.iter().zip(&table.head).map(|(entry, head)| render_entry(entry, head)).collect();
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    let _ = writeln!(out, "</tbody></table></div>");
}

fn render_entry(entry: &Entry, head: &str) -> String {
    let number = if entry.number { " num" } else { "" };
    // Narrow screens turn rows into cards; the head then stands before each entry.
    format!(
        "<td class=\"{}{number}\" data-head=\"{}\"><span>{}</span></td>",
        class(entry.tone),
        escape(head),
        inline(&entry.text).replace('\n', "<br>")
    )
}

fn render_figure(out: &mut String, figure: &Figure) {
    let _ = writeln!(
        out,
        "<figure id=\"{}\"><figcaption>{}</figcaption><div class=\"scroll\" tabindex=\"0\">{}</div>\
         <p class=\"reading\">{}</p></figure>",
        figure.id,
        inline(&figure.title),
        figure.svg,
        inline(&figure.reading)
    );
}

const fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Strong => "strong",
        Tone::Good => "good",
        Tone::Warn => "warn",
        Tone::Bad => "bad",
        Tone::Soft => "soft",
    }
}

/// Text with the two marks that reports use: `code` and **strong**, and links `[text](target)`.
fn inline(text: &str) -> String {
    let escaped = escape(text);
    let linked = links(&escaped);
    let strong = paired(&linked, "**", "<strong>", "</strong>");
    let emphasised = paired(&strong, "*", "<em>", "</em>");
    paired(&emphasised, "`", "<code>", "</code>")
}

fn paired(text: &str, mark: &str, open: &str, close: &str) -> String {
    let pieces: Vec<&str> = text.split(mark).collect();
    let mut out = String::with_capacity(text.len() + 16);
    for (index, piece) in pieces.iter().enumerate() {
        if index > 0 {
            let lonely = index == pieces.len() - 1 && index % 2 == 1;
            out.push_str(if lonely {
                mark
            } else if index % 2 == 1 {
                open
            } else {
                close
            });
        }
        out.push_str(piece);
    }
    out
}

fn links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        let parsed = rest[start..].find("](").and_then(|middle| {
            let target_at = start + middle + 2;
            let end = rest[target_at..].find(')')?;
            Some((start + middle, target_at, target_at + end))
        });
        let Some((label_end, target_at, end)) = parsed else { break };
        out.push_str(&rest[..start]);
        let _ = write!(out, "<a href=\"{}\">{}</a>", &rest[target_at..end], &rest[start + 1..label_end]);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    out
}

use super::chart::escape;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_become_tags_and_nothing_else_does() {
        assert_eq!(
            inline("a `b<c` **d** [e](f/g.json)"),
            "a <code>b&lt;c</code> <strong>d</strong> <a href=\"f/g.json\">e</a>"
        );
        assert_eq!(inline("2 * 3 [x] <script>"), "2 * 3 [x] &lt;script&gt;");
        assert_eq!(inline("*a* **b**"), "<em>a</em> <strong>b</strong>");
    }
}
