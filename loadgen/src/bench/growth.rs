//! Number 7: what costs more when there is more of it: connections, rooms.

use anyhow::Result;

use super::found::Found;
use super::limits::fitting;
use super::per_connection;
use super::record::{Row, Target, Window};
use super::rig::Rig;
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, MEMORY, NO_HISTORY, Subject};
use super::verdict::{Metric, growth};
use crate::campaign::{Brokers, Entrant};
use crate::scenario::Scenario;

pub(super) const NUMBER: u8 = 7;
/// Within this everything is flat.
pub(super) const FLAT: f64 = 1.15;
/// Connections, ten to a room, 20,000 deliveries/s among them.
const CONNECTIONS: [u64; 4] = [100, 1_000, 5_000, 20_000];
/// Rooms of four, 8,000 deliveries/s among them, and how many each client is in: connections grow with them, from 4 to 1,000.
const ROOMS: [(f64, f64); 4] = [(1.0, 1.0), (50.0, 20.0), (500.0, 20.0), (5_000.0, 20.0)];
/// Rooms of one, on two nodes, and how many each client is in: 11 and 51 clients, and as many services.
const PUBLISH_ROOMS: [(f64, f64); 2] = [(11.0, 1.0), (5_100.0, 100.0)];
const STRATEGIES: [&str; 3] = ["kafka-keyed", "redis-pubsub", "hybrid"];
const PUBLISH: &str = "a publish's CPU";
const DELIVERY: &str = "a delivery's CPU";

/// How long the part without brokers takes, seconds.
pub(super) fn planned_s(blocks: u32, connections_max: u64) -> Result<f64> {
    let shapes = by_connections(connections_max)?.into_iter().chain(by_rooms()?);
    let turns_s = f64::from(blocks) * 2.0 * shapes.map(|scenario| run_s(&scenario)).sum::<f64>();
    Ok(turns_s + per_connection::planned_s(blocks, connections_max)?)
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

/// Its lines before anything was measured.
pub(super) fn lines(rig: &Rig) -> Result<Vec<Row>> {
    let mut lines = rows_by_connections(&[], rig.connections_max);
    lines.extend(rows(&[], MEMORY, FLOOR, &by_rooms()?, DELIVERY, Window::us_per_delivery));
    lines.extend(per_connection::lines(rig));
    for entrant in entrants() {
        let name = subject_name(&entrant);
        lines.extend(rows(&[], &name, "", &by_publish_rooms()?, PUBLISH, Window::us_per_publish));
    }
    Ok(lines)
}

fn subject_name(entrant: &Entrant) -> String {
    format!("{}, 2 nodes, by default", entrant.strategy)
}

/// One shape of each size that fits.
fn by_connections(connections_max: u64) -> Result<Vec<Scenario>> {
    let mut sizes = CONNECTIONS.map(|size| fitting(size, connections_max)).to_vec();
    sizes.dedup();
    let one = |size| shape("growth", &connections(size), &[("rooms.count", (size as f64 / 10.0).round())]);
    sizes.into_iter().map(one).collect()
}

fn connections(size: u64) -> String {
    format!("growth-{size}-connections")
}

fn by_rooms() -> Result<Vec<Scenario>> {
    let one = |(rooms, each): (f64, f64)| {
        let overrides = [("rooms.count", rooms), ("rooms.members", 4.0), ("rooms.per_client", each)];
        shape("growth", &format!("growth-{rooms:.0}-rooms"), &overrides)
    };
    ROOMS.into_iter().map(one).collect()
}

/// As many services as clients, and an odd number: then the service that writes to a room is never on its member's node.
fn by_publish_rooms() -> Result<Vec<Scenario>> {
    let one = |(rooms, each): (f64, f64)| {
        let services = ("traffic.services", rooms / each);
        let overrides = [("rooms.count", rooms), ("rooms.per_client", each), services];
        shape("cross", &format!("publish-{rooms:.0}-rooms"), &overrides)
    };
    PUBLISH_ROOMS.into_iter().map(one).collect()
}

/// One node without a backplane, sizes in another order in each block; and the floor, because the kernel and the processor's
/// caches have more to do as well.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let (by_connections, by_rooms) = (by_connections(rig.connections_max)?, by_rooms()?);
    let outcome = take_turns(rig, found, by_connections.iter().chain(&by_rooms));
    // Whatever ended it: what was not measured has its lines, too.
    let mut lines = rows_by_connections(&found.windows, rig.connections_max);
    lines.extend(rows(&found.windows, MEMORY, FLOOR, &by_rooms, DELIVERY, Window::us_per_delivery));
    found.rows.extend(lines);
    found.or_note("what a delivery costs", outcome)?;
    per_connection::measure(rig, found)
}

fn take_turns<'a>(
    rig: &Rig,
    found: &mut Found,
    scenarios: impl Iterator<Item = &'a Scenario> + Clone,
) -> Result<()> {
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    let floor = Subject::floor(&rig.generator, false)?;
    for block in rig.blocks() {
        let all = scenarios.clone().flat_map(|scenario| [(&memory, scenario), (&floor, scenario)]).collect();
        for (subject, scenario) in rig.shuffled(all, "growth", block) {
            found.window(rig, subject, scenario, block)?;
        }
    }
    Ok(())
}

