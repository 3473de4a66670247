//! The `compose` command as a person or a Makefile uses it.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use manifold_compose::detached::State;
use rustix::process::{Pid, Signal, kill_process};

use support::{eventually, is_gone, redis_ask, redis_hosts};

/// The command with a state folder of its own, and no addresses from the environment.
fn compose(states: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_compose"));
    command.args(words).env("XDG_RUNTIME_DIR", states).env_remove("KAFKA_BOOTSTRAP").env_remove("REDIS_URL");
    command
}

fn run(states: &Path, words: &[&str]) -> Output {
    compose(states, words).output().unwrap()
}

fn succeeds(states: &Path, words: &[&str]) -> String {
    let output = run(states, words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that a failing command says.
fn fails(states: &Path, words: &[&str]) -> String {
    let output = run(states, words);
    assert!(!output.status.success(), "{words:?} succeeded");
    assert!(output.stdout.is_empty(), "{words:?}: an error belongs on standard error");
    String::from_utf8(output.stderr).unwrap()
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

#[test]
fn up_status_down() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path();
    assert!(fails(states, &["status"]).contains("nothing is up"));
    assert!(fails(states, &["down"]).contains("nothing is up under the name `default`"));

    let line = succeeds(states, &["up", "hybrid", "--purpose", "tests", "--json"]);
    assert_eq!(line.lines().count(), 1);
    let addresses: serde_json::Value = serde_json::from_str(&line).unwrap();
    support::kafka_works(addresses["kafka"].as_str().unwrap()).unwrap();
    let redis = redis_hosts(addresses["redis"].as_str().unwrap()).remove(0);
    assert_eq!(redis_ask::<String>(&redis, &["PING"]).unwrap(), "PONG");

    let state: State = serde_json::from_str(&succeeds(states, &["status", "--json"])).unwrap();
    assert_eq!((state.name.as_str(), state.strategy.as_str()), ("default", "hybrid"));
    assert!(fails(states, &["up", "memory"]).contains("something is up under the name `default` already"));
    // Under another name there is room.
    assert_eq!(succeeds(states, &["up", "memory", "--name", "second", "--json"]), "{}\n");
    assert!(succeeds(states, &["status"]).contains("second: memory"));
    succeeds(states, &["down", "--name", "second"]);

    succeeds(states, &["down"]);
    assert!(is_gone(state.holder_pid) && state.processes.iter().all(|process| is_gone(process.pid)));
    assert!(!state.processes[0].log.ancestors().nth(2).unwrap().exists());
    assert!(fails(states, &["status", "--name", "default"]).contains("nothing is up"));
}

#[test]
fn a_killed_holder_takes_everything_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path();
    succeeds(states, &["up", "redis-pubsub", "--topology", "redis-sentinel"]);
    let state: State = serde_json::from_str(&succeeds(states, &["status", "--json"])).unwrap();
    assert_eq!(state.processes.len(), 5);
    signal(state.holder_pid, Signal::KILL);
    for process in &state.processes {
        eventually("its processes die", || is_gone(process.pid));
    }
    eventually("its name is free", || run(states, &["status"]).status.code() == Some(1));
}

#[test]
fn mistakes_are_refused_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let states = folder.path();
    for (words, expected) in [
        (&["up", "kafka-keyd"][..], "no strategy is named `kafka-keyd`; there are memory, "),
        (&["up", "redis-pubsub", "--topology", "kafka3"], "does not use that broker"),
        (&["up", "redis-pubsub", "--topology", "redis9"], "no topology is named `redis9`; there are kafka, "),
        (&["up", "memory", "--name", "../etc"], "is no name for a state"),
        (&["up", "kafka-keyed", "--kafka", "127.0.0.1:1"], "the given Kafka (127.0.0.1:1) was not ready"),
        (&["chat", "memory", "--nodes", "3"], "use --nodes 1"),
        (&["chat", "memory", "--binary", "/nowhere"], "cargo build -p manifold-server"),
    ] {
        let text = fails(states, words);
        assert!(text.contains(expected) && text.trim_end().lines().count() == 1, "{words:?}: {text}");
    }
    assert!(fails(states, &["status"]).contains("nothing is up"));
}

#[test]
fn a_missing_tool_is_named_with_the_way_to_install_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = compose(folder.path(), &["up", "kafka-keyed"]);
    command.env("PATH", "/nowhere").env_remove("JAVA_HOME").env("MANIFOLD_CACHE", folder.path());
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(text.contains("apt install") && text.contains("brew install"), "{text}");
}

#[test]
fn an_up_that_is_given_up_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = compose(folder.path(), &["up", "redis-pubsub", "--topology", "redis-cluster"]);
    let mut up = up.stdout(Stdio::null()).spawn().unwrap();
    // Its state appears before its brokers are ready, which for a cluster takes seconds.
    let file = folder.path().join("manifold/default.json");
    eventually("the holder is there", || fs::read(&file).is_ok_and(|text| !text.is_empty()));
    let state: State = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(state.addresses, None);
    up.kill().unwrap();
    up.wait().unwrap();
    eventually("the holder follows", || is_gone(state.holder_pid));
    assert!(fails(folder.path(), &["status"]).contains("nothing is up"));
}

#[test]
fn chat_runs_until_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let server = support::stand_in_server(folder.path());
    let port = support::free_port_range(2).to_string();
    let words = [
        "chat",
        "redis-pubsub",
        "--nodes",
        "2",
        "--listen-base-port",
        &port,
        "--binary",
        server.to_str().unwrap(),
    ];
    let mut chat = compose(folder.path(), &words).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(chat.stdout.take().unwrap()).lines().map(Result::unwrap);
    let said: Vec<String> = lines.by_ref().take_while(|line| !line.starts_with("Ctrl-C")).collect();
    assert!(said.iter().any(|line| line.contains(&format!("n1  http://127.0.0.1:{port}/"))), "{said:?}");
    let redis = said.iter().find_map(|line| line.trim().strip_prefix("redis  pid ")).unwrap();
    let redis: u32 = redis.split(' ').next().unwrap().parse().unwrap();
    signal(chat.id(), Signal::INT);
    assert!(chat.wait().unwrap().success());
    assert!(is_gone(redis));
}
