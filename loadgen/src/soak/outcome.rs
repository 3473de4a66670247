//! What a soak found, and whether that is good enough.

use serde::{Deserialize, Serialize};

use super::flat::{
    FILES_GROWTH_MAX, FILES_SLACK, LIFE_SHARE_MIN, REST_SLACK, RSS_GROWTH_MAX, RSS_SLACK_BYTES, SAMPLES_MIN,
};
use super::health;
use super::stretch::{Stretch, stretches};
use super::watch::Life;
use crate::record::{
    Audit, FaultMark, Gate, Hardware, Load, Measured, Overtaken, Recoveries, Tool, Validity, Verdict,
};
use crate::report::text::{bytes, count};
use crate::scenario::ClientStep;

/// Version of the record.
pub const SOAK_VERSION: u32 = 1;

/// A whole soak: `soak.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soak {
    /// Version of this shape.
    pub soak_version: u32,
    /// When it began, RFC 3339, UTC.
    pub started_at: String,
    /// The command that repeats it.
    pub command: String,
    /// Seed of load and troubles.
    pub seed: u64,
    /// Length of the counted window, minutes.
    pub minutes: f64,
    /// The machine.
    pub hardware: Hardware,
    /// The load generator.
    pub tool: Tool,
    /// One per strategy.
    pub strategies: Vec<Soaked>,
}

impl Soak {
    /// Whether every strategy passed.
    pub fn passed(&self) -> bool {
        !self.strategies.is_empty() && self.strategies.iter().all(Soaked::passed)
    }
}

/// The soak of one strategy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Soaked {
    /// The strategy, with its options.
    pub label: String,
    /// Version and commit of the server; empty where none came up.
    pub server: String,
    /// What its nodes were told besides the options of the label, so that their memory is full early.
    #[serde(default)]
    pub options: Vec<String>,
    /// What stands against it; nothing where it passed.
    pub problems: Vec<String>,
    /// What the load was; absent where the soak could not be finished.
    pub load: Option<Load>,
    /// What the audit saw.
    pub audit: Option<Audit>,
    /// What came of members that were away.
    pub recoveries: Option<Recoveries>,
    /// Declared beside observed.
    pub verdict: Option<Verdict>,
    /// What went wrong on purpose.
    pub faults: Vec<FaultMark>,
    /// Times that a share of the clients lost its connections.
    pub client_steps: u64,
    /// Those times, their shares, and how: seconds from the end of the warm-up.
    #[serde(default)]
    pub steps: Vec<ClientStep>,
    /// The first messages that came out of their place, each as it came to one member.
    #[serde(default)]
    pub overtaken: Vec<Overtaken>,
    /// The load over time.
    #[serde(default)]
    pub series: Vec<Stretch>,
    /// Every incarnation of every process, with what was seen of its memory and descriptors.
    pub lives: Vec<Life>,
}

/// Whose soak it is, and what was planned to happen to its clients.
#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) label: String,
    pub(super) server: String,
    pub(super) options: Vec<String>,
    pub(super) steps: Vec<ClientStep>,
}

impl Soaked {
    /// A soak that could not be finished.
    pub(super) fn failed(label: String, error: String, lives: Vec<Life>) -> Self {
        Self {
            label,
            server: String::new(),
            options: Vec::new(),
            problems: vec![error],
            load: None,
            audit: None,
            recoveries: None,
            verdict: None,
            faults: Vec::new(),
            client_steps: 0,
            steps: Vec::new(),
            overtaken: Vec::new(),
            series: Vec::new(),
            lives,
        }
    }

    /// A soak that ran to its end.
    pub(super) fn finished(
        Who { label, server, options, steps }: Who,
        measured: Measured,
        (validity, verdict): (Validity, Verdict),
        lives: Vec<Life>,
    ) -> Self {
        let mut problems = problems(&measured, &validity, &verdict);
        problems.extend(unsteady(&lives, &measured.faults));
        Self {
            label,
            server,
            options,
            problems,
            load: Some(measured.load),
            audit: Some(measured.audit),
            recoveries: measured.recoveries,
            verdict: Some(verdict),
            faults: measured.faults,
            client_steps: steps.len() as u64,
            steps,
            overtaken: measured.overtaken,
            series: stretches(&measured.series),
            lives,
        }
    }

