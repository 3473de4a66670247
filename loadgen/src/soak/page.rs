//! The soak as a page: `SOAK.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::{Soak, Soaked, rule};
use super::watch::Life;
use super::{Thirds, kept};
use crate::report::document::{Block, Entry, Table, Tone};
use crate::report::markdown::markdown;
use crate::report::text::{bytes, count, percent};

/// What the generator's own life is called.
const GENERATOR: &str = "loadgen";

/// The page.
pub fn page(soak: &Soak) -> String {
    let verdict = match soak.passed() {
        true => {
            "**Passed.** No strategy lost a message in silence or delivered one twice; every promise was kept, which allows for what is told to be lost (*Told* and *Recovered* below); each was as before at the end; \
             memory and descriptors stayed flat."
        }
        false => "**Failed.** What stands against a strategy is listed with it.",
    };
    let mut blocks = vec![
        Block::Text(verdict.to_owned()),
        Block::Text(format!(
            "{} minutes of load per strategy, all at once, each with brokers and nodes of its own, on {} ({} processors, {}); {}. Began {}. \
             `{}` repeats it: the seed is {}.",
            soak.minutes,
            soak.hardware.cpu,
            soak.hardware.cores,
            bytes(soak.hardware.memory_bytes),
            servers(soak),
            soak.started_at,
            soak.command,
            soak.seed
        )),
        Block::Table(audit(soak)),
        Block::Table(memory(soak)),
        Block::Text(format!("Flat means: {}.{}", rule(), full_early(soak))),
    ];
    for soaked in soak.strategies.iter().filter(|soaked| !soaked.passed()) {
        blocks.push(Block::heading(2, &soaked.label, &format!("Against {}", soaked.label)));
        blocks.push(Block::List(soaked.problems.clone()));
    }
    blocks.push(Block::Table(troubles(soak)));
    blocks.push(Block::Table(accounts(soak)));
    markdown("Soak", &blocks)
}

/// What nodes were told so that they are grown up early.
fn full_early(soak: &Soak) -> String {
    let told = soak.strategies.iter().filter(|soaked| !soaked.options.is_empty());
    let told: Vec<String> =
        told.map(|soaked| format!("those of {} with `{}`", soaked.label, soaked.options.join(" "))).collect();
    if told.is_empty() {
        return String::new();
    }
    format!(
        " Nodes are grown up by then because they remember fewer message ids than by default, at most 8,192 and at least 1,024, and in between as many as come within half of the first third: they were started, {}.",
        told.join(", ")
    )
}

fn servers(soak: &Soak) -> String {
    let named =
        soak.strategies.iter().map(|soaked| soaked.server.as_str()).filter(|server| !server.is_empty());
    let servers: BTreeSet<&str> = named.collect();
    servers.into_iter().collect::<Vec<_>>().join(", ")
}

