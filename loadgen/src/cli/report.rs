//! `report`, `diff`, `list`: what needs no servers.

use std::io::IsTerminal;
use std::path::Path;

use anyhow::{Result, ensure};
use manifold_compose::STRATEGIES;

use super::Outcome;
use super::arguments::{DiffArguments, Format, ReportArguments};
use super::output::write_report;
use super::{readme, soak};
use crate::campaign::{Loaded, Store, StoreError, style};
use crate::diff::{describe, diff as compare};
use crate::report::gather::mixtures;
use crate::scenario::{Scenario, shipped};

pub(super) fn execute(arguments: &ReportArguments) -> Result<Outcome> {
    if let [folder] = arguments.folders.as_slice()
        && soak::render(folder)?
    {
        return Ok(Outcome::Pass);
    }
    let target = arguments.output.as_ref().unwrap_or(&arguments.folders[0]);
    let loaded = load(&arguments.folders, target)?;
    write_report(target, &loaded)?;
    if let Some(readme) = &arguments.readme {
        readme::update(readme, target, &loaded)?;
        outln!("{}", readme.display());
    }
    if let Some(document) = &arguments.guarantees {
        readme::update_guarantees(document, &loaded)?;
        outln!("{}", document.display());
    }
    outln!("{}", target.join("REPORT.md").display());
    outln!("{}", target.join("report.html").display());
    Ok(Outcome::Pass)
}

/// Reads several folders; paths become relative to where the report goes, where that is possible. Refuses runs of
/// several builds, or of one scenario under different loads.
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
    let mixtures = mixtures(&all.records);
    ensure!(
        mixtures.is_empty(),
        "these runs are not of one kind, and a table over them would compare what is not comparable: {}. Name one campaign's folder",
        mixtures.join("; ")
    );
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
    Ok(match () {
        () if found.regressed() => Outcome::Failed,
        () if found.is_inconclusive() => Outcome::Inconclusive,
        () => Outcome::Pass,
    })
}

pub(super) fn list() -> Result<Outcome> {
    outln!("Scenarios (loadgen run NAME, loadgen compare --scenario NAME; or a TOML file):");
    for (name, text) in shipped() {
        outln!("  {name:<20} {}", Scenario::parse(name, text, &[])?.stands_for);
    }
    outln!("\nStrategies (loadgen compare --strategy NAME, options as 'NAME key=value'):");
    for strategy in STRATEGIES {
        let needs = match (strategy.kafka, strategy.redis) {
            (true, true) => "Kafka and Redis",
            (true, false) => "Kafka",
            (false, true) => "Redis",
            (false, false) => "nothing: one node, the floor",
        };
        outln!("  {:<20} needs {needs}", strategy.name);
    }
    Ok(Outcome::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RunRecord;
    use crate::report::sample::Sample;

    fn folder(change: impl Fn(&mut RunRecord)) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        for block in 1..=2 {
            let mut record = Sample::new("hybrid", "small-rooms", block, 0.3).record();
            if block == 2 {
                change(&mut record);
            }
            store.save(Path::new(&record.cell), &record).unwrap();
        }
        folder
    }

    #[test]
    fn runs_of_several_builds_or_loads_are_not_one_report() {
        let refusal = |change: fn(&mut RunRecord)| {
            let folder = folder(change);
            load(&[folder.path()], folder.path()).unwrap_err().to_string()
        };
        let builds = refusal(|record| record.contender.commit = "another".into());
        assert!(builds.contains("several builds") && builds.contains("another"), "{builds}");
        assert!(refusal(|record| record.setting.tool.build = "fedc".into()).contains("fedc"));
        let loads = refusal(|record| record.scenario.digest = "another".into());
        assert!(loads.contains("scenario small-rooms with 2 loads"), "{loads}");
        // The checkout may move on while a campaign runs: the programs don't.
        let folder = folder(|record| record.setting.tool.commit = "a later one".into());
        assert_eq!(load(&[folder.path()], folder.path()).unwrap().records.len(), 2);
    }
}
