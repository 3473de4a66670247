//! The rules that read nothing but the record: may the figures be used, and did the strategy keep its promises?

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::measured::Measured;

/// Limits of the validity gates. The defaults are the method's; a report prints what was applied.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Least share of the scheduled messages that must have been sent.
    pub offered_share_min: f64,
    /// Most that the 99th percentile of send lag may be, as a share of the latency target.
    pub send_lag_share_max: f64,
    /// Most that a generator thread may be on a core or wait for one, together.
    pub busy_share_max: f64,
    /// Least number of samples beyond a percentile for it to be quoted.
    pub samples_beyond_min: u64,
    /// Most of the publishes that healthy servers may refuse, leave without an answer, or not be there for.
    #[serde(default = "unserved_share_max")]
    pub unserved_share_max: f64,
}

fn unserved_share_max() -> f64 {
    0.001
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            offered_share_min: 0.99,
            send_lag_share_max: 0.10,
            busy_share_max: 0.85,
            samples_beyond_min: 10,
            unserved_share_max: unserved_share_max(),
        }
    }
}

/// Whether the figures may be used. An invalid run is listed with its reasons, never dropped and never ranked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Validity {
    /// True when no gate objected.
    pub valid: bool,
    /// What the gates objected to.
    pub objections: Vec<Objection>,
    /// The limits that were applied.
    pub rules: Rules,
}

/// A gate that a run did not pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Objection {
    /// Which gate.
    pub gate: Gate,
    /// What was found, against what limit.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// The gates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Offered less than was meant to be.
    Offered,
    /// Sent later than was meant to be.
    SendLag,
    /// The generator itself was the bottleneck.
    Busy,
    /// Too few samples for the percentile.
    Samples,
    /// The audit's columns don't add up.
    Conservation,
    /// What the scenario is for did not happen.
    Purpose,
}

/// What the audit says of the strategy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Nothing lost, duplicated, reordered, leaked or damaged; while healthy, the servers were there for every
    /// publish and every client.
    pub clean: bool,
    /// Every declared promise that the run could test was kept. A fast figure with a broken promise is not ranked.
    pub kept: bool,
    /// Declared beside observed, one line each.
    pub promises: Vec<Promise>,
}

/// A declared guarantee beside what the audit saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Promise {
    /// What it is about: `service`, `delivery`, `duplicates`, `order`, `membership`, `loss is told`,
    /// `recovery`.
    pub about: String,
    /// What the strategy declares.
    pub declared: String,
    /// What was seen.
    pub observed: String,
    /// Whether they agree.
    pub kept: bool,
}

/// Judges a run by its record. `guarantees` is what `/info` declared (null when the server doesn't say: then the
/// strictest reading applies), `target_us` the scenario's limit for the 99th percentile of delivery.
pub fn judge(measured: &Measured, guarantees: &Value, target_us: u64, rules: Rules) -> (Validity, Verdict) {
    let objections = objections(measured, target_us, &rules);
    let mut promises = promises(measured, guarantees);
    let service = service(measured, &rules);
    let is_served = service.kept;
    promises.insert(0, service);
    let validity = Validity { valid: objections.is_empty(), objections, rules };
    let verdict = Verdict {
        clean: measured.audit.is_clean() && is_served,
        kept: promises.iter().all(|promise| promise.kept),
        promises,
    };
    (validity, verdict)
}

fn objections(measured: &Measured, target_us: u64, rules: &Rules) -> Vec<Objection> {
    let mut objections = Vec::new();
    let mut object = |gate, found: String, remedy: &str| {
        objections.push(Objection { gate, found, remedy: remedy.to_owned() });
    };
    let load = &measured.load;
    // What no connection took says nothing about the generator: it was there to send it.
    let takeable = load.scheduled.saturating_sub(load.unsent) as f64 / load.scheduled.max(1) as f64;
    let target_per_s = load.target_per_s * takeable;
    let share = match () {
        () if target_per_s > 0.0 => load.offered_per_s / target_per_s,
        () if load.unsent > 0 => 1.0,
        () => 0.0,
    };
    if share < rules.offered_share_min {
        object(
            Gate::Offered,
            format!(
                "offered {:.1} % of the target, at least {:.0} % needed",
                share * 100.0,
                rules.offered_share_min * 100.0
            ),
            "lower the rate, or give the generator more cores",
        );
    }
    let lag_us = measured.latencies.send_lag.quantile_us(0.99).unwrap_or(0);
    let lag_us_max = target_us as f64 * rules.send_lag_share_max;
    if lag_us as f64 > lag_us_max {
        object(
            Gate::SendLag,
            format!("send lag p99 {:.2} ms, at most {:.2} ms allowed", lag_us as f64 / 1e3, lag_us_max / 1e3),
            "lower the rate, free the machine of other work, or raise the latency target if the scenario can afford it",
        );
    }
    // Waiting for a core is left to the gate above: where the generator shares the cores that is the load itself, and harmful
    // only once messages are sent late.
    let (busy, queued) = (measured.generator.busy_share_max, measured.generator.queued_share_max);
    if busy > rules.busy_share_max {
        object(
            Gate::Busy,
            format!(
                "a generator thread was {:.0} % of the time on a core, {:.0} % allowed (and {:.0} % ready and waiting \
                 for one)",
                busy * 100.0,
                rules.busy_share_max * 100.0,
                queued * 100.0
            ),
            "lower the rate, or run the generator on cores of its own",
        );
    }
    let needed = rules.samples_beyond_min * 100;
    if measured.latencies.delivery.count() < needed {
        object(
            Gate::Samples,
            format!("{} deliveries, p99 needs {needed}", measured.latencies.delivery.count()),
            "run longer or faster",
        );
    }
    if !measured.audit.conserved || !measured.audit.closes() {
        object(
            Gate::Conservation,
            "the audit's columns don't add up".to_owned(),
            "report this as a bug of the load generator",
        );
    }
    if load.slowed > 0 && load.slow_closes == 0 {
        object(
            Gate::Purpose,
            format!("none of {} slow clients was disconnected: their backlog never overflowed", load.slowed),
            "run longer, or raise the rate or the payloads",
        );
    }
    if load.garbled > load.garbled_closes {
        object(
            Gate::Purpose,
            format!(
                "{} of {} clients that sent garbage were not thrown out",
                load.garbled - load.garbled_closes,
                load.garbled
            ),
            "the server must end a connection on which the protocol is broken",
        );
    }
    objections
}

