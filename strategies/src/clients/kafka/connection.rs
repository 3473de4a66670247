//! Addresses and client settings. The defaults are measured: see each field.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::strategy::Start;

/// Extra librdkafka properties, applied last: TLS, SASL, socket tuning. Values of secrets never reach Debug output,
/// logs or the effective settings.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct ClientProperties(BTreeMap<String, toml::Value>);

/// Properties that carry the strategy's promises; changing them from outside would break these silently.
const RESERVED: [&str; 16] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "group.id",
    "group.instance.id",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "partitioner",
    "statistics.interval.ms",
    "transactional.id",
    "message.timeout.ms",
];

/// What stands in place of a secret.
const MASK: &str = "***";

impl ClientProperties {
    /// Checks that no reserved property is set and that every value is a string, an integer, a float or a boolean.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the offending property.
    pub fn validate(&self) -> Result<()> {
        for (key, value) in &self.0 {
            if RESERVED.contains(&key.as_str()) {
                let text = format!("`client.\"{key}\"` is set by the strategy itself; remove it");
                return Err(Error::new(ErrorKind::Config, "settings", text));
            }
            if text_of(value).is_none() {
                let text = format!("`client.\"{key}\"` must be a string, a number or a boolean");
                return Err(Error::new(ErrorKind::Config, "settings", text));
            }
        }
        Ok(())
    }

    /// The same properties with secrets replaced, for `/info` and logs.
    #[must_use]
    pub fn masked(&self) -> Self {
        let mask = |(key, value): (&String, &toml::Value)| {
            let shown = if is_secret(key) { toml::Value::String(MASK.into()) } else { value.clone() };
            (key.clone(), shown)
        };
        Self(self.0.iter().map(mask).collect())
    }

    fn apply(&self, config: &mut ClientConfig) {
        for (key, value) in &self.0 {
            if let Some(text) = text_of(value) {
                config.set(key, text);
            }
            if key == "debug" {
                // librdkafka would drop the lines that were asked for.
                config.set_log_level(RDKafkaLogLevel::Debug);
            }
        }
    }
}

impl fmt::Debug for ClientProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.masked().0, f)
    }
}

fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", "pem", "sasl.username", "oauthbearer.config", "private"]
        .iter()
        .any(|word| key.contains(word))
}

/// How record batches are compressed on their way to the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all: best below about 1 KB per batch.
    #[default]
    None,
    /// LZ4: pays off for larger batches.
    Lz4,
}

impl Compression {
    const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }
}

/// What a producer is made with.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProducerSettings {
    /// How long a record may wait for company, in ms. 0 sends at once: lowest latency up to about 5,000 records/s
    /// per node; 0.1–1 costs less CPU above.
    pub linger_ms: f64,
    /// Removes the client's own retries and keeps their order. Caps requests in flight at 5 per broker, which only
    /// hurts a producer that writes many partitions per message.
    pub idempotent: bool,
    /// Batch compression.
    pub compression: Compression,
    /// A record that the broker has not acknowledged by then fails; its outcome is unknown.
    pub message_timeout: Duration,
    /// Bound of the send queue in records; one more is `Overloaded`.
    pub queue_records_max: u32,
    /// Bound of the send queue in bytes of keys and values, at least 1 KiB; one more record is `Overloaded`.
    pub queue_bytes_max: usize,
    /// How often topics are looked at for new partitions.
    pub metadata_refresh: Duration,
}

impl Default for ProducerSettings {
    fn default() -> Self {
        Self {
            linger_ms: 0.0,
            idempotent: true,
            compression: Compression::None,
            message_timeout: Duration::from_secs(5),
            queue_records_max: 100_000,
            queue_bytes_max: 256 * 1024 * 1024,
            metadata_refresh: Duration::from_secs(10),
        }
    }
}

/// What a consumer is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSettings {
    /// Longest time for which the broker holds an empty fetch. A partition assigned on an idle broker starts to be
    /// read when the outstanding fetch returns, so either this is short (50 ms) or something wakes the fetch.
    pub fetch_wait: Duration,
    /// Bytes for which the broker waits before it answers a fetch, within `fetch_wait`. 1 = the first record is sent at
    /// once; more makes reading cheaper and later.
    pub fetch_min_bytes: u32,
    /// Bound of records read ahead per partition, in KiB.
    pub queued_kib_max: u32,
    /// A consumer group to subscribe with; `None` for explicit assignment only.
    pub group: Option<GroupSettings>,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            fetch_wait: Duration::from_millis(500),
            fetch_min_bytes: 1,
            queued_kib_max: 16 * 1024,
            group: None,
        }
    }
}

/// Membership in a consumer group (classic protocol, range assignor: the shortest pauses measured).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    /// The group's name.
    pub id: String,
    /// A member not heard of for this long is out. Kafka's lower bound is 6 s.
    pub session_timeout: Duration,
    /// How often a member reports; the pause that others see when a member joins.
    pub heartbeat: Duration,
}

impl GroupSettings {
    /// A group with the measured timeouts: 6 s session, 1 s heartbeat.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), session_timeout: Duration::from_secs(6), heartbeat: Duration::from_secs(1) }
    }
}

