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
    Ok(f64::from(blocks) * (2.0 * alone + giant_s(ACCOMPANIED_S)? + beside))
}

fn giant_s(window_s: f64) -> Result<f64> {
    Ok(run_s(&giant(MEMBERS, "giant", window_s)?))
}

fn giant(members: u64, name: &str, window_s: f64) -> Result<Scenario> {
    shape("giant", name, &[("rooms.members", members as f64), ("duration_s", window_s)])
}

/// In each block the giant alone on both servers, then the small rooms without it and with it.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let members = fitting(MEMBERS, rig.connections_max.saturating_sub(BESIDE));
    if members != MEMBERS {
        found.note(format!(
            "a giant of {members} in place of {MEMBERS}: more open files are not allowed here (`ulimit -n`)"
        ));
    }
    let (alone, accompanied) =
        (giant(members, "giant", ALONE_S)?, giant(members, "giant-accompanied", ACCOMPANIED_S)?);
    let beside = shape("beside", "beside", &[])?;
    let with = shape("beside", "beside-giant", &[])?;
    let floor = Subject::floor(&rig.generator, false)?;
    let memory = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
    let (mut last, mut small) = (Vec::new(), Vec::new());
    for block in rig.blocks() {
        let mut of_block = [None, None];
        for subject in rig.shuffled(vec![&floor, &memory], "giant", block) {
            let taken = found.window(rig, subject, &alone, block)?;
            let last_us = taken.and_then(|taken| usable(&taken, taken.window.last_member_us_p50));
            of_block[usize::from(subject.name == FLOOR)] = last_us;
        }
        last.extend(of_block[0].zip(of_block[1]));
        let without = found.window(rig, &memory, &beside, block)?;
        let without = without.and_then(|taken| usable(&taken, taken.window.delivery_us_p99));
        let what = format!("block {block}, beside the giant");
        rig.progress.note(&what);
        let taken = found.or_note(&what, together(rig, &memory, &accompanied, &with, block))?;
        let with = taken.map(|taken| found.keep(&what, taken));
        let with = with.and_then(|taken| usable(&taken, taken.window.delivery_us_p99));
        small.extend(with.zip(without));
    }
    let what = format!("last of {members} members, median over messages");
    found.rows.push(Row::paired(NUMBER, &what, "ms", Target::Ratio(LAST_MEMBER_MAX), FLOOR, &last));
    let what = "small rooms' p99 on the same node, with the giant";
    found.rows.push(Row::paired(NUMBER, what, "ms", Target::Ratio(BESIDE_MAX), "without it", &small));
    Ok(())
}

/// A latency in milliseconds, of a window that may be used.
fn usable(taken: &Taken, us: Option<u64>) -> Option<f64> {
    us.filter(|_| taken.window.is_usable()).map(|us| us as f64 / 1e3)
}

/// The small rooms' window within the giant's: they start once the giant's messages flow, and end before it.
fn together(rig: &Rig, memory: &Subject, giant: &Scenario, beside: &Scenario, block: u32) -> Result<Taken> {
    let around = Edges::new(memory, Counters::NONE, Arc::clone(&rig.cancel));
    let small = std::thread::scope(|scope| {
        let giant = scope.spawn(|| rig.run(memory, giant, block, &around));
        let deadline = Instant::now() + JOIN_WITHIN;
        while around.opened().is_none() && !giant.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let small = around.opened().is_some().then(|| rig.window(memory, beside, block));
        let giant = giant.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        giant.map(|_| small)
    })?;
    small.context("the giant's members did not join in time")?
}
