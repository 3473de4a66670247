//! `compare`: a whole campaign.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use super::Outcome;
use super::arguments::CompareArguments;
use super::contest::{entrants, server};
use super::output::{conclude, last_word};
use super::ticket::{Ticket, folder, read_ticket, write_ticket};
use super::{interrupt, run::command_line};
use crate::campaign::{
    AGE_MIN, Campaign, Cell, Entrant, Plan, Progress, RUNS_PER_BROKERS, Runner, Store, digest, is_cancelled,
    knee, now_rfc3339, null_cell, pace, search,
};
use crate::claims::experiments;
use crate::probe::tool;
use crate::record::RunRecord;
use crate::scenario::{FAULT_MATRIX, SHIPPED, Scenario};

/// Scenarios of a quick comparison, every block.
const QUICK: [&str; 3] = ["small-rooms", "giant-room", "skewed"];
/// Scenarios of a quick comparison, first block only: what the brokers' restarts cost.
const QUICK_FEW: [&str; 2] = ["redis-restart", "broker-restart"];
/// Scenarios of the ordinary comparison that belong to the fault matrix, too.
const FAULTS_OF_SHIPPED: [&str; 4] = ["scale-out", "node-crash", "broker-restart", "redis-restart"];
/// How long they are in the matrix, seconds: their timelines leave more room than a recovery needs.
const FAULTS_OF_SHIPPED_S: f64 = 12.0;
/// What every scenario of the fault matrix is run with. Its latencies are no one's ranking: what a fault does to the machine
/// (a JVM that starts, a thousand handshakes) must not make the generator's send lag an objection.
const FAULTS_OVERRIDES: [&str; 2] = ["recover=true", "target_ms=1000"];
/// Scenario whose capacity a full comparison searches.
const CAPACITY_IN_FULL: &str = "small-rooms";
/// Runs that a search takes as a rule, for the estimate: seven rates, two runs each, now and then a third.
const SEARCH_RUNS_TYPICAL: f64 = 16.0;
/// Seconds that brokers need to come up, for the estimate.
const BROKERS_START_S: f64 = 8.0;
/// Times that a knee is drawn, for its band.
const KNEE_REPEATS: u32 = 2;

/// Lengths of runs, in seconds.
struct Pace {
    window_s: f64,
    warm_up_s: f64,
    timeline_s: f64,
    blocks: u32,
}

const QUICK_PACE: Pace = Pace { window_s: 3.0, warm_up_s: 1.0, timeline_s: 6.5, blocks: 2 };
/// Recoveries take the time that they take: a timeline is hardly shortened.
const FAULTS_PACE: Pace = Pace { window_s: 15.0, warm_up_s: 1.0, timeline_s: 20.0, blocks: 1 };
const FULL_PACE: Pace = Pace { window_s: 5.0, warm_up_s: 1.5, timeline_s: 12.0, blocks: 5 };

const SEARCH_PACE: Pace = Pace { window_s: 3.0, warm_up_s: 1.0, timeline_s: 8.0, blocks: 1 };

pub(super) fn execute(arguments: &CompareArguments) -> Result<Outcome> {
    let (records, outcome) = campaign(arguments, "compare", arguments.full)?;
    let outcome = arguments.baseline.apply(&records, outcome)?;
    last_word(outcome);
    Ok(outcome)
}

