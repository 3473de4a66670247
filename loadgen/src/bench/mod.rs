//! What one delivery, one publish, one connection costs, beside a floor that does nothing but copy.
//!
//! A machine's speed wanders, so nothing here is compared across minutes: all subjects of a shape are up at the same time
//! and take turns in short windows, in another order in each block, and what counts is the *ratio within the block*:
//! its median and its range over blocks.
//!
//! What lives here: the shapes, the subjects, the seven numbers with their targets, counted runs, `bench.json` and its page.
//! What does not: load and audit (`engine`: every window is audited, a dirty one is no figure), strategies and servers
//! (child processes, seen from outside), the brokers' client libraries (a program of their own).

mod conditions;
mod counted_client;
mod counters;
mod counts;
mod crowd;
mod delivery;
mod found;
mod giant;
mod growth;
mod idle;
mod ladder;
mod limits;
mod meter;
mod overhead;
mod page;
mod per_connection;
mod pressure;
mod raw;
mod record;
mod rig;
#[cfg(test)]
mod schema_tests;
mod shapes;
mod storm;
mod subject;
mod verdict;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};

pub use conditions::Conditions;
pub use counts::{Change, Counted, Counts, TOLERANCE, count, instrument};
pub use page::{body, changes, page};
pub use record::{BENCH_VERSION, Bench, FrameShape, Instructions, Row, Target, Window};
pub use verdict::{Spread, Verdict};

use counters::Counters;
use found::Found;
use rig::Rig;
use subject::FLOOR;

use crate::campaign::{Entrant, Progress, is_cancelled, now_rfc3339};
use crate::probe::{Steal, hardware, tool};
use crate::record::Hardware;

/// The numbers, in the order in which they stand in the table.
pub const NUMBERS: [u8; 7] = [1, 2, 3, 4, 5, 6, 7];

/// Counting under valgrind, for the estimate.
const COUNTING_S: f64 = 120.0;
/// Starting and warming Kafka, for the estimate.
const WARMING_S: f64 = 40.0;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which of [`NUMBERS`].
    pub numbers: Vec<u8>,
    /// Blocks, at least 1.
    pub blocks: u32,
    /// Seed of order and load.
    pub seed: u64,
    /// The chat-server program, by its whole path.
    pub server: PathBuf,
    /// The bare clients' program; `None` looks beside this one.
    pub raw_clients: Option<PathBuf>,
    /// The command line that reproduces it.
    pub command: String,
}

impl Order {
    fn has(&self, number: u8) -> bool {
        self.numbers.contains(&number)
    }

    /// How long it will take, in seconds, roughly.
    ///
    /// # Errors
    /// A shape that is none: a mistake in this program.
    pub fn planned_s(&self) -> Result<f64> {
        let connections_max = limits::connections_max();
        let mut sum = 0.0;
        for number in &self.numbers {
            sum += match number {
                1 => delivery::planned_s(self.blocks)? + COUNTING_S,
                2 => pressure::planned_s(self.blocks)?,
                3 => overhead::planned_s(self.blocks)? + WARMING_S,
                4 => idle::planned_s(self.blocks)?,
                5 => giant::planned_s(self.blocks)?,
                6 => storm::planned_s(self.blocks)?,
                7 => {
                    let warming = if self.has(3) { 0.0 } else { WARMING_S };
                    growth::planned_s(self.blocks, connections_max)?
                        + growth::planned_publishes_s(self.blocks)?
                        + warming
                }
                _ => 0.0,
            };
        }
        Ok(sum)
    }
}

/// Measures what was ordered. Whatever fails on the way becomes a note and a line without a figure; when the person wants
/// to stop, what there is by then is returned, with a note that says so and the rest of the lines without figures.
///
/// # Errors
/// This program can't be found by its own path; a shape that is none: a mistake in this program.
pub fn run(order: &Order, cancel: &Arc<AtomicBool>, progress: &Arc<Progress>) -> Result<Bench> {
    let rig = Rig {
        server: order.server.clone(),
        generator: std::env::current_exe().context("cannot find this program's own path")?,
        raw_clients: raw::find(order.raw_clients.as_deref()),
        seed: order.seed,
        blocks: order.blocks,
        counters: Counters::probe(),
        connections_max: limits::connections_max(),
        cancel: Arc::clone(cancel),
        progress: Arc::clone(progress),
    };
    // Before anything else: a checkout may change within the hour.
    let (tool, started_at, machine, steal) = (tool(), now_rfc3339(), hardware(), Steal::now());
    let mut found = Found::default();
    let outcome = numbers(order, &rig, &mut found);
    let complete = outcome.is_ok();
    match outcome {
        Ok(()) => {}
        Err(error) if is_cancelled(&error) => found.note("interrupted: what follows was not measured"),
        Err(error) => found.note(format!("given up: {error:#}")),
    }
    for number in &order.numbers {
        found.complete(lines(*number, &rig)?);
    }
    let instructions = match () {
        () if rig.counters.instructions => Instructions::Hardware,
        () if !found.counted.is_empty() => Instructions::Callgrind,
        () => Instructions::None,
    };
    found.rows.sort_by_key(|row| row.number);
    found.brokers.sort_by(|one, other| one.name.cmp(&other.name));
    found.brokers.dedup_by(|one, other| one.name == other.name);
    Ok(Bench {
        bench_version: BENCH_VERSION,
        started_at,
        command: order.command.clone(),
        seed: order.seed,
        blocks: order.blocks,
        numbers: order.numbers.clone(),
        complete,
        hardware: Hardware { steal_share: steal.share_since(), ..machine },
        tool,
        brokers: found.brokers,
        instructions,
        frames: found.frames,
        rows: found.rows,
        windows: found.windows,
        counted: found.counted,
        notes: found.notes,
    })
}

