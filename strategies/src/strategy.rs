//! How a strategy is named, described and started. A strategy adds one [`Strategy`] value to the registry.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backplane::{Backplane, BoxFuture, Entrance};
use crate::error::{Error, ErrorKind, Result};
use crate::guarantees::Guarantees;

/// A line of the registry.
#[derive(Clone, Copy)]
pub struct Strategy {
    /// The name on the command line, e.g. `kafka-keyed`.
    pub name: &'static str,
    /// One line for people: how it carries messages.
    pub summary: &'static str,
    /// The brokers it needs.
    pub needs: Needs,
    /// True for a strategy that exists to show a mistake; never recommended by a report.
    pub counter_example: bool,
    /// Settings worth testing and comparing beside the defaults (which are always tested).
    pub variants: &'static [Variant],
    /// Checks settings without connecting and returns them with all defaults filled in, secrets masked.
    pub settings: fn(&toml::Table) -> Result<toml::Table>,
    /// What an instance with these settings promises, known without connecting.
    pub guarantees: fn(&toml::Table) -> Result<Guarantees>,
    /// Starts an instance: resolves when it can publish and join.
    pub connect: fn(Start) -> Connecting,
}

/// An instance on its way up.
pub type Connecting = BoxFuture<'static, Result<Arc<dyn Backplane>>>;

impl fmt::Debug for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Strategy")
            .field("name", &self.name)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

/// A named set of settings, tested by the conformance suite beside the defaults.
#[derive(Debug, Clone, Copy)]
pub struct Variant {
    /// Short name, e.g. `demand`.
    pub name: &'static str,
    /// The settings, as TOML, e.g. `consume = "demand"`.
    pub settings: &'static str,
}

/// Brokers that a strategy needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Needs {
    /// A Kafka cluster.
    pub kafka: bool,
    /// A Redis server, Sentinel group or cluster.
    pub redis: bool,
}

/// Everything an instance is started with.
#[derive(Clone)]
pub struct Start {
    /// Unique name of this node in the cluster; 1 to 64 bytes of `[A-Za-z0-9._-]`.
    pub node: String,
    /// Prefix of topics, keys and channels: clusters with different namespaces never meet. 1 to 64 bytes of `[A-Za-z0-9._-]`.
    pub namespace: String,
    /// `host:port[,host:port…]` of Kafka.
    pub kafka: Option<String>,
    /// `redis://`, `redis+sentinel://host:port[,…]/master-name` or `redis+cluster://host:port[,…]`.
    pub redis: Option<String>,
    /// The strategy's own settings. Unknown keys are refused.
    pub settings: toml::Table,
    /// Whether an absent broker is retried, and for how long: `None` refuses at once, after one attempt.
    pub connect_retry: Option<Duration>,
    /// Where messages go.
    pub entrance: Arc<dyn Entrance>,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses and settings may hold secrets.
        f.debug_struct("Start")
            .field("node", &self.node)
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Start {
    /// Kafka's address, or an error that names the remedy.
    pub fn kafka(&self) -> Result<&str> {
        self.kafka.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "connect",
                "no Kafka address: give --kafka host:port or set KAFKA_BOOTSTRAP",
            )
        })
    }

    /// Redis's address, or an error that names the remedy.
    pub fn redis(&self) -> Result<&str> {
        self.redis.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "connect",
                "no Redis address: give --redis redis://host:port or set REDIS_URL",
            )
        })
    }
}

/// Reads a strategy's settings into its typed struct (which must `deny_unknown_fields`).
pub fn parse_settings<T: DeserializeOwned>(table: &toml::Table) -> Result<T> {
    table.clone().try_into().map_err(|source: toml::de::Error| {
        Error::new(ErrorKind::Config, "settings", source.message().to_owned()).with_source(source)
    })
}
