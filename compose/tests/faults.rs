//! What the fault handle does to a process, and that environments do not disturb each other.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use manifold_compose::{Environment, Error, Request};

use support::{drop_and_find_nothing, eventually, is_gone, kafka_works, redis_ask, redis_hosts, state_of};

#[test]
fn redis_is_stopped_continued_killed_and_restarted() {
    let environment = Environment::start(&Request::redis()).unwrap();
    let redis = environment.process("redis").unwrap();
    let address = redis_hosts(environment.redis().unwrap()).remove(0);
    let first = redis.pid();

    redis.stop().unwrap();
    assert_eq!(state_of(first), "T");
    assert!(redis.is_running());
    redis.cont().unwrap();
    eventually("it answers again", || redis_ask::<String>(&address, &["PING"]).is_ok());

    redis.kill().unwrap();
    assert!(is_gone(first) && !redis.is_running());
    redis.kill().unwrap();
    assert!(matches!(redis.stop(), Err(Error::ProcessState { .. })));
    assert!(redis_ask::<String>(&address, &["PING"]).is_err());

    redis.restart().unwrap();
    assert_ne!(redis.pid(), first);
    assert_eq!(redis_ask::<String>(&address, &["PING"]).unwrap(), "PONG");

    // Even a stopped process can be asked to leave, and leaves by itself.
    redis.stop().unwrap();
    let status = redis.terminate(Duration::from_secs(10)).unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    redis.restart().unwrap();

    let handle = redis.clone();
    drop_and_find_nothing(environment);
    assert!(
        matches!(handle.restart(), Err(Error::ProcessState { .. })),
        "a handle must not outlive its owner"
    );
}

#[test]
fn kafka_keeps_its_data_through_kill_and_restart() {
    let environment = Environment::start(&Request::kafka()).unwrap();
    let kafka = environment.process("kafka-1").unwrap();
    let bootstrap = environment.kafka().unwrap().to_owned();
    kafka_works(&bootstrap).unwrap();
    let before = end_offset(&bootstrap);
    kafka.kill().unwrap();
    assert!(kafka_works(&bootstrap).is_err());
    kafka.restart().unwrap();
    assert_eq!(environment.kafka(), Some(bootstrap.as_str()));
    // What was there is there, and one record of the restart's own readiness.
    assert_eq!(end_offset(&bootstrap), before + 1);
    kafka.stop().unwrap();
    assert!(kafka_works(&bootstrap).is_err());
    kafka.cont().unwrap();
    eventually("it serves again", || kafka_works(&bootstrap).is_ok());
    let status = kafka.terminate(Duration::from_secs(20)).unwrap();
    // A JVM that left on SIGTERM says 143; killed, it would carry a signal.
    assert_eq!((status.code(), status.signal()), (Some(143), None));
    drop_and_find_nothing(environment);
}

fn end_offset(bootstrap: &str) -> i64 {
    use rdkafka::consumer::{BaseConsumer, Consumer};

    let mut config = rdkafka::ClientConfig::new();
    let consumer: BaseConsumer =
        config.set("bootstrap.servers", bootstrap).set("group.id", "unused").create().unwrap();
    consumer.fetch_watermarks("__manifold_ready", 0, Duration::from_secs(5)).unwrap().1
}

#[test]
fn environments_at_the_same_time_do_not_meet() {
    let start = || Environment::start(&Request::redis()).unwrap();
    let environments: Vec<Environment> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
        starting.into_iter().map(|start| start.join().unwrap()).collect()
    });
    for (number, environment) in environments.iter().enumerate() {
        let address = redis_hosts(environment.redis().unwrap()).remove(0);
        let size: usize = redis_ask(&address, &["DBSIZE"]).unwrap();
        assert_eq!(size, 0, "somebody else wrote here");
        let _: String = redis_ask(&address, &["SET", "owner", &number.to_string()]).unwrap();
    }
    environments.into_iter().for_each(drop_and_find_nothing);
}

#[test]
fn a_process_that_cannot_start_shows_its_log() {
    let environment = Environment::start(&Request::redis()).unwrap();
    let redis = environment.process("redis").unwrap();
    redis.kill().unwrap();
    let config = redis.log_path().with_file_name("redis.conf");
    std::fs::write(config, "no-such-setting yes\n").unwrap();
    let text = redis.restart().unwrap_err().to_string();
    assert!(text.contains("redis ended by itself") && text.contains("no-such-setting"), "{text}");
}
