//! Whole runs of clients that recover what they missed, against a server that remembers, and against ones that only say
//! so: each lie must be caught and named.

#![allow(clippy::unwrap_used, reason = "a test that cannot start must fail")]

use manifold_loadgen::engine::{self, RunSpec};
use manifold_loadgen::null_server::{Misbehaviour, NullServer, NullSettings};
use manifold_loadgen::record::{Measured, Recoveries, Rules, judge};
use manifold_loadgen::scenario::Scenario;
use manifold_loadgen::surroundings::Alone;

/// Half of the clients lose their connections and miss some ten messages each, then another half.
const TEXT: &str = r#"
name = "test"
stands_for = "clients that were away for a moment"
duration_s = 1.5
warm_up_s = 0.2
drain_s = 3.0
recover = true
rooms = { count = 10, members = 6.0 }
traffic = { rate_per_s = 1000.0, senders_per_room = 1, payload = [{ bytes = 120 }] }
reconnect = { min_ms = 50, max_ms = 150 }
clients = [{ at_s = 0.3, do = "disconnect", share = 0.5 }, { at_s = 0.8, do = "disconnect", share = 0.5 }]
"#;

fn run(history: usize, misbehaviour: Option<Misbehaviour>, overrides: &[&str]) -> (Measured, Recoveries) {
    let settings = NullSettings { history, misbehaviour, ..NullSettings::default() };
    let server = NullServer::start(settings).unwrap();
    let overrides: Vec<String> = overrides.iter().map(|one| (*one).to_owned()).collect();
    let scenario = Scenario::parse("test", TEXT, &overrides).unwrap();
    let urls = vec![server.url()];
    let spec = RunSpec { scenario, urls, seed: 11, threads: Some(2), room_prefix: String::new() };
    let measured = engine::run(&spec, &Alone).unwrap();
    assert!(measured.audit.conserved && measured.audit.closes(), "{:#?}", measured.audit);
    let recoveries = measured.recoveries.unwrap();
    (measured, recoveries)
}

/// What the verdict says about recovery: whether it kept its promise, and what was seen.
fn promise(measured: &Measured) -> (bool, String) {
    let (_, verdict) = judge(measured, &serde_json::Value::Null, 10_000_000, Rules::default());
    let promise = verdict.promises.into_iter().find(|promise| promise.about == "recovery").unwrap();
    (promise.kept, promise.observed)
}

#[test]
fn whoever_was_away_gets_all_that_it_missed() {
    let (measured, recoveries) = run(300, None, &[]);
    let audit = &measured.audit;
    assert!(audit.is_clean(), "{audit:#?}");
    assert_eq!(audit.expected, audit.acknowledged * 6, "being away is no excuse: {audit:#?}");
    assert_eq!((audit.indeterminate, audit.divergent_rooms), (0, 0), "{audit:#?}");
    assert_eq!(recoveries.complete, measured.load.reconnects, "{recoveries:?}");
    assert_eq!((recoveries.incomplete, recoveries.never), (0, 0));
    assert!(recoveries.publications > 50, "{recoveries:?}");
    assert!(recoveries.are_true() && promise(&measured).0);
    // The time that they were away is told by itself, and is no latency of the server's.
    let recovered = measured.latencies.recovered.as_ref().unwrap();
    assert_eq!(recovered.count(), recoveries.publications);
    assert!(measured.latencies.delivery.count() > recovered.count());
}

#[test]
fn a_client_that_is_moved_recovers_too() {
    let moved = "clients=[{ at_s = 0.2, do = \"move\", share = 1.0 }]";
    let (measured, recoveries) = run(500, None, &[moved, "duration_s=2.0"]);
    assert!(measured.audit.is_clean(), "{:#?}", measured.audit);
    assert_eq!(recoveries.complete, 60, "{recoveries:?}");
}

#[test]
fn a_gap_that_history_covers_is_told_and_made_good() {
    let calm = "clients=[]";
    let (measured, recoveries) = run(300, Some(Misbehaviour::Gap { every: 100 }), &[calm]);
    let audit = &measured.audit;
    assert!(audit.gaps_declared > 50 && audit.is_clean(), "{audit:#?}");
    assert_eq!(recoveries.complete, audit.gaps_declared, "{recoveries:?}");
}

#[test]
fn what_history_does_not_reach_is_a_declared_loss() {
    let (measured, recoveries) = run(2, None, &[]);
    let audit = &measured.audit;
    assert!(recoveries.incomplete > 10, "{recoveries:?}");
    assert!(audit.lost_declared > recoveries.incomplete && audit.lost_silent == 0, "{audit:#?}");
    assert!(promise(&measured).0, "it said so");
    let (_, recoveries) = run(0, None, &[]);
    assert_eq!(recoveries, Recoveries::default(), "no positions, nothing to recover");
}

