//! Rules for the claims about what arrives: fragments, duplicates, order, resumption.

use super::experiments::{NO_REMOVAL, REMOVAL, SEVERAL_PARTITIONS, SHARED_GROUP};
use super::rules::{Evidence, Found, Judgement, missing};
use crate::record::Audit;
use crate::report::text::{count, percent};

/// Share of deliveries by which the loss of a shared group may differ from 1 − 1/nodes: rooms are few and unequal.
const FRAGMENT_TOLERANCE: f64 = 0.1;

pub(super) fn shared_group(evidence: &Evidence<'_>) -> Found {
    let runs = evidence
        .cell("small-rooms", SHARED_GROUP)
        .or_else(|| evidence.experiment("small-rooms", SHARED_GROUP));
    let Some(cell) = runs else { return missing("no valid run of the shared group") };
    let audit = cell.audit();
    let nodes = cell.runs[0].contender.nodes;
    let figure = format!(
        "{} of {} deliveries lost on {nodes} nodes ({})",
        count(audit.lost()),
        count(audit.expected),
        percent(audit.lost() as f64 / audit.expected.max(1) as f64)
    );
    if nodes < 2 {
        return missing("one node alone shares its group with nobody");
    }
    let share = audit.lost() as f64 / audit.expected.max(1) as f64;
    let foretold = 1.0 - 1.0 / nodes as f64;
    let (judgement, why) = match () {
        () if audit.lost() == 0 => (Judgement::Refuted, "nothing was lost".to_owned()),
        () if (share - foretold).abs() <= FRAGMENT_TOLERANCE => (
            Judgement::Confirmed,
            format!(
                "each record reaches one node, and members on the others see nothing of it: {} of the deliveries were to be expected",
                percent(foretold)
            ),
        ),
        () => (
            Judgement::Depends,
            format!(
                "deliveries were lost, but not the {} that one node per record explains",
                percent(foretold)
            ),
        ),
    };
    (figure, judgement, why)
}

pub(super) fn several_partitions(evidence: &Evidence<'_>) -> Found {
    let Some(bare) = evidence.experiment("small-rooms", NO_REMOVAL) else {
        return missing("needs the experiment with removal switched off (`loadgen claims`)");
    };
    let repeated = bare.audit().duplicates;
    let removed = evidence.experiment("small-rooms", REMOVAL).map(|cell| {
        let removed = cell
            .valid()
            .filter_map(|run| run.cost.amplification)
            .map(|one| one.duplicates_removed)
            .sum::<u64>();
        (cell.audit().duplicates, removed)
    });
    let mut figure = format!("{} duplicates without removal", count(repeated));
    if let Some((left, removed)) = removed {
        figure.push_str(&format!(
            "; with it {} reached members, {} removed on the nodes",
            count(left),
            count(removed)
        ));
    }
    match (repeated, removed) {
        (0, _) => (figure, Judgement::Refuted, "no duplicate was seen".to_owned()),
        (_, Some((left, _))) if left > 0 => {
            (figure, Judgement::Depends, "removal did not catch all of them".to_owned())
        }
        _ => (
            figure,
            Judgement::Confirmed,
            "every partition that a node holds brings one more copy".to_owned(),
        ),
    }
}

pub(super) fn keyed_keeps_order(evidence: &Evidence<'_>) -> Found {
    let in_whiteboard =
        |label| evidence.cell("whiteboard", label).or_else(|| evidence.experiment("whiteboard", label));
    let Some(keyed) = in_whiteboard("kafka-keyed") else {
        return missing("no valid run of kafka-keyed in whiteboard");
    };
    let kept = keyed.audit();
    let out_of_order = |audit: &Audit| audit.reordered + audit.late_unknown;
    let keeps = out_of_order(&kept) == 0 && kept.divergent_rooms == 0;
    let keyed_figure = format!(
        "keyed: {} of {} deliveries reordered, {} of {} rooms seen in different orders",
        count(out_of_order(&kept)),
        count(kept.delivered),
        count(kept.divergent_rooms),
        count(kept.compared_rooms)
    );
    let Some(spread) = in_whiteboard(SEVERAL_PARTITIONS) else {
        let judgement = if keeps { Judgement::NotMeasured } else { Judgement::Refuted };
        return (
            keyed_figure,
            judgement,
            "the half without a key needs kafka-broadcast in whiteboard".to_owned(),
        );
    };
    let mixed = spread.audit();
    let figure = format!(
        "{keyed_figure}; through several partitions: {} reordered, {} of {} rooms in different orders",
        count(out_of_order(&mixed)),
        count(mixed.divergent_rooms),
        count(mixed.compared_rooms)
    );
    let no_random =
        "no strategy sends a sender's messages to partitions at random, so that form is not measured";
    let (judgement, why) = match (keeps, out_of_order(&mixed) > 0, mixed.divergent_rooms > 0) {
        (false, ..) => (Judgement::Refuted, "keyed messages lost their order".to_owned()),
        (true, true, _) => (Judgement::Confirmed, "partitions are independent logs".to_owned()),
        (true, false, true) => (
            Judgement::Depends,
            format!(
                "without one partition per room members on different nodes see different orders, but each sender's own order holds where all of it goes to every partition; {no_random}"
            ),
        ),
        (true, false, false) => {
            (Judgement::Depends, format!("order held without a key too, at this load; {no_random}"))
        }
    };
    (figure, judgement, why)
}

pub(super) fn resumes_at_offset(evidence: &Evidence<'_>) -> Found {
    let Some(cell) = evidence.cell("node-crash", "kafka-keyed").filter(|cell| cell.is_disturbed()) else {
        return missing("no valid run of kafka-keyed in node-crash (`loadgen claims` or --full)");
    };
    let audit = cell.audit();
    let figure = format!(
        "over {} restarts of a node: {} lost, {} twice, {} indeterminate (owed to members that were away), of {} deliveries",
        cell.runs.len(),
        count(audit.lost()),
        count(audit.duplicates),
        count(audit.indeterminate),
        count(audit.expected)
    );
    let (judgement, why) = match (audit.lost(), audit.duplicates) {
        (0, 0) => (
            Judgement::Depends,
            "what members saw has neither hole nor repetition; but they leave with their node and join another, so the offset itself is not seen from outside",
        ),
        (0, _) => (
            Judgement::Depends,
            "nothing was lost, but some was seen twice: it resumes behind where it stood",
        ),
        _ => (Judgement::Refuted, "messages that were owed were lost"),
    };
    (figure, judgement, why.to_owned())
}
