//! Latency: the knee, the percentiles, the table of all four latencies.

use std::collections::{BTreeMap, BTreeSet};

use super::key_of;
use crate::record::{Gate, Histogram, Objection, RunRecord};
use crate::report::chart::{Curve, CurveAxes, Key, curves};
use crate::report::document::{Block, Entry, Figure, Table, Tone};
use crate::report::gather::{
    Cell, SAMPLES_BEYOND_MIN, ScenarioTable, delivery_ms_p99, quantile_ms, reliable_ms,
};
use crate::report::text::{count, ms, per_s, with_interval};
use crate::stats::median_interval;

pub(super) fn section(
    tables: &[ScenarioTable<'_>],
    knees: &[ScenarioTable<'_>],
    searches: &[ScenarioTable<'_>],
    keys: &[Key],
) -> Vec<Block> {
    let mut blocks = vec![Block::heading(2, "latency", "Throughput and latency")];
    if knees.is_empty() {
        blocks.push(Block::Text(
            "Throughput against p99: **not measured** in this campaign (`loadgen compare --capacity` measures it).".to_owned(),
        ));
    }
    blocks.extend(capacity(searches));
    blocks.extend(knees.iter().filter_map(|table| knee(table, keys)).map(Block::Figure));
    for table in tables.iter().filter(|table| !table.is_disturbed()) {
        blocks.extend(percentiles(table, keys).map(Block::Figure));
    }
    blocks.push(Block::Table(latencies(tables)));
    blocks
}

/// Runs that must hold for a rate to hold; the search makes up to three.
const HOLDING_RUNS_MIN: usize = 2;

/// The highest rate that held, from the steps of the search.
fn capacity(searches: &[ScenarioTable<'_>]) -> Option<Block> {
    let mut rows = Vec::new();
    for table in searches {
        for cell in &table.cells {
            let rates = rates(cell);
            let obstacles = |runs: &[&RunRecord]| -> Vec<&'static str> {
                runs.iter().filter_map(|run| obstacle(run, table.target_us)).collect()
            };
            let held = |runs: &[&RunRecord]| runs.len() - obstacles(runs).len() >= HOLDING_RUNS_MIN;
            let best = rates.iter().filter(|(_, runs)| held(runs)).map(|(rate, _)| *rate).max();
            let above = |rate: u64| best.is_none_or(|best| rate > best);
            let first_bad = rates.iter().find(|(rate, runs)| above(**rate) && !held(runs));
            let why: BTreeSet<&str> =
                first_bad.map_or_else(BTreeSet::new, |(_, runs)| obstacles(runs).into_iter().collect());
            let said = |rate: Option<u64>, none: &str| {
                Entry::number(rate.map_or(none.to_owned(), |rate| per_s(rate as f64)))
            };
            rows.push(vec![
                Entry::text(&*table.name),
                Entry::text(&*cell.label).toned(Tone::Strong),
                said(best, "below the search"),
                said(first_bad.map(|(rate, _)| *rate), "not reached"),
                Entry::text(Vec::from_iter(why).join(", ")),
                Entry::number(cell.runs.len().to_string()),
            ]);
        }
    }
    let table = Table {
        caption: "Capacity: highest publish rate with p99 within the target, a clean audit and a valid generator in two runs of at most \
                  three, by bracketed search. Generator, nodes and brokers share the cores, so these are floors; where the generator was the \
                  obstacle, they say nothing of the strategy's own limit."
            .to_owned(),
        head: ["Scenario", "Strategy", "Held", "Did not hold", "Because of", "Runs"].map(str::to_owned).to_vec(),
        rows,
    };
    (!table.rows.is_empty()).then_some(Block::Table(table))
}

/// The rate that was asked for: a random schedule holds a little more or less of it each time.
fn nominal_per_s(run: &RunRecord) -> f64 {
    let asked = run.scenario.parameters.pointer("/traffic/rate_per_s").and_then(serde_json::Value::as_f64);
    asked.unwrap_or(run.measured.load.target_per_s)
}

/// Whether a step of the search held: p99 within the target, audit clean, generator valid.
pub fn holds(run: &RunRecord, target_us: u64) -> bool {
    obstacle(run, target_us).is_none()
}

/// Why a step of the search did not hold. A generator that could not keep up says nothing of the rest.
fn obstacle(run: &RunRecord, target_us: u64) -> Option<&'static str> {
    let p99 = run.measured.latencies.delivery.quantile_us(0.99);
    let gate = |objection: &Objection| match objection.gate {
        Gate::Samples => "too few samples",
        Gate::Conservation => "audit",
        Gate::Offered | Gate::SendLag | Gate::Busy => "generator",
        Gate::Purpose => "not what the scenario is for",
    };
    match () {
        () if !run.validity.valid => Some(run.validity.objections.first().map_or("invalid", gate)),
        () if !run.verdict.clean => Some("audit"),
        () if p99.is_none_or(|p99| p99 > target_us) => Some("p99"),
        () => None,
    }
}

fn knee(table: &ScenarioTable<'_>, keys: &[Key]) -> Option<Figure> {
    let lines: Vec<Curve> = table.cells.iter().filter_map(|cell| knee_curve(cell, keys)).collect();
    if lines.is_empty() {
        return None;
    }
    let title = format!("{}: p99 against publish rate, to 1.05 of each strategy's capacity", table.name);
    let axes = CurveAxes {
        x: "publishes per second".to_owned(),
        y: "delivery p99, ms (logarithmic)".to_owned(),
        x_ticks: Vec::new(),
        target: Some(table.target_us as f64 / 1e3),
    };
    let reading = table.cells.iter().map(|cell| {
        let points = rates(cell).into_iter().map(|(rate, runs)| {
            let p99 = median_interval(&p99s(&runs, true));
            let p99 = p99.map_or("no valid run".to_owned(), |p99| ms(p99.median));
            format!("{p99} at {}", per_s(rate as f64))
        });
        format!("{}: {}", cell.label, points.collect::<Vec<_>>().join(", "))
    });
    Some(Figure {
        id: format!("knee-{}", table.name),
        svg: curves(&title, &axes, keys, &lines),
        title,
        reading: format!(
            "Hollow marks are invalid runs, which are in no line and no band. In words. {}.",
            reading.collect::<Vec<_>>().join(". ")
        ),
    })
}

/// The p99 of each valid, or of each invalid run.
fn p99s(runs: &[&RunRecord], valid: bool) -> Vec<f64> {
    runs.iter().filter(|run| run.validity.valid == valid).filter_map(|run| delivery_ms_p99(run)).collect()
}

/// Runs by the rate that was asked for.
fn rates<'a>(cell: &Cell<'a>) -> BTreeMap<u64, Vec<&'a RunRecord>> {
    let mut rates: BTreeMap<u64, Vec<&RunRecord>> = BTreeMap::new();
    for run in &cell.runs {
        rates.entry(nominal_per_s(run).round() as u64).or_default().push(run);
    }
    rates
}

