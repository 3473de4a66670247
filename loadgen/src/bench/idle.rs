//! Number 4: what a connection costs that does nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use super::crowd::{Crowd, GLANCE_S, QUICK_PINGS, bare, gather, idle};
use super::found::Found;
use super::limits::fitting;
use super::record::{Row, Target};
use super::rig::Rig;
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, HISTORY, MEMORY, NO_HISTORY, Subject};
use super::verdict::OfBlock;
use crate::scenario::Scenario;

const NUMBER: u8 = 4;
/// KiB resident per connection.
const KIB_MAX: f64 = 4.0;
/// Of that, after traffic.
const AFTER_TRAFFIC_MAX: f64 = 1.5;
/// Share of a core, in percent.
const CPU_PERCENT_MAX: f64 = 1.0;
/// Connections of the two sizes.
const SIZES: [u64; 2] = [10_000, 20_000];
/// Each connection is pinged once in such a window, by default.
const WINDOW_S: f64 = 25.0;
/// Bytes of payload that the rooms' histories remember after the burst.
const REMEMBERED_BYTES: f64 = 20_000.0 * 2_000.0;

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let idle = |connections, window_s| Ok::<f64, anyhow::Error>(run_s(&idle(connections, window_s)?));
    let crowds = idle(SIZES[0], WINDOW_S)? + 2.0 * idle(SIZES[0], GLANCE_S)? + idle(SIZES[1], GLANCE_S)?;
    Ok(f64::from(blocks) * (crowds + 2.0 * run_s(&burst(SIZES[0])?)))
}

/// As many connections, lively for a while and then quiet.
fn burst(connections: u64) -> Result<Scenario> {
    shape("burst", "burst", &[("rooms.count", (connections as f64 / 10.0).ceil())])
}

/// What a block brought.
#[derive(Debug, Default)]
struct Block {
    number: u32,
    /// With history and pings, by connections.
    crowds: BTreeMap<u64, Crowd>,
    floor: Option<Crowd>,
    /// One process, before traffic and after it: without history, and with.
    forgetful: [Option<Crowd>; 2],
    remembering: [Option<Crowd>; 2],
}

/// Its lines before anything was measured.
pub(super) fn lines(rig: &Rig) -> Vec<Row> {
    rows(&[], rig.connections_max)
}

/// A process of its own for every reading, but for what becomes of one after traffic: what an earlier crowd left behind is
/// nobody's cost here.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    for (wanted, size) in SIZES.map(|size| (size, fitting(size, rig.connections_max))) {
        if wanted != size {
            found.note(format!(
                "{size} connections in place of {wanted}: more open files are not allowed here (`ulimit -n`)"
            ));
        }
    }
    let mut blocks = Vec::new();
    let outcome = rig.blocks().try_for_each(|number| {
        let mut block = Block { number, ..Block::default() };
        let outcome = block.take(rig, found);
        blocks.push(block);
        outcome
    });
    found.rows.extend(rows(&blocks, rig.connections_max));
    outcome
}

impl Block {
    fn take(&mut self, rig: &Rig, found: &mut Found) -> Result<()> {
        let [first, second] = SIZES.map(|size| fitting(size, rig.connections_max));
        let (watched, glance, burst) = (idle(first, WINDOW_S)?, idle(first, GLANCE_S)?, burst(first)?);

        let node = Subject::memory(&rig.server, HISTORY, &[], &[])?;
        self.remembering = self.around(rig, found, &node, &watched, &burst)?;
        self.crowds.extend(self.remembering[0].map(|crowd| (first, crowd)));
        drop(node);

        if second != first {
            let node = Subject::memory(&rig.server, HISTORY, &[], &QUICK_PINGS)?;
            let crowd = gather(rig, found, &node, &idle(second, GLANCE_S)?, &bare(&node)?, self.number)?;
            self.crowds.extend(crowd.map(|crowd| (second, crowd)));
        }
        let floor = Subject::floor(&rig.generator, false)?;
        self.floor = gather(rig, found, &floor, &glance, &bare(&floor)?, self.number)?;
        drop(floor);

        // What rooms remember is meant to stay, and has a limit of its own.
        let node = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &QUICK_PINGS)?;
        self.forgetful = self.around(rig, found, &node, &glance, &burst)?;
        Ok(())
    }

    /// An idle crowd, and then on the same process one that was lively: both above what the process took before either.
    fn around(
        &self,
        rig: &Rig,
        found: &mut Found,
        node: &Subject,
        idle: &Scenario,
        burst: &Scenario,
    ) -> Result<[Option<Crowd>; 2]> {
        let bare = bare(node)?;
        let before = gather(rig, found, node, idle, &bare, self.number)?;
        Ok([before, gather(rig, found, node, burst, &bare, self.number)?])
    }
}

