//! The headline chart and the decision table in a README, so that nobody copies figures by hand.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::campaign::{Loaded, write_whole};
use crate::report::{Rendered, render};

const BEGIN: &str = "<!-- results:begin -->";
const END: &str = "<!-- results:end -->";
const OBSERVED_BEGIN: &str = "<!-- observed:begin -->";
const OBSERVED_END: &str = "<!-- observed:end -->";
/// The figure that answers at a glance.
const HEADLINE: &str = "headline";

/// Puts the answer of the report in `folder` between the markers of `readme`.
///
/// # Errors
/// A file without the markers, a report that doesn't lie below the file's folder, no decision to show.
pub(super) fn update(readme: &Path, folder: &Path, loaded: &Loaded) -> Result<()> {
    let text = fs::read_to_string(readme).with_context(|| format!("cannot read {}", readme.display()))?;
    let whole =
        |path: &Path| fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()));
    let base = whole(readme)?;
    let base = base.parent().unwrap_or(Path::new("/"));
    let target = whole(folder)?;
    let link = target.strip_prefix(base).ok().with_context(|| {
        format!("{} does not lie below {}, so no link leads there", target.display(), base.display())
    })?;
    let rendered = render(&loaded.records, &loaded.paths, &loaded.failures);
    let answer = answer(&rendered, &link.to_string_lossy())?;
    let updated =
        between(&text, &answer, BEGIN, END).with_context(|| format!("cannot update {}", readme.display()))?;
    Ok(write_whole(readme, updated.as_bytes())?)
}

fn answer(rendered: &Rendered, link: &str) -> Result<String> {
    ensure!(
        rendered.figures.iter().any(|(name, _)| name == HEADLINE),
        "the report has no headline chart: no valid run of a comparison without faults"
    );
    Ok(format!(
        "[![Delivery latency p99 by job and strategy]({link}/figures/{HEADLINE}.svg)]({link}/REPORT.md)\n\n\
         Delivery p99 in milliseconds on a logarithmic axis, from the intended send to each member: median over runs with whiskers; further \
         left is better. Dashed: the job's target. Hollow: a promise was broken, so not ranked. `memory` is one node, the reference.\n\n{}{}\n{} \
         [Report]({link}/REPORT.md) · [as one page]({link}/report.html)\n",
        rendered.note.as_ref().map_or_else(String::new, |note| format!("> {note}\n\n")),
        rendered.decision_table,
        rendered.lead
    ))
}

/// Puts the fault matrix, and declared beside observed, between the markers of a document about guarantees.
///
/// # Errors
/// A file without the markers, records without faults.
pub(super) fn update_guarantees(document: &Path, loaded: &Loaded) -> Result<()> {
    let text = fs::read_to_string(document).with_context(|| format!("cannot read {}", document.display()))?;
    let rendered = render(&loaded.records, &loaded.paths, &loaded.failures);
    ensure!(
        !rendered.fault_matrix.is_empty(),
        "no record of a fault under which clients recover (`loadgen compare --faults`)"
    );
    let commits: BTreeSet<&str> =
        loaded.records.iter().map(|record| record.setting.tool.commit.as_str()).collect();
    let began = loaded.records.iter().map(|record| record.started_at.as_str()).min().unwrap_or_default();
    let content = format!(
        "Campaign of {began}, {} runs, commit {}{}. {}\n",
        loaded.records.len(),
        commits.into_iter().collect::<Vec<_>>().join(", "),
        if loaded.records.iter().any(|record| record.setting.tool.dirty) {
            ", with uncommitted changes"
        } else {
            ""
        },
        rendered.fault_matrix.trim_end()
    );
    let updated = between(&text, &content, OBSERVED_BEGIN, OBSERVED_END)
        .with_context(|| format!("cannot update {}", document.display()))?;
    Ok(write_whole(document, updated.as_bytes())?)
}

/// Replaces what stands between the markers, which stay.
pub(super) fn between(text: &str, content: &str, begin: &str, end: &str) -> Result<String> {
    let once = |marker: &str| text.matches(marker).count() == 1;
    ensure!(once(begin) && once(end), "it needs the markers {begin} and {end}, each once");
    let (before, rest) = text.split_once(begin).context("no begin")?;
    let (_, after) = rest.split_once(end).with_context(|| format!("{end} stands before {begin}"))?;
    Ok(format!("{before}{begin}\n{content}{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::campaign;

    fn loaded() -> Loaded {
        Loaded { records: campaign(2), ..Loaded::default() }
    }

    #[test]
    fn the_answer_lands_between_the_markers_and_nothing_else_changes() {
        let folder = tempfile::tempdir().unwrap();
        let (readme, results) = (folder.path().join("README.md"), folder.path().join("results/full"));
        fs::create_dir_all(&results).unwrap();
        fs::write(&readme, format!("# Title\n\n{BEGIN}\nold figures\n{END}\n\n## Rest\n")).unwrap();
        update(&readme, &results, &loaded()).unwrap();
        let once = fs::read_to_string(&readme).unwrap();
        assert!(once.starts_with("# Title\n\n<!-- results:begin -->\n[!["), "{once}");
        assert!(once.ends_with("<!-- results:end -->\n\n## Rest\n") && !once.contains("old figures"));
        assert!(once.contains("(results/full/figures/headline.svg)") && once.contains("| Job | Strategy |"));
        update(&readme, &results, &loaded()).unwrap();
        assert_eq!(fs::read_to_string(&readme).unwrap(), once, "twice is once");
    }

    #[test]
    fn what_cannot_be_updated_is_left_alone_and_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let readme = folder.path().join("README.md");
        let refusal = |text: &str, results: &Path| {
            fs::write(&readme, text).unwrap();
            let error = format!("{:#}", update(&readme, results, &loaded()).unwrap_err());
            assert_eq!(fs::read_to_string(&readme).unwrap(), text);
            error
        };
        assert!(refusal("no markers", folder.path()).contains("needs the markers"));
        assert!(refusal(&format!("{END} {BEGIN}"), folder.path()).contains("stands before"));
        assert!(refusal(&format!("{BEGIN}{END}"), elsewhere.path()).contains("does not lie below"));
    }
}
