//! Settings of the hybrid strategy, their defaults and bounds.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::kafka::{ClientProperties, Compression, ConsumerSettings, ProducerSettings};
use crate::dedup::DedupWindow;
use crate::error::{Error, ErrorKind, Result};
use crate::kafka_history::log::ScanLimits;
use crate::redis_pubsub;
use crate::redis_pubsub::within;
use crate::ring::Limits;
use crate::strategy::parse_settings;

/// Which path a message takes first. The publisher is acknowledged when the log has it, either way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum First {
    /// Live: members see it as soon as Redis has it, on its way into the log. If the log then refuses it, members
    /// have seen a message whose publisher was told that it failed.
    #[default]
    Fast,
    /// Durable: members see it once the log has it.
    Durable,
}

/// What an operator may set. Every node of a namespace must have the same `partitions` and `first`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Which path comes first: `fast` or `durable`. Default `fast`.
    pub first: First,
    /// How long a hole in the sequence is held for the log to fill it before it is declared as a gap, in ms, 10–60,000.
    /// Default 1,000; five times as long while the log cannot be read, or for what follows records that were not read yet, and
    /// twenty times at most while the log moves on or keeps breaking. What is held takes 8,192 messages of a room and 64 MiB of a
    /// node at most; beyond, holes are declared earlier.
    pub heal_timeout_ms: u64,
    /// Partitions of the log, 1–1,024. Default 16: every node reads all of them, and each costs the broker work in every
    /// fetch. Fixed once the topic exists.
    pub partitions: u32,
    /// Replicas of the topic if it is created now, 1–9. Default: as many as there are brokers, at most 3.
    pub replication: Option<u32>,
    /// How long the log is kept, in minutes, 1–525,600, if the topic is created now. Default 1,440 (a day).
    pub retention_minutes: u32,
    /// How long a record waits for company before it is sent, in ms, 0–1,000. Default 1: it delays the acknowledgement,
    /// not the delivery (except with `first = "durable"`).
    pub log_linger_ms: f64,
    /// How long the broker collects records before it answers a fetch, in ms, 1–5,000. Default 50. It bounds how much later
    /// messages arrive while Redis is away; a shorter time costs more requests while it is not.
    pub log_wait_ms: u32,
    /// Compression of batches: `none` or `lz4`. Default `none`.
    pub compression: Compression,
    /// A publish that the log does not acknowledge by then fails with an unknown outcome, in ms, 100–60,000.
    /// Default 5,000. Publishers wait no longer, either, once the log's broker is found to stand still, which takes 1 to
    /// 1.5 s, and as much longer as `log_wait_ms` is.
    pub publish_timeout_ms: u32,
    /// Publishes not yet acknowledged that the node holds at most, 1–1,000,000. Default 16,384. One more is refused before
    /// anybody sees it.
    pub queue_messages_max: usize,
    /// Bytes of those, at most, 128 KiB–4 GiB. Default 64 MiB.
    pub queue_bytes_max: usize,
    /// A Redis that leaves a command unanswered for so long counts as lost, in ms, 10–60,000. Default 500.
    pub response_timeout_ms: u64,
    /// Bound for opening a connection to Redis, in ms, 10–60,000. Default 1,000.
    pub connect_timeout_ms: u64,
    /// Constant pause between two attempts to reconnect to Redis, in ms, 1–10,000. Default 20.
    pub reconnect_delay_ms: u64,
    /// After an outage of Redis, how long publishing stays with the log once this node's own subscriptions are back, so
    /// that the other nodes listen again too, in ms, 0–10,000. Default 50.
    pub resume_delay_ms: u64,
    /// How often the tops of all joined rooms are compared, in ms, 50–60,000. Default 1,000.
    pub heartbeat_ms: u64,
    /// How long a room stays subscribed after its last local member left, in ms, 0–600,000. Default 10,000.
    pub linger_ms: u64,
    /// How long Redis remembers the sequence of an idle room that nobody is in, in s, 60–2,592,000. Default 86,400.
    pub room_ttl_s: u64,
    /// Message ids that a node remembers to remove duplicates, 1–16,777,216. Default 65,536; and as many of rooms that nobody here
    /// was in, once Redis was away.
    pub dedup_messages: usize,
    /// Messages of a room that a node keeps in memory, and Redis in a stream, for those who come back, 0–10,000; 0 keeps none.
    /// Default 300; Redis may have a few more, and all rooms of a node take 128 MiB at most. What is not there is read from
    /// the log.
    pub history_messages: usize,
    /// How long they are kept, by Redis counted from a room's last message, but there no longer than `room_ttl_s`, in minutes,
    /// 1–10,080. Default 10.
    pub history_minutes: u64,
    /// Records of a partition, of all its rooms, that one read of history may scan, 1,000–10,000,000. Default 100,000. A client
    /// that missed more of its partition is told that it cannot be given all it missed.
    pub history_scan_messages_max: u32,
    /// How long one such read may take, in ms, 100–60,000. Default 2,000.
    pub history_scan_ms_max: u32,
    /// How long Redis recognises the id of a message, in s, 1–3,600. Default 30, and not 300 as with `redis-pubsub`: nodes drop by
    /// their own window of ids what comes later, out of Redis or out of the log. Only with `history_messages`.
    pub dedup_seconds: u64,
    /// Deadline of a graceful shutdown, in ms, 100–60,000. Default 5,000.
    pub shutdown_timeout_ms: u64,
    /// Further librdkafka properties (TLS, SASL, sockets), by their names. Secrets are masked wherever settings show.
    pub client: ClientProperties,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            first: First::Fast,
            heal_timeout_ms: 1_000,
            partitions: 16,
            replication: None,
            retention_minutes: 24 * 60,
            log_linger_ms: 1.0,
            log_wait_ms: 50,
            compression: Compression::None,
            publish_timeout_ms: 5_000,
            queue_messages_max: 16_384,
            queue_bytes_max: 64 * 1024 * 1024,
            response_timeout_ms: 500,
            connect_timeout_ms: 1_000,
            reconnect_delay_ms: 20,
            resume_delay_ms: 50,
            heartbeat_ms: 1_000,
            linger_ms: 10_000,
            room_ttl_s: 86_400,
            dedup_messages: DedupWindow::CAPACITY,
            history_messages: 300,
            history_minutes: 10,
            history_scan_messages_max: 100_000,
            history_scan_ms_max: 2_000,
            dedup_seconds: 30,
            shutdown_timeout_ms: 5_000,
            client: ClientProperties::default(),
        }
    }
}

