//! Number 7, what a connection costs when there are many: memory, and the CPU of its joining.
//!
//! What the first connections make a server do for the first time (read its code, set up its tables) is no cost of theirs: what
//! counts is how much more a larger crowd takes than a smaller one. Nobody is pinged meanwhile: a large crowd takes longer to
//! come, and would have the more pings.

use std::collections::BTreeMap;

use anyhow::Result;

use super::crowd::{Crowd, GLANCE_S, bare, gather, idle};
use super::found::Found;
use super::growth::{FLAT, NUMBER};
use super::limits::fitting;
use super::record::{Row, Target};
use super::rig::Rig;
use super::shapes::run_s;
use super::subject::{MEMORY, NO_HISTORY, Subject};

/// Connections: from the first to the second each costs so much, and from there to the third?
const SIZES: [u64; 3] = [100, 1_000, 20_000];

/// Pings that come after everything is over: the longest interval that a node takes.
const NO_PINGS: [&str; 2] = ["--ping-interval-ms", "180000"];

/// A server's crowds of a block, by their connections.
type Crowds = BTreeMap<u64, Crowd>;

/// What a block brought.
#[derive(Debug, Default)]
struct Block {
    memory: Crowds,
    floor: Crowds,
}

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32, connections_max: u64) -> Result<f64> {
    let runs = sizes(connections_max).into_iter().map(|size| Ok(run_s(&idle(size, GLANCE_S)?)));
    Ok(f64::from(blocks) * 2.0 * runs.sum::<Result<f64>>()?)
}

fn sizes(connections_max: u64) -> Vec<u64> {
    let mut sizes = SIZES.map(|size| fitting(size, connections_max)).to_vec();
    sizes.dedup();
    sizes
}

/// Its lines before anything was measured.
pub(super) fn lines(rig: &Rig) -> Vec<Row> {
    rows(&[], rig.connections_max)
}

/// A process of its own for every crowd: what an earlier one left behind is nobody's cost here.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let mut blocks = Vec::new();
    let outcome = rig.blocks().try_for_each(|number| {
        let mut block = Block::default();
        let outcome = block.take(rig, found, number);
        blocks.push(block);
        outcome
    });
    found.rows.extend(rows(&blocks, rig.connections_max));
    outcome
}

impl Block {
    fn take(&mut self, rig: &Rig, found: &mut Found, number: u32) -> Result<()> {
        for size in rig.shuffled(sizes(rig.connections_max), "per connection", number) {
            let scenario = idle(size, GLANCE_S)?;
            let mut crowd_of = |server: &Subject| {
                let crowd = gather(rig, found, server, &scenario, &bare(server)?, number)?;
                Ok::<_, anyhow::Error>(crowd.map(|crowd| (size, crowd)))
            };
            for is_floor in rig.shuffled(vec![false, true], &scenario.name, number) {
                if is_floor {
                    self.floor.extend(crowd_of(&Subject::floor(&rig.generator, false)?)?);
                } else {
                    let node = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &NO_PINGS)?;
                    self.memory.extend(crowd_of(&node)?);
                }
            }
        }
        Ok(())
    }
}

fn rows(blocks: &[Block], connections_max: u64) -> Vec<Row> {
    let [first, second, third] = SIZES;
    let line = |what: &str, unit: &str, of: fn(&Block) -> &Crowds, cost: fn(&Crowd) -> f64, last: u64| {
        let pair = |block: &Block| {
            let few = each(of(block), first, second, cost)?;
            let many = each(of(block), second, last, cost)?;
            (few > 0.0).then_some((many, few))
        };
        let pairs: Vec<(f64, f64)> = blocks.iter().filter_map(pair).collect();
        let what = format!("{what} of each connection from {second} to {last}");
        let before = format!("from {first} to {second}");
        Row::paired(NUMBER, &what, unit, Target::Ratio(FLAT), &before, &pairs)
    };
    let had = fitting(third, connections_max);
    let resident = |last| line("memory: resident memory", "KiB", |one| &one.memory, |crowd| crowd.kib, last);
    let joining = |last| line("memory: CPU to join", "µs", |one| &one.memory, |crowd| crowd.joining_us, last);
    let mut rows = [Row::of_size(third, had, resident), Row::of_size(third, had, joining)].concat();
    // It has no target of its own: it shows what of the growth is the kernel's.
    let floors = line("floor: CPU to join", "µs", |one| &one.floor, |crowd| crowd.joining_us, had);
    rows.push(Row { target: Target::Shown, ..floors });
    rows
}

/// What each connection costs that a crowd has more than a smaller one.
fn each(crowds: &Crowds, smaller: u64, larger: u64, cost: fn(&Crowd) -> f64) -> Option<f64> {
    let (smaller, larger) = (crowds.get(&smaller)?, crowds.get(&larger)?);
    let more = larger.clients - smaller.clients;
    (more > 0.0).then(|| (cost(larger) - cost(smaller)) / more)
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    /// 5 MiB and 20 ms once; then so much for each.
    fn crowds(sizes: &[u64], kib: f64, us: f64) -> Crowds {
        let crowd = |size: &u64| {
            let clients = *size as f64;
            let (kib, joining_us) = (5_120.0 + kib * clients, 20_000.0 + us * clients);
            (*size, Crowd { clients, kib, joining_us, cpu_percent: 0.1 })
        };
        sizes.iter().map(crowd).collect()
    }

    #[test]
    fn what_comes_once_is_no_cost_of_a_connection() {
        let mut slowing = crowds(&SIZES, 2.0, 60.0);
        // From 1,000 on each takes half as much CPU again.
        slowing.get_mut(&20_000).unwrap().joining_us += 19_000.0 * 30.0;
        let blocks = [Block { memory: slowing, floor: crowds(&SIZES, 1.0, 20.0) }];
        let [memory, cpu, floor] = <[Row; 3]>::try_from(rows(&blocks, u64::MAX)).unwrap();
        assert!((memory.ours[0] - 2.0).abs() < 1e-6 && (memory.reference[0] - 2.0).abs() < 1e-6);
        assert_eq!((memory.verdict(1), cpu.verdict(1)), (Verdict::Met, Verdict::Missed));
        assert!((cpu.figure().unwrap().median - 1.5).abs() < 1e-6);
        assert!((floor.ours[0] - 20.0).abs() < 1e-6 && floor.verdict(1) == Verdict::Shown);
    }

    #[test]
    fn fewer_connections_leave_the_target_open() {
        let sizes = sizes(3_584);
        assert_eq!(sizes, [100, 1_000, 3_500]);
        let blocks = [Block { memory: crowds(&sizes, 2.0, 60.0), floor: crowds(&sizes, 1.0, 20.0) }];
        let rows = rows(&blocks, 3_584);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict(1)).collect();
        let (open, shown) = (Verdict::Unknown, Verdict::Shown);
        assert_eq!(verdicts, [open, shown, open, shown, shown]);
        assert_eq!((rows[0].ours.len(), rows[1].ours.len()), (0, 1));
        let before = super::rows(&[], u64::MAX);
        assert!(before.iter().all(|row| row.ours.is_empty() && row.verdict(1) != Verdict::Met));
    }
}
