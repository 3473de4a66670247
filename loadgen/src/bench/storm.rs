//! Number 6: 10,000 clients come at once, to a node on which 200 are talking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::counters::Counters;
use super::found::Found;
use super::ladder::worst_p99_us;
use super::limits::fitting;
use super::meter::Reading;
use super::record::{Row, Target};
use super::rig::{Edges, Rig, Taken};
use super::shapes::{clients, run_s, shape};
use super::subject::{FLOOR, MEMORY, Subject};
use super::verdict::OfBlock;
use crate::scenario::Scenario;

const NUMBER: u8 = 6;
/// Who comes.
const CLIENTS: u64 = 10_000;
/// Rooms of each.
const ROOMS_EACH: f64 = 3.0;
/// Server CPU from accept to the third subscribe reply, microseconds.
const US_MAX: f64 = 80.0;
/// p99 of those who were there, milliseconds.
const P99_MS_MAX: f64 = 250.0;
/// The talk goes on for so long: before, during and after the storm.
const TALK_S: f64 = 12.0;
/// Of that, before the storm: what the talk alone costs is measured in it.
const BEFORE: Duration = Duration::from_secs(2);
/// Longest wait for those who talk to join.
const JOIN_WITHIN: Duration = Duration::from_secs(30);

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    Ok(f64::from(blocks) * 2.0 * run_s(&talk()?))
}

fn talk() -> Result<Scenario> {
    shape("beside", "beside-storm", &[("duration_s", TALK_S)])
}

/// What the blocks brought.
#[derive(Debug, Default)]
struct Values {
    cost: Vec<OfBlock>,
    floors: Vec<OfBlock>,
    p99_ms: Vec<f64>,
    took_s: Vec<f64>,
}

/// Its lines before anything was measured.
pub(super) fn lines(rig: &Rig) -> Vec<Row> {
    rows(crowd(rig), &Values::default())
}

/// As many as fit.
fn crowd(rig: &Rig) -> u64 {
    fitting(CLIENTS, rig.connections_max.saturating_sub(200))
}

fn rows(count: u64, values: &Values) -> Vec<Row> {
    let cost = |count: u64| {
        let what = format!("server CPU, accept to third subscribe reply, {count} clients");
        let target = Target::AtMost(US_MAX);
        Row::beside(NUMBER, &what, "µs per client", target, FLOOR, &values.cost, &values.floors)
    };
    let p99 = |count: u64| {
        let what = format!("worst second's p99 of 200 connected clients while {count} come");
        Row::plain(NUMBER, &what, "ms", Target::AtMost(P99_MS_MAX), values.p99_ms.clone())
    };
    let took = Row::plain(NUMBER, "until the last had joined", "s", Target::Shown, values.took_s.clone());
    [Row::of_size(CLIENTS, count, cost), Row::of_size(CLIENTS, count, p99), vec![took]].concat()
}

/// A storm on a fresh server for each of ours and the floor, per block.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let count = crowd(rig);
    if count != CLIENTS {
        found.note(format!(
            "a storm of {count} in place of {CLIENTS}: more open files are not allowed here (`ulimit -n`)"
        ));
    }
    let mut values = Values::default();
    let outcome = take(rig, found, count, &mut values);
    found.rows.extend(rows(count, &values));
    outcome
}

fn take(rig: &Rig, found: &mut Found, count: u64, values: &mut Values) -> Result<()> {
    let rooms = (count as f64 * ROOMS_EACH / 10.0).round();
    let (talk, storm) = (talk()?, shape("storm", "storm", &[("rooms.count", rooms)])?);
    for block in rig.blocks() {
        for name in rig.shuffled(vec![MEMORY, FLOOR], "storm", block) {
            let what = format!("block {block}, storm, {name}");
            rig.progress.note(&what);
            let subject = if name == FLOOR {
                Subject::floor(&rig.generator, false)?
            } else {
                Subject::memory(&rig.server, MEMORY, &[], &[])?
            };
            let Some(one) = found.or_note(&what, weather(rig, &subject, &talk, &storm, block))? else {
                continue;
            };
            let talk = found.keep(&format!("{what}, those who talk"), one.talk);
            let storm = found.keep(&what, one.storm);
            if !one.nested {
                found.note(format!("{what}: left out; the last had not joined when those who talk ended"));
            }
            if !(one.nested && talk.window.is_usable() && storm.window.is_usable()) {
                continue;
            }
            if name == FLOOR {
                values.floors.push((block, one.us_per_client));
                continue;
            }
            values.cost.push((block, one.us_per_client));
            values.took_s.push(one.took_s);
            let worst = worst_p99_us(&talk.measured.series, one.from_s, one.from_s + one.took_s);
            values.p99_ms.extend(worst.map(|us| us as f64 / 1e3));
        }
    }
    Ok(())
}