fn knee_curve(cell: &Cell<'_>, keys: &[Key]) -> Option<Curve> {
    let rates = rates(cell);
    let points: Vec<_> = rates
        .iter()
        .filter_map(|(rate, runs)| {
            let p99 = median_interval(&p99s(runs, true))?;
            Some((*rate as f64, p99.low, p99.median, p99.high))
        })
        .collect();
    let hollow: Vec<(f64, f64)> = rates
        .iter()
        .flat_map(|(rate, runs)| p99s(runs, false).into_iter().map(move |p99| (*rate as f64, p99)))
        .collect();
    let drawn = points.len() + hollow.len() > 1;
    drawn.then_some(Curve { series: key_of(keys, &cell.label)?, points, hollow, markers: true })
}

const PERCENTILES: [(f64, &str); 6] = [
    (0.5, "50 %"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
    (0.99999, "99.999 %"),
];

fn percentiles(table: &ScenarioTable<'_>, keys: &[Key]) -> Option<Figure> {
    let pooled: Vec<(usize, Histogram)> = table
        .cells
        .iter()
        .filter(|cell| !cell.is_counter_example() && cell.valid_count() > 0)
        .filter_map(|cell| Some((key_of(keys, &cell.label)?, cell.pooled_delivery())))
        .collect();
    // A percentile with fewer than ten samples beyond it is not drawn.
    let deepest = pooled.iter().map(|(_, histogram)| histogram.count()).min()?;
    let ticks: Vec<(f64, String)> = PERCENTILES
        .iter()
        .filter(|(quantile, _)| deepest as f64 * (1.0 - quantile) >= SAMPLES_BEYOND_MIN - 1e-6)
        .map(|(quantile, text)| (nines(*quantile), (*text).to_owned()))
        .collect();
    let (first, last) = (ticks.first()?.0, ticks.last()?.0);
    let lines = pooled.into_iter().map(|(series, histogram)| {
        let points = (0..=60).filter_map(|step| {
            let at = first + (last - first) * f64::from(step) / 60.0;
            let value = histogram.quantile_us(1.0 - 10_f64.powf(-at))? as f64 / 1e3;
            Some((at, value, value, value))
        });
        Curve { series, points: points.collect(), hollow: Vec::new(), markers: false }
    });
    let title = format!("{}: delivery latency by percentile", table.name);
    let axes = CurveAxes {
        x: "percentile of deliveries, all valid runs pooled".to_owned(),
        y: "ms (logarithmic)".to_owned(),
        x_ticks: ticks,
        target: Some(table.target_us as f64 / 1e3),
    };
    let legend: Vec<Key> = keys.iter().filter(|key| key.style != 5).cloned().collect();
    Some(Figure {
        id: format!("percentiles-{}", table.name),
        svg: curves(&title, &axes, &legend, &lines.collect::<Vec<_>>()),
        title,
        reading: "Deliveries of all valid runs pooled, each line as far as the strategy with the fewest allows. The table “Latencies” takes \
                  percentiles per run instead, so its figures differ a little."
            .to_owned(),
    })
}

/// A percentile's place on an axis of nines: 0.9 → 1, 0.99 → 2.
fn nines(quantile: f64) -> f64 {
    -(1.0 - quantile).log10()
}

fn latencies(tables: &[ScenarioTable<'_>]) -> Table {
    let mut rows = Vec::new();
    for table in tables {
        for cell in &table.cells {
            let median = |figure: &dyn Fn(&RunRecord) -> Option<f64>| {
                Entry::number(cell.median(figure).map_or("–".to_owned(), ms))
            };
            let p99 = cell.interval(delivery_ms_p99);
            let p99 = Entry::number(p99.map_or("–".to_owned(), |interval| with_interval(&interval, ms)));
            let of = |pick: fn(&RunRecord) -> &Histogram| move |run: &RunRecord| reliable_ms(pick(run), 0.99);
            let rate = cell.median(|run| Some(run.measured.load.delivered_per_s));
            rows.push(vec![
                Entry::text(&*table.name),
                Entry::text(&*cell.label).toned(Tone::Strong),
                Entry::number(format!("{}/{}", cell.valid_count(), cell.runs.len())),
                Entry::number(
                    cell.median(|run| Some(run.measured.load.sent as f64))
                        .map_or("–".to_owned(), |sent| count(sent.round() as u64)),
                ),
                Entry::number(rate.map_or("–".to_owned(), |rate| count(rate.round() as u64))),
                median(&|run| quantile_ms(run, 0.5)),
                p99,
                median(&|run| quantile_ms(run, 0.999)),
                median(&of(|run| &run.measured.latencies.last_member)),
                median(&of(|run| &run.measured.latencies.ack)),
                median(&of(|run| &run.measured.latencies.send_lag)),
            ]);
        }
    }
    Table {
        caption: format!(
            "Latencies: median over valid runs of each run's own percentile; for delivery p99, in brackets: {}. From the *intended* \
             send time, so that a stall of the system or of the generator shows. A dash: fewer than {SAMPLES_BEYOND_MIN:.0} samples lie beyond the percentile, \
             or nothing was measured. Send lag is the generator's own.",
            super::answer::spread(tables)
        ),
        head: [
            "Scenario",
            "Strategy",
            "Valid runs",
            "Messages per run",
            "Deliveries/s",
            "Delivery p50",
            "Delivery p99",
            "Delivery p99.9",
            "Last member p99",
            "Ack p99",
            "Send lag p99",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows,
    }
}
