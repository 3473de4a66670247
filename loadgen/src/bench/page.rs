//! A bench as people read it: one table per number, what is to be reached first.

use super::counts::Change;
use super::record::{Bench, Instructions, Row, Target};
use super::verdict::{Spread, Verdict};
use crate::report::text::{bytes, percent, tick};

/// What each number is about.
const TITLES: [&str; 7] = [
    "Delivery",
    "Under pressure",
    "Backplane overhead",
    "Idle connections",
    "Giant rooms",
    "Storms",
    "Growth",
];

/// How each was measured, in a sentence or two.
const METHODS: [&str; 7] = [
    "One node; 200 rooms of ten at 2,000 messages/s (small), one room of a thousand at 20 messages/s (big): 20,000 deliveries/s \
     either way, 200-byte payloads, each publish acknowledged. All subjects are up at once and take turns.",
    "The small shape up a ladder of rates, generator on the same cores: a rung is held if all of it is delivered in time, nobody is \
     thrown out and no backlog grows. Then 3 s of twice the aim, and a fifth of it after.",
    "Every message changes the node. What the nodes use above one node without a backplane, beside a bare loop of the client \
     library with as many consumers as nodes; and the delivery latency beside the bare loop's, same broker, same block.",
    "A fresh process for each crowd, and the same one before and after traffic: resident memory less that without connections, divided \
     by connections.",
    "A message every half second to one room. The small rooms: 20 of ten, 200 messages/s, with the giant on the same node, with the giant on a floor beside it, and without it.",
    "Clients come as fast as the generator gets them in, 128 handshakes at a time, each subscribing to three rooms, while 200 others talk.",
    "The same deliveries or publishes per second over ever more connections or rooms, beside the smallest size, same block; and what \
     each further connection takes.",
];

/// The whole page.
pub fn page(bench: &Bench) -> String {
    format!("# Bench\n\n{}", body(bench))
}

/// The page without its heading: where and when, the tables, and all that whoever reads them must know.
pub fn body(bench: &Bench) -> String {
    let machine = &bench.hardware;
    let dirty = if bench.tool.dirty { ", with uncommitted changes" } else { "" };
    let instructions = match bench.instructions {
        Instructions::Hardware => "counted by the processor",
        Instructions::Callgrind => "by callgrind, user space alone",
        Instructions::None => "not counted: neither hardware counters nor valgrind",
    };
    let interrupted =
        if bench.complete { "" } else { " It ended before its time: what is missing was not measured." };
    format!(
        "{} · commit {}{dirty} ({} build) · {} blocks, seed {}\n\n\
         {}, {} cores{}, {}, Linux {}; {} of CPU time stolen meanwhile. Instructions: {instructions}.{interrupted}\n\n\
         `{}`\n\n{}{}{}",
        bench.started_at,
        bench.tool.commit,
        bench.tool.profile,
        bench.blocks,
        bench.seed,
        machine.cpu,
        machine.cores,
        if machine.virtual_machine { " of a virtual machine" } else { "" },
        bytes(machine.memory_bytes),
        machine.kernel,
        percent(machine.steal_share),
        bench.command,
        tables(bench),
        frames(bench),
        notes(bench),
    )
}

/// The tables of all numbers that were ordered.
fn tables(bench: &Bench) -> String {
    let mut text = String::from(
        "Every figure is the median over blocks; in brackets the smallest and the largest block, and how many there were. A target \
         counts as met only if every block has a figure, and at least five do.\n\n",
    );
    for (number, (title, method)) in (1..).zip(TITLES.into_iter().zip(METHODS)) {
        let rows: Vec<&Row> = bench.rows.iter().filter(|row| row.number == number).collect();
        if rows.is_empty() {
            continue;
        }
        text.push_str(&format!("## {number}. {title}\n\n{method}\n\n"));
        text.push_str("| | Target | Ours | Beside | Figure | |\n|---|---|---|---|---|---|\n");
        rows.into_iter().for_each(|row| text.push_str(&line(row, bench.verdict(row))));
        text.push('\n');
    }
    text
}

/// A line of a table.
fn line(row: &Row, verdict: Verdict) -> String {
    let of = |values: &[f64]| {
        Spread::of(values).map_or_else(|| "–".to_owned(), |spread| with_unit(spread.median, &row.unit))
    };
    let beside = match row.reference.is_empty() {
        true => "–".to_owned(),
        false => format!("{}: {}{}", row.reference_name, of(&row.reference), beside(row)),
    };
    let figure = row.figure().map_or_else(|| "–".to_owned(), |spread| figure(row, &spread));
    format!(
        "| {} | {} | {} | {beside} | {figure} | {} |\n",
        row.what,
        target(row),
        of(&row.ours),
        word(row, verdict)
    )
}

fn word(row: &Row, verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown if !row.figures().is_empty() => "too few blocks",
        verdict => verdict.word(),
    }
}

/// How many times the reference it is, where that is not the figure itself.
fn beside(row: &Row) -> String {
    match (row.target, row.ratio()) {
        (Target::AtMost(_) | Target::AtLeast(_), Some(ratio)) => format!(
            "; ours is {} × ({} to {}, {})",
            tick(ratio.median),
            tick(ratio.low),
            tick(ratio.high),
            ratio.samples
        ),
        _ => String::new(),
    }
}

fn with_unit(value: f64, unit: &str) -> String {
    if unit.is_empty() { tick(value) } else { format!("{} {unit}", tick(value)) }
}