/// Runs (or continues) a campaign and concludes it, also when interrupted.
pub(super) fn campaign(
    arguments: &CompareArguments,
    name: &str,
    with_claims: bool,
) -> Result<(Vec<RunRecord>, Outcome)> {
    let binary = server(arguments.server.as_deref())?;
    let build = fingerprint(&[&binary, &std::env::current_exe()?])?;
    let plan = plan(arguments)?;
    let capacity = capacity(arguments);
    let identity = digest(&(&build, plan.cells(), &capacity, with_claims));
    let cancel = interrupt::watch()?;
    let show = arguments.show.show();
    let progress = Arc::new(Progress::new(show));
    let folder = folder(arguments, name, &identity, &progress)?;
    let store = Store::new(&folder);
    let begun = read_ticket(&folder).filter(|ticket| ticket.campaign == identity);
    let started_at = begun.map_or_else(now_rfc3339, |ticket| ticket.started_at);
    let ticket = |finished| Ticket {
        campaign: identity.clone(),
        command: command_line(),
        started_at: started_at.clone(),
        written_at: now_rfc3339(),
        finished,
    };
    write_ticket(&folder, &ticket(false))?;
    let runner = Runner {
        binary,
        build,
        campaign: identity.clone(),
        command: command_line(),
        cancel,
        progress: Arc::clone(&progress),
        tool: tool(),
    };
    let cells = work(&plan, arguments, with_claims);
    let searches = searches(&plan, arguments, &capacity)?;
    progress.say(&estimate(&plan, &cells, &searches, !arguments.faults));
    let warm_up = warm_up(arguments)?;
    // Latencies of the fault matrix are nobody's ranking.
    let warm_up = (!arguments.faults).then_some(warm_up);
    let mut campaign = Campaign::new(runner, store.clone(), plan.entrants.clone(), warm_up);
    let outcome = run(&mut campaign, &plan, &cells, &searches);
    let asked = campaign.asked().clone();
    // Brokers and nodes are stopped before the report is written.
    drop(campaign);
    progress.say("");
    match outcome {
        Ok(()) => write_ticket(&folder, &ticket(true))?,
        // What is done is reported all the same; the interruption itself is the outcome.
        Err(error) => {
            let concluded = conclude(&store, &identity, &asked, show);
            if is_cancelled(&error) {
                eprintln!(
                    "interrupted: what is done is kept in {} and the same command continues it",
                    folder.display()
                );
            }
            concluded.and(Err(error))?;
        }
    }
    let (loaded, outcome) = conclude(&store, &identity, &asked, show)?;
    Ok((loaded.records, outcome))
}

/// The runs of the comparison in their order: the null run first, the experiments for claims last.
fn work(plan: &Plan, arguments: &CompareArguments, with_claims: bool) -> Vec<Cell> {
    let first = plan.scenarios.first().or(plan.few.first().map(|(scenario, _)| scenario));
    let mut cells: Vec<Cell> = first.map(|scenario| null_cell(scenario, plan.seed)).into_iter().collect();
    cells.extend(plan.cells());
    if with_claims {
        cells.extend(
            plan.experiments(experiments(), |name, overrides| varied(arguments, name, overrides).ok()),
        );
    }
    cells
}

/// Scenarios in which capacity is searched: those that were asked for, or what gets published has it.
fn capacity(arguments: &CompareArguments) -> Vec<String> {
    let published = arguments.full
        && (arguments.scenario.is_empty() || arguments.scenario.iter().any(|name| name == CAPACITY_IN_FULL));
    match &arguments.capacity {
        Some(given) => given.clone(),
        None if published => vec![CAPACITY_IN_FULL.to_owned()],
        None => Vec::new(),
    }
}

/// Who is searched where. A search takes a dozen steps: each is short.
fn searches<'p>(
    plan: &'p Plan,
    arguments: &CompareArguments,
    capacity: &[String],
) -> Result<Vec<(Scenario, &'p Entrant)>> {
    let mut searches = Vec::new();
    for name in capacity {
        let whole = Scenario::load(name, &arguments.overrides)?;
        let scenario = pace(whole, SEARCH_PACE.window_s, SEARCH_PACE.warm_up_s, SEARCH_PACE.timeline_s);
        let entrants = plan.entrants.iter().filter(|entrant| !entrant.is_counter_example());
        searches.extend(entrants.map(|entrant| (scenario.clone(), entrant)));
    }
    Ok(searches)
}

