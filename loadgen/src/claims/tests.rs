//! Verdicts on claims, from generated records.

use super::experiments::SWEEP;
use super::*;
use crate::record::{Role, RunRecord};
use crate::report::sample::{Sample, campaign};
use crate::scenario::Scenario;

fn judged(number: u8, records: &[RunRecord]) -> ClaimRow {
    judge_claims(records).into_iter().find(|row| row.number == number).unwrap()
}

fn verdict(number: u8, records: &[RunRecord]) -> Judgement {
    judged(number, records).judgement
}

fn claim_run(strategy: &'static str, scenario: &'static str, p50_ms: f64) -> RunRecord {
    let mut record = Sample::new(strategy, scenario, 1, p50_ms).record();
    record.role = Role::Claim;
    record
}

#[test]
fn every_experiment_has_a_scenario_that_loads() {
    for experiment in experiments() {
        let overrides = experiment.variant.map_or(&[] as &[&str], |variant| variant.overrides);
        let overrides: Vec<String> = overrides.iter().map(|one| (*one).to_owned()).collect();
        let scenario = Scenario::load(experiment.scenario, &overrides).unwrap();
        if experiment.variant.is_some() {
            assert!(scenario.traffic.surges.is_empty() && scenario.traffic.rate_per_s >= 1_000.0);
            assert_eq!(scenario.rooms.count, 1);
        }
    }
}

#[test]
fn a_shared_group_is_confirmed_only_by_the_loss_that_it_explains() {
    let lost =
        |lost| vec![Sample { lost, ..Sample::new("kafka-shared-group", "small-rooms", 1, 0.6) }.record()];
    // Two thirds of 50,000 on three nodes.
    assert_eq!(verdict(1, &lost(33_000)), Judgement::Confirmed);
    assert_eq!(verdict(1, &lost(5_000)), Judgement::Depends);
    assert_eq!(verdict(1, &lost(0)), Judgement::Refuted);
}

#[test]
fn a_partition_is_overloaded_only_where_a_backplane_without_partitions_is_not() {
    assert_eq!(verdict(6, &campaign(5)), Judgement::NotMeasured, "a trickle of writers overloads nothing");
    let sweep = |keyed_ms: [f64; 3], redis_ms: [f64; 3]| -> Vec<RunRecord> {
        let steps = SWEEP.iter().zip(keyed_ms.into_iter().zip(redis_ms));
        let runs = steps.flat_map(|((_, variant), (keyed, redis))| {
            [claim_run("kafka-keyed", variant.name, keyed), claim_run("redis-pubsub", variant.name, redis)]
        });
        runs.collect()
    };
    assert_eq!(verdict(6, &sweep([1.0, 1.0, 2.0], [1.0; 3])), Judgement::Refuted);
    let overloaded = judged(6, &sweep([1.0, 1.0, 900.0], [1.0; 3]));
    assert_eq!(overloaded.judgement, Judgement::Confirmed);
    assert!(overloaded.why.contains("from 4,000/s on"), "{}", overloaded.why);
    assert_eq!(verdict(6, &sweep([1.0, 900.0, 900.0], [1.0, 900.0, 900.0])), Judgement::Depends);
}

#[test]
fn redis_is_not_simply_better_if_its_restart_loses() {
    let healthy = |record: &RunRecord| record.measured.faults.is_empty();
    let mut records = campaign(5);
    let row = judged(7, &records);
    assert_eq!(row.judgement, Judgement::Depends);
    assert!(row.why.contains("is gone"), "{}", row.why);
    // Kafka's restart losing more is no excuse for Redis's.
    for record in records.iter_mut().filter(|record| record.scenario.name == "broker-restart") {
        record.measured.audit.delivered -= 9_000;
        record.measured.audit.lost_silent += 9_000;
    }
    assert_eq!(verdict(7, &records), Judgement::Depends);
    records.retain(healthy);
    assert_eq!(verdict(7, &records), Judgement::Depends, "its restart was not measured");
}

#[test]
fn slower_is_slower_however_little() {
    let records = |hybrid_ms: f64, blocks: u32| -> Vec<RunRecord> {
        (1..=blocks)
            .flat_map(|block| {
                let restart = Sample { fault: true, ..Sample::new("hybrid", "redis-restart", block, 0.5) };
                let mut redis = Sample::new("redis-pubsub", "small-rooms", block, 0.3).record();
                let mut hybrid = Sample::new("hybrid", "small-rooms", block, hybrid_ms).record();
                // The same noise in both, so that only the difference is left.
                redis.measured.latencies =
                    Sample::new("hybrid", "small-rooms", block, 0.3).record().measured.latencies;
                hybrid.measured.latencies =
                    Sample::new("hybrid", "small-rooms", block, hybrid_ms).record().measured.latencies;
                [redis, hybrid, restart.record()]
            })
            .collect()
    };
    assert_eq!(verdict(8, &records(0.3, 5)), Judgement::Confirmed);
    let slower = judged(8, &records(0.4, 5));
    assert!(slower.figure.contains("1.33×"), "{}", slower.figure);
    assert_eq!(slower.judgement, Judgement::Depends);
    assert_eq!(verdict(8, &records(0.3, 2)), Judgement::Depends, "two blocks show no equality");
}

#[test]
fn a_broker_that_restarts_says_nothing_of_a_consumer_that_does() {
    let mut records = campaign(5);
    assert_eq!(verdict(10, &records), Judgement::NotMeasured);
    let crash = Sample { fault: true, ..Sample::new("kafka-keyed", "node-crash", 1, 0.5) };
    records.push(crash.record());
    assert_eq!(verdict(10, &records), Judgement::Depends);
    records.push(Sample { lost: 3, block: 2, ..crash }.record());
    assert_eq!(verdict(10, &records), Judgement::Refuted);
}
