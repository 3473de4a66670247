//! `bench`: what a delivery costs, beside the floor; and the counted form of it that CI runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use manifold_compose::chat_server_binary;

use super::arguments::{Format, OutputArguments};
use super::readme::between;
use super::{Outcome, interrupt, run::command_line};
use crate::bench::{self, BENCH_VERSION, Bench, Conditions, Counts, NUMBERS, Order, Verdict};
use crate::campaign::{Progress, Show, now_rfc3339, write_whole};
use crate::probe::tool;

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
const RECORD: &str = "bench.json";

#[derive(Debug, Args)]
pub(super) struct BenchArguments {
    /// Numbers of the table, e.g. 1,4 [default: all seven]: 1 delivery, 2 pressure, 3 backplane overhead, 4 idle connections, 5
    /// giant rooms, 6 storms, 7 growth
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', conflicts_with = "counts")]
    only: Vec<u8>,
    /// Blocks: in each, every subject of a shape has its window; with fewer than five nothing counts as met
    #[arg(long, default_value_t = 5)]
    blocks: u32,
    /// Seed of order and load
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for bench.json and BENCH.md [default: results/bench-TIME]
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// The chat-server program [default: the one beside this program]
    #[arg(long)]
    server: Option<PathBuf>,
    /// The bare clients that number 3 compares with [default: examples/raw_clients beside this program]
    #[arg(long, value_name = "FILE")]
    raw_clients: Option<PathBuf>,
    /// Count instructions instead (needs valgrind): exits 99 where a delivery takes over 10 % more than was recorded
    #[arg(long)]
    counts: bool,
    /// What was recorded
    #[arg(long, value_name = "FILE", default_value = "results/bench/counts.json")]
    recorded: PathBuf,
    /// With --counts: record what is counted now, instead of comparing
    #[arg(long, requires = "counts")]
    record: bool,
    /// Measure nothing: take what a folder holds, and write its page anew
    #[arg(long, value_name = "DIR", conflicts_with_all = ["only", "counts", "output"])]
    from: Option<PathBuf>,
    /// Put the tables into this file as well, between its markers `<!-- bench:begin -->` and `<!-- bench:end -->`
    #[arg(long, value_name = "FILE", conflicts_with = "counts")]
    docs: Option<PathBuf>,
    #[command(flatten)]
    show: OutputArguments,
}

pub(super) fn execute(arguments: &BenchArguments) -> Result<Outcome> {
    if arguments.counts {
        return counts(arguments);
    }
    let (folder, bench) = match &arguments.from {
        Some(folder) => (folder.clone(), load(folder)?),
        None => {
            let (folder, bench) = measure(arguments)?;
            write_whole(&folder.join(RECORD), &serde_json::to_vec_pretty(&bench)?)?;
            (folder, bench)
        }
    };
    let page = bench::page(&bench);
    write_whole(&folder.join("BENCH.md"), page.as_bytes())?;
    if let Some(docs) = &arguments.docs {
        update(docs, &bench)?;
    }
    match arguments.show.output_format {
        Format::Json => outln!("{}", serde_json::to_string_pretty(&bench)?),
        Format::Text => {
            outln!("{page}");
            outln!("{}", folder.join("BENCH.md").display());
        }
    }
    Ok(outcome(&bench))
}

fn load(folder: &Path) -> Result<Bench> {
    let path = folder.join(RECORD);
    let cannot = || format!("cannot read {}", path.display());
    let value: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).with_context(cannot)?).with_context(cannot)?;
    // Before its fields: what they mean depends on it.
    let version = &value["bench_version"];
    ensure!(
        *version == BENCH_VERSION,
        "{} is of version {version}, this program reads {BENCH_VERSION}: measure anew",
        path.display()
    );
    serde_json::from_value(value).with_context(cannot)
}

