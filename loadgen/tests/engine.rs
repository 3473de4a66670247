//! Whole runs of the engine against a server that behaves, and against ones that misbehave on purpose: each fault must
//! be caught and named.

#![allow(clippy::unwrap_used, reason = "a test that cannot start must fail")]

use std::sync::Mutex;
use std::time::Duration;

use manifold_loadgen::engine::{self, RunError, RunSpec};
use manifold_loadgen::null_server::{Misbehaviour, NullServer, NullSettings};
use manifold_loadgen::record::{Deed, FaultOutcome, Live, Measured, Rules, Target, judge};
use manifold_loadgen::scenario::Scenario;
use manifold_loadgen::surroundings::{Alone, Surroundings};

const TEXT: &str = r#"
name = "test"
stands_for = "a short run for tests"
duration_s = 1.0
warm_up_s = 0.2
drain_s = 2.0
rooms = { count = 10, members = 6.0 }
traffic = { rate_per_s = 1000.0, senders_per_room = 1, payload = [{ bytes = 120 }] }
"#;

fn scenario(overrides: &[&str]) -> Scenario {
    let overrides: Vec<String> = overrides.iter().map(|one| (*one).to_owned()).collect();
    Scenario::parse("test", TEXT, &overrides).unwrap()
}

fn spec(scenario: Scenario, url: String) -> RunSpec {
    RunSpec { scenario, urls: vec![url], seed: 11, threads: Some(2), room_prefix: String::new() }
}

fn run_against(misbehaviour: Option<Misbehaviour>, overrides: &[&str]) -> Measured {
    let server = NullServer::start(NullSettings { misbehaviour, ..NullSettings::default() }).unwrap();
    let measured = engine::run(&spec(scenario(overrides), server.url()), &Alone).unwrap();
    assert!(measured.audit.conserved && measured.audit.closes(), "{:#?}", measured.audit);
    measured
}

#[test]
fn a_sound_server_is_found_sound() {
    let measured = run_against(None, &[]);
    let (audit, load) = (&measured.audit, &measured.load);
    assert!(audit.is_clean(), "{audit:#?}");
    assert!((1_000..1_400).contains(&audit.acknowledged), "{audit:#?}");
    assert_eq!(audit.expected, audit.acknowledged * 6);
    assert_eq!((audit.refused, audit.unknown, audit.recovered, audit.indeterminate), (0, 0, 0, 0));
    assert_eq!((audit.compared_rooms, audit.divergent_rooms), (10, 0));
    assert_eq!((load.connections, load.memberships, load.scheduled), (60, 60, load.sent));
    assert_eq!(measured.latencies.delivery.count(), load.sent * 6);
    assert_eq!(measured.latencies.last_member.count(), load.sent);
    assert_eq!(measured.latencies.ack.count(), load.sent);
    assert_eq!(measured.latencies.send_lag.count(), load.sent);
    let points = &measured.series.points;
    assert_eq!(points.iter().map(|point| point.delivered).sum::<u64>(), audit.delivered);
    assert_eq!(points.iter().map(|point| point.sent).sum::<u64>(), audit.acknowledged);
    assert!(measured.drain_s < 1.0, "nothing was missing, so nothing had to be waited for");
}

#[test]
fn rooms_spread_over_clients_and_services_that_write_are_audited_too() {
    let overrides = [
        "rooms.per_client=3",
        "traffic.senders_per_room=0",
        "traffic.services=2",
        "traffic.arrival=bursts",
        "traffic.burst_spacing_ms=1",
    ];
    let measured = run_against(None, &overrides);
    assert!(measured.audit.is_clean(), "{:#?}", measured.audit);
    assert_eq!(measured.audit.expected, measured.audit.acknowledged * 6);
    assert_eq!((measured.load.connections, measured.load.memberships), (22, 60));
}

#[test]
fn who_leaves_while_the_server_is_frozen_has_lost_nothing() {
    let frozen = Misbehaviour::Stall { after: 600, lasting: Duration::from_millis(2_500) };
    let churn = ["churn={ share_per_min = 60.0, away_s = 0.3 }", "duration_s=4.0", "drain_s=4.0"];
    let audit = run_against(Some(frozen), &churn).audit;
    assert_eq!((audit.lost(), audit.duplicates, audit.leaked), (0, 0, 0), "{audit:#?}");
    assert!(audit.delivered > 1_000 && audit.indeterminate > 0, "{audit:#?}");
    // Coming and going is no excuse for what is really lost.
    let audit = run_against(Some(Misbehaviour::Drop { every: 50 }), &churn).audit;
    assert!(audit.lost_silent > audit.expected / 200, "{audit:#?}");
}

