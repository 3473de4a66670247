//! What the integration tests share: seeing whether a process is gone, and using brokers as a stranger would.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use manifold_compose::{Environment, Process};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

/// Far more than anything takes; tests end as soon as what they wait for has happened.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for a condition, or fails the test.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}");
        std::thread::yield_now();
    }
}

/// Whether no process has that number, or only a dead one that nobody has reaped yet.
pub(crate) fn is_gone(pid: u32) -> bool {
    let answer = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    let state = String::from_utf8(answer.stdout).unwrap();
    // `Zl`: its first thread has ended and others have not yet, so its locks are still held.
    state.trim().is_empty() || (state.trim().starts_with('Z') && !state.contains('l'))
}

/// The state letter of a process, e.g. `T` where it is stopped.
pub(crate) fn state_of(pid: u32) -> String {
    let answer = Command::new("ps").args(["-o", "stat=", "-p", &pid.to_string()]).output().unwrap();
    String::from_utf8(answer.stdout).unwrap().trim().chars().take(1).collect()
}

/// Drops an environment and sees that its processes and its folder are gone.
pub(crate) fn drop_and_find_nothing(environment: Environment) {
    let pids: Vec<u32> = environment.processes().iter().map(Process::pid).collect();
    let log = environment.processes()[0].log_path().to_owned();
    let folder = log.ancestors().nth(2).unwrap().to_owned();
    assert!(folder.is_dir());
    drop(environment);
    for pid in pids {
        assert!(is_gone(pid), "process {pid} survived");
    }
    assert!(!folder.exists(), "{} survived", folder.display());
}

/// Produces a record to the topic by which brokers show that they serve, and reads the last record of it.
pub(crate) fn kafka_works(bootstrap: &str) -> Result<(), String> {
    const TOPIC: &str = "__manifold_ready";
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("message.timeout.ms", "1500")
        .set("group.id", "unused")
        .set("reconnect.backoff.max.ms", "200");
    let producer: BaseProducer = config.create().map_err(|error| error.to_string())?;
    producer
        .send(BaseRecord::<[u8], [u8]>::to(TOPIC).partition(0).payload(b"test"))
        .map_err(|(error, _)| error.to_string())?;
    producer.flush(Duration::from_secs(2)).map_err(|error| error.to_string())?;
    let consumer: BaseConsumer = config.create().map_err(|error| error.to_string())?;
    let (_, end) =
        consumer.fetch_watermarks(TOPIC, 0, Duration::from_secs(5)).map_err(|error| error.to_string())?;
    if end > 0 { Ok(()) } else { Err("nothing was written".to_owned()) }
}

/// One command to the server at `host:port`.
pub(crate) fn redis_ask<T: redis::FromRedisValue>(address: &str, words: &[&str]) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("redis://{address}"))?;
    let connection = &mut client.get_connection_with_timeout(Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    redis::Cmd::new().arg(words).query(connection)
}

/// The servers named in a Redis address of any shape.
pub(crate) fn redis_hosts(url: &str) -> Vec<String> {
    let (_, rest) = url.split_once("://").unwrap();
    rest.split('/').next().unwrap().split(',').map(str::to_owned).collect()
}

/// Writes a program that takes the server's command line, listens to nothing, and says what a server says.
pub(crate) fn stand_in_server(folder: &Path) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;

    const SCRIPT: &str = r#"#!/bin/sh
echo "arguments: $*" >&2
listen=
while [ $# -gt 0 ]; do
    case $1 in
    --listen) listen=$2 ;;
    --refuse) echo "refused to start" >&2; exit 1 ;;
    esac
    shift
done
trap 'echo drained >&2; exit 0' TERM
echo "listening on http://$listen"
while :; do sleep 0.1; done
"#;
    let path = folder.join("chat-server");
    std::fs::write(&path, SCRIPT).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The first of some ports in a row that are free now.
pub(crate) fn free_port_range(length: u16) -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    (10_000..20_000).step_by(10).find(|first| (0..length).all(|offset| free(first + offset))).unwrap()
}
