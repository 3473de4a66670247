//! Settings of the keyed strategy, their defaults and bounds.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clients::kafka::{ClientProperties, Compression, ConsumerSettings, ProducerSettings};
use crate::dedup::DedupWindow;
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::kafka_history::{self, log::ScanLimits};
use crate::ring::Limits;
use crate::strategy::parse_settings;

/// How long a message stays in the send queue after its publisher was told that the outcome is unknown. An idempotent client
/// that gives up messages has to begin a new epoch each time, which holds up those behind them until they are given up too:
/// after an outage about as long as the timeout, it can go on like that for ever.
const WRITTEN_LATE_MAX: Duration = Duration::from_secs(25);

/// How a node consumes the rooms' topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Consume {
    /// Every partition, assigned once at start: no pauses, no coordination.
    #[default]
    All,
    /// Only partitions in which the node has rooms, assigned when the first of them is joined.
    Demand,
    /// Every partition, through a consumer group of the node's own: broker tools then show its lag.
    Group,
    /// One consumer group for all nodes: the mistake that splits rooms among nodes. A counter-example.
    SharedGroup,
}

/// What an operator may set. Every node of a namespace must have the same `partitions`, `dedicated_partitions` and
/// `overrides`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How the node consumes: `all`, `demand`, `group` or `shared-group`. Default `all`.
    pub consume: Consume,
    /// Partitions over which rooms are hashed, 1–1024. Default 16. Fixed once the topic exists. Every fetch names every
    /// partition that a node reads, so each costs latency and CPU on both sides: two nodes at 1,000 messages per second
    /// on one small machine had a p99 of 18.5 ms with 64 and of 3.8 ms with 16. More pays with `demand` and many nodes.
    pub partitions: u32,
    /// Partitions reserved for rooms of the override table, 0–64. Default 4. Fixed once the topic exists.
    pub dedicated_partitions: u32,
    /// Hot rooms that get a reserved partition: room → its number, below `dedicated_partitions`. Default none.
    pub overrides: BTreeMap<String, u32>,
    /// Replicas of the topic if it is created now, 1–9. Default: as many as there are brokers, at most 3. One that lacks what was
    /// acknowledged never leads, whatever the brokers' default is. Topics made by others need
    /// `unclean.leader.election.enable = false` too.
    pub replication: Option<u32>,
    /// How long the log is kept, in minutes, 1–525600, if the topic is created now. Default 1440 (a day).
    pub retention_minutes: u32,
    /// How long a record waits for company before it is sent, in ms, 0–1000. Default 0: at once, best up to about
    /// 5,000 messages per second and node; 0.1–1 above.
    pub linger_ms: f64,
    /// Compression of batches: `none` or `lz4`. Default `none`.
    pub compression: Compression,
    /// A publish that is not acknowledged by then fails with an unknown outcome, in ms, 100–300000. Default 5000. It stays in the
    /// send queue for 25 s more, in its place, and may still be written then.
    pub message_timeout_ms: u32,
    /// Bound of the send queue in messages, 1–10000000; one more is `overloaded`. Default 100000.
    pub queue_messages_max: u32,
    /// Message ids that a node remembers to remove duplicates, 1–10000000. Default 262144: 30 s of 8,700 messages per second,
    /// as far apart as a late write and a publisher's retry elsewhere may be; about 20 MiB once it is full.
    pub dedup_messages: usize,
    /// Longest hold of an empty fetch at the broker, in ms, 1–5000. Default 500.
    pub fetch_wait_ms: u32,
    /// `demand`: how long a partition without rooms stays assigned, in ms, 0–3600000. Default 10000.
    pub release_linger_ms: u32,
    /// `demand`: above this part of all partitions the node takes every partition, 0–1. Default 0.6.
    pub all_above: f64,
    /// `demand`: below this part it goes back, 0–`all_above`. Default 0.4.
    pub all_below: f64,
    /// `group`, `shared-group`: a member not heard of for this long is out, in ms, 6000–1800000. Default 6000.
    pub session_timeout_ms: u32,
    /// `group`, `shared-group`: how often a member reports, in ms, 100–`session_timeout_ms`/3. Default 1000.
    pub heartbeat_ms: u32,
    /// Last messages of each room that a node keeps in memory, to answer for history without the broker, 0–10000; 0 keeps
    /// none. Default 300. All rooms together take 128 MiB at most; what is not there is read from the log.
    pub history_messages: usize,
    /// How long they are kept, in minutes, 1–1440. Default 10.
    pub history_minutes: u32,
    /// Records of a partition, of all its rooms, that one read of history may scan, 1000–10000000. Default 100000. A client
    /// that missed more of its partition is told that it cannot be given all it missed.
    pub history_scan_messages_max: u32,
    /// How long one such read may take, in ms, 100–60000. Default 2000.
    pub history_scan_ms_max: u32,
    /// Deadline of a graceful shutdown, in ms, 100–300000. Default 5000.
    pub shutdown_timeout_ms: u32,
    /// Further librdkafka properties (TLS, SASL, sockets), by their names. Secrets are masked wherever settings show.
    pub client: ClientProperties,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consume: Consume::All,
            partitions: 16,
            dedicated_partitions: 4,
            overrides: BTreeMap::new(),
            replication: None,
            retention_minutes: 24 * 60,
            linger_ms: 0.0,
            compression: Compression::None,
            message_timeout_ms: 5000,
            queue_messages_max: 100_000,
            dedup_messages: 4 * DedupWindow::CAPACITY,
            fetch_wait_ms: 500,
            release_linger_ms: 10_000,
            all_above: 0.6,
            all_below: 0.4,
            session_timeout_ms: 6000,
            heartbeat_ms: 1000,
            history_messages: 300,
            history_minutes: 10,
            history_scan_messages_max: 100_000,
            history_scan_ms_max: 2000,
            shutdown_timeout_ms: 5000,
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
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<()> {
        within("partitions", self.partitions, 1..=1024)?;
        within("dedicated_partitions", self.dedicated_partitions, 0..=64)?;
        within("replication", self.replication.unwrap_or(1), 1..=9)?;
        within("retention_minutes", self.retention_minutes, 1..=525_600)?;
        within("linger_ms", self.linger_ms, 0.0..=1000.0)?;
        within("message_timeout_ms", self.message_timeout_ms, 100..=300_000)?;
        within("queue_messages_max", self.queue_messages_max, 1..=10_000_000)?;
        within("dedup_messages", self.dedup_messages, 1..=10_000_000)?;
        within("fetch_wait_ms", self.fetch_wait_ms, 1..=5000)?;
        within("release_linger_ms", self.release_linger_ms, 0..=3_600_000)?;
        within("all_above", self.all_above, 0.0..=1.0)?;
        within("all_below", self.all_below, 0.0..=self.all_above)?;
        within("session_timeout_ms", self.session_timeout_ms, 6000..=1_800_000)?;
        within("heartbeat_ms", self.heartbeat_ms, 100..=self.session_timeout_ms / 3)?;
        within("history_messages", self.history_messages, 0..=10_000)?;
        within("history_minutes", self.history_minutes, 1..=1440)?;
        within("history_scan_messages_max", self.history_scan_messages_max, 1000..=10_000_000)?;
        within("history_scan_ms_max", self.history_scan_ms_max, 100..=60_000)?;
        within("shutdown_timeout_ms", self.shutdown_timeout_ms, 100..=300_000)?;
        for (room, number) in &self.overrides {
            if *number >= self.dedicated_partitions {
                return Err(refuse(format!(
                    "`overrides.\"{room}\"` = {number} must be below `dedicated_partitions` = {}",
                    self.dedicated_partitions
                )));
            }
        }
        self.client.validate()
    }

    /// All settings with defaults filled in and secrets masked.
    ///
    /// # Errors
    /// Never in practice: every setting can be written as TOML.
    pub fn effective(&self) -> Result<toml::Table> {
        let shown = Self { client: self.client.masked(), ..self.clone() };
        toml::Table::try_from(shown).map_err(|source| refuse(source.to_string()))
    }

    /// What a node with these settings promises.
    pub fn guarantees(&self) -> Guarantees {
        let whole_rooms = self.consume != Consume::SharedGroup;
        Guarantees {
            // A shared group hands a message to one node, which may be the wrong one.
            delivery: if whole_rooms { Delivery::AtLeastOnceDeduplicated } else { Delivery::AtMostOnce },
            ordering: Ordering::PerRoom,
            ack: Ack::Log,
            interest: match self.consume {
                Consume::All | Consume::Group => Interest::Everything,
                Consume::Demand | Consume::SharedGroup => Interest::Partitions,
            },
            // Of a shared group no node reads a room as a whole, so none could say what a member missed.
            replay: if whole_rooms { ReplayKind::Log } else { ReplayKind::None },
            positions: Positions::Rising,
            idempotent_retry: whole_rooms,
            spans_nodes: true,
            whole_rooms,
        }
    }

    /// Partitions of the topic.
    pub fn total_partitions(&self) -> u32 {
        self.partitions + self.dedicated_partitions
    }

    /// When a publisher is told that the outcome is unknown.
    pub(super) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.message_timeout_ms.into())
    }

    /// Deadline of a graceful shutdown.
    pub fn shutdown_timeout(&self) -> Duration {
        Duration::from_millis(self.shutdown_timeout_ms.into())
    }

    /// What the rings of a node may hold; `None` where there are none.
    pub(super) fn rings(&self) -> Option<Limits> {
        if self.consume == Consume::SharedGroup {
            return None;
        }
        kafka_history::ring_limits(self.history_messages, self.history_minutes)
    }

    /// Bounds of one read of the log.
    pub(super) fn scan(&self) -> ScanLimits {
        ScanLimits {
            records: self.history_scan_messages_max.into(),
            time: Duration::from_millis(self.history_scan_ms_max.into()),
        }
    }

    /// The producer's part.
    pub(super) fn producer(&self) -> ProducerSettings {
        ProducerSettings {
            linger_ms: self.linger_ms,
            idempotent: true,
            compression: self.compression,
            message_timeout: self.publish_timeout() + WRITTEN_LATE_MAX,
            queue_records_max: self.queue_messages_max,
            ..ProducerSettings::default()
        }
    }

    /// The consumer's part, without a group.
    pub(super) fn consumer(&self) -> ConsumerSettings {
        ConsumerSettings {
            fetch_wait: Duration::from_millis(self.fetch_wait_ms.into()),
            ..ConsumerSettings::default()
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, bounds: RangeInclusive<T>) -> Result<()> {
    if bounds.contains(&value) {
        return Ok(());
    }
    Err(refuse(format!("`{key}` = {value} must lie in {}..={}", bounds.start(), bounds.end())))
}

fn refuse(text: String) -> Error {
    Error::new(ErrorKind::Config, "settings", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(&text.parse().expect("TOML"))
    }

    #[test]
    fn defaults_are_valid_and_shown() {
        let table = parse("").unwrap().effective().unwrap();
        assert_eq!(table["partitions"].as_integer(), Some(16));
        assert_eq!(table["consume"].as_str(), Some("all"));
    }

    #[test]
    fn unknown_and_outlandish_settings_are_refused_by_name() {
        for (text, named) in [
            ("partition = 3", "partition"),
            ("partitions = 0", "`partitions` = 0"),
            ("consume = 'some'", "some"),
            ("all_above = 0.3", "all_below"),
            ("heartbeat_ms = 3000", "heartbeat_ms"),
            ("overrides = { hot = 4 }", "dedicated_partitions"),
            ("client = { acks = '1' }", "acks"),
            ("linger_ms = nan", "linger_ms"),
            ("history_scan_ms_max = 1", "history_scan_ms_max"),
            ("history_messages = 10001", "history_messages"),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let settings = parse("client = { 'sasl.password' = 'hunter2' }").unwrap();
        let shown = format!("{settings:?} {}", settings.effective().unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_shared_group_promises_less() {
        assert!(parse("consume = 'group'").unwrap().guarantees().whole_rooms);
        let shared = parse("consume = 'shared-group'").unwrap();
        assert!(!shared.guarantees().whole_rooms);
        assert_eq!(shared.guarantees().replay, ReplayKind::None);
        assert_eq!(shared.rings(), None);
    }
}
