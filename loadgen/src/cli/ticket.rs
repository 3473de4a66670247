//! The file by which a result folder says which campaign it holds, and the folder that a campaign goes into.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::arguments::CompareArguments;
use super::contest::new_folder;
use crate::campaign::{Progress, now_rfc3339, write_whole};

/// File that says which campaign a folder holds.
const CAMPAIGN: &str = "campaign.json";

/// What a result folder says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) campaign: String,
    pub(super) command: String,
    pub(super) started_at: String,
    /// When it was last written to.
    #[serde(default)]
    pub(super) written_at: String,
    pub(super) finished: bool,
}

/// The folder that was asked for; else that of an unfinished campaign with the same plan; else a new one.
pub(super) fn folder(
    arguments: &CompareArguments,
    name: &str,
    identity: &str,
    progress: &Progress,
) -> Result<PathBuf> {
    if let Some(folder) = &arguments.output {
        return Ok(folder.clone());
    }
    let results = Path::new("results");
    let mut unfinished = Vec::new();
    for entry in fs::read_dir(results).into_iter().flatten().flatten() {
        let ticket =
            read_ticket(&entry.path()).filter(|ticket| !ticket.finished && ticket.campaign == identity);
        unfinished.extend(ticket.map(|_| entry.path()));
    }
    unfinished.sort();
    if let Some(found) = unfinished.pop().filter(|_| !arguments.fresh) {
        progress.say(&format!("continuing {}", found.display()));
        return Ok(found);
    }
    Ok(new_folder(name, &now_rfc3339()))
}

pub(super) fn read_ticket(folder: &Path) -> Option<Ticket> {
    serde_json::from_str(&fs::read_to_string(folder.join(CAMPAIGN)).ok()?).ok()
}

pub(super) fn write_ticket(folder: &Path, ticket: &Ticket) -> Result<()> {
    Ok(write_whole(&folder.join(CAMPAIGN), &serde_json::to_vec_pretty(ticket)?)?)
}