#[test]
fn a_message_that_is_forgotten_in_a_recovery_is_caught_and_named() {
    let (measured, recoveries) = run(300, Some(Misbehaviour::Forget { every: 2 }), &[]);
    let audit = &measured.audit;
    assert!(recoveries.forgotten > 5, "{recoveries:?}");
    assert_eq!(audit.lost_silent, recoveries.forgotten, "{audit:#?}");
    let (kept, observed) = promise(&measured);
    assert!(!kept && observed.contains(&format!("{} forgotten", recoveries.forgotten)), "{observed}");
}

#[test]
fn a_message_that_comes_twice_in_a_recovery_is_caught_and_named() {
    let (measured, recoveries) = run(300, Some(Misbehaviour::Recur { every: 2 }), &[]);
    assert!(recoveries.repeated > 5, "{recoveries:?}");
    assert_eq!(measured.audit.duplicates, recoveries.repeated, "{:#?}", measured.audit);
    assert_eq!(measured.audit.lost(), 0);
    let (kept, observed) = promise(&measured);
    assert!(!kept && observed.contains(&format!("{} twice", recoveries.repeated)), "{observed}");
}

#[test]
fn a_recovery_out_of_order_is_caught_and_named() {
    let (measured, recoveries) = run(300, Some(Misbehaviour::Shuffle { every: 2 }), &[]);
    assert!(recoveries.reordered > 5, "{recoveries:?}");
    assert_eq!(measured.audit.reordered, recoveries.reordered, "{:#?}", measured.audit);
    assert_eq!((measured.audit.lost(), measured.audit.duplicates), (0, 0));
    let (kept, observed) = promise(&measured);
    assert!(!kept && observed.contains(&format!("{} out of order", recoveries.reordered)), "{observed}");
}

#[test]
fn what_was_claimed_stays_forgotten_though_a_later_recovery_fails_openly() {
    // A service writes on while members are away, for so long that what is forgotten cannot have been under way.
    let overrides = [
        "clients=[{ at_s = 0.2, do = \"disconnect\", share = 0.9 }, { at_s = 3.8, do = \"disconnect\", share = 0.9 }]",
        "reconnect={ min_ms = 3000, max_ms = 3100 }",
        "duration_s=7.5",
        "traffic={ rate_per_s = 500.0, senders_per_room = 0, services = 1, payload = [{ bytes = 120 }] }",
    ];
    // The seed strikes 57 members, then 59, and never the service.
    let (measured, recoveries) = run(1_000, Some(Misbehaviour::Cover { after: 57 }), &overrides);
    let audit = &measured.audit;
    assert_eq!((recoveries.complete, recoveries.incomplete), (57, 59), "{recoveries:?}");
    assert_eq!((recoveries.forgotten, audit.lost_silent), (57, 57), "{audit:#?}");
    assert!(audit.lost_declared > 1_000, "{audit:#?}");
    assert!(!promise(&measured).0);
}

#[test]
fn what_comes_again_with_or_behind_a_failed_recovery_is_a_duplicate() {
    let (measured, recoveries) = run(300, Some(Misbehaviour::Rerun { count: 40 }), &[]);
    let audit = &measured.audit;
    assert!(recoveries.incomplete > 20, "{recoveries:?}");
    assert!(recoveries.repeated > 100, "with the reply: {recoveries:?}");
    assert!(audit.duplicates > recoveries.repeated + 100, "and behind it: {audit:#?}");
    assert!(!promise(&measured).0);
}

#[test]
fn who_is_not_told_that_a_recovery_was_not_made_has_lost_in_silence() {
    let (measured, recoveries) = run(300, Some(Misbehaviour::Ignore { every: 1 }), &[]);
    let audit = &measured.audit;
    assert!(audit.lost_silent > 100, "{audit:#?}");
    assert_eq!((audit.lost_declared, recoveries.incomplete), (0, 0), "{audit:#?}");
}

#[test]
fn whoever_never_comes_back_was_a_member_until_it_was_cut_off() {
    let overrides = ["clients=[]", "drain_s=0.5"];
    let (measured, recoveries) = run(300, Some(Misbehaviour::Die { after: 600 }), &overrides);
    assert_eq!((recoveries.never, recoveries.complete), (60, 0), "{recoveries:?}");
    let audit = &measured.audit;
    assert_eq!(audit.lost_silent, 0, "what was under way is indeterminate: {audit:#?}");
}
