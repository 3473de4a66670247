//! Every topology starts, is usable, and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::{Duration, Instant};

use futures_executor::block_on;
use manifold_compose::{Environment, Process, Purpose, Request, Topology};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;

use support::{drop_and_find_nothing, eventually, kafka_works, redis_ask, redis_hosts};

fn names(environment: &Environment) -> Vec<&str> {
    environment.processes().iter().map(Process::name).collect()
}

#[test]
fn one_kafka_and_one_redis_for_figures() {
    let request = Request::for_strategy("hybrid").unwrap().with_purpose(Purpose::Figures);
    let environment = Environment::start(&request).unwrap();
    assert_eq!(names(&environment), ["kafka-1", "redis"]);
    kafka_works(environment.kafka().unwrap()).unwrap();
    let redis = environment.redis().unwrap().strip_prefix("redis://").unwrap().to_owned();
    assert_eq!(redis_ask::<String>(&redis, &["PING"]).unwrap(), "PONG");
    let versions = environment.versions();
    assert!(versions.kafka.is_some() && versions.java.is_some() && versions.redis.is_some(), "{versions:?}");
    drop_and_find_nothing(environment);
}

#[test]
fn three_kafka_brokers_replicate_threefold() {
    let request = Request::kafka().with_topology(Topology::Kafka3).unwrap();
    let environment = Environment::start(&request).unwrap();
    assert_eq!(names(&environment), ["kafka-1", "kafka-2", "kafka-3"]);
    let bootstrap = environment.kafka().unwrap();
    assert_eq!(bootstrap.split(',').count(), 3);
    kafka_works(bootstrap).unwrap();

    // A topic that asks for nothing gets three replicas and needs two of them.
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let topic = NewTopic::new("plain", 1, TopicReplication::Fixed(-1));
    block_on(admin.create_topics([&topic], &options)).unwrap()[0].as_ref().unwrap();
    eventually("every broker knows the topic and its three replicas", || {
        let metadata = admin.inner().fetch_metadata(Some("plain"), Duration::from_secs(5)).unwrap();
        metadata.topics()[0].partitions().first().is_some_and(|partition| partition.isr().len() == 3)
    });
    let config = block_on(admin.describe_configs([&ResourceSpecifier::Topic("plain")], &options)).unwrap();
    let in_sync = config[0].as_ref().unwrap().get("min.insync.replicas").unwrap().value.clone();
    assert_eq!(in_sync.as_deref(), Some("2"));

    // One broker fewer: what is acknowledged by two is enough. And it comes back.
    let second = environment.process("kafka-2").unwrap();
    second.kill().unwrap();
    eventually("two brokers of three serve", || kafka_works(bootstrap).is_ok());
    second.restart().unwrap();
    drop(admin);
    drop_and_find_nothing(environment);
}

#[test]
fn sentinels_promote_the_replica() {
    let request = Request::redis().with_topology(Topology::RedisSentinel).unwrap();
    let environment = Environment::start(&request).unwrap();
    assert_eq!(names(&environment), ["redis", "redis-replica", "sentinel-1", "sentinel-2", "sentinel-3"]);
    let url = environment.redis().unwrap();
    assert!(url.starts_with("redis+sentinel://") && url.ends_with("/mymaster"), "{url}");
    let sentinels = redis_hosts(url);
    let master = || {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"];
        redis_ask::<(String, String)>(&sentinels[0], &words).map(|(host, port)| format!("{host}:{port}"))
    };
    let before = master().unwrap();
    assert_eq!(redis_ask::<String>(&before, &["SET", "key", "value"]).unwrap(), "OK");
    let killed = Instant::now();
    environment.process("redis").unwrap().kill().unwrap();
    eventually("the replica takes over", || {
        master().is_ok_and(|now| now != before && redis_ask::<String>(&now, &["SET", "key", "new"]).is_ok())
    });
    println!("sentinel fail-over took {:.2} s", killed.elapsed().as_secs_f64());
    environment.process("redis").unwrap().restart().unwrap();
    drop_and_find_nothing(environment);
}

#[test]
fn a_redis_cluster_covers_every_slot() {
    let request = Request::redis().with_topology(Topology::RedisCluster).unwrap();
    let environment = Environment::start(&request).unwrap();
    assert_eq!(names(&environment), ["redis-1", "redis-2", "redis-3"]);
    let url = environment.redis().unwrap();
    assert!(url.starts_with("redis+cluster://"), "{url}");
    let urls: Vec<String> = redis_hosts(url).iter().map(|host| format!("redis://{host}")).collect();
    let client = redis::cluster::ClusterClient::new(urls.clone()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for number in 0..100 {
        // Keys spread over all slots, so every master is asked.
        let key = format!("key-{number}");
        let _: () = redis::cmd("SET").arg(&key).arg(number).query(&mut connection).unwrap();
        let back: u32 = redis::cmd("GET").arg(&key).query(&mut connection).unwrap();
        assert_eq!(back, number);
    }
    // Its place in the cluster survives a restart; its keys do not, nothing is kept on disk.
    let first = environment.process("redis-1").unwrap();
    first.kill().unwrap();
    first.restart().unwrap();
    let info: String = redis_ask(&redis_hosts(url)[0], &["CLUSTER", "INFO"]).unwrap();
    assert!(info.contains("cluster_slots_ok:16384"), "{info}");
    drop_and_find_nothing(environment);
}

#[test]
fn given_addresses_are_used_and_left_alone() {
    let ours = Environment::start(&Request::redis()).unwrap();
    let request = Request { redis_given: ours.redis().map(str::to_owned), ..Request::redis() };
    let given = Environment::start(&request).unwrap();
    assert_eq!(given.redis(), ours.redis());
    assert!(given.processes().is_empty());
    drop(given);
    assert!(ours.processes()[0].is_running());
}

#[test]
fn a_given_address_without_a_server_is_refused() {
    let redis = Request { redis_given: Some("redis://127.0.0.1:1".to_owned()), ..Request::redis() };
    let text = Environment::start(&redis).unwrap_err().to_string();
    assert!(text.contains("the given Redis"), "{text}");
    let kafka = Request { kafka_given: Some("127.0.0.1:1".to_owned()), ..Request::kafka() };
    let text = Environment::start(&kafka).unwrap_err().to_string();
    assert!(text.contains("the given Kafka (127.0.0.1:1)"), "{text}");
}
