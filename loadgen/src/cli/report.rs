//! `report`, `diff`, `list`: what needs no servers.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Result, ensure};
use manifold_compose::STRATEGIES;

use super::Outcome;
use super::arguments::{DiffArguments, Format, ReportArguments};
use super::output::write_report;
use crate::campaign::{Loaded, Store, StoreError, style};
use crate::diff::{describe, diff as compare};
use crate::scenario::{SHIPPED, Scenario};

pub(super) fn execute(arguments: &ReportArguments) -> Result<Outcome> {
    let target = arguments.output.as_ref().unwrap_or(&arguments.folders[0]);
    let loaded = load(&arguments.folders, target)?;
    write_report(target, &loaded)?;
    outln!("{}", target.join("REPORT.md").display());
    outln!("{}", target.join("report.html").display());
    Ok(Outcome::Pass)
}

/// Reads several folders; paths become relative to where the report goes, where that is possible.
pub(super) fn load(folders: &[impl AsRef<Path>], target: &Path) -> Result<Loaded> {
    let mut all = Loaded::default();
    for folder in folders.iter().map(AsRef::as_ref) {
        let mut loaded = Store::new(folder).load()?;
        if folder != target {
            let prefix = folder.strip_prefix(target).unwrap_or(folder);
            loaded.paths = loaded.paths.iter().map(|path| prefix.join(path).display().to_string()).collect();
        }
        if loaded.records.is_empty() {
            return Err(StoreError::Empty(folder.display().to_string()).into());
        }
        all.records.extend(loaded.records);
        all.paths.extend(loaded.paths);
        all.failures.extend(loaded.failures);
    }
    Ok(all)
}

pub(super) fn diff(arguments: &DiffArguments) -> Result<Outcome> {
    let side = |folder: &Path| -> Result<_> { Ok(load(&[folder], folder)?.records) };
    let found = compare(&side(&arguments.before)?, &side(&arguments.after)?, arguments.threshold);
    match arguments.output_format {
        Format::Json => outln!("{}", serde_json::to_string_pretty(&found)?),
        Format::Text => {
            out!("{}", describe(&found, arguments.threshold, style(std::io::stdout().is_terminal())));
        }
    }
    ensure!(
        arguments.force || found.obstacles.is_empty(),
        "scenario or environment differ as named above: the figures say nothing about each other (--force compares nevertheless)"
    );
    Ok(if found.regressed() { Outcome::Failed } else { Outcome::Pass })
}

pub(super) fn list() -> Result<Outcome> {
    outln!("Scenarios (loadgen run NAME, loadgen compare --scenario NAME; or a TOML file):");
    for (name, text) in SHIPPED {
        outln!("  {name:<18} {}", Scenario::parse(name, text, &[])?.stands_for);
    }
    outln!("\nStrategies (loadgen compare --strategy NAME, options as 'NAME key=value'):");
    for strategy in STRATEGIES {
        let needs = match (strategy.kafka, strategy.redis) {
            (true, true) => "Kafka and Redis",
            (true, false) => "Kafka",
            (false, true) => "Redis",
            (false, false) => "nothing: one node, the floor",
        };
        outln!("  {:<18} needs {needs}", strategy.name);
    }
    Ok(Outcome::Pass)
}
