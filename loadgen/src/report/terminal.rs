//! The report in a terminal: the answer, one table, and what went wrong.

use std::fmt::Write as _;

use super::decide::{Outcome, decide};
use super::gather::{
    Cell, ScenarioTable, cpu_us_per_delivery_served, delivery_ms_p99, quantile_ms, silence_ms, tables,
};
use super::text::{count, ms, us, with_interval};
use crate::campaign::Failure;
use crate::record::RunRecord;

/// How a terminal shows things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether escape codes for colour may be used.
    pub colour: bool,
}

impl Style {
    /// Wraps text in an escape code, where those may be used.
    pub fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn soft(self, text: &str) -> String {
        self.paint("2", text)
    }
}

const COLUMNS: [(&str, usize); 7] = [
    ("strategy", 26),
    ("runs", 5),
    ("p50", 10),
    ("p99", 30),
    ("CPU/delivery", 12),
    ("lost", 10),
    ("audit", 20),
];

/// The decision per scenario, then a table per scenario.
pub fn terminal(records: &[RunRecord], failures: &[Failure], style: Style) -> String {
    let tables = tables(records, failures);
    let mut out = String::new();
    for decision in &decide(&tables, failures) {
        let who = match &decision.outcome {
            Outcome::Winner(label) => style.good(label),
            Outcome::Tie(labels) => style.good(&format!("tie: {}", labels.join(", "))),
            Outcome::Undecided(labels) => {
                style.paint("33", &format!("undecided; best so far: {}", labels.join(", ")))
            }
            Outcome::Nobody => style.bad("none qualifies"),
            Outcome::NotMeasured => style.soft("not measured"),
        };
        let grade = if decision.provisional { style.soft(" (provisional)") } else { String::new() };
        let _ = writeln!(out, "\n{}  {}", style.bold(&decision.scenario), style.soft(&decision.job));
        let _ = writeln!(out, "→ {who}{grade}");
        if let Some(table) = tables.iter().find(|table| table.name == decision.scenario) {
            table_of(&mut out, table, style);
        }
    }
    for table in tables.iter().filter(|table| table.is_disturbed()) {
        let _ = writeln!(out, "\n{}  {}", style.bold(&table.name), style.soft(&table.stands_for));
        table_of(&mut out, table, style);
    }
    for failure in failures {
        let run = format!("{} · {} · block {}", failure.scenario, failure.label, failure.block);
        let _ = writeln!(out, "\n{} {run}: {}", style.bad("could not be made:"), failure.error);
    }
    invalid(&mut out, records, style);
    out
}

/// One run: what was offered, the latencies, the audit, the verdict.
pub fn single(record: &RunRecord, style: Style) -> String {
    let (measured, audit) = (&record.measured, &record.measured.audit);
    let load = &measured.load;
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}  {} on {} node(s)",
        style.bold(&record.scenario.name),
        record.contender.label,
        record.contender.nodes
    );
    let _ = writeln!(
        out,
        "  offered    {}/s of {}/s · {} connections · {} deliveries/s",
        count(load.offered_per_s.round() as u64),
        count(load.target_per_s.round() as u64),
        count(load.connections),
        count(load.delivered_per_s.round() as u64)
    );
    let latencies = &measured.latencies;
    for (name, histogram) in [
        ("delivery", &latencies.delivery),
        ("last member", &latencies.last_member),
        ("ack", &latencies.ack),
        ("send lag", &latencies.send_lag),
    ] {
        let at = |quantile| histogram.quantile_us(quantile).map_or("–".to_owned(), |us| ms(us as f64 / 1e3));
        let max = histogram.max_us().map_or("–".to_owned(), |us| ms(us as f64 / 1e3));
        let _ = writeln!(
            out,
            "  {name:<10} p50 {} · p99 {} · p99.9 {} · max {max}",
            at(0.5),
            at(0.99),
            at(0.999)
        );
    }
    if let Some(recoveries) = &measured.recoveries {
        let late = latencies.recovered.as_ref().and_then(|recovered| recovered.quantile_us(0.99));
        let _ = writeln!(
            out,
            "  recovered  {} of {} members whole, {} told, {} never back · {} messages, p99 {} late · {} forgotten, {} twice, {} out of order",
            count(recoveries.complete),
            count(recoveries.answered() + recoveries.never),
            count(recoveries.incomplete),
            count(recoveries.never),
            count(recoveries.publications),
            late.map_or("–".to_owned(), |us| ms(us as f64 / 1e3)),
            count(recoveries.forgotten),
            count(recoveries.repeated),
            count(recoveries.reordered)
        );
    }
    let _ = writeln!(
        out,
        "  audit      {} expected = {} delivered + {} lost ({} told) + {} indeterminate; {} twice, {} reordered, {} late of unknown outcome, {} leaked, {} late",
        count(audit.expected),
        count(audit.delivered),
        count(audit.lost()),
        count(audit.lost_declared),
        count(audit.indeterminate),
        count(audit.duplicates),
        count(audit.reordered),
        count(audit.late_unknown),
        count(audit.leaked),
        count(audit.late)
    );
    for promise in record.verdict.promises.iter().filter(|promise| !promise.kept) {
        let text = format!("{}: declared {}, observed {}", promise.about, promise.declared, promise.observed);
        let _ = writeln!(out, "  {} {text}", style.bad("broken    "));
    }
    for objection in &record.validity.objections {
        let _ =
            writeln!(out, "  {} {} — {}", style.paint("33", "invalid   "), objection.found, objection.remedy);
    }
    let verdict = match (record.verdict.kept, record.validity.valid) {
        (false, _) => style.bad("audit failed"),
        (true, false) => style.paint("33", "inconclusive"),
        (true, true) => style.good("pass"),
    };
    let _ = writeln!(out, "  {verdict}");
    out
}

