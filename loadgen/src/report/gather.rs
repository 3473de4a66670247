//! Records in, table out: one [`Cell`] per scenario and contender, with medians over runs and their intervals.
//!
//! Percentiles are taken per run and aggregated over runs; only the percentile plot pools samples.

use std::collections::{BTreeMap, BTreeSet};

use super::recovery::blows;
use crate::campaign::Failure;
use crate::record::{Amplification, Audit, ComponentKind, Histogram, Role, RunRecord};
use crate::stats::{Interval, median, median_interval};

/// All runs of one contender in one scenario.
#[derive(Debug, Clone)]
pub struct Cell<'a> {
    /// The contender, e.g. `kafka-keyed` or `kafka-keyed consume=demand`.
    pub label: String,
    /// Every run, valid or not, by block.
    pub runs: Vec<&'a RunRecord>,
}

/// All contenders in one scenario.
#[derive(Debug, Clone)]
pub struct ScenarioTable<'a> {
    /// Scenario name.
    pub name: String,
    /// The use that it stands for.
    pub stands_for: String,
    /// Limit for the 99th percentile of delivery, microseconds.
    pub target_us: u64,
    /// Contenders in the order of the registry that the records give: by label, floor first, counter-examples last.
    pub cells: Vec<Cell<'a>>,
    /// Contenders of the campaign that take part here and have no record: their runs could not be made, or not yet.
    pub absent: Vec<String>,
}

/// The comparison runs of a set of records, by scenario. `failures` are runs that could not be made.
pub fn tables<'a>(records: &'a [RunRecord], failures: &[Failure]) -> Vec<ScenarioTable<'a>> {
    let mut tables = by_scenario(records, Role::Comparison);
    for table in &mut tables {
        table.absent = absent(table, records, failures);
    }
    tables
}

/// Whoever is ranked anywhere in the campaign takes part everywhere, except where a fault strikes a broker that it
/// doesn't use.
fn absent(table: &ScenarioTable<'_>, records: &[RunRecord], failures: &[Failure]) -> Vec<String> {
    let ranked = |record: &&RunRecord| {
        record.role == Role::Comparison && !record.contender.floor && !record.contender.counter_example
    };
    let runs = || table.cells.iter().flat_map(|cell| &cell.runs);
    let takes_part = |record: &&RunRecord| {
        let marks = runs().flat_map(|run| &run.measured.faults);
        marks.filter_map(|mark| mark.fault.to.broker()).all(|kind| match kind {
            ComponentKind::Kafka => uses(record, "kafka"),
            _ => uses(record, "redis"),
        })
    };
    let expected = records.iter().filter(ranked).filter(takes_part).map(|record| &record.contender.label);
    let failed = failures.iter().filter(|failure| failure.is_ranked() && failure.scenario == table.name);
    let labels: BTreeSet<&String> = expected.chain(failed.map(|failure| &failure.label)).collect();
    labels.into_iter().filter(|label| table.cell(label).is_none()).cloned().collect()
}

fn uses(record: &RunRecord, broker: &str) -> bool {
    record.setting.brokers.iter().any(|used| used.name.starts_with(broker))
}

/// The runs of one role, by scenario and contender.
pub fn by_scenario(records: &[RunRecord], role: Role) -> Vec<ScenarioTable<'_>> {
    let mut scenarios: BTreeMap<&str, BTreeMap<(u8, &str), Vec<&RunRecord>>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.role == role) {
        let rank = match () {
            () if record.contender.floor => 0,
            () if record.contender.counter_example => 2,
            () => 1,
        };
        let key = (rank, record.contender.label.as_str());
        scenarios.entry(&record.scenario.name).or_default().entry(key).or_default().push(record);
    }
    let mut tables: Vec<_> = scenarios.into_iter().filter_map(|(name, cells)| table(name, cells)).collect();
    // Undisturbed scenarios first: they are what a reader looks for.
    tables.sort_by_key(|table| table.cells.iter().any(Cell::is_disturbed));
    tables
}

fn table<'a>(name: &str, cells: BTreeMap<(u8, &str), Vec<&'a RunRecord>>) -> Option<ScenarioTable<'a>> {
    let scenario = &cells.values().next()?.first()?.scenario;
    let (stands_for, target_us) = (scenario.stands_for.clone(), scenario.delivery_us_p99_target);
    let cells = cells
        .into_iter()
        .map(|((_, label), mut runs)| {
            runs.sort_by_key(|run| run.block);
            Cell { label: label.to_owned(), runs }
        })
        .collect();
    Some(ScenarioTable { name: name.to_owned(), stands_for, target_us, cells, absent: Vec::new() })
}

