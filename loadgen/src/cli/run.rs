//! `run` and `null-server`: one scenario, against servers that somebody started.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};

use super::Outcome;
use super::arguments::{Format, NullArguments, RunArguments};
use super::interrupt;
use super::output::write_report;
use crate::campaign::{
    Cell, Entrant, Frame, Progress, Runner, Show, Stage, Store, Watched, now_rfc3339, style,
};
use crate::engine::{self, RunSpec};
use crate::null_server::{NullServer, NullSettings};
use crate::probe::{Steal, hardware, info, tool};
use crate::record::{Contender, Measured, Role, RunRecord};
use crate::report::single;
use crate::scenario::Scenario;

pub(super) fn execute(arguments: &RunArguments) -> Result<Outcome> {
    let scenario = scenario(arguments)?;
    if !scenario.faults.is_empty() {
        bail!(
            "scenario {} does things to servers and brokers, which only `loadgen compare` starts: use that, or a scenario without faults",
            scenario.name
        );
    }
    let cancel = interrupt::watch()?;
    let show = if arguments.show.output_format == Format::Json { Show::Quiet } else { arguments.show.show() };
    let progress = Arc::new(Progress::new(show));
    let record = measure(arguments, &scenario, &progress, &cancel)?;
    progress.say("");
    match arguments.show.output_format {
        Format::Json => outln!("{}", serde_json::to_string_pretty(&record)?),
        Format::Text => out!("{}", single(&record, style(std::io::stdout().is_terminal()))),
    }
    if let Some(folder) = &arguments.output {
        let store = Store::new(folder);
        let place = PathBuf::from(&record.scenario.name).join(&record.cell[..8]);
        store.save(&place, &record)?;
        write_report(folder, &store.load()?)?;
        eprintln!("written: {}", folder.join(place).join("run.json").display());
    }
    let outcome = match () {
        () if !record.verdict.kept => Outcome::Failed,
        () if !record.validity.valid => Outcome::Inconclusive,
        () => Outcome::Pass,
    };
    arguments.baseline.apply(&[record], outcome)
}

fn measure(
    arguments: &RunArguments,
    scenario: &Scenario,
    progress: &Arc<Progress>,
    cancel: &Arc<AtomicBool>,
) -> Result<RunRecord> {
    let contender = contender(&arguments.url);
    let entrant = Entrant { strategy: contender.strategy.clone(), options: Vec::new() };
    let nodes = arguments.url.len();
    let cell = Cell {
        role: Role::Single,
        scenario: scenario.clone(),
        entrant,
        nodes,
        seed: arguments.seed,
        block: 0,
        attempt: 1,
    };
    let watched = [Watched::generator()];
    let shown = Arc::clone(progress);
    progress.expect(1, cell.planned_s());
    progress.begin(&cell);
    let on_progress = Box::new(move |live: &_| shown.live(live));
    let stage = Stage::new(None, None, &watched, Arc::clone(cancel), on_progress);
    let (started_at, hardware, steal) = (now_rfc3339(), hardware(), Steal::now());
    let spec = RunSpec {
        scenario: scenario.clone(),
        urls: arguments.url.clone(),
        seed: arguments.seed,
        threads: arguments.threads,
        room_prefix: arguments.room_prefix.clone(),
    };
    let outcome: Result<Measured, _> = engine::run(&spec, &stage);
    let (_, cost) = stage.finish();
    let runner = Runner {
        binary: PathBuf::new(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        campaign: String::new(),
        command: command_line(),
        cancel: Arc::clone(cancel),
        progress: Arc::clone(progress),
        tool: tool(),
    };
    let frame = Frame { cell, contender, brokers: Vec::new(), started_at, hardware, steal };
    Ok(runner.record(frame, outcome?, cost))
}

/// What the first server says of itself. One that promises nothing is held to the strictest reading.
fn contender(urls: &[String]) -> Contender {
    urls.first().map(|url| info(url)).unwrap_or_default().contender(&[], urls.len() as u64, false)
}

fn scenario(arguments: &RunArguments) -> Result<Scenario> {
    let mut overrides = arguments.overrides.clone();
    let mut set =
        |key: &str, value: Option<f64>| overrides.extend(value.map(|value| format!("{key}={value:?}")));
    set("duration_s", arguments.duration);
    set("warm_up_s", arguments.warm_up);
    set("traffic.rate_per_s", arguments.rate);
    let scenario = Scenario::load(&arguments.scenario, &overrides)?;
    let Some(connections) = arguments.connections else { return Ok(scenario) };
    let rooms = &scenario.rooms;
    // One room grows in members; many rooms grow in number.
    let scaled = if rooms.count == 1 {
        format!("rooms.members={:?}", f64::from(connections) * f64::from(rooms.per_client))
    } else {
        let count = (f64::from(connections) * f64::from(rooms.per_client) / rooms.members).round().max(1.0);
        format!("rooms.count={count:.0}")
    };
    overrides.push(scaled);
    Ok(Scenario::load(&arguments.scenario, &overrides)?)
}

/// This command line, for records. Where things lie on this machine says nothing: of whole paths only the last part is kept.
pub(super) fn command_line() -> String {
    repeatable(std::env::args())
}

fn repeatable(words: impl Iterator<Item = String>) -> String {
    let words = words.enumerate().map(|(index, word)| {
        // As a word of its own, or behind an option: --output=/…, -o/….
        let starts = if index == 0 { Some(0) } else { word.find('/').filter(|&at| is_option(&word[..at])) };
        let name = starts.and_then(|at| Some((&word[..at], Path::new(&word[at..]).file_name()?)));
        name.map_or_else(|| word.clone(), |(option, name)| format!("{option}{}", name.to_string_lossy()))
    });
    let words = words.map(|word| match () {
        () if word.is_empty() || word.contains([' ', '\'', '"', '$', '*', '&', ';']) => {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
        () => word,
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Whether a path may follow: nothing, `-o`, `--output=`.
fn is_option(before: &str) -> bool {
    let short = before.len() == 2 && before.starts_with('-');
    before.is_empty() || short || (before.starts_with("--") && before.ends_with('='))
}

pub(super) fn null_server(arguments: &NullArguments) -> Result<Outcome> {
    let stop = interrupt::watch()?;
    let settings = NullSettings {
        listen: arguments.listen,
        coalesce: arguments.coalesce,
        history: arguments.history,
        misbehaviour: None,
    };
    let server = NullServer::start(settings)?;
    outln!("listening on http://{}", server.address());
    eprintln!("try: loadgen run small-rooms --url {}", server.url());
    server.wait(|| stop.load(Ordering::Relaxed))?;
    Ok(Outcome::Pass)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_repeats_something_names_no_place_on_this_machine() {
        let words = [
            "/opt/x/loadgen",
            "soak",
            "--seed",
            "5",
            "-o",
            "/var/x/trial",
            "--server=/opt/x/chat-server",
            "-o/var/x",
            "-o",
            "results/y",
            "a b",
        ];
        let said = repeatable(words.map(str::to_owned).into_iter());
        assert_eq!(said, "loadgen soak --seed 5 -o trial --server=chat-server -ox -o results/y 'a b'");
    }
}
