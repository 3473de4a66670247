//! Settings of the memory strategy, their defaults and bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Guarantees, ReplayKind};
use crate::ring::Limits;
use crate::strategy::parse_settings;

/// What an operator may set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Messages of a room that are kept for those who come back and for those who read history, 0–100,000. Default 300;
    /// 0 keeps none.
    pub history_messages: usize,
    /// How long they are kept, and how long a room that nobody is in keeps its numbering, in minutes, 1–10,080. Default 10.
    pub history_minutes: u64,
    /// Bytes that the history of all rooms takes at most, with what it costs to keep it, 4 MiB–64 GiB. Default 128 MiB. The rooms
    /// written least recently are forgotten first, and one room takes a 32nd at most.
    pub history_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { history_messages: 300, history_minutes: 10, history_bytes_max: Limits::TOTAL_BYTES }
    }
}

impl Settings {
    /// Reads and checks settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the key and its bounds.
    pub fn parse(table: &toml::Table) -> Result<Self> {
        let settings: Self = parse_settings(table)?;
        within("history_messages", settings.history_messages, 0..=100_000)?;
        within("history_minutes", settings.history_minutes, 1..=10_080)?;
        within("history_bytes_max", settings.history_bytes_max, 4 << 20..=64 << 30)?;
        Ok(settings)
    }

    /// All settings with defaults filled in.
    ///
    /// # Errors
    /// Never in practice: every setting can be written as TOML.
    pub fn effective(&self) -> Result<toml::Table> {
        toml::Table::try_from(self).map_err(|source| {
            Error::new(ErrorKind::Config, "settings", "they cannot be shown").with_source(source)
        })
    }

    /// What an instance with these settings promises.
    pub fn guarantees(&self) -> Guarantees {
        let replay = if self.keeps_history() { ReplayKind::Memory } else { ReplayKind::None };
        Guarantees { replay, ..super::GUARANTEES }
    }

    pub(super) fn keeps_history(&self) -> bool {
        self.history_messages > 0
    }

    pub(super) fn limits(&self) -> Limits {
        let age = Duration::from_secs(self.history_minutes * 60);
        let total_bytes = self.history_bytes_max;
        Limits { room_bytes: total_bytes / 32, total_bytes, ..Limits::new(self.history_messages, age) }
    }
}

/// Refuses a value outside of its bounds.
fn within<T: PartialOrd + std::fmt::Display>(name: &str, value: T, bounds: RangeInclusive<T>) -> Result<()> {
    if bounds.contains(&value) {
        return Ok(());
    }
    let problem = format!("{name} is {value}, must be {} to {}", bounds.start(), bounds.end());
    Err(Error::new(ErrorKind::Config, "settings", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        let defaults = Settings::parse(&toml::Table::new()).unwrap();
        assert_eq!(defaults, Settings::default());
        assert_eq!(defaults.effective().unwrap()["history_messages"].as_integer(), Some(300));
        for (text, named) in [
            ("history = 1", "history"),
            ("history_messages = 100001", "history_messages"),
            ("history_minutes = 0", "history_minutes"),
            ("history_bytes_max = 1", "history_bytes_max"),
        ] {
            let error = Settings::parse(&text.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn without_history_none_is_promised() {
        let off = Settings::parse(&"history_messages = 0".parse().unwrap()).unwrap();
        assert_eq!(off.guarantees().replay, ReplayKind::None);
        assert_eq!(Settings::default().guarantees(), super::super::GUARANTEES);
    }
}