impl<'a> ScenarioTable<'a> {
    /// The cell of a contender.
    pub fn cell(&self, label: &str) -> Option<&Cell<'a>> {
        self.cells.iter().find(|cell| cell.label == label)
    }

    /// Cells that may be ranked at all: no floor, no counter-example.
    pub fn contenders(&self) -> impl Iterator<Item = &Cell<'a>> {
        self.cells.iter().filter(|cell| !cell.is_floor() && !cell.is_counter_example())
    }

    /// Whether something was done to the system under test.
    pub fn is_disturbed(&self) -> bool {
        self.cells.iter().any(Cell::is_disturbed)
    }
}

impl<'a> Cell<'a> {
    /// Runs that passed the validity gates.
    pub fn valid(&self) -> impl Iterator<Item = &'a RunRecord> + '_ {
        self.runs.iter().copied().filter(|run| run.validity.valid)
    }

    /// How many of them there are.
    pub fn valid_count(&self) -> usize {
        self.valid().count()
    }

    /// Whether it runs on fewer nodes than the others, as a floor.
    pub fn is_floor(&self) -> bool {
        self.runs.iter().any(|run| run.contender.floor)
    }

    /// Whether it exists to show a mistake.
    pub fn is_counter_example(&self) -> bool {
        self.runs.iter().any(|run| run.contender.counter_example)
    }

    /// Whether a fault struck one of its processes, or the scenario cut its clients off: their latencies then contain how
    /// long they waited before they came back.
    pub fn is_disturbed(&self) -> bool {
        self.runs.iter().any(|run| !blows(run).is_empty())
    }

    /// Whether every valid run kept every declared promise that it could test.
    pub fn kept(&self) -> bool {
        self.runs.iter().all(|run| run.verdict.kept || !run.validity.valid) && self.valid_count() > 0
    }

    /// Median and interval of a figure over the valid runs.
    pub fn interval(&self, figure: impl Fn(&RunRecord) -> Option<f64>) -> Option<Interval> {
        median_interval(&self.valid().filter_map(figure).collect::<Vec<_>>())
    }

    /// Median of a figure over the valid runs.
    pub fn median(&self, figure: impl Fn(&RunRecord) -> Option<f64>) -> Option<f64> {
        median(&self.valid().filter_map(figure).collect::<Vec<_>>())
    }

    /// The figures of blocks in which both have a valid run. Blocks of different campaigns have different seeds.
    pub fn pairs(&self, other: &Cell<'_>, figure: impl Fn(&RunRecord) -> Option<f64>) -> Vec<(f64, f64)> {
        self.valid()
            .filter_map(|run| {
                let twin = other.valid().find(|twin| (twin.block, twin.seed) == (run.block, run.seed))?;
                Some((figure(run)?, figure(twin)?))
            })
            .collect()
    }

    /// All samples of the valid runs in one histogram, for the percentile plot.
    pub fn pooled_delivery(&self) -> Histogram {
        let mut pooled = Histogram::new();
        for run in self.valid() {
            // Histograms of other bounds (another tool's record) can't be pooled and are left to their own run.
            let _ = pooled.add(&run.measured.latencies.delivery);
        }
        pooled
    }

    /// The audit's columns summed over all runs, valid or not: a loss in an overloaded run is a loss.
    pub fn audit(&self) -> Audit {
        let mut sum = Audit { conserved: true, ..Audit::default() };
        for audit in self.runs.iter().map(|run| &run.measured.audit) {
            sum.acknowledged += audit.acknowledged;
            sum.refused += audit.refused;
            sum.unknown += audit.unknown;
            sum.expected += audit.expected;
            sum.delivered += audit.delivered;
            sum.lost_declared += audit.lost_declared;
            sum.lost_silent += audit.lost_silent;
            sum.indeterminate += audit.indeterminate;
            sum.duplicates += audit.duplicates;
            sum.reordered += audit.reordered;
            sum.late_unknown += audit.late_unknown;
            sum.leaked += audit.leaked;
            sum.late += audit.late;
            sum.recovered += audit.recovered;
            sum.corrupt += audit.corrupt;
            sum.gaps_declared += audit.gaps_declared;
            sum.divergent_rooms += audit.divergent_rooms;
            sum.compared_rooms += audit.compared_rooms;
            sum.conserved &= audit.conserved;
        }
        sum
    }
}

