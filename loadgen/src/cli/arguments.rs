//! What may stand on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::BenchArguments;

const AFTER_HELP: &str = "\
Examples:
  loadgen compare                               every strategy, quick: an honest first answer in minutes
  loadgen compare --full -o results/full        what gets published: all scenarios, 5 blocks, faults, claims
  loadgen compare --strategy kafka-keyed --strategy 'kafka-keyed consume=demand' --scenario skewed
  loadgen run small-rooms -d 10s --url ws://127.0.0.1:8000/connection/websocket
  loadgen run small-rooms --rate 2000/s --url ws://a:8000/connection/websocket --url ws://b:8000/connection/websocket --output-format json
  loadgen diff results/before results/after --threshold 10%
  loadgen bench --only 1,4                      what a delivery and an idle connection cost, beside the floor
  loadgen report results/full                   write REPORT.md and report.html again from run.json alone

Exit codes: 0 pass · 1 error · 2 inconclusive (generator saturated, too few samples, interrupted) · 99 the audit or a threshold failed

NO_COLOR is honoured. KAFKA_BOOTSTRAP and REDIS_URL name brokers to use instead of starting some.";

/// Drives chat servers with an open-loop load, audits every delivery, and says which backplane fits which job.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, after_help = AFTER_HELP)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Run one scenario against servers that are already up
    Run(RunArguments),
    /// Compare strategies: brings up brokers and nodes, runs the campaign, audits, reports, stops everything
    Compare(CompareArguments),
    /// Write REPORT.md and report.html again, from run.json alone
    Report(ReportArguments),
    /// Compare two result folders; exits 99 on a significant regression
    Diff(DiffArguments),
    /// Run the experiments for the claims and print the table; with folders: judge what is there
    Claims(ClaimsArguments),
    /// Strategies under random faults for a long time: nothing lost in silence, memory and descriptors flat; exits 99 on failure
    Soak(SoakArguments),
    /// What a delivery, a publish, a connection costs beside a floor that only copies; --counts: instructions, for CI
    Bench(BenchArguments),
    /// List scenarios and strategies
    List,
    /// Serve an echo without a backplane, to measure the generator itself
    NullServer(NullArguments),
}

/// How to show progress and results.
#[derive(Debug, Clone, Args)]
pub(super) struct OutputArguments {
    /// What to print: a table for people, or JSON (one event per line; `run` prints the record)
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output_format: Format,
    /// Print nothing but results and errors
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Print a line per event instead of rewriting one
    #[arg(long)]
    pub(super) no_tui: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Text,
    Json,
}

