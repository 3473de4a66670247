//! Runs whose servers were not there must neither pass nor be blamed on the generator.

use serde_json::Value;

use super::*;
use crate::record::{Audit, Generator, Load};

/// A sound run of 10,000 publishes, ready to be spoilt.
fn sound() -> Measured {
    let mut measured =
        crate::report::sample::Sample::new("kafka-keyed", "small-rooms", 1, 2.0).record().measured;
    measured.audit = Audit {
        acknowledged: 10_000,
        expected: 100_000,
        delivered: 100_000,
        conserved: true,
        ..Audit::default()
    };
    measured.faults.clear();
    measured
}

fn judged(measured: &Measured) -> (Validity, Verdict) {
    judge(measured, &Value::Null, 1_000_000, Rules::default())
}

#[test]
fn refused_and_unanswered_publishes_are_a_broken_promise_while_healthy() {
    assert!(judged(&sound()).1.clean && judged(&sound()).1.kept);
    for spoil in [
        (|audit| audit.refused = 20) as fn(&mut Audit),
        |audit| audit.unknown = 20,
        |audit| (audit.refused, audit.unknown) = (6, 6),
    ] {
        let mut measured = sound();
        spoil(&mut measured.audit);
        let (validity, verdict) = judged(&measured);
        assert!(validity.valid && !verdict.clean && !verdict.kept, "{verdict:#?}");
        let broken: Vec<&Promise> = verdict.promises.iter().filter(|one| !one.kept).collect();
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].about, "service");
    }
    let mut few = sound();
    (few.audit.refused, few.audit.unknown, few.audit.abandoned) = (5, 500, 500);
    assert!(judged(&few).1.clean, "one in a thousand, and what the scenario itself did, are excused");
}

#[test]
fn a_server_that_is_gone_is_not_a_bad_generator() {
    let mut measured = sound();
    measured.load.unsent = measured.load.scheduled / 2;
    measured.load.sent -= measured.load.unsent;
    measured.load.offered_per_s /= 2.0;
    measured.load.connections_failed = 7;
    let (validity, verdict) = judged(&measured);
    assert!(validity.valid, "{validity:#?}");
    assert!(!verdict.clean && !verdict.kept);
    let observed = &verdict.promises[0].observed;
    assert!(observed.contains("2500 without a connection, 7 connections"), "{observed}");
    measured.load = Load { unsent: 0, ..measured.load };
    assert_eq!(judged(&measured).0.objections[0].gate, Gate::Offered, "what was not sent for no such reason");
}

#[test]
fn a_busy_thread_invalidates_and_one_that_waits_for_a_core_shows_in_its_lag() {
    let mut measured = sound();
    measured.generator = Generator { busy_share_max: 0.8, queued_share_max: 0.19, ..measured.generator };
    assert!(judged(&measured).0.valid);
    measured.generator.busy_share_max = 0.9;
    let (validity, _) = judged(&measured);
    assert_eq!(validity.objections[0].gate, Gate::Busy);
    assert!(validity.objections[0].found.contains("90 %") && validity.objections[0].found.contains("19 %"));
}

#[test]
fn slow_clients_that_nobody_disconnects_test_nothing() {
    let mut measured = sound();
    (measured.load.slowed, measured.load.slow_closes) = (5, 1);
    assert!(judged(&measured).0.valid);
    measured.load.slow_closes = 0;
    assert_eq!(judged(&measured).0.objections[0].gate, Gate::Purpose);
}

#[test]
fn what_is_late_of_unknown_outcome_is_excused_where_connections_broke_and_what_is_reordered_never() {
    fn kept(change: impl FnOnce(&mut Measured)) -> Option<(bool, String)> {
        let mut measured = sound();
        change(&mut measured);
        let (_, verdict) = judged(&measured);
        assert!(!verdict.clean, "not as if nothing had been");
        let order = verdict.promises.into_iter().find(|one| one.about == "order of a publisher");
        order.map(|order| (order.kept, order.observed))
    }
    let said = |kept: bool, observed: &str| Some((kept, observed.to_owned()));
    let late = "0 reordered, 7 late of unknown outcome";
    assert_eq!(kept(|one| one.audit.late_unknown = 7), said(false, late));
    let reconnected = |one: &mut Measured| (one.audit.late_unknown, one.load.reconnects) = (7, 1);
    assert_eq!(kept(reconnected), said(false, late), "its server broke the connection, and had no reason to");
    let abandoned = |one: &mut Measured| (one.audit.late_unknown, one.audit.abandoned) = (7, 1);
    assert_eq!(kept(abandoned), said(true, late));
    let struck = |one: &mut Measured| {
        let faulty = crate::report::sample::Sample::new("hybrid", "redis-restart", 1, 2.0);
        one.faults = crate::report::sample::Sample { fault: true, ..faulty }.record().measured.faults;
        one.audit.late_unknown = 7;
    };
    assert_eq!(kept(struck), said(true, late));
    let reordered = |one: &mut Measured| (one.audit.reordered, one.load.reconnects) = (1, 9);
    assert_eq!(kept(reordered), said(false, "1 reordered, 0 late of unknown outcome"));
}

#[test]
fn one_order_while_healthy_is_held_to_that_and_no_more() {
    let declared = serde_json::json!({"ordering": "per-room-while-healthy"});
    let order_kept = |measured: &Measured| {
        let (_, verdict) = judge(measured, &declared, 1_000_000, Rules::default());
        verdict.promises.iter().find(|one| one.about == "order of a room").is_some_and(|one| one.kept)
    };
    let mut measured = sound();
    measured.audit.divergent_rooms = 1;
    assert!(!order_kept(&measured));
    let faulty = crate::report::sample::Sample::new("hybrid", "redis-restart", 1, 2.0);
    measured.faults = crate::report::sample::Sample { fault: true, ..faulty }.record().measured.faults;
    assert!(order_kept(&measured));
}