/// The lines that a number is to have, without figures.
fn lines(number: u8, rig: &Rig) -> Result<Vec<Row>> {
    Ok(match number {
        1 => delivery::lines(),
        2 => pressure::lines(),
        3 => overhead::lines(),
        4 => idle::lines(rig),
        5 => giant::lines(rig),
        6 => storm::lines(rig),
        7 => growth::lines(rig)?,
        _ => Vec::new(),
    })
}

/// One number after the other; those that need Kafka last, so that its JVM idles beside nothing else.
fn numbers(order: &Order, rig: &Rig, found: &mut Found) -> Result<()> {
    type Measure = fn(&Rig, &mut Found) -> Result<()>;
    let alone: [(u8, Measure); 6] = [
        (1, delivery::measure),
        (2, pressure::measure),
        (4, idle::measure),
        (5, giant::measure),
        (6, storm::measure),
        (7, growth::measure),
    ];
    for (number, measure) in alone {
        if order.has(number) {
            rig.go_on()?;
            rig.progress.say(&format!("number {number}"));
            let outcome = measure(rig, found);
            found.or_note(&format!("number {number}"), outcome)?;
        }
        if number == 1 && order.has(1) && !rig.counters.instructions {
            counted(rig, found)?;
        }
    }
    let mut entrants: Vec<Entrant> = Vec::new();
    entrants.extend(order.has(3).then(overhead::entrants).into_iter().flatten());
    entrants.extend(order.has(7).then(growth::entrants).into_iter().flatten());
    if entrants.is_empty() {
        return Ok(());
    }
    rig.progress.say("numbers 3 and 7, with brokers");
    let brokers = overhead::warmed(rig, found, &entrants);
    let Some(brokers) = found.or_note("brokers", brokers)? else { return Ok(()) };
    if order.has(3) {
        let outcome = overhead::measure(rig, found, &brokers);
        found.or_note("number 3", outcome)?;
    }
    if order.has(7) {
        let outcome = growth::measure_publishes(rig, found, &brokers);
        found.or_note("number 7", outcome)?;
    }
    Ok(())
}

/// Where the machine counts no instructions, callgrind does, in runs of their own: user space alone, so no target is held
/// against it.
fn counted(rig: &Rig, found: &mut Found) -> Result<()> {
    found.note(
        "this machine counts no instructions for us: the lines marked callgrind are user space alone, of counted runs \
         with one message at a time, and the targets are held against CPU time",
    );
    let say = |text: &str| rig.progress.note(text);
    let attempt = count(&rig.server, &rig.generator, &rig.cancel, &say);
    let Some(counted) = found.or_note("counted runs", attempt)? else { return Ok(()) };
    for one in counted.iter().filter(|one| one.subject != FLOOR) {
        let floor = counted.iter().find(|other| other.subject == FLOOR && other.shape == one.shape);
        let Some(floor) = floor else { continue };
        let what = format!("{}, {}: user instructions by callgrind", one.subject, one.shape);
        let pair = [(one.instructions_per_delivery, floor.instructions_per_delivery)];
        found.rows.push(Row::paired(1, &what, "per delivery", Target::Shown, FLOOR, &pair));
    }
    found.counted = counted;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(numbers: &[u8], blocks: u32) -> Order {
        Order {
            numbers: numbers.to_vec(),
            blocks,
            seed: 1,
            server: PathBuf::new(),
            raw_clients: None,
            command: String::new(),
        }
    }

    #[test]
    fn what_is_stopped_has_all_its_lines() {
        let (rig, mut found) = (Rig::unplugged(5), Found::default());
        rig.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(is_cancelled(&numbers(&order(&NUMBERS, 5), &rig, &mut found).unwrap_err()));
        for number in NUMBERS {
            let lines = lines(number, &rig).unwrap();
            let targets = lines.iter().filter(|row| row.number == number && row.target != Target::Shown);
            assert!(targets.count() > 0, "number {number}");
            assert!(lines.iter().all(|row| row.ours.is_empty() && row.verdict(5) != Verdict::Met));
            found.complete(lines);
        }
        assert!(found.rows.len() > 50, "{}", found.rows.len());
    }

    #[test]
    fn the_whole_table_takes_what_a_person_can_wait_for() {
        let minutes = order(&NUMBERS, 5).planned_s().unwrap() / 60.0;
        assert!((5.0..50.0).contains(&minutes), "{minutes} minutes");
        let one = order(&[1], 1).planned_s().unwrap();
        assert!(one < order(&[1], 5).planned_s().unwrap());
    }
}
