//! `claims`: the experiments, and the table.

use std::io::IsTerminal;

use anyhow::Result;

use super::Outcome;
use super::arguments::{ClaimsArguments, CompareArguments};
use super::output::last_word;
use super::report::load;
use crate::campaign::{Show, style};
use crate::claims::{ClaimRow, Judgement, judge_claims};
use crate::report::Style;

/// The scenarios whose comparison the claims read.
const SCENARIOS: [&str; 5] = ["small-rooms", "giant-room", "redis-restart", "broker-restart", "node-crash"];

pub(super) fn execute(arguments: &ClaimsArguments) -> Result<Outcome> {
    if !arguments.folders.is_empty() {
        let loaded = load(&arguments.folders, &arguments.folders[0])?;
        print(&judge_claims(&loaded.records), arguments.show.show());
        return Ok(Outcome::Pass);
    }
    let compare = CompareArguments {
        strategy: Vec::new(),
        scenario: SCENARIOS.map(str::to_owned).to_vec(),
        quick: true,
        full: false,
        faults: false,
        seed: arguments.seed,
        blocks: Some(arguments.blocks),
        duration: None,
        warm_up: None,
        overrides: Vec::new(),
        capacity: None,
        output: arguments.output.clone(),
        fresh: false,
        server: arguments.server.clone(),
        show: arguments.show.clone(),
        baseline: super::arguments::BaselineArguments {
            save_baseline: None,
            baseline: None,
            fail_on_regression: None,
        },
    };
    let (records, outcome) = super::compare::campaign(&compare, "claims", true)?;
    print(&judge_claims(&records), arguments.show.show());
    last_word(outcome);
    Ok(outcome)
}

fn print(rows: &[ClaimRow], show: Show) {
    if show == Show::Json {
        for row in rows {
            outln!("{}", serde_json::json!({ "event": "claim", "claim": row }));
        }
        return;
    }
    let style = style(std::io::stdout().is_terminal());
    for row in rows {
        outln!("{:>2}. {}", row.number, row.claim);
        outln!("    {}  {}", verdict(row.judgement, style), row.figure);
        outln!("    {}", style.paint("2", &format!("{} — tested by: {}", row.why, row.experiment)));
    }
}

fn verdict(judgement: Judgement, style: Style) -> String {
    let code = match judgement {
        Judgement::Confirmed => "32",
        Judgement::Refuted => "31",
        Judgement::Depends => "33",
        Judgement::NotMeasured => "2",
    };
    style.paint(code, &format!("{:<12}", judgement.as_str()))
}
