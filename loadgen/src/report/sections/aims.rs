//! What is aimed at for a fault, and what a run reached.

use crate::record::{ComponentKind, Deed, FaultMark, RunRecord, Target};
use crate::report::gather::{all_silence_ms, silence_ms};
use crate::report::recovery::is_back;

/// Sentinels wait this long before they call a master down, and promote its replica within the rest.
const SENTINEL_MS: f64 = 1_000.0 + 1_500.0;
/// Nodes find a Redis that is back within this.
const REDIS_BACK_MS: f64 = 100.0;
/// One broker of Kafka, killed and started again at once.
const KAFKA_ONE_MS: f64 = 5_000.0;
/// One of three.
const KAFKA_OF_THREE_MS: f64 = 6_000.0;
/// What a crashed node owned, on a strategy that hands work from node to node.
const OWNED_MS: f64 = 6_000.0;
/// Members of a node that crashed are on another one, with what they missed.
const MEMBERS_BACK_MS: f64 = 5_000.0;
/// A broker that hangs is noticed, and whoever publishes or waits is told, or served in another way.
const FROZEN_TOLD_MS: f64 = 2_000.0;
/// The strategy whose partitions belong to nodes.
const OWNING: &str = "kafka-broadcast";

/// A target and what a run reached.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Aim {
    /// What is measured: `room`, `told after`, `members back after`. Of a broker that hangs either of the first two.
    pub(super) what: &'static str,
    /// The most that is aimed at.
    pub(super) limit_ms: f64,
    /// What it came to; `None` where it never happened.
    pub(super) reached_ms: Option<f64>,
}

impl Aim {
    pub(super) fn is_met(&self) -> bool {
        self.reached_ms.is_some_and(|reached_ms| reached_ms <= self.limit_ms)
    }
}

/// The longest silence of all together, or of any one room, after a fault that struck. `None` where things were never as before: a
/// silence that lasts until the load ends has no length.
pub(super) fn gap_ms(run: &RunRecord, room: bool) -> Option<f64> {
    if !is_back(run) {
        return None;
    }
    if room { silence_ms(run) } else { all_silence_ms(run) }
}

/// The target of a scenario's fault for this run's strategy, if there is one. Told by what was done, not by the scenario's name alone:
/// a campaign may have shortened its timeline.
pub(super) fn aim(scenario: &str, run: &RunRecord) -> Option<Aim> {
    let marks = &run.measured.faults;
    let first = marks.iter().find(|mark| !mark.whom.is_empty())?;
    // The last room counts: of all together one room that is back would be enough.
    let room = |limit_ms| Some(Aim { what: "room", limit_ms, reached_ms: gap_ms(run, true) });
    // Cells with a further fault beside it (a node that starts without its broker) have no target of their own.
    if marks.iter().any(|mark| mark.fault.to != first.fault.to) {
        return None;
    }
    match (first.fault.deed, first.fault.to) {
        (Deed::Restart, Target::Kafka) => room(KAFKA_ONE_MS),
        (Deed::Kill, Target::KafkaLeader) => room(KAFKA_OF_THREE_MS),
        (Deed::Kill, Target::Redis) => room(down_ms(first, marks)? + REDIS_BACK_MS),
        (Deed::Kill, Target::RedisMaster) => room(SENTINEL_MS),
        (Deed::Kill, Target::Node) if run.contender.strategy == OWNING => room(OWNED_MS),
        (Deed::Kill, Target::Node) if !run.contender.floor => Some(Aim {
            what: "members back after",
            limit_ms: MEMBERS_BACK_MS,
            reached_ms: members_back_ms(run),
        }),
        (Deed::Stop, target) if target.broker().is_some() && scenario.ends_with("frozen") => {
            // Where nobody is told, nobody may have had to wait: a strategy may have a second way.
            let until = marks.iter().find(|mark| mark.fault.deed == Deed::Continue);
            let told_ms = told_ms(run, first, until.map_or(f64::INFINITY, |mark| mark.began_s));
            let what = if told_ms.is_some() { "told after" } else { "room" };
            let reached_ms = told_ms.or_else(|| gap_ms(run, true));
            Some(Aim { what, limit_ms: FROZEN_TOLD_MS, reached_ms })
        }
        _ => None,
    }
}

