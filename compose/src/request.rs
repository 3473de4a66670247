//! What a caller asks for: which brokers, in which shape, for which purpose.
//!
//! The table of strategies lives here, because adding a strategy means adding one line to it; the implementations
//! themselves are out of this crate's sight.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Which brokers each strategy needs.
pub static STRATEGIES: &[StrategyBrokers] = &[
    StrategyBrokers { name: "memory", kafka: false, redis: false, ids_kept: None },
    StrategyBrokers { name: "kafka-broadcast", kafka: true, redis: false, ids_kept: Some("dedup_window") },
    StrategyBrokers { name: "kafka-keyed", kafka: true, redis: false, ids_kept: Some("dedup_messages") },
    StrategyBrokers { name: "kafka-shared-group", kafka: true, redis: false, ids_kept: None },
    StrategyBrokers { name: "redis-pubsub", kafka: false, redis: true, ids_kept: Some("dedup_messages") },
    StrategyBrokers { name: "hybrid", kafka: true, redis: true, ids_kept: Some("dedup_messages") },
];

/// A line of [`STRATEGIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StrategyBrokers {
    /// The strategy's name on the command line.
    pub name: &'static str,
    /// Whether it needs Kafka.
    pub kafka: bool,
    /// Whether it needs Redis.
    pub redis: bool,
    /// Its option that says how many message ids a node remembers, by which it knows copies; where there is one. It is what a
    /// node's memory grows by until it is full.
    pub ids_kept: Option<&'static str>,
}

/// A shape in which a broker can be brought up, as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topology {
    /// One Kafka node: broker and controller in one.
    Kafka,
    /// Three Kafka nodes: replication factor 3, `min.insync.replicas` 2.
    Kafka3,
    /// One Redis server.
    Redis,
    /// A Redis master, a replica and three sentinels (quorum 2).
    RedisSentinel,
    /// A Redis cluster of three masters.
    RedisCluster,
}

impl Topology {
    /// Every topology.
    pub const ALL: [Topology; 5] =
        [Topology::Kafka, Topology::Kafka3, Topology::Redis, Topology::RedisSentinel, Topology::RedisCluster];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Topology::Kafka => "kafka",
            Topology::Kafka3 => "kafka3",
            Topology::Redis => "redis",
            Topology::RedisSentinel => "redis-sentinel",
            Topology::RedisCluster => "redis-cluster",
        }
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Topology {
    type Err = Error;

    fn from_str(text: &str) -> Result<Topology> {
        Topology::ALL
            .into_iter()
            .find(|topology| topology.name() == text)
            .ok_or_else(|| Error::UnknownTopology { name: text.to_owned() })
    }
}

/// How many Kafka nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KafkaTopology {
    /// One node, replication factor 1.
    Single,
    /// Three nodes, replication factor 3, `min.insync.replicas` 2.
    Three,
}

impl KafkaTopology {
    /// The number of nodes, which is also the replication factor.
    pub const fn nodes(self) -> usize {
        match self {
            KafkaTopology::Single => 1,
            KafkaTopology::Three => 3,
        }
    }
}

/// The shape of Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedisTopology {
    /// One server.
    Single,
    /// Master, replica and three sentinels.
    Sentinel,
    /// Three masters that share the hash slots.
    Cluster,
}

/// What the brokers are for; decides how the JVM is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Purpose {
    /// Ready soon, small: C1 compiler only, serial collector, 256 MiB heap. Its latency means nothing.
    #[default]
    Tests,
    /// Fit for published figures: C2, G1, 512 MiB heap.
    Figures,
}

/// What to bring up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Kafka's shape; `None` where it is not needed.
    pub kafka: Option<KafkaTopology>,
    /// Redis's shape; `None` where it is not needed.
    pub redis: Option<RedisTopology>,
    /// What the brokers are for.
    pub purpose: Purpose,
    /// `host:port[,host:port…]` of a Kafka that is there already: none is started.
    pub kafka_given: Option<String>,
    /// URL of a Redis that is there already: none is started.
    pub redis_given: Option<String>,
}

impl Request {
    /// The brokers that a strategy needs, one node of each.
    ///
    /// # Errors
    /// [`Error::UnknownStrategy`] where no strategy has that name.
    pub fn for_strategy(name: &str) -> Result<Request> {
        let strategy = STRATEGIES
            .iter()
            .find(|strategy| strategy.name == name)
            .ok_or_else(|| Error::UnknownStrategy { name: name.to_owned() })?;
        Ok(Request {
            kafka: strategy.kafka.then_some(KafkaTopology::Single),
            redis: strategy.redis.then_some(RedisTopology::Single),
            ..Request::default()
        })
    }

    /// One Kafka node and no Redis.
    pub fn kafka() -> Request {
        Request { kafka: Some(KafkaTopology::Single), ..Request::default() }
    }

    /// One Redis server and no Kafka.
    pub fn redis() -> Request {
        Request { redis: Some(RedisTopology::Single), ..Request::default() }
    }

    /// Takes `KAFKA_BOOTSTRAP` and `REDIS_URL` from the environment for the brokers that are needed and not given yet.
    #[must_use]
    pub fn with_environment(mut self) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if self.kafka.is_some() && self.kafka_given.is_none() {
            self.kafka_given = variable("KAFKA_BOOTSTRAP");
        }
        if self.redis.is_some() && self.redis_given.is_none() {
            self.redis_given = variable("REDIS_URL");
        }
        self
    }

    /// Sets the purpose.
    #[must_use]
    pub fn with_purpose(mut self, purpose: Purpose) -> Self {
        self.purpose = purpose;
        self
    }

    /// Chooses the shape of a broker that is needed anyway.
    ///
    /// # Errors
    /// [`Error::TopologyNotNeeded`] where the request does not need that broker at all.
    pub fn with_topology(mut self, topology: Topology) -> Result<Self> {
        let unneeded = Error::TopologyNotNeeded { topology };
        match topology {
            Topology::Kafka | Topology::Kafka3 if self.kafka.is_none() => return Err(unneeded),
            Topology::Kafka => self.kafka = Some(KafkaTopology::Single),
            Topology::Kafka3 => self.kafka = Some(KafkaTopology::Three),
            _ if self.redis.is_none() => return Err(unneeded),
            Topology::Redis => self.redis = Some(RedisTopology::Single),
            Topology::RedisSentinel => self.redis = Some(RedisTopology::Sentinel),
            Topology::RedisCluster => self.redis = Some(RedisTopology::Cluster),
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strategies_need_what_the_table_says() {
        let hybrid = Request::for_strategy("hybrid").unwrap();
        assert_eq!((hybrid.kafka, hybrid.redis), (Some(KafkaTopology::Single), Some(RedisTopology::Single)));
        let memory = Request::for_strategy("memory").unwrap();
        assert_eq!((memory.kafka, memory.redis), (None, None));
    }

    #[test]
    fn an_unknown_strategy_is_refused_with_the_names_that_exist() {
        let text = Request::for_strategy("kafka-keyd").unwrap_err().to_string();
        assert!(text.contains("kafka-keyd") && text.contains("kafka-keyed"), "{text}");
    }

    #[test]
    fn topologies_parse_and_apply_where_the_broker_is_needed() {
        for topology in Topology::ALL {
            assert_eq!(topology.name().parse::<Topology>().unwrap(), topology);
        }
        assert!("kafka5".parse::<Topology>().is_err());
        let three = Request::kafka().with_topology(Topology::Kafka3).unwrap();
        assert_eq!(three.kafka, Some(KafkaTopology::Three));
        assert!(Request::kafka().with_topology(Topology::RedisCluster).is_err());
    }
}