fn target(row: &Row) -> String {
    match row.target {
        Target::Ratio(bound) => format!("≤ {} × {}", tick(bound), row.reference_name),
        Target::Excess(bound) => format!("≤ {} + {}", row.reference_name, with_unit(bound, &row.unit)),
        Target::AtMost(bound) => format!("≤ {}", with_unit(bound, &row.unit)),
        Target::AtLeast(bound) => format!("≥ {}", with_unit(bound, &row.unit)),
        Target::Shown => "–".to_owned(),
    }
}

/// The figure with its range: a ratio, a difference, or the value itself.
fn figure(row: &Row, spread: &Spread) -> String {
    let after = match row.target {
        Target::Ratio(_) | Target::Shown => " ×".to_owned(),
        Target::Excess(_) => format!(" {}", row.unit),
        Target::AtMost(_) | Target::AtLeast(_) => String::new(),
    };
    let number = |value: f64| match row.target {
        Target::Excess(_) if value >= 0.0 => format!("+{}", tick(value)),
        Target::Excess(_) => format!("−{}", tick(-value)),
        _ => tick(value),
    };
    let (low, high) = (number(spread.low), number(spread.high));
    format!("{}{after} ({low} to {high}, {})", number(spread.median), spread.samples)
}

/// What is sent for one delivery: a floor with shorter frames has less to copy.
fn frames(bench: &Bench) -> String {
    if bench.frames.is_empty() {
        return String::new();
    }
    let mut text = String::from("## On the wire\n\n| | Payload | Frame |\n|---|---|---|\n");
    for frame in &bench.frames {
        text.push_str(&format!(
            "| {} | {} B | {} B |\n",
            frame.subject, frame.payload_bytes, frame.frame_bytes
        ));
    }
    text.push('\n');
    text
}

fn notes(bench: &Bench) -> String {
    if bench.notes.is_empty() {
        return String::new();
    }
    let lines: String = bench.notes.iter().map(|note| format!("- {}\n", note.replace('\n', " "))).collect();
    format!("## Notes\n\n{lines}")
}

/// Counts beside what was recorded.
pub fn changes(changes: &[Change]) -> String {
    let mut text = String::from(
        "| Shape | Subject | User instructions per delivery | Recorded | Change | |\n|---|---|---|---|---|---|\n",
    );
    for change in changes {
        let recorded = change.recorded.map_or_else(|| "–".to_owned(), |recorded| tick(recorded.round()));
        let moved =
            change.ratio().map_or_else(|| "–".to_owned(), |ratio| format!("{:+.1} %", (ratio - 1.0) * 100.0));
        let word = if change.is_regression() { "REGRESSION" } else { "" };
        text.push_str(&format!(
            "| {} | {} | {} | {recorded} | {moved} | {word} |\n",
            change.now.shape,
            change.now.subject,
            tick(change.now.instructions_per_delivery.round())
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::counts::Counted;
    use super::*;

    #[test]
    fn a_line_says_target_figures_and_verdict() {
        let line = |row: &Row| super::line(row, row.verdict(1));
        let pairs = [(3.6, 3.0), (3.5, 3.1), (3.3, 3.0)];
        let row = Row::paired(1, "memory, small", "µs per delivery", Target::Ratio(1.2), "floor", &pairs);
        assert_eq!(
            line(&row),
            "| memory, small | ≤ 1.2 × floor | 3.5 µs per delivery | floor: 3 µs per delivery | 1.13 × (1.1 to 1.2, 3) | met |\n"
        );
        let row = Row::plain(2, "most", "deliveries/s", Target::AtLeast(1.4e6), vec![1.8e6, 1.0e6]);
        assert_eq!(
            line(&row),
            "| most | ≥ 1,400,000 deliveries/s | 1,400,000 deliveries/s | – | 1,400,000 (1,000,000 to 1,800,000, 2) | met |\n"
        );
        let row = Row::paired(3, "p50", "ms", Target::Excess(0.3), "bare redis", &[(0.9, 0.2)]);
        assert!(line(&row).contains("| ≤ bare redis + 0.3 ms |") && line(&row).ends_with("| missed |\n"));
        let row = Row::paired(3, "p99", "ms", Target::Excess(1.0), "bare redis", &[(0.5, 0.75), (2.0, 1.5)]);
        assert!(line(&row).contains("| +0.125 ms (−0.25 to +0.5, 2) |"), "{}", line(&row));
        let row = Row::plain(4, "idle", "KiB", Target::AtMost(4.0), Vec::new());
        assert_eq!(line(&row), "| idle | ≤ 4 KiB | – | – | – | not measured |\n");
        let row = Row::plain(4, "idle", "KiB", Target::AtMost(4.0), vec![3.0]);
        assert!(super::line(&row, row.verdict(5)).ends_with("| too few blocks |\n"));
        let row = Row::paired(4, "idle", "KiB", Target::AtMost(4.0), "floor", &[(2.0, 0.5), (3.0, 0.5)]);
        assert_eq!(
            line(&row),
            "| idle | ≤ 4 KiB | 2.5 KiB | floor: 0.5 KiB; ours is 5 × (4 to 6, 2) | 2.5 (2 to 3, 2) | met |\n"
        );
    }

    #[test]
    fn a_regression_is_named() {
        let counted = |instructions| Counted {
            shape: "small".into(),
            subject: "memory".into(),
            instructions_per_delivery: instructions,
        };
        let changed = |now| changes(&[Change { now: counted(now), recorded: Some(1_000.0) }]);
        assert!(changed(1_200.0).contains("| small | memory | 1,200 | 1,000 | +20.0 % | REGRESSION |"));
        assert!(!changed(1_050.0).contains("REGRESSION"));
        assert!(changes(&[Change { now: counted(5.0), recorded: None }]).contains("| – | – |  |"));
    }
}
