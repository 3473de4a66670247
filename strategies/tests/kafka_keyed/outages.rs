//! Outages that are longer than a publisher waits.

use std::time::Instant;

use manifold_compose::{Condition, Environment, Request};
use manifold_strategies::ErrorKind;

use crate::harness::{DEADLINE, Node, envelope, namespace};

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
