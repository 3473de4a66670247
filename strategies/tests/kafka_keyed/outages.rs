//! Outages that are longer than a publisher waits.

use std::time::{Duration, Instant};

use manifold_compose::{Condition, Environment, Process, Request};
use manifold_strategies::ErrorKind;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::harness::{DEADLINE, Node, envelope, namespace, own_broker};

/// A message that its publisher was told nothing about keeps its place: it is written when the broker is there again, before
/// what was published after it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_given_up_is_written_in_its_place() {
    let broker = Environment::start_with_links(&Request::kafka()).expect("a Kafka broker behind a link");
    let (kafka, namespace) = (broker.kafka().expect("an address"), namespace());
    let node = Node::connect(kafka, &namespace, "node", "partitions = 2\nmessage_timeout_ms = 1000").await;
    node.join("room").await;
    node.publish("room", "before").await;
    let link = broker.links().first().expect("the broker's link");
    link.set(Condition::Cut);
    let error =
        node.backplane.publish(envelope("room", "given up")).await.expect_err("the broker is out of reach");
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.is_temporary(), "{error}");
    link.set(Condition::Open);
    let (after, deadline) = (envelope("room", "after"), Instant::now() + DEADLINE);
    while let Err(error) = node.backplane.publish(after.clone()).await {
        assert!(error.is_temporary() && Instant::now() < deadline, "{error}");
    }
    node.inbox.wait_for("after").await;
    assert_eq!(node.inbox.texts(), ["before", "given up", "after"]);
    node.shutdown().await;
}

/// A broker whose heartbeats come too late is fenced by its controller, and describes a cluster without brokers, itself included.
/// Who believes that forgets where the broker is.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_was_fenced_is_found_again() {
    let environment = own_broker();
    let (kafka, namespace) = (environment.kafka().expect("an address"), namespace());
    let settings = "partitions = 2\nmessage_timeout_ms = 1000";
    let node = Node::connect(kafka, &namespace, "node", settings).await;
    node.join("room").await;
    node.publish("room", "before").await;
    let process = environment.process("kafka-1").expect("the broker");
    // It counts as gone for most of the time between two heartbeats.
    let usual = set_sessions(process, "1000", "5000");
    process.launch().expect("the broker starts again");
    let began = Instant::now();
    let mut fenced = 0;
    while fenced < 3 {
        wait_for_brokers(kafka, 0).await;
        fenced += 1;
        // Whether it is taken depends on the moment; that the node asks where the broker is does not.
        let _ = node.backplane.publish(envelope("room", "while fenced")).await;
        wait_for_brokers(kafka, 1).await;
        assert!(began.elapsed() < 2 * DEADLINE, "fenced {fenced} times only");
    }
    set_sessions(process, &usual.0, &usual.1);
    process.launch().expect("the broker starts again");
    wait_for_brokers(kafka, 1).await;
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = node.backplane.publish(envelope("room", "after")).await {
        assert!(error.is_temporary() && Instant::now() < deadline, "the broker is not found again: {error}");
    }
    node.inbox.wait_for("after").await;
    node.shutdown().await;
}

/// Writes how long the broker's session lasts and how often it is renewed, in ms, into its settings. Returns what was there.
fn set_sessions(broker: &Process, timeout: &str, interval: &str) -> (String, String) {
    let path = broker.log_path().with_file_name("server.properties");
    let mut text = std::fs::read_to_string(&path).expect("the broker's settings");
    let mut set = |key: &str, value: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).expect(key).to_owned();
        text = text.replace(&line, &format!("{key}={value}"));
        line[key.len() + 1..].to_owned()
    };
    let usual = (set("broker.session.timeout.ms", timeout), set("broker.heartbeat.interval.ms", interval));
    std::fs::write(&path, text).expect("written");
    usual
}

/// Waits until the cluster says that it has so many brokers.
async fn wait_for_brokers(kafka: &str, count: usize) {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let look = move || {
        let began = Instant::now();
        let counted = |metadata: rdkafka::metadata::Metadata| metadata.brokers().len();
        while client.fetch_metadata(Some("nothing"), Duration::from_secs(1)).map(counted) != Ok(count) {
            assert!(began.elapsed() < DEADLINE, "the cluster does not come to have {count} brokers");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    tokio::task::spawn_blocking(look).await.expect("they were counted");
}
