//! What can be done to brokers that run: topics, configuration, slots, and resources that run out.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use manifold_compose::{Environment, Error, Request, Topology};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use support::{eventually, kafka_works, redis_ask, redis_hosts};

/// The topic by which brokers show that they serve.
const TOPIC: &str = "__manifold_ready";

fn partitions(bootstrap: &str) -> usize {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(TOPIC), Duration::from_secs(5)).unwrap();
    metadata.topics()[0].partitions().len()
}

#[test]
fn topics_grow_and_go() {
    let environment = Environment::start(&Request::kafka()).unwrap();
    let bootstrap = environment.kafka().unwrap();
    let before = partitions(bootstrap);
    assert_eq!(environment.grow_kafka_topics("no-such-topic").unwrap(), Vec::<String>::new());
    assert_eq!(environment.grow_kafka_topics(TOPIC).unwrap(), [TOPIC]);
    assert_eq!(partitions(bootstrap), 2 * before);
    assert_eq!(environment.delete_kafka_topics(TOPIC).unwrap(), [TOPIC]);
    eventually("the topic is gone", || partitions(bootstrap) == 0);
    assert_eq!(environment.move_redis_slots(1).unwrap(), None);
}

#[test]
fn a_disk_that_is_full_ends_a_broker_and_a_restart_finds_room_again() {
    let environment = Environment::start(&Request::kafka()).unwrap();
    let kafka = environment.process("kafka-1").unwrap();
    let bootstrap = environment.kafka().unwrap();
    kafka.limit_file_size(Some(0)).unwrap();
    eventually("the broker gives up", || kafka_works(bootstrap).is_err() && !kafka.is_running());
    assert!(matches!(kafka.limit_file_size(None), Err(Error::ProcessState { .. })));
    kafka.restart().unwrap();
    kafka_works(bootstrap).unwrap();
}

#[test]
fn redis_is_reconfigured_and_runs_out_of_descriptors() {
    let environment = Environment::start(&Request::redis()).unwrap();
    let address = redis_hosts(environment.redis().unwrap()).remove(0);
    environment.configure_redis("maxmemory", "1").unwrap();
    assert!(redis_ask::<String>(&address, &["SET", "key", "value"]).is_err(), "no memory is left");
    environment.configure_redis("maxmemory", "0").unwrap();
    redis_ask::<String>(&address, &["SET", "key", "value"]).unwrap();
    assert!(matches!(environment.configure_redis("no-such-key", "1"), Err(Error::State(_))));

    let redis = environment.process("redis").unwrap();
    // Connections of the questions before may still be closing, and leave room.
    eventually("a connection needs a descriptor", || {
        redis.limit_open_files(Some(4)).unwrap();
        redis_ask::<String>(&address, &["PING"]).is_err()
    });
    redis.limit_open_files(None).unwrap();
    redis.limit_open_files(None).unwrap();
    eventually("it answers again", || redis_ask::<String>(&address, &["PING"]).is_ok());
}

#[test]
fn slots_move_with_their_keys() {
    let request = Request::redis().with_topology(Topology::RedisCluster).unwrap();
    let environment = Environment::start(&request).unwrap();
    let hosts = redis_hosts(environment.redis().unwrap());
    // The last slots of the first server are those that move.
    let moves = |key: &String| (5_458..5_461).contains(&slot(&hosts[0], key));
    let key = (0..200_000).map(|number: u32| number.to_string()).find(moves).unwrap();
    redis_ask::<String>(&hosts[0], &["SET", &key, "value"]).unwrap();
    assert_eq!(environment.move_redis_slots(3).unwrap(), Some(1));
    assert_eq!(redis_ask::<String>(&hosts[1], &["GET", &key]).unwrap(), "value");
    assert!(
        redis_ask::<String>(&hosts[0], &["GET", &key])
            .unwrap_err()
            .to_string()
            .to_lowercase()
            .contains("moved")
    );
}

fn slot(host: &str, key: &str) -> u32 {
    redis_ask::<u32>(host, &["CLUSTER", "KEYSLOT", key]).unwrap()
}
