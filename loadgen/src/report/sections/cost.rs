//! What a delivery costs, component by component.

use crate::record::{Amplification, ComponentKind};
use crate::report::chart::{Stack, stacks};
use crate::report::document::{Block, Entry, Figure, Table, Tone};
use crate::report::gather::{
    Cell, ScenarioTable, amplification, broker_bytes_per_delivery, cpu_us_per_delivery,
    cpu_us_per_delivery_served,
};
use crate::report::text::{bytes, count, significant, us, with_interval};

const KINDS: [(ComponentKind, &str); 3] =
    [(ComponentKind::Node, "nodes"), (ComponentKind::Kafka, "Kafka"), (ComponentKind::Redis, "Redis")];

pub(super) fn section(tables: &[ScenarioTable<'_>]) -> Vec<Block> {
    let healthy: Vec<&ScenarioTable<'_>> = tables.iter().filter(|table| !table.is_disturbed()).collect();
    if healthy.is_empty() {
        return Vec::new();
    }
    let mut blocks = vec![
        Block::heading(2, "cost", "Cost of a delivery"),
        Block::Text(
            "CPU time within the counted window, from `/proc`, divided by the deliveries in it. It includes what a component burns while \
             idle, so it falls with the rate. Write amplification: broker writes per publish. Read amplification: envelopes that nodes \
             decoded per envelope that a member of theirs wanted."
                .to_owned(),
        ),
    ];
    blocks.extend(healthy.iter().filter_map(|table| figure(table)).map(Block::Figure));
    blocks.push(Block::Table(table(&healthy)));
    blocks
}

fn figure(table: &ScenarioTable<'_>) -> Option<Figure> {
    let bars: Vec<Stack> = table
        .cells
        .iter()
        .filter(|cell| cell.valid_count() > 0 && !cell.is_counter_example())
        .map(|cell| Stack {
            name: if cell.is_floor() { format!("{} (one node)", cell.label) } else { cell.label.clone() },
            parts: KINDS
                .iter()
                .map(|(kind, _)| cell.median(|run| cpu_us_per_delivery(run, *kind)).unwrap_or(0.0))
                .collect(),
        })
        .collect();
    let title = format!("{}: CPU per delivery, by component", table.name);
    (!bars.is_empty()).then(|| Figure {
        id: format!("cost-{}", table.name),
        svg: stacks(
            &title,
            "µs of CPU per delivery; the generator is not in it",
            &KINDS.map(|(_, name)| name),
            &bars,
        ),
        title,
        reading: "The table below has the same figures.".to_owned(),
    })
}

fn table(tables: &[&ScenarioTable<'_>]) -> Table {
    let rows = tables.iter().flat_map(|table| table.cells.iter().map(|cell| row(&table.name, cell)));
    Table {
        caption: format!(
            "Median over valid runs; for the total, in brackets: {}. The lag is the worst of any run.",
            super::answer::spread(&tables.iter().map(|table| (*table).clone()).collect::<Vec<_>>())
        ),
        head: [
            "Scenario",
            "Strategy",
            "CPU per delivery",
            "Nodes",
            "Kafka",
            "Redis",
            "Generator",
            "Broker bytes per delivery",
            "Peak memory, nodes",
            "Peak memory, brokers",
            "Writes per publish",
            "Decoded per needed message",
            "Worst lag, messages",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

fn row(scenario: &str, cell: &Cell<'_>) -> Vec<Entry> {
    let absent = || "–".to_owned();
    let cpu = |kind| cell.median(|run| cpu_us_per_delivery(run, kind)).map_or_else(absent, us);
    let memory = |kinds: &[ComponentKind]| {
        let peak =
            cell.median(|run| Some(kinds.iter().map(|kind| run.cost.rss_bytes(*kind)).sum::<u64>() as f64));
        peak.filter(|peak| *peak > 0.0).map_or_else(absent, |peak| bytes(peak as u64))
    };
    let ratio = |of: fn(&Amplification) -> Option<f64>| {
        cell.median(|run| amplification(run, of)).map_or_else(absent, significant)
    };
    let lag = cell.valid().filter_map(|run| run.cost.amplification?.lag_messages_max).max();
    vec![
        Entry::text(scenario),
        Entry::text(&*cell.label).toned(Tone::Strong),
        Entry::number(
            cell.interval(cpu_us_per_delivery_served)
                .map_or_else(absent, |interval| with_interval(&interval, us)),
        ),
        Entry::number(cpu(ComponentKind::Node)),
        Entry::number(cpu(ComponentKind::Kafka)),
        Entry::number(cpu(ComponentKind::Redis)),
        Entry::number(cpu(ComponentKind::Generator)),
        Entry::number(
            cell.median(broker_bytes_per_delivery).map_or_else(absent, |value| format!("{value:.1} B")),
        ),
        Entry::number(memory(&[ComponentKind::Node])),
        Entry::number(memory(&[ComponentKind::Kafka, ComponentKind::Redis])),
        Entry::number(ratio(Amplification::write)),
        Entry::number(ratio(Amplification::read)),
        Entry::number(lag.map_or_else(absent, count)),
    ]
}