fn measure(arguments: &BenchArguments) -> Result<(PathBuf, Bench)> {
    ensure!(arguments.blocks > 0, "a bench needs at least one block");
    let mut numbers = if arguments.only.is_empty() { NUMBERS.to_vec() } else { arguments.only.clone() };
    numbers.sort_unstable();
    numbers.dedup();
    ensure!(numbers.iter().all(|number| NUMBERS.contains(number)), "the numbers are 1 to 7");
    let order = Order {
        numbers,
        blocks: arguments.blocks,
        seed: arguments.seed,
        server: server(arguments)?,
        raw_clients: arguments.raw_clients.clone(),
        command: command_line(),
    };
    let cancel = interrupt::watch()?;
    let progress = Arc::new(Progress::new(shown(arguments)));
    let minutes = (order.planned_s()? / 60.0).ceil();
    progress.say(&format!(
        "about {minutes:.0} minutes; the machine should have nothing else to do. Ctrl-C ends it with what there is by then"
    ));
    let folder = arguments.output.clone().unwrap_or_else(|| {
        let time: String = now_rfc3339().chars().filter(char::is_ascii_alphanumeric).collect();
        Path::new("results").join(format!("bench-{time}"))
    });
    // Found out now and not in half an hour.
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let bench = bench::run(&order, &cancel, &progress)?;
    progress.say("");
    Ok((folder, bench))
}

/// As JSON the record alone is printed: it is one document, and no stream of events.
fn shown(arguments: &BenchArguments) -> Show {
    if arguments.show.output_format == Format::Json { Show::Quiet } else { arguments.show.show() }
}

/// By its whole path: servers are started in folders of their own.
fn server(arguments: &BenchArguments) -> Result<PathBuf> {
    let binary = chat_server_binary(arguments.server.as_deref())?;
    fs::canonicalize(&binary).with_context(|| format!("cannot find {}", binary.display()))
}

fn update(docs: &Path, bench: &Bench) -> Result<()> {
    let text = fs::read_to_string(docs).with_context(|| format!("cannot read {}", docs.display()))?;
    // The headings of the tables are one level below those of the document.
    let body = bench::body(bench).replace("\n## ", "\n### ");
    let updated = between(&text, &format!("Measured {body}"), BEGIN, END)
        .with_context(|| format!("cannot update {}", docs.display()))?;
    Ok(write_whole(docs, updated.as_bytes())?)
}

/// 99 where a target is missed; 2 where something was not measured, and whenever it ended before its time.
fn outcome(bench: &Bench) -> Outcome {
    let any = |verdict: Verdict| bench.rows.iter().any(|row| bench.verdict(row) == verdict);
    match () {
        () if !bench.complete => Outcome::Inconclusive,
        () if any(Verdict::Missed) => Outcome::Failed,
        () if any(Verdict::Unknown) || bench.rows.is_empty() => Outcome::Inconclusive,
        () => Outcome::Pass,
    }
}

