//! Two result folders side by side: what got worse, beyond a threshold and beyond chance.
//!
//! A comparison is refused where scenario or environment differ, unless the person insists; what differs is said either way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use crate::record::{Role, RunRecord};
use crate::report::Style;
use crate::report::gather::{cpu_us_per_delivery_served, delivery_ms_p99, quantile_ms};
use crate::report::text::{count, ms, ratio, us};
use crate::stats::{BLOCKS_MIN, Difference, compare_unpaired, correct, median};

/// What two folders come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Diff {
    /// What differs in scenario or environment: reasons not to compare.
    pub obstacles: Vec<String>,
    /// One per contender, scenario and figure that both sides have.
    pub lines: Vec<Line>,
    /// Cells that have a valid run before and none after: what became of them is not known.
    pub only_before: Vec<String>,
    /// Cells that are new.
    pub only_after: Vec<String>,
}

/// One figure, before and after.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// Scenario name.
    pub scenario: String,
    /// Strategy with options.
    pub label: String,
    /// Which figure.
    pub figure: &'static str,
    /// Median before, in words.
    pub before: String,
    /// Median after, in words.
    pub after: String,
    /// After ÷ before with interval and p; absent for counts.
    pub difference: Option<Difference>,
    /// What follows.
    pub verdict: Change,
}

/// What follows from a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Worse, beyond threshold and chance.
    Regression,
    /// Better, beyond threshold and chance.
    Improvement,
    /// Beyond the threshold, in all of too few runs.
    Likely,
    /// Within the threshold or within chance.
    Same,
}

impl Diff {
    /// Whether anything got significantly worse.
    pub fn regressed(&self) -> bool {
        self.lines.iter().any(|line| line.verdict == Change::Regression)
    }

    /// Whether something that was there before has nothing to be compared with, or nothing was compared at all.
    pub fn is_inconclusive(&self) -> bool {
        !self.only_before.is_empty() || self.lines.is_empty()
    }
}

type Pick = fn(&RunRecord) -> Option<f64>;
type Unit = fn(f64) -> String;
type Groups<'a> = BTreeMap<(String, String), Vec<&'a RunRecord>>;

const FIGURES: [(&str, Pick, Unit); 3] = [
    ("delivery p50", |run| quantile_ms(run, 0.5), ms),
    ("delivery p99", delivery_ms_p99, ms),
    ("CPU per delivery", cpu_us_per_delivery_served, us),
];

/// Compares `after` with `before`; changes within `threshold` (a share, 0.1 = 10 %) are no regressions.
pub fn diff(before: &[RunRecord], after: &[RunRecord], threshold: f64) -> Diff {
    let (old, new) = (groups(before), groups(after));
    let mut lines = Vec::new();
    let mut family = Vec::new();
    let mut obstacles = environment_obstacles(before, after);
    for (key, old_runs) in &old {
        let Some(new_runs) = new.get(key) else { continue };
        obstacles.extend(cell_obstacles(key, old_runs, new_runs));
        for (figure, pick, unit) in FIGURES {
            let values = |runs: &[&RunRecord]| runs.iter().filter_map(|run| pick(run)).collect::<Vec<f64>>();
            let (was, is) = (values(old_runs), values(new_runs));
            let (Some(was_median), Some(is_median)) = (median(&was), median(&is)) else { continue };
            let difference = compare_unpaired(&was, &is);
            family.extend(difference.clone());
            lines.push(Line {
                scenario: key.0.clone(),
                label: key.1.clone(),
                figure,
                before: unit(was_median),
                after: unit(is_median),
                difference,
                verdict: Change::Same,
            });
        }
        lines.push(losses(key, old_runs, new_runs));
    }
    correct(&mut family);
    let mut corrected = family.into_iter();
    for line in lines.iter_mut().filter(|line| line.difference.is_some()) {
        line.difference = corrected.next();
        line.verdict =
            line.difference.as_ref().map_or(Change::Same, |difference| change(difference, threshold));
    }
    let keys = |groups: &Groups<'_>| groups.keys().cloned().collect::<BTreeSet<_>>();
    let missing = |from: &Groups<'_>, to: &Groups<'_>| {
        let (from, to) = (keys(from), keys(to));
        from.difference(&to).map(|(scenario, label)| format!("{label} in {scenario}")).collect()
    };
    let (only_before, only_after) = (missing(&old, &new), missing(&new, &old));
    Diff { obstacles, lines, only_before, only_after }
}

fn groups(records: &[RunRecord]) -> Groups<'_> {
    let mut groups = Groups::new();
    let compared =
        |record: &&RunRecord| record.validity.valid && matches!(record.role, Role::Comparison | Role::Single);
    for record in records.iter().filter(compared) {
        let key = (record.scenario.name.clone(), record.contender.label.clone());
        groups.entry(key).or_default().push(record);
    }
    groups
}

