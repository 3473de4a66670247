//! The report as a whole, from generated records.

use super::decide::{Outcome, decide};
use super::gather::tables;
use super::sample::{Sample, campaign};
use super::*;

fn paths(records: &[RunRecord]) -> Vec<String> {
    records.iter().map(|record| format!("{}/{}/run.json", record.scenario.name, record.cell)).collect()
}

#[test]
fn a_full_campaign_renders_the_same_every_time() {
    let records = campaign(5);
    let rendered = render(&records, &paths(&records), &[]);
    assert_eq!(rendered, render(&records, &paths(&records), &[]));
    insta::assert_snapshot!("markdown", rendered.markdown);
    insta::assert_snapshot!("headline", rendered.figures[0].1);
    insta::assert_snapshot!("decision_table", rendered.decision_table);
    insta::assert_snapshot!("terminal", terminal(&records, &[], Style { colour: false }));
}

#[test]
fn the_page_needs_nothing_from_outside() {
    let records = campaign(2);
    let html = render(&records, &paths(&records), &[]).html;
    for outside in ["<script", "<link", "<img", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    // Namespaces are names, not addresses.
    assert!(!html.replace("http://www.w3.org/2000/svg", "").contains("http://"));
    if let Some(path) = std::env::var_os("MANIFOLD_SAMPLE_REPORT") {
        std::fs::write(path, &html).unwrap();
    }
}

#[test]
fn nothing_to_report_is_said_and_does_not_fail() {
    let rendered = render(&[], &[], &[]);
    assert!(rendered.markdown.contains("No comparison was run"));
}

#[test]
fn five_clear_blocks_decide_and_two_only_indicate() {
    let records = campaign(5);
    let decisions = decide(&tables(&records, &[]), &[]);
    let of = |scenario: &str| decisions.iter().find(|decision| decision.scenario == scenario).unwrap();
    // redis-pubsub and hybrid are tied in latency (0.30 and 0.31 ms); Redis alone is cheaper.
    assert_eq!(of("small-rooms").outcome, Outcome::Winner("redis-pubsub".into()));
    assert!(!of("small-rooms").provisional);
    let against = of("small-rooms").not_when.join("; ");
    assert!(
        against.contains("redis-restart: 0.240 % of deliveries lost, all told (hybrid: none)"),
        "{against}"
    );
    assert!(
        decisions.iter().all(|decision| !decision.scenario.ends_with("-restart")),
        "a fault crowns nobody"
    );
    let records = campaign(2);
    assert!(decide(&tables(&records, &[]), &[]).iter().all(|decision| decision.provisional));
}

#[test]
fn what_overlaps_is_a_tie() {
    let records: Vec<RunRecord> = (1..=5)
        .flat_map(|block| {
            ["hybrid", "redis-pubsub"]
                .map(|strategy| Sample::new(strategy, "small-rooms", block, 0.3).record())
        })
        .map(|mut record| {
            // The same figures in both, so that nothing can tell them apart.
            let twin = Sample::new("hybrid", "small-rooms", record.block, 0.3).record();
            record.measured.latencies = twin.measured.latencies;
            record.cost = twin.cost;
            record
        })
        .collect();
    let decisions = decide(&tables(&records, &[]), &[]);
    assert_eq!(decisions[0].outcome, Outcome::Tie(vec!["hybrid".into(), "redis-pubsub".into()]));
}

#[test]
fn a_broken_promise_is_never_ranked_however_fast() {
    let mut records = campaign(5);
    for record in records.iter_mut().filter(|record| record.contender.label == "redis-pubsub") {
        record.verdict.kept = false;
    }
    let decisions = decide(&tables(&records, &[]), &[]);
    assert_eq!(
        decisions.iter().find(|one| one.scenario == "small-rooms").unwrap().outcome,
        Outcome::Winner("hybrid".into())
    );
}

#[test]
fn invalid_runs_are_listed_and_not_ranked() {
    let mut records = campaign(5);
    for record in records.iter_mut().filter(|record| record.scenario.name == "giant-room") {
        record.validity.valid = false;
        record.validity.objections.push(crate::record::Objection {
            gate: crate::record::Gate::Busy,
            found: "a generator thread was 97 % busy".into(),
            remedy: "lower the rate".into(),
        });
    }
    let decisions = decide(&tables(&records, &[]), &[]);
    let giant = decisions.iter().find(|decision| decision.scenario == "giant-room").unwrap();
    assert_eq!(giant.outcome, Outcome::NotMeasured);
    let rendered = render(&records, &paths(&records), &[]);
    assert!(rendered.markdown.contains("97 % busy"));
}

#[test]
fn while_a_contender_has_no_valid_run_nobody_wins() {
    let mut records = campaign(5);
    for record in records.iter_mut().filter(|record| record.contender.label == "kafka-keyed") {
        record.validity.valid = false;
    }
    let decisions = decide(&tables(&records, &[]), &[]);
    let small = decisions.iter().find(|decision| decision.scenario == "small-rooms").unwrap();
    assert_eq!(small.outcome, Outcome::Undecided(vec!["redis-pubsub".into()]));
    assert!(small.because[0].contains("no valid run of kafka-keyed"));
}

/// A run at a rate, of a search or a knee.
fn at_rate(role: crate::record::Role, rate: f64, repeat: u32, p50_ms: f64) -> RunRecord {
    let mut record = Sample::new("hybrid", "small-rooms", repeat, p50_ms).record();
    record.role = role;
    record.scenario.parameters = serde_json::json!({ "traffic": { "rate_per_s": rate } });
    // A Poisson schedule never holds exactly what was asked for.
    record.measured.load.target_per_s = rate + f64::from(repeat) * 7.0;
    record
}

fn invalidate(record: &mut RunRecord) {
    record.validity.valid = false;
    record.validity.objections.push(crate::record::Objection {
        gate: crate::record::Gate::Busy,
        found: "a generator thread was 97 % busy".into(),
        remedy: "lower the rate".into(),
    });
}

#[test]
fn a_knee_groups_by_the_rate_that_was_asked_for_and_draws_invalid_runs_hollow() {
    let mut records = Vec::new();
    for (rate, p50_ms) in [(500.0, 0.3), (1_000.0, 0.4), (2_000.0, 3.0)] {
        records.extend((1..=2).map(|repeat| at_rate(crate::record::Role::Knee, rate, repeat, p50_ms)));
    }
    let clean = render(&records, &paths(&records), &[]);
    assert!(clean.markdown.contains("at 500/s") && clean.markdown.contains("at 2,000/s"));
    assert!(!clean.markdown.contains("507/s") && !clean.figures[0].1.contains("invalid run"));
    for record in records.iter_mut().filter(|record| record.measured.load.target_per_s > 1_500.0) {
        invalidate(record);
    }
    let rendered = render(&records, &paths(&records), &[]);
    assert!(rendered.markdown.contains("no valid run at 2,000/s"), "{}", rendered.markdown);
    assert_eq!(rendered.figures[0].1.matches("invalid run").count(), 2);
}

#[test]
fn a_capacity_needs_two_runs_and_says_what_stood_in_its_way() {
    let step = |rate, repeat, p50_ms| at_rate(crate::record::Role::Capacity, rate, repeat, p50_ms);
    let mut records = vec![step(500.0, 1, 0.3), step(500.0, 2, 0.3)];
    // One lucky run of three at 1,000/s.
    records.extend([step(1_000.0, 1, 900.0), step(1_000.0, 2, 0.3), step(1_000.0, 3, 900.0)]);
    let row = |records: &[RunRecord]| {
        let markdown = render(records, &paths(records), &[]).markdown;
        markdown.lines().find(|line| line.contains("| 500/s |")).unwrap_or_default().to_owned()
    };
    assert!(row(&records).ends_with("| 500/s | 1,000/s | p99 | 5 |"), "{}", row(&records));
    invalidate(&mut records[2]);
    invalidate(&mut records[4]);
    assert!(row(&records).ends_with("| 500/s | 1,000/s | generator | 5 |"), "{}", row(&records));
}

#[test]
fn whoever_lost_on_latency_is_not_said_to_lose_on_cpu() {
    // kafka-keyed is out by p99 and would be the cheapest by far; redis-pubsub and hybrid are level in p99.
    let mut records = campaign(5);
    records.retain(|record| record.scenario.name == "small-rooms");
    for record in records.iter_mut().filter(|record| record.contender.label == "kafka-keyed") {
        for component in &mut record.cost.components {
            component.cpu_s *= 0.1;
        }
    }
    let because = decide(&tables(&records, &[]), &[])[0].because.join("; ");
    assert!(because.contains("hybrid: no clear difference in p99, but it needs"), "{because}");
    assert!(!because.contains("kafka-keyed: no clear"), "{because}");
}

#[test]
fn only_a_lone_candidate_is_called_the_only_one() {
    let alone: Vec<RunRecord> =
        (1..=5).map(|block| Sample::new("hybrid", "small-rooms", block, 0.3).record()).collect();
    assert!(decide(&tables(&alone, &[]), &[])[0].because.contains(&"the only one that qualifies".to_owned()));
    // Two that never met in a block can't be compared; neither is alone.
    let apart =
        [Sample::new("hybrid", "small-rooms", 1, 0.3), Sample::new("kafka-keyed", "small-rooms", 2, 0.6)];
    let decision = decide(&tables(&apart.map(|sample| sample.record()), &[]), &[]).remove(0);
    assert!(matches!(decision.outcome, Outcome::Undecided(_)), "{decision:?}");
    let because = decision.because.join("; ");
    assert!(because.starts_with("undecided: 0 shared blocks: p99 hybrid"), "{because}");
    assert!(!because.contains("the only one"), "{because}");
}

#[test]
fn one_delivery_lost_in_many_runs_is_more_than_none() {
    let records: Vec<RunRecord> = (1..=5)
        .flat_map(|block| {
            let sample = |strategy, lost, p50_ms| Sample {
                lost,
                fault: true,
                ..Sample::new(strategy, "redis-restart", block, p50_ms)
            };
            // Redis is silent for a shorter time, but lost one delivery in one of its runs, and said so.
            [sample("redis-pubsub", u64::from(block == 3), 0.1), sample("hybrid", 0, 9.0)]
        })
        .map(|sample| sample.record())
        .collect();
    let markdown = render(&records, &paths(&records), &[]).markdown;
    let toll = markdown.split("### What a failure costs").nth(1).unwrap();
    let row = |label: &str| {
        toll.lines().find(|line| line.contains(&format!("| **{label}** |"))).unwrap().to_owned()
    };
    assert!(row("hybrid").contains("| 0 % | 0 | 0 |"), "{}", row("hybrid"));
    let redis = row("redis-pubsub");
    assert!(
        redis.contains("| 0 % (worst 0.002 %) | 0 (worst 1) | 0 |") && redis.contains("| kept | 5 |"),
        "{redis}"
    );
    assert!(decide(&tables(&records, &[]), &[]).is_empty());
}

fn failure(label: &str, scenario: &str, ranked: bool) -> Failure {
    Failure {
        cell: "c".into(),
        campaign: "sample".into(),
        role: crate::record::Role::Comparison,
        ranked,
        scenario: scenario.into(),
        stands_for: "what it stands for".into(),
        label: label.into(),
        block: 1,
        error: "the nodes did not start".into(),
    }
}

#[test]
fn a_contender_without_any_record_is_not_forgotten() {
    // All of kafka-keyed's runs failed in one scenario; all of a newcomer's failed everywhere.
    let mut records = campaign(5);
    records.retain(|record| {
        (record.contender.label.as_str(), record.scenario.name.as_str()) != ("kafka-keyed", "small-rooms")
    });
    let failures =
        [failure("newcomer", "giant-room", true), failure("kafka-shared-group", "giant-room", false)];
    let decisions = decide(&tables(&records, &failures), &failures);
    let of = |scenario: &str| decisions.iter().find(|decision| decision.scenario == scenario).unwrap();
    assert_eq!(of("small-rooms").outcome, Outcome::Undecided(vec!["redis-pubsub".into()]));
    assert!(
        of("small-rooms").because[0].contains("no valid run of kafka-keyed"),
        "{:?}",
        of("small-rooms").because
    );
    assert!(matches!(of("giant-room").outcome, Outcome::Undecided(_)));
    assert!(
        of("giant-room").because[0].ends_with("no valid run of newcomer"),
        "{:?}",
        of("giant-room").because
    );
    // Who doesn't use the broker that is struck isn't missed there.
    let markdown = render(&records, &paths(&records), &failures).markdown;
    assert!(markdown.contains("not affected: it doesn't use Redis"));
}

#[test]
fn a_scenario_of_failures_alone_is_not_measured() {
    let failures = [failure("hybrid", "skewed", true)];
    let decisions = decide(&tables(&[], &failures), &failures);
    assert_eq!((decisions.len(), &decisions[0].outcome), (1, &Outcome::NotMeasured));
    let text = terminal(&[], &failures, Style { colour: false });
    assert!(text.contains("not measured") && text.contains("the nodes did not start"), "{text}");
}

#[test]
fn what_the_one_node_reference_breaks_too_says_nothing_of_backplanes() {
    let mut records = campaign(5);
    records.retain(|record| record.scenario.name == "giant-room");
    for record in &mut records {
        record.verdict.kept = false;
        for promise in record.verdict.promises.iter_mut().filter(|one| one.about == "delivery") {
            promise.kept = false;
        }
    }
    let decision = decide(&tables(&records, &[]), &[]).remove(0);
    assert_eq!(decision.outcome, Outcome::Nobody);
    assert_eq!(decision.because[0], "the one-node reference fails too: says nothing about backplanes");
    records.retain(|record| !record.contender.floor);
    let decision = decide(&tables(&records, &[]), &[]).remove(0);
    assert!(
        decision.because[0].starts_with("hybrid: broke its promise on delivery in 5 of 5 runs"),
        "{decision:?}"
    );
}
