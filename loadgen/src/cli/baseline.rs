//! Results kept under a name, to compare later ones with.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use super::Outcome;
use super::arguments::BaselineArguments;
use crate::campaign::{Store, style};
use crate::diff::{describe, diff};
use crate::record::RunRecord;

/// Where kept results lie, below the present folder.
const FOLDER: &str = "results/.work/baselines";
/// Threshold when none is given.
const THRESHOLD: f64 = 0.1;

impl BaselineArguments {
    /// Keeps `records` if asked to, and compares them with a baseline if asked to.
    pub(super) fn apply(&self, records: &[RunRecord], outcome: Outcome) -> Result<Outcome> {
        let judged =
            self.baseline.as_deref().map_or(Ok(outcome), |name| self.compare(name, records, outcome))?;
        if let Some(name) = &self.save_baseline {
            ensure!(
                !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\']),
                "`{name}` is no name for a baseline: it becomes a folder"
            );
            let store = Store::new(Path::new(FOLDER).join(name));
            if store.root().exists() {
                std::fs::remove_dir_all(store.root())?;
            }
            for (index, record) in records.iter().enumerate() {
                store.save(Path::new(&format!("{index:04}")), record)?;
            }
            eprintln!("kept as baseline `{name}`");
        }
        Ok(judged)
    }

    fn compare(&self, name: &str, records: &[RunRecord], outcome: Outcome) -> Result<Outcome> {
        let kept = Path::new(FOLDER).join(name);
        let folder = if kept.is_dir() { kept } else { PathBuf::from(name) };
        let before = Store::new(&folder).load()?.records;
        ensure!(!before.is_empty(), "no baseline `{name}`: neither kept under that name nor a result folder");
        let threshold = self.fail_on_regression.unwrap_or(THRESHOLD);
        let found = diff(&before, records, threshold);
        eprint!("{}", describe(&found, threshold, style(std::io::stderr().is_terminal())));
        ensure!(
            found.obstacles.is_empty(),
            "the baseline differs in what is named above: not compared (`loadgen diff --force` compares nevertheless)"
        );
        Ok(match outcome {
            _ if self.fail_on_regression.is_some() && found.regressed() => Outcome::Failed,
            Outcome::Pass if self.fail_on_regression.is_some() && found.is_inconclusive() => {
                Outcome::Inconclusive
            }
            other => other,
        })
    }
}