fn counts(arguments: &BenchArguments) -> Result<Outcome> {
    // Read first: whoever has nothing recorded should not wait for two minutes to hear of it.
    let recorded = if arguments.record { None } else { Some(Counts::load(&arguments.recorded)?) };
    let tool = tool();
    let generator = std::env::current_exe().context("cannot find this program's own path")?;
    let cancel = interrupt::watch()?;
    let show = shown(arguments);
    let progress = Progress::new(show);
    let say = |text: &str| progress.note(text);
    let server = server(arguments)?;
    let counted = bench::count(&server, &generator, &cancel, &say)?;
    let conditions = Conditions::now(&server);
    if show == Show::Line {
        progress.say("");
    }
    let Some(recorded) = recorded else {
        let commit = if tool.dirty { tool.commit + "-dirty" } else { tool.commit };
        let counts = Counts::new(commit, conditions, counted);
        let text = serde_json::to_string_pretty(&counts)? + "\n";
        write_whole(&arguments.recorded, text.as_bytes())?;
        out!("{}", bench::changes(&counts.compare(&counts.counted)));
        outln!("recorded: {}", arguments.recorded.display());
        return Ok(Outcome::Pass);
    };
    let changes = recorded.compare(&counted);
    match arguments.show.output_format {
        Format::Json => outln!("{}", serde_json::to_string_pretty(&counted)?),
        Format::Text => out!("{}", bench::changes(&changes)),
    }
    let unmatched = recorded.unmatched(&counted);
    let regressed = changes.iter().any(bench::Change::is_regression);
    if !regressed && unmatched.is_empty() {
        return Ok(Outcome::Pass);
    }
    let file = arguments.recorded.display();
    unmatched.iter().for_each(|one| eprintln!("{one}"));
    if regressed {
        eprintln!(
            "a delivery takes over {:.0} % more instructions than was recorded in {file}",
            bench::TOLERANCE * 100.0
        );
    }
    if recorded.conditions != conditions {
        eprintln!("not a like comparison: recorded with {}; now with {conditions}", recorded.conditions);
    }
    eprintln!("if that is meant, record it with --record");
    Ok(Outcome::Failed)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::arguments::{Arguments, Command};
    use super::*;
    use crate::bench::{Instructions, Row, Target};
    use crate::probe::hardware;

    fn arguments(words: &[&str]) -> Result<BenchArguments, clap::Error> {
        let words = ["loadgen", "bench"].iter().chain(words);
        Arguments::try_parse_from(words).map(|arguments| match arguments.command {
            Command::Bench(arguments) => arguments,
            other => panic!("{other:?}"),
        })
    }

    fn sample(ours: Vec<f64>) -> Bench {
        let row = Row {
            number: 4,
            what: "idle".into(),
            unit: "KiB".into(),
            target: Target::AtMost(4.0),
            ours,
            reference_name: String::new(),
            reference: Vec::new(),
        };
        Bench {
            bench_version: BENCH_VERSION,
            started_at: now_rfc3339(),
            command: "loadgen bench".into(),
            seed: 1,
            blocks: 5,
            numbers: vec![4],
            complete: true,
            hardware: hardware(),
            tool: tool(),
            brokers: Vec::new(),
            instructions: Instructions::None,
            frames: Vec::new(),
            rows: vec![row],
            windows: Vec::new(),
            counted: Vec::new(),
            notes: vec!["a note".into()],
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        assert_eq!(arguments(&["--only", "1,4"]).unwrap().only, [1, 4]);
        assert_eq!(arguments(&[]).unwrap().blocks, 5);
        assert!(arguments(&["--record"]).is_err(), "what would be recorded?");
        assert!(arguments(&["--counts", "--only", "1"]).is_err());
        assert!(arguments(&["--from", "x", "--output", "y"]).is_err());
    }

    #[test]
    fn a_missed_target_is_told_by_the_exit_code() {
        assert_eq!(outcome(&sample(vec![3.0; 5])), Outcome::Pass);
        assert_eq!(outcome(&sample(vec![5.0; 5])), Outcome::Failed);
        assert_eq!(outcome(&sample(Vec::new())), Outcome::Inconclusive);
        assert_eq!(outcome(&sample(vec![3.0; 4])), Outcome::Inconclusive, "a block is missing");
        assert_eq!(outcome(&Bench { blocks: 1, ..sample(vec![3.0]) }), Outcome::Inconclusive);
        assert_eq!(outcome(&Bench { complete: false, ..sample(vec![5.0; 5]) }), Outcome::Inconclusive);
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let other = Bench { bench_version: BENCH_VERSION + 1, ..sample(vec![3.0; 5]) };
        let written = serde_json::to_vec(&other).unwrap();
        fs::write(folder.path().join(RECORD), &written).unwrap();
        let refused = load(folder.path()).unwrap_err().to_string();
        assert!(refused.contains("measure anew"), "{refused}");
    }

    #[test]
    fn a_folder_is_rendered_again_and_the_tables_land_between_the_markers() {
        let folder = tempfile::tempdir().unwrap();
        let docs = folder.path().join("performance.md");
        fs::write(&docs, format!("# Performance\n{BEGIN}\nold\n{END}\nrest\n")).unwrap();
        let bench = sample(vec![3.0, 3.5, 3.0, 3.0, 3.0]);
        let record = serde_json::to_vec(&bench).unwrap();
        fs::write(folder.path().join(RECORD), &record).unwrap();
        let from = folder.path().to_string_lossy().into_owned();
        let file = docs.to_string_lossy().into_owned();
        let outcome = execute(&arguments(&["--from", &from, "--docs", &file]).unwrap()).unwrap();
        assert_eq!(outcome, Outcome::Pass);
        let text = fs::read_to_string(&docs).unwrap();
        assert!(
            text.contains("### 4. Idle connections") && text.contains("| met |") && text.ends_with("rest\n")
        );
        assert!(!text.contains("old\n") && text.contains("- a note"), "notes belong to the tables");
        assert_eq!(fs::read(folder.path().join(RECORD)).unwrap(), record, "what was measured is left alone");
        assert!(fs::read_to_string(folder.path().join("BENCH.md")).unwrap().contains("- a note"));
        assert_eq!(load(folder.path()).unwrap(), bench);
    }
}
