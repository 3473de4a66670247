//! Settings of `kafka-broadcast`: defaults, bounds, and what follows from them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::membership::{HOLD_MAX, STEP_MS_MAX};
use crate::clients::kafka::{ClientProperties, Compression, ProducerSettings};
use crate::dedup::DedupWindow;
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::{Ack, Delivery, Guarantees, Interest, Ordering, Positions, ReplayKind};
use crate::kafka_history::{self, log::ScanLimits};
use crate::ring::Limits;
use crate::strategy::parse_settings;

/// The longest publish timeout, in ms.
pub(super) const PUBLISH_TIMEOUT_MS_MAX: u64 = 120_000;

/// Settings of this strategy. All nodes of a cluster may differ in them: what the others must know travels in the
/// control log.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Partitions that this node consumes. More than one is an experiment: each message then arrives that many times.
    /// Default 1, at most 8.
    pub hold: u32,
    /// Removes messages that were seen before, by message id. Off is an experiment: with `hold` above 1 members see
    /// duplicates, and a publisher's retry can too. Default true.
    pub deduplicate: bool,
    /// Message ids that are remembered. Default 65,536 (about 5 MiB), 1,024 to 4,194,304.
    pub dedup_window: usize,
    /// Partitions of the data topic when it is created; it grows by itself when more nodes come. Default 4, 1 to 256.
    pub partitions: u32,
    /// Replicas of both topics when they are created. Default: as many as there are brokers, at most 3. One that lacks what was
    /// acknowledged never leads, whatever the brokers' default is. Topics made by others need
    /// `unclean.leader.election.enable = false` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<u32>,
    /// How long the broker keeps messages, in minutes. Default 60, 1 to 10,080. As far as that clients can be given what
    /// they missed.
    pub retention_min: u32,
    /// How long a write may wait for company, in ms. Default 0 (lowest latency); 1 from about 5,000 partition writes
    /// per second and node on. 0 to 1,000.
    pub linger_ms: f64,
    /// Keeps a publisher's order, and writes once, when the client has to retry. It lets 5 requests per broker be in
    /// flight, each of which carries one partition: what waits meanwhile goes out in larger batches, which under
    /// load is an advantage. Default true.
    pub idempotence: bool,
    /// Compression of batches. Default `none`.
    pub compression: Compression,
    /// A write that is not acknowledged by then has failed, outcome unknown. A node that was expelled reads another
    /// member's partition for as long after its return. Default 5,000, 100 to 120,000 ms.
    pub publish_timeout_ms: u64,
    /// Partition writes that may be unacknowledged at once; more is `Overloaded`. Default 100,000, 1,000 to 1,000,000.
    pub in_flight_writes_max: usize,
    /// Bytes of partition writes that may be unacknowledged at once; more is `Overloaded`. Default 64 MiB,
    /// 1 MiB to 192 MiB.
    pub in_flight_bytes_max: usize,
    /// Silence after which a node is expelled and the others stop writing to it. Default 4,000, 2,500 to 60,000 ms.
    pub lease_ms: u64,
    /// Time between two signs of life. Default 300, 50 ms to an eighth of the lease.
    pub beat_ms: u64,
    /// Last messages of each room that a node keeps in memory, to answer for history without the broker; 0 keeps none.
    /// Default 300, at most 10,000. All rooms together take 128 MiB at most; what is not there is read from the log.
    pub history_messages: usize,
    /// How long they are kept, in minutes. Default 10, 1 to 1,440.
    pub history_minutes: u32,
    /// Records of a partition, of all rooms, that one read of history may scan. Default 100,000, 1,000 to 10,000,000. A client
    /// that missed more is told that it cannot be given all it missed.
    pub history_scan_messages_max: u32,
    /// How long one such read may take. Default 2,000, 100 to 60,000 ms.
    pub history_scan_ms_max: u32,
    /// How long a shutdown may take. Default 5,000, 100 to 60,000 ms.
    pub shutdown_ms: u64,
    /// Further librdkafka properties, for TLS and SASL.
    pub client: ClientProperties,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold: 1,
            deduplicate: true,
            dedup_window: DedupWindow::CAPACITY,
            partitions: 4,
            replication: None,
            retention_min: 60,
            linger_ms: 0.0,
            idempotence: true,
            compression: Compression::None,
            publish_timeout_ms: 5_000,
            in_flight_writes_max: 100_000,
            in_flight_bytes_max: 64 << 20,
            lease_ms: 4_000,
            beat_ms: 300,
            history_messages: 300,
            history_minutes: 10,
            history_scan_messages_max: 100_000,
            history_scan_ms_max: 2_000,
            shutdown_ms: 5_000,
            client: ClientProperties::default(),
        }
    }
}

