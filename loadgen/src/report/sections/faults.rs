//! Faults: what was done, how long it took until things were as before, and what was lost.

use super::key_of;
use super::toll::{faults, per_run, share_lost};
use crate::record::{Recoveries, RunRecord};
use crate::report::chart::{Frame, Key, Mark, Timeline, timeline};
use crate::report::document::{Block, Entry, Figure, Table, Tone};
use crate::report::gather::{Cell, ScenarioTable, all_silence_ms, reliable_ms, silence_ms};
use crate::report::recovery::{CALM_INTERVALS, LATENCY_FACTOR_MAX, RATE_SHARE_MIN, blows, recoveries};
use crate::report::text::{count, ms, percent, with_interval};
use crate::stats::median;

pub(super) fn section(tables: &[ScenarioTable<'_>], keys: &[Key]) -> Vec<Block> {
    let disturbed: Vec<&ScenarioTable<'_>> = tables.iter().filter(|table| table.is_disturbed()).collect();
    let mut blocks = vec![Block::heading(2, "faults", "Faults")];
    if disturbed.is_empty() {
        blocks.push(Block::Text(
            "**Not measured** in this campaign (`loadgen compare --full` does).".to_owned(),
        ));
        return blocks;
    }
    blocks.push(Block::Table(table(&disturbed)));
    for table in disturbed {
        blocks.push(Block::heading(
            3,
            &format!("fault-{}", table.name),
            &format!("{}: {}", table.name, table.stands_for),
        ));
        let struck = table.cells.iter().filter(|cell| cell.is_disturbed());
        let (drawings, figures): (Vec<_>, Vec<_>) =
            struck.filter_map(|cell| figure(table, cell, keys)).unzip();
        // One frame per scenario: figures of several strategies are there to be compared.
        let frame = Frame::around(&drawings);
        blocks.extend(drawings.iter().zip(figures).map(|(drawing, figure)| {
            Block::Figure(Figure { svg: timeline(&figure.title, drawing, &frame), ..figure })
        }));
    }
    blocks
}

fn table(tables: &[&ScenarioTable<'_>]) -> Table {
    let rows = tables
        .iter()
        .flat_map(|table| table.cells.iter().filter(|cell| cell.is_disturbed()).map(|cell| row(table, cell)));
    Table {
        caption: format!(
            "How a fault went. *Room silence*: longest stretch in which some one room received nothing that was due. *All-room silence*: longest stretch in \
             which nobody received anything. *As before after*: time from the last fault until {} intervals in a row had at least {} of the deliveries of \
             the time before the first fault and a p99 of at most {LATENCY_FACTOR_MAX:.0} times the one then (or within the target, if that is more). \
             Losses and duplicates: median per run, with the worst in brackets where runs differ. Brokers that a fault strikes are started \
             for the run: latencies include a cold JVM. The ack p99 is over the whole run, the fault included. *Recovered*: members that were \
             cut off and were said to have got all that they missed, of those that asked, over all runs.",
            CALM_INTERVALS,
            percent(RATE_SHARE_MIN),
        ),
        head: [
            "Scenario",
            "Strategy",
            "Fault",
            "Room silence",
            "All-room silence",
            "As before after",
            "Ack p99",
            "Share lost per run",
            "Told per run",
            "Silent per run",
            "Duplicates per run",
            "Reconnects",
            "Recovered",
            "Runs",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn row(table: &ScenarioTable<'_>, cell: &Cell<'_>) -> Vec<Entry> {
    let kept = cell.runs.iter().all(|run| run.verdict.kept);
    let toned = |figure: fn(&RunRecord) -> u64| {
        let sum: u64 = cell.runs.iter().map(|run| figure(run)).sum();
        Entry::number(per_run(cell, figure)).toned(match (sum, kept) {
            (0, _) => Tone::Good,
            (_, true) => Tone::Warn,
            (_, false) => Tone::Bad,
        })
    };
    vec![
        Entry::text(&*table.name),
        Entry::text(&*cell.label).toned(Tone::Strong),
        Entry::text(faults(cell)),
        Entry::number(
            cell.interval(silence_ms).map_or("–".to_owned(), |interval| with_interval(&interval, ms)),
        ),
        Entry::number(cell.median(all_silence_ms).map_or("–".to_owned(), ms)),
        Entry::number(back(cell)),
        Entry::number(
            cell.median(|run| reliable_ms(&run.measured.latencies.ack, 0.99)).map_or("–".to_owned(), ms),
        ),
        Entry::number(share_lost(cell)),
        toned(|run| run.measured.audit.lost_declared),
        toned(|run| run.measured.audit.lost_silent),
        toned(|run| run.measured.audit.duplicates),
        Entry::number(
            cell.median(|run| Some(run.measured.load.reconnects as f64))
                .map_or("–".to_owned(), |value| count(value as u64)),
        ),
        recovered(cell),
        Entry::number(format!("{} of {} valid", cell.valid_count(), cell.runs.len())),
    ]
}

/// Members that came back and asked for what they had missed, over all runs: how many got all of it, and what was wrong.
fn recovered(cell: &Cell<'_>) -> Entry {
    let mut sum = Recoveries::default();
    let asked = cell.runs.iter().filter_map(|run| run.measured.recoveries.as_ref());
    asked.for_each(|recoveries| sum.add(recoveries));
    if sum.answered() + sum.never == 0 {
        return Entry::number("–").toned(Tone::Soft);
    }
    let mut said = format!("{} of {}", count(sum.complete), count(sum.answered()));
    for (figure, name) in [
        (sum.never, "never back"),
        (sum.forgotten, "forgotten"),
        (sum.repeated, "twice"),
        (sum.reordered, "out of order"),
    ] {
        if figure > 0 {
            said.push_str(&format!("; {} {name}", count(figure)));
        }
    }
    Entry::number(said).toned(match (sum.are_true(), sum.incomplete + sum.never) {
        (false, _) => Tone::Bad,
        (true, 0) => Tone::Good,
        (true, _) => Tone::Warn,
    })
}

/// Median time until things were as before, after the last fault; says how often they never were.
fn back(cell: &Cell<'_>) -> String {
    let last = |run: &RunRecord| recoveries(run).pop();
    let all: Vec<_> = cell.valid().filter_map(last).collect();
    let back: Vec<f64> = all.iter().copied().flatten().collect();
    match (median(&back), all.len() - back.len()) {
        (Some(seconds), 0) => ms(seconds * 1e3),
        (Some(seconds), never) => {
            format!("{}; not within the run in {never} of {}", ms(seconds * 1e3), all.len())
        }
        (None, 0) => "–".to_owned(),
        (None, _) => "not within the run".to_owned(),
    }
}

/// The run with the median silence stands for its cell. The drawing waits for the frame that it shares.
fn figure(table: &ScenarioTable<'_>, cell: &Cell<'_>, keys: &[Key]) -> Option<(Timeline, Figure)> {
    let mut runs: Vec<&RunRecord> = cell.valid().collect();
    if runs.is_empty() {
        runs.clone_from(&cell.runs);
    }
    runs.sort_by(|a, b| silence_ms(a).unwrap_or(0.0).total_cmp(&silence_ms(b).unwrap_or(0.0)));
    let run = *runs.get(runs.len() / 2)?;
    let interval_s = run.measured.series.interval_ms as f64 / 1e3;
    // After the last send nothing can arrive but stragglers: the figure ends with the last of them.
    let end = ((run.measured.warm_up_s + run.measured.window_s) / interval_s).ceil() as usize;
    let last = run.measured.series.points.iter().rposition(|point| point.delivered > 0).unwrap_or(0) + 1;
    let points = run.measured.series.points.iter().take(end.max(last)).enumerate().map(|(index, point)| {
        let p99_ms = point.delivery_us_p99.map(|us| us as f64 / 1e3);
        (index as f64 * interval_s, point.delivered as f64 / interval_s, p99_ms)
    });
    let title = format!("{} in {}: deliveries per second and p99 around the fault", cell.label, table.name);
    let drawing = Timeline {
        name: cell.label.clone(),
        style: keys[key_of(keys, &cell.label)?].style,
        points: points.collect(),
        window_s: run.measured.warm_up_s,
        end_s: run.measured.warm_up_s + run.measured.window_s,
        marks: blows(run).into_iter().map(|blow| Mark { at_s: blow.began_s, text: blow.text }).collect(),
    };
    let audit = &run.measured.audit;
    let reading = format!(
        "Block {}: longest silence of a room {}; {} lost and told, {} lost silently. The shaded start is warm-up; the load ends at the dashed line.",
        run.block,
        silence_ms(run).map_or("not measured".to_owned(), ms),
        count(audit.lost_declared),
        count(audit.lost_silent)
    );
    let figure = Figure {
        id: format!("fault-{}-{}", table.name, cell.label.replace([' ', '='], "-")),
        svg: String::new(),
        title,
        reading,
    };
    Some((drawing, figure))
}
