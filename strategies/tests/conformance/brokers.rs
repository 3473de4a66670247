//! The real brokers of the suite, each kind started when the first case asks for it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use anyhow::Result;
use manifold_compose::{Environment, KafkaTopology, Purpose, RedisTopology, Request};
use manifold_strategies::Needs;
use parking_lot::Mutex;

/// Where a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    Nowhere,
    Kafka,
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
            (true, false) => &[Self::Kafka],
            (false, true) => &[Self::Redis, Self::RedisSentinel, Self::RedisCluster],
            (true, true) => &[Self::Both],
        }
    }

    pub fn suffix(self) -> &'static str {
        match self {
            Self::RedisSentinel => "@sentinel",
            Self::RedisCluster => "@cluster",
            _ => "",
        }
    }

    fn request(self) -> Request {
        let kafka = matches!(self, Self::Kafka | Self::Both).then_some(KafkaTopology::Single);
        let redis = match self {
            Self::Nowhere | Self::Kafka => None,
            Self::Redis | Self::Both => Some(RedisTopology::Single),
            Self::RedisSentinel => Some(RedisTopology::Sentinel),
            Self::RedisCluster => Some(RedisTopology::Cluster),
        };
        let request = Request { kafka, redis, purpose: Purpose::Tests, kafka_given: None, redis_given: None };
        match self {
            // Addresses that the user gives name one plain broker; the other topologies are ours alone.
            Self::RedisSentinel | Self::RedisCluster => request,
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