/// What a storm did.
struct Weather {
    talk: Taken,
    storm: Taken,
    /// Whether the talk went on until the last had joined.
    nested: bool,
    /// When it began, on the talk's clock.
    from_s: f64,
    took_s: f64,
    us_per_client: f64,
}

/// People talk; then the storm; the server's CPU of the storm less what the talk costs.
fn weather(rig: &Rig, subject: &Subject, talk: &Scenario, storm: &Scenario, block: u32) -> Result<Weather> {
    let around = Edges::new(subject, Counters::NONE, Arc::clone(&rig.cancel));
    let inside = Edges::new(subject, Counters::NONE, Arc::clone(&rig.cancel));
    let pid = subject.servers().next().context("no server")?.pid();
    std::thread::scope(|scope| {
        let talking = scope.spawn(|| rig.run(subject, talk, block, &around));
        let deadline = Instant::now() + JOIN_WITHIN;
        while around.opened().is_none() && !talking.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // An inner function, so that whatever fails in it the talk is joined.
        let storm = storming(rig, subject, storm, block, &around, &inside, pid);
        let talked = talking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let storm = storm?;
        Ok(Weather {
            talk: talked?,
            nested: around.closed().is_some_and(|closed| storm.joined <= closed),
            from_s: storm.from.as_secs_f64() + talk.warm_up_s,
            took_s: storm.took.as_secs_f64(),
            us_per_client: storm.us_per_client,
            storm: storm.taken,
        })
    })
}

/// The storm itself.
struct Storm {
    taken: Taken,
    /// From the opening of the talk's window to its beginning.
    from: Duration,
    took: Duration,
    /// When the last had joined.
    joined: Instant,
    us_per_client: f64,
}

/// Waits to learn what the talk costs; then lets the storm come.
fn storming(
    rig: &Rig,
    subject: &Subject,
    storm: &Scenario,
    block: u32,
    around: &Edges,
    inside: &Edges,
    pid: u32,
) -> Result<Storm> {
    let opened = around.opened().context("those who talk did not join in time")?;
    let gone = "the server has ended";
    let (calm, began_calm) = (Reading::now(pid).context(gone)?, Instant::now());
    std::thread::sleep(BEFORE);
    let (before, began) = (Reading::now(pid).context(gone)?, Instant::now());
    let talk_share = before.since(&calm).cpu_s / (began - began_calm).as_secs_f64();
    let over = AtomicBool::new(false);
    let (taken, watch) = std::thread::scope(|scope| {
        // The storm's window opens when the last of its clients has joined: the server is read within 5 ms of that.
        let reader = scope.spawn(|| {
            while inside.opened().is_none() && !over.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(5));
            }
            Some((Reading::now(pid)?, inside.opened()?))
        });
        let outcome = rig.run(subject, storm, block, inside);
        over.store(true, Ordering::Release);
        let read = reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome.map(|taken| (taken, read))
    })?;
    let (after, joined) = watch.context(gone)?;
    let took = joined.saturating_duration_since(began);
    let storm_s = after.since(&before).cpu_s - talk_share * took.as_secs_f64();
    Ok(Storm {
        taken,
        from: began.saturating_duration_since(opened),
        took,
        joined,
        us_per_client: storm_s.max(0.0) * 1e6 / clients(storm),
    })
}