/// How long it will take, in words, before it begins.
fn estimate(plan: &Plan, cells: &[Cell], searches: &[(Scenario, &Entrant)], warmed: bool) -> String {
    let planned_s: f64 = cells.iter().map(Cell::planned_s).sum();
    let searched_s: f64 = searches
        .iter()
        .map(|(scenario, entrant)| {
            let knee = knee(scenario, entrant, plan.seed, scenario.traffic.rate_per_s, KNEE_REPEATS);
            let step_s = knee.first().map_or(0.0, Cell::planned_s);
            step_s * (SEARCH_RUNS_TYPICAL + knee.len() as f64)
        })
        .sum();
    let on_kafka = plan.entrants.iter().any(|entrant| entrant.brokers().is_some_and(|needs| needs.kafka));
    let warmings = (cells.len() as f64 / f64::from(RUNS_PER_BROKERS)).ceil();
    let age_s = if warmed { AGE_MIN.as_secs_f64() } else { 0.0 };
    let warming_s = if on_kafka { warmings * (age_s + BROKERS_START_S) } else { 0.0 };
    let minutes = |seconds: f64| format!("{:.0} min", (seconds / 60.0).ceil());
    let mut text = format!("{} runs, about {}", cells.len(), minutes(planned_s + searched_s + warming_s));
    if !searches.is_empty() {
        text.push_str(&format!(
            ", of which {} for the capacity and the knee of {} contenders",
            minutes(searched_s),
            searches.len()
        ));
    }
    text.push_str("; Ctrl-C keeps what is done, and the same command continues it");
    text
}

fn run(
    campaign: &mut Campaign,
    plan: &Plan,
    cells: &[Cell],
    searches: &[(Scenario, &Entrant)],
) -> Result<()> {
    campaign.run_all(cells)?;
    for (scenario, entrant) in searches {
        if let Some(held) = search(campaign, scenario, entrant, plan.seed)? {
            campaign.run_all(&knee(scenario, entrant, plan.seed, held, KNEE_REPEATS))?;
        }
    }
    Ok(())
}

fn plan(arguments: &CompareArguments) -> Result<Plan> {
    let (always, few): (Vec<&str>, Vec<&str>) = match () {
        () if !arguments.scenario.is_empty() => {
            (arguments.scenario.iter().map(String::as_str).collect(), vec![])
        }
        () if arguments.faults => (
            FAULTS_OF_SHIPPED.into_iter().chain(FAULT_MATRIX.iter().map(|(name, _)| *name)).collect(),
            vec![],
        ),
        () if arguments.full => (SHIPPED.iter().map(|(name, _)| *name).collect(), vec![]),
        () => (QUICK.to_vec(), QUICK_FEW.to_vec()),
    };
    let load =
        |names: Vec<&str>| names.into_iter().map(|name| paced(arguments, name)).collect::<Result<Vec<_>>>();
    let blocks = arguments.blocks.unwrap_or(rhythm(arguments).blocks);
    ensure!(blocks > 0, "a campaign needs at least one block");
    Ok(Plan {
        scenarios: load(always)?,
        few: load(few)?.into_iter().map(|scenario| (scenario, 1)).collect(),
        entrants: entrants(&arguments.strategy, true)?,
        blocks,
        seed: arguments.seed,
    })
}

fn rhythm(arguments: &CompareArguments) -> &'static Pace {
    match () {
        () if arguments.faults => &FAULTS_PACE,
        () if arguments.full => &FULL_PACE,
        () => &QUICK_PACE,
    }
}

fn paced(arguments: &CompareArguments, name: &str) -> Result<Scenario> {
    varied(arguments, name, if arguments.faults { &FAULTS_OVERRIDES } else { &[] })
}

/// A scenario with further overrides, which go before those of the person.
fn varied(arguments: &CompareArguments, name: &str, further: &[&str]) -> Result<Scenario> {
    let overrides = further.iter().copied().map(str::to_owned).chain(arguments.overrides.iter().cloned());
    let scenario = Scenario::load(name, &overrides.collect::<Vec<_>>())?;
    let rhythm = rhythm(arguments);
    let window_s = arguments.duration.unwrap_or(rhythm.window_s);
    let timeline_s = match arguments.duration {
        Some(given) => given.max(rhythm.timeline_s),
        None if arguments.faults && FAULTS_OF_SHIPPED.contains(&name) => FAULTS_OF_SHIPPED_S,
        None => rhythm.timeline_s,
    };
    Ok(pace(scenario, window_s, arguments.warm_up.unwrap_or(rhythm.warm_up_s), timeline_s))
}

