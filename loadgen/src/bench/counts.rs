//! Instruction counts in user space, by callgrind: the figure that no neighbour disturbs, so the one that a regression is
//! found by. It tells nothing of the kernel's share, which is the larger one.
//!
//! A server runs under the instrument twice, with many messages and, for as long, with few; the difference, divided by the
//! deliveries that the first run has more, is free of start-up, joining and leaving, and of what a server does by the clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use manifold_compose::Served;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::Conditions;
use super::counted_client::exchange;
use super::subject::{FLOOR, HISTORY, MEMORY, NO_HISTORY, memory_arguments};
use crate::engine::RunError;

/// Version of `counts.json`.
const COUNTS_VERSION: u32 = 2;
/// More than this over what was recorded is a regression.
pub const TOLERANCE: f64 = 0.10;
/// How long a server under the instrument may take to end.
const GRACE: Duration = Duration::from_secs(30);
const CALLGRIND_OUT: &str = "callgrind.out";
/// The same on every machine, however many cores it has and however long the instrument takes: one worker, and no ping before
/// all is over.
const STEADY: [&str; 4] = ["--worker-threads", "1", "--ping-interval-ms", "180000"];

/// What is counted: name, members of the room, messages in each frame, messages of the short run and of the long one.
const SHAPES: [Shape; 3] = [
    Shape { name: "small", members: 10, batch: 1, few: 100, many: 3_100 },
    Shape { name: "big", members: 1_000, batch: 1, few: 4, many: 204 },
    Shape { name: "batch", members: 10, batch: 16, few: 160, many: 4_960 },
];

#[derive(Debug, Clone, Copy)]
struct Shape {
    name: &'static str,
    members: usize,
    batch: usize,
    few: usize,
    many: usize,
}

/// The content of `counts.json`: what was counted when somebody was content with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Raised when a field changes meaning or goes.
    pub counts_version: u32,
    /// What it was counted with.
    pub conditions: Conditions,
    /// Commit at which it was counted; `-dirty` behind it where the checkout had uncommitted changes.
    pub commit: String,
    /// The counts.
    pub counted: Vec<Counted>,
}

/// Instructions of one subject under one shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Counted {
    /// The load: rooms of ten, one message at a time; a room of a thousand; rooms of ten, 16 messages at a time.
    pub shape: String,
    /// Who.
    pub subject: String,
    /// User instructions per delivery, publish and acknowledgement included.
    pub instructions_per_delivery: f64,
}

/// How a count compares with what was recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// What was counted now.
    pub now: Counted,
    /// What was recorded; `None` for a shape or subject that is new.
    pub recorded: Option<f64>,
}

impl Change {
    /// Now ÷ recorded.
    pub fn ratio(&self) -> Option<f64> {
        self.recorded
            .filter(|recorded| *recorded > 0.0)
            .map(|recorded| self.now.instructions_per_delivery / recorded)
    }

    /// Whether it is more than [`TOLERANCE`] above what was recorded. The floor is the yardstick: it may change.
    pub fn is_regression(&self) -> bool {
        self.now.subject != FLOOR && self.ratio().is_some_and(|ratio| ratio > 1.0 + TOLERANCE)
    }
}

/// The one field that every version of `counts.json` has.
#[derive(Deserialize)]
struct Versioned {
    counts_version: u32,
}

