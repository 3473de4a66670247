//! Number 7, what a connection costs when there are many: memory, and the CPU of its joining.
//!
//! What the first connections make a server do for the first time (read its code, set up its tables) is no cost of theirs: what
//! counts is how much more a larger crowd takes than a smaller one.

use std::collections::BTreeMap;

use anyhow::Result;

use super::crowd::{Crowd, GLANCE_S, QUICK_PINGS, bare, gather, idle};
use super::found::Found;
use super::growth::{FLAT, NUMBER};
use super::limits::fitting;
use super::record::{Row, Target};
use super::rig::Rig;
use super::shapes::run_s;
use super::subject::{MEMORY, NO_HISTORY, Subject};

/// Connections: from the first to the second each costs so much, and from there to the third?
const SIZES: [u64; 3] = [100, 1_000, 20_000];

/// Crowds of a block, by their connections.
type Crowds = BTreeMap<u64, Crowd>;

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32, connections_max: u64) -> Result<f64> {
    let runs = sizes(connections_max).into_iter().map(|size| Ok(run_s(&idle(size, GLANCE_S)?)));
    Ok(f64::from(blocks) * runs.sum::<Result<f64>>()?)
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
    let outcome = rig.blocks().try_for_each(|block| {
        let mut crowds = Crowds::new();
        let outcome = take(rig, found, block, &mut crowds);
        blocks.push(crowds);
        outcome
    });
    found.rows.extend(rows(&blocks, rig.connections_max));
    outcome
}

fn take(rig: &Rig, found: &mut Found, block: u32, crowds: &mut Crowds) -> Result<()> {
    for size in rig.shuffled(sizes(rig.connections_max), "per connection", block) {
        let node = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &QUICK_PINGS)?;
        let bare = bare(&node)?;
        let crowd = gather(rig, found, &node, &idle(size, GLANCE_S)?, &bare, block)?;
        crowds.extend(crowd.map(|crowd| (size, crowd)));
    }
    Ok(())
}

fn rows(blocks: &[Crowds], connections_max: u64) -> Vec<Row> {
    let [first, second, third] = SIZES;
    let line = |what: &str, unit: &str, cost: fn(&Crowd) -> f64, last: u64| {
        let pair = |crowds: &Crowds| {
            let few = each(crowds, first, second, cost)?;
            let many = each(crowds, second, last, cost)?;
            (few > 0.0).then_some((many, few))
        };
        let pairs: Vec<(f64, f64)> = blocks.iter().filter_map(pair).collect();
        let what = format!("memory: {what} of each connection from {second} to {last}");
        let before = format!("from {first} to {second}");
        Row::paired(NUMBER, &what, unit, Target::Ratio(FLAT), &before, &pairs)
    };
    let had = fitting(third, connections_max);
    let mut rows = Row::of_size(third, had, |last| line("resident memory", "KiB", |crowd| crowd.kib, last));
    rows.extend(Row::of_size(third, had, |last| line("CPU to join", "µs", |crowd| crowd.joining_us, last)));
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
        let mut block = crowds(&SIZES, 2.0, 60.0);
        // From 1,000 on each takes half as much CPU again.
        block.get_mut(&20_000).unwrap().joining_us += 19_000.0 * 30.0;
        let [memory, cpu] = <[Row; 2]>::try_from(rows(&[block], u64::MAX)).unwrap();
        assert!((memory.ours[0] - 2.0).abs() < 1e-6 && (memory.reference[0] - 2.0).abs() < 1e-6);
        assert_eq!((memory.verdict(1), cpu.verdict(1)), (Verdict::Met, Verdict::Missed));
        assert!((cpu.figure().unwrap().median - 1.5).abs() < 1e-6);
    }

    #[test]
    fn fewer_connections_leave_the_target_open() {
        let sizes = sizes(3_584);
        assert_eq!(sizes, [100, 1_000, 3_500]);
        let rows = rows(&[crowds(&sizes, 2.0, 60.0)], 3_584);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict(1)).collect();
        assert_eq!(verdicts, [Verdict::Unknown, Verdict::Shown, Verdict::Unknown, Verdict::Shown]);
        assert_eq!((rows[0].ours.len(), rows[1].ours.len()), (0, 1));
        assert!(super::rows(&[], u64::MAX).iter().all(|row| row.verdict(1) == Verdict::Unknown));
    }
}