fn change(difference: &Difference, threshold: f64) -> Change {
    let beyond =
        difference.ratio.median > 1.0 + threshold || difference.ratio.median < 1.0 / (1.0 + threshold);
    match difference.call {
        call if !beyond || !(call.is_larger() || call.is_smaller()) => Change::Same,
        call if !call.is_firm() => Change::Likely,
        call if call.is_larger() => Change::Regression,
        _ => Change::Improvement,
    }
}

/// Losses need no statistics: the audit is exact, and a loss where there was none is one too many.
fn losses(key: &(String, String), before: &[&RunRecord], after: &[&RunRecord]) -> Line {
    let wrong = |runs: &[&RunRecord]| -> u64 {
        let audits = runs.iter().map(|run| &run.measured.audit);
        audits.map(|audit| audit.lost() + audit.duplicates + audit.reordered + audit.leaked).sum()
    };
    let broken = |runs: &[&RunRecord]| runs.iter().any(|run| !run.verdict.kept);
    let verdict = match (broken(before), broken(after)) {
        (false, true) => Change::Regression,
        (true, false) => Change::Improvement,
        _ => Change::Same,
    };
    Line {
        scenario: key.0.clone(),
        label: key.1.clone(),
        figure: "lost, repeated, reordered or leaked",
        before: count(wrong(before)),
        after: count(wrong(after)),
        difference: None,
        verdict,
    }
}

fn environment_obstacles(before: &[RunRecord], after: &[RunRecord]) -> Vec<String> {
    let (Some(old), Some(new)) = (before.first(), after.first()) else {
        return vec!["one side has no records".to_owned()];
    };
    let (a, b) = (&old.setting.hardware, &new.setting.hardware);
    let mut obstacles = Vec::new();
    let mut check = |what: &str, was: &str, is: &str| {
        if was != is {
            obstacles.push(format!("{what}: {was} before, {is} after"));
        }
    };
    check("CPU", &a.cpu, &b.cpu);
    check("cores", &a.cores.to_string(), &b.cores.to_string());
    check("memory", &format!("{} GiB", a.memory_bytes >> 30), &format!("{} GiB", b.memory_bytes >> 30));
    check("kernel", &a.kernel, &b.kernel);
    check("build", &old.setting.tool.profile, &new.setting.tool.profile);
    obstacles
}

fn cell_obstacles(key: &(String, String), before: &[&RunRecord], after: &[&RunRecord]) -> Vec<String> {
    let (old, new) = (before[0], after[0]);
    let who = format!("{} in {}", key.1, key.0);
    let mut obstacles = Vec::new();
    if old.scenario.digest != new.scenario.digest {
        let keys = differing(&old.scenario.parameters, &new.scenario.parameters, "");
        obstacles.push(format!("{who}: the scenario differs in {}", keys.join(", ")));
    }
    if old.contender.nodes != new.contender.nodes {
        obstacles.push(format!("{who}: {} nodes before, {} after", old.contender.nodes, new.contender.nodes));
    }
    let versions = |run: &RunRecord| -> BTreeSet<String> {
        run.setting.brokers.iter().map(|broker| format!("{} {}", broker.name, broker.version)).collect()
    };
    if versions(old) != versions(new) {
        obstacles.push(format!(
            "{who}: other brokers ({:?} before, {:?} after)",
            versions(old),
            versions(new)
        ));
    }
    obstacles
}