/// Against what to judge, and what to keep for later.
#[derive(Debug, Clone, Args)]
pub(super) struct BaselineArguments {
    /// Keep the results under this name, for --baseline
    #[arg(long, value_name = "NAME")]
    pub(super) save_baseline: Option<String>,
    /// Compare with results kept under this name, or with a result folder
    #[arg(long, value_name = "NAME|DIR")]
    pub(super) baseline: Option<String>,
    /// Exit 99 when something is significantly worse than the baseline by more than this
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "10%", value_parser = parse_percent, requires = "baseline")]
    pub(super) fail_on_regression: Option<f64>,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// A shipped scenario (see `loadgen list`) or a TOML file
    pub(super) scenario: String,
    /// Address of a node, ws://host:port/connection/websocket; repeat for several
    #[arg(long, required = true)]
    pub(super) url: Vec<String>,
    /// Client connections: scales the number of rooms, or with one room its members
    #[arg(short, long)]
    pub(super) connections: Option<u32>,
    /// Length of the counted window, e.g. 10s
    #[arg(short, long, value_parser = parse_seconds)]
    pub(super) duration: Option<f64>,
    /// Publishes per second over all rooms, e.g. 500/s or 2k
    #[arg(long, value_parser = parse_rate)]
    pub(super) rate: Option<f64>,
    /// Load before anything counts, e.g. 2s
    #[arg(short, long, value_parser = parse_seconds)]
    pub(super) warm_up: Option<f64>,
    /// Override any key of the scenario, e.g. --set rooms.members=50
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Seed of schedule, sizes and payloads
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Threads that drive connections [default: one per core]
    #[arg(long)]
    pub(super) threads: Option<usize>,
    /// Put before each room's name, e.g. a namespace with its colon
    #[arg(long, default_value = "")]
    pub(super) room_prefix: String,
    /// Folder to write run.json and a report into
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: OutputArguments,
    #[command(flatten)]
    pub(super) baseline: BaselineArguments,
}

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    /// A strategy, with options if any: 'kafka-keyed consume=demand'; repeat for several; `all` [default: all]
    #[arg(long)]
    pub(super) strategy: Vec<String>,
    /// A scenario; repeat for several [default: quick: small-rooms, giant-room, skewed and broker restarts; full: all]
    #[arg(long)]
    pub(super) scenario: Vec<String>,
    /// Short runs, few blocks: an indication (default)
    #[arg(long, conflicts_with = "full")]
    pub(super) quick: bool,
    /// All scenarios, 5 blocks, claims, and (a quarter of an hour of it) capacity and knee in small-rooms: what gets published
    #[arg(long)]
    pub(super) full: bool,
    /// Every scenario that breaks something (or those of --scenario), with clients that recover: some 20 s per run
    #[arg(long, conflicts_with_all = ["quick", "full"])]
    pub(super) faults: bool,
    /// Seed of order and load; the same seed makes the same campaign
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Blocks: every strategy runs once per block and scenario [default: quick 2, full 5]
    #[arg(long)]
    pub(super) blocks: Option<u32>,
    /// Length of the counted window [default: quick 3s, full 5s]
    #[arg(short, long, value_parser = parse_seconds)]
    pub(super) duration: Option<f64>,
    /// Load before anything counts [default: quick 1s, full 1.5s]
    #[arg(short, long, value_parser = parse_seconds)]
    pub(super) warm_up: Option<f64>,
    /// Override any key of every scenario, e.g. --set nodes=4
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) overrides: Vec<String>,
    /// Search each strategy's capacity and draw the knee, in these scenarios: some 3 minutes per strategy [default: full: small-rooms]
    #[arg(long, value_name = "SCENARIO", num_args = 0.., default_missing_values = ["small-rooms"])]
    pub(super) capacity: Option<Vec<String>>,
    /// Result folder [default: results/compare-TIME; an unfinished campaign with the same plan is continued]
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// Begin anew even if an unfinished campaign could be continued
    #[arg(long)]
    pub(super) fresh: bool,
    /// The chat-server program [default: the one beside this program]
    #[arg(long)]
    pub(super) server: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: OutputArguments,
    #[command(flatten)]
    pub(super) baseline: BaselineArguments,
}

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Result folders; the report goes into the first
    #[arg(required = true)]
    pub(super) folders: Vec<PathBuf>,
    /// Write the report here instead
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// Put the headline chart and the decision table into this file as well, between its markers
    /// `<!-- results:begin -->` and `<!-- results:end -->`; the report must lie below the file's folder
    #[arg(long, value_name = "FILE")]
    pub(super) readme: Option<PathBuf>,
    /// Put the fault matrix, and declared beside observed, into this file as well, between its markers
    /// `<!-- observed:begin -->` and `<!-- observed:end -->`
    #[arg(long, value_name = "FILE")]
    pub(super) guarantees: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct DiffArguments {
    /// Result folder before
    pub(super) before: PathBuf,
    /// Result folder after
    pub(super) after: PathBuf,
    /// Changes within this are none
    #[arg(long, default_value = "10%", value_parser = parse_percent)]
    pub(super) threshold: f64,
    /// Compare even where scenario or environment differ
    #[arg(long)]
    pub(super) force: bool,
    /// Table or JSON
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(super) output_format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ClaimsArguments {
    /// Result folders to judge; without any, the experiments are run
    pub(super) folders: Vec<PathBuf>,
    /// Result folder for the experiments [default: results/claims-TIME]
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// Blocks
    #[arg(long, default_value_t = 2)]
    pub(super) blocks: u32,
    /// Seed of order and load
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// The chat-server program [default: the one beside this program]
    #[arg(long)]
    pub(super) server: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct SoakArguments {
    /// A strategy, with options if any; repeat for several, which run at once; `all` [default: all]
    #[arg(long)]
    pub(super) strategy: Vec<String>,
    /// Length of the load, in minutes
    #[arg(long, default_value_t = 20.0)]
    pub(super) minutes: f64,
    /// Seed of load and faults; a failing soak prints it
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,
    /// Publishes per second of each strategy, e.g. 100/s
    #[arg(long, default_value = "100/s", value_parser = parse_rate)]
    pub(super) rate: f64,
    /// Folder for soak.json, SOAK.md and the logs of what failed [default: results/soak-TIME]
    #[arg(short, long)]
    pub(super) output: Option<PathBuf>,
    /// The chat-server program [default: the one beside this program]
    #[arg(long)]
    pub(super) server: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: OutputArguments,
}

#[derive(Debug, Args)]
pub(super) struct NullArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8000")]
    pub(super) listen: std::net::SocketAddr,
    /// Gather what is due to a connection into one write
    #[arg(long)]
    pub(super) coalesce: bool,
    /// Messages of each room to remember, for clients that recover what they missed
    #[arg(long, default_value_t = 0)]
    pub(super) history: usize,
}

/// `10s`, `1.5m`, `500ms`, `10`.
fn parse_seconds(text: &str) -> Result<f64, String> {
    let (number, factor) = match text {
        _ if text.ends_with("ms") => (&text[..text.len() - 2], 1e-3),
        _ if text.ends_with('s') => (&text[..text.len() - 1], 1.0),
        _ if text.ends_with('m') => (&text[..text.len() - 1], 60.0),
        _ => (text, 1.0),
    };
    positive(number, factor).ok_or_else(|| format!("`{text}` is no length of time; try 10s, 500ms or 2m"))
}

/// `500/s`, `500`, `2k/s`, `30/m`.
fn parse_rate(text: &str) -> Result<f64, String> {
    let (number, per) = match text.split_once('/') {
        None => (text, 1.0),
        Some((number, "s")) => (number, 1.0),
        Some((number, "m" | "min")) => (number, 1.0 / 60.0),
        Some(_) => ("", 1.0),
    };
    let (number, thousands) = number.strip_suffix('k').map_or((number, 1.0), |number| (number, 1e3));
    positive(number, thousands * per).ok_or_else(|| format!("`{text}` is no rate; try 500/s, 2k/s or 30/m"))
}

/// `10%` or `0.1`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let (number, factor) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 0.01));
    let share = number.trim().parse::<f64>().ok().map(|number| number * factor);
    share
        .filter(|share| share.is_finite() && *share >= 0.0)
        .ok_or_else(|| format!("`{text}` is no percentage; try 10% or 0.1"))
}