/// The load that warms a JVM broker: many messages, few deliveries.
fn warm_up(arguments: &CompareArguments) -> Result<Scenario> {
    let overrides = [
        "rooms.count=200",
        "rooms.members=3.0",
        "rooms.size_skew=0.0",
        "traffic.rate_per_s=4000.0",
        "duration_s=7.0",
        "warm_up_s=0.5",
        "drain_s=2.0",
    ];
    let mut overrides: Vec<String> = overrides.map(str::to_owned).to_vec();
    overrides.extend(arguments.overrides.iter().filter(|one| one.starts_with("nodes=")).cloned());
    Ok(Scenario::load("small-rooms", &overrides)?)
}

/// Identifies programs by their content: a changed server makes other cells.
fn fingerprint(programs: &[&PathBuf]) -> Result<String> {
    let mut hash = Sha256::new();
    for program in programs {
        hash.update(fs::read(program).with_context(|| format!("cannot read {}", program.display()))?);
    }
    Ok(hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::{Arguments, Command};
    use super::*;
    use crate::campaign::AFTER_LAST_FAULT_S;
    use crate::record::{Deed, Fault, Target};
    use crate::report::recovery::BACK_S;
    use crate::scenario::ClientStep;

    fn arguments(words: &[&str]) -> CompareArguments {
        let words = ["loadgen", "compare"].iter().chain(words);
        match Arguments::try_parse_from(words).unwrap().command {
            Command::Compare(arguments) => arguments,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_gets_published_has_a_capacity_and_says_how_long_it_takes() {
        let full = arguments(&["--full"]);
        assert_eq!(capacity(&full), ["small-rooms"]);
        assert!(capacity(&arguments(&[])).is_empty());
        assert!(capacity(&arguments(&["--full", "--scenario", "node-crash"])).is_empty());
        assert_eq!(capacity(&arguments(&["--capacity", "skewed"])), ["skewed"]);
        assert!(capacity(&arguments(&["--faults"])).is_empty());
        let plan = plan(&full).unwrap();
        let searches = searches(&plan, &full, &capacity(&full)).unwrap();
        assert_eq!(searches.len(), 5, "every strategy but the counter-example");
        let text = estimate(&plan, &work(&plan, &full, true), &searches, true);
        assert!(text.contains(" runs, about ") && text.contains(" min for the capacity"), "{text}");
    }

    #[test]
    fn the_fault_matrix_takes_little_more_than_half_an_hour() {
        let faults = arguments(&["--faults"]);
        let plan = plan(&faults).unwrap();
        let cells = work(&plan, &faults, false);
        assert!(cells.iter().all(|cell| cell.scenario.recover));
        let text = estimate(&plan, &cells, &[], false);
        let minutes =
            text.split("about ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        assert!(minutes.is_some_and(|minutes| minutes <= 32), "{text}");
        for cell in cells.iter().filter(|cell| cell.role == crate::record::Role::Comparison) {
            let faults = cell.scenario.faults.iter().map(|fault| fault.at_s);
            let last_s = faults.chain(cell.scenario.clients.iter().map(|step| step.at_s)).fold(0.0, f64::max);
            let name = &cell.scenario.name;
            assert!(
                last_s + AFTER_LAST_FAULT_S + 1.0 < cell.scenario.duration_s,
                "{name}: no time to recover"
            );
        }
    }

    #[test]
    fn whoever_is_cut_off_in_the_fault_matrix_has_time_to_come_back_and_be_seen_back() {
        let faults = arguments(&["--faults"]);
        for scenario in plan(&faults).unwrap().scenarios {
            let reconnect = scenario.reconnect;
            // Cut clients find another node at the first attempt; those of a lone node may wait for as long as they ever do.
            let cut = |step: &ClientStep| (step.at_s, 2 * reconnect.min_ms);
            let node = |fault: &Fault| (fault.at_s, reconnect.min_ms + reconnect.max_ms);
            let ends = |fault: &&Fault| matches!(fault.deed, Deed::Restart) && fault.to == Target::Node;
            let cuts = scenario.clients.iter().map(cut);
            for (at_s, wait_ms) in cuts.chain(scenario.faults.iter().filter(ends).map(node)) {
                let back_s = at_s + wait_ms as f64 / 1e3 + BACK_S + 0.5;
                assert!(back_s < scenario.duration_s, "{}: {at_s} s, back by {back_s} s", scenario.name);
            }
        }
    }
}