    /// Whether nothing stands against it.
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

fn problems(measured: &Measured, validity: &Validity, verdict: &Verdict) -> Vec<String> {
    let audit = &measured.audit;
    let mut problems = Vec::new();
    if audit.lost_silent > 0 {
        problems.push(format!("{} deliveries lost in silence", count(audit.lost_silent)));
    }
    if audit.duplicates > 0 {
        problems.push(format!("{} duplicates reached clients", count(audit.duplicates)));
    }
    let broken = verdict.promises.iter().filter(|promise| !promise.kept);
    problems.extend(broken.map(|promise| {
        format!(
            "promise broken: {}: declared {}, observed {}",
            promise.about, promise.declared, promise.observed
        )
    }));
    // Latencies of a soak are nobody's ranking: only what makes its audit worthless counts.
    let worthless = |gate| matches!(gate, Gate::Conservation | Gate::Purpose | Gate::Samples);
    let objections = validity.objections.iter().filter(|objection| worthless(objection.gate));
    problems.extend(objections.map(|objection| objection.found.clone()));
    if measured.load.connections_failed > 0 {
        problems
            .push(format!("{} clients were not back by the end", count(measured.load.connections_failed)));
    }
    if let Some(never) = measured.recoveries.map(|recoveries| recoveries.never).filter(|never| *never > 0) {
        problems.push(format!("{} members were not back by the end", count(never)));
    }
    problems.extend(health::problems(measured));
    problems
}

/// Nodes whose memory or descriptors grow, or that ended by themselves.
fn unsteady(lives: &[Life], faults: &[FaultMark]) -> Vec<String> {
    let mut problems = Vec::new();
    let is_node = |life: &&Life| crate::campaign::is_node(&life.name);
    for life in lives.iter().filter(is_node) {
        if let Some(memory) = life.memory.filter(|memory| !memory.flat) {
            let [middle, last] = [memory.middle, memory.last].map(|value| bytes(value as u64));
            problems.push(format!("memory of {} (pid {}) grew from {middle} to {last}", life.name, life.pid));
        }
        if let Some(files) = life.files.filter(|files| !files.flat) {
            problems.push(format!(
                "open descriptors of {} (pid {}) grew from {:.0} to {:.0}",
                life.name, life.pid, files.middle, files.last
            ));
        }
        if let Some(rest) = life.rest.filter(|rest| rest.after > rest.before + REST_SLACK) {
            problems.push(format!(
                "{} (pid {}) has {} descriptors open without clients, and had {} before the load",
                life.name, life.pid, rest.after, rest.before
            ));
        }
        let earlier = lives.iter().filter(|other| other.name == life.name && other.pid != life.pid);
        let struck = faults.iter().any(|mark| mark.whom.split(", ").any(|whom| whom == life.name));
        if earlier.count() > 0 && !struck {
            problems.push(format!("{} ended and came back, though nothing struck it", life.name));
        }
    }
    if !lives.iter().any(|life| is_node(&life) && life.memory.is_some()) {
        problems.push("no node lived long enough for its memory to be judged".to_owned());
    }
    problems
}

/// The rule of flatness, in words.
pub(super) fn rule() -> String {
    format!(
        "of the samples of an incarnation the median of the last third is at most {RSS_GROWTH_MAX} times that of the middle third plus {} for memory, {FILES_GROWTH_MAX} times \
         plus {FILES_SLACK} for descriptors, of which there are moreover at most {REST_SLACK} more without clients after the load than before it; judged are nodes that lived for at least {:.0} % of the soak and were seen {SAMPLES_MIN} times",
        bytes(RSS_SLACK_BYTES),
        LIFE_SHARE_MIN * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::super::flat::{Look, Thirds};
    use super::*;
    use crate::record::{Rules, judge};
    use crate::report::sample::Sample;

    fn life(name: &str, pid: u32, flat: bool) -> Life {
        let thirds = Some(Thirds { middle: 1e7, last: 9e7, flat });
        let looks = vec![Look { at_s: 0.0, rss_bytes: 1, files: 1 }];
        Life { name: name.to_owned(), pid, looks, memory: thirds, files: thirds, rest: None, account: None }
    }

    fn soaked(lives: Vec<Life>, change: impl Fn(&mut Measured)) -> Soaked {
        let mut measured = Sample::new("hybrid", "small-rooms", 1, 0.3).record().measured;
        change(&mut measured);
        let judged = judge(&measured, &serde_json::json!({}), 500_000, Rules::default());
        let who = Who { label: "hybrid".to_owned(), ..Who::default() };
        Soaked::finished(who, measured, judged, lives)
    }

    #[test]
    fn what_is_lost_or_doubled_or_grows_fails() {
        let good = || vec![life("n1", 1, true), life("kafka-1", 9, false)];
        assert_eq!(soaked(good(), |_| {}).problems, Vec::<String>::new());
        let said = |soaked: Soaked| soaked.problems.join("; ");
        assert!(
            said(soaked(good(), |one| one.audit.lost_silent = 3)).contains("3 deliveries lost in silence")
        );
        assert!(said(soaked(good(), |one| one.audit.duplicates = 2)).contains("2 duplicates"));
        assert!(said(soaked(vec![life("n1", 1, false)], |_| {})).contains("memory of n1 (pid 1) grew"));
        assert!(
            said(soaked(vec![life("n1", 1, true), life("n1", 2, true)], |_| {}))
                .contains("nothing struck it")
        );
        assert!(said(soaked(vec![], |_| {})).contains("no node lived long enough"));
    }

    #[test]
    fn an_unfinished_one_fails_and_an_empty_soak_passes_nothing() {
        let failed = Soaked::failed("hybrid".into(), "a node is gone".into(), vec![]);
        assert!(!failed.passed());
        let text = serde_json::to_string(&failed).unwrap();
        assert_eq!(serde_json::from_str::<Soaked>(&text).unwrap(), failed);
    }
}
