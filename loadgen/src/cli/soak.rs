//! `soak`: strategies under random faults for a long time, side by side.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::arguments::SoakArguments;
use super::contest::{entrants, new_folder, server};
use super::{Outcome, interrupt, run::command_line};
use crate::campaign::{Show, now_rfc3339, write_whole};
use crate::engine::RunError;
use crate::probe::{hardware, tool};
use crate::record::{Live, Phase};
use crate::soak::{Bath, SOAK_VERSION, Soak, Soaked, page, scenario};

/// Seconds of a soak between two lines about one strategy.
const SAY_EVERY_S: f64 = 30.0;
/// What a soak found, for programs.
const RECORD: &str = "soak.json";
/// The same for people.
const PAGE: &str = "SOAK.md";

pub(super) fn execute(arguments: &SoakArguments) -> Result<Outcome> {
    let binary = server(arguments.server.as_deref())?;
    let show = arguments.show.show();
    let cancel = interrupt::watch()?;
    // A counter-example would show its mistake and nothing else.
    let entrants = entrants(&arguments.strategy, false)?;
    // Of what runs, not of what lies in the checkout by the time that it ends.
    let tool = tool();
    let started_at = now_rfc3339();
    let folder = arguments.output.clone().unwrap_or_else(|| new_folder("soak", &started_at));
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let baths = entrants
        .into_iter()
        .map(|entrant| {
            let scenario = scenario(&entrant, arguments.minutes, arguments.rate, arguments.seed)?;
            let (binary, folder, cancel) = (binary.clone(), folder.clone(), Arc::clone(&cancel));
            Ok(Bath { binary, entrant, scenario, seed: arguments.seed, folder, cancel })
        })
        .collect::<Result<Vec<_>>>()?;
    say(
        show,
        &format!(
            "soak of {} strategies for {} minutes, seed {}",
            baths.len(),
            arguments.minutes,
            arguments.seed
        ),
    );
    let strategies = run_all(&baths, show)?;
    let soak = Soak {
        soak_version: SOAK_VERSION,
        started_at,
        command: command_line(),
        seed: arguments.seed,
        minutes: arguments.minutes,
        hardware: hardware(),
        tool,
        strategies,
    };
    write_whole(&folder.join(RECORD), &serde_json::to_vec_pretty(&soak)?)?;
    write_page(&folder, &soak)?;
    if soak.passed() {
        outln!("passed");
        return Ok(Outcome::Pass);
    }
    for soaked in &soak.strategies {
        soaked.problems.iter().for_each(|problem| eprintln!("{}: {problem}", soaked.label));
    }
    eprintln!("failed; seed {} repeats it, logs are in {}", soak.seed, folder.join("logs").display());
    Ok(Outcome::Failed)
}

/// Writes the page of a soak anew from its record. False: the folder holds none.
pub(super) fn render(folder: &Path) -> Result<bool> {
    let record = folder.join(RECORD);
    if !record.exists() {
        return Ok(false);
    }
    let text = fs::read_to_string(&record).with_context(|| format!("cannot read {}", record.display()))?;
    let soak: Soak =
        serde_json::from_str(&text).with_context(|| format!("{} is no soak's record", record.display()))?;
    write_page(folder, &soak)?;
    Ok(true)
}

fn write_page(folder: &Path, soak: &Soak) -> Result<()> {
    let path = folder.join(PAGE);
    write_whole(&path, page(soak).as_bytes())?;
    outln!("{}", path.display());
    Ok(())
}

/// All at once, each on threads of its own.
fn run_all(baths: &[Bath], show: Show) -> Result<Vec<Soaked>> {
    std::thread::scope(|scope| {
        let running: Vec<_> = baths
            .iter()
            .map(|bath| {
                scope.spawn(move || {
                    let soaked = bath.run(progress(bath.entrant.label(), show));
                    let verdict = match &soaked {
                        Ok(soaked) if soaked.passed() => "passed".to_owned(),
                        Ok(soaked) => format!("failed: {}", soaked.problems.join("; ")),
                        Err(error) => error.to_string(),
                    };
                    say(show, &format!("{}: {verdict}", bath.entrant.label()));
                    // One that cannot end well ends the others only where the person wants an end.
                    soaked
                })
            })
            .collect();
        let outcomes: Vec<Result<Soaked, RunError>> = running
            .into_iter()
            .map(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        Ok(outcomes.into_iter().collect::<Result<Vec<_>, RunError>>()?)
    })
}

fn progress(label: String, show: Show) -> impl Fn(&Live) + Send + Sync + 'static {
    let said_s = Mutex::new(f64::NEG_INFINITY);
    move |live: &Live| {
        let mut said_s = said_s.lock().unwrap_or_else(PoisonError::into_inner);
        if live.phase == Phase::Connect || live.elapsed_s - *said_s < SAY_EVERY_S {
            return;
        }
        *said_s = live.elapsed_s;
        say(
            show,
            &format!(
                "{label}: {:.0} of {:.0} s, {:.0}/s sent, {:.0}/s delivered, {} connections, {} missing so far",
                live.elapsed_s,
                live.total_s,
                live.sent_per_s,
                live.delivered_per_s,
                live.connections,
                live.lost
            ),
        );
    }
}

fn say(show: Show, text: &str) {
    match show {
        Show::Quiet => {}
        Show::Json => outln!("{}", serde_json::json!({ "event": "soak", "message": text })),
        Show::Line | Show::Log => eprintln!("{text}"),
    }
}