impl Counts {
    /// Reads what was recorded.
    ///
    /// # Errors
    /// A file that is not there, or of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read(path).with_context(|| {
            format!("cannot read {}: record it with `loadgen bench --counts --record`", path.display())
        })?;
        let unreadable = || format!("cannot read {}", path.display());
        let Versioned { counts_version } = serde_json::from_slice(&text).with_context(unreadable)?;
        ensure!(
            counts_version == COUNTS_VERSION,
            "{} is of version {counts_version}, this is {COUNTS_VERSION}: record it anew with `loadgen bench --counts --record`",
            path.display()
        );
        serde_json::from_slice(&text).with_context(unreadable)
    }

    /// New counts beside these.
    pub fn compare(&self, now: &[Counted]) -> Vec<Change> {
        let recorded = |one: &Counted| {
            let known = self.counted.iter().find(|old| old.shape == one.shape && old.subject == one.subject);
            known.map(|old| old.instructions_per_delivery)
        };
        now.iter().map(|one| Change { now: one.clone(), recorded: recorded(one) }).collect()
    }

    /// What cannot be compared: counted now and never recorded, or recorded and not counted now.
    pub fn unmatched(&self, now: &[Counted]) -> Vec<String> {
        let without = |some: &[Counted], others: &[Counted], what: &str| -> Vec<String> {
            let known = |one: &&Counted| {
                one.subject == FLOOR
                    || others.iter().any(|other| other.shape == one.shape && other.subject == one.subject)
            };
            let missing = some.iter().filter(|one| !known(one));
            missing.map(|one| format!("{}, {}: {what}", one.shape, one.subject)).collect()
        };
        let mut unmatched = without(now, &self.counted, "counted, but not recorded");
        unmatched.extend(without(&self.counted, now, "recorded, but not counted"));
        unmatched
    }

    /// Counts as they are to be recorded: those of what may regress. The floor's are for those who look on.
    pub fn new(commit: String, conditions: Conditions, mut counted: Vec<Counted>) -> Self {
        counted.retain(|one| one.subject != FLOOR);
        Self { counts_version: COUNTS_VERSION, conditions, commit, counted }
    }
}

/// Where valgrind is; `None` where it is not installed.
pub fn instrument() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|path| path.is_file())
}

/// Counts every subject under every shape: one node with and without history, and the floor, which is part of this program
/// and so is left out where this program is not built as it is released.
///
/// # Errors
/// No valgrind; a server that does not start or answer; the person wants to stop.
pub fn count(
    server: &Path,
    generator: &Path,
    cancel: &AtomicBool,
    say: &dyn Fn(&str),
) -> Result<Vec<Counted>> {
    let instrument = instrument().context("valgrind is missing: apt-get install valgrind")?;
    let mut subjects = vec![
        (MEMORY, server, memory_arguments(&[NO_HISTORY], &STEADY)),
        (HISTORY, server, memory_arguments(&[], &STEADY)),
    ];
    if !cfg!(debug_assertions) {
        let floor = ["null-server", "--listen", "127.0.0.1:0"].map(str::to_owned).to_vec();
        subjects.push((FLOOR, generator, floor));
    }
    let mut counted = Vec::new();
    for shape in SHAPES {
        for (subject, program, args) in &subjects {
            let measure = |messages: usize, lasting: Duration| {
                if cancel.load(Ordering::Relaxed) {
                    return Err(RunError::Cancelled.into());
                }
                say(&format!("counting {}, {subject}, {messages} messages", shape.name));
                let counted = Run { shape, messages, recovering: *subject == HISTORY, lasting };
                under_instrument(&instrument, program, args, counted)
            };
            let (many, lasted) = measure(shape.many, Duration::ZERO)?;
            let (few, _) = measure(shape.few, lasted)?;
            counted.push(Counted {
                shape: shape.name.to_owned(),
                subject: (*subject).to_owned(),
                instructions_per_delivery: slope(few, many, shape)?,
            });
        }
    }
    Ok(counted)
}

/// One run under the instrument.
struct Run {
    shape: Shape,
    messages: usize,
    recovering: bool,
    /// How long clients stay at least.
    lasting: Duration,
}

/// Instructions of a server's whole life, and how long it had clients.
fn under_instrument(instrument: &Path, program: &Path, args: &[String], run: Run) -> Result<(u64, Duration)> {
    let mut line = vec!["--tool=callgrind".to_owned(), format!("--callgrind-out-file={CALLGRIND_OUT}")];
    line.push(program.to_string_lossy().into_owned());
    line.extend(args.iter().cloned());
    let served = Served::start("n1", instrument, &line).context("the server did not start under valgrind")?;
    let Run { shape, messages, recovering, lasting } = run;
    let lasted = exchange(&served.url(), shape.members, messages, shape.batch, recovering, lasting)
        .with_context(|| format!("under valgrind; the log ends with:\n{}", served.process().log_tail()))?;
    // It writes its counts when it ends by itself.
    served.process().terminate(GRACE)?;
    let path = served.folder().join(CALLGRIND_OUT);
    let text = fs::read_to_string(&path).with_context(|| format!("callgrind wrote no {}", path.display()))?;
    Ok((total(&text).context("callgrind's file has no total")?, lasted))
}