fn positive(number: &str, factor: f64) -> Option<f64> {
    number
        .trim()
        .parse::<f64>()
        .ok()
        .map(|number| number * factor)
        .filter(|value| value.is_finite() && *value > 0.0)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn quantities_as_people_write_them() {
        assert_eq!(parse_seconds("10s"), Ok(10.0));
        assert_eq!(parse_seconds("500ms"), Ok(0.5));
        assert_eq!(parse_seconds("2m"), Ok(120.0));
        assert!(parse_seconds("soon").is_err() && parse_seconds("-1s").is_err());
        assert_eq!(parse_rate("500/s"), Ok(500.0));
        assert_eq!(parse_rate("2k"), Ok(2_000.0));
        assert_eq!(parse_rate("30/m"), Ok(0.5));
        assert!(parse_rate("5/fortnight").is_err());
        assert_eq!(parse_percent("10%"), Ok(0.1));
        assert!(parse_percent("much").is_err());
    }

    #[test]
    fn a_baseline_is_needed_to_fail_on_a_regression() {
        let parse = |words: &[&str]| Arguments::try_parse_from(words);
        assert!(parse(&["loadgen", "compare", "--fail-on-regression"]).is_err());
        assert!(parse(&["loadgen", "compare", "--baseline", "x", "--fail-on-regression"]).is_ok());
        assert!(parse(&["loadgen", "compare", "--quick", "--full"]).is_err());
        assert!(parse(&["loadgen", "run", "small-rooms"]).is_err(), "an address is needed");
    }
}
