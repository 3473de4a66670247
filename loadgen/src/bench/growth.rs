//! Number 7: what costs more when there is more of it: connections, rooms.

use anyhow::Result;

use super::found::Found;
use super::limits::fitting;
use super::record::{Row, Target, Window};
use super::rig::Rig;
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, MEMORY, NO_HISTORY, Subject};
use super::verdict::growth;
use crate::campaign::{Brokers, Entrant};
use crate::scenario::Scenario;

const NUMBER: u8 = 7;
/// Within this everything is flat.
pub(super) const FLAT: f64 = 1.15;
/// Connections, ten to a room, 20,000 deliveries/s among them.
const CONNECTIONS: [u64; 4] = [100, 1_000, 5_000, 20_000];
/// Rooms of four, 8,000 deliveries/s among them, and how many each client is in: rooms grow, connections hardly.
const ROOMS: [(f64, f64); 4] = [(1.0, 1.0), (50.0, 20.0), (500.0, 20.0), (5_000.0, 20.0)];
/// Rooms of one, on two nodes, and how many each client is in.
const PUBLISH_ROOMS: [(f64, f64); 2] = [(10.0, 1.0), (5_000.0, 100.0)];
const STRATEGIES: [&str; 3] = ["kafka-keyed", "redis-pubsub", "hybrid"];

/// How long the part without brokers takes, seconds.
pub(super) fn planned_s(blocks: u32, connections_max: u64) -> Result<f64> {
    let shapes = by_connections(connections_max)?.into_iter().chain(by_rooms()?);
    Ok(f64::from(blocks) * 2.0 * shapes.map(|scenario| run_s(&scenario)).sum::<f64>())
}

/// How long the part with brokers takes, seconds, warming left out.
pub(super) fn planned_publishes_s(blocks: u32) -> Result<f64> {
    let runs = by_publish_rooms()?.iter().map(run_s).sum::<f64>();
    Ok(f64::from(blocks) * STRATEGIES.len() as f64 * runs + 6.0)
}

/// Contenders of the part with brokers.
pub(super) fn entrants() -> Vec<Entrant> {
    STRATEGIES.map(|strategy| Entrant { strategy: strategy.to_owned(), options: Vec::new() }).to_vec()
}

fn by_connections(connections_max: u64) -> Result<Vec<Scenario>> {
    let sizes = CONNECTIONS.map(|size| fitting(size, connections_max));
    let one = |size: u64| {
        let rooms = (size as f64 / 10.0).round();
        shape("growth", &format!("growth-{size}-connections"), &[("rooms.count", rooms)])
    };
    sizes.into_iter().map(one).collect()
}

fn by_rooms() -> Result<Vec<Scenario>> {
    let one = |(rooms, each): (f64, f64)| {
        let overrides = [("rooms.count", rooms), ("rooms.members", 4.0), ("rooms.per_client", each)];
        shape("growth", &format!("growth-{rooms:.0}-rooms"), &overrides)
    };
    ROOMS.into_iter().map(one).collect()
}

fn by_publish_rooms() -> Result<Vec<Scenario>> {
    let one = |(rooms, each): (f64, f64)| {
        let overrides = [("rooms.count", rooms), ("rooms.per_client", each)];
        shape("cross", &format!("publish-{rooms:.0}-rooms"), &overrides)
    };
    PUBLISH_ROOMS.into_iter().map(one).collect()
}

/// One node without a backplane, sizes in another order in each block; and the floor, because the kernel and the processor's
/// caches have more to do as well.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    let floor = Subject::floor(&rig.generator, false)?;
    let (connections, rooms) = (by_connections(rig.connections_max)?, by_rooms()?);
    for block in rig.blocks() {
        let all = connections.iter().chain(&rooms);
        let all = all.flat_map(|scenario| [(&memory, scenario), (&floor, scenario)]).collect();
        for (subject, scenario) in rig.shuffled(all, "growth", block) {
            found.window(rig, subject, scenario, block)?;
        }
    }
    for scenarios in [connections, rooms] {
        let of =
            |subject| rows(&found.windows, subject, &scenarios, "a delivery's CPU", Window::us_per_delivery);
        let rows = of(MEMORY).into_iter().zip(of(FLOOR)).map(|(ours, floor)| Row {
            reference_name: FLOOR.to_owned(),
            reference: floor.ours,
            ..ours
        });
        let rows: Vec<Row> = rows.collect();
        found.rows.extend(rows);
    }
    Ok(())
}

/// What a publish costs the nodes with few rooms and with many, by strategy.
pub(super) fn measure_publishes(rig: &Rig, found: &mut Found, brokers: &Brokers) -> Result<()> {
    let scenarios = by_publish_rooms()?;
    for entrant in entrants() {
        let name = format!("{}, 2 nodes, by default", entrant.strategy);
        let nodes = Subject::nodes(&rig.server, &name, &entrant, 2, brokers);
        let Some(nodes) = found.or_note(&name, nodes)? else { continue };
        for block in rig.blocks() {
            for scenario in rig.shuffled(scenarios.iter().collect(), &name, block) {
                found.window(rig, &nodes, scenario, block)?;
            }
        }
        let rows = rows(&found.windows, &name, &scenarios, "a publish's CPU", Window::us_per_publish);
        found.rows.extend(rows);
    }
    Ok(())
}

/// Each size beside the smallest, of the same block.
fn rows(
    windows: &[Window],
    subject: &str,
    scenarios: &[Scenario],
    what: &str,
    metric: super::verdict::Metric,
) -> Vec<Row> {
    let Some((first, larger)) = scenarios.split_first() else { return Vec::new() };
    let size =
        |scenario: &Scenario| scenario.name.split_once('-').map_or("", |(_, size)| size).replace('-', " ");
    let row = |scenario: &Scenario| {
        let grown = growth(windows, subject, &first.name, &scenario.name, metric);
        let what = format!("{subject}: {what} with {}, beside that with {}", size(scenario), size(first));
        Row::plain(NUMBER, &what, "×", Target::AtMost(FLAT), grown)
    };
    larger.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    #[test]
    fn sizes_are_what_they_are_called() {
        let connections = by_connections(u64::MAX).unwrap();
        assert_eq!(connections[3].name, "growth-20000-connections");
        assert_eq!(connections[3].rooms.count, 2_000);
        let rooms = by_rooms().unwrap();
        assert_eq!((rooms[3].rooms.count, rooms[3].rooms.per_client), (5_000, 20));
        assert_eq!(by_publish_rooms().unwrap()[1].rooms.count, 5_000);
    }

    #[test]
    fn every_larger_size_has_a_line() {
        let window = |shape: &str, cpu_s| Window {
            shape: shape.into(),
            subject: MEMORY.into(),
            block: 1,
            deliveries: 1e6,
            server_cpu_s: cpu_s,
            offered_share: 1.0,
            clean: true,
            ..Window::default()
        };
        let windows = [
            window("growth-100-connections", 3.0),
            window("growth-1000-connections", 3.3),
            window("growth-5000-connections", 4.5),
        ];
        let scenarios = by_connections(u64::MAX).unwrap();
        let rows = rows(&windows, MEMORY, &scenarios, "a delivery's CPU", Window::us_per_delivery);
        let verdicts: Vec<Verdict> = rows.iter().map(Row::verdict).collect();
        assert_eq!(verdicts, [Verdict::Met, Verdict::Missed, Verdict::Unknown]);
        assert_eq!(
            rows[0].what,
            "memory: a delivery's CPU with 1000 connections, beside that with 100 connections"
        );
    }
}
