//! Writes reports to their folder, and says where they are.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::Path;

use anyhow::Result;

use super::Outcome;
use crate::campaign::{Loaded, Show, Store, style, write_whole};
use crate::record::{Role, RunRecord};
use crate::report::{render, terminal};

use super::arguments::{Format, OutputArguments};

impl OutputArguments {
    /// How progress is shown.
    pub(super) fn show(&self) -> Show {
        Show::choose(self.output_format == Format::Json, self.quiet, self.no_tui)
    }
}

/// Writes `REPORT.md`, `report.html` and the figures beside them.
pub(super) fn write_report(folder: &Path, loaded: &Loaded) -> Result<()> {
    let rendered = render(&loaded.records, &loaded.paths, &loaded.failures);
    write_whole(&folder.join("REPORT.md"), rendered.markdown.as_bytes())?;
    write_whole(&folder.join("report.html"), rendered.html.as_bytes())?;
    write_whole(&folder.join("decision-table.md"), rendered.decision_table.as_bytes())?;
    if !rendered.fault_matrix.is_empty() {
        write_whole(&folder.join("fault-matrix.md"), rendered.fault_matrix.as_bytes())?;
    }
    for (name, svg) in &rendered.figures {
        write_whole(&folder.join("figures").join(format!("{name}.svg")), svg.as_bytes())?;
    }
    Ok(())
}

/// Renders what a campaign left in its folder, prints the table, and judges the whole. Other campaigns' runs in the same
/// folder are none of it.
pub(super) fn conclude(
    store: &Store,
    campaign: &str,
    cells: &BTreeSet<String>,
    show: Show,
) -> Result<(Loaded, Outcome)> {
    let loaded = store.load()?.of_campaign(campaign, cells);
    write_report(store.root(), &loaded)?;
    if matches!(show, Show::Line | Show::Log | Show::Quiet) {
        outln!("{}", terminal(&loaded.records, &loaded.failures, style(std::io::stdout().is_terminal())));
        outln!("report: {}", store.root().join("report.html").display());
        outln!("        {}", store.root().join("REPORT.md").display());
    }
    let outcome = judge(&loaded);
    Ok((loaded, outcome))
}

/// What an exit code other than 0 means, as the last line: whoever runs this from a script sees little more than a number.
pub(super) fn last_word(outcome: Outcome) {
    let text = match outcome {
        Outcome::Pass | Outcome::Error => return,
        Outcome::Inconclusive => {
            "exit code 2: inconclusive, not broken. The report is written; some contender has no valid run, mostly because the machine was busy \
             with something else (see “Validity” in it). Run it again on a quiet machine (with -o: into another folder)"
        }
        Outcome::Failed => {
            "exit code 99: a promise was broken or a threshold exceeded. The report is written and names it"
        }
    };
    eprintln!("{text}");
}

/// 99 when a contender broke a promise, or when nothing but counter-examples ran; 2 when some contender has no valid run.
fn judge(loaded: &Loaded) -> Outcome {
    let ranked: Vec<&RunRecord> = loaded
        .records
        .iter()
        .filter(|record| matches!(record.role, Role::Comparison | Role::Single))
        .collect();
    let broken = |record: &&&RunRecord| !record.verdict.kept;
    let contenders: Vec<&&RunRecord> =
        ranked.iter().filter(|record| !record.contender.counter_example).collect();
    let concerned = if contenders.is_empty() { ranked.iter().collect() } else { contenders };
    let lacking = |record: &&&RunRecord| {
        let same = |other: &&&RunRecord| {
            other.scenario.name == record.scenario.name && other.contender.label == record.contender.label
        };
        !ranked.iter().any(|other| same(&other) && other.validity.valid)
    };
    match () {
        () if concerned.iter().any(broken) => Outcome::Failed,
        () if concerned.is_empty() || !loaded.failures.is_empty() => Outcome::Inconclusive,
        () if concerned.iter().any(lacking) => Outcome::Inconclusive,
        () => Outcome::Pass,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::Failure;
    use crate::report::sample::{Sample, campaign};

    fn loaded(records: Vec<RunRecord>) -> Loaded {
        Loaded { records, ..Loaded::default() }
    }

    #[test]
    fn a_counter_example_fails_as_declared_beside_others_and_loudly_alone() {
        let all = campaign(1);
        assert_eq!(judge(&loaded(all)), Outcome::Pass);
        let alone = Sample { lost: 10, ..Sample::new("kafka-shared-group", "small-rooms", 1, 0.5) }.record();
        assert_eq!(judge(&loaded(vec![alone])), Outcome::Failed);
    }

    #[test]
    fn a_broken_promise_fails_and_an_invalid_or_failed_run_is_inconclusive() {
        let lossy = Sample { lost: 10, ..Sample::new("hybrid", "small-rooms", 1, 0.5) }.record();
        assert_eq!(judge(&loaded(vec![lossy])), Outcome::Failed);
        let mut invalid = Sample::new("hybrid", "small-rooms", 1, 0.5).record();
        invalid.validity.valid = false;
        assert_eq!(judge(&loaded(vec![invalid.clone()])), Outcome::Inconclusive);
        let valid = Sample::new("hybrid", "small-rooms", 2, 0.5).record();
        assert_eq!(judge(&loaded(vec![invalid, valid.clone()])), Outcome::Pass);
        let failure = Failure {
            cell: String::new(),
            campaign: String::new(),
            role: Role::Comparison,
            ranked: true,
            scenario: "s".into(),
            stands_for: "f".into(),
            label: "l".into(),
            block: 1,
            error: "e".into(),
        };
        assert_eq!(judge(&Loaded { failures: vec![failure], ..loaded(vec![valid]) }), Outcome::Inconclusive);
        assert_eq!(judge(&Loaded::default()), Outcome::Inconclusive);
    }

    #[test]
    fn the_report_of_a_folder_lands_beside_its_records() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        for record in campaign(1) {
            store.save(Path::new(&record.cell), &record).unwrap();
        }
        let mut foreign = Sample::new("hybrid", "skewed", 1, 0.3).record();
        foreign.campaign = "an earlier one".into();
        store.save(Path::new("elsewhere"), &foreign).unwrap();
        let (loaded, _) = conclude(&store, "sample", &BTreeSet::new(), Show::Json).unwrap();
        assert_eq!(loaded.records.len(), campaign(1).len(), "another campaign's runs are none of this one");
        for file in ["REPORT.md", "report.html", "figures/headline.svg", "decision-table.md"] {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }
}