/// Whether the servers were there for every publish and every client. Only a fault excuses that they were not.
fn service(measured: &Measured, rules: &Rules) -> Promise {
    let (audit, load) = (&measured.audit, &measured.load);
    let disturbed = measured.is_disturbed();
    let declared = match disturbed {
        true => "interrupted by faults".to_owned(),
        false => format!("at least {:.1} % of publishes served", (1.0 - rules.unserved_share_max) * 100.0),
    };
    let observed = format!(
        "{} publishes refused, {} unanswered, {} without a connection, {} connections not regained",
        audit.refused,
        audit.unknown.saturating_sub(audit.abandoned),
        load.unsent,
        load.connections_failed
    );
    let served = measured.unserved_share() <= rules.unserved_share_max && load.connections_failed == 0;
    Promise { about: "service".to_owned(), declared, observed, kept: disturbed || served }
}

fn promises(measured: &Measured, guarantees: &Value) -> Vec<Promise> {
    let audit = &measured.audit;
    let declared = |key: &str| guarantees.get(key).and_then(Value::as_str).unwrap_or("undeclared");
    let disturbed = measured.is_disturbed();
    let mut promises = Vec::new();
    let mut promise = |about: &str, declared: String, observed: String, kept: bool| {
        promises.push(Promise { about: about.to_owned(), declared, observed, kept });
    };

    let delivery = declared("delivery");
    // Who was away, and is told that history does not reach back so far, is not deceived; whoever stayed is owed all.
    let told = measured.recoveries.is_some_and(|recoveries| recoveries.incomplete > 0);
    let lost = if told { audit.lost_silent } else { audit.lost() };
    let may_lose = disturbed && delivery == "at-most-once";
    promise(
        "delivery",
        if disturbed { format!("{delivery} under faults") } else { "exactly once while healthy".to_owned() },
        format!("{} of {} lost", audit.lost(), audit.expected),
        may_lose || lost == 0,
    );
    let may_repeat = disturbed && delivery == "at-least-once";
    promise(
        "duplicates",
        if may_repeat { "possible under faults" } else { "none" }.to_owned(),
        format!("{}", audit.duplicates),
        may_repeat || audit.duplicates == 0,
    );
    promises_of_order(measured, declared("ordering"), &mut promise);
    promise("membership", "members only".to_owned(), format!("{} leaked", audit.leaked), audit.leaked == 0);
    // Positions with holes don't show a loss by themselves: who recovers is told of it all the same.
    let tells = match declared("positions") {
        "dense" => true,
        "rising" => measured.recoveries.is_some(),
        _ => false,
    };
    promise(
        "loss is told",
        if tells { "every loss is declared" } else { "not promised" }.to_owned(),
        format!("{} declared, {} silent", audit.lost_declared, audit.lost_silent),
        !tells || audit.lost_silent == 0,
    );
    if let Some(recoveries) = measured.recoveries.filter(|recoveries| recoveries.answered() > 0) {
        promise(
            "recovery",
            "whole, once and in order, or refused".to_owned(),
            format!(
                "{} complete, {} refused; of what was said to be recovered {} forgotten, {} twice, {} out of order",
                recoveries.complete,
                recoveries.incomplete,
                recoveries.forgotten,
                recoveries.repeated,
                recoveries.reordered
            ),
            recoveries.are_true(),
        );
    }
    if audit.corrupt > 0 {
        promise("payload", "as sent".to_owned(), format!("{} damaged", audit.corrupt), false);
    }
    promises
}

fn promises_of_order(
    measured: &Measured,
    ordering: &str,
    promise: &mut impl FnMut(&str, String, String, bool),
) {
    let (audit, disturbed) = (&measured.audit, measured.is_disturbed());
    // Without a fault only what the scenario itself left unanswered may be late.
    let broke = disturbed || audit.abandoned > 0;
    promise(
        "order of a publisher",
        "kept".to_owned(),
        format!("{} reordered, {} late of unknown outcome", audit.reordered, audit.late_unknown),
        audit.reordered == 0 && (broke || audit.late_unknown == 0),
    );
    let (while_healthy, one_order) = match ordering {
        "per-room" => (false, true),
        "per-room-while-healthy" => (true, !disturbed),
        _ => (false, false),
    };
    promise(
        "order of a room",
        match (one_order, while_healthy) {
            (true, _) => "one order for all members",
            (false, true) => "not promised under faults",
            (false, false) => "not promised",
        }
        .to_owned(),
        format!("{} of {} rooms diverged", audit.divergent_rooms, audit.compared_rooms),
        !one_order || audit.divergent_rooms == 0,
    );
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
