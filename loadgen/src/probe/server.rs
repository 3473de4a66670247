//! What a server says of itself at `/info`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::http::get;
use crate::record::Contender;

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// The parts of `/info` that records keep. A server of another make has none of them: all are optional.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Info {
    /// Version of the server.
    pub version: String,
    /// Commit that it was built from.
    pub commit: String,
    /// Strategy name.
    pub strategy: String,
    /// One line about it.
    pub summary: String,
    /// Whether it exists to show a mistake.
    pub counter_example: bool,
    /// What it declares.
    pub guarantees: Value,
    /// Its effective settings, secrets masked.
    pub settings: Value,
}

/// What a server counts of those that came back to it, and of what was lost on the way to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Recoveries by how they ended.
    pub recoveries: BTreeMap<String, u64>,
    /// Gaps seen, repaired and declared, and who was told, by kind.
    pub losses: BTreeMap<String, u64>,
}

/// Asks a server, by its HTTP address, for its account; `None` where it does not answer in time, or keeps none.
pub fn account(base: &str, patience: Duration) -> Option<Account> {
    let text = get(&format!("{base}/info"), patience).ok()?;
    let account: Account = serde_json::from_str(&text).ok()?;
    (account != Account::default()).then_some(account)
}

/// Asks a server, by its WebSocket or HTTP address, what it is. A server that doesn't say is described as unknown.
pub fn info(url: &str) -> Info {
    let http = url.replacen("ws://", "http://", 1);
    let base = http.strip_prefix("http://").map_or("", |rest| rest.split('/').next().unwrap_or(rest));
    let answer = get(&format!("http://{base}/info"), PATIENCE).ok();
    answer.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

impl Info {
    /// The record's description of a contender with this info.
    pub fn contender(self, options: &[String], nodes: u64, floor: bool) -> Contender {
        let or_unknown = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
        let strategy = or_unknown(self.strategy);
        let whole = self.guarantees.get("whole_rooms").and_then(Value::as_bool).unwrap_or(true);
        Contender {
            label: crate::campaign::label(&strategy, options),
            strategy,
            summary: self.summary,
            counter_example: self.counter_example || !whole,
            guarantees: self.guarantees,
            settings: self.settings,
            options: options.to_vec(),
            nodes,
            version: or_unknown(self.version),
            commit: or_unknown(self.commit),
            floor,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_rooms_make_a_counter_example_and_silence_an_unknown() {
        let info = Info { guarantees: serde_json::json!({ "whole_rooms": false }), ..Info::default() };
        let contender = info.contender(&["a=b".into()], 3, false);
        assert!(contender.counter_example);
        assert_eq!(contender.label, "unknown a=b");
        assert_eq!(self::info("ws://127.0.0.1:1/connection/websocket"), Info::default());
    }
}
