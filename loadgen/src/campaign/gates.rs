//! What only a campaign sees of a run and holds against it: processes that ended by themselves, nodes that did not drain,
//! faults that came too late.

use crate::record::{ComponentKind, Gate, Measured, Objection, Promise, RunRecord, Validity};

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