/// How long it was down: until it served again.
fn down_ms(killed: &FaultMark, marks: &[FaultMark]) -> Option<f64> {
    let restarted = marks.iter().find(|mark| mark.fault.deed == Deed::Restart)?;
    debug_assert!(killed.fault.to.broker() == Some(ComponentKind::Redis));
    Some((restarted.ended_s - killed.began_s) * 1e3)
}

/// Until the last member that was away had what it had missed: from the first message that it missed on. `None` where somebody
/// never came back, or nobody was away.
pub(super) fn members_back_ms(run: &RunRecord) -> Option<f64> {
    let gone = run.measured.recoveries.map_or(0, |sum| sum.never) + run.measured.load.connections_failed;
    let recovered = run.measured.latencies.recovered.as_ref().filter(|_| gone == 0)?;
    Some(recovered.quantile_us(1.0)? as f64 / 1e3)
}

/// Until the first publisher was refused, or the first member told of a gap, while the broker hung (until second `until_s`): the end of
/// the interval in which that was.
fn told_ms(run: &RunRecord, frozen: &FaultMark, until_s: f64) -> Option<f64> {
    let series = &run.measured.series;
    let interval_s = series.interval_ms as f64 / 1e3;
    let from = (frozen.began_s / interval_s).ceil().max(0.0) as usize;
    let told = series.points.iter().skip(from).position(|point| point.failed > 0 || point.gaps > 0)?;
    let told_s = (from + told + 1) as f64 * interval_s;
    (told_s <= until_s + interval_s).then_some((told_s - frozen.began_s) * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Fault;
    use crate::report::sample::Sample;

    fn run(strategy: &'static str, steps: &[(Deed, Target, f64, f64)]) -> RunRecord {
        let mut run = Sample { fault: true, ..Sample::new(strategy, "x-frozen", 1, 0.3) }.record();
        let template = run.measured.faults[0].clone();
        let mark = |(deed, to, began_s, ended_s): &(Deed, Target, f64, f64)| FaultMark {
            fault: Fault { at_s: *began_s, deed: *deed, to: *to },
            began_s: *began_s,
            ended_s: *ended_s,
            ..template.clone()
        };
        run.measured.faults = steps.iter().map(mark).collect();
        run
    }

    #[test]
    fn redis_may_be_silent_for_as_long_as_it_is_down_and_a_little() {
        let run = run(
            "redis-pubsub",
            &[(Deed::Kill, Target::Redis, 2.0, 2.0), (Deed::Restart, Target::Redis, 3.0, 3.2)],
        );
        let aim = aim("redis-restart", &run).unwrap();
        assert!((aim.limit_ms - 1_300.0).abs() < 1e-6 && aim.is_met(), "{aim:?}");
        assert!(!Aim { reached_ms: Some(1_300.5), ..aim.clone() }.is_met());
        assert!(!Aim { reached_ms: None, ..aim }.is_met());
    }

    #[test]
    fn a_frozen_broker_must_be_told_of_unless_nobody_waits_for_it() {
        let mut run = run(
            "kafka-keyed",
            &[(Deed::Stop, Target::Kafka, 2.1, 2.1), (Deed::Continue, Target::Kafka, 6.0, 6.0)],
        );
        let untold = aim("log-frozen", &run).unwrap();
        assert_eq!((untold.what, untold.reached_ms), ("room", gap_ms(&run, true)));
        run.measured.series.points[13].failed = 4;
        let aim = aim("log-frozen", &run).unwrap();
        assert!((aim.reached_ms.unwrap() - 1_400.0).abs() < 1e-6 && aim.is_met(), "{aim:?}");
        assert_eq!(aim.what, "told after");
    }

    #[test]
    fn a_crash_has_a_target_for_rooms_where_they_are_handed_over_and_for_members_elsewhere() {
        let crash = [(Deed::Kill, Target::Node, 2.0, 2.0), (Deed::Restart, Target::Node, 4.0, 4.2)];
        let back = aim("node-crash", &run("hybrid", &crash)).unwrap();
        assert!(back.what == "members back after" && !back.is_met(), "nobody recovered");
        assert_eq!(aim("node-crash", &run("kafka-broadcast", &crash)).unwrap().limit_ms, 6_000.0);
        let mixed = [(Deed::Kill, Target::Kafka, 2.0, 2.0), (Deed::Kill, Target::Node, 4.0, 4.2)];
        assert!(aim("log-absent", &run("hybrid", &mixed)).is_none());
    }
}
