//! Number 1: what one delivery costs, in many small rooms and in one big one.

use std::time::Duration;

use anyhow::Result;

use super::counted_client;
use super::found::Found;
use super::meter::Reading;
use super::record::{FrameShape, Row, Target, Window};
use super::rig::Rig;
use super::shapes::{recovering, run_s, shape};
use super::subject::{FLOOR, HISTORY, MEMORY, NO_HISTORY, Subject};
use super::verdict::{Metric, pairs};
use crate::campaign::{Brokers, Entrant};
use crate::scenario::Scenario;

const NUMBER: u8 = 1;
/// Two nodes over Redis, without history.
const REDIS: &str = "redis, 2 nodes";
/// What the shapes are called in windows that count system calls.
const CALLS: [&str; 2] = ["small-calls", "big-calls"];
/// Bytes of payload in the shapes.
const PAYLOAD_BYTES: usize = 200;

/// How long those who wait are watched before the turns begin, and the share of a core that they may use, in percent.
const WAITING: Duration = Duration::from_secs(2);
const WAITING_PERCENT_MAX: f64 = 1.0;

/// Subject, its bound in the small shape, its bound in the big one.
const BOUNDS: [(&str, f64, Option<f64>); 3] =
    [(MEMORY, 1.2, Some(1.05)), (HISTORY, 1.3, Some(1.1)), (REDIS, 2.0, None)];

/// How long it takes, seconds.
pub(super) fn planned_s(blocks: u32) -> Result<f64> {
    let (small, big) = (run_s(&shape("small", "small", &[])?), run_s(&shape("big", "big", &[])?));
    Ok(f64::from(blocks) * (4.0 * small + 3.0 * big) + 5.0)
}

/// Its lines before anything was measured.
pub(super) fn lines() -> Vec<Row> {
    rows(&[])
}

/// All subjects are up at the same time and take turns, in another order in each block.
pub(super) fn measure(rig: &Rig, found: &mut Found) -> Result<()> {
    let outcome = take(rig, found);
    let rows = rows(&found.windows);
    found.rows.extend(rows);
    outcome
}

fn take(rig: &Rig, found: &mut Found) -> Result<()> {
    let mut subjects = vec![
        Subject::floor(&rig.generator, false)?,
        Subject::memory(&rig.server, MEMORY, &[NO_HISTORY], &[])?,
        Subject::memory(&rig.server, HISTORY, &[], &[])?,
    ];
    for subject in &subjects {
        found.frames.extend(frame(subject));
    }
    let entrant = Entrant { strategy: "redis-pubsub".to_owned(), options: vec![NO_HISTORY.to_owned()] };
    let brokers = found.or_note(REDIS, Brokers::start([&entrant]))?;
    if let Some(brokers) = &brokers {
        found.brokers.extend(brokers.describe(&entrant));
        let nodes = Subject::nodes(&rig.server, REDIS, &entrant, 2, brokers);
        subjects.extend(found.or_note(REDIS, nodes)?);
    }
    watch_waiting(&subjects, found);
    for (name, calls) in ["small", "big"].into_iter().zip(CALLS) {
        let scenario = shape(name, name, &[])?;
        let here: Vec<&Subject> =
            subjects.iter().filter(|subject| name == "small" || subject.name != REDIS).collect();
        for block in rig.blocks() {
            for subject in rig.shuffled(here.clone(), name, block) {
                found.window(rig, subject, &as_used(subject, &scenario), block)?;
            }
        }
        if rig.counters.calls {
            let scenario = shape(name, calls, &[])?;
            for subject in here {
                let what = format!("{calls}, {}", subject.name);
                rig.progress.note(&what);
                let taken = found.or_note(&what, rig.calls(subject, &as_used(subject, &scenario)))?;
                if let Some(taken) = taken {
                    found.keep(&what, taken);
                }
            }
        }
    }
    Ok(())
}

/// Whoever waits for its turn must use next to nothing, or it would slow down whoever has it.
fn watch_waiting(subjects: &[Subject], found: &mut Found) {
    let read = |subject: &Subject| -> Vec<Option<Reading>> {
        subject.parts.iter().map(|(_, process)| Reading::now(process.pid())).collect()
    };
    let before: Vec<_> = subjects.iter().map(read).collect();
    std::thread::sleep(WAITING);
    for (subject, before) in subjects.iter().zip(before) {
        let used = |(before, after): (Option<Reading>, Option<Reading>)| Some(after?.since(&before?).cpu_s);
        let used_s: f64 = before.into_iter().zip(read(subject)).filter_map(used).sum();
        let percent = used_s / WAITING.as_secs_f64() * 100.0;
        if percent > WAITING_PERCENT_MAX {
            found.note(format!("{} uses {percent:.1} % of a core while it waits for its turn", subject.name));
        }
    }
}