fn audit(soak: &Soak) -> Table {
    Table {
        caption: "What clients got. *Told*: deliveries lost of which the client was told. *Recovered*: members that were away and were said to \
                  have got all that they missed, of those that asked. *Late, unknown*: deliveries of publishes that were never acknowledged, behind what \
                  their client had since sent over another connection. *Open*: deliveries of what was acknowledged while the member's node was silent, or \
                  within a second before it left, and did not come: nobody can say whether they were lost."
            .to_owned(),
        head: [
            "Strategy", "Verdict", "Acknowledged", "Refused or unknown", "Expected deliveries", "Silent", "Told", "Open", "Duplicates",
            "Out of order", "Late, unknown", "Recovered", "Promises",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: soak.strategies.iter().map(audit_row).collect(),
    }
}

fn audit_row(soaked: &Soaked) -> Vec<Entry> {
    let verdict = match soaked.passed() {
        true => Entry::text("passed").toned(Tone::Good),
        false => Entry::text("failed").toned(Tone::Bad),
    };
    let mut row = vec![Entry::text(&*soaked.label).toned(Tone::Strong), verdict];
    let Some(audit) = &soaked.audit else {
        row.extend(std::iter::repeat_with(|| Entry::text("–").toned(Tone::Soft)).take(11));
        return row;
    };
    let zero =
        |value: u64| Entry::number(count(value)).toned(if value == 0 { Tone::Good } else { Tone::Bad });
    let recovered = soaked.recoveries.map_or_else(
        || "–".to_owned(),
        |sum| {
            let asked = sum.answered() + sum.never;
            let share = percent(sum.incomplete as f64 / asked.max(1) as f64);
            format!("{} of {} ({share} told that it could not be)", count(sum.complete), count(asked))
        },
    );
    row.extend([
        Entry::number(count(audit.acknowledged)),
        Entry::number(format!("{} + {}", count(audit.refused), count(audit.unknown))),
        Entry::number(count(audit.expected)),
        zero(audit.lost_silent),
        Entry::number(count(audit.lost_declared)),
        Entry::number(count(audit.indeterminate)),
        zero(audit.duplicates),
        zero(audit.reordered),
        Entry::number(count(audit.late_unknown)),
        Entry::number(recovered),
        match kept(soaked.verdict.as_ref()) {
            true => Entry::text("kept").toned(Tone::Good),
            false => Entry::text("broken").toned(Tone::Bad),
        },
    ]);
    row
}

fn memory(soak: &Soak) -> Table {
    let judged = soak.strategies.iter().flat_map(|soaked| {
        let lives = soaked.lives.iter().filter(|life| life.memory.is_some() && life.name != GENERATOR);
        lives.map(move |life| memory_row(&soaked.label, life))
    });
    // One process for all of them.
    let generator = soak.strategies.iter().flat_map(|soaked| &soaked.lives);
    let generator = generator.filter(|life| life.memory.is_some() && life.name == GENERATOR).take(1);
    let judged = judged.chain(generator.map(|life| memory_row("all", life)));
    Table {
        caption: "Memory and descriptors of what lived long enough: median of the middle and of the last third of its life. Nodes are judged; brokers and the \
                  generator (which all strategies share) are shown."
            .to_owned(),
        head: ["Strategy", "Process", "Seen", "Memory", "Flat", "Descriptors", "Flat"].map(str::to_owned).to_vec(),
        rows: judged.collect(),
    }
}

fn memory_row(label: &str, life: &Life) -> Vec<Entry> {
    let flat = |thirds: Option<Thirds>| match thirds.map(|thirds| thirds.flat) {
        Some(true) => Entry::text("yes").toned(Tone::Good),
        Some(false) => Entry::text("no").toned(Tone::Bad),
        None => Entry::text("–").toned(Tone::Soft),
    };
    let span = |thirds: Option<Thirds>, unit: fn(u64) -> String| {
        thirds.map_or("–".to_owned(), |one| {
            format!("{} → {}", unit(one.middle as u64), unit(one.last as u64))
        })
    };
    vec![
        Entry::text(label).toned(Tone::Strong),
        Entry::text(&*life.name),
        Entry::number(count(life.looks.len() as u64)),
        Entry::number(span(life.memory, bytes)),
        flat(life.memory),
        Entry::number(span(life.files, count)),
        flat(life.files),
    ]
}

fn troubles(soak: &Soak) -> Table {
    let rows = soak.strategies.iter().map(|soaked| {
        let mut kinds: Vec<(String, u64)> = Vec::new();
        for mark in &soaked.faults {
            let kind = format!("{:?} {:?}", mark.fault.deed, mark.fault.to).to_lowercase();
            match kinds.iter_mut().find(|(known, _)| *known == kind) {
                Some((_, times)) => *times += 1,
                None => kinds.push((kind, 1)),
            }
        }
        kinds.sort();
        let said: Vec<String> = kinds.into_iter().map(|(kind, times)| format!("{kind} ×{times}")).collect();
        let unsent = soaked
            .load
            .as_ref()
            .map_or("–".to_owned(), |load| percent(load.unsent as f64 / load.scheduled.max(1) as f64));
        vec![
            Entry::text(&*soaked.label).toned(Tone::Strong),
            Entry::number(count(soaked.faults.len() as u64)),
            Entry::number(count(soaked.client_steps)),
            Entry::number(soaked.load.as_ref().map_or("–".to_owned(), |load| count(load.reconnects))),
            Entry::number(unsent),
            Entry::text(said.join(", ")),
        ]
    });
    Table {
        caption: "What went wrong on purpose. *Not sent*: publishes whose client had no connection when they fell due, and got none in time.".to_owned(),
        head: ["Strategy", "Faults", "Waves of clients", "Reconnects", "Not sent", "Which"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

/// What the nodes say of themselves, all incarnations together.
fn accounts(soak: &Soak) -> Table {
    let rows = soak.strategies.iter().map(|soaked| {
        let (mut recoveries, mut losses) = (BTreeMap::new(), BTreeMap::new());
        for account in soaked.lives.iter().filter_map(|life| life.account.as_ref()) {
            for (sums, kinds) in [(&mut recoveries, &account.recoveries), (&mut losses, &account.losses)] {
                kinds.iter().for_each(|(kind, times)| *sums.entry(kind.as_str()).or_insert(0_u64) += times);
            }
        }
        let said = |sums: BTreeMap<&str, u64>| {
            // How many links are down just now is no sum.
            let kinds = sums.into_iter().filter(|(kind, times)| *times > 0 && *kind != "links_down");
            kinds
                .map(|(kind, times)| format!("{} ×{}", kind.replace('_', " "), count(times)))
                .collect::<Vec<_>>()
                .join(", ")
        };
        vec![
            Entry::text(&*soaked.label).toned(Tone::Strong),
            Entry::text(said(recoveries)),
            Entry::text(said(losses)),
        ]
    });
    Table {
        caption: "What the nodes say of themselves: how they answered those that came back, and which gaps they saw, repaired and told of. The last seconds of a node that was \
                  killed are missing."
            .to_owned(),
        head: ["Strategy", "Recoveries", "Gaps and notices"].map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::outcome::{SOAK_VERSION, Soaked};
    use super::*;
    use crate::probe::Account;
    use crate::report::sample::Sample;

    fn soak(strategy: Soaked) -> Soak {
        let record = Sample::new("hybrid", "small-rooms", 1, 0.3).record();
        Soak {
            soak_version: SOAK_VERSION,
            started_at: record.started_at,
            command: "loadgen soak --seed 77".into(),
            seed: 77,
            minutes: 20.0,
            hardware: record.setting.hardware,
            tool: record.setting.tool,
            strategies: vec![strategy],
        }
    }

    #[test]
    fn a_failing_soak_says_what_and_with_which_seed() {
        let soak = soak(Soaked::failed("hybrid".into(), "node n1 is gone".into(), vec![]));
        let text = page(&soak);
        assert!(text.contains("**Failed.**") && text.contains("node n1 is gone"), "{text}");
        assert!(!text.contains("grown up by then"), "{text}");
        assert!(text.contains("the seed is 77") && text.contains("| **hybrid** | **failed** |"), "{text}");
        let json = serde_json::to_string(&soak).unwrap();
        assert_eq!(serde_json::from_str::<Soak>(&json).unwrap(), soak);
    }

    #[test]
    fn what_nodes_were_told_and_what_they_say_is_on_the_page() {
        let life = |times| Life {
            name: "n1".to_owned(),
            pid: 1,
            looks: Vec::new(),
            memory: None,
            files: None,
            rest: None,
            account: Some(Account {
                recoveries: [("no_log".to_owned(), times)].into(),
                ..Account::default()
            }),
        };
        let mut soaked = Soaked::failed("hybrid".into(), "x".into(), vec![life(3), life(4)]);
        soaked.options = vec!["ids=8192".to_owned()];
        let text = page(&soak(soaked));
        assert!(text.contains("those of hybrid with `ids=8192`") && text.contains("no log ×7"), "{text}");
    }
}