#[test]
fn loss_is_counted_to_the_last_message() {
    let audit = run_against(Some(Misbehaviour::Drop { every: 50 }), &[]).audit;
    assert_eq!(audit.lost_silent, audit.expected / 50, "{audit:#?}");
    assert_eq!(audit.delivered, audit.expected - audit.lost_silent);
    assert_eq!((audit.lost_declared, audit.duplicates, audit.reordered, audit.leaked), (0, 0, 0, 0));
    assert!(!audit.is_clean());
}

#[test]
fn even_total_loss_is_counted() {
    let audit = run_against(Some(Misbehaviour::Drop { every: 1 }), &["drain_s=0.5"]).audit;
    assert_eq!((audit.delivered, audit.lost_silent), (0, audit.expected));
    assert!(audit.expected > 6_000);
}

#[test]
fn duplicates_are_counted() {
    let audit = run_against(Some(Misbehaviour::Repeat { every: 40 }), &[]).audit;
    assert_eq!(audit.duplicates, audit.expected / 40, "{audit:#?}");
    assert_eq!((audit.delivered, audit.lost()), (audit.expected, 0));
}

#[test]
fn swaps_are_counted_and_rooms_diverge() {
    let measured = run_against(Some(Misbehaviour::Swap { every: 97 }), &["rooms.count=2"]);
    let audit = measured.audit;
    // One sender per room: a swap is a reordering by that sender, save for a frame still held at the end.
    assert!(audit.reordered > 0 && audit.reordered <= audit.expected / 97, "{audit:#?}");
    assert_eq!(audit.divergent_rooms, 2);
    assert_eq!(audit.duplicates, 0);
}

#[test]
fn what_is_carried_out_after_its_client_went_on_elsewhere_is_told_from_what_is_reordered() {
    let is_kept = |measured: &Measured| {
        let (_, verdict) = judge(measured, &serde_json::Value::Null, 10_000_000, Rules::default());
        verdict.promises.iter().any(|one| one.about == "order of a publisher" && one.kept)
    };
    let by = Duration::from_millis(700);
    let lingering = Some(Misbehaviour::Linger { every: 2, by });
    let undisturbed = run_against(lingering, &[]);
    let audit = &undisturbed.audit;
    assert!(audit.reordered > 0 && audit.late_unknown == 0 && !is_kept(&undisturbed), "{audit:#?}");
    // Often enough for some sender's last words on a connection to be among those that linger.
    let at = |at_s: f64| format!("{{ at_s = {at_s:.1}, do = \"disconnect\", share = 0.4 }}");
    let steps = format!("clients=[{}]", [0.4, 0.9, 1.4, 1.9].map(at).join(", "));
    let overrides = [&*steps, "reconnect.min_ms=50", "reconnect.max_ms=100", "duration_s=2.5"];
    let measured = run_against(lingering, &overrides);
    let audit = &measured.audit;
    assert!(audit.late_unknown > 0, "{audit:#?}");
    assert!(audit.reordered > 0 && !is_kept(&measured), "connections that live are no excuse: {audit:#?}");
    assert!(measured.overtaken.iter().any(|one| one.excused) && measured.overtaken.len() > 20);
    assert!(audit.late_unknown <= audit.abandoned * 6, "more than the scenario left unanswered: {audit:#?}");
    assert!(measured.overtaken.iter().any(|one| !one.excused && one.connection == one.by_connection));
    // What was acknowledged before it was carried out is never excused, save where the answer itself did not arrive.
    let audit = run_against(Some(Misbehaviour::Postpone { every: 2, by }), &overrides).audit;
    assert!(audit.reordered > 0 && audit.late_unknown <= audit.abandoned * 6, "{audit:#?}");
}