/// Paths at which two JSON values differ.
fn differing(a: &serde_json::Value, b: &serde_json::Value, path: &str) -> Vec<String> {
    match (a.as_object(), b.as_object()) {
        (Some(a), Some(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let null = serde_json::Value::Null;
            let inner = |key: &&String| {
                let path = if path.is_empty() { (*key).clone() } else { format!("{path}.{key}") };
                differing(a.get(*key).unwrap_or(&null), b.get(*key).unwrap_or(&null), &path)
            };
            keys.iter().flat_map(inner).collect()
        }
        _ if a == b => Vec::new(),
        _ => vec![format!("`{path}` ({a} before, {b} after)")],
    }
}

/// The comparison in words.
pub fn describe(diff: &Diff, threshold: f64, style: Style) -> String {
    let mut out = String::new();
    for obstacle in &diff.obstacles {
        let _ = writeln!(out, "{} {obstacle}", style.paint("33", "differs:"));
    }
    let mut cell = ("", "");
    for line in &diff.lines {
        if cell != (line.scenario.as_str(), line.label.as_str()) {
            cell = (&line.scenario, &line.label);
            let _ = writeln!(out, "\n{}  {}", style.paint("1", &line.label), line.scenario);
        }
        let detail = line.difference.as_ref().map_or(String::new(), |difference| {
            format!(
                "{} ({}–{}), p {:.3}",
                ratio(difference.ratio.median),
                ratio(difference.ratio.low),
                ratio(difference.ratio.high),
                difference.p
            )
        });
        let verdict = match line.verdict {
            Change::Regression => style.paint("31", "REGRESSION"),
            Change::Improvement => style.paint("32", "improvement"),
            Change::Likely => style.paint(
                "33",
                &format!("differs in every run, but fewer than {BLOCKS_MIN} runs prove nothing"),
            ),
            Change::Same => "same".to_owned(),
        };
        let _ = writeln!(
            out,
            "  {:<36} {:>12} → {:<12} {detail:<34} {verdict}",
            line.figure, line.before, line.after
        );
    }
    for cell in &diff.only_before {
        let _ = writeln!(out, "{} {cell}", style.paint("33", "no valid run after:"));
    }
    for cell in &diff.only_after {
        let _ = writeln!(out, "no valid run before: {cell}");
    }
    let found = match () {
        () if diff.regressed() => "regressions",
        () if diff.lines.is_empty() => "nothing could be compared: inconclusive",
        () if diff.is_inconclusive() => {
            "inconclusive: not everything could be compared; in the rest no significant regression"
        }
        () => "no significant regression",
    };
    let _ = writeln!(out, "\n{found} beyond {:.0} %", threshold * 100.0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample::Sample;

    fn runs(blocks: u32, p50_ms: f64) -> Vec<RunRecord> {
        (1..=blocks).map(|block| Sample::new("hybrid", "small-rooms", block, p50_ms).record()).collect()
    }

    #[test]
    fn twice_the_latency_is_a_regression_and_half_an_improvement() {
        let slower = diff(&runs(5, 0.3), &runs(5, 0.6), 0.1);
        assert!(slower.regressed() && slower.obstacles.is_empty(), "{slower:?}");
        let faster = diff(&runs(5, 0.6), &runs(5, 0.3), 0.1);
        assert!(!faster.regressed());
        assert!(faster.lines.iter().any(|line| line.verdict == Change::Improvement));
        assert!(describe(&slower, 0.1, Style { colour: false }).contains("REGRESSION"));
    }

    #[test]
    fn what_lies_within_the_threshold_or_chance_is_the_same() {
        assert!(!diff(&runs(5, 0.3), &runs(5, 0.6), 2.0).regressed());
        assert!(!diff(&runs(5, 0.3), &runs(5, 0.3), 0.0).regressed());
        let few = diff(&runs(2, 0.3), &runs(2, 0.6), 0.1);
        assert!(!few.regressed() && few.lines.iter().any(|line| line.verdict == Change::Likely));
    }

    #[test]
    fn what_differs_is_an_obstacle_and_is_named() {
        let mut other = runs(5, 0.3);
        for record in &mut other {
            record.setting.hardware.kernel = "7.0".into();
            record.scenario.digest = "another".into();
            record.scenario.parameters = serde_json::json!({ "rooms": { "count": 100 } });
        }
        let obstacles = diff(&runs(5, 0.3), &other, 0.1).obstacles;
        assert!(obstacles.iter().any(|obstacle| obstacle.contains("kernel: 6.1.0 before, 7.0 after")));
        assert!(obstacles.iter().any(|obstacle| obstacle.contains("`rooms.count` (200 before, 100 after)")));
        assert!(!diff(&runs(1, 0.3), &[], 0.1).obstacles.is_empty());
    }

    #[test]
    fn what_has_no_valid_run_any_more_is_inconclusive() {
        let other = || (1..=5).map(|block| Sample::new("kafka-keyed", "small-rooms", block, 0.6).record());
        let before: Vec<RunRecord> = runs(5, 0.3).into_iter().chain(other()).collect();
        let gone = diff(&before, &runs(5, 0.3), 0.1);
        assert_eq!((gone.is_inconclusive(), gone.regressed()), (true, false));
        assert_eq!(gone.only_before, ["kafka-keyed in small-rooms"]);
        let mut after = before.clone();
        for record in after.iter_mut().filter(|record| record.contender.label == "kafka-keyed") {
            record.validity.valid = false;
        }
        let invalid = diff(&before, &after, 0.1);
        assert!(invalid.is_inconclusive());
        assert!(describe(&invalid, 0.1, Style { colour: false }).contains("no valid run after: kafka-keyed"));
        let more = diff(&runs(5, 0.3), &before, 0.1);
        assert!(!more.is_inconclusive() && more.only_after.len() == 1, "what is new is no gap");
    }

    #[test]
    fn a_promise_newly_broken_needs_no_statistics() {
        let mut lossy = runs(1, 0.3);
        lossy[0] = Sample { lost: 3, ..Sample::new("hybrid", "small-rooms", 1, 0.3) }.record();
        assert!(diff(&runs(1, 0.3), &lossy, 0.1).regressed());
        assert!(!diff(&lossy, &runs(1, 0.3), 0.1).regressed());
    }
}