/// History is used by members who ask for it.
fn as_used(subject: &Subject, scenario: &Scenario) -> Scenario {
    if subject.name == HISTORY { recovering(scenario.clone()) } else { scenario.clone() }
}

/// What a delivery looks like on the wire; a subject that does not answer fails in its windows, with more words.
fn frame(subject: &Subject) -> Option<FrameShape> {
    let url = subject.urls.first()?;
    let frame_bytes = counted_client::frame_bytes(url, PAYLOAD_BYTES, subject.name == HISTORY).ok()?;
    Some(FrameShape {
        subject: subject.name.clone(),
        payload_bytes: PAYLOAD_BYTES as u64,
        frame_bytes: frame_bytes as u64,
    })
}

fn rows(windows: &[Window]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (place, shape) in ["small", "big"].into_iter().enumerate() {
        for (subject, small, big) in BOUNDS {
            let Some(bound) = (if place == 0 { Some(small) } else { big }) else { continue };
            let mut row = |what: &str, unit: &str, target: Target, shape: &str, metric: Metric| {
                let pairs = pairs(windows, shape, subject, FLOOR, metric);
                if !pairs.is_empty() || target != Target::Shown {
                    let what = format!("{subject}, {shape}: {what}");
                    rows.push(Row::paired(NUMBER, &what, unit, target, FLOOR, &pairs));
                }
            };
            row("server CPU ÷ generator CPU", "", Target::Ratio(bound), shape, Window::over_generator);
            // Where the machine does not count them the target stays open.
            let metric = Window::instructions_per_delivery;
            row("instructions, user and kernel", "per delivery", Target::Ratio(bound), shape, metric);
            let metric = Window::user_instructions_per_delivery;
            row("instructions, user", "per delivery", Target::Shown, shape, metric);
            row("server CPU", "µs per delivery", Target::Shown, shape, Window::us_per_delivery);
            let switches = Window::sleeps_per_delivery;
            row("voluntary context switches", "per delivery", Target::Shown, shape, switches);
            let calls = Window::calls_per_delivery;
            row("system calls", "per delivery", Target::Shown, CALLS[place], calls);
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::verdict::Verdict;
    use super::*;

    fn window(subject: &str, shape: &str, server: f64, instructions: u64) -> Window {
        Window {
            shape: shape.into(),
            subject: subject.into(),
            block: 1,
            deliveries: 1e5,
            server_cpu_s: server,
            generator_cpu_s: 0.5,
            instructions_user: Some(instructions),
            instructions_kernel: Some(10 * instructions),
            offered_share: 1.0,
            clean: true,
            ..Window::default()
        }
    }

    #[test]
    fn every_bound_has_a_line_and_a_verdict() {
        let windows = [
            window(FLOOR, "small", 0.30, 100),
            window(MEMORY, "small", 0.33, 110),
            window(HISTORY, "small", 0.45, 110),
            window(REDIS, "small", 0.58, 110),
            window(FLOOR, "big", 0.2, 100),
            window(MEMORY, "big", 0.2, 100),
        ];
        let rows = rows(&windows);
        let verdict = |what: &str| {
            rows.iter().find(|row| row.what == what).unwrap_or_else(|| panic!("no line {what}")).verdict(1)
        };
        assert_eq!(verdict("memory, small: server CPU ÷ generator CPU"), Verdict::Met);
        assert_eq!(verdict("memory, small: instructions, user and kernel"), Verdict::Met);
        assert_eq!(verdict("memory, history, small: server CPU ÷ generator CPU"), Verdict::Missed);
        assert_eq!(verdict("redis, 2 nodes, small: server CPU ÷ generator CPU"), Verdict::Met);
        assert_eq!(verdict("memory, big: server CPU ÷ generator CPU"), Verdict::Met);
        assert_eq!(verdict("memory, history, big: server CPU ÷ generator CPU"), Verdict::Unknown);
        assert!(!rows.iter().any(|row| row.what.starts_with("redis, 2 nodes, big")));
        // Nothing counted: the lines are there all the same.
        let lines = lines();
        assert_eq!(lines.len(), 2 * BOUNDS.len() + 2 * 2);
        assert!(lines.iter().all(|row| row.verdict(1) == Verdict::Unknown));
        assert!(lines.iter().any(|row| row.what == "redis, 2 nodes, small: instructions, user and kernel"));
    }
}
