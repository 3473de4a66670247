//! The real brokers of the suite, each kind started when the first case asks for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Result;
use manifold_compose::{Environment, KafkaTopology, Purpose, RedisTopology, Request};
use manifold_strategies::Needs;
use parking_lot::Mutex;

/// Partitions whose leaders lie on different brokers, and topics that grow across them.
const ON_THREE_BROKERS: &[&str] = &[
    "reaches_each_member_exactly_once",
    "keeps_each_publishers_order",
    "a_join_is_effective",
    "grows_from_one_to_four_nodes",
    "a_room_is_fragmented",
];

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Nowhere,
    Kafka,
    /// Three brokers, three replicas.
    Kafka3,
    Redis,
    RedisSentinel,
    RedisCluster,
    Both,
}

impl Place {
    /// Every place that offers what a strategy needs.
    pub fn of(needs: Needs) -> &'static [Self] {
        match (needs.kafka, needs.redis) {
            (false, false) => &[Self::Nowhere],
            (true, false) => &[Self::Kafka, Self::Kafka3],
            (false, true) => &[Self::Redis, Self::RedisSentinel, Self::RedisCluster],
            (true, true) => &[Self::Both],
        }
    }

    /// Whether a case runs here: on three brokers only those do for which the number of brokers matters, and only with
    /// a strategy's defaults.
    pub fn runs(self, case: &str, defaults: bool) -> bool {
        self != Self::Kafka3 || defaults && ON_THREE_BROKERS.contains(&case)
    }

    pub fn suffix(self) -> &'static str {
        match self {
            Self::Kafka3 => "@kafka3",
            Self::RedisSentinel => "@sentinel",
            Self::RedisCluster => "@cluster",
            _ => "",
        }
    }

    fn request(self) -> Request {
        let kafka = match self {
            Self::Kafka | Self::Both => Some(KafkaTopology::Single),
            Self::Kafka3 => Some(KafkaTopology::Three),
            _ => None,
        };
        let redis = match self {
            Self::Nowhere | Self::Kafka | Self::Kafka3 => None,
            Self::Redis | Self::Both => Some(RedisTopology::Single),
            Self::RedisSentinel => Some(RedisTopology::Sentinel),
            Self::RedisCluster => Some(RedisTopology::Cluster),
        };
        let request = Request { kafka, redis, purpose: Purpose::Tests, kafka_given: None, redis_given: None };
        match self {
            // Addresses that the user gives name one plain broker; the other topologies are ours alone.
            Self::Kafka3 | Self::RedisSentinel | Self::RedisCluster => request,
            _ => request.with_environment(),
        }
    }
}

/// Brokers by place.
#[derive(Default)]
pub struct Brokers(Mutex<HashMap<Place, Environment>>);

impl Brokers {
    /// Addresses of Kafka and Redis at a place, started if need be.
    pub fn addresses(&self, place: Place) -> Result<(Option<String>, Option<String>)> {
        let mut started = self.0.lock();
        let environment = match started.entry(place) {
            Entry::Occupied(running) => running.into_mut(),
            Entry::Vacant(empty) => empty.insert(Environment::start(&place.request())?),
        };
        Ok((environment.kafka().map(str::to_owned), environment.redis().map(str::to_owned)))
    }

    /// Stops everything.
    pub fn stop(&self) {
        self.0.lock().clear();
    }
}
