//! The table of claims: which rule judges which.

use serde::Serialize;

use super::{order, plans};
use crate::record::{Role, RunRecord};
use crate::report::gather::{Cell, ScenarioTable, by_scenario};
use crate::stats::BLOCKS_MIN;

/// A judged claim.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClaimRow {
    /// Its number in the table.
    pub number: u8,
    /// What is claimed.
    pub claim: &'static str,
    /// What was done to test it.
    pub experiment: &'static str,
    /// The figures that came out; empty when not measured.
    pub figure: String,
    /// What follows.
    pub judgement: Judgement,
    /// Why it follows, or what is missing.
    pub why: String,
    /// The fewest blocks that the figures rest on; 0 when there are none.
    pub blocks: usize,
}

impl ClaimRow {
    /// Whether it rests on too few blocks for a statement.
    pub fn is_provisional(&self) -> bool {
        self.judgement != Judgement::NotMeasured && self.blocks < BLOCKS_MIN
    }
}

/// What follows for a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Judgement {
    /// The figures agree with it.
    Confirmed,
    /// They contradict it.
    Refuted,
    /// They agree under some conditions and contradict it under others.
    Depends,
    /// There are none.
    NotMeasured,
}

impl Judgement {
    /// The word in reports.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Refuted => "refuted",
            Self::Depends => "depends",
            Self::NotMeasured => "not measured",
        }
    }
}

/// What a rule returns: the figure, the judgement, and why.
pub(super) type Found = (String, Judgement, String);

/// A rule: reads the evidence, or says what is missing.
type Rule = fn(&Evidence<'_>) -> Found;

/// Runs that rules may look at.
pub(super) struct Evidence<'a> {
    comparison: Vec<ScenarioTable<'a>>,
    claim: Vec<ScenarioTable<'a>>,
    /// The fewest valid runs of a cell that the rule at hand has looked at.
    fewest: std::cell::Cell<Option<usize>>,
}

impl<'a> Evidence<'a> {
    /// A contender's runs in a scenario of the comparison, if any is valid.
    pub(super) fn cell(&self, scenario: &str, label: &str) -> Option<&Cell<'a>> {
        self.seen(find(&self.comparison, scenario, label))
    }

    /// The same among the experiments made for claims.
    pub(super) fn experiment(&self, scenario: &str, label: &str) -> Option<&Cell<'a>> {
        self.seen(find(&self.claim, scenario, label))
    }

    fn seen<'t>(&self, cell: Option<&'t Cell<'a>>) -> Option<&'t Cell<'a>> {
        if let Some(runs) = cell.map(Cell::valid_count) {
            self.fewest.set(Some(self.fewest.get().map_or(runs, |fewest| fewest.min(runs))));
        }
        cell
    }

    /// All undisturbed scenarios of the comparison.
    pub(super) fn healthy(&self) -> impl Iterator<Item = &ScenarioTable<'a>> {
        self.comparison.iter().filter(|table| !table.is_disturbed())
    }
}

fn find<'t, 'a>(tables: &'t [ScenarioTable<'a>], scenario: &str, label: &str) -> Option<&'t Cell<'a>> {
    let table = tables.iter().find(|table| table.name == scenario)?;
    table.cell(label).filter(|cell| cell.valid_count() > 0)
}

/// A claim is not measured, and why.
pub(super) fn missing(why: &str) -> Found {
    (String::new(), Judgement::NotMeasured, why.to_owned())
}

const CLAIMS: [(&str, &str, Rule); 10] = [
    (
        "A shared consumer group fragments the conversation.",
        "small-rooms on N nodes that share one consumer group: share of deliveries lost, against 1 − 1/N",
        order::shared_group,
    ),
    (
        "Plan 1 (broadcast) multiplies broker writes and disk by the number of nodes.",
        "small-rooms, kafka-broadcast against kafka-keyed: broker writes per publish and bytes written by Kafka",
        plans::broadcast_multiplies,
    ),
    (
        "A consumer that holds several partitions sees duplicates unless it removes them.",
        "small-rooms, kafka-broadcast with two partitions per node, removal switched off and on",
        order::several_partitions,
    ),
    (
        "Plan 1 (broadcast) suits giant rooms.",
        "giant-room: kafka-broadcast against kafka-keyed, p99 and CPU per delivery, paired by block",
        plans::broadcast_suits_giant,
    ),
    (
        "Plan 2 (keyed) costs one write per message.",
        "small-rooms, kafka-keyed: broker writes per publish",
        plans::keyed_writes_once,
    ),
    (
        "Plan 2 (keyed) overloads one partition with a giant room.",
        "one room at 1,000, 2,000 and 4,000 publishes per second to six members: kafka-keyed (one partition) against redis-pubsub (none)",
        plans::keyed_overloads,
    ),
    (
        "“Would Redis not simply be better?”",
        "redis-pubsub against kafka-keyed: p99 and CPU in every healthy scenario, losses when the broker restarts",
        plans::redis_better,
    ),
    (
        "Kafka and Redis together give Redis's latency with Kafka's memory.",
        "hybrid against redis-pubsub: p99 in small-rooms, losses when Redis restarts",
        plans::hybrid_has_both,
    ),
    (
        "Keyed messages keep their order, unkeyed ones don't.",
        "whiteboard: a room in one partition (kafka-keyed) against a room in every partition (kafka-broadcast): order of senders and of rooms",
        order::keyed_keeps_order,
    ),
    (
        "A consumer that restarts resumes at its offset.",
        "node-crash, kafka-keyed: a consuming node is killed and started again: what members miss, and what they see twice",
        order::resumes_at_offset,
    ),
];

/// Judges every claim by the records.
pub fn judge_claims(records: &[RunRecord]) -> Vec<ClaimRow> {
    let evidence = Evidence {
        comparison: by_scenario(records, Role::Comparison),
        claim: by_scenario(records, Role::Claim),
        fewest: std::cell::Cell::new(None),
    };
    CLAIMS
        .iter()
        .zip(1..)
        .map(|((claim, experiment, rule), number)| {
            evidence.fewest.set(None);
            let (figure, judgement, why) = rule(&evidence);
            let fewest = evidence.fewest.get().unwrap_or(0);
            let blocks = if judgement == Judgement::NotMeasured { 0 } else { fewest };
            ClaimRow { number, claim, experiment, figure, judgement, why, blocks }
        })
        .collect()
}
