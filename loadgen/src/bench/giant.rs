//! Number 5: a room of 20,000 on one node, and the small rooms beside it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::counters::Counters;
use super::found::Found;
use super::limits::fitting;
use super::record::{Row, Target};
use super::rig::{Edges, Rig, Taken};
use super::shapes::{run_s, shape};
use super::subject::{FLOOR, MEMORY, NO_HISTORY, Subject};
use crate::scenario::Scenario;

const NUMBER: u8 = 5;
/// Members.
const MEMBERS: u64 = 20_000;
/// Connections of the small rooms.
const BESIDE: u64 = 200;
/// Last member, ours ÷ the floor's.
const LAST_MEMBER_MAX: f64 = 1.5;
/// p99 of the small rooms, with ÷ without the giant.
const BESIDE_MAX: f64 = 2.0;
/// Windows of the giant alone, and around that of the small rooms, which is shorter.
const ALONE_S: f64 = 4.0;
const ACCOMPANIED_S: f64 = 9.0;
/// Longest wait for the giant's members to join.
const JOIN_WITHIN: Duration = Duration::from_secs(150);

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let (alone, beside) = (giant_s(ALONE_S)?, run_s(&shape("beside", "beside", &[])?));
    Ok(f64::from(blocks) * (2.0 * alone + 2.0 * giant_s(ACCOMPANIED_S)? + beside))
}

fn giant_s(window_s: f64) -> Result<f64> {
    Ok(run_s(&giant(MEMBERS, "giant", window_s)?))
}

fn giant(members: u64, name: &str, window_s: f64) -> Result<Scenario> {
    shape("giant", name, &[("rooms.members", members as f64), ("duration_s", window_s)])
}

/// What the blocks brought, of the last member and of the small rooms: with the giant on their node, or elsewhere on the machine,
/// and without it.
#[derive(Debug, Default)]
struct Values {
    last: Vec<(f64, f64)>,
    small: Vec<(f64, f64)>,
    apart: Vec<(f64, f64)>,
}

/// Its lines before anything was measured.
pub(super) fn lines(rig: &Rig) -> Vec<Row> {
    rows(members(rig), &Values::default())
}

/// As many as fit.
fn members(rig: &Rig) -> u64 {
    fitting(MEMBERS, rig.connections_max.saturating_sub(BESIDE))
}

fn rows(members: u64, values: &Values) -> Vec<Row> {
    let last = |members: u64| {
        let what = format!("last of {members} members, median over messages");
        Row::paired(NUMBER, &what, "ms", Target::Ratio(LAST_MEMBER_MAX), FLOOR, &values.last)
    };
    let small = |members: u64| {
        let what = format!("small rooms' p99 on the same node, with a giant of {members}");
        Row::paired(NUMBER, &what, "ms", Target::Ratio(BESIDE_MAX), "without it", &values.small)
    };
    let mut rows = [Row::of_size(MEMBERS, members, last), Row::of_size(MEMBERS, members, small)].concat();
    let what = format!(
        "small rooms' p99 with the giant of {members} elsewhere, on the floor: what the machine alone takes"
    );
    rows.push(Row::paired(NUMBER, &what, "ms", Target::Shown, "without it", &values.apart));
    rows
}

/// In each block the giant alone on both servers, then the small rooms without it, and with it on their node and elsewhere.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let members = members(rig);
    if members != MEMBERS {
        found.note(format!(
            "a giant of {members} in place of {MEMBERS}: more open files are not allowed here (`ulimit -n`)"
        ));
    }
    let mut values = Values::default();
    let outcome = take(rig, found, members, &mut values);
    found.rows.extend(rows(members, &values));
    outcome
}