/// The sum in a callgrind file: of all threads.
fn total(text: &str) -> Option<u64> {
    let line = |name: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.next_back()?.split_ascii_whitespace().next()?.parse().ok()
    };
    line("totals:").or_else(|| line("summary:"))
}

/// Instructions per delivery that the longer run has more.
fn slope(few: u64, many: u64, shape: Shape) -> Result<f64> {
    let deliveries = (shape.many - shape.few) * shape.members;
    ensure!(
        many > few && deliveries > 0,
        "{}: {many} instructions with {} messages, {few} with {}",
        shape.name,
        shape.many,
        shape.few
    );
    Ok((many - few) as f64 / deliveries as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { name: "small", members: 10, batch: 1, few: 100, many: 900 };

    #[test]
    fn what_both_runs_have_cancels() {
        // 5 million for start-up and joining, 12,000 a message.
        let count = |messages: u64| 5_000_000 + messages * 12_000;
        let each = slope(count(100), count(900), SHAPE).unwrap();
        assert!((each - 1_200.0).abs() < 1e-9, "{each}");
        assert!(slope(10, 10, SHAPE).is_err());
    }

    #[test]
    fn batches_divide_what_is_sent() {
        for shape in SHAPES {
            assert!(shape.many > shape.few, "{}", shape.name);
            assert_eq!((shape.many % shape.batch, shape.few % shape.batch), (0, 0), "{}", shape.name);
        }
    }

    #[test]
    fn the_total_is_the_last_one() {
        assert_eq!(total("version: 1\nsummary: 12\nfn=(1)\n1 2\ntotals: 4567\n"), Some(4_567));
        assert_eq!(total("summary: 12 3\n"), Some(12));
        assert_eq!(total("events: Ir\n"), None);
    }

    fn counted(subject: &str, instructions: f64) -> Counted {
        Counted { shape: "small".into(), subject: subject.into(), instructions_per_delivery: instructions }
    }

    fn recorded(counted: Vec<Counted>) -> Counts {
        Counts::new("abc".into(), Conditions::default(), counted)
    }

    #[test]
    fn ten_percent_more_is_borne_and_no_more() {
        let recorded = recorded(vec![counted(MEMORY, 1_000.0)]);
        let regressed =
            |subject: &str, now: f64| recorded.compare(&[counted(subject, now)])[0].is_regression();
        assert!(!regressed(MEMORY, 1_099.0) && regressed(MEMORY, 1_101.0));
        assert!(!regressed(MEMORY, 500.0));
        assert!(!regressed(FLOOR, 200.0), "the yardstick is no subject");
        assert!(!regressed(HISTORY, 9_999.0), "what is new has nothing to regress from");
    }

    #[test]
    fn what_has_nothing_to_compare_with_is_told_either_way_round() {
        let recorded = recorded(vec![counted(MEMORY, 1_000.0), counted(FLOOR, 100.0)]);
        assert_eq!(recorded.counted.len(), 1, "the floor is not recorded");
        assert!(recorded.unmatched(&[counted(MEMORY, 1.0), counted(FLOOR, 1.0)]).is_empty());
        let unmatched = recorded.unmatched(&[counted(HISTORY, 1.0)]);
        assert_eq!(
            unmatched,
            ["small, memory, history: counted, but not recorded", "small, memory: recorded, but not counted"]
        );
    }

    #[test]
    fn what_was_recorded_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("counts.json");
        assert!(format!("{:#}", Counts::load(&path).unwrap_err()).contains("--record"));
        let counts = recorded(vec![counted(MEMORY, 1_000.0)]);
        fs::write(&path, serde_json::to_vec(&counts).unwrap()).unwrap();
        assert_eq!(Counts::load(&path).unwrap(), counts);
        fs::write(&path, r#"{"counts_version":1,"instrument":"valgrind-3.19.0"}"#).unwrap();
        assert!(format!("{:#}", Counts::load(&path).unwrap_err()).contains("of version 1"));
    }
}