/// How to reach the cluster.
#[derive(Clone)]
pub struct Connection {
    bootstrap: String,
    client_id: String,
    properties: ClientProperties,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Takes the address from `start`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] without an address or with a reserved property.
    pub fn new(start: &Start, properties: ClientProperties) -> Result<Self> {
        properties.validate()?;
        Ok(Self {
            bootstrap: start.kafka()?.to_owned(),
            client_id: format!("manifold-{}", start.node),
            properties,
        })
    }

    /// The address, `host:port[,host:port…]`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Settings of a client that only asks: metadata, offsets, topic administration.
    pub fn query_config(&self) -> ClientConfig {
        let mut config = self.base();
        // Some questions go to whichever broker the cluster named when it was looked at last: that may be gone.
        config.set("topic.metadata.refresh.interval.ms", "5000");
        self.properties.apply(&mut config);
        config
    }

    /// Settings of a producer. All replicas acknowledge: on one replica that is the same as one.
    pub fn producer_config(&self, settings: &ProducerSettings) -> ClientConfig {
        let mut config = self.base();
        config
            .set("linger.ms", settings.linger_ms.to_string())
            .set("acks", "all")
            .set("enable.idempotence", settings.idempotent.to_string())
            .set("compression.type", settings.compression.as_str())
            .set("message.timeout.ms", settings.message_timeout.as_millis().to_string())
            .set("queue.buffering.max.messages", settings.queue_records_max.to_string())
            .set("queue.buffering.max.kbytes", (settings.queue_bytes_max / 1024).to_string())
            .set("retry.backoff.ms", "20")
            .set("sticky.partitioning.linger.ms", "0")
            .set("topic.metadata.refresh.interval.ms", settings.metadata_refresh.as_millis().to_string());
        self.properties.apply(&mut config);
        config
    }

    /// Settings of a consumer. Offsets are the strategy's business: nothing is committed outside of groups, and an
    /// offset that the log no longer holds is an error rather than a silent jump.
    pub fn consumer_config(&self, settings: &ConsumerSettings) -> ClientConfig {
        let mut config = self.base();
        config
            .set("allow.auto.create.topics", "false")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "false")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", settings.fetch_min_bytes.to_string())
            .set("fetch.wait.max.ms", settings.fetch_wait.as_millis().to_string())
            .set("fetch.queue.backoff.ms", "10")
            .set("fetch.error.backoff.ms", "50")
            .set("queued.min.messages", "10000")
            .set("queued.max.messages.kbytes", settings.queued_kib_max.to_string())
            .set("check.crcs", "false")
            // The client would wait a minute for a connection that swallows everything.
            .set("socket.timeout.ms", "10000")
            .set("statistics.interval.ms", "250")
            // A topic that is gone is not taken for one that has yet to come.
            .set("topic.metadata.propagation.max.ms", "5000")
            .set("topic.metadata.refresh.interval.ms", "10000");
        match &settings.group {
            // assign() is refused without a group id; a consumer that only assigns never joins it.
            None => config.set("group.id", format!("{}-assigned", self.client_id)),
            // Committed offsets show the member's lag to the broker's tools.
            Some(group) => config
                .set("group.id", &group.id)
                .set("enable.auto.commit", "true")
                .set("enable.auto.offset.store", "true")
                .set("auto.commit.interval.ms", "1000")
                .set("partition.assignment.strategy", "range")
                .set("session.timeout.ms", group.session_timeout.as_millis().to_string())
                .set("heartbeat.interval.ms", group.heartbeat.as_millis().to_string()),
        };
        self.properties.apply(&mut config);
        config
    }

    /// Settings of a consumer that reads a slice of a partition now and then: an empty fetch is answered soon, so that what
    /// is asked for next does not wait for it.
    pub fn slice_config(&self) -> ClientConfig {
        let settings = ConsumerSettings {
            fetch_wait: Duration::from_millis(10),
            queued_kib_max: 8 * 1024,
            ..ConsumerSettings::default()
        };
        let mut config = self.consumer_config(&settings);
        config.set("statistics.interval.ms", "0");
        config
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", &self.client_id)
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "200")
            .set("socket.keepalive.enable", "true");
        config
    }
}

#[cfg(test)]
impl Connection {
    /// A connection to these addresses with default properties.
    pub(super) fn to(kafka: &str) -> Self {
        struct Nowhere;
        impl crate::Entrance for Nowhere {
            fn deliver(&self, batch: &mut Vec<crate::Event>) {
                batch.clear();
            }
        }
        let start = Start {
            node: "n".into(),
            namespace: "n".into(),
            kafka: Some(kafka.into()),
            redis: None,
            settings: toml::Table::new(),
            connect_retry: None,
            entrance: std::sync::Arc::new(Nowhere),
        };
        Self::new(&start, ClientProperties::default()).expect("an address")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(text: &str) -> ClientProperties {
        toml::from_str(text).expect("valid table")
    }

    #[test]
    fn secrets_are_masked() {
        let properties = properties("'sasl.password' = 'hunter2'\n'sasl.mechanism' = 'PLAIN'");
        let shown = format!("{properties:?} {}", toml::to_string(&properties.masked()).expect("table"));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("PLAIN"), "{shown}");
    }

    #[test]
    fn reserved_and_structured_properties_are_refused() {
        assert!(properties("'acks' = 1").validate().is_err());
        assert!(properties("'x' = [1]").validate().is_err());
        assert!(properties("'socket.timeout.ms' = 1000\n'check.crcs' = true").validate().is_ok());
    }
}