#[test]
fn a_late_repair_is_waited_for_and_a_late_copy_is_seen() {
    let calm = "clients=[{ at_s = 0.1, do = \"read\", share = 0.0 }]";
    let by = std::time::Duration::from_millis(1_100);
    // Near the end of some 7,200 deliveries; the member's other messages overtake it.
    let audit = run_against(Some(Misbehaviour::Late { nth: 6_600, by }), &[calm, "drain_s=4.0"]).audit;
    assert_eq!((audit.lost(), audit.reordered), (0, 1), "{audit:#?}");
    let by = std::time::Duration::from_millis(50);
    let audit = run_against(Some(Misbehaviour::Echo { nth: 7_150, by }), &[calm]).audit;
    assert_eq!((audit.lost(), audit.duplicates), (0, 1), "{audit:#?}");
}

#[test]
fn strangers_are_noticed() {
    let audit = run_against(Some(Misbehaviour::Stranger { every: 60 }), &[]).audit;
    assert_eq!(audit.leaked, audit.expected / 60, "{audit:#?}");
    assert_eq!((audit.delivered, audit.lost()), (audit.expected, 0));
}

#[test]
fn damage_is_noticed() {
    let audit = run_against(Some(Misbehaviour::Damage { every: 60 }), &[]).audit;
    assert_eq!(audit.corrupt, audit.expected / 60, "{audit:#?}");
    assert_eq!(audit.lost_silent, audit.corrupt);
}

#[test]
fn refusals_are_no_losses() {
    let audit = run_against(Some(Misbehaviour::Refuse { every: 10 }), &[]).audit;
    assert_eq!(audit.refused, (audit.acknowledged + audit.refused) / 10, "{audit:#?}");
    assert_eq!((audit.lost(), audit.expected), (0, audit.acknowledged * 6));
}

#[test]
fn a_told_loss_is_a_declared_one() {
    let measured = run_against(Some(Misbehaviour::Gap { every: 100 }), &[]);
    let audit = measured.audit;
    assert!(audit.gaps_declared > 50, "{audit:#?}");
    assert_eq!(audit.lost_silent, 0, "{audit:#?}");
    assert!(audit.lost_declared >= audit.gaps_declared, "{audit:#?}");
    assert_eq!(measured.series.points.iter().map(|point| point.lost).sum::<u64>(), audit.lost());
    assert_eq!(measured.series.points.iter().map(|point| point.gaps).sum::<u64>(), audit.gaps_declared);
}

#[test]
fn a_stall_shows_in_the_percentiles_of_the_messages_that_were_meant_to_be_sent_in_it() {
    let lasting = std::time::Duration::from_secs(1);
    let misbehaviour = Misbehaviour::Stall { after: 1_000, lasting };
    let measured = run_against(Some(misbehaviour), &["duration_s=3.0", "deadline_ms=500"]);
    let latencies = &measured.latencies;
    let (p50, p99) = (latencies.delivery.quantile_us(0.5), latencies.delivery.quantile_us(0.99));
    assert!(p99 > Some(900_000), "a second's stall must show: p99 {p99:?} µs");
    assert!(p50 < Some(500_000), "two thirds of the run were undisturbed: p50 {p50:?} µs");
    assert!(latencies.ack.quantile_us(0.99) > Some(900_000));
    // The messages left when they were meant to: sending does not wait for the server.
    // Had it waited, a third of the lags would lie between nothing and a second; a busy machine makes some of them too.
    assert!(latencies.send_lag.quantile_us(0.99) < Some(500_000), "{:?}", latencies.send_lag);
    assert_eq!(measured.load.sent, measured.load.scheduled);
    assert!(measured.audit.late > 0 && measured.audit.is_clean(), "{:#?}", measured.audit);
}

#[test]
fn clients_leave_a_server_that_misses_its_pings_and_come_back() {
    let stall = Misbehaviour::Stall { after: 700, lasting: Duration::from_secs(3) };
    let overrides =
        ["pings.patience_ms=500", "reconnect.min_ms=50", "reconnect.max_ms=200", "duration_s=5.0"];
    let measured = run_against(Some(stall), &overrides);
    let (audit, load) = (&measured.audit, &measured.load);
    assert!(load.reconnects >= 60, "it promised a ping each second: {load:#?}");
    assert_eq!((load.connections_failed, audit.lost_silent, audit.duplicates), (0, 0, 0), "{audit:#?}");
    assert!(audit.unknown > 0, "{audit:#?}");
    let patient = run_against(Some(stall), &["duration_s=5.0", "deadline_ms=500"]);
    assert_eq!((patient.load.reconnects, patient.audit.unknown), (0, 0), "10 s is what SDKs wait");
}

