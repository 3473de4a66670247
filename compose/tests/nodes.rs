//! Nodes: started, added, restarted, drained, and what is said when one fails. A stand-in plays the server here; the
//! server's own tests run the real one.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::time::Duration;

use manifold_compose::{Environment, NodeSpec, Nodes, Process, Request};

use support::{is_gone, stand_in_server};

fn spec(folder: &std::path::Path) -> NodeSpec {
    NodeSpec {
        binary: stand_in_server(folder),
        strategy: "redis-pubsub".to_owned(),
        nodes: 2,
        namespace: "test".to_owned(),
        strategy_options: vec!["interest=bucket".to_owned()],
        ..NodeSpec::default()
    }
}

#[test]
fn nodes_start_grow_restart_and_drain() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::start(&Request::redis()).unwrap();
    let mut nodes = Nodes::start(&spec(folder.path()), &environment).unwrap();
    assert_eq!(nodes.add().unwrap().name(), "n3");
    assert_eq!(nodes.processes().iter().map(Process::name).collect::<Vec<_>>(), ["n1", "n2", "n3"]);
    let urls = nodes.urls();
    assert!(urls[0].starts_with("ws://127.0.0.1:") && urls[0].ends_with("/connection/websocket"), "{urls:?}");

    let second = nodes.process("n2").unwrap();
    let arguments = second.log_tail();
    let redis = environment.redis().unwrap();
    for expected in
        ["--strategy redis-pubsub", "--node n2", "--namespace test", "--strategy-option interest=bucket"]
    {
        assert!(arguments.contains(expected), "{arguments}");
    }
    assert!(arguments.contains(&format!("--redis {redis}")) && !arguments.contains("--kafka"), "{arguments}");
    second.kill().unwrap();
    second.restart().unwrap();
    assert_eq!(nodes.urls(), urls, "a restarted node keeps its address");

    assert_eq!(nodes.terminate(Duration::from_secs(10)).unwrap(), Vec::<String>::new());
    for process in nodes.processes() {
        assert!(!process.is_running());
        assert!(process.log_tail().ends_with("drained"), "{}", process.log_tail());
    }
}

#[test]
fn nodes_die_with_their_value() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::start(&Request::for_strategy("memory").unwrap()).unwrap();
    let nodes = Nodes::start(&spec(folder.path()), &environment).unwrap();
    let pids: Vec<u32> = nodes.processes().iter().map(Process::pid).collect();
    drop(nodes);
    assert!(pids.into_iter().all(is_gone));
}

#[test]
fn a_node_that_does_not_come_up_shows_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let environment = Environment::start(&Request::for_strategy("memory").unwrap()).unwrap();
    let refused = NodeSpec { extra_args: vec!["--refuse".to_owned()], ..spec(folder.path()) };
    let text = Nodes::start(&refused, &environment).unwrap_err().to_string();
    assert!(text.contains("n1 ended by itself") && text.contains("refused to start"), "{text}");
}
