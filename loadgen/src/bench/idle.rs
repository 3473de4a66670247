//! Number 4: what a connection costs that does nothing.

use anyhow::{Context as _, Result};

use super::found::Found;
use super::growth::FLAT;
use super::limits::fitting;
use super::meter::Reading;
use super::record::{Row, Target};
use super::rig::Rig;
use super::shapes::{clients, run_s, shape};
use super::subject::{FLOOR, HISTORY, MEMORY, NO_HISTORY, Subject};
use crate::scenario::Scenario;

const NUMBER: u8 = 4;
/// The same readings tell what becomes of a connection's memory when there are more.
const GROWTH_NUMBER: u8 = 7;
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
/// Where only memory is looked at.
const GLANCE_S: f64 = 3.0;

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let size = |connections, window_s| Ok::<f64, anyhow::Error>(run_s(&idle(connections, window_s)?));
    let each = size(SIZES[0], WINDOW_S)? + size(SIZES[0], GLANCE_S)? + size(SIZES[1], GLANCE_S)?;
    Ok(f64::from(blocks) * (each + 2.0 * run_s(&shape("burst", "burst", &[])?)))
}

fn idle(connections: u64, window_s: f64) -> Result<Scenario> {
    let rooms = (connections as f64 / 10.0).ceil();
    shape("idle", &format!("idle-{connections}"), &[("rooms.count", rooms), ("duration_s", window_s)])
}

/// A process of its own for every reading: what an earlier crowd left behind is nobody's cost here.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let sizes = SIZES.map(|size| fitting(size, rig.connections_max));
    for (wanted, size) in SIZES.into_iter().zip(sizes).filter(|(wanted, size)| wanted != size) {
        found.note(format!(
            "{size} connections in place of {wanted}: more open files are not allowed here (`ulimit -n`)"
        ));
    }
    let (mut kib, mut floors, mut percent) = ([Vec::new(), Vec::new()], Vec::new(), Vec::new());
    let (mut after, mut remembering) = (Vec::new(), Vec::new());
    for block in rig.blocks() {
        let memory = || Subject::memory(&rig.server, HISTORY, &[], &[]);
        let mut before = None;
        for (place, size) in sizes.into_iter().enumerate() {
            let window_s = if place == 0 { WINDOW_S } else { GLANCE_S };
            let scenario = idle(size, window_s)?;
            if let Some(one) = resident(rig, found, &memory()?, &scenario, block)? {
                kib[place].push(one.kib);
                if place == 0 {
                    percent.push(one.cpu_percent);
                    before = Some(one.kib);
                }
            }
        }
        let floor = Subject::floor(&rig.generator, false)?;
        let one = resident(rig, found, &floor, &idle(sizes[0], GLANCE_S)?, block)?;
        floors.extend(one.map(|one| one.kib));
        let burst = shape("burst", "burst", &[("rooms.count", (sizes[0] as f64 / 10.0).ceil())])?;
        // What rooms remember is meant to stay, and has a limit of its own.
        let forgetful = Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?;
        let one = resident(rig, found, &forgetful, &burst, block)?;
        after.extend(one.map(|one| one.kib).zip(before));
        drop(forgetful);
        let one = resident(rig, found, &memory()?, &burst, block)?;
        remembering.extend(one.map(|one| one.kib).zip(before));
    }
    let [first, second] = kib;
    let grown = first.iter().zip(&second).map(|(first, second)| second / first).collect();
    let what = format!("memory per connection with {} connections, beside that with {}", sizes[1], sizes[0]);
    found.rows.push(Row::plain(GROWTH_NUMBER, &what, "×", Target::AtMost(FLAT), grown));
    let line = |size: u64| format!("resident per idle connection, {size} of them, history and pings on");
    let row = Row::plain(NUMBER, &line(sizes[0]), "KiB", Target::AtMost(KIB_MAX), first);
    found.rows.push(Row { reference_name: FLOOR.to_owned(), reference: floors, ..row });
    found.rows.push(Row::plain(NUMBER, &line(sizes[1]), "KiB", Target::AtMost(KIB_MAX), second));
    let what = "the same after 4 s of 50,000 deliveries/s of 2,000 bytes, then quiet";
    let target = Target::Ratio(AFTER_TRAFFIC_MAX);
    found.rows.push(Row::paired(NUMBER, what, "KiB", target, "before traffic", &after));
    let what = "the same with history: 20,000 messages are remembered for ten minutes, 4 KiB per connection";
    found.rows.push(Row::paired(NUMBER, what, "KiB", Target::Shown, "before traffic", &remembering));
    let what = format!("CPU of the idle node, {} connections, each pinged every 25 s", sizes[0]);
    let target = Target::AtMost(CPU_PERCENT_MAX);
    found.rows.push(Row::plain(NUMBER, &what, "% of a core", target, percent));
    Ok(())
}

struct Resident {
    kib: f64,
    cpu_percent: f64,
}

/// Memory per connection of a server that has just been started, and what it used of a core.
fn resident(
    rig: &Rig,
    found: &mut Found,
    subject: &Subject,
    scenario: &Scenario,
    block: u32,
) -> Result<Option<Resident>> {
    let bare: u64 = subject
        .servers()
        .map(|process| Reading::now(process.pid()).map(|reading| reading.resident_bytes))
        .sum::<Option<u64>>()
        .context("the server has ended")?;
    let Some(taken) = found.window(rig, subject, scenario, block)? else { return Ok(None) };
    let window = taken.window;
    if !window.is_usable() {
        return Ok(None);
    }
    let grown = window.server_resident_bytes.saturating_sub(bare) as f64;
    Ok(Some(Resident {
        kib: grown / 1024.0 / clients(scenario).max(1.0),
        cpu_percent: window.server_cpu_s / window.window_s * 100.0,
    }))
}
