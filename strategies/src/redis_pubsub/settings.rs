//! Settings of the strategy.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dedup::DedupWindow;
use crate::error::{Error, ErrorKind, Result};

/// What can be set. Addresses and passwords are no settings: they come in the Redis URL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a publish waits for its acknowledgement, an outage included, before it fails; 100 to 60,000 ms.
    /// Default 5,000: longer than a Sentinel failover. While the server is silent, and not down, publishes wait for one and a half
    /// times `response_timeout_ms` only.
    pub publish_timeout_ms: u64,
    /// Publishes not yet acknowledged that the node holds at most; 1 to 1,000,000. Default 16,384.
    pub queue_messages_max: usize,
    /// Bytes of such publishes that the node holds at most; 128 KiB to 4 GiB. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// Bound for opening a connection; 10 to 60,000 ms. Default 1,000.
    pub connect_timeout_ms: u64,
    /// A server that leaves a command unanswered for so long counts as frozen; 10 to 60,000 ms. Default 1,000.
    pub response_timeout_ms: u64,
    /// Constant pause between two attempts to reconnect; 1 to 10,000 ms. Default 20.
    pub reconnect_delay_ms: u64,
    /// After an outage, how long publishing waits once this node's own subscriptions are back, so that the other nodes
    /// listen again too; 0 to 10,000 ms. Default 50, which is two of their attempts to reconnect. Up to four times as long again,
    /// but a second at most, where members are coming back that had to be told of a loss; who asks for history meanwhile
    /// waits that long as well.
    pub resume_delay_ms: u64,
    /// How often the tops of all joined rooms are compared, which also notices a frozen server; 50 to 60,000 ms.
    /// Default 1,000.
    pub heartbeat_ms: u64,
    /// How long a room stays subscribed after its last local member left; 0 to 600,000 ms. Default 10,000.
    pub linger_ms: u64,
    /// How long Redis remembers the sequence of a room that nobody is in and nobody publishes to; 60 to 2,592,000 s.
    /// Default 86,400. It bounds the keys that rooms leave behind: one of some 100 bytes each.
    pub room_ttl_s: u64,
    /// Message ids that the node remembers to remove duplicates of a retry; 1 to 16,777,216. Default 65,536.
    pub dedup_messages: usize,
    /// Messages of a room that Redis keeps for those who come back, 0 to 10,000; a few more may be there. Default 300. They
    /// cost Redis their size each, and every publish a few more steps. With 0 nothing is kept, and nobody can resume.
    pub history_messages: usize,
    /// How long they are kept after a room's last message, up to an eighth longer, but no longer than `room_ttl_s`; 1 to 10,080
    /// minutes. Default 10.
    pub history_minutes: u64,
    /// How long Redis recognises the id of a message, so that a repeat by whichever node creates no second one; 1 to
    /// 3,600 s. Default 300. A repeat that comes later is kept, and numbered, as another message: members that are there are
    /// spared it, one that comes back from a place between the two gets it. Each message costs Redis some 150 bytes for
    /// so long: at 1,000 messages per second and with the default some 45 MB. Only with history.
    pub dedup_seconds: u64,
    /// Bound of the shutdown; 10 to 60,000 ms. Default 5,000.
    pub shutdown_timeout_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            publish_timeout_ms: 5_000,
            queue_messages_max: 16_384,
            queue_bytes_max: 64 * 1024 * 1024,
            connect_timeout_ms: 1_000,
            response_timeout_ms: 1_000,
            reconnect_delay_ms: 20,
            resume_delay_ms: 50,
            heartbeat_ms: 1_000,
            linger_ms: 10_000,
            room_ttl_s: 86_400,
            dedup_messages: DedupWindow::CAPACITY,
            history_messages: 300,
            history_minutes: 10,
            dedup_seconds: 300,
            shutdown_timeout_ms: 5_000,
        }
    }
}

impl Settings {
    /// Refuses values out of bounds.
    pub fn check(&self) -> Result<()> {
        within("publish_timeout_ms", self.publish_timeout_ms, 100, 60_000)?;
        within("queue_messages_max", self.queue_messages_max as u64, 1, 1_000_000)?;
        within("queue_bytes_max", self.queue_bytes_max as u64, 128 * 1024, 4 << 30)?;
        within("connect_timeout_ms", self.connect_timeout_ms, 10, 60_000)?;
        within("response_timeout_ms", self.response_timeout_ms, 10, 60_000)?;
        within("reconnect_delay_ms", self.reconnect_delay_ms, 1, 10_000)?;
        within("resume_delay_ms", self.resume_delay_ms, 0, 10_000)?;
        within("heartbeat_ms", self.heartbeat_ms, 50, 60_000)?;
        within("linger_ms", self.linger_ms, 0, 600_000)?;
        within("room_ttl_s", self.room_ttl_s, 60, 2_592_000)?;
        within("dedup_messages", self.dedup_messages as u64, 1, 1 << 24)?;
        within("history_messages", self.history_messages as u64, 0, 10_000)?;
        within("history_minutes", self.history_minutes, 1, 10_080)?;
        within("dedup_seconds", self.dedup_seconds, 1, 3_600)?;
        within("shutdown_timeout_ms", self.shutdown_timeout_ms, 10, 60_000)
    }

    pub(crate) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms)
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    pub(crate) fn reconnect_delay(&self) -> Duration {
        Duration::from_millis(self.reconnect_delay_ms)
    }

    pub(crate) fn resume_delay(&self) -> Duration {
        Duration::from_millis(self.resume_delay_ms)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    pub(crate) fn linger(&self) -> Duration {
        Duration::from_millis(self.linger_ms)
    }

    pub(crate) fn keeps_history(&self) -> bool {
        self.history_messages > 0
    }

    pub(crate) fn history(&self) -> Duration {
        Duration::from_secs(self.history_minutes * 60)
    }

    pub(crate) fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}

/// Refuses a value outside of `least..=most`.
pub(crate) fn within(name: &str, value: u64, least: u64, most: u64) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    let problem = format!("{name} is {value}, must be {least} to {most}");
    Err(Error::new(ErrorKind::Config, "settings", problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_in_bounds_and_others_are_refused() {
        Settings::default().check().unwrap();
        let settings = Settings { heartbeat_ms: 1, ..Settings::default() };
        assert!(settings.check().unwrap_err().to_string().contains("heartbeat_ms"));
    }
}
