//! One suite for every strategy in the registry, on its real broker, publisher and subscriber on different nodes.
//!
//! A strategy is found by itself: its defaults and each of its variants run every case that its guarantees call
//! for, on every kind of address that its broker has. `faulty(memory)` proves that each case can fail. An
//! unreachable broker is a failure, never a skip.

// The modules of a test binary have no outside: `pub` here means "for the other modules".
#![allow(unreachable_pub)]

mod brokers;
mod bus;
mod cases;
mod cluster;
mod delivery;
mod faults;
mod history;
mod inbox;
mod lifecycle;
mod membership;
mod order;

use std::sync::Arc;

use anyhow::{Context, Result};
use libtest_mimic::{Arguments, Failed, Trial};
use manifold_strategies::{REGISTRY, Strategy};

use crate::brokers::{Brokers, Place};
use crate::cases::{CASES, Case};
use crate::cluster::{Cluster, Subject};

fn main() {
    let arguments = Arguments::from_args();
    let brokers = Arc::new(Brokers::default());
    let mut trials = faults::trials();
    for strategy in REGISTRY {
        for (label, settings) in settings_of(strategy) {
            for place in Place::of(strategy.needs) {
                trials.extend(
                    CASES
                        .iter()
                        .filter_map(|case| trial(strategy, &label, &settings, *place, case, &brokers)),
                );
            }
        }
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Static state is never dropped; the brokers must be, before the process ends.
    brokers.stop();
    conclusion.exit();
}

/// The defaults, and each variant.
fn settings_of(strategy: &Strategy) -> Vec<(String, toml::Table)> {
    let mut all = vec![(strategy.name.to_owned(), toml::Table::new())];
    for variant in strategy.variants {
        let settings = variant.settings.parse().expect("a variant's settings are TOML");
        all.push((format!("{}[{}]", strategy.name, variant.name), settings));
    }
    all
}

fn trial(
    strategy: &'static Strategy,
    label: &str,
    settings: &toml::Table,
    place: Place,
    case: &'static Case,
    brokers: &Arc<Brokers>,
) -> Option<Trial> {
    let guarantees = (strategy.guarantees)(settings).expect("the settings of a variant are valid");
    if !(case.applies)(&guarantees, strategy.needs.kafka || strategy.needs.redis) {
        return None;
    }
    if !place.runs(case.name, settings.is_empty()) {
        return None;
    }
    let name = format!("{label}{}::{}", place.suffix(), case.name);
    let (settings, brokers) = (settings.clone(), Arc::clone(brokers));
    Some(Trial::test(name, move || {
        let (kafka, redis) = brokers.addresses(place)?;
        let subject = Subject { strategy, settings, kafka, redis, fault: None };
        run(case, subject).map_err(|error| Failed::from(format!("{error:?}")))
    }))
}

/// Runs a case and shuts its nodes down, whatever it found.
fn run(case: &Case, subject: Subject) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let cluster = Arc::new(Cluster::new(subject));
        let outcome = (case.run)(Arc::clone(&cluster)).await;
        let ended = cluster.shutdown().await.context("shutting the nodes down");
        outcome.and(ended)
    })
}