#[test]
fn a_server_that_dies_mid_run_ends_in_a_record_not_in_a_hang() {
    let overrides = ["reconnect.min_ms=50", "reconnect.max_ms=200", "drain_s=0.5"];
    let measured = run_against(Some(Misbehaviour::Die { after: 600 }), &overrides);
    assert_eq!(measured.load.connections_failed, 60);
    let load = &measured.load;
    assert_eq!(load.sent + load.unsent, load.scheduled, "{load:#?}");
    let p99 = measured.latencies.delivery.quantile_us(0.99);
    assert!(p99 > Some(500_000), "who waited in vain waited longest: p99 {p99:?} µs");
    let (validity, verdict) = judge(
        &measured,
        &serde_json::Value::Null,
        10_000_000,
        Rules { busy_share_max: 2.0, ..Rules::default() },
    );
    assert!(validity.valid, "the generator is not to blame: {validity:#?}");
    assert!(!verdict.clean && !verdict.kept, "{verdict:#?}");
    assert!(measured.audit.unknown > 0, "{:#?}", measured.audit);
    assert_eq!(measured.audit.lost_silent, 0, "what was under way is indeterminate: {:#?}", measured.audit);
}

#[test]
fn a_storm_of_reconnects_loses_nothing_that_was_owed() {
    let storm = ["clients=[{ at_s = 0.3, do = \"disconnect\", share = 1.0 }]", "reconnect.min_ms=50"];
    let measured = run_against(None, &[storm[0], storm[1], "reconnect.max_ms=100", "duration_s=1.5"]);
    assert_eq!(measured.load.reconnects, 60);
    assert_eq!(measured.load.connections_failed, 0);
    assert_eq!(measured.load.sent, measured.load.scheduled, "what fell due meanwhile was sent later");
    let audit = &measured.audit;
    assert_eq!((audit.lost(), audit.leaked, audit.corrupt), (0, 0, 0), "{audit:#?}");
    assert_eq!(measured.series.interval_ms, 250);
}

#[test]
fn churn_leaves_the_books_in_order() {
    let overrides = ["churn={ share_per_min = 60.0, away_s = 0.1 }", "duration_s=2.0"];
    let measured = run_against(None, &overrides);
    let audit = &measured.audit;
    assert_eq!((audit.lost(), audit.duplicates, audit.leaked), (0, 0, 0), "{audit:#?}");
    assert!(audit.expected < audit.acknowledged * 6, "somebody was away: {audit:#?}");
}

#[test]
fn slow_readers_are_audited_and_do_not_count_as_latency() {
    let overrides = [
        "clients=[{ at_s = 0.1, do = \"stop-reading\", share = 0.3 }, { at_s = 1.2, do = \"read\", share = 1.0 }]",
        "duration_s=1.5",
    ];
    let measured = run_against(None, &overrides);
    assert!(measured.audit.is_clean(), "{:#?}", measured.audit);
    assert!(measured.latencies.delivery.count() < measured.load.sent * 6);
    assert!(
        measured.latencies.delivery.quantile_us(0.99) < Some(500_000),
        "{:?}",
        measured.latencies.delivery
    );
}

#[test]
fn clients_that_vanish_or_send_garbage_disturb_nobody() {
    let overrides = [
        "clients=[{ at_s = 0.2, do = \"half-open\", share = 0.3 }, { at_s = 0.6, do = \"garbage\", share = 0.5 }]",
        "reconnect.min_ms=50",
        "reconnect.max_ms=100",
        "duration_s=1.5",
    ];
    let measured = run_against(None, &overrides);
    let (audit, load) = (&measured.audit, &measured.load);
    assert!(load.garbled > 10 && load.garbled_closes == load.garbled, "{load:#?}");
    assert!(load.reconnects > load.garbled, "those that vanished came back, too: {load:#?}");
    assert_eq!(load.connections_failed, 0);
    assert_eq!((audit.lost(), audit.duplicates, audit.leaked, audit.corrupt), (0, 0, 0, 0), "{audit:#?}");
}

/// Surroundings that write down what is asked of them.
#[derive(Debug, Default)]
struct Witness {
    calls: Mutex<Vec<String>>,
    add: Option<String>,
}

