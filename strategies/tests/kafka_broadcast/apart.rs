//! The copies of a message come apart: a publisher's retry, or a partition that gets another leader. Nobody gets again what it
//! has.

use std::time::Duration;

use manifold_strategies::envelope::encode;
use manifold_strategies::{Backplane, PageQuery, Position, Resumed, RoomId};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::brokers::{address, shared};
use crate::node::{DEADLINE, Node, ROOM, envelope, namespace, run};

const TOP: PageQuery = PageQuery { since: None, limit: 0, reverse: false };

/// Where a client stands that has everything so far.
async fn place(node: &Node) -> Position {
    let history = node.backplane.history().expect("history");
    history.page(&RoomId::new(ROOM), TOP).await.expect("a page").top
}

/// A message as it travels.
fn record(number: u64) -> Vec<u8> {
    let mut record = Vec::new();
    encode(&envelope(number), None, &mut record);
    record
}

/// Writes a message to one copy only.
fn write(producer: &BaseProducer, namespace: &str, copy: Position, record: &[u8]) {
    let topic = format!("{namespace}.broadcast");
    let partition = (copy.epoch & 0xffff) as i32;
    let sent = producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(partition).payload(record));
    sent.map_err(|(error, _)| error).expect("sent");
    producer.flush(DEADLINE).expect("acknowledged");
}

#[test]
fn who_comes_before_the_own_copy_of_what_it_has_gets_it_no_second_time() {
    let environment = shared();
    let (kafka, namespace) = (address(&environment), namespace());
    run(async move {
        let first = Node::start(&kafka, &namespace, "first", "").await;
        let other = Node::start(&kafka, &namespace, "other", "").await;
        first.publish(0).await.expect("published");
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", &kafka).create().expect("a producer");
        let late = record(1);
        write(&producer, &namespace, place(&first).await, &late);
        first.wait_for(1).await;
        let (since, before) = (place(&first).await, place(&other).await);
        let history = other.backplane.history().expect("history");
        let mut resumed = history.resume(&RoomId::new(ROOM), since, 300);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut resumed).await;
        assert!(early.is_err(), "it would come once more: {early:?}");
        write(&producer, &namespace, before, &late);
        let Resumed::Complete { messages, top } = resumed.await.expect("an answer") else {
            panic!("incomplete, though it is there");
        };
        assert!(messages.is_empty(), "{messages:?}");
        assert!(top.offset > before.offset, "what comes later lies behind it: {top:?}");

        // One that never comes is not waited for without end.
        write(&producer, &namespace, since, &record(2));
        first.wait_for(2).await;
        let since = place(&first).await;
        let resumed = history.resume(&RoomId::new(ROOM), since, 300).await.expect("an answer");
        assert!(matches!(resumed, Resumed::Incomplete { .. }), "{resumed:?}");
        first.shutdown().await;
        other.shutdown().await;
    });
}