fn table_of(out: &mut String, table: &ScenarioTable<'_>, style: Style) {
    let head: String = COLUMNS.iter().map(|(name, width)| format!("{name:<width$}  ")).collect();
    let _ = writeln!(out, "  {}", style.soft(head.trim_end()));
    for cell in &table.cells {
        let values = row(cell, table.is_disturbed());
        let mut line = String::from("  ");
        for ((text, (_, width)), column) in values.iter().zip(COLUMNS).zip(0..) {
            let padded = format!("{text:<width$}  ");
            let trouble = column >= 5 && !cell.kept();
            line.push_str(&if trouble { style.bad(&padded) } else { padded });
        }
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

fn row(cell: &Cell<'_>, disturbed: bool) -> [String; 7] {
    let absent = || "–".to_owned();
    let audit = cell.audit();
    let name = if cell.is_floor() { format!("{} (one node)", cell.label) } else { cell.label.clone() };
    let p99 = cell.interval(delivery_ms_p99).map_or_else(absent, |interval| with_interval(&interval, ms));
    let silence = cell.median(silence_ms).filter(|_| disturbed);
    [
        name,
        format!("{}/{}", cell.valid_count(), cell.runs.len()),
        cell.median(|run| quantile_ms(run, 0.5)).map_or_else(absent, ms),
        p99,
        cell.median(cpu_us_per_delivery_served).map_or_else(absent, us),
        if audit.lost_declared > 0 {
            format!("{} ({} told)", count(audit.lost()), count(audit.lost_declared))
        } else {
            count(audit.lost())
        },
        match (cell.kept(), audit.is_clean(), silence) {
            (_, true, None) => "clean".to_owned(),
            (true, _, Some(silence)) => format!("as promised, silent {}", ms(silence)),
            (true, _, None) => "as promised".to_owned(),
            (false, ..) if cell.is_counter_example() => "fails, as declared".to_owned(),
            (false, ..) if cell.valid_count() == 0 => "no valid run".to_owned(),
            (false, ..) => "promise broken".to_owned(),
        },
    ]
}

fn invalid(out: &mut String, records: &[RunRecord], style: Style) {
    let invalid: Vec<&RunRecord> = records.iter().filter(|record| !record.validity.valid).collect();
    if invalid.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{}",
        style.bad(&format!("{} of {} runs are invalid and not ranked:", invalid.len(), records.len()))
    );
    let mut remedies: Vec<&str> = Vec::new();
    for record in invalid {
        let objections = &record.validity.objections;
        let found: Vec<&str> = objections.iter().map(|objection| objection.found.as_str()).collect();
        for objection in objections {
            if !remedies.contains(&objection.remedy.as_str()) {
                remedies.push(&objection.remedy);
            }
        }
        let _ = writeln!(
            out,
            "  {} · {} · block {}: {}",
            record.scenario.name,
            record.contender.label,
            record.block,
            found.join("; ")
        );
    }
    for remedy in remedies {
        let _ = writeln!(out, "  remedy: {remedy}");
    }
}