/// What stands against reading these records as one campaign: builds or loads that differ. Empty where nothing does.
pub fn mixtures(records: &[RunRecord]) -> Vec<String> {
    let mut builds = BTreeSet::new();
    let mut loads: BTreeMap<(Role, &str), BTreeSet<&str>> = BTreeMap::new();
    for record in records {
        let (contender, tool, scenario) = (&record.contender, &record.setting.tool, &record.scenario);
        // Where the checkout stands says nothing: it moves on while a campaign runs. The null server says nothing either:
        // it is part of the load generator.
        if record.role != Role::Null {
            let (version, commit) = (&contender.version, &contender.commit);
            builds.insert(format!("chat-server {version} ({commit}) {} {}", tool.profile, tool.build));
        }
        // The steps of a search and of a knee differ in rate on purpose.
        if matches!(record.role, Role::Comparison | Role::Claim) {
            loads.entry((record.role, &scenario.name)).or_default().insert(&scenario.digest);
        }
    }
    let builds = (builds.len() > 1)
        .then(|| format!("several builds: {}", builds.into_iter().collect::<Vec<_>>().join(", ")));
    let differing = loads.into_iter().filter(|(_, digests)| digests.len() > 1);
    let loads = differing.map(|((_, name), digests)| format!("scenario {name} with {} loads", digests.len()));
    builds.into_iter().chain(loads).collect()
}

/// Samples that must lie beyond a percentile for it to be quoted.
pub const SAMPLES_BEYOND_MIN: f64 = 10.0;

/// A percentile in milliseconds, if enough samples lie beyond it.
pub fn reliable_ms(histogram: &Histogram, quantile: f64) -> Option<f64> {
    // A little slack: 1 − 0.999 is a little less than a thousandth.
    if histogram.count() as f64 * (1.0 - quantile) < SAMPLES_BEYOND_MIN - 1e-6 {
        return None;
    }
    histogram.quantile_us(quantile).map(|value_us| value_us as f64 / 1e3)
}

/// 99th percentile of delivery of a run, in milliseconds.
pub fn delivery_ms_p99(run: &RunRecord) -> Option<f64> {
    quantile_ms(run, 0.99)
}

/// A percentile of delivery of a run, in milliseconds; absent where too few samples lie beyond it.
pub fn quantile_ms(run: &RunRecord, quantile: f64) -> Option<f64> {
    reliable_ms(&run.measured.latencies.delivery, quantile)
}

/// CPU of a kind of component per delivery, in microseconds.
pub fn cpu_us_per_delivery(run: &RunRecord, kind: ComponentKind) -> Option<f64> {
    let deliveries = run.measured.load.delivered_per_s * run.measured.window_s;
    let known = run.cost.is_known(kind);
    (deliveries > 0.0 && known).then(|| run.cost.cpu_s(kind) * 1e6 / deliveries)
}

/// CPU of nodes and brokers per delivery, in microseconds: what the operator pays. The generator is not in it.
pub fn cpu_us_per_delivery_served(run: &RunRecord) -> Option<f64> {
    let kinds = [ComponentKind::Node, ComponentKind::Kafka, ComponentKind::Redis];
    if run.cost.unmeasured.iter().any(|one| kinds.contains(&one.kind)) {
        return None;
    }
    let parts: Vec<f64> = kinds.iter().filter_map(|kind| cpu_us_per_delivery(run, *kind)).collect();
    (!parts.is_empty()).then(|| parts.iter().sum())
}

/// Bytes that brokers wrote per delivery, to sockets and files; absent where there are none or the kernel doesn't tell.
pub fn broker_bytes_per_delivery(run: &RunRecord) -> Option<f64> {
    let deliveries = run.measured.load.delivered_per_s * run.measured.window_s;
    let is_broker = |kind| matches!(kind, ComponentKind::Kafka | ComponentKind::Redis);
    let brokers = run.cost.components.iter().filter(|component| is_broker(component.kind));
    let bytes: Option<u64> = brokers.map(|component| component.written_bytes).sum();
    bytes.filter(|bytes| deliveries > 0.0 && *bytes > 0).map(|bytes| bytes as f64 / deliveries)
}

/// Share of the expected deliveries that a run lost, told or not.
pub fn lost_share(run: &RunRecord) -> Option<f64> {
    let audit = &run.measured.audit;
    (audit.expected > 0).then(|| audit.lost() as f64 / audit.expected as f64)
}

/// Longest stretch after a fault that struck in which nobody received anything, in milliseconds.
pub fn all_silence_ms(run: &RunRecord) -> Option<f64> {
    let struck = run.measured.faults.iter().filter(|mark| !mark.whom.is_empty());
    struck.map(|mark| mark.silence_ms).reduce(f64::max)
}

/// Longest silence of any one room after a fault that struck, in milliseconds.
pub fn silence_ms(run: &RunRecord) -> Option<f64> {
    run.measured
        .faults
        .iter()
        .filter(|mark| !mark.whom.is_empty())
        .map(crate::record::FaultMark::longest_silence_ms)
        .reduce(f64::max)
}

/// A ratio from the nodes' counters.
pub fn amplification(run: &RunRecord, ratio: impl Fn(&Amplification) -> Option<f64>) -> Option<f64> {
    run.cost.amplification.as_ref().and_then(ratio)
}