fn rows(blocks: &[Block], connections_max: u64) -> Vec<Row> {
    let [first, second] = SIZES.map(|size| fitting(size, connections_max));
    let floors = of_blocks(blocks, |block| Some(block.floor?.kib_each()));
    let resident = |size: u64| {
        let ours = of_blocks(blocks, |block| Some(block.crowds.get(&size)?.kib_each()));
        let (beside, floors) = if size == first { (FLOOR, floors.as_slice()) } else { ("", &[][..]) };
        let what = format!("resident per idle connection, {size} of them, history and pings on");
        Row::beside(NUMBER, &what, "KiB", Target::AtMost(KIB_MAX), beside, &ours, floors)
    };
    let after = |what: &str, target: Target, of: fn(&Block) -> [Option<Crowd>; 2]| {
        let pair = |block: &Block| {
            let [before, after] = of(block);
            Some((after?.kib_each(), before?.kib_each()))
        };
        let pairs: Vec<(f64, f64)> = blocks.iter().filter_map(pair).collect();
        Row::paired(NUMBER, what, "KiB", target, "before traffic", &pairs)
    };
    let forgetful = |size: u64| {
        let what = format!(
            "the same without history, {size} of them, after 4 s of 50,000 deliveries/s of 2,000 bytes, then quiet"
        );
        after(&what, Target::Ratio(AFTER_TRAFFIC_MAX), |block| block.forgetful)
    };
    let idling = |size: u64| {
        let percent = of_blocks(blocks, |block| Some(block.crowds.get(&size)?.cpu_percent));
        let percent = percent.into_iter().map(|(_, value)| value).collect();
        let what = format!("CPU of the idle node, {size} connections, each pinged every 25 s");
        Row::plain(NUMBER, &what, "% of a core", Target::AtMost(CPU_PERCENT_MAX), percent)
    };
    let mut rows = Row::of_size(SIZES[0], first, resident);
    rows.extend(Row::of_size(SIZES[1], second, resident));
    rows.extend(Row::of_size(SIZES[0], first, forgetful));
    let what = format!(
        "the same with history: 20,000 messages are remembered for ten minutes, {:.1} KiB per connection",
        REMEMBERED_BYTES / first as f64 / 1024.0
    );
    rows.push(after(&what, Target::Shown, |block| block.remembering));
    rows.extend(Row::of_size(SIZES[0], first, idling));
    // Where both sizes do not fit, what was measured in their place is one crowd.
    let mut known = BTreeSet::new();
    rows.retain(|row| known.insert(row.what.clone()));
    rows
}

/// A value of each block that has it.
fn of_blocks(blocks: &[Block], value: impl Fn(&Block) -> Option<f64>) -> Vec<OfBlock> {
    blocks.iter().filter_map(|block| Some((block.number, value(block)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    fn crowd(kib_each: f64) -> Crowd {
        Crowd { clients: 10.0, kib: kib_each * 10.0, joining_us: 0.0, cpu_percent: 0.5 }
    }

    #[test]
    fn a_crowd_is_held_against_the_same_block_and_process() {
        let first = Block {
            number: 1,
            crowds: [(10_000, crowd(3.0)), (20_000, crowd(5.0))].into(),
            forgetful: [Some(crowd(2.0)), Some(crowd(4.0))],
            ..Block::default()
        };
        let second = Block {
            number: 2,
            crowds: [(10_000, crowd(3.0))].into(),
            floor: Some(crowd(0.1)),
            forgetful: [None, Some(crowd(9.0))],
            ..Block::default()
        };
        let rows = rows(&[first, second], u64::MAX);
        let verdicts: Vec<Verdict> = rows.iter().map(|row| row.verdict(1)).collect();
        use Verdict::{Met, Missed, Shown};
        assert_eq!(verdicts, [Met, Missed, Missed, Shown, Met]);
        assert!((rows[0].ratio().unwrap().median - 30.0).abs() < 1e-6, "{:?}", rows[0]);
        assert_eq!((rows[2].ours.as_slice(), rows[2].reference.as_slice()), (&[4.0][..], &[2.0][..]));
    }

    #[test]
    fn fewer_connections_leave_the_targets_open() {
        let block = Block { number: 1, crowds: [(3_500, crowd(3.0))].into(), ..Block::default() };
        let rows = rows(&[block], 3_584);
        let resident: Vec<_> = rows.iter().filter(|row| row.what.starts_with("resident")).collect();
        let verdicts: Vec<Verdict> = resident.iter().map(|row| row.verdict(1)).collect();
        assert_eq!(verdicts, [Verdict::Unknown, Verdict::Shown, Verdict::Unknown]);
        assert_eq!(resident[1].ours, [3.0]);
        let open = super::rows(&[], u64::MAX);
        assert!(open.iter().all(|row| matches!(row.verdict(1), Verdict::Unknown | Verdict::Shown)));
    }
}