fn take(rig: &Rig, found: &mut Found, members: u64, values: &mut Values) -> Result<()> {
    let (alone, accompanied) =
        (giant(members, "giant", ALONE_S)?, giant(members, "giant-accompanied", ACCOMPANIED_S)?);
    let beside = shape("beside", "beside", &[])?;
    let (with, apart) =
        (shape("beside", "beside-giant", &[])?, shape("beside", "beside-giant-elsewhere", &[])?);
    let floor = Subject::floor(&rig.generator, false)?;
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    for block in rig.blocks() {
        let mut of_block = [None, None];
        for subject in rig.shuffled(vec![&floor, &memory], "giant", block) {
            let taken = found.window(rig, subject, &alone, block)?;
            let last_us = taken.and_then(|taken| usable(&taken, taken.window.last_member_us_p50));
            of_block[usize::from(subject.name == FLOOR)] = last_us;
        }
        values.last.extend(of_block[0].zip(of_block[1]));
        let without = found.window(rig, &memory, &beside, block)?;
        let without = without.and_then(|taken| usable(&taken, taken.window.delivery_us_p99));
        let places = [
            ("on their node", &memory, &with, &mut values.small),
            ("elsewhere", &floor, &apart, &mut values.apart),
        ];
        for (place, server, small, pairs) in rig.shuffled(places.into(), "beside", block) {
            let what = format!("block {block}, beside the giant {place}");
            rig.progress.note(&what);
            let both = together(rig, (server, &accompanied), (&memory, small), block);
            let Some(both) = found.or_note(&what, both)? else { continue };
            pairs.extend(both.small_p99_ms(found, &what).zip(without));
        }
    }
    Ok(())
}

/// A latency in milliseconds, of a window that may be used.
fn usable(taken: &Taken, us: Option<u64>) -> Option<f64> {
    us.filter(|_| taken.window.is_usable()).map(|us| us as f64 / 1e3)
}

/// The giant and the small rooms beside it.
struct Both {
    giant: Taken,
    small: Taken,
    /// Whether the small rooms' window lay within the giant's.
    nested: bool,
}

impl Both {
    /// The small rooms' p99, milliseconds, if it may be used. Both windows are kept.
    fn small_p99_ms(self, found: &mut Found, what: &str) -> Option<f64> {
        let giant = found.keep(&format!("{what}, the giant itself"), self.giant);
        let small = found.keep(what, self.small);
        if !self.nested {
            found.note(format!("{what}: left out; the small rooms were not within the giant's window"));
        }
        usable(&small, small.window.delivery_us_p99).filter(|_| self.nested && giant.window.is_usable())
    }
}

/// The small rooms' window within the giant's: they start once the giant's messages flow, and end before it.
fn together(
    rig: &Rig,
    (giant_at, giant): (&Subject, &Scenario),
    (small_at, beside): (&Subject, &Scenario),
    block: u32,
) -> Result<Both> {
    let around = Edges::new(giant_at, Counters::NONE, Arc::clone(&rig.cancel));
    let inside = Edges::new(small_at, Counters::NONE, Arc::clone(&rig.cancel));
    std::thread::scope(|scope| {
        let giant = scope.spawn(|| rig.run(giant_at, giant, block, &around));
        let deadline = Instant::now() + JOIN_WITHIN;
        while around.opened().is_none() && !giant.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let small = around.opened().is_some().then(|| rig.run(small_at, beside, block, &inside));
        let giant = giant.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        let small = small.context("the giant's members did not join in time")??;
        Ok(Both { giant, small, nested: inside.lay_within(&around) })
    })
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    #[test]
    fn a_smaller_giant_leaves_the_targets_open() {
        let values = Values { last: vec![(1.2, 1.0)], small: vec![(2.5, 1.0)], apart: vec![(2.2, 1.0)] };
        let verdicts =
            |members| -> Vec<Verdict> { rows(members, &values).iter().map(|row| row.verdict(1)).collect() };
        let (open, shown) = (Verdict::Unknown, Verdict::Shown);
        assert_eq!(verdicts(MEMBERS), [Verdict::Met, Verdict::Missed, shown]);
        assert_eq!(verdicts(18_000), [open, shown, open, shown, shown]);
    }
}