impl Settings {
    /// Reads and checks the table.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the key and its bounds.
    pub fn parse(table: &toml::Table) -> Result<Self> {
        let settings: Self = parse_settings(table)?;
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<()> {
        within("hold", self.hold, 1, HOLD_MAX)?;
        within("dedup_window", self.dedup_window, 1_024, 4 << 20)?;
        within("partitions", self.partitions, 1, 256)?;
        within("replication", self.replication.unwrap_or(1), 1, 15)?;
        within("retention_min", self.retention_min, 1, 10_080)?;
        within("linger_ms", self.linger_ms, 0.0, 1_000.0)?;
        within("publish_timeout_ms", self.publish_timeout_ms, 100, PUBLISH_TIMEOUT_MS_MAX)?;
        within("in_flight_writes_max", self.in_flight_writes_max, 1_000, 1_000_000)?;
        within("in_flight_bytes_max", self.in_flight_bytes_max, 1 << 20, 192 << 20)?;
        within("lease_ms", self.lease_ms, 2_500, 60_000)?;
        within("beat_ms", self.beat_ms, 50, self.lease_ms / 8)?;
        within("history_messages", self.history_messages, 0, 10_000)?;
        within("history_minutes", self.history_minutes, 1, 1_440)?;
        within("history_scan_messages_max", self.history_scan_messages_max, 1_000, 10_000_000)?;
        within("history_scan_ms_max", self.history_scan_ms_max, 100, 60_000)?;
        within("shutdown_ms", self.shutdown_ms, 100, 60_000)?;
        self.client.validate()
    }

    /// All settings as a table, secrets masked.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] when a value has no place in TOML.
    pub fn to_table(&self) -> Result<toml::Table> {
        let shown = Self { client: self.client.masked(), ..self.clone() };
        toml::Table::try_from(shown).map_err(|source| {
            Error::new(ErrorKind::Config, "settings", "the settings do not fit into TOML").with_source(source)
        })
    }

    /// What an instance with these settings promises.
    pub fn guarantees(&self) -> Guarantees {
        Guarantees {
            delivery: if self.deduplicate {
                Delivery::AtLeastOnceDeduplicated
            } else {
                Delivery::AtLeastOnce
            },
            ordering: Ordering::PerPublisher,
            ack: Ack::Log,
            interest: Interest::Everything,
            replay: if self.has_positions() { ReplayKind::Log } else { ReplayKind::None },
            positions: if self.has_positions() { Positions::Rising } else { Positions::None },
            idempotent_retry: self.deduplicate,
            spans_nodes: true,
            whole_rooms: true,
        }
    }

    /// Whether messages have positions: not in the experiments, where they come from several partitions, or more than once.
    pub(super) fn has_positions(&self) -> bool {
        self.hold == 1 && self.deduplicate
    }

    /// What a node keeps in memory; `None` where that is nothing.
    pub(super) fn rings(&self) -> Option<Limits> {
        let messages = if self.has_positions() { self.history_messages } else { 0 };
        kafka_history::ring_limits(messages, self.history_minutes)
    }

    /// Bounds of one read of the log.
    pub(super) fn scan(&self) -> ScanLimits {
        ScanLimits {
            records: self.history_scan_messages_max.into(),
            time: Duration::from_millis(self.history_scan_ms_max.into()),
        }
    }

    /// The data producer. Its queue has room to spare: this strategy's own bounds come first, so that a message is
    /// refused as a whole rather than written to some partitions.
    pub(super) fn data_producer(&self) -> ProducerSettings {
        ProducerSettings {
            linger_ms: self.linger_ms,
            idempotent: self.idempotence,
            compression: self.compression,
            message_timeout: self.publish_timeout(),
            queue_records_max: u32::try_from(self.in_flight_writes_max).unwrap_or(u32::MAX) + 1_000,
            ..ProducerSettings::default()
        }
    }

    /// The control log's producer: few records, each sent at once, given up long before the lease ends. A repeated or
    /// overtaken record changes nothing there, so it does without idempotence, which would cost time at the start.
    pub(super) fn control_producer(&self) -> ProducerSettings {
        ProducerSettings {
            idempotent: false,
            message_timeout: Duration::from_millis(self.lease_ms / 2),
            queue_records_max: 1_000,
            ..ProducerSettings::default()
        }
    }

    /// How long after it was *sent* a confirmed sign of life still proves membership. Shorter than the lease by one jump
    /// of the broker's clock (a new leader's clock may differ) and by an eighth for clocks of unequal speed.
    pub(super) fn trust(&self) -> Duration {
        Duration::from_millis(self.lease_ms - self.lease_ms / 8 - STEP_MS_MAX)
    }

    pub(super) fn publish_timeout(&self) -> Duration {
        Duration::from_millis(self.publish_timeout_ms)
    }

    /// How long a join may take: until the slowest member acknowledged or was expelled, and once more for a rejoin.
    pub(super) fn join_timeout(&self) -> Duration {
        Duration::from_millis(2 * self.lease_ms + 5_000)
    }
}

fn within<T: PartialOrd + std::fmt::Display>(key: &str, value: T, low: T, high: T) -> Result<()> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, "settings", format!("`{key}` is {value}; it must be {low} to {high}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings> {
        Settings::parse(&toml::from_str(text).expect("valid TOML"))
    }

    #[test]
    fn defaults_are_valid_and_come_back_from_their_table() {
        let settings = parse("").unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(Settings::parse(&settings.to_table().unwrap()).unwrap(), settings);
    }

    #[test]
    fn unknown_keys_and_values_out_of_bounds_are_refused() {
        for text in [
            "holds = 1",
            "hold = 0",
            "hold = 9",
            "history_minutes = 0",
            "lease_ms = 1000",
            "beat_ms = 600",
            "linger_ms = -1.0",
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(error.to_string().contains(&text[..4]), "{error}");
        }
        assert!(parse("linger_ms = nan").is_err());
    }

    #[test]
    fn the_experiments_have_no_positions() {
        assert_eq!(parse("").unwrap().guarantees().replay, ReplayKind::Log);
        for text in ["hold = 2", "deduplicate = false"] {
            let guarantees = parse(text).unwrap().guarantees();
            assert_eq!((guarantees.replay, guarantees.positions), (ReplayKind::None, Positions::None));
        }
    }

    #[test]
    fn trust_ends_before_the_lease_does() {
        for lease_ms in [2_500, 4_000, 60_000] {
            let settings = Settings { lease_ms, ..Settings::default() };
            let margin_ms = u128::from(lease_ms) - settings.trust().as_millis();
            assert!(margin_ms > u128::from(STEP_MS_MAX));
        }
    }
}
