//! Rules for the claims about what arrives: fragments, duplicates, order, resumption.

use super::experiments::{NO_REMOVAL, REMOVAL, SEVERAL_PARTITIONS, SHARED_GROUP};
use super::rules::{Evidence, Found, Judgement, missing};
use crate::report::text::{count, percent};

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
    if audit.lost() > 0 {
        (
            figure,
            Judgement::Confirmed,
            "each record reaches one node; members on the others see nothing of it".to_owned(),
        )
    } else {
        (figure, Judgement::Refuted, "nothing was lost".to_owned())
    }
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
        |label| evidence.experiment("whiteboard", label).or_else(|| evidence.cell("whiteboard", label));
    let Some(keyed) = in_whiteboard("kafka-keyed") else {
        return missing("no valid run of kafka-keyed in whiteboard");
    };
    let kept = keyed.audit();
    let keeps = kept.reordered == 0 && kept.divergent_rooms == 0;
    let keyed_figure = format!(
        "keyed: {} of {} deliveries reordered, {} of {} rooms seen in different orders",
        count(kept.reordered),
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
        count(mixed.reordered),
        count(mixed.divergent_rooms),
        count(mixed.compared_rooms)
    );
    let no_random =
        "no strategy sends a sender's messages to partitions at random, so that form is not measured";
    let (judgement, why) = match (keeps, mixed.reordered > 0, mixed.divergent_rooms > 0) {
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
    let Some(cell) = evidence.cell("broker-restart", "kafka-keyed") else {
        return missing("no valid run of kafka-keyed in broker-restart (--full)");
    };
    let audit = cell.audit();
    let figure = format!(
        "over {} restarts: {} lost, {} twice, of {} deliveries",
        cell.runs.len(),
        count(audit.lost()),
        count(audit.duplicates),
        count(audit.expected)
    );
    let black_box = "a node's own restart can't show it from outside: its members leave with it";
    match (audit.lost(), audit.duplicates) {
        (0, 0) => (figure, Judgement::Confirmed, format!("consumers went on where they stood; {black_box}")),
        (0, _) => (figure, Judgement::Depends, format!("nothing lost, some seen twice; {black_box}")),
        _ => (figure, Judgement::Refuted, format!("messages were lost; {black_box}")),
    }
}