/// What a publish costs the nodes with few rooms and with many, by strategy.
pub(super) fn measure_publishes(rig: &Rig, found: &mut Found, brokers: &Brokers) -> Result<()> {
    let scenarios = by_publish_rooms()?;
    for entrant in entrants() {
        let name = subject_name(&entrant);
        let outcome = publishes(rig, found, brokers, &entrant, &name, &scenarios);
        let rows = rows(&found.windows, &name, "", &scenarios, PUBLISH, Window::us_per_publish);
        found.rows.extend(rows);
        found.or_note(&name, outcome)?;
    }
    Ok(())
}

fn publishes(
    rig: &Rig,
    found: &mut Found,
    brokers: &Brokers,
    entrant: &Entrant,
    name: &str,
    scenarios: &[Scenario],
) -> Result<()> {
    let nodes = Subject::nodes(&rig.server, name, entrant, 2, brokers)?;
    for block in rig.blocks() {
        for scenario in rig.shuffled(scenarios.iter().collect(), name, block) {
            found.window(rig, &nodes, scenario, block)?;
        }
    }
    Ok(())
}

/// Each number of connections beside the smallest; what does not fit here is open, and what was measured in its place is shown.
fn rows_by_connections(windows: &[Window], connections_max: u64) -> Vec<Row> {
    let first = connections(fitting(CONNECTIONS[0], connections_max));
    let mut rows: Vec<Row> = Vec::new();
    for wanted in &CONNECTIONS[1..] {
        let of = |size: u64| {
            let size = connections(size);
            line(windows, MEMORY, FLOOR, [&first, &size], DELIVERY, Window::us_per_delivery)
        };
        let of_size = Row::of_size(*wanted, fitting(*wanted, connections_max), of);
        let new = |row: &Row| !rows.iter().any(|known| known.what == row.what);
        let new: Vec<Row> = of_size.into_iter().filter(new).collect();
        rows.extend(new);
    }
    rows
}

/// Each size beside the smallest.
fn rows(
    windows: &[Window],
    subject: &str,
    reference: &str,
    scenarios: &[Scenario],
    what: &str,
    metric: Metric,
) -> Vec<Row> {
    let Some((first, larger)) = scenarios.split_first() else { return Vec::new() };
    let row = |size: &Scenario| line(windows, subject, reference, [&first.name, &size.name], what, metric);
    larger.iter().map(row).collect()
}

/// A size beside another, of the same block, and what becomes of the reference meanwhile; none where its name is empty.
fn line(
    windows: &[Window],
    subject: &str,
    reference: &str,
    [first, size]: [&str; 2],
    what: &str,
    metric: Metric,
) -> Row {
    let grown = |subject| growth(windows, subject, first, size, metric);
    let called = |shape: &str| shape.split_once('-').map_or("", |(_, size)| size).replace('-', " ");
    let what = format!("{subject}: {what} with {}, beside that with {}", called(size), called(first));
    let target = Target::AtMost(FLAT);
    Row::beside(NUMBER, &what, "×", target, reference, &grown(subject), &grown(reference))
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
        assert_eq!(by_publish_rooms().unwrap()[1].rooms.count, 5_100);
    }

    /// Clients are dealt to nodes in turn, members before services; room k has member k and service k, over and over.
    #[test]
    fn every_publish_changes_the_node() {
        for scenario in by_publish_rooms().unwrap() {
            let (rooms, services) = (scenario.rooms.count, scenario.traffic.services);
            let members = rooms / scenario.rooms.per_client;
            assert_eq!(members * scenario.rooms.per_client, rooms);
            for room in 0..rooms {
                let (member, service) = (room % members, members + room % services);
                assert_ne!(member % 2, service % 2, "room {room} of {rooms}");
            }
        }
    }

    fn window(subject: &str, size: u64, block: u32, cpu_s: f64) -> Window {
        Window::sound(subject, &connections(size), block, cpu_s)
    }

    #[test]
    fn every_larger_size_has_a_line() {
        let windows = [
            window(MEMORY, 100, 1, 3.0),
            window(MEMORY, 1_000, 1, 3.3),
            window(MEMORY, 5_000, 1, 4.5),
            window(FLOOR, 100, 1, 2.0),
            window(FLOOR, 5_000, 1, 3.0),
        ];
        let rows = rows_by_connections(&windows, u64::MAX);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict(1)).collect();
        assert_eq!(verdicts, [Verdict::Met, Verdict::Missed, Verdict::Unknown]);
        assert_eq!(
            rows[0].what,
            "memory: a delivery's CPU with 1000 connections, beside that with 100 connections"
        );
        assert_eq!((rows[0].reference.len(), rows[1].reference.as_slice()), (0, &[1.5][..]));
    }

    #[test]
    fn what_does_not_fit_is_measured_once_and_meets_no_target() {
        let names: Vec<String> = by_connections(3_584).unwrap().into_iter().map(|one| one.name).collect();
        assert_eq!(names, [100, 1_000, 3_500].map(connections));
        let windows =
            [window(MEMORY, 100, 1, 3.0), window(MEMORY, 1_000, 1, 3.0), window(MEMORY, 3_500, 1, 3.0)];
        let rows = rows_by_connections(&windows, 3_584);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict(1)).collect();
        assert_eq!(verdicts, [Verdict::Met, Verdict::Unknown, Verdict::Shown, Verdict::Unknown]);
    }
}