impl Settings {
    /// Reads and checks settings.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the key and its bounds.
    pub fn parse(table: &toml::Table) -> Result<Self> {
        let settings: Self = parse_settings(table)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        within("heal_timeout_ms", self.heal_timeout_ms, 10, 60_000)?;
        within("partitions", self.partitions.into(), 1, 1_024)?;
        within("replication", self.replication.unwrap_or(1).into(), 1, 9)?;
        within("retention_minutes", self.retention_minutes.into(), 1, 525_600)?;
        within("log_wait_ms", self.log_wait_ms.into(), 1, 5_000)?;
        within("publish_timeout_ms", self.publish_timeout_ms.into(), 100, 60_000)?;
        within("history_scan_messages_max", self.history_scan_messages_max.into(), 1_000, 10_000_000)?;
        within("history_scan_ms_max", self.history_scan_ms_max.into(), 100, 60_000)?;
        within("shutdown_timeout_ms", self.shutdown_timeout_ms, 100, 60_000)?;
        if !(0.0..=1_000.0).contains(&self.log_linger_ms) {
            let problem = format!("log_linger_ms is {}, must be 0 to 1000", self.log_linger_ms);
            return Err(Error::new(ErrorKind::Config, "settings", problem));
        }
        self.client.validate()?;
        self.live().check()
    }