impl Surroundings for Witness {
    fn window_opened(&self) {
        self.calls.lock().unwrap().push("opened".to_owned());
    }
    fn window_closed(&self) {
        self.calls.lock().unwrap().push("closed".to_owned());
    }
    fn progress(&self, live: &Live) {
        assert!(live.total_s > 0.0);
    }
    fn inject(&self, deed: Deed, target: Target) -> anyhow::Result<FaultOutcome> {
        self.calls.lock().unwrap().push(format!("{deed:?} {target:?}"));
        Ok(match target {
            Target::Node => FaultOutcome::Done { whom: "n2".to_owned(), added_url: self.add.clone() },
            _ => FaultOutcome::NotApplicable,
        })
    }
}

#[test]
fn faults_happen_in_time_and_a_node_that_joins_is_used() {
    let (first, second) =
        (NullServer::start(Default::default()).unwrap(), NullServer::start(Default::default()).unwrap());
    let witness = Witness { add: Some(second.url()), ..Witness::default() };
    let overrides = [
        "faults=[{ at_s = 0.2, do = \"add\", to = \"node\" }, { at_s = 0.1, do = \"kill\", to = \"redis\" }]",
        "clients=[{ at_s = 0.5, do = \"move\", share = 0.5 }]",
        "duration_s=2.5",
    ];
    let measured = engine::run(&spec(scenario(&overrides), first.url()), &witness).unwrap();
    assert_eq!(*witness.calls.lock().unwrap(), ["opened", "Kill Redis", "Add Node", "closed"]);
    assert_eq!(measured.faults.len(), 2);
    assert_eq!((measured.faults[0].whom.as_str(), measured.faults[1].whom.as_str()), ("", "n2"));
    assert!((measured.faults[1].began_s - 0.4).abs() < 0.1, "{:?}", measured.faults);
    assert!(measured.faults[1].room_silence_ms_p99 <= measured.faults[1].room_silence_ms_max);
    let silence_ms = measured.faults[1].room_silence_ms_max;
    assert!(silence_ms > Some(0.0) && silence_ms < Some(2_500.0), "{:?}", measured.faults);
    assert_eq!(measured.load.nodes, 1);
    assert!((15..=45).contains(&measured.load.reconnects), "{:?}", measured.load);
    // The two servers share nothing: rooms are split between them now, and the audit says so.
    assert!(measured.audit.conserved, "{:#?}", measured.audit);
    assert!(measured.audit.lost_silent > 0, "{:#?}", measured.audit);
    drop((first, second));
}

#[test]
fn an_unreachable_server_is_a_clear_error() {
    let gone = NullServer::start(NullSettings::default()).unwrap().url();
    let error = engine::run(&spec(scenario(&[]), gone.clone()), &Alone).expect_err("nobody is there");
    let message = error.to_string();
    assert!(message.contains("0 of 60 clients joined") && message.contains("refused"), "{message}");
    let error = engine::run(&spec(scenario(&[]), gone), &Impatient::after(30)).expect_err("cancelled");
    assert!(matches!(error, RunError::Cancelled), "{error}");
    let error = engine::run(&spec(scenario(&[]), "http://x".to_owned()), &Alone).expect_err("not ws://");
    assert!(error.to_string().contains("ws://"), "{error}");
    let none = RunSpec { urls: Vec::new(), ..spec(scenario(&[]), String::new()) };
    assert!(engine::run(&none, &Alone).is_err());
}

/// Surroundings that ask for an end after a number of looks.
struct Impatient(std::sync::atomic::AtomicU32);

impl Impatient {
    fn after(looks: u32) -> Self {
        Self(looks.into())
    }
}

impl Surroundings for Impatient {
    fn cancelled(&self) -> bool {
        self.0.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) <= 1
    }
    fn inject(&self, _: Deed, _: Target) -> anyhow::Result<FaultOutcome> {
        anyhow::bail!("no such process")
    }
}

#[test]
fn a_fault_that_cannot_be_done_ends_the_run_and_says_which() {
    let server = NullServer::start(NullSettings::default()).unwrap();
    let faults = ["faults=[{ at_s = 0.1, do = \"kill\", to = \"kafka\" }]"];
    let error = engine::run(&spec(scenario(&faults), server.url()), &Alone).expect_err("nobody can do that");
    assert!(error.to_string().contains("fault at 0.1 s"), "{error}");
    let error =
        engine::run(&spec(scenario(&faults), server.url()), &Impatient::after(50)).expect_err("cancelled");
    assert!(matches!(error, RunError::Cancelled | RunError::Fault { .. }), "{error}");
}
