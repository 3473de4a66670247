//! What only a campaign sees of a run and holds against it: processes that ended by themselves, nodes that did not drain,
//! faults that came too late.

use crate::record::{ComponentKind, Deed, Gate, Measured, Objection, Promise, RunRecord, Target, Validity};
use crate::scenario::Pings;

/// A fault must be over this long before the load is, so that what it left behind shows.
pub const AFTER_LAST_FAULT_S: f64 = 2.0;

/// Processes that were not as they should be when the load was over.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Who ended by himself, with how his log ends.
    pub(super) ended: Vec<(String, String)>,
    /// Nodes that did not drain at the end, in words.
    pub(super) undrained: Vec<String>,
}

/// Whether a process of that name is a node, and no broker.
pub fn is_node(name: &str) -> bool {
    name.strip_prefix('n').is_some_and(|rest| rest.parse::<u32>().is_ok())
}

/// A node that ends breaks a promise: a repetition must not hide it. A broker that ends makes the run worthless.
pub(super) fn hold(record: &mut RunRecord, aftermath: &Aftermath) {
    let (nodes, brokers): (Vec<_>, Vec<_>) = aftermath.ended.iter().partition(|(name, _)| is_node(name));
    let nodes =
        nodes.into_iter().map(|(name, log)| format!("{name} ended by itself; its log ends with: {log}"));
    let observed: Vec<String> = nodes.chain(aftermath.undrained.iter().cloned()).collect();
    if !observed.is_empty() {
        record.verdict.kept = false;
        record.verdict.clean = false;
        record.verdict.promises.push(Promise {
            about: "nodes".to_owned(),
            declared: "end when they are told to, and then well".to_owned(),
            observed: observed.join("; "),
            kept: false,
        });
    }
    for (name, log) in brokers {
        object(
            &mut record.validity,
            format!("{name} ended by itself; its log ends with: {log}"),
            "see what ended it: memory, disk, or the broker's own fault",
        );
    }
}

/// A fault that was not over well before the load was says nothing about recovery.
pub(super) fn hold_late_faults(validity: &mut Validity, measured: &Measured) {
    let struck = measured.faults.iter().filter(|mark| !mark.whom.is_empty());
    let last_s = struck.map(|mark| mark.ended_s).fold(f64::NEG_INFINITY, f64::max);
    let until_s = measured.warm_up_s + measured.window_s - AFTER_LAST_FAULT_S;
    if last_s > until_s {
        object(
            validity,
            format!("the last fault was over at {last_s:.1} s, it had to be by {until_s:.1} s"),
            "give the timeline more room after it, or free the machine of other work",
        );
    }
}

/// A scenario that makes pings frequent is about clients that leave a silent node: somebody must be elsewhere when it wakes up.
pub(super) fn hold_patient_clients(validity: &mut Validity, measured: &Measured, pings: Pings) {
    let began_s = |deed: Deed| {
        let marks = measured.faults.iter().filter(|mark| !mark.whom.is_empty());
        marks
            .filter(|mark| mark.fault.deed == deed && mark.fault.to == Target::Node)
            .map(|mark| mark.began_s)
            .next()
    };
    let (Some(stopped_s), Some(continued_s)) = (began_s(Deed::Stop), began_s(Deed::Continue)) else { return };
    let patience_s = (pings.every_ms + pings.patience_ms) as f64 / 1e3;
    let silent_s = continued_s - stopped_s;
    if pings.every_ms > 0 && silent_s > patience_s && measured.load.reconnects == 0 {
        object(
            validity,
            format!("a node was silent for {silent_s:.1} s, and none of its clients went elsewhere"),
            "see what servers say of their pings, and that clients were on that node",
        );
    }
}

fn object(validity: &mut Validity, found: String, remedy: &str) {
    validity.valid = false;
    validity.objections.push(Objection { gate: Gate::Purpose, found, remedy: remedy.to_owned() });
}

/// The kind of broker that a contender lacks for a fault, or that it is one node that the fault leaves gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excluded {
    /// It uses no broker of that kind.
    NoBroker(ComponentKind),
    /// It runs on one node, and the fault needs another one or takes it away for good.
    OneNode,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Fault, FaultMark};
    use crate::report::sample::Sample;

    fn record() -> RunRecord {
        Sample { fault: true, ..Sample::new("hybrid", "broker-restart", 1, 0.3) }.record()
    }

    #[test]
    fn a_node_that_ends_breaks_a_promise_and_a_broker_makes_the_run_invalid() {
        let ended = |name: &str| Aftermath { ended: vec![(name.into(), "killed".into())], undrained: vec![] };
        let (mut node, mut broker) = (record(), record());
        hold(&mut node, &ended("n1"));
        assert!(!node.verdict.kept && node.validity.valid == record().validity.valid);
        hold(&mut broker, &ended("kafka-1"));
        assert!(!broker.validity.valid && broker.verdict.kept == record().verdict.kept);
        let mut slow = record();
        hold(&mut slow, &Aftermath { undrained: vec!["n2 did not drain".into()], ..Aftermath::default() });
        assert!(!slow.verdict.kept);
        let mut well = record();
        hold(&mut well, &Aftermath::default());
        assert_eq!(well, record());
    }

    #[test]
    fn a_silent_node_must_have_been_left_where_pings_are_frequent() {
        let judged = |pings, reconnects, silent_s| {
            let mut record = record();
            let mark = record.measured.faults[0].clone();
            let marks = [(Deed::Stop, 2.0), (Deed::Continue, 2.0 + silent_s)];
            record.measured.faults = marks
                .map(|(deed, at_s)| FaultMark {
                    fault: Fault { at_s, deed, to: Target::Node },
                    began_s: at_s,
                    ..mark.clone()
                })
                .into();
            record.measured.load.reconnects = reconnects;
            let before = record.validity.objections.len();
            hold_patient_clients(&mut record.validity, &record.measured, pings);
            record.validity.objections.len() > before
        };
        let frequent = Pings { every_ms: 2_000, patience_ms: 1_000 };
        assert!(judged(frequent, 0, 10.0));
        assert!(!judged(frequent, 9, 10.0) && !judged(frequent, 0, 2.5));
        assert!(!judged(Pings::default(), 0, 100.0), "servers have a word of their own");
    }

    #[test]
    fn a_fault_must_be_over_before_the_load_is() {
        let mut record = record();
        let validity = record.validity.clone();
        hold_late_faults(&mut record.validity, &record.measured);
        assert_eq!(record.validity, validity);
        let end_s = record.measured.warm_up_s + record.measured.window_s;
        record.measured.faults.iter_mut().for_each(|mark| mark.ended_s = end_s);
        hold_late_faults(&mut record.validity, &record.measured);
        assert_eq!(record.validity.objections.last().map(|one| one.gate), Some(Gate::Purpose));
    }
}
