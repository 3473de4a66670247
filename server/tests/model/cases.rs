//! Cases: a seed's setup and history, run in a runtime of its own; and what is left of a failing one when all that does not
//! matter is taken away.

use std::str::FromStr;

use tokio::runtime::Builder;

use crate::cluster::{Cluster, Wrong};
use crate::oracle::Verdict;
use crate::random::Random;
use crate::record::Tally;
use crate::steps::{self, Setup, Step};

/// Runs that are spent on making a failing history shorter.
const SHORTENING_RUNS: usize = 400;

/// A history to be run.
pub(crate) struct Case {
    seed: u64,
    setup: Setup,
    /// Steps with their numbers in the whole history.
    steps: Vec<(usize, Step)>,
}

/// A number that the environment gives.
pub(crate) fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(u64::from_str(&text).unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

impl Case {
    /// The whole history of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let setup = Setup::of(&mut random);
        let steps = steps::history(&mut random, &setup).into_iter().enumerate().collect();
        Self { seed, setup, steps }
    }

    /// As much of it as the environment says.
    pub(crate) fn from_environment(seed: u64) -> Self {
        let mut case = Self::of(seed);
        if let Ok(kept) = std::env::var("MANIFOLD_MODEL_KEEP") {
            let kept: Vec<usize> = kept.split(',').map(|number| number.parse().unwrap()).collect();
            case.steps.retain(|(number, _)| kept.contains(number));
        }
        case
    }

    /// Lets it happen, on a clock of its own.
    pub(crate) fn run(&self, wrong: Option<Wrong>) -> Verdict {
        self.play(wrong).0
    }

    /// Counts what comes about in it.
    pub(crate) fn count(&self, tally: &mut Tally) {
        self.play(None).1.count(tally);
    }

    /// What its clients saw, for comparison.
    pub(crate) fn trace(&self) -> String {
        self.play(None).1.trace()
    }

    fn play(&self, wrong: Option<Wrong>) -> (Verdict, Cluster) {
        let runtime =
            Builder::new_current_thread().enable_all().start_paused(true).event_interval(2).build().unwrap();
        let steps: Vec<Step> = self.steps.iter().map(|(_, step)| *step).collect();
        let mut cluster = Cluster::new(self.setup, wrong);
        let verdict = runtime.block_on(cluster.run(&steps));
        (verdict, cluster)
    }

    fn without(&self, first: usize, count: usize) -> Self {
        let mut steps = self.steps.clone();
        steps.drain(first..first + count);
        Self { seed: self.seed, setup: self.setup, steps }
    }

    /// A shorter history that fails, too: ever smaller pieces are left out as long as that does no harm.
    fn shortened(self) -> Self {
        let mut case = self;
        let mut runs = 0;
        let mut piece = case.steps.len().div_ceil(2);
        while piece > 0 {
            let mut end = case.steps.len();
            while end > 0 && runs < SHORTENING_RUNS {
                let first = end.saturating_sub(piece);
                let shorter = case.without(first, end - first);
                runs += 1;
                if shorter.run(None).is_err() {
                    case = shorter;
                }
                end = first.min(case.steps.len());
            }
            piece /= 2;
        }
        case
    }

    /// How to see it again.
    fn command(&self) -> String {
        let kept: Vec<String> = self.steps.iter().map(|(number, _)| number.to_string()).collect();
        format!(
            "MANIFOLD_MODEL_SEED={} MANIFOLD_MODEL_KEEP={} cargo test -p manifold-server --test model histories_hold",
            self.seed,
            kept.join(",")
        )
    }
}

/// Runs the cases of these seeds. Says which failed, and with what.
pub(crate) fn failing(seeds: impl Iterator<Item = u64>) -> Vec<(u64, String)> {
    seeds.filter_map(|seed| Some((seed, Case::of(seed).run(None).err()?))).collect()
}

/// Fails with the shortest history that was found to fail as this case does.
pub(crate) fn explain(case: Case) -> ! {
    let shortened = case.shortened();
    let wrong = shortened.run(None).expect_err("it failed before");
    let step =
        |(number, step): &(usize, Step)| format!("  {number}: {:?}, then {} ms", step.action, step.then_ms);
    let steps: Vec<String> = shortened.steps.iter().map(step).collect();
    panic!(
        "seed {}: {wrong}\nset up as {:?}\n{}\nto see it again:\n{}",
        shortened.seed,
        shortened.setup,
        steps.join("\n"),
        shortened.command()
    );
}