    /// All settings with defaults filled in and secrets masked.
    ///
    /// # Errors
    /// Never in practice: every setting can be written as TOML.
    pub fn effective(&self) -> Result<toml::Table> {
        let shown = Self { client: self.client.masked(), ..self.clone() };
        toml::Table::try_from(shown).map_err(|source| {
            Error::new(ErrorKind::Config, "settings", "they cannot be shown").with_source(source)
        })
    }

    /// The live path's part.
    pub(super) fn live(&self) -> redis_pubsub::Settings {
        redis_pubsub::Settings {
            // Only joins wait for so long: publishes turn to the log at once.
            publish_timeout_ms: self.response_timeout_ms.clamp(100, 60_000),
            queue_messages_max: self.queue_messages_max,
            queue_bytes_max: self.queue_bytes_max,
            connect_timeout_ms: self.connect_timeout_ms,
            response_timeout_ms: self.response_timeout_ms,
            reconnect_delay_ms: self.reconnect_delay_ms,
            resume_delay_ms: self.resume_delay_ms,
            heartbeat_ms: self.heartbeat_ms,
            linger_ms: self.linger_ms,
            room_ttl_s: self.room_ttl_s,
            dedup_messages: self.dedup_messages,
            history_messages: self.history_messages,
            history_minutes: self.history_minutes,
            dedup_seconds: self.dedup_seconds,
            shutdown_timeout_ms: self.shutdown_timeout_ms,
        }
    }

    pub(super) fn producer(&self) -> ProducerSettings {
        ProducerSettings {
            linger_ms: self.log_linger_ms,
            idempotent: true,
            compression: self.compression,
            message_timeout: self.publish_timeout(),
            // Publishes are bounded before they get here, so that none is shown live and then finds no room.
            queue_records_max: 2_000_000,
            queue_bytes_max: self.queue_bytes_max.saturating_mul(2),
            ..ProducerSettings::default()
        }
    }

    pub(super) fn consumer(&self) -> ConsumerSettings {
        ConsumerSettings {
            fetch_wait: Duration::from_millis(self.log_wait_ms.into()),
            // While Redis is there the log is only read for safety: seldom, and much at once.
            fetch_min_bytes: 1024 * 1024,
            ..ConsumerSettings::default()
        }
    }

    /// What the rings of a node may hold; `None` where there are none.
    pub(super) fn rings(&self) -> Option<Limits> {
        let age = Duration::from_secs(self.history_minutes * 60);
        (self.history_messages > 0).then(|| Limits::new(self.history_messages, age))
    }

    /// Bounds of one read of the log.
    pub(super) fn scan(&self) -> ScanLimits {
        ScanLimits {
            records: self.history_scan_messages_max.into(),
            time: Duration::from_millis(self.history_scan_ms_max.into()),
        }
    }

    pub(super) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms.into())
    }

    pub(super) fn heal_timeout(&self) -> Duration {
        Duration::from_millis(self.heal_timeout_ms)
    }

    pub(super) fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_mistakes_are_named() {
        let shown = Settings::parse(&toml::Table::new()).unwrap().effective().unwrap();
        assert_eq!(shown["first"].as_str(), Some("fast"));
        for (text, named) in [
            ("firts = 'fast'", "firts"),
            ("first = 'slow'", "slow"),
            ("heal_timeout_ms = 1", "heal_timeout_ms"),
            ("heartbeat_ms = 1", "heartbeat_ms"),
            ("history_messages = 10001", "history_messages"),
            ("history_scan_messages_max = 1", "history_scan_messages_max"),
            ("history_scan_ms_max = 1", "history_scan_ms_max"),
            ("log_linger_ms = nan", "log_linger_ms"),
            ("client = { acks = '1' }", "acks"),
        ] {
            let error = Settings::parse(&text.parse().unwrap()).unwrap_err();
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = Settings::parse(&"client = { 'sasl.password' = 'hunter2' }".parse().unwrap()).unwrap();
        assert!(!format!("{settings:?} {}", settings.effective().unwrap()).contains("hunter2"));
    }
}
